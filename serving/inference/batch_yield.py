"""Threads with many rows let the event loop go first.

Python runs one thread at a time. The loop lets go of the lock several times while it answers one
customer (for the socket, the graph, the disk), and each time would have to wait until a thread that
turns ten thousand rows into objects hands it over. So such a thread asks between its rows whether
something has come, and sleeps until that is answered.
"""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

ANSWER_SECONDS = 0.004
"""By then most customers are answered."""

PATIENCE_SECONDS = 0.01
"""Where requests never cease, a thread works for as long as it has waited, this at most."""


class Courtesy:
    """What the event loop and the threads of one process know of each other.

    Args:
        answer_seconds: how long threads stay away after something has come.
        patience_seconds: how long they do so at most when more and more comes; then they work for
            as long.
    """

    def __init__(
        self, answer_seconds: float = ANSWER_SECONDS, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._answer_seconds = answer_seconds
        self._patience_seconds = patience_seconds
        self._busy_until = 0.0
        self._free_until = 0.0

    def came(self) -> None:
        """In the event loop: something has come."""
        self._busy_until = time.perf_counter() + self._answer_seconds

    def give_way(self) -> None:
        """In a thread, between two rows."""
        began = now = time.perf_counter()
        if now < self._free_until:
            return
        while (left := min(self._busy_until, began + self._patience_seconds) - now) > 0:
            time.sleep(left)
            now = time.perf_counter()
        if now > began:
            self._free_until = now + (now - began)

    def between(self, things: Iterable[T]) -> Iterator[T]:
        """The same things; before each of them the thread that asks for it gives way."""
        for thing in things:
            self.give_way()
            yield thing


COURTESY = Courtesy()
"""Of this process: it has one event loop."""
