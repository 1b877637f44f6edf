"""Search for customers with several rows, among any number of rows.

Three 64-bit hashes and the line of each row are written to disk: two hashes of the customer, which
together distinguish any two customers, and one of the values. The rows are then processed in parts,
each with all rows of some customers, so memory grows by only three bytes a row (seven where
versions are numbered).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

DuplicateRule = Literal["last_wins", "versions"]
"""Meaning of several rows of a customer: only the last one counts, or each is a version."""

PART_ROWS = 2_000_000
CHUNK_ROWS = 1_000_000

BoolArray = NDArray[np.bool_]
Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Duplicates:
    """For each row: whether it is an exact duplicate, whether a later row of its customer
    supersedes it, and its version number (from 1; None where versions are not counted).
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


class RowHashes:
    """Hashes of rows, in order of arrival."""

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self._stack = ExitStack()
        names = ("customer", "customer-again", "values", "line")
        self._customer, self._second_hash, self._values, self._line = (
            self._stack.enter_context(_Column(folder / name)) for name in names
        )

    def add(
        self,
        customers: NDArray[np.object_],
        values: Sequence[NDArray[np.float64]],
        lines: Places,
        selection: BoolArray,
    ) -> None:
        """Add the selected rows.

        Args:
            customers: identifiers.
            values: one array for each field; equal values have equal bits.
            lines: the rows' lines in their file.
            selection: mask of the rows to add.
        """
        self._customer.write(_text_hashes(customers, "customer, 64 bit")[selection])
        self._second_hash.write(_text_hashes(customers, "64 bits of more.")[selection])
        self._values.write(_row_hashes(values)[selection])
        self._line.write(lines[selection].view(np.uint64))
        self.count += int(selection.sum())

    def lines(self, start: int, count: int) -> Places:
        """Lines of consecutive rows."""
        return self._line.read(start, count).view(np.int64)

    def find_duplicates(self, valid: BoolArray, duplicate_rule: DuplicateRule) -> Duplicates:
        """Find the customers with several rows.

        Args:
            valid: mask of the rows that count.
            duplicate_rule: meaning of several rows of a customer.
        """
        duplicate, superseded = np.zeros(self.count, dtype=bool), np.zeros(self.count, dtype=bool)
        version = np.ones(self.count, dtype=np.int32) if duplicate_rule == "versions" else None
        parts = -(-self.count // PART_ROWS)
        for part in range(parts):
            places, customer = self._candidates(valid, part, parts)
            if not len(places):
                continue
            second_hash, values = self._second_hash.take(places), self._values.take(places)
            order = np.lexsort((second_hash, customer))  # groups by customer, in order of arrival
            places, customer, second_hash, values = (
                places[order],
                customer[order],
                second_hash[order],
                values[order],
            )
            # Whether the previous row is of the same customer.
            follows = np.zeros(len(places), dtype=bool)
            follows[1:] = (customer[1:] == customer[:-1]) & (second_hash[1:] == second_hash[:-1])
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
        return Duplicates(duplicate, superseded, version)

    def _candidates(self, valid: BoolArray, part: int, parts: int) -> tuple[Places, Hashes]:
        """Rows in one part of the customers whose first hash occurs more than once, and these
        hashes.
        """
        found, hashes = [], []
        for start, customer in self._customer.chunks():
            selection = valid[start : start + len(customer)]
            if parts > 1:
                selection = selection & (customer % np.uint64(parts) == part)
            found.append(start + np.flatnonzero(selection))
            hashes.append(customer[selection])
        places, customers = np.concatenate(found), np.concatenate(hashes)
        ordered = np.sort(customers)
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        if not len(repeated):
            return places[:0], customers[:0]
        is_repeated = (
            repeated[np.minimum(np.searchsorted(repeated, customers), len(repeated) - 1)]
            == customers
        )
        return places[is_repeated], customers[is_repeated]

    def close(self) -> None:
        """Finish adding rows."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Column:
    """Column of 64-bit numbers, one a row, on disk."""

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
        """Numbers at ascending places."""
        found = []
        for start, values in self.chunks():
            first, last = np.searchsorted(places, [start, start + len(values)])
            found.append(values[places[first:last] - start])
        return np.concatenate(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _text_hashes(texts: NDArray[np.object_], key: str) -> Hashes:
    return np.asarray(pd.util.hash_array(texts, hash_key=key, categorize=False), dtype=np.uint64)


def _row_hashes(columns: Sequence[NDArray[np.float64]]) -> Hashes:
    """Hash of each row; rows with the same numbers, and gaps in the same places, share a hash."""
    hashed = (
        np.asarray(pd.util.hash_array(column.view(np.uint64), categorize=False), dtype=np.uint64)
        for column in columns
    )
    result = next(hashed)
    for column_hashes in hashed:
        result *= np.uint64(0x9E3779B97F4A7C15)
        result += column_hashes
    return result
