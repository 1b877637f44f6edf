"""Reference profile: the distribution of the champion's training rows, and counting days by its
bins.

The profile covers all training rows and is part of the bundle. A day is counted batch by batch as
it is read, so ten million rows need no more memory than one batch, and the counts do not depend on
the cut into batches.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from creditrisk_assets.scoring.bundle import REFERENCE_PROFILE, Bundle, Document, InputField
from creditrisk_assets.scoring.float32 import float32_floor

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
T = TypeVar("T")
Numbers = NDArray[np.float64] | NDArray[np.float32] | NDArray[np.int64]

SCORE = "score"
"""Column of the score; no field of a portfolio may have this name."""

BINS = 10
BATCH_ROWS = 65_536
"""Rows counted at once: a column of them fits into the processor's cache."""

EDGE_MARGIN = 1e-9
"""Points added to a recalibrated edge: a customer on an edge stays in its bin however the new score
rounds.
"""

INT32 = np.iinfo(np.int32)
INTEGERS = (np.iinfo(np.int8), np.iinfo(np.int16), INT32)
"""Integer types from narrow to wide: narrow columns are counted faster, and all codes of a contract
fit into the last.
"""


class ColumnProfile(Document):
    """Distribution of one column in training.

    Attributes:
        name: the column.
        edges: inner edges of the bins, ascending: the deciles, fewer where values repeat. A bin
            includes its upper edge.
        counts: weighted rows of each of the `len(edges) + 1` bins, then of missing values.
        minimum: the smallest value; None if no row has a value.
        maximum: the largest value.
        codes: the codes in training, as the decision graph's input; None for a column without
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


class ReferenceProfile(Document):
    """Distribution of a bundle's training rows: the score first, then every input in the order of
    the decision graph.

    `effective_rows` is the equivalent number of equally weighted rows: (sum of weights)^2 / sum of
    squared weights.
    """

    rows: int
    effective_rows: float
    columns: list[ColumnProfile]

    @classmethod
    def of(
        cls, columns: Mapping[str, Numbers], weight: IntArray, coded: Iterable[str] = ()
    ) -> Self:
        """Compute the profile of rows.

        Args:
            columns: n values of each column; missing values are NaN.
            weight: n, how many times each row counts.
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
        return [column.name for column in self.columns]

    def effective_counts(self, column: ColumnProfile) -> FloatArray:
        """Effective rows of each bin of a column, usually fractions."""
        counts = np.array(column.counts, dtype=np.float64)
        return np.asarray(counts * (self.effective_rows / counts.sum()))

    def with_score(self, offset: float, factor: float) -> Self:
        """Profile of the same rows after a recalibration, score * factor + offset.

        Raises:
            ValueError: if the factor is not positive, which would reverse the bins.
        """
        if factor <= 0:
            raise ValueError(f"factor {factor}; valid: above 0")
        first = self.columns[0]
        recalibrated = first.model_copy(
            update={
                "edges": [edge * factor + offset + EDGE_MARGIN for edge in first.edges],
                "minimum": None
                if first.minimum is None
                else first.minimum * factor + offset - EDGE_MARGIN,
                "maximum": None
                if first.maximum is None
                else first.maximum * factor + offset + EDGE_MARGIN,
            }
        )
        return self.model_copy(update={"columns": [recalibrated, *self.columns[1:]]})


@dataclass(frozen=True)
class ColumnCounts:
    """Counts of a day's rows in one column.

    Attributes:
        bins: rows in each bin of the profile, then rows without a value.
        out_of_range: rows below the smallest or above the largest value in training.
        new_codes: rows with a code that did not occur in training.
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
"""Counts of each column of a profile."""


class RowCounter:
    """Counter of rows by a profile.

    Args:
        profile: of the champion.
        inputs: encoding of its inputs.
    """

    def __init__(self, profile: ReferenceProfile, inputs: Sequence[InputField]) -> None:
        by_name = {field.name: field for field in inputs}
        self.columns = profile.names
        self._bins = {column.name: len(column.edges) + 2 for column in profile.columns}
        self._counters: dict[str, _NumberCounter | _CodeCounter] = {}
        for column in profile.columns:
            field = by_name.get(column.name)
            self._counters[column.name] = (
                _NumberCounter(column, exact=field is None)
                if field is None or field.codes is None
                else _CodeCounter(column, field)
            )

    def __call__(self, batch: pa.RecordBatch) -> Counts:
        """Count the rows of one batch.

        Args:
            batch: all columns of the profile, in the types of stored days: whole numbers, decimals,
                text codes; missing values are null.
        """
        return {name: counter(batch.column(name)) for name, counter in self._counters.items()}

    def total(self, batches: Iterable[pa.RecordBatch]) -> Counts:
        """Count all rows of several batches, reading and counting in parallel."""
        total = {
            name: ColumnCounts(np.zeros(bins, dtype=np.int64), 0, 0)
            for name, bins in self._bins.items()
        }
        for counts in in_parallel(self, batches):
            _add(total, counts)
        return total


def in_parallel(
    count: Callable[[pa.RecordBatch], T], batches: Iterable[pa.RecordBatch]
) -> Iterator[T]:
    """Results of a function for each batch, in order, while the next batches are read."""
    workers = max(1, min(4, os.cpu_count() or 1))
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers, "count") as pool:
        for batch in batches:
            waiting.append(pool.submit(count, batch))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def profile_of_rows(
    raw: NDArray[np.float32], score: FloatArray, weight: IntArray, inputs: Sequence[InputField]
) -> ReferenceProfile:
    """Compute the profile of a bundle's training rows.

    Args:
        raw: n x inputs, encoded for the decision graph.
        score: n, from the decision graph.
        weight: n, how many times each row counts.
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
    """Read the profile of a bundle."""
    return ReferenceProfile.model_validate_json(bundle.document(REFERENCE_PROFILE))


