"""Stops a process that works in rounds when a signal arrives."""

import signal
import time
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOOK_SECONDS = 0.05


class StopSignal:
    """A flag that INT or TERM sets.

    It is no `threading.Event`, whose lock must not be acquired in a signal handler: a second signal
    that interrupts the handler would wait for ever for the lock that the first one holds.
    """

    def __init__(self) -> None:
        self.requested = False
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def wait(self, seconds: float) -> bool:
        """Wait until a signal arrives or the time is over; True if a signal has arrived."""
        deadline = time.monotonic() + seconds
        while not self.requested and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(LOOK_SECONDS, left))
        return self.requested

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
