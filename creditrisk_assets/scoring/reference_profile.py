"""What the champion was trained on, as numbers that a day is held against, and counting a day of
any size by them.

The profile is made once, over all training rows, and lies in the bundle. A day is counted batch by
batch as it is read, so that ten million rows need no more memory than one batch, and a count of it
does not depend on how the day is cut into batches.
"""

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from creditrisk_assets.scoring.bundle import REFERENCE, REFERENCE_PROFILE, Bundle, InputField

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Numbers = NDArray[np.float64] | NDArray[np.float32] | NDArray[np.int64]

SCORE = "score"
"""The score's column; no field of a portfolio may have this name."""

BINS = 10
BATCH_ROWS = 65_536
"""Rows that are counted at once: a column of them fits into a processor's own cache."""

HAIR = 1e-9
"""Points that a moved edge is set higher: a customer on an edge stays in its bin however the new
score is rounded.
"""

INT32 = np.iinfo(np.int32)
INTEGERS = (np.iinfo(np.int8), np.iinfo(np.int16), INT32)
"""A contract's codes fit into the last; the fewer bytes a value has, the sooner a column is
counted.
"""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnProfile(_Document):
    """One column in training.

    Attributes:
        name: the column.
        edges: inner edges of the bins, rising: the deciles, fewer where values repeat. A bin holds
            its upper edge.
        counts: weighted rows of each bin, `len(edges) + 1` of them, and last those without a value.
        minimum: the smallest value; None where no row has one.
        maximum: the largest.
        codes: the codes that were seen, as the decision graph sees them; None for a column without
            codes.
    """

    name: str
    edges: list[float]
    counts: list[int]
    minimum: float | None
    maximum: float | None
    codes: list[float] | None = None

    @property
    def missing_share(self) -> float:
        """Weighted share of the rows without a value."""
        return self.counts[-1] / max(sum(self.counts), 1)


class ReferenceProfile(_Document):
    """The training rows of a bundle: the score first, then every input in the order of the decision
    graph.

    `effective_rows` is how many equally weighted rows tell as much: (sum of weights)^2 / sum of
    squared weights.
    """

    rows: int
    effective_rows: float
    columns: list[ColumnProfile]

    @classmethod
    def of(
        cls, columns: Mapping[str, Numbers], weight: IntArray, coded: Iterable[str] = ()
    ) -> Self:
        """The profile of some rows.

        Args:
            columns: the values of each column, n of each; missing ones are NaN.
            weight: n, how often each row counts.
            coded: columns whose values are codes.

        Raises:
            ValueError: if there is no row.
        """
        if len(weight) == 0:
            raise ValueError("no training rows; valid: at least one")
        with_codes = set(coded)
        return cls(
            rows=len(weight),
            effective_rows=float(weight.sum()) ** 2 / float((weight.astype(np.float64) ** 2).sum()),
            columns=[
                _profile(name, values, weight, name in with_codes)
                for name, values in columns.items()
            ],
        )

    @property
    def names(self) -> list[str]:
        """The columns."""
        return [column.name for column in self.columns]

    def effective_counts(self, column: ColumnProfile) -> FloatArray:
        """Rows of each bin of a column, in equally weighted rows; fractions as a rule."""
        counts = np.array(column.counts, dtype=np.float64)
        return np.asarray(counts * (self.effective_rows / counts.sum()))

    def with_score(self, offset: float, factor: float) -> Self:
        """The same rows under score * factor + offset, which is what a new calibration makes of a
        score.

        Raises:
            ValueError: if the factor is not positive: the order of the bins would turn round.
        """
        if factor <= 0:
            raise ValueError(f"factor {factor}; valid: above 0")
        first = self.columns[0]
        moved = first.model_copy(
            update={
                "edges": [edge * factor + offset + HAIR for edge in first.edges],
                "minimum": None
                if first.minimum is None
                else first.minimum * factor + offset - HAIR,
                "maximum": None
                if first.maximum is None
                else first.maximum * factor + offset + HAIR,
            }
        )
        return self.model_copy(update={"columns": [moved, *self.columns[1:]]})


@dataclass(frozen=True)
class ColumnCounts:
    """How the rows of a day fall in one column.

    Attributes:
        bins: rows of each bin of the profile, last those without a value.
        out_of_range: rows below the smallest or above the largest value of training.
        new_codes: rows with a code that training never saw.
    """

    bins: IntArray
    out_of_range: int
    new_codes: int

    def __add__(self, other: "ColumnCounts") -> "ColumnCounts":
        return ColumnCounts(
            self.bins + other.bins,
            self.out_of_range + other.out_of_range,
            self.new_codes + other.new_codes,
        )


Counts = dict[str, ColumnCounts]
"""Of each column of a profile."""