def bin_edges(reference: FloatArray) -> FloatArray:
    """Inner edges of the bins: the reference's deciles, fewer where values repeat. A bin includes
    its upper edge.

    If every decile is the largest value, that value has a bin of its own; a column of one value has
    bins on both sides of it. A column without values has one bin.
    """
    if len(reference) == 0:
        return np.array([])
    edges = np.unique(np.quantile(reference, np.arange(1, BINS) / BINS, method="higher"))
    inner = edges[edges < reference.max()]
    if len(inner) == 0:
        below = np.nextafter(reference.max(), -np.inf)
        return np.array([below]) if reference.min() <= below else np.array([below, reference.max()])
    return np.asarray(inner)


def bin_counts(
    edges: FloatArray, values: FloatArray, weight: IntArray | None = None
) -> NDArray[Any]:
    """Values in each bin, then missing values; with weights, as decimals."""
    places = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="left"))
    return np.bincount(places, weight, minlength=len(edges) + 2)


def _profile(name: str, values: Numbers, weight: IntArray, coded: bool) -> ColumnProfile:
    numbers = values.astype(np.float64)
    present = ~np.isnan(numbers)
    edges = bin_edges(np.repeat(numbers[present], weight[present]))
    return ColumnProfile(
        name=name,
        edges=edges.tolist(),
        counts=[round(count) for count in bin_counts(edges, numbers, weight).tolist()],
        minimum=float(numbers[present].min()) if present.any() else None,
        maximum=float(numbers[present].max()) if present.any() else None,
        codes=np.unique(numbers[present]).tolist() if coded else None,
    )


def _add(total: Counts, more: Counts) -> None:
    for name, counts in more.items():
        total[name] += counts


class _NumberCounter:
    """Counter of a column of numbers, by the number of values up to each edge, which is fastest.

    Args:
        column: its profile.
        exact: whether decimals are compared as they are; otherwise rounded to float32, the decision
            graph's input.
    """

    def __init__(self, column: ColumnProfile, exact: bool) -> None:
        self._exact = exact
        self._edges = np.array(column.edges, dtype=np.float64)
        self._smallest = -np.inf if column.minimum is None else column.minimum
        self._largest = np.inf if column.maximum is None else column.maximum
        self._whole_edges = np.floor(np.clip(self._edges, INT32.min, INT32.max)).astype(np.int32)
        self._small_edges = float32_floor(self._edges)

    def __call__(self, values: pa.Array) -> ColumnCounts:
        missing = values.null_count
        numbers = (values.drop_null() if missing else values).to_numpy(zero_copy_only=False)
        if numbers.dtype.kind == "f":
            if not self._exact:
                numbers = numbers.astype(np.float32)
            if len(numbers) and np.isnan(numbers.min()):
                present = numbers[~np.isnan(numbers)]
                missing += len(numbers) - len(present)
                numbers = present
        if len(numbers) == 0:
            return ColumnCounts(np.array([0] * (len(self._edges) + 1) + [missing]), 0, 0)
        smallest, largest = numbers.min(), numbers.max()
        edges: Any = self._edges
        if numbers.dtype.kind == "i" and smallest >= INT32.min and largest <= INT32.max:
            numbers, edges = numbers.astype(np.int32), self._whole_edges
        elif numbers.dtype == np.float32:
            edges = self._small_edges
        outside = 0
        if smallest < self._smallest or largest > self._largest:
            outside = int(np.count_nonzero(numbers < self._smallest))
            outside += int(np.count_nonzero(numbers > self._largest))
        at_most = [int(np.count_nonzero(numbers <= edge)) for edge in edges]
        bins = np.append(np.diff([0, *at_most, len(numbers)]), missing)
        return ColumnCounts(bins, outside, 0)


class _CodeCounter:
    """Counter of a column of codes, by the codes in training."""

    def __init__(self, column: ColumnProfile, field: InputField) -> None:
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
        present = values.drop_null() if missing else values
        if self._texts is not None:
            present = pc.fill_null(pc.index_in(present, value_set=self._texts), len(self._texts))
        numbers = present.to_numpy(zero_copy_only=False)
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
        code_counts = [np.count_nonzero(narrow == code) for code in self._narrow_codes]
        np.add.at(bins, self._places, code_counts)
        new = 0
        if len(numbers) > sum(code_counts):
            new_codes = numbers[~np.isin(numbers, self._codes)].astype(np.float64)
            bins += bin_counts(self._edges, new_codes)
            new = int(np.count_nonzero(~np.isnan(new_codes)))
        return ColumnCounts(bins, 0, new)
