"""The graph that people see and others rely on."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME

from creditrisk_assets.definitions import build_definitions
from creditrisk_assets.settings import Settings

EDGES = {
    "raw_data": set(),
    "features": {"raw_data"},
    "model": {"features"},
    "candidate_model": {"features", "production_batch", "outcomes"},
    "champion": {"model", "candidate_model"},
    "production_batch": set(),
    "production_scores": {"production_batch", "champion"},
    "drift_report": {"production_scores"},
    "outcomes": {"production_batch"},
    "performance_report": {"production_scores", "outcomes"},
}
DAILY = {"production_batch", "production_scores", "drift_report", "outcomes", "performance_report"}


@pytest.fixture(scope="module")
def graph() -> Any:
    return build_definitions(Settings()).resolve_asset_graph()


def test_the_graph_is_the_one_of_the_design(graph: Any) -> None:
    seen = {
        key.to_user_string(): {one.to_user_string() for one in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert seen == EDGES


def test_daily_assets_share_one_time_axis(graph: Any) -> None:
    partitioned = {
        key.to_user_string(): graph.get(key).partitions_def for key in graph.get_all_asset_keys()
    }
    assert {name for name, axis in partitioned.items() if axis} == DAILY
    assert len({axis for axis in partitioned.values() if axis}) == 1


def test_every_asset_says_what_it_is_and_whose(graph: Any) -> None:
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.group_name != "default", key
        assert node.owners, key
        assert node.kinds, key
        assert node.code_version, key


def test_jobs_and_sensors_have_the_names_that_others_rely_on() -> None:
    repository = build_definitions(Settings()).get_repository_def()
    assert {"train", "score_production", "retrain"} <= {
        job.name for job in repository.get_all_jobs()
    }
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "new_production_partitions",
        "new_outcome_partitions",
        "retrain_on_drift",
        "lost_runs",
        "status_for_people",
        "deliver_alerts",
    }
    assert all(
        sensor.default_status == dg.DefaultSensorStatus.RUNNING for sensor in repository.sensor_defs
    )


def test_every_job_sensor_schedule_and_check_says_what_it_does(graph: Any) -> None:
    """In the UI a person sees the description and not the docstring; Dagster's sensors drop theirs."""
    repository = build_definitions(Settings()).get_repository_def()
    jobs = {one.name: one.description for one in repository.get_all_jobs()}
    del jobs[IMPLICIT_ASSET_JOB_NAME]
    named: dict[str, str | None] = {
        **jobs,
        **{one.name: one.description for one in repository.sensor_defs},
        **{one.name: one.description for one in repository.schedule_defs},
    }
    named |= {key.name: graph.get(key).description for key in graph.asset_check_keys}
    assert len(named) > 35
    for name, description in named.items():
        assert description, name
        assert description[0].isupper(), (name, description)
        assert description.endswith("."), (name, description)
    assert len(set(named.values())) == len(named) - 2  # two checks are of batches and of outcomes


def test_contract_checks_block_and_drift_checks_do_not(graph: Any) -> None:
    """A drift check that blocks leaves a drifted day without a report; a contract check that does not scores rubbish."""
    blocking = {key.name for key in graph.asset_check_keys if graph.get(key).blocking}
    assert blocking == {
        "history_satisfies_contract",
        "production_batch_rows_reconcile",
        "production_batch_rows_are_mostly_accepted",
        "outcomes_rows_reconcile",
        "outcomes_rows_are_mostly_accepted",
        "champion_records_agree",
    }


def test_loading_the_definitions_imports_nothing_heavy(tmp_path: Path) -> None:
    """Every run starts a process that loads them; scikit-learn, MLflow and Evidently would cost it seconds."""
    code = (
        "import sys; from creditrisk_assets.definitions import build_definitions; "
        "from creditrisk_assets.settings import Settings; build_definitions(Settings()); "
        "print([name for name in ('sklearn', 'mlflow', 'evidently', 'matplotlib', 'onnx', 'scipy') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert result.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == [], "loading wrote files"
