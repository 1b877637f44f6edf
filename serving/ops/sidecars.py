"""Runs processes beside the API's workers: the publisher of the champion, and the archiver of
decisions.

`python -m serving.ops.sidecars NAME PARENT` runs one of them, which ends with its parent.
"""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

log = structlog.get_logger()

PUBLISHER = "publisher"
ARCHIVER = "archiver"

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""

END_SECONDS = 20.0
RESTART_SECONDS = 1.0
RESTART_SECONDS_LIMIT = 60.0
"""Time until a sidecar that has ended is restarted. It doubles up to the limit while the sidecar
soon ends again.
"""

ARCHIVER_NICENESS = 10
ARCHIVER_DELAY_SECONDS = 3.0
"""The archiver starts after the workers, which are ready by then."""

LOOK_SECONDS = 0.1
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def sidecar(name: str) -> list[str]:
    """The command of a sidecar of this process."""
    return [sys.executable, "-m", "serving.ops.sidecars", name, str(os.getpid())]


def end_with_parent() -> None:
    """Let this process end with the thread that started it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_with_supervisor() -> None:
    """Let a worker end with its supervisor, at once if that has ended already. A single worker has
    no supervisor and survives the shell that started it.
    """
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        end_with_parent()
        if os.getppid() != supervisor.pid:
            raise SystemExit(0)


def publish_champion() -> None:
    """Publish the champion in force, and copy the API keys that replicas share, until a signal
    arrives.
    """
    from creditrisk_assets.governance.ledger import Ledger
    from creditrisk_assets.settings import ServingSettings, Settings
    from creditrisk_assets.stop_signal import StopSignal
    from serving.access.shared_keys_file import shared_keys_problem
    from serving.inference.champion_file import ChampionFile, Publisher
    from serving.inference.champion_source import source_of
    from serving.ops.logs import configure_logs

    stop = StopSignal()
    serving, settings = ServingSettings(), Settings()
    configure_logs(serving.log_format)
    source, ledger = source_of(serving.champion_source), Ledger(settings.ledger)
    publisher = Publisher(source, ledger.require_recorded, ChampionFile.of(settings))
    problem: str | None = None
    while not stop.requested:
        publisher.publish()
        before, problem = problem, shared_keys_problem(settings)
        if problem is not None and problem != before:
            log.error("keys_not_copied", problem=problem, in_force="the keys copied before")
        stop.wait(serving.limits.champion_poll_seconds)


def archive_decisions() -> None:
    """Become `creditrisk decisions archive --watch`, at a lower priority than the workers."""
    os.nice(ARCHIVER_NICENESS)
    start = time.monotonic() + ARCHIVER_DELAY_SECONDS
    while time.monotonic() < start and signal.sigpending().isdisjoint(STOP_SIGNALS):
        time.sleep(LOOK_SECONDS)
    command = ["-m", "creditrisk_assets.cli.main", "decisions", "archive", "--watch"]
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606


def main() -> None:
    """Become the sidecar that the arguments name, unless its parent has ended already."""
    name, parent = sys.argv[1:]
    if name == ARCHIVER:
        # Blocked until the archive command handles them: it archives once more at its end.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    end_with_parent()
    if os.getppid() == int(parent):
        {PUBLISHER: publish_champion, ARCHIVER: archive_decisions}[name]()


@contextmanager
def running(command: Sequence[str], restart_seconds: float = RESTART_SECONDS) -> Iterator[None]:
    """Run a sidecar within the context, and restart it if it ends. At the end stop it and wait for
    it.

    Args:
        command: of the sidecar.
        restart_seconds: time until a restart.
    """
    changing, stopping = threading.Lock(), threading.Event()
    process: subprocess.Popen[bytes] | None = None

    def run() -> None:
        nonlocal process
        seconds = restart_seconds
        while True:
            start = time.monotonic()
            with changing:
                if stopping.is_set():
                    return
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, start_new_session=True
                )
            code = process.wait()
            if stopping.is_set():
                return
            if time.monotonic() - start > RESTART_SECONDS_LIMIT:
                seconds = restart_seconds
            log.error(
                "sidecar_ended",
                command=" ".join(command[2:4]),
                code=code,
                again_in_seconds=seconds,
            )
            stopping.wait(seconds)
            seconds = min(2 * seconds, RESTART_SECONDS_LIMIT)

    thread = threading.Thread(target=run, name="sidecar", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with changing:
            stopping.set()
        if process is not None:
            process.terminate()
            thread.join(END_SECONDS)
            process.kill()
        thread.join()


if __name__ == "__main__":
    main()
