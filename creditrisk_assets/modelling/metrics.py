"""How well a PD ranks and how well it is calibrated: pure functions, arrays in, numbers out.

`target` is 1 for bad; `probability` is the PD. Names follow the field: Gini = 2 AUC - 1, KS =
largest distance between the distributions of the two classes. Every figure comes with a 95 %
interval, `<name>_low` and `<name>_high`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_curve

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CALIBRATION_BINS = 10

Z95 = 1.959964
"""Standard errors on either side of a 95 % interval."""

KS_BINS = 20
BOOTSTRAP_DRAWS = 400

ECE_DRAWS = 500
ECE_STEPS = 61
"""Simulated calibration errors, and how many true errors they are simulated for."""

SMALLEST_PD = 1e-15
"""A PD of 0 or 1 is taken to be this far from it where its logarithm is needed."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def ranking_and_calibration(target: IntArray, probability: FloatArray) -> dict[str, float]:
    """The figures by which a PD is judged.

    Returns:
        rows, bads, mean_pd, bad_rate and roc_auc_standard_error; each with `_low` and `_high`:
        roc_auc, gini, ks, average_precision, brier, log_loss, ece, calibration_in_the_large and,
        where it exists, calibration_slope.

    Raises:
        ValueError: if there are no goods or no bads.
    """
    bads = int(target.sum())
    if bads == 0 or bads == len(target):
        raise ValueError(f"{bads} bads in {len(target)} rows; valid: at least one good and one bad")
    value, error = auc_with_error(target, probability)
    auc = normal_estimate(value, error, 0.0, 1.0)
    estimates = {
        "roc_auc": auc,
        "gini": Estimate(*(2 * value - 1 for value in (auc.value, auc.low, auc.high))),
        "ks": _ks(target, probability),
        "average_precision": average_precision(target, probability),
        "brier": mean_estimate((probability - target) ** 2, 0.0, 1.0),
        "log_loss": mean_estimate(row_log_loss(target, probability), 0.0, np.inf),
        "ece": _ece(target, probability),
        "calibration_in_the_large": mean_estimate(probability - target, -1.0, 1.0),
    }
    slope = calibration_slope(target, probability)
    if slope is not None:
        estimates["calibration_slope"] = slope
    return {
        "rows": float(len(target)),
        "bads": float(bads),
        "mean_pd": float(probability.mean()),
        "bad_rate": float(target.mean()),
        "roc_auc_standard_error": error,
        **_with_intervals(estimates),
    }


def _with_intervals(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    return {
        f"{name}{ending}": value
        for name, one in estimates.items()
        for ending, value in (("", one.value), ("_low", one.low), ("_high", one.high))
    }


def normal_estimate(value: float, error: float, lowest: float, highest: float) -> Estimate:
    """A figure with a standard error, its interval kept between the least and the greatest value
    that it can have.
    """
    return Estimate(value, max(lowest, value - Z95 * error), min(highest, value + Z95 * error))


def mean_estimate(values: FloatArray, lowest: float, highest: float) -> Estimate:
    """The mean of independent values."""
    return normal_estimate(
        float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))), lowest, highest
    )


def auc_with_error(target: IntArray, probability: FloatArray) -> tuple[float, float]:
    """AUC and DeLong's standard error of it."""
    placements = _placements(target, probability)
    return float(placements[0].mean()), _standard_error(*placements)


def auc_standard_error(target: IntArray, probability: FloatArray) -> float:
    """DeLong's standard error of the AUC (DeLong et al. 1988, Biometrics 44:837)."""
    return auc_with_error(target, probability)[1]


def auc_gain(target: IntArray, challenger: FloatArray, champion: FloatArray) -> tuple[float, float]:
    """AUC of the challenger minus AUC of the champion on the same rows, and DeLong's standard error
    of that difference.
    """
    bads, goods = _placements(target, challenger)
    champion_bads, champion_goods = _placements(target, champion)
    return float(bads.mean() - champion_bads.mean()), _standard_error(
        bads - champion_bads, goods - champion_goods
    )


