"""An S3 server for tests: SeaweedFS, a process with files of its own."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from creditrisk_assets import internal_http
from creditrisk_assets.simulation.processes import reserved_ports

START_SECONDS = 60.0


@contextmanager
def object_store_server(folder: Path) -> Iterator[str]:
    """The address of a running server; it takes any keys."""
    folder.mkdir(parents=True)
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    ports = dict(zip(names, reserved_ports(len(names)), strict=True))
    grpc = {
        f"{name}.grpc": port for name, port in zip(names, reserved_ports(len(names)), strict=True)
    }
    # It opens these as well, by default at fixed numbers, where a second server finds none free.
    more = dict(zip(("s3.port.iceberg", "s3.port.lance"), reserved_ports(2), strict=True))
    options = [f"-{name}={port}" for name, port in (ports | grpc | more).items()]
    weed = str(Path(sys.executable).with_name("weed"))
    command = [weed, "-logtostderr=true", "server", f"-dir={folder}", "-s3", "-ip=127.0.0.1"]
    few = ["-master.volumeSizeLimitMB=64", "-volume.max=200", "-filer.encryptVolumeData=false"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*command, *few, *options], stdout=log, stderr=log, cwd=folder)
    address = f"http://127.0.0.1:{ports['s3.port']}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(address):
            assert server.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield address
    finally:
        server.kill()  # it would wait half a minute for requests of its parts to each other
        server.wait()


def _answers(address: str) -> bool:
    try:
        return internal_http.get(f"{address}/status").status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def object_keys(address: str) -> dict[str, str]:
    """The variables by which a process reaches a server."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
