"""The rule for alarms by segment: tests within each segment, and Holm's correction over all tests
of a check.

All functions take arrays with any leading axes, so the same code judges one day and a simulated
year. A p-value is NaN where there are too few rows to test.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from creditrisk_assets.modelling.segment_reference import SMALLEST_CLASS
from creditrisk_assets.monitoring.population_stability import divergence
from creditrisk_assets.policy import DriftLimits, SegmentLimits

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

FAR = 2.5
"""Standard errors from which the tail of a middle is computed exactly; nearer no test fails."""

TILTS = 25
"""Newton steps for the tail: more than any distribution of bins needs."""


@dataclass(frozen=True)
class Tests:
    """Tests with any axes.

    Attributes:
        figure: the observed value.
        reference: the value that it is compared with.
        p_value: two-sided, for the AUC one-sided; NaN if it was not tested.
        matters: whether the difference exceeds the floor.
    """

    figure: FloatArray
    reference: FloatArray
    p_value: FloatArray
    matters: BoolArray


def holm(p_values: Any) -> FloatArray:
    """P-values corrected for all tests in the last axis (Holm 1979, Scandinavian Journal of
    Statistics 6:65): failing those up to alpha holds the probability of any false alarm at alpha,
    however the tests depend on each other. NaN is no test.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values, axis=-1)  # NaN last
    ordered = np.take_along_axis(p_values, order, axis=-1)
    tests = (~np.isnan(p_values)).sum(axis=-1, keepdims=True)
    factors = np.maximum(tests - np.arange(p_values.shape[-1]), 1)
    stepwise = np.maximum.accumulate(np.where(np.isnan(ordered), 0.0, ordered * factors), axis=-1)
    corrected = np.empty_like(p_values)
    np.put_along_axis(corrected, order, np.minimum(stepwise, 1.0), axis=-1)
    return np.where(np.isnan(p_values), np.nan, corrected)


def corrected(tests: Tests, axes: int) -> FloatArray:
    """P-values corrected for all tests in the last axes together."""
    p_values = tests.p_value
    flat = p_values.reshape(*p_values.shape[: p_values.ndim - axes], -1)
    return holm(flat).reshape(p_values.shape)


def stacked(tests: Sequence[Tests], axis: int) -> Tests:
    """Several tests of the same shape as one, along a new axis."""
    names = [field.name for field in dataclasses.fields(Tests)]
    return Tests(*(np.stack([getattr(one, name) for one in tests], axis=axis) for name in names))


def stability_tests(expected: Any, actual: Any, limits: SegmentLimits, drift: DriftLimits) -> Tests:
    """Test each column of each segment for a shift.

    PSI finds any change of a distribution, but on few rows only a large one; the middle (mean rank
    of the rows among the segment's training rows) finds a shift up or down on a third of the rows.
    With rows for both, each has half of the p-value.

    Args:
        expected: reference rows in each bin (last axis), in equally weighted rows.
        actual: rows of the days in each bin. The axis before is the columns, the one before that
            the segments.
        limits: fewest rows.
        drift: the floor of PSI above its average by chance.
    """
    expected, actual = (np.asarray(side, dtype=np.float64) for side in (expected, actual))
    with np.errstate(divide="ignore", invalid="ignore"):  # segments without a row
        found = divergence(expected, actual)
    rows, reference_rows = actual.sum(axis=-1), expected.sum(axis=-1)
    middle = middle_p_value(expected, actual)
    both = np.minimum(1.0, 2 * np.fmin(middle, found.p_value))
    p_value = np.where(rows >= limits.psi_rows, both, middle)
    enough = (rows >= limits.minimum_rows) & (reference_rows >= limits.minimum_reference_rows)
    with np.errstate(invalid="ignore"):
        matters = found.value - found.by_chance > drift.floor
    return Tests(
        np.where(rows > 0, found.value, np.nan),
        np.broadcast_to(drift.floor, found.value.shape),
        np.where(enough & (found.bins > 1), p_value, np.nan),
        matters,
    )


