"""The probe says what the service itself says, and imports none of the heavy libraries."""

import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from creditrisk_assets.health_probe import FILE_SECONDS, HEARTBEAT_SECONDS, is_healthy
from tests.support.postgres import new_database, postgres_server


def beat(instance: dg.DagsterInstance, daemon: str, seconds_ago: float = 0) -> None:
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - seconds_ago, daemon, None, None))


def check_daemons(instance: dg.DagsterInstance, address: str) -> None:
    assert not is_healthy(address)  # none has beaten yet
    beat(instance, "SENSOR")
    beat(instance, "QUEUED_RUN_COORDINATOR", HEARTBEAT_SECONDS - 20)
    assert is_healthy(address)
    beat(instance, "SENSOR", HEARTBEAT_SECONDS + 1)
    assert not is_healthy(address)


def test_all_daemons_in_an_sqlite_file_must_have_beaten(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        [file] = tmp_path.rglob("runs.db")
        check_daemons(instance, f"sqlite:///{file}")
    assert not is_healthy(f"sqlite:///{tmp_path}/none.db")


@pytest.mark.starts_processes
def test_all_daemons_in_a_postgresql_database_must_have_beaten(tmp_path: Path) -> None:
    with postgres_server() as server, new_database(server) as url:
        assert not is_healthy(url)  # no tables
        from creditrisk_assets import database

        database.prepare(url)
        storage = {
            "storage": {
                "postgres": {"postgres_url": database.url_in_schema(url, "dagster")},
            }
        }
        with dg.DagsterInstance.local_temp(str(tmp_path), overrides=storage) as instance:
            check_daemons(instance, url)
    assert not is_healthy(url)  # no server


def test_a_file_must_have_been_touched(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    address = f"file://{file}"
    assert not is_healthy(address)
    file.touch()
    assert is_healthy(address)
    os.utime(file, (0, time.time() - FILE_SECONDS - 1))
    assert not is_healthy(address)


def test_nothing_listens() -> None:
    assert not is_healthy("http://127.0.0.1:9/health")
    assert not is_healthy("grpc://127.0.0.1:9")


def test_another_address_is_refused_without_its_password() -> None:
    with pytest.raises(ValueError, match="valid: http") as refused:
        is_healthy("mysql://user:secret@host/database")
    assert "secret" not in str(refused.value)


@pytest.mark.starts_processes
def test_a_probe_imports_no_heavy_library() -> None:
    code = (
        "import sys, creditrisk_assets.health_probe as probe; "
        "probe.is_healthy('sqlite:///none.db'); print(*sys.modules)"
    )
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert {"dagster", "pandas", "pydantic", "sqlalchemy"}.isdisjoint(modules.stdout.split())
