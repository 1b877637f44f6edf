"""Ports of processes that are yet to be started."""

import socket
import subprocess
import sys

import pytest

from creditrisk_assets.simulation.processes import HOST, reserved_ports


@pytest.mark.starts_processes
@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a port that is held cannot be listened on"
)
def test_a_reserved_port_goes_to_nobody_else_and_may_be_listened_on_again_and_again() -> None:
    (port,) = reserved_ports(1)
    for _ in range(2):
        with socket.create_server((HOST, port)), socket.create_connection((HOST, port)):
            pass
        with socket.socket() as another, pytest.raises(OSError, match="in use"):
            another.bind((HOST, port))  # as where the system chooses: without SO_REUSEADDR
    listens = f"import socket; socket.create_server(({HOST!r}, {port})).close()"
    assert subprocess.run([sys.executable, "-c", listens], check=False).returncode == 0
