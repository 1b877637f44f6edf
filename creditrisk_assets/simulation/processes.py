"""The system's processes on one machine: code server, daemon, Dagster webserver, API, MLflow UI.
`creditrisk dev`, the demo and `creditrisk drill --daemon` start, check and stop them here.

Production uses a service manager or Compose, which start the same commands.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from creditrisk_assets import internal_http
from creditrisk_assets.defs import status
from creditrisk_assets.settings import Settings

READY_TIMEOUT_SECONDS = 120.0
STOP_TIMEOUT_SECONDS = 20.0
LOG_TAIL_LINES = 15
HOST = "127.0.0.1"
PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


class ProcessFailed(RuntimeError):
    """A process ended or did not become ready; the message holds the end of its log."""


@dataclass(frozen=True)
class Ports:
    """The port of each process, and their addresses; without a port there is no MLflow UI."""

    code_server: int
    dagster: int
    api: int
    mlflow: int | None = None

    @classmethod
    def reserved(cls) -> Self:
        """Reserve free ports, without an MLflow UI."""
        return cls(*reserved_ports(3))

    @property
    def dagster_url(self) -> str:
        """Address of the Dagster UI."""
        return f"http://{HOST}:{self.dagster}"

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return f"http://{HOST}:{self.api}"

    @property
    def mlflow_url(self) -> str:
        """Address of the MLflow UI; empty without one."""
        return f"http://{HOST}:{self.mlflow}" if self.mlflow else ""


@dataclass(frozen=True)
class Service:
    """A process: its command and its readiness check."""

    name: str
    command: Sequence[str]
    is_ready: Callable[[], bool]


@dataclass
class Running:
    """The started processes, in order."""

    services: list[tuple[Service, "subprocess.Popen[bytes]"]] = field(default_factory=list)
    logs: Path = Path()

    def check(self) -> None:
        """Check that all processes are alive.

        Raises:
            ProcessFailed: if one has ended.
        """
        for service, process in self.services:
            if process.poll() is not None:
                raise ProcessFailed(
                    f"{service.name} ended with exit code {process.returncode}; the end of "
                    f"{self.logs / service.name}.log:\n"
                    + log_tail(self.logs / f"{service.name}.log")
                )


def reserved_ports(count: int) -> list[int]:
    """Reserve free ports for the life of this process.

    A bound socket that does not listen holds each port: Linux then assigns the port to no other
    process, but lets a server bind it by number, repeatedly. Other systems refuse that server, so
    there the ports are only free now.
    """
    sockets = [socket.socket() for _ in range(count)]
    for holder in sockets:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((HOST, 0))
    ports = [int(holder.getsockname()[1]) for holder in sockets]
    for holder in sockets:
        if sys.platform == "linux":
            holder.detach()  # its descriptor stays open
        else:
            holder.close()
    return ports


def require_free(port: int, name: str, host: str = HOST) -> None:
    """Check that a port of an address of this machine is free.

    Raises:
        ProcessFailed: with the port and its purpose.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ProcessFailed(
                f"port {port} for the {name} is in use; stop its process or choose another port"
            ) from error


def services(ports: Ports, workspace: Path, daemon_is_up: Callable[[], bool]) -> list[Service]:
    """The services, in the order of their start.

    Args:
        ports: of the services.
        workspace: workspace file that names the code server.
        daemon_is_up: readiness check of the daemon.
    """
    creditrisk = (sys.executable, "-m", "creditrisk_assets.cli.main")

    def at(port: int) -> tuple[str, ...]:
        return ("--host", HOST, "--port", str(port))

    of_workspace = ("--workspace", str(workspace))
    result = [
        Service(
            "code-server",
            [*creditrisk, "code-server", *at(ports.code_server)],
            lambda: _listens(ports.code_server),
        ),
        Service(
            "api",
            [*creditrisk, "serve", *at(ports.api)],
            lambda: _answers(f"{ports.api_url}/health"),
        ),
        Service(
            "dagster-webserver",
            [tool("dagster-webserver"), *at(ports.dagster), *of_workspace],
            lambda: _answers(f"{ports.dagster_url}/server_info"),
        ),
        Service("dagster-daemon", [tool("dagster-daemon"), "run", *of_workspace], daemon_is_up),
    ]
    if ports.mlflow is not None:
        result.append(
            Service(
                "mlflow-ui",
                [*creditrisk, "mlflow-server", *at(ports.mlflow)],
                lambda: _answers(f"{ports.mlflow_url}/health"),
            )
        )
    return result


