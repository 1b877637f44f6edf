"""Batch threads yield to single requests.

Python runs one thread at a time. The event loop releases the lock several times while it answers
one customer (for the socket, the graph, the disk), and would then wait for a thread that turns ten
thousand rows into objects. So such a thread checks for requests between its rows, and sleeps until
they are answered.
"""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

ANSWER_SECONDS = 0.004
"""Most customers are answered within this time."""

PATIENCE_SECONDS = 0.01
"""Under a constant stream of requests a thread waits at most this long, and then works as long."""


class BatchYield:
    """Shared by the event loop and the batch threads of one process.

    Args:
        answer_seconds: pause of the threads after a request arrives.
        patience_seconds: longest pause under a stream of requests; then they work for as long.
    """

    def __init__(
        self, answer_seconds: float = ANSWER_SECONDS, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._answer_seconds = answer_seconds
        self._patience_seconds = patience_seconds
        self._busy_until = 0.0
        self._free_until = 0.0

    def request_arrived(self) -> None:
        """Pause the batch threads; called in the event loop."""
        self._busy_until = time.perf_counter() + self._answer_seconds

    def wait(self) -> None:
        """Wait while a request is answered; called in a batch thread between two rows."""
        began = now = time.perf_counter()
        if now < self._free_until:
            return
        while (left := min(self._busy_until, began + self._patience_seconds) - now) > 0:
            time.sleep(left)
            now = time.perf_counter()
        if now > began:
            self._free_until = now + (now - began)

    def between(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; yields to the event loop before each."""
        for item in items:
            self.wait()
            yield item


BATCH_YIELD = BatchYield()
"""The instance of this process, which has one event loop."""
