"""`creditrisk train` and `creditrisk retrain`: a run in the store's own instance, and its reason in the terminal."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result
from upath import UPath

from creditrisk_assets.cli.jobs import RetrainAction
from creditrisk_assets.cli.main import app
from creditrisk_assets.monitoring.triage import Action
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.loop import Loop
from tests.support.places import REPOSITORY


@pytest.fixture
def store(fresh: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UPath:
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    for name, value in (fresh.environment | {"DAGSTER_HOME": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)  # drills write into the project's folder
    policy = tmp_path / "policy.toml"
    policy.write_text("[reports]\nrows = 0\n")
    monkeypatch.setenv("CREDITRISK_POLICY", str(policy))
    monkeypatch.setenv("COLUMNS", "1000")
    return fresh.settings.data_dir


def called(*arguments: str, expected: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == expected, result.output
    return result


def test_the_reason_why_a_history_was_refused_is_in_the_terminal_in_the_status_and_in_quarantine(
    store: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood in 61 lines of log nowhere."""
    history = simulate(300, 1)
    history["limit_bal"] = history["limit_bal"].astype("object")
    history.loc[3, "limit_bal"] = "a lot"
    history.to_csv(tmp_path / "history.csv", index=False)
    monkeypatch.setenv("CREDITRISK_RAW_DATA", str(tmp_path / "history.csv"))
    refused = called("train", expected=1)
    reason = "history.csv, line 5: limit_bal: 'a lot' is not a number"
    assert reason in refused.stderr
    assert "quarantine/history/raw_data.csv" in refused.stderr
    assert "a lot" in (store / "quarantine" / "history" / "raw_data.csv").read_text()
    status = called("status").stdout
    assert "The history breaks the contract: 1 problems" in status
    assert reason in status


def test_a_book_too_small_for_a_first_champion_is_refused_before_anything_is_trained(
    store: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(400, 1).to_csv(tmp_path / "history.csv", index=False)
    monkeypatch.setenv("CREDITRISK_RAW_DATA", str(tmp_path / "history.csv"))
    refused = called("train", expected=1)
    assert "held out to judge a model by; valid: at least 50 held out" in refused.stderr
    assert not (store / "models").exists()
    drilled = called(
        "drill",
        "stable",
        "--days",
        "2",
        "--rows",
        "100",
        "--from",
        str(tmp_path / "history.csv"),
        expected=1,
    )
    assert "Traceback" not in drilled.output
    assert (tmp_path / "data" / "drill").is_dir()


def test_train_says_in_three_lines_what_it_made_and_retrain_asks_the_gate(
    store: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDITRISK_RAW_DATA", "simulated:2000")
    lines = called("train").stdout.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["history", "model", "champion"]
    assert "champion: version 1, first" in lines[2]
    document = json.loads(called("retrain", "--json").stdout)
    assert (document["job"], document["verdict"], document["model_version"]) == (
        "retrain",
        "rejected",
        "1",
    )
    assert document["failures"] == []
    missing = called(
        "retrain", "--action", "recalibrate", "--since", "2026-01-01", "--json", expected=1
    )
    assert "no outcome of a customer of 2026-01-01 or later" in missing.stderr
    called("retrain", "--action", "recalibrate", expected=2)


def test_the_kinds_of_retrain_are_those_of_triage() -> None:
    assert {action.value for action in RetrainAction} == {
        Action.RECALIBRATE.value,
        Action.REFIT.value,
    }
