"""The process that keeps what was decided, beside the workers: `creditrisk decisions keep --watch`.

`python -m serving.keeper PARENT` becomes it: it ends when its parent does, and lets whoever asks for a decision go first.
"""

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

NICENESS = 10
END_SECONDS = 20.0
AGAIN_SECONDS = 1.0
AGAIN_SECONDS_LIMIT = 60.0
"""A keeper that ended by itself, or was killed, is started again after so long; twice as long if that happens soon again."""


def end_with_parent() -> None:
    """Let this process end when the thread that started it does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def kept(command: Sequence[str] | None = None, again_seconds: float = AGAIN_SECONDS) -> Iterator[None]:
    """Within it, a keeper is at work; where one is killed, another takes over. Afterwards it looks once more and ends.

    Args:
        command: of the keeper.
        again_seconds: until a killed one is started again.
    """
    keeper = _Keeper(command or [sys.executable, "-m", "serving.keeper", str(os.getpid())], again_seconds)
    keeper.start()
    try:
        yield
    finally:
        keeper.stop()


class _Keeper:
    def __init__(self, command: Sequence[str], again_seconds: float) -> None:
        self._command = command
        self._again_seconds = again_seconds
        self._changing = threading.Lock()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

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
                self._process = process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)
            code = process.wait()
            if self._stopping.is_set():
                return
            seconds = self._again_seconds if time.monotonic() - begun > AGAIN_SECONDS_LIMIT else seconds
            log.error("keeper_ended", code=code, again_in_seconds=seconds)
            self._stopping.wait(seconds)
            seconds = min(2 * seconds, AGAIN_SECONDS_LIMIT)


def main() -> None:
    """Become the keeper of a parent, unless it has ended already."""
    end_with_parent()
    if os.getppid() == int(sys.argv[1]):
        os.nice(NICENESS)
        os.execv(sys.executable, [sys.executable, "-m", "creditrisk_assets.cli", "decisions", "keep", "--watch"])  # noqa: S606


if __name__ == "__main__":
    main()