class RowCounter:
    """Counts rows by a profile.

    Args:
        profile: of the champion.
        inputs: how its inputs are encoded.
    """

    def __init__(self, profile: ReferenceProfile, inputs: Sequence[InputField]) -> None:
        by_name = {field.name: field for field in inputs}
        self.columns = profile.names
        self._counters = [_counter(column, by_name.get(column.name)) for column in profile.columns]

    def __call__(self, batch: pa.RecordBatch) -> Counts:
        """Count the rows of one batch.

        Args:
            batch: has a column for each of the profile's, as days are stored: whole numbers,
                decimals, text codes; nulls where a value is missing.
        """
        return {counter.name: counter(batch.column(counter.name)) for counter in self._counters}

    def total(self, batches: Iterable[pa.RecordBatch]) -> Counts:
        """Count all rows of some batches; while one is counted the next is read."""
        total = {counter.name: counter.nothing for counter in self._counters}
        workers = max(1, min(4, os.cpu_count() or 1))
        waiting: deque[Future[Counts]] = deque()
        with ThreadPoolExecutor(workers, "count") as pool:
            for batch in batches:
                waiting.append(pool.submit(self, batch))
                if len(waiting) > workers:
                    _add(total, waiting.popleft().result())
            while waiting:
                _add(total, waiting.popleft().result())
        return total


def profile_of_rows(
    raw: NDArray[np.float32], score: FloatArray, weight: IntArray, inputs: Sequence[InputField]
) -> ReferenceProfile:
    """The profile of a bundle's training rows.

    Args:
        raw: n x inputs, as the decision graph takes them.
        score: n, as it gives them.
        weight: n, how often each row counts.
        inputs: the columns of `raw`.
    """
    columns: dict[str, Numbers] = {
        SCORE: score,
        **{field.name: raw[:, place] for place, field in enumerate(inputs)},
    }
    return ReferenceProfile.of(
        columns, weight, [field.name for field in inputs if field.codes is not None]
    )


def reference_profile_of(bundle: Bundle) -> ReferenceProfile:
    """The profile in a bundle. One that was made before there were profiles has only a sample of
    its training rows; then it is the sample's.
    """
    try:
        return ReferenceProfile.model_validate_json(bundle.document(REFERENCE_PROFILE))
    except FileNotFoundError:
        table = pq.read_table(pa.BufferReader(bundle.document(REFERENCE)))
        score = table.column(SCORE).to_numpy()
        raw = np.stack([table.column(name).to_numpy() for name in bundle.input_names], axis=1)
        return profile_of_rows(
            raw, score, np.ones(len(score), dtype=np.int64), bundle.manifest.inputs
        )


def bin_edges(reference: FloatArray) -> FloatArray:
    """Inner edges of the bins: the reference's deciles, fewer where values repeat. A bin holds its
    upper edge.

    Where every decile is the largest value, that value has a bin of its own; a column of one value
    has bins on both sides of it. A column without values has one bin.
    """
    if len(reference) == 0:
        return np.array([])
    edges = np.unique(np.quantile(reference, np.arange(1, BINS) / BINS, method="higher"))
    inner = edges[edges < reference.max()]
    if len(inner) == 0:
        below = np.nextafter(reference.max(), -np.inf)
        return np.array([below]) if reference.min() <= below else np.array([below, reference.max()])
    return np.asarray(inner)


def bin_counts(edges: FloatArray, values: FloatArray) -> IntArray:
    """Values in each bin; missing ones are counted in the last."""
    places = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="left"))
    return np.bincount(places, minlength=len(edges) + 2)


def _profile(name: str, values: Numbers, weight: IntArray, coded: bool) -> ColumnProfile:
    numbers = values.astype(np.float64)
    known = ~np.isnan(numbers)
    edges = bin_edges(np.repeat(numbers[known], weight[known]))
    places = np.where(known, np.searchsorted(edges, numbers, side="left"), len(edges) + 1)
    counts = np.bincount(places, weights=weight, minlength=len(edges) + 2)
    return ColumnProfile(
        name=name,
        edges=edges.tolist(),
        counts=[round(count) for count in counts.tolist()],
        minimum=float(numbers[known].min()) if known.any() else None,
        maximum=float(numbers[known].max()) if known.any() else None,
        codes=np.unique(numbers[known]).tolist() if coded else None,
    )


def _add(total: Counts, more: Counts) -> None:
    for name, counts in more.items():
        total[name] += counts


def _counter(column: ColumnProfile, field: InputField | None) -> "_Counter":
    if field is not None and field.codes is not None:
        return _CodeCounter(column, field)
    return _NumberCounter(column, exact=field is None)


