"""Cursor of a landing-zone sensor: the days already processed, and the days to check in this tick.

Checking every day in each tick costs time in proportion to their number. So each tick checks the
newest days, and a slice of the others in turn: with 3,650 days and a tick every five seconds, each
day every five minutes. Days that are new in the zone, unfinished since the last tick, or named by
the caller are always checked. A zone of few days, or without a cursor, is checked completely.
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

WINDOW_DAYS = 60
"""Number of newest days checked in each tick: twice the time that outcomes take to arrive."""

SLICE_DAYS = 60
"""Number of older days checked in each tick."""

REVISITS_LIMIT = 5_000
EMPTY = np.empty(0, dtype=np.int64)


@dataclass
class LandingCursor:
    """State of a landing zone at the last tick: eight bytes for each day since the first, and
    little else.

    Attributes:
        first: ordinal of the first day that is done; 0 before there is one.
        marks: for each day since the first, a digest of its stamp when it was done; 0 if it never
            was.
        unfinished: ordinals of days that lie in the zone and were never done.
        revisits: ordinals of days to check in the next tick out of turn.
        turn: ordinal of the last day checked in turn; 0 at the beginning of a round.
        signature: of the zone at its last listing; empty if it must be listed again.
        unrecognised: names in the zone that are not day folders, from the last listing.
        last_event: the last event processed; None before the first.
    """

    first: int = 0
    marks: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    unfinished: set[int] = field(default_factory=set)
    revisits: set[int] = field(default_factory=set)
    turn: int = 0
    signature: str = ""
    unrecognised: tuple[str, ...] = ()
    last_event: int | None = None

    @classmethod
    def parse(cls, cursor: str | None) -> Self:
        """Read a cursor.

        Args:
            cursor: text from `dump`; None or empty before the first tick.

        Raises:
            ValueError: if the text is not a cursor.
        """
        if not cursor:
            return cls()
        stored: dict[str, Any] = json.loads(cursor)
        return cls(
            first=stored["first"],
            marks=np.frombuffer(base64.b64decode(stored["marks"]), dtype="<u8"),
            unfinished=set(stored["unfinished"]),
            revisits=set(stored["revisits"]),
            turn=stored["turn"],
            signature=stored["signature"],
            unrecognised=tuple(stored["unrecognised"]),
            last_event=stored["last_event"],
        )

    def dump(self) -> str:
        """Serialise the cursor."""
        return json.dumps(
            {
                "first": self.first,
                "marks": base64.b64encode(self.marks.astype("<u8").tobytes()).decode(),
                "unfinished": sorted(self.unfinished),
                "revisits": sorted(self.revisits)[-REVISITS_LIMIT:],
                "turn": self.turn,
                "signature": self.signature,
                "unrecognised": self.unrecognised,
                "last_event": self.last_event,
            }
        )

    def mark_done(self, day: str, stamp: str) -> None:
        """Store the stamp of a day that is done."""
        ordinal = date.fromisoformat(day).toordinal()
        if not len(self.marks):
            self.first = ordinal
        before, after = (
            max(0, self.first - ordinal),
            max(0, ordinal + 1 - self.first - len(self.marks)),
        )
        if before or after:
            self.marks = np.pad(self.marks, (before, after))
            self.first -= before
        elif not self.marks.flags.writeable:
            self.marks = self.marks.copy()
        self.marks[ordinal - self.first] = _mark(stamp)
        self.unfinished.discard(ordinal)

    def is_done(self, day: str, stamp: str) -> bool:
        """Whether a day is done and has not changed since."""
        place = date.fromisoformat(day).toordinal() - self.first
        return 0 <= place < len(self.marks) and bool(self.marks[place] == _mark(stamp))

    @property
    def days_done(self) -> int:
        """Number of days that are done."""
        return int(np.count_nonzero(self.marks))

    def needs_names(self, signature: str) -> bool:
        """Whether the zone must be listed in this tick.

        Args:
            signature: current signature of the zone; empty if it has none.
        """
        return (
            not signature
            or signature != self.signature
            or self.turn == 0
            or len(self._known_ordinals()) <= WINDOW_DAYS
        )

    def update_names(
        self, days: Iterable[str], unrecognised: Iterable[str], signature: str
    ) -> list[str]:
        """Record a listing of the zone.

        Args:
            days: names of day folders.
            unrecognised: the other names.
            signature: of the zone before the listing; empty if it has none.

        Returns:
            The new days.
        """
        found = {date.fromisoformat(day).toordinal() for day in days}
        unfinished = found - set(self._done_ordinals().tolist())
        new = unfinished - self.unfinished
        self.unfinished, self.unrecognised, self.signature = (
            unfinished,
            tuple(unrecognised),
            signature,
        )
        return _days(new)

    def next_days(self, named: Iterable[str]) -> list[str]:
        """Select the days to check now, in order, and advance the turn.

        Args:
            named: days to check out of turn.
        """
        known = self._known_ordinals()
        newest, others = known[-WINDOW_DAYS:], known[:-WINDOW_DAYS]
        begin = int(np.searchsorted(others, self.turn, side="right"))
        in_turn = others[begin : begin + SLICE_DAYS]
        self.turn = int(in_turn[-1]) if begin + SLICE_DAYS < len(others) else 0
        ordinals = {*newest.tolist(), *in_turn.tolist(), *self.revisits}
        return sorted({*_days(ordinals), *named})

    def revisit(self, days: Iterable[str]) -> None:
        """Check these days in the next tick, out of turn."""
        self.revisits = {date.fromisoformat(day).toordinal() for day in days}

    def _done_ordinals(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.marks).astype(np.int64) + self.first

    def _known_ordinals(self) -> NDArray[np.int64]:
        unfinished = (
            np.fromiter(self.unfinished, dtype=np.int64, count=len(self.unfinished))
            if self.unfinished
            else EMPTY
        )
        return np.union1d(self._done_ordinals(), unfinished)


def longest_delay_seconds(days: int, interval_seconds: float) -> float:
    """Longest time until a change of an old day is noticed."""
    return -(-max(0, days - WINDOW_DAYS) // SLICE_DAYS) * interval_seconds


def _mark(stamp: str) -> np.uint64:
    """First eight bytes of a stamp's digest; never 0."""
    return np.uint64(int.from_bytes(hashlib.sha256(stamp.encode()).digest()[:8], "little") or 1)


def _days(ordinals: Iterable[int]) -> list[str]:
    return [date.fromordinal(ordinal).isoformat() for ordinal in sorted(ordinals)]
