"""Drills: a scenario over days, with the real sensors and jobs, in a store of its own."""

import datetime
from pathlib import Path

import pytest

from creditrisk_assets.simulation.card_customers import simulate
from creditrisk_assets.simulation.drill import (
    START,
    DrillReport,
    markdown,
    run_drill,
)
from creditrisk_assets.simulation.sandbox import SandboxInUse, fresh_sandbox
from creditrisk_assets.simulation.scenarios import Plan
from tests.support.places import REPOSITORY

pytestmark = pytest.mark.embedded("a sandbox is embedded, whatever store the project has")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text())
    return tmp_path


def drill(project: Path, scenario: str, **changes: int) -> DrillReport:
    numbers = {"days": 8, "rows": 250, "seed": 3, "onset": 3, "outcomes_after_days": 4} | changes
    said: list[str] = []
    return run_drill(
        project,
        Plan(scenario, START, strength=1.0, **numbers),
        None,
        False,
        lambda *news: said.append(news[2]),
        history_rows=4_000,
    )


def test_broken_files_block_their_days_call_for_a_person_and_cost_no_decision(
    project: Path,
) -> None:
    report = drill(project, "schema-break")
    assert report.first_alarm is not None
    assert (report.first_alarm.what, report.first_alarm.day) == (
        "Too many rows of the day are rejected or unreadable",
        "2025-01-04",
    )
    assert report.detection_delay_days == 0
    assert report.actions == ("page a human",)
    assert (report.landed, report.lost, report.alarms_before) == (8 * 250, 0, 0)
    page = markdown([report])
    assert "| schema-break |" in page
    assert "creditrisk drill schema-break --days 8 --rows 250 --strength 1 --seed 3" in page


def test_a_new_concept_is_seen_when_its_outcomes_arrive_and_answered_by_a_better_model(
    project: Path,
) -> None:
    report = drill(project, "concept-drift", days=11, rows=800, onset=2)
    assert report.first_alarm is not None
    assert report.detection_delay_days == 4  # not before the first outcomes of that day
    assert report.retrains >= 1
    assert report.promotions >= 1
    assert report.auc_disturbed < report.auc_before - 0.05
    assert report.auc_after > report.auc_disturbed
    assert report.lost == 0


def test_two_drills_of_one_scenario_at_once_are_refused(project: Path) -> None:
    with (
        fresh_sandbox(project / "data" / "drill" / "stable", project, simulate(100, 1), 0),
        pytest.raises(SandboxInUse, match="in use by another process"),
    ):
        drill(project, "stable")
    assert datetime.date.fromisoformat("2025-01-01") == START
