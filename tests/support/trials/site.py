"""An API on a store of its own, for tests and for the benchmarks of serving: trained, started, stopped,
killed.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from creditrisk_assets.defs import event_log
from creditrisk_assets.policy import Policy, ReportLimits
from creditrisk_assets.scoring.bundle import Bundle, ChampionRecord
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import Settings
from creditrisk_assets.simulation.processes import reserved_ports
from creditrisk_assets.simulation.stepped_loop import SteppedLoop
from serving.access.keys import Scope, create_key
from tests.support.champions import name_champion
from tests.support.environment import environment_of

START_SECONDS = 60.0


@dataclass
class Site:
    """A loop in a folder and the API over it.

    Attributes:
        loop: with a champion.
        workers: of the API.
        environment: added to that of the API.
        port: that the API listens on; the same after a restart.
    """

    loop: SteppedLoop
    workers: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=lambda: reserved_ports(1)[0])
    process: "subprocess.Popen[bytes] | None" = None

    @classmethod
    def trained(cls, home: Path, **settings: Any) -> "Site":
        """With a first champion, on simulated customers.

        Raises:
            RuntimeError: if it could not be trained.
        """
        wanted: dict[str, Any] = {
            "data_dir": home / "data",
            "settle_seconds": 0,
            "policy": Policy(reports=ReportLimits(rows=0)),
            **settings,
        }
        loop = SteppedLoop.in_folder(home, Settings(**wanted))
        if not loop.run("train").success:
            raise RuntimeError(f"no champion could be trained in {home}")
        return cls(loop)

    @classmethod
    def over(cls, home: Path, record: ChampionRecord, bundle: Bundle, **settings: Any) -> "Site":
        """With a champion that was made elsewhere, its bundle, and a store of its own."""
        wanted: dict[str, Any] = {
            "data_dir": home / "data",
            "settle_seconds": 0,
            "policy": Policy(reports=ReportLimits(rows=0)),
            **settings,
        }
        site = cls(SteppedLoop.in_folder(home, Settings(**wanted)))
        name_champion(site.loop, record, bundle)
        return site

    @property
    def bundles(self) -> BundleStore:
        """The bundles of its store."""
        return BundleStore(self.loop.settings.data_dir)

    def champion(self) -> ChampionRecord:
        """The champion in force.

        Raises:
            LookupError: if there is none.
        """
        record = event_log.champion_in_force(self.loop.instance)
        if record is None:
            raise LookupError(f"no champion in {self.loop.home}")
        return record

    def new_key(self, name: str, *scopes: Scope) -> dict[str, str]:
        """The header with a new caller's key."""
        return {"Authorization": f"Bearer {create_key(self.loop.settings.api_keys, name, scopes)}"}

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """Output of the API."""
        return self.loop.home / "api.log"

    def command(self, *arguments: str) -> list[str]:
        """A command of `creditrisk`."""
        return [sys.executable, "-m", "creditrisk_assets.cli.main", *arguments]

    @property
    def variables(self) -> dict[str, str]:
        """The environment of this site's commands."""
        own = environment_of(self.loop.home, self.loop.settings)
        return {**os.environ, **own, **self.environment}

    def start(self) -> float:
        """Start the API; seconds until it was ready."""
        begun = time.perf_counter()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command("serve", "--port", str(self.port), "--workers", str(self.workers)),
                env=self.variables,
                cwd=self.loop.home,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = begun + START_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None or time.perf_counter() > deadline:
                raise RuntimeError(f"the API did not start; see {self.log}")
            time.sleep(0.02)
        return time.perf_counter() - begun

    def is_ready(self) -> bool:
        """Whether it says so."""
        try:
            return httpx.get(f"{self.url}/ready", timeout=5).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def is_alive(self) -> bool:
        """Whether it says so."""
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def processes(self) -> list[int]:
        """The numbers of all its processes, the first one first."""
        if self.process is None:
            return []
        found = [self.process.pid]
        for parent in found:
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{parent}/task").iterdir():
                    found += [int(child) for child in (task / "children").read_text().split()]
        return found

    def answering(self) -> list[int]:
        """The processes that answer: they have an open index of keys and sockets."""
        found = []
        for number in self.processes():
            try:
                links = [str(link.readlink()) for link in Path(f"/proc/{number}/fd").iterdir()]
            except OSError:
                continue
            if any("idempotency.db" in link for link in links) and any(
                "socket:" in link for link in links
            ):
                found.append(number)
        return found or self.processes()[:1]

    def kill(self, number: int) -> None:
        """Kill one process as the kernel does when memory is short."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)

    def kill_all(self) -> None:
        """Kill every process at once, as when the power goes."""
        for number in self.processes():
            self.kill(number)
        if self.process is not None:
            self.process.wait()
            self._await_end()

    def stop(self) -> int:
        """Ask it to end, and wait for all of it: the process that keeps decisions looks once more
        when the others have ended. Its exit code.
        """
        if self.process is None:
            return 0
        numbers = self.processes()
        self.process.terminate()
        code = self.process.wait(60)
        deadline = time.monotonic() + 60
        while any(map(_runs, numbers)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return code

    def _await_end(self) -> None:
        """A port is free again when the last who listened on it has ended."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{self.url}/health", timeout=0.5)
            except httpx.ConnectError:
                return
            except httpx.HTTPError:
                pass
            time.sleep(0.02)


def _runs(number: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def beside(clients: Iterable[Callable[[threading.Event], None]]) -> Iterator[None]:
    """Within it, clients are at work, each in a thread of its own. Each is given the event that
    ends it.
    """
    stop = threading.Event()
    threads = [threading.Thread(target=client, args=(stop,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def running(site: Site) -> Iterator[Site]:
    """Within it, the site's API runs."""
    site.start()
    try:
        yield site
    finally:
        if site.process is not None and site.process.poll() is None:
            site.stop()
