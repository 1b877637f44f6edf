"""Health check of a container: `python -m creditrisk_assets.health_probe ADDRESS`, which exits with
0 if the service there is healthy and with 1 otherwise.

It imports no Dagster, which takes seconds of a core. The kinds of address:

| address | healthy if |
|---|---|
| `http://host:port/path` | it answers with a status below 400 |
| `grpc://host:port` | the code server there says so, as `dagster api grpc-health-check` asks it |
| `daemons` | all daemons in the store's records of Dagster have beaten lately |
| `file:///path` | the file was written lately: a process that loops touches it |
"""

import contextlib
import json
import os
import sqlite3
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlsplit

GRPC_SERVICE = "DagsterApi"
TIMEOUT_SECONDS = 5.0
HEARTBEAT_SECONDS = 120.0
"""A daemon beats every 30 s."""
FILE_SECONDS = 300.0
"""The health watch loops every 60 s, and its alerts may wait for a slow receiver."""


def is_healthy(address: str) -> bool:
    """True if the service at an address says that it is healthy.

    Raises:
        ValueError: if the address is of no such kind.
    """
    if address == "daemons":
        return _daemons_are_alive(_heartbeats())
    parts = urlsplit(address)
    if parts.scheme == "grpc" and parts.port:
        return _code_server_is_healthy(parts.netloc)
    if parts.scheme == "http" and parts.hostname:
        return _web_server_is_healthy(address)
    if parts.scheme == "file" and parts.path:
        return _was_written_lately(Path(parts.path))
    raise ValueError(
        f"address is {parts.scheme}:…; valid: http://host:port/path, grpc://host:port, daemons, "
        "file:///path"
    )


def _code_server_is_healthy(place: str) -> bool:
    import grpc
    import grpc_health.v1.health_pb2 as messages
    import grpc_health.v1.health_pb2_grpc as health

    with grpc.insecure_channel(place, options=[("grpc.enable_http_proxy", 0)]) as channel:
        question = messages.HealthCheckRequest(service=GRPC_SERVICE)
        try:
            answer = health.HealthStub(channel).Check(question, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == messages.HealthCheckResponse.SERVING)


def _web_server_is_healthy(address: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(address, timeout=TIMEOUT_SECONDS):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _daemons_are_alive(heartbeats: list[str]) -> bool:
    """True if there are heartbeats, serialized by Dagster, and each is recent. One in the future
    means that the clock was set back, and that the daemon waits for the time that was.
    """
    now = time.time()
    times = [json.loads(one)["timestamp"] for one in heartbeats]
    return bool(times) and all(abs(now - beaten) < HEARTBEAT_SECONDS for beaten in times)


def _heartbeats() -> list[str]:
    """The heartbeats in the place that the environment names, as `settings` reads it."""
    if url := os.environ.get("CREDITRISK_DATABASE_URL"):
        return _heartbeats_in_postgresql(url)
    folder = os.environ.get("CREDITRISK_DATA_DIR", "")
    if not folder or "://" in folder:
        folder = str(Path(os.environ.get("DAGSTER_HOME") or ".") / "data")
    return _heartbeats_in_sqlite(f"{folder}/dagster/storage/history/runs.db")


def _heartbeats_in_sqlite(path: str) -> list[str]:
    address = f"file:{quote(path)}?mode=ro"
    try:
        with contextlib.closing(
            sqlite3.connect(address, uri=True, timeout=TIMEOUT_SECONDS)
        ) as database:
            return [body for (body,) in database.execute("SELECT body FROM daemon_heartbeats")]
    except sqlite3.Error:
        return []


def _heartbeats_in_postgresql(url: str) -> list[str]:
    import psycopg2

    try:
        connection = psycopg2.connect(url, connect_timeout=int(TIMEOUT_SECONDS))
    except psycopg2.Error:
        return []
    with contextlib.closing(connection), connection.cursor() as cursor:
        try:
            cursor.execute("SELECT body FROM dagster.daemon_heartbeats")
        except psycopg2.Error:
            return []
        return [body for (body,) in cursor.fetchall()]


def _was_written_lately(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime < FILE_SECONDS
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if is_healthy(sys.argv[1]) else 1)
