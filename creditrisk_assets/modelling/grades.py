"""Grades: bands of PD, and the test of each grade's PD against its bad rate."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def grade_names(bounds: Sequence[float]) -> tuple[str, ...]:
    """The names of the grades; A is under the first bound."""
    return tuple(chr(ord("A") + place) for place in range(len(bounds) + 1))


def grades_of(probability: FloatArray, bounds: Sequence[float]) -> IntArray:
    """The index of each PD's band; a PD at a bound is in the worse band."""
    return np.searchsorted(np.asarray(bounds), probability, side="right").astype(np.int64)


def grade_table(
    probability: FloatArray, target: IntArray, bounds: Sequence[float], level: float = 0.95
) -> pd.DataFrame:
    """Test each grade's PD against its bad rate by the Jeffreys test (ECB, instructions for
    validation reporting, 2019).

    Args:
        probability: n, PD.
        target: n, 1 = bad.
        bounds: PDs between the grades, rising.
        level: of the interval.

    Returns:
        For each grade: grade, pd_from, pd_to, customers, bads, mean_pd, bad_rate with its interval
        low and high, and p_value, the posterior probability that the true rate is at most the mean
        PD: a small value means that the PD is too low. NaN if the grade has no customer.
    """
    band = grades_of(probability, bounds)
    edges = [0.0, *bounds, 1.0]
    rows: list[dict[str, Any]] = []
    for place in range(len(bounds) + 1):
        inside = band == place
        customers, bads = int(inside.sum()), int(target[inside].sum())
        mean_pd = float(probability[inside].mean()) if customers else math.nan
        rows.append(
            {
                "grade": grade_names(bounds)[place],
                "pd_from": edges[place],
                "pd_to": edges[place + 1],
                **jeffreys_test(customers, bads, mean_pd, level),
            }
        )
    return pd.DataFrame(rows)


def jeffreys_test(
    customers: int, bads: int, mean_pd: float, level: float = 0.95
) -> dict[str, int | float]:
    """The Jeffreys test of one grade, as a line of `grade_table`."""
    posterior = stats.beta(bads + 0.5, customers - bads + 0.5)
    low, high = posterior.interval(level) if customers else (math.nan, math.nan)
    return {
        "customers": customers,
        "bads": bads,
        "mean_pd": mean_pd,
        "bad_rate": bads / customers if customers else math.nan,
        "low": float(low),
        "high": float(high),
        "p_value": float(posterior.cdf(mean_pd)) if customers else math.nan,
    }
