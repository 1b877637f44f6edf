"""The rule for drift alarms: shifted populations and broken data.

A day is tested alone and pooled with the days before it, so that evidence of a small lasting shift
adds up. All functions take counts with any leading axes, so the same code judges one day and a
simulated year.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from creditrisk_assets.monitoring.population_stability import benjamini_hochberg, divergence
from creditrisk_assets.policy import DriftLimits

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class StabilityVerdicts:
    """The verdict on each column (last axis), the score first.

    Attributes:
        value: PSI of the score, CSI of the inputs.
        bins: bins that hold a row of either side.
        p_value: under an unchanged population.
        critical: the largest value by chance at the level of the test.
        threshold: the value above which it is an alarm.
        drifted: whether it is an alarm.
    """

    value: FloatArray
    bins: NDArray[np.int64]
    p_value: FloatArray
    critical: FloatArray
    threshold: FloatArray
    drifted: NDArray[np.bool_]


def stability_verdicts(
    expected: Sequence[Any], actual: Sequence[Any], limits: DriftLimits
) -> StabilityVerdicts:
    """Test each column for a shift. It has drifted if its PSI exceeds chance (alpha for the score,
    Benjamini and Hochberg over the inputs) and, less the average by chance, the floor, on enough
    rows.

    Args:
        expected: for each column, the score first, the reference's rows in each bin, in equally
            weighted rows.
        actual: for each column the pooled rows of the days, bins in the last axis.
        limits: the rule.
    """
    divergences = [
        divergence(reference, counts) for reference, counts in zip(expected, actual, strict=True)
    ]
    p_values = np.stack([column.p_value for column in divergences], axis=-1)
    inputs = benjamini_hochberg(p_values[..., 1:], limits.alpha)
    levels = [limits.alpha, *[inputs] * (len(divergences) - 1)]
    value = np.stack([column.value for column in divergences], axis=-1)
    pairs = list(zip(divergences, levels, strict=True))
    threshold = np.stack(
        [column.threshold(level, limits.floor) for column, level in pairs], axis=-1
    )
    enough = np.asarray(actual[0]).sum(axis=-1) >= limits.minimum_rows
    return StabilityVerdicts(
        value=value,
        bins=np.stack([column.bins for column in divergences], axis=-1),
        p_value=p_values,
        critical=np.stack([column.critical(level) for column, level in pairs], axis=-1),
        threshold=threshold,
        drifted=(value > threshold) & enough[..., None],
    )


@dataclass(frozen=True)
class QualityVerdicts:
    """The verdict on each share of bad values (last axis).

    Attributes:
        share: of the rows.
        limit: the share of training plus the floor.
        p_value: under the shares of training; 1 where the share is under the limit.
        failed: whether it is an alarm.
    """

    share: FloatArray
    limit: FloatArray
    p_value: FloatArray
    failed: NDArray[np.bool_]


def quality_verdicts(
    bad: Any, rows: Any, bad_in_training: Any, training_rows: float, limits: DriftLimits
) -> QualityVerdicts:
    """Test each share of bad values against training. It fails if it exceeds chance (Benjamini and
    Hochberg over all shares) and the floor, on enough rows.

    The test is exact (Fisher): under the null hypothesis, the `bad_in_training` + r bad rows are
    spread at random over the rows of training and these. For values out of the range of training,
    whose ends are two of its own rows, the number of new rows beyond two old extremes has the same
    distribution with 1 for `bad_in_training`.

    Args:
        bad: rows with a bad value, tests in the last axis.
        rows: rows in all, for each of them.
        bad_in_training: the same of training, for each test, in equally weighted rows.
        training_rows: rows of training, likewise.
        limits: the rule.
    """
    bad, rows, before = np.broadcast_arrays(
        *(np.asarray(one, dtype=np.float64) for one in (bad, rows, bad_in_training))
    )
    share = np.divide(bad, rows, out=np.zeros(bad.shape), where=rows > 0)
    limit = np.broadcast_to(before / training_rows + limits.quality_floor, share.shape)
    p_value = np.ones(share.shape)
    high = (share > limit) & (rows >= limits.minimum_rows)
    if high.any():
        r, n, k = (np.round(one[high]) for one in (bad, rows, before))
        p_value[high] = stats.hypergeom.sf(r - 1, n + round(training_rows), n, r + k)
    level = benjamini_hochberg(p_value, limits.alpha)
    return QualityVerdicts(share, limit, p_value, high & (p_value <= np.asarray(level)[..., None]))
