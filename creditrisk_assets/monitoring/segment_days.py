"""A day by segment: its counts and outcomes, pooled with days before and judged.

The stored frame of a day has its sums, which add up, so later days are judged together with it
without reading its rows again. The rule belongs in `segment_rule`, the document for pages in
`segment_report`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditrisk_assets.modelling.metrics import auc_with_error
from creditrisk_assets.monitoring.segment_rule import (
    OutcomeSums,
    Tests,
    approval_tests,
    corrected,
    level_tests,
    ranking_tests,
    stability_tests,
    stacked,
)
from creditrisk_assets.policy import Policy
from creditrisk_assets.scoring.segment_profile import (
    MOST_BINS,
    SegmentCounts,
    SegmentPlacer,
    SegmentProfile,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SHORT_OUTCOME_DAYS = 3
"""Outcomes come weeks after the decision, so a day alone would gain nothing over three."""

SUMS = (
    *("rows", "bads", "pd_sum", "variance_sum"),
    *("auc_weight", "auc_sum", "auc_error_sum"),
)
"""Columns of a day's outcomes that add up."""


@dataclass(frozen=True)
class References:
    """Training rows by segment (first axis), and held-out figures; without a reference no rows, and
    NaN.

    Attributes:
        expected: segments x columns x bins, in equally weighted rows.
        rows: equally weighted rows of each segment.
        share: share of the training rows of its segmentation.
        roc_auc: AUC of the held-out rows.
        roc_auc_standard_error: its standard error.
        pd_edges: ascending PDs.
        pd_shares: segments x edges, share of the training rows with a PD under each.
        without: names of the segmentations without a reference in this version.
    """

    expected: FloatArray
    rows: FloatArray
    share: FloatArray
    roc_auc: FloatArray
    roc_auc_standard_error: FloatArray
    pd_edges: FloatArray
    pd_shares: FloatArray
    without: tuple[str, ...]

    @classmethod
    def of(
        cls, profile: SegmentProfile | None, placer: SegmentPlacer, columns: int
    ) -> "References":
        """The reference of each segment whose segmentation is still that of training.

        Args:
            profile: of the champion; None if it has none.
            placer: the segments.
            columns: of the reference profile.
        """
        number, edges = len(placer.labels), [] if profile is None else profile.pd_edges
        expected = np.zeros((number, columns, MOST_BINS))
        rows, share = np.zeros(number), np.full(number, np.nan)
        auc, error = np.full(number, np.nan), np.full(number, np.nan)
        pd_shares = np.full((number, len(edges)), np.nan)
        found = {
            (one.definition, segment.label): (segment, sum(other.rows for other in one.segments))
            for one in (() if profile is None else profile.segmentations)
            for segment in one.segments
        }
        known = {definition for definition, _ in found}
        for place, (segmentation, label) in enumerate(placer.labels):
            if (segmentation.definition, label) not in found:
                continue
            segment, of_all = found[segmentation.definition, label]
            rows[place], share[place] = segment.effective_rows, segment.rows / max(of_all, 1)
            if segment.rows:
                weight = segment.effective_rows / segment.rows
                for column, counts in enumerate(segment.counts):
                    expected[place, column, : len(counts)] = np.array(counts) * weight
                if not segmentation.is_by_score:
                    pd_shares[place] = np.cumsum(segment.pd_counts)[:-1] / segment.rows
            if segment.roc_auc is not None and segment.roc_auc_standard_error is not None:
                auc[place], error[place] = segment.roc_auc, segment.roc_auc_standard_error
        without = tuple(one.name for one in placer.segmentations if one.definition not in known)
        return cls(expected, rows, share, auc, error, np.array(edges), pd_shares, without)

    def approved_share(self, cut_off: float) -> FloatArray:
        """Share of each segment's training rows with a PD under a cut-off; NaN for segments by PD,
        which are approved or not by definition.
        """
        if not len(self.pd_edges):
            return np.full(len(self.rows), np.nan)
        return np.array(
            [
                np.interp(cut_off, [0.0, *self.pd_edges, 1.0], [0.0, *shares, 1.0])
                for shares in self.pd_shares
            ]
        )


