"""Processes beside the workers, and what holds a family of processes together."""

import ctypes
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

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""

END_SECONDS = 20.0
AGAIN_SECONDS = 1.0
AGAIN_SECONDS_LIMIT = 60.0
"""A companion that ended by itself, or was killed, is started again after so long; twice as long if
that happens soon again.
"""


def end_with_parent() -> None:
    """Let this process end when the thread that started it does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def becomes_companion() -> bool:
    """Called first in a companion: let it end with its parent, whose number is its argument. False
    if that has ended already.
    """
    end_with_parent()
    return os.getppid() == int(sys.argv[1])


def companion(module: str) -> list[str]:
    """The command of a companion of this process, one of our modules."""
    return [sys.executable, "-m", module, str(os.getpid())]


@contextmanager
def beside(command: Sequence[str], again_seconds: float = AGAIN_SECONDS) -> Iterator[None]:
    """Within it, a companion is at work; where one is killed, another takes over. Afterwards it is
    told to end, and waited for.

    Args:
        command: of the companion.
        again_seconds: until a killed one is started again.
    """
    one = _Companion(command, again_seconds)
    one.start()
    try:
        yield
    finally:
        one.stop()


class _Companion:
    def __init__(self, command: Sequence[str], again_seconds: float) -> None:
        self._command = command
        self._again_seconds = again_seconds
        self._changing = threading.Lock()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="companion", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changing:
            self._stopping.set()
            process = self._process
        if process is not None:
            process.terminate()
            self._thread.join(END_SECONDS)
            process.kill()
        self._thread.join()

    def _run(self) -> None:
        seconds = self._again_seconds
        while True:
            begun = time.monotonic()
            with self._changing:
                if self._stopping.is_set():
                    return
                self._process = process = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, start_new_session=True
                )
            code = process.wait()
            if self._stopping.is_set():
                return
            seconds = (
                self._again_seconds if time.monotonic() - begun > AGAIN_SECONDS_LIMIT else seconds
            )
            log.error(
                "companion_ended",
                command=" ".join(self._command[1:3]),
                code=code,
                again_in_seconds=seconds,
            )
            self._stopping.wait(seconds)
            seconds = min(2 * seconds, AGAIN_SECONDS_LIMIT)