class _Counter(ABC):
    """Counts one column."""

    def __init__(self, column: ColumnProfile) -> None:
        self.name = column.name
        self.nothing = ColumnCounts(np.zeros(len(column.edges) + 2, dtype=np.int64), 0, 0)

    @abstractmethod
    def __call__(self, values: pa.Array) -> ColumnCounts:
        """The counts of some more values."""


class _NumberCounter(_Counter):
    """Counts a column of numbers: how many are at most each edge, which is what a processor does
    fastest.

    Args:
        column: its profile.
        exact: whether decimals are compared as they are; else as the decision graph sees them,
            rounded to float32.
    """

    def __init__(self, column: ColumnProfile, exact: bool) -> None:
        super().__init__(column)
        self._exact = exact
        self._edges = np.array(column.edges, dtype=np.float64)
        self._smallest = -np.inf if column.minimum is None else column.minimum
        self._largest = np.inf if column.maximum is None else column.maximum
        self._whole_edges = np.floor(np.clip(self._edges, INT32.min, INT32.max)).astype(np.int32)
        self._small_edges = _rounded_down(self._edges)

    def __call__(self, values: pa.Array) -> ColumnCounts:
        missing = values.null_count
        numbers = (values.drop_null() if missing else values).to_numpy(zero_copy_only=False)
        if numbers.dtype.kind == "f":
            if not self._exact:
                numbers = numbers.astype(np.float32)
            if len(numbers) and np.isnan(numbers.min()):
                known = numbers[~np.isnan(numbers)]
                missing += len(numbers) - len(known)
                numbers = known
        if len(numbers) == 0:
            return self._counts([], 0, missing, 0)
        smallest, largest = numbers.min(), numbers.max()
        edges: Any = self._edges
        if numbers.dtype.kind == "i" and smallest >= INT32.min and largest <= INT32.max:
            numbers, edges = numbers.astype(np.int32), self._whole_edges
        elif numbers.dtype == np.float32:
            edges = self._small_edges
        outside = 0
        if smallest < self._smallest or largest > self._largest:
            outside = int(
                np.count_nonzero(numbers < self._smallest)
                + np.count_nonzero(numbers > self._largest)
            )
        return self._counts(
            [int(np.count_nonzero(numbers <= edge)) for edge in edges],
            len(numbers),
            missing,
            outside,
        )

    def _counts(self, at_most: list[int], known: int, missing: int, outside: int) -> ColumnCounts:
        if not known:
            at_most = [0] * len(self._edges)
        return ColumnCounts(np.append(np.diff([0, *at_most, known]), missing), outside, 0)


class _CodeCounter(_Counter):
    """Counts a column of codes: how often each that training saw."""

    def __init__(self, column: ColumnProfile, field: InputField) -> None:
        super().__init__(column)
        self._texts = pa.array(list(field.code_numbers), pa.string()) if field.is_text else None
        self._codes = np.array(column.codes or [], dtype=np.float64)
        self._places = np.searchsorted(column.edges, self._codes, side="left")
        self._edges = np.array(column.edges, dtype=np.float64)
        self._limits = next(
            limits for limits in INTEGERS if np.abs(self._codes).max(initial=0) <= limits.max
        )
        self._narrow_codes = self._codes.astype(self._limits.dtype)

    def __call__(self, values: pa.Array) -> ColumnCounts:
        missing = values.null_count
        known = values.drop_null() if missing else values
        if self._texts is not None:
            known = pc.fill_null(pc.index_in(known, value_set=self._texts), len(self._texts))
        numbers = known.to_numpy(zero_copy_only=False)
        bins = np.zeros(len(self._edges) + 2, dtype=np.int64)
        bins[-1] = missing
        if len(numbers) == 0:
            return ColumnCounts(bins, 0, 0)
        narrow = numbers
        if (
            numbers.dtype.kind == "i"
            and numbers.min() >= self._limits.min
            and numbers.max() <= self._limits.max
        ):
            narrow = numbers.astype(self._limits.dtype)
        each = [np.count_nonzero(narrow == code) for code in self._narrow_codes]
        np.add.at(bins, self._places, each)
        new = 0
        if len(numbers) > sum(each):
            strangers = numbers[~np.isin(numbers, self._codes)].astype(np.float64)
            bins += bin_counts(self._edges, strangers)
            new = int(np.count_nonzero(~np.isnan(strangers)))
        return ColumnCounts(bins, 0, new)


def _rounded_down(edges: FloatArray) -> NDArray[np.float32]:
    """The largest float32 that is not above each edge: a float32 is at most the one exactly if it
    is at most the other.
    """
    rounded = edges.astype(np.float32)
    return np.where(rounded > edges, np.nextafter(rounded, np.float32(-np.inf)), rounded).astype(
        np.float32
    )