@dataclass(frozen=True)
class Judged:
    """Tests of all spans of days (first axis), with their p-values corrected for the whole family.

    `failed` are the tests whose corrected p-value is at most alpha and whose difference matters.
    """

    spans: tuple[int, ...]
    tests: Tests
    corrected: FloatArray
    alpha: float

    @classmethod
    def of(cls, spans: Sequence[int], tests: Tests, alpha: float, axes: int) -> "Judged":
        """Judge tests; `axes` are the last ones that are one family."""
        return cls(tuple(spans), tests, corrected(tests, axes), alpha)

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Whether each test is an alarm."""
        return np.asarray(
            (np.nan_to_num(self.corrected, nan=1.0) <= self.alpha) & self.tests.matters
        )

    def decisive_spans(self) -> IntArray:
        """For each test the span with an alarm, or else with the smallest p-value."""
        order = np.where(self.failed, -1.0, np.nan_to_num(self.tests.p_value, nan=2.0))
        return np.asarray(np.argmin(order, axis=0))


def spans_available(spans: Sequence[int], days: int) -> list[int]:
    """Spans of days of which so many are there; the longest are cut."""
    return sorted({min(span, days) for span in spans})


def stability_of(bins: Sequence[IntArray], references: References, policy: Policy) -> Judged:
    """Judge the columns of each segment, for the day alone and with days before it.

    Args:
        bins: segments x columns x bins of each day, the day itself first.
        references: training rows.
        policy: the limits.
    """
    spans = spans_available((1, policy.drift.days), len(bins))
    tests = [
        stability_tests(
            references.expected, np.sum(bins[:span], axis=0), policy.segments, policy.drift
        )
        for span in spans
    ]
    return Judged.of(spans, stacked(tests, 0), policy.segments.alpha, 3)


def approval_of(
    days: Sequence[SegmentCounts], references: References, cut_off: float, policy: Policy
) -> Judged:
    """Judge the approval rate of each segment, for the day alone and with days before it."""
    spans = spans_available((1, policy.drift.days), len(days))
    before = references.approved_share(cut_off)
    tests = [
        approval_tests(
            np.sum([day.approved for day in days[:span]], axis=0),
            np.sum([day.rows for day in days[:span]], axis=0),
            before,
            references.rows,
            policy.segments,
        )
        for span in spans
    ]
    return Judged.of(spans, stacked(tests, 0), policy.segments.alpha, 2)


def outcomes_of(days: Sequence[OutcomeSums], references: References, policy: Policy) -> Judged:
    """Judge level and ranking (second axis) of each segment (third axis) over days together.

    Args:
        days: sums of each day, the day itself first.
        references: held-out figures.
        policy: the limits.
    """
    spans = spans_available((SHORT_OUTCOME_DAYS, policy.performance.days), len(days))
    floor = policy.performance.floor
    tests = []
    for span in spans:
        sums = pool_outcomes(days[:span])
        tests.append(
            stacked(
                [
                    level_tests(sums, floor, policy.segments),
                    ranking_tests(
                        sums, references.roc_auc, references.roc_auc_standard_error, floor
                    ),
                ],
                0,
            )
        )
    return Judged.of(spans, stacked(tests, 0), policy.segments.outcome_alpha, 3)


def outcome_sums(
    target: IntArray, probability: FloatArray, segments: Sequence[IntArray], number: int
) -> OutcomeSums:
    """Sums of a day's matured rows by segment.

    Args:
        target: n, 1 = bad.
        probability: n, PD.
        segments: from `SegmentPlacer`.
        number: of segments in all.
    """

    def summed(values: NDArray[np.float64] | None) -> FloatArray:
        parts = [np.bincount(segment, values, minlength=number) for segment in segments]
        return np.sum(parts, axis=0).astype(np.float64) if parts else np.zeros(number)

    auc_weight, auc_sum, auc_error_sum = (np.zeros(number) for _ in range(3))
    for segment in segments:
        order = np.argsort(segment, kind="stable")
        numbers, starts = np.unique(segment[order], return_index=True)
        for place, rows in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            bads = int(target[rows].sum())
            if 0 < bads < len(rows):
                auc, error = auc_with_error(target[rows], probability[rows])
                weight = bads * (len(rows) - bads) / len(rows)
                auc_weight[place] = weight
                auc_sum[place] = weight * auc
                auc_error_sum[place] = (weight * error) ** 2
    return OutcomeSums(
        rows=summed(None),
        bads=summed(target.astype(np.float64)),
        pd_sum=summed(probability),
        variance_sum=summed(probability * (1 - probability)),
        auc_weight=auc_weight,
        auc_sum=auc_sum,
        auc_error_sum=auc_error_sum,
    )


def pool_outcomes(days: Sequence[OutcomeSums]) -> OutcomeSums:
    """Add up days."""
    return OutcomeSums(*(np.sum([getattr(day, name) for day in days], axis=0) for name in SUMS))


def counts_frame(
    placer: SegmentPlacer,
    columns: Sequence[str],
    counts: SegmentCounts,
    version: str,
    cut_off: float,
) -> pd.DataFrame:
    """A day's counts for storage: one line for each segment, with a list of bins for each
    column.
    """
    frame = _labelled(placer, version).assign(
        cut_off=cut_off, rows=counts.rows, approved=counts.approved, pd_sum=counts.pd_sum
    )
    bins = {name: [*counts.bins[:, place].tolist()] for place, name in enumerate(columns)}
    return pd.concat([frame, pd.DataFrame(bins).add_prefix(COUNTS)], axis=1)


COUNTS = "counts "
"""Prefix of the columns with a day's bins."""


def counts_of(frame: pd.DataFrame, columns: Sequence[str]) -> SegmentCounts:
    """The counts of a stored day."""
    bins = [np.array(frame[f"{COUNTS}{name}"].tolist(), dtype=np.int64) for name in columns]
    return SegmentCounts(
        np.stack(bins, axis=1),
        frame["rows"].to_numpy(dtype=np.int64),
        frame["approved"].to_numpy(dtype=np.int64),
        frame["pd_sum"].to_numpy(dtype=np.float64),
    )


def outcome_frame(placer: SegmentPlacer, sums: OutcomeSums, version: str) -> pd.DataFrame:
    """A day's outcomes for storage: one line for each segment."""
    return _labelled(placer, version).assign(**{name: getattr(sums, name) for name in SUMS})


def outcomes_from(frame: pd.DataFrame) -> OutcomeSums:
    """The outcomes of a stored day."""
    return OutcomeSums(*(frame[name].to_numpy(dtype=np.float64) for name in SUMS))


def is_comparable(frame: pd.DataFrame, placer: SegmentPlacer, version: str) -> bool:
    """Whether a stored day is of the same model and the same segments."""
    expected = _labelled(placer, version)
    return (
        {*expected} <= {*frame}
        and len(frame) == len(expected)
        and bool((frame[[*expected]].astype(str) == expected.astype(str)).all(axis=None))
    )


def _labelled(placer: SegmentPlacer, version: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "segmentation": [one.name for one, _ in placer.labels],
            "definition": [one.definition for one, _ in placer.labels],
            "segment": [label for _, label in placer.labels],
            "model_version": version,
        }
    )
