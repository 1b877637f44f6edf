"""Dagster's storage: the PostgreSQL database that `CREDITRISK_DATABASE_URL` names or, without one,
SQLite inside the store that `CREDITRISK_DATA_DIR` names.

`dagster.yaml` names these classes. Dagster's own classes take only fixed paths, which are relative
to the working directory of each process, so that two stores of one clone would share a log. In a
read-only store the databases are read from a copy, because SQLite cannot open a database with a
write-ahead log in a folder without write permission.
"""

import atexit
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Self

from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData

from creditrisk_assets.database import url_in_schema
from creditrisk_assets.settings import StoreLocation
from creditrisk_assets.storage import files_below

DATABASES = "storage"


class _WithoutSettings:
    """A storage without settings in `dagster.yaml`."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """No settings."""
        return {}


class StoreDatabases(_WithoutSettings, DagsterSqliteStorage):
    """Runs, events and schedules."""

    @classmethod
    def from_config_value(  # type: ignore[override]  # another storage if the store has a server
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Any,  # noqa: ARG003
    ) -> DagsterStorage:
        """The databases of the environment's store."""
        url = StoreLocation().database_url
        if url is None:
            return cls.from_local(str(instance_dir() / DATABASES), inst_data)
        from dagster_postgres.storage import DagsterPostgresStorage

        in_schema = url_in_schema(url.get_secret_value(), "dagster")
        return DagsterPostgresStorage(in_schema, inst_data=inst_data)


class StoreArtifacts(_WithoutSettings, LocalArtifactStorage):
    """Files of sensors and schedules."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:  # noqa: ARG003
        """The folder of the environment's store."""
        return cls(str(instance_dir()), inst_data)


class StoreComputeLogs(_WithoutSettings, LocalComputeLogManager):
    """The output of runs."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:  # noqa: ARG003
        """The folder of the environment's store."""
        return cls(str(instance_dir() / "logs"), inst_data=inst_data)


def instance_dir() -> Path:
    """The absolute folder of the environment's Dagster instance; a copy if it is read-only."""
    folder = StoreLocation().dagster_dir.resolve()
    return _copy(folder) if folder.is_dir() and not os.access(folder, os.W_OK) else folder


@cache
def _copy(folder: Path) -> Path:
    """A temporary copy of the databases; it is removed when this process exits."""
    copy = Path(tempfile.mkdtemp(prefix="creditrisk-dagster-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    sys.stderr.write(f"{folder} is read-only; this command reads a copy of Dagster's databases\n")
    for name, file in files_below(folder / DATABASES).items():  # not their modes
        (copy / DATABASES / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / DATABASES / name).write_bytes(file.read_bytes())
    return copy
