"""PSI of the score and CSI of each field, with their distribution by chance.

Bins are the reference's deciles. Without drift, PSI / (1/n + 1/m) is close to chi-square with B - 1
degrees of freedom (Yurdakul & Naranjo, Journal of Risk Model Validation). This gives the p-value,
the critical value for n and m, and the expectation by chance, (B - 1)(1/n + 1/m), which is
subtracted before the comparison with the floor.
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
    """PSI (or CSI) of one column with its alarm threshold.

    `critical` is the 1 - alpha quantile by chance; `threshold` is the larger of `critical` and the
    floor plus the expectation by chance.
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
        """Whether the column has shifted by more than chance and more than the floor."""
        return self.value > self.threshold


@dataclass(frozen=True)
class Divergence:
    """PSI of one or many pairs of counts, and its distribution by chance.

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
        """Expectation of PSI without drift."""
        return (self.bins - 1) * self.variance

    @property
    def p_value(self) -> Any:
        """Probability of a PSI at least as large without drift."""
        return special.chdtrc(np.maximum(self.bins - 1, 1), self.value / self.variance)

    def critical(self, alpha: Any) -> Any:
        """The PSI that is exceeded with probability alpha without drift."""
        return special.chdtri(np.maximum(self.bins - 1, 1), alpha) * self.variance

    def threshold(self, alpha: Any, floor: float) -> Any:
        """The PSI above which a shift exceeds both chance and the floor."""
        return np.maximum(self.critical(alpha), floor + self.by_chance)


def divergence(expected: Any, actual: Any) -> Divergence:
    """PSI between counts.

    Args:
        expected: counts of the reference in each bin (last axis), m in all; they may be fractions.
        actual: counts of the current rows, n in all. Further axes of both are broadcast.
    """
    expected, actual = np.broadcast_arrays(
        np.asarray(expected, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    )
    used = expected + actual > 0
    bins = used.sum(axis=-1)
    m, n = expected.sum(axis=-1), actual.sum(axis=-1)
    before = (expected + SMOOTHING) / (m + SMOOTHING * bins)[..., None]
    now = (actual + SMOOTHING) / (n + SMOOTHING * bins)[..., None]
    value = np.sum(np.where(used, (now - before) * np.log(now / before), 0.0), axis=-1)
    with np.errstate(divide="ignore"):
        return Divergence(value, bins, 1 / n + 1 / m)


def benjamini_hochberg(p_values: Any, alpha: float) -> Any:
    """The level of each of F tests that bounds the expected share of false alarms by alpha.

    Args:
        p_values: of the tests (last axis).
        alpha: false discovery rate; without any true shift, the probability of any alarm.

    Returns:
        The level of each family: a p-value up to it is an alarm. It is alpha / F times the number
        of alarms, or times 1 if there is none.
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
