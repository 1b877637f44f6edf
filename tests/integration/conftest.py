"""Loops to test with, and an object store."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import s3fs
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from upath import UPath

from creditrisk_assets.storage import zone_path
from tests.support.buckets import BUCKET
from tests.support.loop import Loop
from tests.support.object_store import object_store_server
from tests.support.policies import policy_of
from tests.support.postgres import new_database, postgres_server
from tests.support.served_stores import served_stores
from tests.support.shape import SERVED
from tests.support.trained import trained_loop


@pytest.fixture(scope="session", autouse=True)
def stores_of_the_shape(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The servers of all loops' stores, unless the stores are embedded."""
    with served_stores(tmp_path_factory.mktemp("served")) if SERVED else nullcontext():
        yield


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Loop]:
    """A loop in which nothing has happened yet."""
    loop = Loop.of(tmp_path / "site")
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A loop with a first champion. Tests that share it use days of their own and do not move the champion."""
    loop = trained_loop(tmp_path_factory.mktemp("trained") / "site", tmp_path_factory)
    yield loop
    loop.close()


@pytest.fixture
def reporting(trained: Loop) -> Iterator[Loop]:
    """The same loop while it draws its reports, which are most of a day's time."""
    trained.settings.policy = policy_of({"reports.rows": 5_000})
    yield trained
    trained.settings.policy = policy_of({})


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """Address of an S3 server on a free port."""
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(object_store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[UPath]:
    """An empty bucket; its address and keys come from the environment, as in production."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_store)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    place = zone_path(f"s3://{BUCKET}")
    place.fs.mkdir(BUCKET)
    yield place
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].reset()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of a PostgreSQL server."""
    with postgres_server() as address:
        yield address


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an S3 server."""
    with object_store_server(tmp_path_factory.mktemp("seaweed") / "server") as address:
        yield address


@pytest.fixture
def database_url(postgres: str) -> Iterator[str]:
    """Address of an empty database."""
    with new_database(postgres) as address:
        yield address
