"""Commands and API replicas of a release on a served store, each with the code of a folder.

Two releases work on one store in `benchmarks.operations.upgrade`, one store before and after its
loss in `benchmarks.operations.disaster`.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from creditrisk_assets import internal_http
from creditrisk_assets.simulation.processes import reserved_ports

REPOSITORY = Path(__file__).parents[2]
CREDITRISK = (sys.executable, "-m", "creditrisk_assets.cli.main")
START_SECONDS = 60.0
STOP_SECONDS = 60.0

SETTLE = """
import sys
from pathlib import Path
import dagster as dg
from creditrisk_assets.definitions import build_definitions
from creditrisk_assets.settings import Settings
from creditrisk_assets.simulation.stepped_loop import SteppedLoop
home, settings = Path(sys.argv[1]), Settings()
with dg.DagsterInstance.from_config(str(home)) as instance:
    results = SteppedLoop(home, settings, instance, build_definitions(settings)).settle()
failed = [result.dagster_run.job_name for result in results if not result.success]
print(f"{len(results)} runs, {len(failed)} failed")
sys.exit(1 if failed or not results else 0)
"""
"""Ticks the sensors and executes what they ask for, without a daemon."""


class CommandFailed(RuntimeError):
    """A command of a release failed; the message has its output."""


@dataclass(frozen=True)
class Release:
    """The code of a folder, with a Dagster home of its own, on the store that variables name.

    Attributes:
        name: in messages.
        code: folder of the code.
        home: the Dagster home, with the release's `dagster.yaml` and the policy.
        environment: variables that name the store.
    """

    name: str
    code: Path
    home: Path
    environment: dict[str, str]

    @classmethod
    def of(
        cls, name: str, code: Path, home: Path, environment: dict[str, str], policy: str
    ) -> "Release":
        """The release of a folder.

        Args:
            name: in messages.
            code: folder of the code.
            home: new; becomes the Dagster home.
            environment: variables that name the store.
            policy: content of `policy.toml`.
        """
        home.mkdir(parents=True)
        shutil.copy(code / "dagster.yaml", home)
        (home / "policy.toml").write_text(policy)
        return cls(name, code, home, environment)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of its processes."""
        of_code = {"PYTHONPATH": str(self.code), "DAGSTER_HOME": str(self.home), "COLUMNS": "200"}
        return {**os.environ, **self.environment, **of_code}

    def run(self, *arguments: str, **environment: str) -> str:
        """The output of a command of `creditrisk`.

        Raises:
            CommandFailed: if it fails.
        """
        return self._run([*CREDITRISK, *arguments], environment)

    def settle(self) -> str:
        """Tick the sensors and execute their runs, until none is left.

        Raises:
            CommandFailed: if a run fails, or there is none.
        """
        return self._run([sys.executable, "-c", SETTLE, str(self.home)], {})

    def land(self, day: str, rows: int) -> str:
        """Land the customers and outcomes of a day, and execute the runs that they ask for.

        Raises:
            CommandFailed: if a run fails, or there is none.
        """
        self.run("simulate", "--days", "1", "--rows", str(rows), "--start", day)
        return self.settle()

    def _run(self, command: list[str], environment: dict[str, str]) -> str:
        done = subprocess.run(
            command,
            cwd=self.home,
            env=self.variables | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CommandFailed(
                f"{self.name}: {' '.join(command[3:])}: {done.stdout[-1000:]} {done.stderr[-1000:]}"
            )
        return done.stdout


@dataclass
class Replica:
    """A replica of the API: one address and one disk, whatever release answers there.

    Attributes:
        folder: its disk, `CREDITRISK_API_DIR`.
        release: the release that answers, or answered last.
        port: of its address.
    """

    folder: Path
    release: Release
    port: int = field(default_factory=lambda: reserved_ports(1)[0])
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that are its own."""
        return {"CREDITRISK_API_DIR": str(self.folder), "CREDITRISK_RATE_LIMIT": "0"}

    def start(self) -> float:
        """Start it and wait until it is ready: the seconds that it took.

        Raises:
            CommandFailed: if it does not become ready.
        """
        begin = time.monotonic()
        log = self.folder.with_suffix(".log")
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [*CREDITRISK, "serve", "--port", str(self.port)],
                cwd=self.release.home,
                env=self.release.variables | self.environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() - begin > START_SECONDS:
                raise CommandFailed(f"{self.release.name} does not answer: {_tail(log)}")
            time.sleep(0.05)
        return time.monotonic() - begin

    def stop(self) -> None:
        """Ask it to end, as a rollout does, and wait until it has."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Kill all its processes at once."""
        if self._process is not None:
            for pid in descendants(self._process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()

    def replace(self, release: Release) -> float:
        """Let another release answer at this address, on the same disk: the seconds without it."""
        begin = time.monotonic()
        self.stop()
        self.release = release
        self.start()
        return time.monotonic() - begin

    def archive(self) -> str:
        """Archive its decisions after it has ended."""
        return self.release.run("decisions", "archive", "--now", **self.environment)

    def cut_off(self) -> tuple[str, float]:
        """Version and cut-off by which it answers."""
        found = internal_http.get(f"{self.url}/model-info").json()
        return str(found["model_version"]), float(found["cut_off"])

    def _is_ready(self) -> bool:
        try:
            return internal_http.get(f"{self.url}/ready").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


@contextmanager
def replicas(folder: Path, release: Release, count: int) -> Iterator[list[Replica]]:
    """Replicas of a release that answer; all have ended afterwards."""
    folder.mkdir(parents=True)
    found = [Replica(folder / str(number), release) for number in range(count)]
    try:
        for replica in found:
            replica.start()
        yield found
    finally:
        for replica in found:
            replica.stop()


@contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """The code of a commit in a folder, which is removed afterwards."""
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    subprocess.run([*git, "add", "--detach", str(folder), commit], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True, capture_output=True)


def descendants(pid: int) -> list[int]:
    """A process and all that it and its children started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")  # one of each thread
    children = [child for found in lists for child in found.read_text().split()]
    return [pid, *(one for child in children for one in descendants(int(child)))]


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-1000:]
