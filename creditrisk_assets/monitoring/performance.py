"""Realised performance of the champion on matured rows, tested against validation.

A day is tested alone and pooled with matured days before it. The stored figures of a day add up
(`day_figures`), so pooling reads no row again.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from creditrisk_assets.modelling.metrics import Z95, auc_with_error, ranking_and_calibration
from creditrisk_assets.monitoring.estimated_performance import Expected, expected_auc
from creditrisk_assets.portfolio.outcomes import VERSION, current_versions
from creditrisk_assets.portfolio.sampling import is_held_out

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SMALLEST_CLASS = 10
"""With fewer bads or goods the ranking is not tested: the error of the AUC is too uncertain."""

SMALLEST_VARIANCE = 5.0
"""With a smaller variance of the number of bads, binomial tails replace the normal ones."""


@dataclass(frozen=True)
class PerformanceTest:
    """A test: result, observed figure, limit and p-value; NaN if nothing was tested."""

    passed: bool
    observed: float
    limit: float
    p_value: float
    explanation: str


def join_outcomes(scores: pd.DataFrame, outcomes: pd.DataFrame, identifier: str) -> pd.DataFrame:
    """The matured decisions of a day: its scores, joined by customer to the latest versions of the
    day's outcomes.
    """
    latest = current_versions(outcomes, identifier).drop(columns=VERSION)
    return scores.merge(latest, on=identifier, how="inner", validate="one_to_one")


def in_sample(
    identifiers: Iterable[object], day: str, learned_days: Collection[str]
) -> NDArray[np.bool_]:
    """Mark the customers of a day that a model was fitted on: all but the held-out ones of a
    training day.

    Args:
        identifiers: n customers.
        day: of their decisions.
        learned_days: production days that the model was fitted on.
    """
    trained_on = ~is_held_out(identifiers)
    return trained_on if day in learned_days else np.zeros(len(trained_on), dtype=bool)


def realised_performance(target: IntArray, probability: FloatArray) -> dict[str, float]:
    """Figures of the matured rows; with one class only counts and level, without rows only
    counts.
    """
    counts = {"rows": float(len(target)), "bads": float(target.sum())}
    if len(target) == 0:
        return counts
    if counts["bads"] in (0, len(target)):
        return {
            **counts,
            "mean_pd": float(probability.mean()),
            "bad_rate": float(target.mean()),
        }
    return ranking_and_calibration(target, probability)


def day_figures(target: IntArray, probability: FloatArray) -> dict[str, float]:
    """The stored figures of a day's matured rows; `pool_days` adds them up.

    Args:
        target: n, 1 = bad.
        probability: n, PD.

    Returns:
        rows and bads; with any rows mean_pd, bad_rate and pd_variance, the mean of PD (1 - PD);
        with both classes roc_auc; expected_roc_auc of `expected_auc` if it exists. Each AUC has its
        standard error.
    """
    rows, bads = len(target), int(target.sum())
    figures = {"rows": float(rows), "bads": float(bads)}
    if rows:
        figures["mean_pd"] = float(probability.mean())
        figures["bad_rate"] = bads / rows
        figures["pd_variance"] = float((probability * (1 - probability)).mean())
    if 0 < bads < rows:
        figures["roc_auc"], figures["roc_auc_standard_error"] = auc_with_error(target, probability)
    expected = expected_auc(probability)
    if expected is not None:
        figures["expected_roc_auc"], figures["expected_roc_auc_standard_error"] = (
            expected.value,
            expected.standard_error,
        )
    return figures


def pool_days(days: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Pool the figures of several days, each from `day_figures`.

    Rows, bads and means add up. The AUC is the mean of the days' AUCs, weighted by bads x goods /
    rows: customers are ranked within their day, so a difference in level between days does not
    count as ranking, and the weight does not depend on the AUC.
    """
    rows = sum(day["rows"] for day in days)
    figures = {"rows": rows, "bads": sum(day["bads"] for day in days)}
    if rows:
        counted = [day for day in days if day["rows"]]
        for name in ("mean_pd", "bad_rate", "pd_variance"):
            figures[name] = sum(day["rows"] * day[name] for day in counted) / rows
    for prefix in ("", "expected_"):
        ranked = [day for day in days if "roc_auc" in day and f"{prefix}roc_auc" in day]
        if ranked:
            weight = np.array(
                [day["bads"] * (day["rows"] - day["bads"]) / day["rows"] for day in ranked]
            )
            weight /= weight.sum()
            auc = np.array([day[f"{prefix}roc_auc"] for day in ranked])
            error = np.array([day[f"{prefix}roc_auc_standard_error"] for day in ranked])
            figures[f"{prefix}roc_auc"] = float(weight @ auc)
            figures[f"{prefix}roc_auc_standard_error"] = float(np.sqrt(weight**2 @ error**2))
    return figures