def middle_p_value(expected: FloatArray, actual: FloatArray) -> FloatArray:
    """Two-sided p-value of a shift of the middle: the difference of mean ranks (ridits) of two
    sets of counts in ordered bins, in its tail by exponential tilting, since a normal tail is too
    thin where one bin has most rows. NaN where all rows are in one bin.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        n, m = actual.sum(axis=-1), expected.sum(axis=-1)
        share = (expected + actual) / (n + m)[..., None]
        rank = np.cumsum(share, axis=-1) - share / 2 - 0.5
        difference = (actual * rank).sum(axis=-1) / n - (expected * rank).sum(axis=-1) / m
        size = n * m / (n + m)
        z = np.abs(difference) / np.sqrt((share * rank**2).sum(axis=-1) / size)
    far = z > FAR
    if far.any():
        sign = np.sign(difference[far])[..., None]
        z[far] = np.minimum(
            z[far],
            _tail_root(
                np.broadcast_to(share, actual.shape)[far],
                sign * np.broadcast_to(rank, actual.shape)[far],
                np.abs(difference[far]),
                size[far],
            ),
        )
    return np.asarray(2 * special.ndtr(-z))


def _tail_root(
    share: FloatArray, rank: FloatArray, mean: FloatArray, size: FloatArray
) -> FloatArray:
    """Signed root of the log likelihood ratio of a mean: `size` rows in bins with these shares have
    a mean rank this far from 0.
    """
    tilt = mean / np.maximum((share * rank**2).sum(axis=-1), 1e-12)
    for _ in range(TILTS):
        weight = share * np.exp(rank * tilt[:, None])
        weight /= weight.sum(axis=-1, keepdims=True)
        now = (weight * rank).sum(axis=-1)
        spread = (weight * rank**2).sum(axis=-1) - now**2
        step = (mean - now) / np.maximum(spread, 1e-9)
        tilt = np.clip(tilt + np.clip(step, -5, 5), 0, 500)
    cumulant = np.log((share * np.exp(rank * tilt[:, None])).sum(axis=-1))
    return np.asarray(np.sqrt(2 * size * np.maximum(tilt * mean - cumulant, 0)))


def approval_tests(
    approved: Any, rows: Any, approved_share: Any, reference_rows: Any, limits: SegmentLimits
) -> Tests:
    """Test the approval rate of each segment against training, by the likelihood ratio of two
    shares.

    Args:
        approved: approved rows of the days, segments in the last axis.
        rows: rows of the days.
        approved_share: share of the training rows under the same cut-off; NaN without a reference.
        reference_rows: training rows, in equally weighted rows.
        limits: fewest rows, and the floor.
    """
    approved, rows, before, m = np.broadcast_arrays(
        *(
            np.asarray(side, dtype=np.float64)
            for side in (approved, rows, approved_share, reference_rows)
        )
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        share = approved / rows
        together = (approved + before * m) / (rows + m)
        statistic = 2 * (rows * _surprise(share, together) + m * _surprise(before, together))
    enough = (rows >= limits.minimum_rows) & (m >= limits.minimum_reference_rows)
    return Tests(
        share,
        before,
        np.where(enough & ~np.isnan(before), special.chdtrc(1, np.maximum(statistic, 0)), np.nan),
        np.abs(share - before) > limits.approval_floor,
    )


def _surprise(share: FloatArray, other: FloatArray) -> FloatArray:
    """Kullback-Leibler divergence of one share from another."""
    return np.asarray(
        special.xlogy(share, share / other) + special.xlogy(1 - share, (1 - share) / (1 - other))
    )


@dataclass(frozen=True)
class OutcomeSums:
    """Sums over matured rows by segment (last axis), which add up over days.

    Attributes:
        rows: matured rows.
        bads: of them.
        pd_sum: sum of PD.
        variance_sum: sum of PD (1 - PD).
        auc_weight: bads x goods / rows of each day with both classes.
        auc_sum: AUC times its weight.
        auc_error_sum: square of the AUC's standard error times its weight.
    """

    rows: FloatArray
    bads: FloatArray
    pd_sum: FloatArray
    variance_sum: FloatArray
    auc_weight: FloatArray
    auc_sum: FloatArray
    auc_error_sum: FloatArray


def level_tests(sums: OutcomeSums, floor: float, limits: SegmentLimits) -> Tests:
    """Test whether bad rate and mean PD of a segment differ, two-sided.

    The null hypothesis allows a gap that is normal with the `level_spread`: a fit that is right on
    the whole is a little off in each segment. The tail has the skewness of the binomial
    distribution.

    Args:
        sums: of the days.
        floor: smallest gap that matters.
        limits: fewest rows, and the spread.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        rate, mean_pd = sums.bads / sums.rows, sums.pd_sum / sums.rows
        error = np.sqrt(sums.variance_sum) / sums.rows
        gap = rate - mean_pd
        root = np.sqrt(2 * sums.rows * np.maximum(_surprise(rate, mean_pd), 0)) * np.sqrt(
            mean_pd * (1 - mean_pd) * sums.rows / sums.variance_sum
        )
        z = np.minimum(np.abs(gap) / error, root)
        z = z * error / np.sqrt(error**2 + limits.level_spread**2)
    enough = (sums.rows >= limits.minimum_rows) & (sums.variance_sum > 0)
    return Tests(rate, mean_pd, np.where(enough, 2 * special.ndtr(-z), np.nan), np.abs(gap) > floor)


def ranking_tests(
    sums: OutcomeSums, validation_auc: Any, validation_error: Any, floor: float
) -> Tests:
    """Test whether the AUC within a segment is below that of the held-out rows of the same segment,
    one-sided, with DeLong's errors of both.

    Args:
        sums: of the days.
        validation_auc: of each segment; NaN without a reference.
        validation_error: its standard error.
        floor: smallest fall that matters.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        auc = sums.auc_sum / sums.auc_weight
        error = np.sqrt(sums.auc_error_sum) / sums.auc_weight
        fall = np.asarray(validation_auc, dtype=np.float64) - auc
        p_value = special.ndtr(-fall / np.hypot(error, validation_error))
    enough = np.minimum(sums.bads, sums.rows - sums.bads) >= SMALLEST_CLASS
    reference = np.broadcast_to(np.asarray(validation_auc, dtype=np.float64), auc.shape)
    return Tests(auc, reference, np.where(enough, p_value, np.nan), fall > floor)
