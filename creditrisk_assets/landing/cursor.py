"""What a sensor remembers of a landing zone, and which of its days it looks at this time.

To look at every day each time costs as much as there are days. So the newest days are looked at
each time, the others in turn: with 3,650 days and a tick every five seconds, each of them every
five minutes. What is new in the zone, what was not finished last time, and days that somebody names
are looked at whatever their turn. A zone of few days, and one that nothing is remembered of, is
looked at whole.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

WINDOW_DAYS = 60
"""The newest days are looked at each time: as many as outcomes take to come, and then as long
again.
"""

SLICE_DAYS = 60
"""So many of the others are looked at each time."""

AGAIN_LIMIT = 5_000
EMPTY = np.empty(0, dtype=np.int64)


@dataclass
class ZoneMemory:
    """What is remembered of a landing zone: eight bytes for each day since the first that landed,
    and little else.

    Attributes:
        first: ordinal of the first day that was dealt with; 0 before there is one.
        marks: for each day since the first, a digest of how it looked when it was dealt with; 0 if
            it never was.
        unfinished: ordinals of days that lie in the zone and were never dealt with.
        again: ordinals of days to be looked at next time, whatever their turn.
        turn: ordinal of the day that was looked at last in turn; 0 at the beginning of a round.
        signature: of the zone when its names were listed last; empty if they must be listed again.
        strangers: names in the zone that are no day's folder, as they were listed last.
        seen_event: the last event that was taken notice of; None before the first.
    """

    first: int = 0
    marks: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    unfinished: set[int] = field(default_factory=set)
    again: set[int] = field(default_factory=set)
    turn: int = 0
    signature: str = ""
    strangers: tuple[str, ...] = ()
    seen_event: int | None = None

    @classmethod
    def of(cls, cursor: str | None) -> Self:
        """Read a cursor.

        Args:
            cursor: as `text` gave it; None or empty if nothing is remembered.

        Raises:
            ValueError: if it is no such text.
        """
        if not cursor:
            return cls()
        stored: dict[str, Any] = json.loads(cursor)
        return cls(
            first=stored["first"],
            marks=np.frombuffer(base64.b64decode(stored["marks"]), dtype="<u8"),
            unfinished=set(stored["unfinished"]),
            again=set(stored["again"]),
            turn=stored["turn"],
            signature=stored["signature"],
            strangers=tuple(stored["strangers"]),
            seen_event=stored["seen_event"],
        )

    def text(self) -> str:
        """The cursor."""
        return json.dumps(
            {
                "first": self.first,
                "marks": base64.b64encode(self.marks.astype("<u8").tobytes()).decode(),
                "unfinished": sorted(self.unfinished),
                "again": sorted(self.again)[-AGAIN_LIMIT:],
                "turn": self.turn,
                "signature": self.signature,
                "strangers": self.strangers,
                "seen_event": self.seen_event,
            }
        )

    def dealt_with(self, day: str, stamp: str) -> None:
        """Remember how a day looked."""
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

    def knows(self, day: str, stamp: str) -> bool:
        """Whether a day was dealt with when it looked like this."""
        place = date.fromisoformat(day).toordinal() - self.first
        return 0 <= place < len(self.marks) and bool(self.marks[place] == _mark(stamp))

    @property
    def days_dealt_with(self) -> int:
        """How many days are remembered."""
        return int(np.count_nonzero(self.marks))

    def names_needed(self, signature: str) -> bool:
        """Whether the zone's names must be listed this time.

        Args:
            signature: of the zone now; empty if it has none.
        """
        return (
            not signature
            or signature != self.signature
            or self.turn == 0
            or len(self._known()) <= WINDOW_DAYS
        )

    def listed(self, days: Iterable[str], strangers: Iterable[str], signature: str) -> list[str]:
        """Take notice of the zone's names.

        Args:
            days: those of its folders that are days.
            strangers: the others.
            signature: of the zone before it was listed; empty if it says nothing.

        Returns:
            The days that are new.
        """
        found = {date.fromisoformat(day).toordinal() for day in days}
        unfinished = found - set(self._marked().tolist())
        new = unfinished - self.unfinished
        self.unfinished, self.strangers, self.signature = unfinished, tuple(strangers), signature
        return _days(new)

    def next_days(self, named: Iterable[str]) -> list[str]:
        """The days to look at now, in order; the turn goes on.

        Args:
            named: days to be looked at whatever their turn.
        """
        known = self._known()
        newest, others = known[-WINDOW_DAYS:], known[:-WINDOW_DAYS]
        begin = int(np.searchsorted(others, self.turn, side="right"))
        in_turn = others[begin : begin + SLICE_DAYS]
        self.turn = int(in_turn[-1]) if begin + SLICE_DAYS < len(others) else 0
        ordinals = {*newest.tolist(), *in_turn.tolist(), *self.again}
        return sorted({*_days(ordinals), *named})

    def look_again(self, days: Iterable[str]) -> None:
        """Days to be looked at next time, whatever their turn."""
        self.again = {date.fromisoformat(day).toordinal() for day in days}

    def _marked(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.marks).astype(np.int64) + self.first

    def _known(self) -> NDArray[np.int64]:
        unfinished = (
            np.fromiter(self.unfinished, dtype=np.int64, count=len(self.unfinished))
            if self.unfinished
            else EMPTY
        )
        return np.union1d(self._marked(), unfinished)


def bound_seconds(days: int, interval_seconds: float) -> float:
    """How long a change of an old day may stay unseen."""
    return -(-max(0, days - WINDOW_DAYS) // SLICE_DAYS) * interval_seconds


def known_looks(
    memory: ZoneMemory, stamps: Mapping[str, str], states: Mapping[str, str]
) -> dict[str, str]:
    """Of days as they look now, those that were dealt with when they looked so."""
    return {
        day: stamp
        for day, stamp in stamps.items()
        if memory.knows(day, stamp + states.get(day, ""))
    }


def _mark(stamp: str) -> np.uint64:
    """Eight bytes of a stamp's digest; never 0."""
    return np.uint64(int.from_bytes(hashlib.sha256(stamp.encode()).digest()[:8], "little") or 1)


def _days(ordinals: Iterable[int]) -> list[str]:
    return [date.fromordinal(one).isoformat() for one in sorted(ordinals)]
