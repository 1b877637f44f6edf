"""Drivers of the loop in a sandbox: stepped in this process, which is fast and deterministic, or by
the daemon, with the code server, the webserver and the API as processes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx

from creditrisk_assets import internal_http
from creditrisk_assets.defs import status
from creditrisk_assets.defs.status import DagsterInstance
from creditrisk_assets.settings import Settings
from creditrisk_assets.simulation import processes
from creditrisk_assets.simulation.stepped_loop import LoopFailed, SteppedLoop

TIMEOUT_SECONDS = 300.0
POLL_SECONDS = 0.5


class Loop(Protocol):
    """A loop that a drill can wait for."""

    @property
    def instance(self) -> DagsterInstance:
        """Its Dagster instance."""

    def train(self) -> None:
        """Run the job `train` to its end."""

    def settle(self) -> object:
        """Wait until all landed files are processed, with everything that they cause."""


Driver = Callable[[Path, Settings], AbstractContextManager[Loop]]
"""Makes a loop of a sandbox's folder and settings."""


@contextmanager
def stepped(home: Path, settings: Settings) -> Iterator[SteppedLoop]:
    """Step jobs and sensors in this process."""
    loop = SteppedLoop.in_folder(home, settings)
    with loop.instance:
        yield loop


def with_daemon(ports: processes.Ports, on_progress: Callable[[str], None]) -> Driver:
    """Let the daemon run jobs and sensors.

    Args:
        ports: of the processes.
        on_progress: called with the name of each process that is ready.
    """

    @contextmanager
    def driver(home: Path, settings: Settings) -> Iterator[_DaemonLoop]:
        with (
            status.open_instance(home) as instance,
            processes.loop_processes(home, settings, ports, on_progress) as up,
        ):
            yield _DaemonLoop(instance, up, ports)

    return driver


@dataclass
class _DaemonLoop:
    instance: DagsterInstance
    up: processes.Running
    ports: processes.Ports

    def train(self) -> None:
        from dagster_graphql import DagsterGraphQLClient

        client = DagsterGraphQLClient(processes.HOST, port_number=self.ports.dagster)
        client.submit_job_execution("train", repository_location_name="creditrisk")
        self._wait(lambda: not status.unfinished_runs(self.instance))

    def settle(self) -> None:
        """Wait until each sensor has ticked without a request since the last run ended."""
        quiet_since: float | None = None

        def is_settled() -> bool:
            nonlocal quiet_since
            if status.unfinished_runs(self.instance):
                quiet_since = None
            elif quiet_since is None:
                quiet_since = time.time()
            return quiet_since is not None and status.sensors_idle_since(self.instance, quiet_since)

        self._wait(is_settled)

    def _wait(self, is_done: Callable[[], bool]) -> None:
        """Wait for the loop, then for the API."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not (is_done() and self._api_follows()):
            self.up.check()
            if time.monotonic() > deadline:
                raise LoopFailed(f"the loop did not settle within {TIMEOUT_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)

    def _api_follows(self) -> bool:
        """Whether the API serves the champion, if there is one."""
        champion = status.champion_in_force(self.instance)
        answer = internal_http.get(f"{self.ports.api_url}/ready")
        return champion is None or (
            answer.status_code == httpx.codes.OK
            and answer.json()["model_version"] == champion.model_version
        )