def _placements(target: IntArray, probability: FloatArray) -> tuple[FloatArray, FloatArray]:
    """For each bad the share of goods that it ranks above, for each good the share of bads above
    it; ties count half.
    """
    bad, good = probability[target == 1], probability[target == 0]
    ranks = stats.rankdata(np.concatenate([bad, good]))
    above_goods = (ranks[: len(bad)] - stats.rankdata(bad)) / len(good)
    below_bads = 1 - (ranks[len(bad) :] - stats.rankdata(good)) / len(bad)
    return above_goods, below_bads


def _standard_error(bads: FloatArray, goods: FloatArray) -> float:
    if min(len(bads), len(goods)) < 2:
        return 0.5  # the largest that the standard error of a share can be: one row tells nothing
    return float(np.sqrt(bads.var(ddof=1) / len(bads) + goods.var(ddof=1) / len(goods)))


def kolmogorov_smirnov(target: IntArray, probability: FloatArray) -> tuple[float, float]:
    """KS and the PD at which it is reached."""
    false_positive, true_positive, thresholds = roc_curve(target, probability)
    best = int(np.argmax(true_positive - false_positive))
    return float(true_positive[best] - false_positive[best]), float(thresholds[best])


def _ks(target: IntArray, probability: FloatArray) -> Estimate:
    """KS with a bootstrap interval.

    The largest of many noisy distances lies above the true one. On 20 bins of equal mass there is
    less of that; what is left is estimated by the bootstrap (Efron & Tibshirani 1993, An
    Introduction to the Bootstrap, chapter 10) and taken off.
    """
    value = kolmogorov_smirnov(target, probability)[0]
    edges = np.unique(np.quantile(probability, np.arange(1, KS_BINS) / KS_BINS, method="lower"))
    places = np.searchsorted(edges, probability, side="right")
    counts = [
        np.bincount(places[target == outcome], minlength=len(edges) + 1) for outcome in (0, 1)
    ]
    rng = np.random.default_rng(0)
    drawn = [rng.multinomial(one.sum(), one / one.sum(), BOOTSTRAP_DRAWS) for one in counts]
    observed = float(_largest_distance(*counts))
    distances = _largest_distance(*drawn)
    centre = 2 * observed - float(distances.mean())
    reach = Z95 * float(distances.std(ddof=1))
    return Estimate(
        value, max(0.0, min(centre - reach, value)), min(1.0, max(centre + reach, value))
    )


def _largest_distance(goods: IntArray, bads: IntArray) -> FloatArray:
    """Largest distance of the two cumulative distributions: over the last axis, the bins."""
    below = [np.cumsum(one, axis=-1) / one.sum(axis=-1, keepdims=True) for one in (goods, bads)]
    return np.asarray((below[0] - below[1]).max(axis=-1))


def average_precision(target: IntArray, probability: FloatArray) -> Estimate:
    """Mean over the bads of the share of bads among all rows with at least their PD.

    The standard error is the infinitesimal jackknife's: the root of the summed squares of what each
    row's weight moves the figure (Efron 1981, Biometrika 68:589).
    """
    bads = int(target.sum())
    _, level = np.unique(
        -probability, return_inverse=True
    )  # 0 is the highest PD; ties share a level
    bad_at = np.bincount(level, weights=target)
    good_at = np.bincount(level, weights=1 - target)
    bads_above, goods_above = np.cumsum(bad_at), np.cumsum(good_at)
    precision = bads_above / (bads_above + goods_above)
    value = float(bad_at @ precision / bads)
    if min(bads, len(target) - bads) < 2:
        return Estimate(value, 0.0, 1.0)
    lower_bads = bad_at / (bads_above + goods_above) ** 2
    one_more_bad = np.cumsum((lower_bads * goods_above)[::-1])[::-1] + precision - value
    one_more_good = -np.cumsum((lower_bads * bads_above)[::-1])[::-1]
    moves = np.where(target == 1, one_more_bad[level], one_more_good[level]) / bads
    return normal_estimate(value, float(np.sqrt((moves**2).sum())), 0.0, 1.0)


def row_log_loss(target: IntArray, probability: FloatArray) -> FloatArray:
    """Minus the logarithm of the probability that was given to what happened: n."""
    given = np.where(target == 1, probability, 1 - probability)
    return np.asarray(-np.log(np.maximum(given, SMALLEST_PD)))


