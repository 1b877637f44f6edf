"""Metrics of the ranking and the calibration of PDs: pure functions, arrays in, numbers out.

`target` is 1 for bad; `probability` is the PD. Names follow the field: Gini = 2 AUC - 1, KS =
largest distance between the distributions of the two classes. Every figure comes with a 95 %
interval, `<name>_low` and `<name>_high`.
"""

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
"""Number of simulated calibration errors, and of the true errors to simulate for."""

SMALLEST_PD = 1e-15
"""Distance from 0 or 1 at which PDs are clipped before taking logarithms."""


@dataclass(frozen=True)
class Estimate:
    """Figure with its 95 % interval."""

    value: float
    low: float
    high: float


def ranking_and_calibration(target: IntArray, probability: FloatArray) -> dict[str, float]:
    """Figures of a PD's ranking and calibration.

    Returns:
        rows, bads, mean_pd, bad_rate and roc_auc_standard_error; each with `_low` and `_high`:
        roc_auc, gini, ks, average_precision, brier, log_loss, ece, calibration_in_the_large and,
        if it exists, calibration_slope.

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
    figures = {
        "rows": float(len(target)),
        "bads": float(bads),
        "mean_pd": float(probability.mean()),
        "bad_rate": float(target.mean()),
        "roc_auc_standard_error": error,
    }
    for name, found in estimates.items():
        figures |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    return figures


def normal_estimate(value: float, error: float, lowest: float, highest: float) -> Estimate:
    """Estimate from a standard error, with its interval clipped to the figure's possible range."""
    return Estimate(value, max(lowest, value - Z95 * error), min(highest, value + Z95 * error))


def mean_estimate(values: FloatArray, lowest: float, highest: float) -> Estimate:
    """Mean of independent values."""
    return normal_estimate(
        float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))), lowest, highest
    )


def auc_with_error(target: IntArray, probability: FloatArray) -> tuple[float, float]:
    """AUC with DeLong's standard error."""
    placements = _placements(target, probability)
    return float(placements[0].mean()), _standard_error(*placements)


def auc_standard_error(target: IntArray, probability: FloatArray) -> float:
    """DeLong's standard error of the AUC (DeLong et al. 1988, Biometrics 44:837)."""
    return auc_with_error(target, probability)[1]


def auc_gain(target: IntArray, challenger: FloatArray, champion: FloatArray) -> tuple[float, float]:
    """AUC of the challenger minus AUC of the champion on the same rows, with DeLong's standard
    error.
    """
    bads, goods = _placements(target, challenger)
    champion_bads, champion_goods = _placements(target, champion)
    return float(bads.mean() - champion_bads.mean()), _standard_error(
        bads - champion_bads, goods - champion_goods
    )


