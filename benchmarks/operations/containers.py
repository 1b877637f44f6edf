"""A deployment of docker-compose.yml for a measurement: its commands, and what breaks it."""

import json
import os
import secrets
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from creditrisk_assets.simulation.processes import reserved_ports

REPOSITORY = Path(__file__).parents[2]
Shape = Literal["embedded", "served"]
PROBED = ("code-server", "daemon", "watch", "webserver", "api", "mlflow")
SERVERS = ("postgres", "s3")


class CommandFailed(RuntimeError):
    """A command of Docker or in a container; the message has its output."""


@dataclass(frozen=True)
class Deployment:
    """A running project of Compose.

    Attributes:
        project: its name.
        folder: of its settings; its volumes lie in `volumes` of it.
        shape: of the store.
        override: another file of Compose over docker-compose.yml, for what a machine needs.
        api: address of the API.
    """

    project: str
    folder: Path
    shape: Shape
    override: Path | None
    api: str

    def compose(self, *arguments: str, seconds: float = 600) -> str:
        """The output of a command of Compose.

        Raises:
            CommandFailed: if it fails.
        """
        files = ["docker-compose.yml", *([str(self.override)] if self.override else [])]
        named = [
            part for file in [*files, str(self.folder / "volumes.yml")] for part in ("-f", file)
        ]
        return run(
            ["docker", "compose", "-p", self.project, *named, "--env-file", self.folder / ".env"],
            arguments,
            seconds,
        )

    def execute(self, service: str, *command: str, seconds: float = 600) -> str:
        """The output of a command in the container of a service."""
        return self.compose("exec", "-T", service, *command, seconds=seconds)

    def inspect(self, service: str) -> dict[str, Any]:
        """Docker's record of the container of a service."""
        [name] = self.compose("ps", "--all", "--quiet", service).split() or [""]
        found: list[dict[str, Any]] = json.loads(run(["docker", "inspect"], [name], 60))
        return found[0]

    def address(self, service: str) -> str:
        [network] = self.inspect(service)["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    @property
    def services(self) -> tuple[str, ...]:
        """The services that must be healthy."""
        return PROBED if self.shape == "embedded" else PROBED + SERVERS

    def unhealthy(self) -> list[str]:
        """The services that are not healthy now."""
        lines = self.compose("ps", "--all", "--format", "{{.Service}} {{.Health}}").splitlines()
        states = dict(line.split(" ", 1) for line in lines)
        return [name for name in self.services if states.get(name) != "healthy"]

    def kill(self, service: str) -> None:
        """Kill all processes of a container at once, as the kernel does; Docker starts it again."""
        os.kill(int(self.inspect(service)["State"]["Pid"]), signal.SIGKILL)

    def kill_process(self, service: str, word: str) -> bool:
        """Kill the first process of a container whose command has this word; False if there is
        none.
        """
        return _kill_first(
            pid for pid, (_, command) in self.processes(service).items() if word in command
        )

    def kill_run(self) -> bool:
        """Kill a process that executes a run; False if there is none."""
        return _kill_first(self.run_processes())

    def run_processes(self) -> list[int]:
        """The processes that execute runs: copies of the code server's fork server, whose command
        is the same.
        """
        found = self.processes("code-server")
        return [
            pid
            for pid, (parent, command) in found.items()
            if "multiprocessing.forkserver" in command and found.get(parent, (0, ""))[1] == command
        ]

    def processes(self, service: str) -> dict[int, tuple[int, str]]:
        """The parent and the command of each process of a container; all numbers are this
        machine's.
        """
        lines = self.compose("top", service).splitlines()
        head = next(line for line in lines if " PID " in line).split()
        pid, parent = head.index("PID"), head.index("PPID")
        rows = [line.split(maxsplit=len(head) - 1) for line in lines]
        found = [row for row in rows if len(row) == len(head) and row[pid].isdecimal()]
        return {int(row[pid]): (int(row[parent]), row[-1]) for row in found}

    @contextmanager
    def cut(self, service: str, other: str) -> Iterator[None]:
        """Let no answer of the second service reach the first: packets vanish, nothing refuses."""
        there = str(self.inspect(other)["State"]["Pid"])
        route = ["ip", "route"]
        hidden = ["blackhole", f"{self.address(service)}/32"]
        run(["nsenter", "-t", there, "-n", *route], ["add", *hidden], 10)
        try:
            yield
        finally:
            run(["nsenter", "-t", there, "-n", *route], ["del", *hidden], 10)

    def set_clock(self, seconds: int) -> None:
        """Set the clock of all containers so many seconds before that of this machine."""
        with (self.folder / "clock" / "offset").open("r+b") as file:  # it is mapped: never shorter
            file.write(struct.pack("=q", seconds))

    def remove(self, container: str) -> None:
        """End a container that Compose has run beside its services."""
        run(["docker", "rm", "--force"], [container], 60)

    def volume(self, name: str) -> Path:
        return self.folder / "volumes" / name


def run(command: Sequence[str | Path], arguments: Sequence[str], seconds: float) -> str:
    """The output of a command.

    Raises:
        CommandFailed: if it fails or takes too long.
    """
    every = [*map(str, command), *arguments]
    try:
        done = subprocess.run(
            every, cwd=REPOSITORY, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{' '.join(arguments)} took more than {seconds:g} s") from error
    if done.returncode:
        raise CommandFailed(f"{' '.join(arguments)}: {done.stdout[-400:]} {done.stderr[-400:]}")
    return done.stdout


@contextmanager
def deployment_of(
    folder: Path, shape: Shape, override: Path | None, settings: dict[str, str]
) -> Iterator[Deployment]:
    """A deployment of its own, whose volumes are file systems of this machine with limits, so that
    they can be full, and whose clock can be set. It needs root. All of it is gone at the end.
    """
    api, dagster, mlflow = reserved_ports(3)
    password = secrets.token_hex(8)
    env = {"API_PORT": api, "DAGSTER_PORT": dagster, "MLFLOW_PORT": mlflow, **settings}
    if shape == "served":
        env |= {
            "COMPOSE_PROFILES": "postgres,s3",
            "POSTGRES_PASSWORD": password,
            "CREDITRISK_DATABASE_URL": f"postgresql://creditrisk:{password}@postgres/creditrisk",
            "CREDITRISK_DATA_DIR": "s3://creditrisk/store",
            "MLFLOW_TRACKING_URI": "http://mlflow:5000",
            "AWS_ENDPOINT_URL": "http://s3:8333",
            "AWS_ACCESS_KEY_ID": "creditrisk",
            "AWS_SECRET_ACCESS_KEY": password,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in env.items()))
    owners = {"data": 10001, "database": 0, "objects": 0}
    of_clock = _clock_of(folder)
    text = "services:\n" + "".join(
        f"  {service}:\n    env_file: [{folder / '.env'}]\n{of_clock}"
        for service in ("database", "init", *PROBED)
    )
    text += "volumes:\n"
    for name in owners:
        place = folder / "volumes" / name
        text += f"  {name}:\n    driver_opts: {{type: none, o: bind, device: {place}}}\n"
    (folder / "volumes.yml").write_text(text)
    deployment = Deployment(
        f"creditrisk-{secrets.token_hex(3)}", folder, shape, override, f"http://127.0.0.1:{api}"
    )
    mounted = []
    try:
        for name, owner in owners.items():
            place = folder / "volumes" / name
            place.mkdir(parents=True)
            options = f"size=3g,uid={owner},mode=755"
            run(["mount", "-t", "tmpfs"], ["-o", options, "tmpfs", str(place)], 10)
            mounted.append(place)
        deployment.compose("up", "--build", "--detach")
        wait_until(lambda: not deployment.unhealthy(), 240, "every service is healthy")
        yield deployment
    finally:
        deployment.compose("--profile", "*", "down", "--volumes", "--timeout", "10")
        for place in mounted:
            run(["umount"], [str(place)], 30)


def _clock_of(folder: Path) -> str:
    """The lines of Compose that let a container read its clock with the offset of `set_clock`."""
    (folder / "clock").mkdir()
    library, source = folder / "clock" / "clock.so", Path(__file__).with_name("clock.c")
    run(["cc", "-shared", "-fPIC", "-O2", "-o"], [str(library), str(source)], 60)
    (folder / "clock" / "offset").write_bytes(bytes(8))
    return (
        f"    volumes: [{folder / 'clock'}:/clock:ro]\n"
        "    environment: {LD_PRELOAD: /clock/clock.so, CLOCK_OFFSET_FILE: /clock/offset}\n"
    )


def _kill_first(pids: Iterable[int]) -> bool:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def wait_until(holds: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for a condition; the seconds that it took.

    Raises:
        TimeoutError: if it does not come to hold; the message names it.
    """
    start = time.monotonic()
    while not holds():
        if time.monotonic() - start > seconds:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.5)
    return time.monotonic() - start
