"""Served stores for tests, each in a moment.

The process of the tests has one PostgreSQL server and one S3 server. A store has a database and a prefix of the bucket there, and
an MLflow server of its own, because an MLflow holds the model of one store.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import pytest
import sqlalchemy as sa

from creditrisk_assets import database
from creditrisk_assets.storage import files_below, zone_path
from tests.support import shape
from tests.support.mlflow_server import MlflowServer
from tests.support.object_store import object_keys, object_store_server
from tests.support.postgres import new_database, postgres_server

BUCKET = "stores"
ADDRESS = "database-of-the-store"
"""File in a loop's folder that names the database of its store; the rest of the store has the database's name."""

CONFIGURATION = """\
telemetry: {enabled: false}
storage:
  custom: {module: creditrisk_assets.defs.instance_storage, class: StoreDatabases, config: {}}
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
"""
"""Of a served store's Dagster instance: the product's own storage, and no capture of each step's output."""


class ServedStores:
    """The stores of one process of tests.

    Args:
        postgres: address of the PostgreSQL server's maintenance database.
        folder: for logs.
        stack: ends with the tests.
    """

    def __init__(self, postgres: str, folder: Path, stack: ExitStack) -> None:
        self._postgres, self._folder, self._stack = postgres, folder, stack
        self._mlflow: dict[str, MlflowServer] = {}
        stack.callback(self._stop_all)
        self._new = self._template()

    def settings_of(self, home: Path) -> dict[str, Any]:
        """The settings that name the store of a loop's folder, which is made if the folder names none."""
        if not (home / ADDRESS).exists():
            self._make(home, self._new)
        url = (home / ADDRESS).read_text()
        return {
            "data_dir": f"{_place(url)}/store",
            "database_url": url,
            "mlflow_tracking_uri": self._mlflow_of(url).url,
        }

    def copy(self, made: Path, home: Path) -> None:
        """Give the copy of a closed loop's folder a copy of its store."""
        old = (made / ADDRESS).read_text()
        new = _place(self._make(home, old))
        for name, file in files_below(zone_path(_place(old))).items():
            file.fs.copy(file.path, f"{new.removeprefix('s3://')}/{name}")  # type: ignore[union-attr]  # never a local path

    def close(self, home: Path) -> None:
        """End the store's MLflow server; the store stays."""
        running = self._mlflow.pop((home / ADDRESS).read_text(), None)
        if running is not None:
            running.stop()

    def _make(self, home: Path, template: str) -> str:
        """A database for a folder, with all that another one has."""
        url = self._stack.enter_context(new_database(self._postgres, template))
        home.mkdir(parents=True, exist_ok=True)
        (home / ADDRESS).write_text(url)
        (home / "dagster.yaml").write_text(CONFIGURATION)
        return url

    def _template(self) -> str:
        """A database in which every user of it has made its tables. MLflow's migrations take three seconds."""
        url = self._stack.enter_context(new_database(self._postgres))
        database.prepare(url)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CREDITRISK_DATABASE_URL", url)
            (self._folder / "dagster.yaml").write_text(CONFIGURATION)
            dg.DagsterInstance.from_config(str(self._folder)).dispose()
        uri = self._mlflow_of(url).url
        mlflow.MlflowClient(uri, uri).search_experiments()
        self._mlflow.pop(url).stop()
        return url

    def _mlflow_of(self, url: str) -> MlflowServer:
        if url not in self._mlflow:
            records, log = database.url_in_schema(url, "mlflow"), self._folder / "mlflow.log"
            self._mlflow[url] = MlflowServer(records, f"{_place(url)}/mlflow", log)
        return self._mlflow[url]

    def _stop_all(self) -> None:
        for running in self._mlflow.values():
            running.stop()


def _place(url: str) -> str:
    """The objects of the store with a database."""
    return f"s3://{BUCKET}/{sa.make_url(url).database}"


@contextmanager
def served_stores(folder: Path) -> Iterator[None]:
    """Makes further stores served: the servers run, and the environment names them to this process and those of the tests."""
    with ExitStack() as stack:
        objects = stack.enter_context(object_store_server(folder / "objects"))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in object_keys(objects).items():
            patch.setenv(name, value)
        zone_path(f"s3://{BUCKET}").fs.mkdir(BUCKET)
        shape.now.stores = ServedStores(stack.enter_context(postgres_server()), folder, stack)
        yield
        shape.now.stores = None
