"""How much one caller may ask, over all worker processes of a host.

GCRA (the generic cell rate algorithm of ITU-T I.371): of each caller one number is kept, the
theoretical arrival time of the next request at an even pace. Each request that is let through moves
it on by 1/rate, and one that would bring it more than burst/rate ahead of the clock is refused.

The numbers stand in a file that all workers have mapped. CLOCK_MONOTONIC is one clock for all
processes of a host, and a record lock of fcntl, which ends with its process however that ends,
keeps two workers from changing one caller's number at a time.
"""

import fcntl
import hashlib
import math
import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

CALLERS_LIMIT = 4_096
"""Slots of the table; a caller takes one at the first request and keeps it as long as the file is
there.
"""

SLOT = struct.Struct("=Qd")
"""Hash of the caller's name, and the theoretical arrival time in seconds of CLOCK_MONOTONIC."""

MOMENT = struct.Struct("=d")
HASH_BYTES = SLOT.size - MOMENT.size
TABLE_LOCK = CALLERS_LIMIT * SLOT.size
"""Offset, behind the last slot, of the byte whose lock is held while a slot is taken."""


class TooManyCallers(RuntimeError):
    """More callers than the table has slots."""


@dataclass(frozen=True)
class Refusal:
    """A request over the limit: when the next one would be let through, and the limit."""

    seconds: float
    rate: float
    burst: int

    @property
    def headers(self) -> dict[str, str]:
        """What the caller is told (draft-ietf-httpapi-ratelimit-headers): nothing is left, and for
        how long.
        """
        wait = str(max(1, math.ceil(self.seconds)))
        window = max(1, math.ceil(self.burst / self.rate))
        return {
            "Retry-After": wait,
            "RateLimit-Policy": f'"caller";q={self.burst};w={window}',
            "RateLimit": f'"caller";r=0;t={wait}',
        }


class RateLimiter:
    """The limit of each caller: `burst` requests at once, and `rate` a second in the long run.

    In any window of t seconds no caller gets more than burst + rate * t requests through, by all
    processes together. One process uses it from one thread at a time.

    Args:
        path: the shared file; made where it does not exist.
        rate: requests a second, above 0.
        burst: requests at once, at least 1.
    """

    def __init__(self, path: Path, rate: float, burst: int) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError(
                f"rate {rate} and burst {burst}; valid: a rate above 0 and a burst of at least 1"
            )
        self._rate = rate
        self._burst = burst
        self._step = 1.0 / rate
        self._ahead = burst / rate
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # All of it now: a page that a full disk has no room for would end the process that writes
        # to it. What is there stays.
        os.posix_fallocate(self._file, 0, TABLE_LOCK)
        self._table = mmap.mmap(self._file, TABLE_LOCK)
        self._places: dict[str, int] = {}

    def close(self) -> None:
        """Let go of the file."""
        self._table.close()
        os.close(self._file)

    def refusal(self, caller: str) -> Refusal | None:
        """Count one request of a caller: None if it may go on."""
        place = self._places.get(caller)
        if place is None:
            place = self._places[caller] = self._place(caller)
        fcntl.lockf(self._file, fcntl.LOCK_EX, MOMENT.size, place)
        try:
            now = time.monotonic()
            (arrival,) = MOMENT.unpack_from(self._table, place)
            # Behind the clock: nothing is used up. Further ahead than requests bring it: from
            # before a reboot, or other limits.
            if not now < arrival <= now + self._ahead + self._step:
                arrival = now
            arrival += self._step
            over = arrival - now - self._ahead
            if over <= 1e-9:
                MOMENT.pack_into(self._table, place, arrival)
                return None
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, MOMENT.size, place)
        return Refusal(over, self._rate, self._burst)

    def _place(self, caller: str) -> int:
        """Offset of a caller's moment; takes a slot for a new one."""
        wanted = (
            int.from_bytes(hashlib.sha256(caller.encode()).digest()[:HASH_BYTES], "big") | 1
        )  # 0 is an empty slot
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, TABLE_LOCK)
        try:
            for step in range(CALLERS_LIMIT):
                place = (wanted // 2 + step) % CALLERS_LIMIT * SLOT.size
                known, _ = SLOT.unpack_from(self._table, place)
                if known == 0:
                    SLOT.pack_into(self._table, place, wanted, 0.0)
                if known in (0, wanted):
                    return place + HASH_BYTES
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, TABLE_LOCK)
        raise TooManyCallers(
            f"more than {CALLERS_LIMIT} callers have asked; remove the file of the rate limit and "
            "start the API again"
        )
