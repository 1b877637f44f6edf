"""PSI of the score and CSI of each field: has the population moved, by how much, and is it more
than chance?

Bins are the reference's deciles. Without any drift, PSI / (1/n + 1/m) is close to chi-square with B
- 1 degrees of freedom (Yurdakul & Naranjo, Journal of Risk Model Validation). From this come the
p-value, the critical value for the sizes at hand, and what PSI is expected to be by chance alone,
(B - 1)(1/n + 1/m), which is taken off before it is held against the floor.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from creditrisk_assets.scoring.reference_profile import bin_counts, bin_edges

FloatArray = NDArray[np.float64]

SMOOTHING = 0.5
"""Counts added to each bin of both sides, so that an empty bin gives a finite figure."""


@dataclass(frozen=True)
class Stability:
    """PSI (or CSI) of one column, with the line above which it is an alarm.

    `critical` is the largest value that chance gives with probability 1 - alpha; `threshold` the
    larger of that and the floor, to which what chance gives on average has been added.
    """

    column: str
    value: float
    critical: float
    threshold: float
    bins: int
    rows: int
    reference_rows: int

    @property
    def drifted(self) -> bool:
        """Whether the column has moved by more than chance and more than the floor."""
        return self.value > self.threshold


@dataclass(frozen=True)
class Divergence:
    """PSI of one or of many pairs of counts, and what chance makes of it.

    Attributes:
        value: PSI.
        bins: bins that hold a row of either side.
        variance: 1/n + 1/m.
    """

    value: Any
    bins: Any
    variance: Any

    @property
    def by_chance(self) -> Any:
        """What PSI is on average where nothing has moved."""
        return (self.bins - 1) * self.variance

    @property
    def p_value(self) -> Any:
        """Probability of a PSI at least as large where nothing has moved."""
        return special.chdtrc(np.maximum(self.bins - 1, 1), self.value / self.variance)

    def critical(self, alpha: Any) -> Any:
        """The PSI that chance exceeds with probability alpha."""
        return special.chdtri(np.maximum(self.bins - 1, 1), alpha) * self.variance

    def threshold(self, alpha: Any, floor: float) -> Any:
        """The PSI above which a column has moved by more than chance and by more than the floor."""
        return np.maximum(self.critical(alpha), floor + self.by_chance)


def divergence(expected: Any, actual: Any) -> Divergence:
    """PSI between counts.

    Args:
        expected: counts of the reference in each bin (last axis), m in all; they may be fractions.
        actual: counts of the rows in question, n in all. Both may have any further axes, which are
            broadcast.
    """
    expected, actual = np.broadcast_arrays(
        np.asarray(expected, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    )
    used = expected + actual > 0
    bins = used.sum(axis=-1)
    m, n = expected.sum(axis=-1), actual.sum(axis=-1)
    wanted = (expected + SMOOTHING) / (m + SMOOTHING * bins)[..., None]
    found = (actual + SMOOTHING) / (n + SMOOTHING * bins)[..., None]
    value = np.sum(np.where(used, (found - wanted) * np.log(found / wanted), 0.0), axis=-1)
    with np.errstate(divide="ignore"):
        return Divergence(value, bins, 1 / n + 1 / m)


def benjamini_hochberg(p_values: Any, alpha: float) -> Any:
    """The level at which each of several tests is made, so that at most alpha of the alarms are
    expected to be false.

    Args:
        p_values: of the tests (last axis).
        alpha: the false discovery rate; where nothing is true it is the probability of any alarm.

    Returns:
        For each family the level: a test is an alarm if its p-value is at most this. It is alpha /
            F times the number of alarms,
        or times one where there is none.
    """
    ordered = np.sort(np.asarray(p_values, dtype=np.float64), axis=-1)
    tests = ordered.shape[-1]
    ranks = np.arange(1, tests + 1)
    alarms = np.max(np.where(ordered <= alpha * ranks / tests, ranks, 1), axis=-1)
    return alpha * alarms / tests


def population_stability(
    column: str, reference: FloatArray, current: FloatArray, alpha: float, floor: float
) -> Stability:
    """PSI of `current` against `reference`.

    Args:
        column: its name.
        reference: m values; missing ones are NaN and have a bin of their own.
        current: n values, likewise.
        alpha: probability of exceeding `critical` by chance alone.
        floor: smallest PSI that matters.

    Raises:
        ValueError: if either side is empty.
    """
    if len(reference) == 0 or len(current) == 0:
        raise ValueError(
            f"{column}: {len(reference)} reference and {len(current)} current values; valid: at "
            "least one each"
        )
    edges = bin_edges(reference[~np.isnan(reference)])
    found = divergence(bin_counts(edges, reference), bin_counts(edges, current))
    return Stability(
        column,
        float(found.value),
        float(found.critical(alpha)),
        float(found.threshold(alpha, floor)),
        int(found.bins),
        len(current),
        len(reference),
    )
