"""When a population is said to have moved, and when data are said to be broken: the rule by which
drift is an alarm.

A day is judged by itself and together with those before it, so that a small shift that stays
gathers evidence. Everything works on counts with any leading axes, so that one day and a
simulated year are judged by the same lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from creditrisk_assets.monitoring.population_stability import benjamini_hochberg, divergence
from creditrisk_assets.settings import Settings

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class DriftLimits:
    """Each is the setting of the same name, which says what it is for."""

    stability_alpha: float
    stability_floor: float
    stability_days: int
    stability_minimum_rows: int
    quality_floor: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits that the settings give."""
        return cls(**{name: getattr(settings, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class StabilityVerdicts:
    """The verdict on each column (last axis), the score first.

    Attributes:
        value: PSI of the score, CSI of the inputs.
        bins: bins that hold a row of either side.
        p_value: of a population that has not moved.
        critical: the largest value that chance gives at the level of the test.
        threshold: the value above which it is an alarm.
        drifted: whether it is one.
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
    """Which columns have moved: by more than chance, alpha for the score and by Benjamini and
    Hochberg for the inputs together; by more than the floor, after what chance gives on average is
    taken off; and on enough rows.

    Args:
        expected: for each column, the score first, the reference's rows in each bin, in equally
            weighted rows.
        actual: for each column the rows of some days together, bins in the last axis.
        limits: the rule.
    """
    found = [
        divergence(reference, counts) for reference, counts in zip(expected, actual, strict=True)
    ]
    p_values = np.stack([one.p_value for one in found], axis=-1)
    inputs = benjamini_hochberg(p_values[..., 1:], limits.stability_alpha)
    levels = [limits.stability_alpha, *[inputs] * (len(found) - 1)]
    value = np.stack([one.value for one in found], axis=-1)
    pairs = list(zip(found, levels, strict=True))
    threshold = np.stack(
        [one.threshold(level, limits.stability_floor) for one, level in pairs], axis=-1
    )
    enough = np.asarray(actual[0]).sum(axis=-1) >= limits.stability_minimum_rows
    return StabilityVerdicts(
        value=value,
        bins=np.stack([one.bins for one in found], axis=-1),
        p_value=p_values,
        critical=np.stack([one.critical(level) for one, level in pairs], axis=-1),
        threshold=threshold,
        drifted=(value > threshold) & enough[..., None],
    )


@dataclass(frozen=True)
class QualityVerdicts:
    """The verdict on each share of bad values (last axis).

    Attributes:
        share: of the rows.
        limit: the share of training plus the floor.
        p_value: of rows that are as good as those of training; 1 where the share is under the limit
            anyway.
        failed: whether it is an alarm.
    """

    share: FloatArray
    limit: FloatArray
    p_value: FloatArray
    failed: NDArray[np.bool_]


def quality_verdicts(
    bad: Any, rows: Any, bad_in_training: Any, training_rows: float, limits: DriftLimits
) -> QualityVerdicts:
    """Which shares of bad values are higher than in training: by more than chance, by Benjamini and
    Hochberg over all of them, by more than the floor, and on enough rows.

    The test is exact for any number of rows: among training's and these rows together,
        `bad_in_training` + r bad ones fall on
    these as often as on any (Fisher). For values out of the range of training, whose ends are two
    of its own rows, it is the law of how many new rows lie beyond two old extremes, which is the
    same with 1 for `bad_in_training`.

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
    high = (share > limit) & (rows >= limits.stability_minimum_rows)
    if high.any():
        r, n, k = (np.round(one[high]) for one in (bad, rows, before))
        p_value[high] = stats.hypergeom.sf(r - 1, n + round(training_rows), n, r + k)
    level = benjamini_hochberg(p_value, limits.stability_alpha)
    return QualityVerdicts(share, limit, p_value, high & (p_value <= np.asarray(level)[..., None]))
