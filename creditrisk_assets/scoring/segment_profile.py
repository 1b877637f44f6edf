"""Segment profile: the distribution of the champion's training rows within each segment, and
counting days by segment.

The profile is a document of the bundle beside the reference profile, with the same bins; it does
not decide, so the bundle's hash does not cover it. A bundle that was made without it has no
reference by segment.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from creditrisk_assets.portfolio.columns import encoded_columns
from creditrisk_assets.portfolio.contract import Field, Portfolio
from creditrisk_assets.portfolio.segmentation import DEFAULT_PROBABILITY, Segmentation
from creditrisk_assets.scoring.bundle import SEGMENT_PROFILE, Bundle, Document, InputField
from creditrisk_assets.scoring.float32 import float32_floor
from creditrisk_assets.scoring.reference_profile import (
    BINS,
    SCORE,
    ColumnProfile,
    ReferenceProfile,
    in_parallel,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MOST_BINS = BINS + 1
"""Bins of a column, and the one of its missing values; columns with fewer have empty ones."""

PREDICTION = "prediction"


class SegmentReference(Document):
    """Training rows of one segment.

    Attributes:
        label: name of the segment.
        rows: weighted rows.
        effective_rows: equivalent number of equally weighted rows.
        counts: for each column of the profile the weighted rows in each bin, then of missing
            values.
        pd_counts: weighted rows up to each edge of the profile's PDs, and above the last.
        validation_rows: held-out rows.
        validation_bads: held-out bads.
        roc_auc: AUC of the held-out rows; None with too few of a class.
        roc_auc_standard_error: its standard error.
    """

    label: str
    rows: int
    effective_rows: float
    counts: list[list[int]]
    pd_counts: list[int]
    validation_rows: int = 0
    validation_bads: int = 0
    roc_auc: float | None = None
    roc_auc_standard_error: float | None = None


class SegmentationReference(Document):
    """Training rows by one segmentation; `definition` tells whether it is still the portfolio's."""

    name: str
    definition: str
    segments: list[SegmentReference]


class SegmentProfile(Document):
    """Training rows by segment.

    Attributes:
        columns: the score, then every input, as in the reference profile.
        pd_edges: ascending PDs, the bundle's cut-off among them.
        segmentations: those of the portfolio at training.
    """

    columns: list[str]
    pd_edges: list[float]
    segmentations: list[SegmentationReference]

    def recalibrated(self, pd_edges: Sequence[float]) -> "SegmentProfile":
        """The profile after a recalibration, which keeps the order of customers: the bins hold the
        same rows. Segments by PD hold others, so they have no reference until the next fit.

        Args:
            pd_edges: the new PD of each edge.
        """
        return self.model_copy(
            update={
                "pd_edges": list(pd_edges),
                "segmentations": [
                    one for one in self.segmentations if DEFAULT_PROBABILITY not in one.definition
                ],
            }
        )


def segment_profile_of(bundle: Bundle) -> SegmentProfile | None:
    """Read the segment profile of a bundle; None if it was made without one."""
    try:
        return SegmentProfile.model_validate_json(bundle.document(SEGMENT_PROFILE))
    except FileNotFoundError:
        return None


@dataclass(frozen=True)
class SegmentPlacer:
    """Placement of customers among the segments of several segmentations, which are numbered
    through.
    """

    segmentations: Sequence[Segmentation]
    fields: Sequence[Field]

    @classmethod
    def of(cls, portfolio: Portfolio) -> "SegmentPlacer":
        """The segments of a portfolio."""
        return cls(portfolio.segments, portfolio.fields)

    @cached_property
    def labels(self) -> list[tuple[Segmentation, str]]:
        """Segmentation and name of each segment."""
        return [(one, label) for one in self.segmentations for label in one.segments(self.fields)]

    @cached_property
    def names(self) -> list[str]:
        """Columns that the segmentations need, the PD last if any does."""
        needed = {name for one in self.segmentations for name in one.names}
        fields = [field.name for field in self.fields if field.name in needed]
        return [*fields, *([DEFAULT_PROBABILITY] if DEFAULT_PROBABILITY in needed else [])]

    def of_columns(self, columns: Mapping[str, NDArray[Any]]) -> list[IntArray]:
        """Number of each customer's segment, for each segmentation.

        Args:
            columns: n values of each of `names`, encoded by the contract.
        """
        start, places = 0, []
        for segmentation in self.segmentations:
            places.append(start + segmentation.places(columns, self.fields))
            start += len(segmentation.segments(self.fields))
        return places

    def of_batch(self, batch: pa.RecordBatch) -> list[IntArray]:
        """The same for stored rows."""
        fields = [field for field in self.fields if field.name in self.names]
        values = encoded_columns(batch, fields)
        columns = {field.name: column for field, column in zip(fields, values, strict=True)}
        if DEFAULT_PROBABILITY in self.names:
            columns[DEFAULT_PROBABILITY] = batch.column(DEFAULT_PROBABILITY).to_numpy(
                zero_copy_only=False
            )
        return self.of_columns(columns)


