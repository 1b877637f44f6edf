"""A folder with a store of its own, made empty, for the demo and the drills."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from creditrisk_assets.settings import Settings


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
        yield site.resolve()


def enter(site: Path, **variables: str) -> tuple[Settings, dict[str, str]]:
    """Make a site this process's own: working directory, settings, environment.

    Args:
        site: as `fresh_site` gives it.
        variables: settings, `NAME=value` without their prefix.

    Returns:
        The settings, and the environment for processes that are to work in the same site.
    """
    os.chdir(site)  # Dagster's relative paths follow the working directory
    environment = {"DAGSTER_HOME": str(site), "CREDITRISK_DATA_DIR": str(site / "data")}
    environment |= {f"CREDITRISK_{name}": value for name, value in variables.items()}
    os.environ.update(environment)
    os.environ.pop(
        "MLFLOW_TRACKING_URI", None
    )  # a store of its own, whatever the environment names
    return Settings(), environment