def calibration_slope(target: IntArray, probability: FloatArray) -> Estimate | None:
    """Slope of a logistic regression of the outcome on the log-odds of the PD (Cox 1958, Biometrika
    45:562); 1 is right, below 1 the PDs are too bold.

    Returns:
        None where it does not exist: all PDs alike, or classes that the PD separates.
    """
    inside = np.clip(probability, SMALLEST_PD, 1 - SMALLEST_PD)
    design = np.column_stack([np.ones(len(target)), np.log(inside) - np.log1p(-inside)])
    if np.ptp(design[:, 1]) < 1e-9 or ranks_without_overlap(target, probability):
        return None
    found = logistic_fit(design, target, np.array([0.0, 1.0]))
    if found is None:
        return None
    coefficients, information = found
    error = float(np.sqrt(np.linalg.inv(information)[1, 1]))
    return normal_estimate(float(coefficients[1]), error, -np.inf, np.inf)


def logistic_fit(
    design: FloatArray, target: IntArray, start: FloatArray, offset: FloatArray | float = 0.0
) -> tuple[FloatArray, FloatArray] | None:
    """Coefficients of greatest likelihood of a logistic regression without a penalty, and their
    information matrix.

    Args:
        design: n x k.
        target: n, 1 = bad.
        start: k, where Newton's steps begin.
        offset: n, what is added to the log-odds and not fitted.

    Returns:
        None where there is no such answer.
    """
    coefficients = start
    for _ in range(50):
        fitted = 1 / (1 + np.exp(-np.clip(offset + design @ coefficients, -700, 700)))
        information = design.T @ (design * (fitted * (1 - fitted))[:, None])
        gradient = design.T @ (target - fitted)
        if not np.isfinite(np.linalg.cond(information)):
            return None
        step = np.linalg.solve(information, gradient)
        step *= min(
            1.0, 2.0 / max(float(np.abs(step).max()), 1e-300)
        )  # Newton's step overshoots far from the answer
        coefficients = coefficients + step
        if np.abs(step).max() < 1e-9:
            return coefficients, information
    return None


def ranks_without_overlap(target: IntArray, probability: FloatArray) -> bool:
    """Whether every bad has at least the PD of every good, or every good that of every bad."""
    bad, good = probability[target == 1], probability[target == 0]
    return bool(bad.min() >= good.max() or good.min() >= bad.max())


def expected_calibration_error(target: IntArray, probability: FloatArray) -> float:
    """Mean distance between PD and bad rate over ten bins of equal mass."""
    return float(
        sum(
            len(t) / len(target) * abs(p.mean() - t.mean())
            for t, p in calibration_bins(target, probability)
        )
    )


def _ece(target: IntArray, probability: FloatArray) -> Estimate:
    """ECE with the true errors under which the observed one is neither among the lowest nor among
    the highest 2.5 %.

    Noise alone makes an ECE, so that a bootstrap around it never holds the zero of PDs that are
    right. Instead a bin's true gap is taken to have the observed sign and one size in all bins, and
    the observed ECE is drawn for each size.
    """
    bins = calibration_bins(target, probability)
    sizes = np.array([len(t) for t, _ in bins])
    gaps = np.array([p.mean() - t.mean() for t, p in bins])
    bads = np.array([t.sum() for t, _ in bins])
    rates = (bads + 0.5) / (sizes + 1)
    errors = np.sqrt(rates * (1 - rates) / sizes)
    value = float(np.abs(gaps) @ sizes / len(target))
    noise = errors * np.random.default_rng(0).standard_normal((ECE_DRAWS, len(bins)))
    true_errors = np.linspace(0.0, value + 4 * float(errors.max()), ECE_STEPS)
    signs = np.where(gaps < 0, -1.0, 1.0)
    draws = np.abs(true_errors[:, None, None] * signs + noise) @ (sizes / len(target))
    lowest, highest = np.quantile(draws, [0.025, 0.975], axis=1)
    held = true_errors[(lowest <= value) & (value <= highest)]
    return Estimate(value, float(held.min(initial=value)), min(1.0, float(held.max(initial=value))))


def calibration_bins(
    target: IntArray, probability: FloatArray
) -> list[tuple[IntArray, FloatArray]]:
    """Outcomes and PDs in bins of equal mass, from low to high PD; fewer bins when there are fewer
    rows.
    """
    order = np.argsort(probability, kind="stable")
    return [
        (target[part], probability[part])
        for part in np.array_split(order, min(CALIBRATION_BINS, len(order)))
        if len(part)
    ]
