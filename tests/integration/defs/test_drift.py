"""Drift over days: what the checks make of the days before, of broken data, and the reports over several days."""

import json
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner
from upath import UPath

from creditrisk_assets.cli.main import app
from creditrisk_assets.defs.window_reports import NothingToReport, write_window_report
from creditrisk_assets.scoring.reference_profile import reference_profile_of
from tests.support.loop import Loop, checks, customers
from tests.support.policies import policy_of

DAYS = ["2026-05-01", "2026-05-02", "2026-05-03"]


def later(rows: int, seed: int, share: float) -> pd.DataFrame:
    """Customers of whom a share has paid one month later than it would have."""
    frame = customers(rows, seed)
    hit = np.random.default_rng(seed).random(rows) < share
    return frame.assign(pay_0=np.where(hit, np.minimum(frame["pay_0"] + 1, 9), frame["pay_0"]))


@pytest.fixture(scope="module")
def days(trained: Loop) -> tuple[Loop, dict[str, dg.ExecuteInProcessResult]]:
    """Three days of a small shift."""
    results = {}
    for place, day in enumerate(DAYS):
        trained.land_day(day, later(200, 40 + place, 0.3))
        results[day] = trained.run("score_production", day)
        assert results[day].success
    return trained, results


def evaluation(result: dg.ExecuteInProcessResult, check: str) -> tuple[bool, dict[str, Any]]:
    found = checks(result)[check]
    return found.passed, {name: value.value for name, value in found.metadata.items()}


def test_a_small_shift_that_stays_is_found_by_its_days_together(
    days: tuple[Loop, dict[str, dg.ExecuteInProcessResult]],
) -> None:
    loop, results = days
    passed = [evaluation(results[day], "feature_distributions_are_stable")[0] for day in DAYS]
    assert (passed[0], passed[2]) == (True, False)
    _, metadata = evaluation(results[DAYS[2]], "feature_distributions_are_stable")
    assert metadata["summary"].startswith("Fields have shifted: pay_0 ")
    assert metadata["observed"] > metadata["threshold"]
    assert (metadata["rows"], metadata["days"]) == (600, 3)
    assert metadata["model_version"] == loop.champion().model_version
    assert metadata["tier"] == "note"
    assert "source" in metadata["action"]
    assert loop.metadata("drift_report", DAYS[2])["drifted"] == "pay_0"


def test_the_same_day_checked_again_gives_the_same_bytes(
    days: tuple[Loop, dict[str, dg.ExecuteInProcessResult]],
) -> None:
    """Also when later days have come since: only days before it count."""
    loop, _ = days
    path = loop.settings.storage / "drift_report" / f"{DAYS[1]}.parquet"
    before = path.read_bytes()
    assert loop.run("score_production", DAYS[1]).success
    assert path.read_bytes() == before


def test_days_of_another_champion_do_not_count(
    days: tuple[Loop, dict[str, dg.ExecuteInProcessResult]],
) -> None:
    loop, _ = days
    kept = loop.settings.storage / "drift_report" / f"{DAYS[1]}.parquet"
    before = kept.read_bytes()
    try:
        frame = loop.frame("drift_report", DAYS[1]).assign(model_version="0")
        with kept.open("wb") as file:
            frame.to_parquet(file, index=False)
        assert loop.run("score_production", DAYS[2]).success
        assert loop.metadata("drift_report", DAYS[2])["days_together"] == 2
    finally:
        kept.write_bytes(before)
        assert loop.run("score_production", DAYS[2]).success


def test_broken_data_is_told_from_drift_and_names_its_field(trained: Loop) -> None:
    day, landed = "2026-05-20", customers(400, 50).astype({"bill_amt1": "object"})
    landed.loc[landed.index[::40], "bill_amt1"] = "n.a."
    landed.loc[landed.index[1:30:2], "pay_amt1"] = 16_000_000
    trained.land_day(day, landed)
    result = trained.run("score_production", day)
    assert result.success
    passed, metadata = evaluation(result, "data_quality_is_stable")
    assert not passed
    assert "pay_amt1: values out of range" in metadata["summary"]
    assert "rejected rows 2.50% > 0.50%" in metadata["summary"]
    assert metadata["tier"] == "look today"
    assert metadata["observed"] > metadata["threshold"]
    clean, quiet = evaluation(result, "score_distribution_is_stable")
    assert clean
    assert quiet["summary"] == "stable"


def test_the_profile_of_a_bundle_is_over_all_its_training_rows(trained: Loop) -> None:
    bundle = trained.bundle(trained.champion())
    assert reference_profile_of(bundle).rows == bundle.manifest.training.rows


def test_the_last_days_together_are_a_report_of_their_own(
    days: tuple[Loop, dict[str, dg.ExecuteInProcessResult]],
    reporting: Loop,
) -> None:
    report = write_window_report(reporting.instance, reporting.settings, 7, DAYS[2])
    assert (report.used, report.rows) == (DAYS[::-1], 600)
    assert report.stability.set_index("column").loc["pay_0", "drifted"]
    assert "<html" in UPath(report.html).read_text()[:200].lower()
    assert report.url == f"http://127.0.0.1:8000/reports/drift/windows/{DAYS[2]}/7"
    document = json.loads(UPath(report.html).with_name("report.json").read_text())
    assert document["metrics"][0]["value"]["count"] == report.stability["drifted"].sum()


def test_a_window_without_a_day_says_what_is_missing(reporting: Loop) -> None:
    with pytest.raises(NothingToReport, match="2026-06-30 was not scored; valid: a day"):
        write_window_report(reporting.instance, reporting.settings, 7, "2026-06-30")
    without = reporting.settings.model_copy(update={"policy": policy_of({})})
    with pytest.raises(NothingToReport, match=r"reports\.rows of the policy is 0"):
        write_window_report(reporting.instance, without, 7, DAYS[2])


def test_the_window_job_reports_on_the_latest_days(reporting: Loop) -> None:
    """On a day after those of all tests that share this Dagster instance."""
    last = "2027-01-04"
    reporting.land_day(last, customers(200, 44))
    assert reporting.run("score_production", last).success
    job = reporting.definitions.get_job_def("window_reports")
    assert job.execute_in_process(instance=reporting.instance).success
    assert all(
        (
            reporting.settings.reports / "drift" / "windows" / last / str(days) / "report.html"
        ).exists()
        for days in (7, 30)
    )


def test_the_command_writes_the_report_and_says_what_moved(
    days: tuple[Loop, dict[str, dg.ExecuteInProcessResult]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, _ = days
    for name, value in loop.environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["report", "--days", "3", "--until", DAYS[2], "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["used"], document["rows"]) == (DAYS[::-1], 600)
    assert [one["column"] for one in document["columns"] if one["drifted"]] == ["pay_0"]
    assert document["columns"][0]["column"] == "pay_0"
    refused = CliRunner().invoke(app, ["report", "--until", "2026-06-30"])
    assert refused.exit_code == 1
