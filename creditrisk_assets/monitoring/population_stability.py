"""PSI of the score and CSI of each field: has the population moved, by how much, and is it more than chance?

Bins are the reference's deciles. Without any drift, PSI times nm/(n+m) is close to chi-square with B - 1 degrees of freedom
(Yurdakul & Naranjo, Journal of Risk Model Validation), so the alarm line is that critical value for the sizes at hand, or the
effect-size floor where that is higher.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

BINS = 10
SMOOTHING = 0.5
"""Counts added to each bin of both sides, so that an empty bin gives a finite figure."""


@dataclass(frozen=True)
class Stability:
    """PSI (or CSI) of one column, with the line above which it is an alarm.

    `critical` is the largest value that chance gives with probability 1 - alpha; `threshold` the larger of that and the floor.
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


def population_stability(
    column: str, reference: NDArray[np.float64], current: NDArray[np.float64], alpha: float, floor: float
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
        raise ValueError(f"{column}: {len(reference)} reference and {len(current)} current values; valid: at least one each")
    edges = bin_edges(reference[~np.isnan(reference)])
    bins = len(edges) + 1 + int(np.isnan(reference).any() or np.isnan(current).any())
    expected = _shares(_counts(edges, reference, bins))
    actual = _shares(_counts(edges, current, bins))
    value = float(np.sum((actual - expected) * np.log(actual / expected)))
    critical = float(stats.chi2.ppf(1 - alpha, max(bins - 1, 1)) * (1 / len(current) + 1 / len(reference)))
    return Stability(column, value, critical, max(critical, floor), bins, len(current), len(reference))


def stability_of_columns(
    reference: pd.DataFrame, current: pd.DataFrame, columns: Sequence[str], alpha: float, floor: float
) -> list[Stability]:
    """Stability of several columns, with `alpha` shared over them (Bonferroni)."""
    return [
        population_stability(
            column,
            reference[column].to_numpy(dtype=np.float64),
            current[column].to_numpy(dtype=np.float64),
            alpha / len(columns),
            floor,
        )
        for column in columns
    ]


def bin_edges(reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inner edges of the bins: the reference's deciles, fewer where values repeat. A bin holds its upper edge.

    Where every decile is the largest value, that value has a bin of its own; a column of one value has bins on both sides of it.
    A column without values has one bin.
    """
    if len(reference) == 0:
        return np.array([])
    edges = np.unique(np.quantile(reference, np.arange(1, BINS) / BINS, method="higher"))
    inner = edges[edges < reference.max()]
    if len(inner) == 0:
        below = np.nextafter(reference.max(), -np.inf)
        return np.array([below]) if reference.min() <= below else np.array([below, reference.max()])
    return np.asarray(inner)


def _counts(edges: NDArray[np.float64], values: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Values in each bin; missing ones are counted in the last."""
    places = np.where(np.isnan(values), bins - 1, np.searchsorted(edges, values, side="left"))
    return np.bincount(places, minlength=bins)


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray((counts + SMOOTHING) / (counts.sum() + SMOOTHING * len(counts)))
