"""Making the segment profile of a bundle from its training and held-out rows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.modelling.metrics import auc_with_error
from creditrisk_assets.modelling.training import TrainingRows
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.portfolio.segmentation import DEFAULT_PROBABILITY
from creditrisk_assets.scoring.reference_profile import ReferenceProfile
from creditrisk_assets.scoring.segment_profile import (
    SegmentationReference,
    SegmentPlacer,
    SegmentProfile,
    SegmentReference,
    bins_by_segment,
    sums_by_segment,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PD_SHARES = 100
"""Edges of PDs are the percentiles: approvals at any cut-off are known to 1 % of the rows."""

SMALLEST_CLASS = 10
"""With fewer held-out bads or goods of a segment there is no AUC to compare with."""


def segment_profile(
    portfolio: Portfolio,
    profile: ReferenceProfile,
    rows: TrainingRows,
    answers: tuple[FloatArray, FloatArray],
    held_out: TrainingRows,
    held_out_probability: FloatArray,
    cut_off: float,
) -> SegmentProfile:
    """Compute the distribution of a bundle's rows within each segment.

    Args:
        portfolio: defines the segments.
        profile: of the same training rows.
        rows: training rows.
        answers: their PDs and scores by the decision graph.
        held_out: rows used for no choice.
        held_out_probability: their PDs.
        cut_off: of the bundle.
    """
    placer = SegmentPlacer.of(portfolio)
    probability, score = answers
    number = len(placer.labels)
    segments = placer.of_columns(_columns(portfolio, rows.raw, probability))
    bins = bins_by_segment(
        profile.columns, [score, *rows.raw.T], segments, number, rows.weight
    ).tolist()
    pd_edges = np.unique(
        np.append(np.quantile(probability, np.arange(1, PD_SHARES) / PD_SHARES), cut_off)
    )
    approved = _rows_up_to(pd_edges, probability, segments, rows.weight, number)
    weights = sums_by_segment(segments, rows.weight, number)
    squares = sums_by_segment(segments, rows.weight.astype(np.float64) ** 2, number)
    judged = placer.of_columns(_columns(portfolio, held_out.raw, held_out_probability))
    references: dict[str, list[SegmentReference]] = {one.name: [] for one in portfolio.segments}
    for place, (segmentation, label) in enumerate(placer.labels):
        own = judged[portfolio.segments.index(segmentation)] == place
        references[segmentation.name].append(
            SegmentReference(
                label=label,
                rows=round(weights[place]),
                effective_rows=weights[place] ** 2 / squares[place] if squares[place] else 0.0,
                counts=[
                    counts[: len(column.counts)]
                    for counts, column in zip(bins[place], profile.columns, strict=True)
                ],
                pd_counts=approved[place].tolist(),
                **_validation(held_out.target[own], held_out_probability[own]),
            )
        )
    return SegmentProfile(
        columns=profile.names,
        pd_edges=pd_edges.tolist(),
        segmentations=[
            SegmentationReference(
                name=one.name, definition=one.definition, segments=references[one.name]
            )
            for one in portfolio.segments
        ],
    )


def _columns(
    portfolio: Portfolio, raw: NDArray[np.float32], probability: FloatArray
) -> dict[str, NDArray[np.float64] | NDArray[np.float32]]:
    fields = dict(zip(portfolio.field_names, raw.T, strict=True))
    return {**fields, DEFAULT_PROBABILITY: probability}


def _rows_up_to(
    edges: FloatArray,
    probability: FloatArray,
    segments: Sequence[IntArray],
    weight: IntArray,
    number: int,
) -> IntArray:
    """Weighted rows of each segment with a PD under each edge, each counted between two edges, and
    at last those at or above all.
    """
    between = np.searchsorted(edges, probability, side="right")
    width = len(edges) + 1
    total = np.zeros(number * width)
    for segment in segments:
        total += np.bincount(segment * width + between, weight, minlength=number * width)
    return total.reshape(number, width).round().astype(np.int64)


def _validation(target: IntArray, probability: FloatArray) -> dict[str, float | int]:
    bads = int(target.sum())
    counts: dict[str, float | int] = {
        "validation_rows": len(target),
        "validation_bads": bads,
    }
    if min(bads, len(target) - bads) >= SMALLEST_CLASS:
        value, error = auc_with_error(target, probability)
        counts |= {"roc_auc": value, "roc_auc_standard_error": error}
    return counts