def ranking_test(
    figures: Mapping[str, float], validation: Mapping[str, float], alpha: float, floor: float
) -> PerformanceTest:
    """Test whether the AUC is below validation by more than the floor (one-sided, DeLong errors of
    both), as in the ECB instructions for validation reporting (2019).
    """
    if "roc_auc" not in figures:
        return _untested("no AUC: the matured rows hold one class only")
    fall = validation["roc_auc"] - figures["roc_auc"]
    error = float(np.hypot(figures["roc_auc_standard_error"], validation["roc_auc_standard_error"]))
    p_value = float(stats.norm.sf(fall / error)) if error > 0 else float(fall <= 0)
    limit = validation["roc_auc"] - max(floor, float(stats.norm.isf(alpha)) * error)
    passed = not (p_value < alpha and fall > floor)
    return PerformanceTest(
        passed,
        figures["roc_auc"],
        limit,
        p_value,
        f"AUC at validation {validation['roc_auc']:.4f}, fall {fall:+.4f}",
    )


def estimate_test(
    expected: Expected | None, validation: Mapping[str, float], alpha: float, floor: float
) -> PerformanceTest:
    """Test whether the AUC expected from the PDs is below validation by more than the floor.

    The errors are sampling of the customers and that of the AUC at validation; the estimate uses no
    outcome.
    """
    if expected is None:
        return _untested("no expected AUC: one row, or PDs that are all 0 or all 1")
    estimated = {"roc_auc": expected.value, "roc_auc_standard_error": expected.sampling_error}
    return ranking_test(estimated, validation, alpha, floor)


def level_test(figures: Mapping[str, float], alpha: float, floor: float) -> PerformanceTest:
    """Test whether bad rate and mean PD differ by more than the floor (two-sided).

    Args:
        figures: from `day_figures`; the variance of the number of bads is the sum of PD (1 - PD).
        alpha: probability of a false alarm.
        floor: largest gap that does not matter.
    """
    if "mean_pd" not in figures:
        return _untested("no outcomes have arrived")
    gap = figures["bad_rate"] - figures["mean_pd"]
    p_value, reach = _chance_of_level(figures, gap, alpha)
    limit = max(floor, reach)
    passed = not (p_value < alpha and abs(gap) > floor)
    return PerformanceTest(
        passed,
        gap,
        limit,
        p_value,
        f"bad rate {figures['bad_rate']:.4f} against mean PD {figures['mean_pd']:.4f}",
    )


def _chance_of_level(figures: Mapping[str, float], gap: float, alpha: float) -> tuple[float, float]:
    """The two-sided p-value of a gap, and its 1 - alpha limit by chance on the same side.

    With few rows both come from the binomial distribution with the mean PD, which is wider than
    that with the single PDs (Hoeffding 1956).
    """
    error = level_error(figures)
    if figures["rows"] * figures["pd_variance"] >= SMALLEST_VARIANCE:
        return float(2 * stats.norm.sf(abs(gap) / error)), float(stats.norm.isf(alpha / 2)) * error
    rows, mean_pd = figures["rows"], figures["mean_pd"]
    bads = stats.binom(int(rows), mean_pd)
    if gap > 0:
        return float(min(1.0, 2 * bads.sf(figures["bads"] - 1))), float(
            bads.isf(alpha / 2)
        ) / rows - mean_pd
    return float(min(1.0, 2 * bads.cdf(figures["bads"]))), mean_pd - float(
        bads.ppf(alpha / 2)
    ) / rows


