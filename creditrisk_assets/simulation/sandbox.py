"""Sandboxes: stores of their own for the demo and the drills, apart from the project's store, its
databases and its services.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import pandas as pd
from dagster_shared.yaml_utils import load_yaml_from_path

from creditrisk_assets.settings import POLICY_FILE, Settings

RUN_OPTIONS = ("concurrency", "run_queue", "run_monitoring", "run_retries", "retention")
"""The parts of the project's `dagster.yaml` that hold in a sandbox. All others, such as a database,
a run launcher or a place of logs, may name what production uses: Dagster's defaults, which are
SQLite and files in the sandbox, replace them.
"""

OUTSIDE = ("CREDITRISK_", "MLFLOW_", "DAGSTER_HOME", "PYTHONPATH")
INHERITED = (
    "CREDITRISK_PORTFOLIO",
    "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR",
)
"""Other variables name places, keys, addresses and switches of the project's store. The limits of
the policy are copied.
"""


class SandboxInUse(RuntimeError):
    """Another process uses the same sandbox."""


@contextmanager
def fresh_sandbox(
    folder: Path, project: Path, history: pd.DataFrame, report_rows: int
) -> Iterator[tuple[Path, Settings]]:
    """Make an empty store, and use it in this process and those that it starts: as working
    directory, Dagster's home and environment, which are restored at the end.

    Args:
        folder: of the store, which remains; what it holds before is removed.
        project: folder of `dagster.yaml`.
        history: customers with outcomes, to train on.
        report_rows: rows of a day's report, in place of the policy's.

    Yields:
        The folder, and the settings of the store.

    Raises:
        FileNotFoundError: if the project has no configuration.
        SandboxInUse: if another process uses the folder.
    """
    if not (project / "dagster.yaml").is_file():
        raise FileNotFoundError(f"{project} has no dagster.yaml; run from the project's folder")
    options = load_yaml_from_path(str(project / "dagster.yaml"))
    policy, outside = Settings().policy, _outside()
    reports = policy.reports.model_copy(update={"rows": report_rows})
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SandboxInUse(
                f"{folder} is in use by another process; wait for it or use a second clone"
            ) from error
        shutil.rmtree(folder, ignore_errors=True)
        home = folder.resolve()
        history_file = home / "data" / "history.parquet"
        history_file.parent.mkdir(parents=True)
        history.to_parquet(history_file, index=False)
        (home / "dagster.yaml").write_text(_local_configuration(options))
        (home / POLICY_FILE).write_text(policy.model_copy(update={"reports": reports}).toml())
        try:
            for name in outside:
                del os.environ[name]
            os.environ |= {
                "DAGSTER_HOME": str(home),
                "CREDITRISK_DATA_DIR": str(home / "data"),
                "CREDITRISK_RAW_DATA": str(history_file),
                "CREDITRISK_SETTLE_SECONDS": "0",
                # Other processes import the portfolio's modules of the project's folder.
                "PYTHONPATH": os.pathsep.join(
                    filter(None, [str(project.resolve()), outside.get("PYTHONPATH")])
                ),
            }
            with chdir(home):  # Dagster's relative paths follow the working directory
                yield home, Settings()
        finally:
            for name in _outside():
                del os.environ[name]
            os.environ |= outside


def _outside() -> dict[str, str]:
    """Variables that a sandbox replaces."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(OUTSIDE) and name not in INHERITED
    }


def _local_configuration(project: object) -> str:
    """Dagster's configuration of a sandbox; JSON is YAML."""
    options = project if isinstance(project, dict) else {}
    inherited = {name: options[name] for name in RUN_OPTIONS if name in options}
    quiet = {"telemetry": {"enabled": False}, "nux": {"enabled": False}}
    return json.dumps(inherited | quiet, indent=2) + "\n"