def _placements(target: IntArray, probability: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Share of goods ranked below each bad, and share of bads ranked above each good; ties count
    half.
    """
    bad, good = probability[target == 1], probability[target == 0]
    ranks = stats.rankdata(np.concatenate([bad, good]))
    above_goods = (ranks[: len(bad)] - stats.rankdata(bad)) / len(good)
    below_bads = 1 - (ranks[len(bad) :] - stats.rankdata(good)) / len(bad)
    return above_goods, below_bads


def _standard_error(bads: FloatArray, goods: FloatArray) -> float:
    if min(len(bads), len(goods)) < 2:
        return 0.5  # the largest standard error of a share: a single row carries no information
    return float(np.sqrt(bads.var(ddof=1) / len(bads) + goods.var(ddof=1) / len(goods)))


def kolmogorov_smirnov(target: IntArray, probability: FloatArray) -> tuple[float, float]:
    """KS, and the PD at which it is reached."""
    false_positive, true_positive, thresholds = roc_curve(target, probability)
    best = int(np.argmax(true_positive - false_positive))
    return float(true_positive[best] - false_positive[best]), float(thresholds[best])


def _ks(target: IntArray, probability: FloatArray) -> Estimate:
    """KS with a bootstrap interval.

    The largest of many noisy distances overestimates the true one. On 20 bins of equal mass the
    bias is smaller; the bootstrap estimates the rest (Efron & Tibshirani 1993, An Introduction to
    the Bootstrap, chapter 10), which is subtracted.
    """
    value = kolmogorov_smirnov(target, probability)[0]
    edges = np.unique(np.quantile(probability, np.arange(1, KS_BINS) / KS_BINS, method="lower"))
    places = np.searchsorted(edges, probability, side="right")
    counts = [
        np.bincount(places[target == outcome], minlength=len(edges) + 1) for outcome in (0, 1)
    ]
    rng = np.random.default_rng(0)
    draws = [
        rng.multinomial(class_counts.sum(), class_counts / class_counts.sum(), BOOTSTRAP_DRAWS)
        for class_counts in counts
    ]
    observed = float(_largest_distance(*counts))
    distances = _largest_distance(*draws)
    centre = 2 * observed - float(distances.mean())
    reach = Z95 * float(distances.std(ddof=1))
    return Estimate(
        value, max(0.0, min(centre - reach, value)), min(1.0, max(centre + reach, value))
    )


def _largest_distance(goods: IntArray, bads: IntArray) -> FloatArray:
    """Largest distance of the two cumulative distributions over the last axis, the bins."""
    below = [
        np.cumsum(counts, axis=-1) / counts.sum(axis=-1, keepdims=True) for counts in (goods, bads)
    ]
    return np.asarray((below[0] - below[1]).max(axis=-1))


def average_precision(target: IntArray, probability: FloatArray) -> Estimate:
    """Mean over the bads of the share of bads among all rows with at least their PD.

    The standard error is that of the infinitesimal jackknife: the root of the summed squares of the
    figure's derivatives by each row's weight (Efron 1981, Biometrika 68:589).
    """
    bads = int(target.sum())
    # Level 0 is the highest PD; ties share a level.
    _, level = np.unique(-probability, return_inverse=True)
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
    """Negative logarithm of each outcome's predicted probability: n."""
    predicted = np.where(target == 1, probability, 1 - probability)
    return np.asarray(-np.log(np.maximum(predicted, SMALLEST_PD)))


def calibration_slope(target: IntArray, probability: FloatArray) -> Estimate | None:
    """Slope of a logistic regression of the outcome on the log-odds of the PD (Cox 1958, Biometrika
    45:562): 1 is right, below 1 the PDs are too extreme.

    Returns:
        None if it does not exist: all PDs are equal, or the PD separates the classes.
    """
    inside = np.clip(probability, SMALLEST_PD, 1 - SMALLEST_PD)
    design = np.column_stack([np.ones(len(target)), np.log(inside) - np.log1p(-inside)])
    if np.ptp(design[:, 1]) < 1e-9 or ranks_without_overlap(target, probability):
        return None
    fit = logistic_fit(design, target, np.array([0.0, 1.0]))
    if fit is None:
        return None
    coefficients, information = fit
    error = float(np.sqrt(np.linalg.inv(information)[1, 1]))
    return normal_estimate(float(coefficients[1]), error, -np.inf, np.inf)


def logistic_fit(
    design: FloatArray, target: IntArray, start: FloatArray, offset: FloatArray | float = 0.0
) -> tuple[FloatArray, FloatArray] | None:
    """Maximum-likelihood coefficients of an unpenalised logistic regression, and their information
    matrix.

    Args:
        design: n x k.
        target: n, 1 = bad.
        start: k, initial coefficients.
        offset: n, fixed addition to the log-odds.

    Returns:
        None if there is no maximum or Newton's method does not converge.
    """
    coefficients = start
    for _ in range(50):
        fitted = 1 / (1 + np.exp(-np.clip(offset + design @ coefficients, -700, 700)))
        information = design.T @ (design * (fitted * (1 - fitted))[:, None])
        gradient = design.T @ (target - fitted)
        if not np.isfinite(np.linalg.cond(information)):
            return None
        step = np.linalg.solve(information, gradient)
        # Far from the solution Newton's step overshoots.
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        coefficients = coefficients + step
        if np.abs(step).max() < 1e-9:
            return coefficients, information
    return None


def ranks_without_overlap(target: IntArray, probability: FloatArray) -> bool:
    """Whether the PD separates the classes: every bad at or above every good, or the reverse."""
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
    """ECE with an interval of the true errors under which the observed ECE is neither among the
    lowest nor among the highest 2.5 %.

    Noise alone gives a positive ECE, so a bootstrap interval around it never includes 0, the value
    of correct PDs. Instead each bin's true gap is assumed to have the observed sign and the same
    size in all bins, and ECEs are simulated for each size.
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
    plausible = true_errors[(lowest <= value) & (value <= highest)]
    return Estimate(
        value,
        float(plausible.min(initial=value)),
        min(1.0, float(plausible.max(initial=value))),
    )


def calibration_bins(
    target: IntArray, probability: FloatArray
) -> list[tuple[IntArray, FloatArray]]:
    """Outcomes and PDs in bins of equal mass, from low to high PD; at most one bin a row."""
    order = np.argsort(probability, kind="stable")
    return [
        (target[part], probability[part])
        for part in np.array_split(order, min(CALIBRATION_BINS, len(order)))
        if len(part)
    ]
