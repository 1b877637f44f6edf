"""Limits the request rate of each caller, over all worker processes of a host.

GCRA (the generic cell rate algorithm of ITU-T I.371) stores one number for each caller, the
theoretical arrival time of the next request at an even pace. Each admitted request moves it by
1/rate; a request that would move it more than burst/rate ahead of the clock is refused.

The numbers are in a file that all workers map. CLOCK_MONOTONIC is one clock for all processes of a
host. A record lock of fcntl, which ends with its process even in a crash, lets one worker at a time
change a caller's number.
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
"""Slots of the table; a caller's first request takes one for as long as the file exists."""

SLOT = struct.Struct("=Qd")
"""Hash of the caller's name, and the theoretical arrival time in seconds of CLOCK_MONOTONIC."""

MOMENT = struct.Struct("=d")
HASH_BYTES = SLOT.size - MOMENT.size
TABLE_LOCK = CALLERS_LIMIT * SLOT.size
"""Offset of the byte, after the last slot, that is locked while a slot is assigned."""


class TooManyCallers(RuntimeError):
    """More callers than the table has slots."""


@dataclass(frozen=True)
class Refusal:
    """A request over the limit: seconds until the next may pass, and the limit."""

    seconds: float
    rate: float
    burst: int

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers (draft-ietf-httpapi-ratelimit-headers): nothing remains, and the
        time to wait.
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

    In any window of t seconds at most burst + rate * t requests of a caller pass, over all
    processes. One thread of a process uses it at a time.

    Args:
        path: the shared file; created if missing.
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
        # Allocated now: a write to a mapped page without disk space would kill the process. The
        # present content stays.
        os.posix_fallocate(self._file, 0, TABLE_LOCK)
        self._table = mmap.mmap(self._file, TABLE_LOCK)
        self._places: dict[str, int] = {}

    def close(self) -> None:
        """Close the file."""
        self._table.close()
        os.close(self._file)

    def refusal(self, caller: str) -> Refusal | None:
        """Count one request of a caller; None if it may pass."""
        place = self._places.get(caller)
        if place is None:
            place = self._places[caller] = self._place(caller)
        fcntl.lockf(self._file, fcntl.LOCK_EX, MOMENT.size, place)
        try:
            now = time.monotonic()
            (arrival,) = MOMENT.unpack_from(self._table, place)
            # An arrival behind the clock means a full allowance. One that is further ahead than
            # requests can move it is from before a reboot, or from other limits.
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
        """Offset of a caller's number; assigns a slot to a new caller."""
        # Never 0, which marks an empty slot.
        caller_hash = (
            int.from_bytes(hashlib.sha256(caller.encode()).digest()[:HASH_BYTES], "big") | 1
        )
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, TABLE_LOCK)
        try:
            for step in range(CALLERS_LIMIT):
                place = (caller_hash // 2 + step) % CALLERS_LIMIT * SLOT.size
                known, _ = SLOT.unpack_from(self._table, place)
                if known == 0:
                    SLOT.pack_into(self._table, place, caller_hash, 0.0)
                if known in (0, caller_hash):
                    return place + HASH_BYTES
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, TABLE_LOCK)
        raise TooManyCallers(
            f"there are more than {CALLERS_LIMIT} callers; remove the file of the rate limit and "
            "restart the API"
        )
