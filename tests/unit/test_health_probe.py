"""The probe says what the service itself says, and imports none of the heavy libraries."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from creditrisk_assets.health_probe import FILE_SECONDS, HEARTBEAT_SECONDS, is_healthy
from tests.support.places import REPOSITORY
from tests.support.postgres import new_database, postgres_server


def beat(instance: dg.DagsterInstance, daemon: str, seconds_ago: float = 0) -> None:
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - seconds_ago, daemon, None, None))


def check_daemons(instance: dg.DagsterInstance) -> None:
    assert not is_healthy("daemons")  # none has beaten yet
    beat(instance, "SENSOR")
    beat(instance, "QUEUED_RUN_COORDINATOR", HEARTBEAT_SECONDS - 20)
    assert is_healthy("daemons")
    for wrong in (HEARTBEAT_SECONDS + 1, -HEARTBEAT_SECONDS - 1):
        beat(instance, "SENSOR", wrong)
        assert not is_healthy("daemons")


def test_all_daemons_of_an_embedded_store_must_have_beaten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDITRISK_DATA_DIR", str(tmp_path))
    assert not is_healthy("daemons")  # no store
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        check_daemons(instance)


@pytest.mark.starts_processes
def test_all_daemons_of_a_served_store_must_have_beaten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres_server() as server, new_database(server) as url:
        monkeypatch.setenv("CREDITRISK_DATABASE_URL", url)
        assert not is_healthy("daemons")  # no tables
        from creditrisk_assets import database

        database.prepare(url)
        storage = {
            "storage": {
                "postgres": {"postgres_url": database.url_in_schema(url, "dagster")},
            }
        }
        with dg.DagsterInstance.local_temp(str(tmp_path), overrides=storage) as instance:
            check_daemons(instance)
    assert not is_healthy("daemons")  # no server


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
        "probe.is_healthy('daemons'); print(*sys.modules)"
    )
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert {"dagster", "pandas", "pydantic", "sqlalchemy"}.isdisjoint(modules.stdout.split())