@contextmanager
def loop_processes(
    home: Path, settings: Settings, ports: Ports, on_progress: Callable[[str], None]
) -> Iterator["Running"]:
    """Run the loop's processes over one store.

    Args:
        home: folder of `dagster.yaml`.
        settings: of the store.
        ports: of the processes; their links lead to each other.
        on_progress: called with the name of each process that is ready.

    Raises:
        ProcessFailed: if one does not become ready.
    """
    instance, since = status.open_instance(home), time.time()
    workspace = settings.dagster_dir / "workspace.yaml"
    write_workspace(workspace, ports.code_server)
    every_service = services(ports, workspace, lambda: status.daemon_is_up(instance, since))
    environment = {
        "DAGSTER_HOME": str(home),
        "CREDITRISK_API_URL": ports.api_url,
        "CREDITRISK_DAGSTER_URL": ports.dagster_url,
        "CREDITRISK_MLFLOW_URL": settings.tracking_uri
        if settings.has_mlflow_server
        else ports.mlflow_url,
    }
    logs = settings.local_dir / "logs"
    try:
        with running(every_service, home, environment, logs, on_progress) as up:
            yield up
    finally:
        instance.dispose()


def write_workspace(path: Path, code_server_port: int) -> None:
    """Write a workspace file that names a running code server."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"load_from:\n  - grpc_server:\n      host: {HOST}\n      port: {code_server_port}\n      "
        "location_name: creditrisk\n"
    )


@contextmanager
def running(
    to_start: Sequence[Service],
    folder: Path,
    environment: dict[str, str],
    logs: Path,
    on_progress: Callable[[str], None],
) -> Iterator[Running]:
    """Start services in order, each after the one before is ready; stop them in reverse order.

    Args:
        to_start: the services.
        folder: their working directory.
        environment: added to this process's environment.
        logs: folder of their logs, a file each.
        on_progress: called with the name of each service that is ready.

    Raises:
        ProcessFailed: if one does not become ready.
    """
    logs.mkdir(parents=True, exist_ok=True)
    started = Running(logs=logs)
    try:
        for service in to_start:
            with (logs / f"{service.name}.log").open("wb") as log:
                process = subprocess.Popen(
                    service.command,
                    cwd=folder,
                    env={**os.environ, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # on Ctrl-C this process stops them in order
                    preexec_fn=_end_with_parent if sys.platform == "linux" else None,
                )
            started.services.append((service, process))
            _await_ready(service, started)
            on_progress(service.name)
        yield started
    finally:
        for _, process in reversed(started.services):
            _stop(process)


def log_tail(path: Path) -> str:
    """The last lines of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


def _await_ready(service: Service, started: Running) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while not service.is_ready():
        started.check()
        if time.monotonic() > deadline:
            raise ProcessFailed(
                f"{service.name} was not ready after {READY_TIMEOUT_SECONDS:.0f} s; the end of "
                "its log:\n" + log_tail(started.logs / f"{service.name}.log")
            )
        time.sleep(0.1)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Terminate a process; after the time-out kill it. Kill its process group in any case."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)  # the runs of a code server are in its group
    except ProcessLookupError:
        return


def _end_with_parent() -> None:
    """Run in the child before its program starts: end it with its parent, even a killed one."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def tool(name: str) -> str:
    """A command of this Python environment, or of the path."""
    own = Path(sys.executable).with_name(name)
    command = str(own) if own.exists() else shutil.which(name)
    if command is None:
        raise ProcessFailed(f"the command {name} is not installed; run make setup")
    return command


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def _answers(url: str) -> bool:
    try:
        return internal_http.get(url, timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