def level_error(figures: Mapping[str, float]) -> float:
    """Standard error of bad rate minus mean PD under correct PDs."""
    return float(np.sqrt(figures["pd_variance"] / figures["rows"]))


Spans = Mapping[int, Mapping[str, float]]
"""Pooled figures by number of days; 1 is the day alone."""


def spans_of(days: Sequence[Mapping[str, float]], most: int) -> dict[int, dict[str, float]]:
    """Pool the last days over spans of 1 day and of `most` days, half of that, a quarter and so on.

    Args:
        days: at least one, the day itself last.
        most: days of the longest span.
    """
    spans = {1: pool_days(days[-1:])}
    lengths = [most]
    while lengths[-1] > 1:
        lengths.append(lengths[-1] // 2)
    for length in reversed(lengths):
        available = min(length, len(days))
        spans.setdefault(available, pool_days(days[-available:]))
    return spans


def ranking_tests(
    spans: Spans, validation: Mapping[str, float], alpha: float, floor: float
) -> dict[int, PerformanceTest]:
    """`ranking_test` of each span with enough of both classes; the spans share alpha
    (Bonferroni).
    """
    tests = {}
    for days, figures in spans.items():
        fewer = min(figures["bads"], figures["rows"] - figures["bads"])
        enough = fewer >= SMALLEST_CLASS
        tests[days] = (
            ranking_test(figures, validation, alpha / len(spans), floor)
            if enough
            else _untested(
                f"{fewer:.0f} rows of the rarer class have matured; tested from {SMALLEST_CLASS}"
            )
        )
    return tests


def level_tests(spans: Spans, alpha: float, floor: float) -> dict[int, PerformanceTest]:
    """`level_test` of each span; the spans share alpha (Bonferroni)."""
    return {days: level_test(figures, alpha / len(spans), floor) for days, figures in spans.items()}


def decisive_span(tests: Mapping[int, PerformanceTest]) -> int:
    """The span with a failed test, or with the smallest p-value."""
    return min(tests, key=lambda days: (tests[days].passed, tests[days].p_value))


def estimate_errors(days: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """Realised minus estimated figures of each day, on the same matured rows.

    Returns:
        For each day roc_auc_error and bad_rate_error, and the same in standard errors of the
        estimate, roc_auc_z and bad_rate_z; NaN where a figure does not exist.
    """
    rows = []
    for day in days:
        auc = day.get("roc_auc", np.nan) - day.get("expected_roc_auc", np.nan)
        level = day.get("bad_rate", np.nan) - day.get("mean_pd", np.nan)
        auc_error = day.get("expected_roc_auc_standard_error", np.nan)
        error = level_error(day) if "pd_variance" in day else np.nan
        rows.append(
            (
                auc,
                auc / auc_error if auc_error else np.nan,
                level,
                level / error if error else np.nan,
            )
        )
    return pd.DataFrame(
        rows,
        columns=["roc_auc_error", "roc_auc_z", "bad_rate_error", "bad_rate_z"],
        dtype="float64",
    )


def estimate_accuracy(errors: pd.DataFrame) -> dict[str, float]:
    """Accuracy of past estimates: number of days, mean absolute error, and coverage of the 95 %
    intervals.

    Args:
        errors: from `estimate_errors`.
    """
    accuracy: dict[str, float] = {}
    for name in ("roc_auc", "bad_rate"):
        days = errors[errors[f"{name}_z"].notna()]
        accuracy[f"estimated_{name}_days"] = float(len(days))
        if len(days):
            accuracy[f"estimated_{name}_mean_absolute_error"] = float(
                days[f"{name}_error"].abs().mean()
            )
            accuracy[f"estimated_{name}_coverage"] = float((days[f"{name}_z"].abs() <= Z95).mean())
    return accuracy


def _untested(explanation: str) -> PerformanceTest:
    return PerformanceTest(True, float("nan"), float("nan"), 1.0, explanation)
