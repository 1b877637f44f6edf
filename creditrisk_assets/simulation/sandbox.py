"""A folder with a store of its own, made empty, for the demo and the drills."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from creditrisk_assets.settings import POLICY_FILE, Settings, default_policy


class SiteInUse(RuntimeError):
    """Another process works in the same folder."""


@contextmanager
def fresh_site(site: Path, project: Path) -> Iterator[Path]:
    """An empty store with the project's Dagster configuration, for one process at a time.

    Args:
        site: the folder; what it holds is removed.
        project: folder of `dagster.yaml`.

    Raises:
        FileNotFoundError: if the project's folder has no configuration.
        SiteInUse: if another process holds it.
    """
    if not (project / "dagster.yaml").is_file():
        raise FileNotFoundError(f"{project} has no dagster.yaml; run from the project's folder")
    site.parent.mkdir(parents=True, exist_ok=True)
    with (site.parent / f"{site.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SiteInUse(
                f"{site} is in use by another process; wait for it or use a second clone"
            ) from error
        shutil.rmtree(site, ignore_errors=True)
        (site / "data").mkdir(parents=True)
        shutil.copy(project / "dagster.yaml", site / "dagster.yaml")
        if (project / POLICY_FILE).is_file():
            shutil.copy(project / POLICY_FILE, site / POLICY_FILE)
        yield site.resolve()


def use_site(site: Path, report_rows: int, **variables: str) -> tuple[Settings, dict[str, str]]:
    """Make a site this process's own: working directory, policy, settings, environment.

    Args:
        site: as `fresh_site` gives it.
        report_rows: rows that a report of a day draws, in place of the policy's.
        variables: settings, `NAME=value` without their prefix.

    Returns:
        The settings, and the environment for processes that are to work in the same site.
    """
    os.chdir(site)  # Dagster's relative paths follow the working directory
    environment = {"DAGSTER_HOME": str(site), "CREDITRISK_DATA_DIR": str(site / "data")}
    environment |= {f"CREDITRISK_{name}": value for name, value in variables.items()}
    os.environ.update(environment)
    policy = default_policy()
    reports = policy.reports.model_copy(update={"rows": report_rows})
    text = policy.model_copy(update={"reports": reports}).toml()
    (site / POLICY_FILE).write_text(text, encoding="utf-8")
    os.environ.pop(
        "MLFLOW_TRACKING_URI", None
    )  # a store of its own, whatever the environment names
    return Settings(), environment