@dataclass(frozen=True)
class SegmentCounts:
    """Counts of rows by segment (first axis).

    Attributes:
        bins: segments x columns x bins.
        rows: of each segment.
        approved: rows with a PD under the cut-off.
        pd_sum: sum of their PDs.
    """

    bins: IntArray
    rows: IntArray
    approved: IntArray
    pd_sum: FloatArray

    def __add__(self, other: "SegmentCounts") -> "SegmentCounts":
        return SegmentCounts(
            self.bins + other.bins,
            self.rows + other.rows,
            self.approved + other.approved,
            self.pd_sum + other.pd_sum,
        )


class SegmentCounter:
    """Counter of a day's rows by segment.

    Args:
        profile: of the champion.
        inputs: encoding of its inputs.
        portfolio: defines the segments.
    """

    def __init__(
        self, profile: ReferenceProfile, inputs: Sequence[InputField], portfolio: Portfolio
    ) -> None:
        self._placer = SegmentPlacer.of(portfolio)
        self._columns = profile.columns
        self._inputs = inputs
        self.columns = list(
            dict.fromkeys([*profile.names, *self._placer.names, DEFAULT_PROBABILITY, PREDICTION])
        )

    def __call__(self, batch: pa.RecordBatch) -> SegmentCounts:
        """Count the rows of one batch, which has all `columns` in the types of stored days."""
        score = batch.column(SCORE).to_numpy(zero_copy_only=False)
        values = [score, *encoded_columns(batch, self._inputs)]
        segments = self._placer.of_batch(batch)
        number = len(self._placer.labels)
        probability = batch.column(DEFAULT_PROBABILITY).to_numpy(zero_copy_only=False)
        approved = batch.column(PREDICTION).to_numpy(zero_copy_only=False) == 0
        return SegmentCounts(
            bins_by_segment(self._columns, values, segments, number),
            sums_by_segment(segments, None, number).astype(np.int64),
            sums_by_segment(segments, approved, number).astype(np.int64),
            sums_by_segment(segments, probability, number),
        )

    def total(self, batches: Iterable[pa.RecordBatch]) -> SegmentCounts:
        """Count all rows of several batches, reading and counting in parallel."""
        number = len(self._placer.labels)
        none = np.zeros(number, dtype=np.int64)
        bins = np.zeros((number, len(self._columns), MOST_BINS), dtype=np.int64)
        total = SegmentCounts(bins, none, none, np.zeros(number))
        for counts in in_parallel(self, batches):
            total += counts
        return total


def bins_by_segment(
    columns: Sequence[ColumnProfile],
    values: Sequence[NDArray[Any]],
    segments: Sequence[IntArray],
    number: int,
    weight: IntArray | None = None,
) -> IntArray:
    """Rows in each bin of each column within each segment.

    Args:
        columns: of the reference profile, the score first.
        values: n values of each column, encoded for the decision graph.
        segments: from `SegmentPlacer`.
        number: of segments in all.
        weight: n, how many times each row counts; by default once.
    """
    counts = np.zeros((number, len(columns), MOST_BINS), dtype=np.int64)
    rows = [segment * MOST_BINS for segment in segments]
    for place, (column, numbers) in enumerate(zip(columns, values, strict=True)):
        bins = bin_places(column, numbers, exact=place == 0)
        for row in rows:
            found = np.bincount(row + bins, weight, minlength=number * MOST_BINS)
            counts[:, place] += found.astype(np.int64).reshape(number, MOST_BINS)
    return counts


def sums_by_segment(
    segments: Sequence[IntArray], values: NDArray[Any] | None, number: int
) -> FloatArray:
    """Sum of values, or number of rows, within each segment."""
    return np.asarray(
        sum(np.bincount(segment, values, minlength=number) for segment in segments),
        dtype=np.float64,
    )


def bin_places(column: ColumnProfile, values: NDArray[Any], exact: bool) -> IntArray:
    """Bin of each value, that of missing values last; the bins of `RowCounter`.

    Args:
        column: its profile.
        values: n numbers.
        exact: whether decimals are compared as they are; otherwise as float32, the decision
            graph's input.
    """
    edges: NDArray[Any] = np.array(column.edges, dtype=np.float64)
    if not exact:
        values, edges = values.astype(np.float32, copy=False), float32_floor(edges)
    places = np.zeros(len(values), dtype=np.int8)
    for edge in edges:
        places += values > edge
    missing = np.isnan(values)
    if missing.any():
        places[missing] = len(edges) + 1
    return places.astype(np.int64)
