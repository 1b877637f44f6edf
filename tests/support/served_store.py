"""A store in its served shape: PostgreSQL, an S3 server, and an MLflow server over both, with real servers."""

import dataclasses
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import httpx

from creditrisk_assets import database
from creditrisk_assets.definitions import build_definitions
from creditrisk_assets.settings import Settings
from creditrisk_assets.simulation.processes import reserved_ports
from creditrisk_assets.storage import zone_path
from tests.support.loop import Loop
from tests.support.object_store import object_keys
from tests.support.places import REPOSITORY
from tests.support.policies import policy_of
from tests.support.waiting import until


@dataclasses.dataclass(frozen=True)
class Servers:
    """The addresses of a store's servers."""

    database: str
    objects: str
    mlflow: str
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        """The settings that name the store, as in production."""
        return {
            "CREDITRISK_DATA_DIR": f"s3://{self.bucket}/store",
            "CREDITRISK_DATABASE_URL": self.database,
            "CREDITRISK_RAW_DATA": "simulated:4000",
            "CREDITRISK_SETTLE_SECONDS": "0",
            "MLFLOW_TRACKING_URI": self.mlflow,
            **object_keys(self.objects),
        }


@contextmanager
def servers(folder: Path, database_url: str, objects: str) -> Iterator[Servers]:
    """A prepared database, a new bucket, and an MLflow server that keeps its records and artifacts there."""
    bucket = new_bucket(objects)
    database.prepare(database_url)
    with running_mlflow(folder, database_url, bucket, objects) as url:
        yield Servers(database_url, objects, url, bucket)


def new_bucket(objects: str) -> str:
    """The name of a new bucket. The environment must have the server's keys."""
    bucket = f"store-{secrets.token_hex(4)}"
    zone_path(f"s3://{bucket}").fs.mkdir(bucket)
    return bucket


@contextmanager
def running_mlflow(folder: Path, database_url: str, bucket: str, objects: str) -> Iterator[str]:
    """The address of an MLflow server with its records in the schema `mlflow` of a database, which must be there."""
    folder.mkdir(parents=True)
    (port,) = reserved_ports(1)
    place = ["--backend-store-uri", database.url_in_schema(database_url, "mlflow")]
    command = [str(Path(sys.executable).with_name("mlflow")), "server", *place]
    options = [
        "--artifacts-destination",
        f"s3://{bucket}/mlflow",
        "--workers",
        "1",
        "--port",
        str(port),
    ]
    environment = {**os.environ, **object_keys(objects)}
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *options],
            cwd=folder,
            env=environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _is_up(process, url, folder / "mlflow.log"), 60)
        yield url
    finally:
        process.terminate()
        process.wait()


def _is_up(process: "subprocess.Popen[bytes]", url: str, log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-2000:]
    try:
        return httpx.get(f"{url}/health").status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


@contextmanager
def machine(folder: Path, servers: Servers) -> Iterator[Loop]:
    """A loop of one machine on the store, over the project's own dagster.yaml. Its environment must be the servers'."""
    folder.mkdir(parents=True)
    shutil.copy(REPOSITORY / "dagster.yaml", folder)
    settings = Settings(policy=policy_of({}))
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        yield Loop(folder, settings, instance, build_definitions(settings))
