"""Search for the worst slice: of all customers by one or two fields, those who are furthest from
what is expected.

The customers are cut by the segmentations of the portfolio and by every other field: codes by
their meaning, numbers at training's quartiles. All pairs of such parts are summed at once, as a
product of matrices. The p-value of the worst is corrected for the number of slices (Bonferroni).
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.monitoring.segment_report import WorstSlice
from creditrisk_assets.monitoring.segment_rule import OutcomeSums, approval_tests, level_tests
from creditrisk_assets.policy import SegmentLimits
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.portfolio.segmentation import MISSING, Segmentation
from creditrisk_assets.scoring.reference_profile import ReferenceProfile
from creditrisk_assets.scoring.segment_profile import SegmentPlacer

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MOST_CODES = 6
"""A field with more numeric codes is cut at quartiles, too: rare codes make slices of nobody."""

SEARCH_ROWS = 50_000
"""Of more customers, every second, third and so on is searched."""

CHUNK_ROWS = 16_384


def slice_placer(portfolio: Portfolio, profile: ReferenceProfile) -> SegmentPlacer:
    """The parts whose pairs are searched.

    Args:
        portfolio: segmentations and fields.
        profile: of the champion, for the quartiles.
    """
    by_name = {column.name: column for column in profile.columns}
    covered = {one.by.strip() for one in portfolio.segments}
    more = []
    for field in portfolio.fields:
        if field.name in covered or field.name not in by_name:
            continue
        if field.codes is not None and (field.is_text or len(field.codes) <= MOST_CODES):
            more.append(Segmentation(f"field_{field.name}", field.description, field.name))
            continue
        edges = by_name[field.name].edges
        # A bin includes its upper edge, a band its lower one.
        quartiles = sorted({edges[len(edges) * place // 4] for place in (1, 2, 3)} if edges else [])
        bands = [float(np.nextafter(np.float32(edge), np.float32(np.inf))) for edge in quartiles]
        if bands:
            labels = (
                f"up to {quartiles[0]:,g}",
                *(f"above {low:,g} up to {high:,g}" for low, high in pairwise(quartiles)),
                f"above {quartiles[-1]:,g}",
            )
            more.append(
                Segmentation(
                    f"field_{field.name}", field.description, field.name, tuple(bands), labels
                )
            )
    return SegmentPlacer((*portfolio.segments, *more), portfolio.fields)


def searched_rows(rows: int) -> slice:
    """The rows of a day that are searched."""
    return slice(None, None, max(1, -(-rows // SEARCH_ROWS)))


def pair_sums(
    places: Sequence[IntArray], number: int, values: Sequence[NDArray[np.float64] | None]
) -> list[FloatArray]:
    """Sums of values over the customers of each pair of parts; the diagonal has the parts.

    Args:
        places: from the placer, n each.
        number: of parts.
        values: n values to sum, or None for the number of customers.
    """
    rows = len(places[0])
    totals = [np.zeros((number, number)) for _ in values]
    for start in range(0, rows, CHUNK_ROWS):
        end = min(start + CHUNK_ROWS, rows)
        members = np.zeros((end - start, number), dtype=np.float32)
        for place in places:
            members[np.arange(end - start), place[start:end]] = 1.0
        for total, value in zip(totals, values, strict=True):
            weighted = (
                members if value is None else members * value[start:end, None].astype(np.float32)
            )
            total += members.T @ weighted
    return totals


def worst_outcomes(
    placer: SegmentPlacer,
    places: Sequence[IntArray],
    target: IntArray,
    probability: FloatArray,
    limits: SegmentLimits,
) -> WorstSlice | None:
    """The slice whose bad rate is furthest above its mean PD.

    Args:
        placer: the parts.
        places: of the matured customers.
        target: n, 1 = bad.
        probability: n, PD.
        limits: fewest rows, and the spread of the gaps of a sound fit.
    """
    if not len(target):
        return None
    number = len(placer.labels)
    values = (None, target.astype(np.float64), probability, probability * (1 - probability))
    rows, bads, pd_sum, variance = pair_sums(places, number, values)
    none = np.zeros_like(rows)
    tests = level_tests(OutcomeSums(rows, bads, pd_sum, variance, none, none, none), 0.0, limits)
    worse = tests.figure > tests.reference
    return _worst(placer, rows, tests.figure, tests.reference, tests.p_value, worse)


def worst_growth(
    placer: SegmentPlacer,
    places: Sequence[IntArray],
    reference_places: Sequence[IntArray],
    limits: SegmentLimits,
) -> WorstSlice | None:
    """The slice whose share of the customers has grown furthest beyond its share in training.

    Args:
        placer: the parts.
        places: of the day's customers.
        reference_places: of training rows of equal weight.
        limits: fewest rows.
    """
    number = len(placer.labels)
    (rows,), (before,) = (pair_sums(side, number, [None]) for side in (places, reference_places))
    n, m = len(places[0]), len(reference_places[0])
    tests = approval_tests(rows, n, before / m, m, limits)
    worse = (tests.figure > tests.reference) & (rows >= limits.minimum_rows)
    return _worst(placer, rows, tests.figure, tests.reference, tests.p_value, worse)


def _worst(
    placer: SegmentPlacer,
    rows: FloatArray,
    figure: FloatArray,
    expected: FloatArray,
    p_value: FloatArray,
    worse: NDArray[np.bool_],
) -> WorstSlice | None:
    """The slice with the smallest p-value, corrected for all that were tested."""
    names = [segmentation.names for segmentation, _ in placer.labels]
    known = np.array([label != MISSING for _, label in placer.labels])
    apart = np.array([[not {*one} & {*other} for other in names] for one in names])
    np.fill_diagonal(apart, val=True)
    allowed = np.triu(apart) & known[:, None] & known[None, :] & ~np.isnan(p_value)
    slices = int(allowed.sum())
    candidates = np.where(allowed & worse, p_value, np.inf)
    if not np.isfinite(candidates).any():
        return None
    excess = np.where(allowed & worse, (figure - expected) ** 2 * rows, 0.0)
    order = np.lexsort((-excess.ravel(), candidates.ravel()))  # a p-value may underflow to 0
    first, second = np.unravel_index(int(order[0]), candidates.shape)
    conditions = dict.fromkeys(
        f"{placer.labels[place][0].label}: {placer.labels[place][1]}" for place in (first, second)
    )
    return WorstSlice(
        conditions=tuple(conditions),
        rows=int(rows[first, second]),
        figure=float(figure[first, second]),
        expected=float(expected[first, second]),
        p_value=float(np.minimum(1.0, candidates[first, second] * slices)),
        slices=slices,
    )
