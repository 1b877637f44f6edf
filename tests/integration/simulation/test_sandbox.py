"""Sandboxes: stores of the demo and the drills, which touch nothing of the project's own store."""

import os
from pathlib import Path

import dagster as dg
import pytest
import yaml  # type: ignore[import-untyped]

from creditrisk_assets.defs import status
from creditrisk_assets.simulation.card_customers import simulate
from creditrisk_assets.simulation.sandbox import INHERITED, fresh_sandbox

pytestmark = pytest.mark.embedded("a sandbox is embedded, whatever store the project has")

IN_PRODUCTION = """
storage:
  postgres:
    postgres_db: {hostname: db.bank, username: dagster, password: {env: DB_PASSWORD}, db_name: dagster}
run_storage: {module: dagster_postgres.run_storage, class: PostgresRunStorage, config: {}}
event_log_storage: {module: dagster_postgres.event_log, class: PostgresEventLogStorage, config: {}}
schedule_storage: {module: dagster_postgres.schedule_storage, class: PostgresScheduleStorage, config: {}}
local_artifact_storage: {module: dagster.core.storage.root, class: LocalArtifactStorage, config: {base_dir: /srv}}
compute_logs: {module: dagster_aws.s3.compute_log_manager, class: S3ComputeLogManager, config: {bucket: logs}}
run_launcher: {module: dagster_k8s, class: K8sRunLauncher, config: {}}
concurrency: {runs: {max_concurrent_runs: 7}}
"""

POINTERS = {
    "MLFLOW_TRACKING_URI": "https://mlflow.bank",
    "MLFLOW_REGISTRY_URI": "https://mlflow.bank",
    "DAGSTER_HOME": "/srv/dagster",
    "CREDITRISK_DATA_DIR": "s3://production/store",
    "CREDITRISK_API_DIR": "/srv/api",
    "CREDITRISK_CHAMPION_SOURCE": "https://dagster.bank",
    "CREDITRISK_ALERT_WEBHOOK": "https://pager.bank",
    "CREDITRISK_WATCH_API_URL": "https://api.bank",
    "CREDITRISK_API_KEYS_FILE": "/srv/keys.json",
    "CREDITRISK_OTLP_ENDPOINT": "https://spans.bank",
    "CREDITRISK_RETRAINING": "false",
    "CREDITRISK_RAW_DATA": "/srv/history.csv",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").write_text(IN_PRODUCTION)
    return tmp_path


def variables() -> dict[str, str]:
    names = ("CREDITRISK_", "MLFLOW_", "DAGSTER_")
    return {name: value for name, value in os.environ.items() if name.startswith(names)}


def test_a_sandbox_s_dagster_is_on_its_own_sqlite_whatever_database_the_project_names(
    project: Path,
) -> None:
    """A demo would write its runs and its champion into production's log, or launch its runs there."""
    folder = project / "data" / "demo"
    with fresh_sandbox(folder, project, simulate(100, 1), 0) as (home, _):
        configuration = yaml.safe_load((home / "dagster.yaml").read_text())
        assert set(configuration) == {"concurrency", "telemetry", "nux"}
        instance = status.open_instance(home)
        instance.add_dynamic_partitions("days", ["2026-01-01"])
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 7  # type: ignore[union-attr]
        assert isinstance(instance.run_launcher, dg.DefaultRunLauncher)
        assert instance.storage_directory().startswith(str(folder))
        instance.dispose()
    written = set(project.rglob("*.db"))
    assert written
    assert all(file.is_relative_to(folder) for file in written)


def test_no_setting_from_outside_reaches_a_sandbox_except_the_portfolio_and_the_policy(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A demo would register its models in production's MLflow, append to its decision log, or alert people."""
    (project / "limits.toml").write_text("[drift]\ndays = 5\n")
    for name, value in POINTERS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CREDITRISK_POLICY", str(project / "limits.toml"))
    portfolio = "tests.support.examples.TINY"
    for name in INHERITED:
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("CREDITRISK_PORTFOLIO", portfolio)
    before, place = variables(), Path.cwd()
    with fresh_sandbox(project / "demo", project, simulate(100, 1), 0) as (home, settings):
        assert variables() == {
            "DAGSTER_HOME": str(home),
            **dict.fromkeys(INHERITED, "true"),
            "CREDITRISK_PORTFOLIO": portfolio,
            "CREDITRISK_DATA_DIR": str(home / "data"),
            "CREDITRISK_RAW_DATA": str(home / "data" / "history.parquet"),
            "CREDITRISK_SETTLE_SECONDS": "0",
        }
        assert settings.tracking_uri == f"sqlite:///{home}/data/mlflow/mlflow.db"
        assert (settings.policy.reports.rows, settings.policy.drift.days) == (0, 5)
        assert Path.cwd() == home
    assert variables() == before
    assert Path.cwd() == place
