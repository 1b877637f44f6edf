"""Being told to stop by a signal, for processes that work in rounds."""

import signal
import time
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOOK_SECONDS = 0.05


class StopSignal:
    """Whether INT or TERM has come since this was made.

    It is a plain flag. An event's lock must not be taken in a signal handler: a second signal that
    interrupts the handler waits for the lock that the first one holds, for ever.
    """

    def __init__(self) -> None:
        self.told = False
        for number in SIGNALS:
            signal.signal(number, self._hear)

    def wait(self, seconds: float) -> bool:
        """Wait, at most until a signal comes; whether one has come."""
        deadline = time.monotonic() + seconds
        while not self.told and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(LOOK_SECONDS, left))
        return self.told

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        self.told = True
