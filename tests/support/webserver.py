"""A Dagster webserver over a store."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.support.loop import Loop
from tests.support.waiting import until


@contextlib.contextmanager
def webserver(loop: Loop, port: int) -> Iterator[str]:
    """A read-only Dagster webserver over a store: its address."""
    command = [
        str(Path(sys.executable).with_name("dagster-webserver")),
        "--read-only",
        "--empty-workspace",
        "--port",
        str(port),
    ]
    environment = {**loop.environment, "PATH": "/usr/bin:/bin"}
    with (loop.home / "webserver.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=loop.home, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        assert process.poll() is None
        try:
            return httpx.get(f"{url}/server_info").status_code == 200
        except httpx.ConnectError:
            return False

    try:
        until(is_up, 60)
        yield url
    finally:
        process.terminate()
        process.wait(20)
