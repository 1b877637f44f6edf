"""How the champion's scores of a day turned out, on matured rows only, against what it showed at validation."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from creditrisk_assets.modelling.metrics import ranking_and_calibration
from creditrisk_assets.portfolio.outcomes import VERSION, current_versions

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class MaturedDay:
    """A day's decisions joined to their outcomes.

    `rows` has every matured decision with its outcome, the latest version of it; `decisions` counts the matured and the others.
    """

    rows: pd.DataFrame
    decisions: int


@dataclass(frozen=True)
class PerformanceTest:
    """One test of a day against validation: passed, the observed figure, its limit, and the p-value."""

    passed: bool
    observed: float
    limit: float
    p_value: float
    explanation: str


def join_outcomes(scores: pd.DataFrame, outcomes: pd.DataFrame, identifier: str) -> MaturedDay:
    """Join a day's outcomes, in all their versions, to the scores of the same day by customer."""
    latest = current_versions(outcomes, identifier).drop(columns=VERSION)
    return MaturedDay(scores.merge(latest, on=identifier, how="inner", validate="one_to_one"), len(scores))


def realised_performance(day: MaturedDay, target: str) -> dict[str, float]:
    """Figures of the matured rows; where they hold no bad or no good, only counts and level; of no rows only the counts."""
    outcomes = day.rows[target].to_numpy(dtype=np.int64)
    probability = day.rows["default_probability"].to_numpy(dtype=np.float64)
    bads = int(outcomes.sum())
    if len(outcomes) == 0:
        return {"rows": 0.0, "bads": 0.0}
    if bads in (0, len(outcomes)):
        level = {"mean_pd": float(probability.mean()), "bad_rate": float(outcomes.mean())}
        return {"rows": float(len(outcomes)), "bads": float(bads), **level}
    return ranking_and_calibration(outcomes, probability)


def ranking_held(figures: dict[str, float], validation: dict[str, float], alpha: float, floor: float) -> PerformanceTest:
    """Test whether the AUC has fallen below validation (one-sided, DeLong errors of both), by more than the floor.

    ECB instructions for validation reporting (2019) test the current AUC against that of initial validation in this way.
    """
    if "roc_auc" not in figures:
        return PerformanceTest(True, float("nan"), float("nan"), 1.0, "no AUC: the matured rows hold one class only")
    fall = validation["roc_auc"] - figures["roc_auc"]
    error = float(np.hypot(figures["roc_auc_standard_error"], validation["roc_auc_standard_error"]))
    p_value = float(stats.norm.sf(fall / error)) if error > 0 else float(fall <= 0)
    limit = validation["roc_auc"] - max(floor, float(stats.norm.isf(alpha)) * error)
    passed = not (p_value < alpha and fall > floor)
    return PerformanceTest(
        passed, figures["roc_auc"], limit, p_value, f"AUC at validation {validation['roc_auc']:.4f}, fall {fall:+.4f}"
    )


def level_held(figures: dict[str, float], mean_square_pd: float, alpha: float, floor: float) -> PerformanceTest:
    """Test whether bads come at the rate that the PDs say (two-sided), allowing a gap up to the floor.

    Args:
        figures: of the matured rows.
        mean_square_pd: mean of PD squared; the variance of the number of bads is the sum of PD (1 - PD).
        alpha: false alarms by chance.
        floor: largest gap that does not matter.
    """
    if "mean_pd" not in figures:
        return PerformanceTest(True, float("nan"), float("nan"), 1.0, "no outcomes have arrived")
    gap = figures["bad_rate"] - figures["mean_pd"]
    error = float(np.sqrt((figures["mean_pd"] - mean_square_pd) / figures["rows"]))
    p_value = float(2 * stats.norm.sf(abs(gap) / error))
    limit = max(floor, float(stats.norm.isf(alpha / 2)) * error)
    passed = not (p_value < alpha and abs(gap) > floor)
    return PerformanceTest(
        passed, gap, limit, p_value, f"bad rate {figures['bad_rate']:.4f} against mean PD {figures['mean_pd']:.4f}"
    )
