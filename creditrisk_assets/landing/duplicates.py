"""Which rows are of a customer that has another row, among any number of rows.

Of each row three 64-bit hashes and the line are put aside on disk: two hashes of the customer,
which together tell any two customers apart, and one of the values. The rows are then looked at in
parts, each with all rows of some customers, so that memory does not depend on their number but for
three bytes a row (seven where versions are numbered).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Repeats = Literal["last_wins", "versions"]
"""What several rows of a customer mean: the last one counts, or each is a version of its own."""

PART_ROWS = 2_000_000
CHUNK_ROWS = 1_000_000

BoolArray = NDArray[np.bool_]
Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Repeated:
    """For each row, whether it is an exact duplicate, whether a later row of its customer
    supersedes it, and which of its customer's versions it is (from 1; None where versions are not
    counted).
    """

    duplicate: BoolArray
    superseded: BoolArray
    version: NDArray[np.int32] | None

    @property
    def any(self) -> bool:
        """Whether any customer has several rows."""
        return bool(
            self.duplicate.any()
            or self.superseded.any()
            or (self.version is not None and (self.version > 1).any())
        )


class SeenRows:
    """Rows that were seen, in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self._stack = ExitStack()
        names = ("customer", "customer-again", "values", "line")
        self._customer, self._again, self._values, self._line = (
            self._stack.enter_context(_Column(folder / name)) for name in names
        )

    def add(
        self,
        customers: NDArray[np.object_],
        values: Sequence[NDArray[np.float64]],
        lines: Places,
        chosen: BoolArray,
    ) -> None:
        """Put the chosen ones of some rows aside.

        Args:
            customers: identifiers.
            values: one array for each field; equal values have equal bits.
            lines: the rows' lines in their file.
            chosen: which of the rows are meant.
        """
        self._customer.write(_text_hashes(customers, "customer, 64 bit")[chosen])
        self._again.write(_text_hashes(customers, "64 bits of more.")[chosen])
        self._values.write(_row_hashes(values)[chosen])
        self._line.write(lines[chosen].view(np.uint64))
        self.count += int(chosen.sum())

    def lines(self, start: int, count: int) -> Places:
        """The lines of some rows."""
        return self._line.read(start, count).view(np.int64)

    def repeated(self, alive: BoolArray, repeats: Repeats) -> Repeated:
        """Find the customers with several rows.

        Args:
            alive: rows that count.
            repeats: what several rows of a customer mean.
        """
        duplicate, superseded = np.zeros(self.count, dtype=bool), np.zeros(self.count, dtype=bool)
        version = np.ones(self.count, dtype=np.int32) if repeats == "versions" else None
        parts = -(-self.count // PART_ROWS)
        for part in range(parts):
            places, customer = self._several(alive, part, parts)
            if not len(places):
                continue
            again, values = self._again.take(places), self._values.take(places)
            order = np.lexsort(
                (again, customer)
            )  # the rows of a customer together, and in the order in which they came
            places, customer, again, values = (
                places[order],
                customer[order],
                again[order],
                values[order],
            )
            follows = np.zeros(
                len(places), dtype=bool
            )  # whether the row before is of the same customer
            follows[1:] = (customer[1:] == customer[:-1]) & (again[1:] == again[:-1])
            if version is not None:
                same = follows.copy()
                same[1:] &= values[1:] == values[:-1]
                first = np.flatnonzero(~follows)
                number = np.cumsum(~same)
                version[places] = (
                    number - np.repeat(number[first], np.diff(np.append(first, len(places)))) + 1
                )
                duplicate[places[same]] = True
            else:
                last = np.append(np.flatnonzero(~follows)[1:], len(places)) - 1
                winner = np.repeat(last, np.diff(np.concatenate([[-1], last])))
                same = values == values[winner]
                loses = winner != np.arange(len(places))
                duplicate[places[loses & same]] = True
                superseded[places[loses & ~same]] = True
        return Repeated(duplicate, superseded, version)

    def _several(self, alive: BoolArray, part: int, parts: int) -> tuple[Places, Hashes]:
        """Rows of one part of the customers whose first hash stands more than once, and those
        hashes.
        """
        found, hashes = [], []
        for start, customer in self._customer.chunks():
            chosen = alive[start : start + len(customer)]
            if parts > 1:
                chosen = chosen & (customer % np.uint64(parts) == part)
            found.append(start + np.flatnonzero(chosen))
            hashes.append(customer[chosen])
        places, customers = np.concatenate(found), np.concatenate(hashes)
        ordered = np.sort(customers)
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        if not len(repeated):
            return places[:0], customers[:0]
        again = (
            repeated[np.minimum(np.searchsorted(repeated, customers), len(repeated) - 1)]
            == customers
        )
        return places[again], customers[again]

    def close(self) -> None:
        """Nothing more will be added."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Column:
    """One 64-bit number for each row, on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self._count = 0

    def write(self, values: NDArray[np.uint64]) -> None:
        self._file.write(np.ascontiguousarray(values).data)
        self._count += len(values)

    def read(self, start: int, count: int) -> Hashes:
        return np.fromfile(self._path, dtype=np.uint64, count=count, offset=8 * start)

    def chunks(self) -> Iterator[tuple[int, Hashes]]:
        for start in range(0, self._count, CHUNK_ROWS):
            yield start, self.read(start, min(CHUNK_ROWS, self._count - start))

    def take(self, places: Places) -> Hashes:
        """The numbers at some places, which ascend."""
        found = []
        for start, values in self.chunks():
            first, last = np.searchsorted(places, [start, start + len(values)])
            found.append(values[places[first:last] - start])
        return np.concatenate(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def _text_hashes(texts: NDArray[np.object_], key: str) -> Hashes:
    return np.asarray(pd.util.hash_array(texts, hash_key=key, categorize=False), dtype=np.uint64)


def _row_hashes(columns: Sequence[NDArray[np.float64]]) -> Hashes:
    """One hash for each row; rows with the same numbers, and none in the same places, have the
    same.
    """
    hashed = (
        np.asarray(pd.util.hash_array(column.view(np.uint64), categorize=False), dtype=np.uint64)
        for column in columns
    )
    result = next(hashed)
    for one in hashed:
        result *= np.uint64(0x9E3779B97F4A7C15)
        result += one
    return result
