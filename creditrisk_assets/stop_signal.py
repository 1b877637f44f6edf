"""Stops processes that work in rounds, by a signal."""

import signal
import time
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOOK_SECONDS = 0.05


class StopSignal:
    """Notes whether INT or TERM has come since it was made.

    It is a plain flag. An event's lock must not be taken in a signal handler: a second signal that
    interrupts the handler waits for the lock that the first one holds, for ever.
    """

    def __init__(self) -> None:
        self.requested = False
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def wait(self, seconds: float) -> bool:
        """Wait, at most until a signal comes; whether one has come."""
        deadline = time.monotonic() + seconds
        while not self.requested and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(LOOK_SECONDS, left))
        return self.requested

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
