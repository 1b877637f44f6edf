"""Sandboxes: empty stores in their own folders, for the demo and the drills."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from creditrisk_assets.settings import POLICY_FILE, Settings, default_policy


class SandboxInUse(RuntimeError):
    """Another process uses the same sandbox."""


@contextmanager
def fresh_sandbox(sandbox: Path, project: Path) -> Iterator[Path]:
    """An empty store with the project's Dagster configuration, for one process at a time.

    Args:
        sandbox: the folder; what it holds is removed.
        project: folder of `dagster.yaml`.

    Raises:
        FileNotFoundError: if the project has no configuration.
        SandboxInUse: if another process uses the folder.
    """
    if not (project / "dagster.yaml").is_file():
        raise FileNotFoundError(f"{project} has no dagster.yaml; run from the project's folder")
    sandbox.parent.mkdir(parents=True, exist_ok=True)
    with (sandbox.parent / f"{sandbox.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SandboxInUse(
                f"{sandbox} is in use by another process; wait for it or use a second clone"
            ) from error
        shutil.rmtree(sandbox, ignore_errors=True)
        (sandbox / "data").mkdir(parents=True)
        shutil.copy(project / "dagster.yaml", sandbox / "dagster.yaml")
        if (project / POLICY_FILE).is_file():
            shutil.copy(project / POLICY_FILE, sandbox / POLICY_FILE)
        yield sandbox.resolve()


def use_sandbox(
    sandbox: Path, report_rows: int, **variables: str
) -> tuple[Settings, dict[str, str]]:
    """Use a sandbox in this process: working directory, policy, settings, environment.

    Args:
        sandbox: from `fresh_sandbox`.
        report_rows: rows of a day's report, in place of the policy's.
        variables: settings, `NAME=value` without their prefix.

    Returns:
        The settings, and the environment for other processes of the sandbox.
    """
    os.chdir(sandbox)  # Dagster's relative paths follow the working directory
    environment = {"DAGSTER_HOME": str(sandbox), "CREDITRISK_DATA_DIR": str(sandbox / "data")}
    environment |= {f"CREDITRISK_{name}": value for name, value in variables.items()}
    os.environ.update(environment)
    policy = default_policy()
    reports = policy.reports.model_copy(update={"rows": report_rows})
    text = policy.model_copy(update={"reports": reports}).toml()
    (sandbox / POLICY_FILE).write_text(text, encoding="utf-8")
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # it would name another store
    return Settings(), environment
