"""How well a PD ranks and how well it is calibrated: pure functions, arrays in, numbers out.

`target` is 1 for bad; `probability` is the PD. Names follow the field: Gini = 2 AUC - 1, KS = largest distance between the
distributions of the two classes.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score, roc_curve

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CALIBRATION_BINS = 10


def ranking_and_calibration(target: IntArray, probability: FloatArray) -> dict[str, float]:
    """The figures by which a PD is judged.

    Returns:
        rows, bads, roc_auc with a 95 % interval and standard error, gini, ks, average_precision, brier, log_loss, ece,
        calibration_in_the_large, mean_pd and bad_rate.

    Raises:
        ValueError: if there are no goods or no bads.
    """
    bads = int(target.sum())
    if bads == 0 or bads == len(target):
        raise ValueError(f"{bads} bads in {len(target)} rows; valid: at least one good and one bad")
    auc = float(roc_auc_score(target, probability))
    error = auc_standard_error(target, probability)
    return {
        "rows": float(len(target)),
        "bads": float(bads),
        "roc_auc": auc,
        "roc_auc_low": max(0.0, auc - 1.96 * error),
        "roc_auc_high": min(1.0, auc + 1.96 * error),
        "roc_auc_standard_error": error,
        "gini": 2 * auc - 1,
        "ks": kolmogorov_smirnov(target, probability)[0],
        "average_precision": float(average_precision_score(target, probability)),
        "brier": float(brier_score_loss(target, probability)),
        "log_loss": float(log_loss(target, probability)),
        "ece": expected_calibration_error(target, probability),
        "calibration_in_the_large": float(probability.mean() - target.mean()),
        "mean_pd": float(probability.mean()),
        "bad_rate": float(target.mean()),
    }


def auc_standard_error(target: IntArray, probability: FloatArray) -> float:
    """DeLong's standard error of the AUC (DeLong et al. 1988, Biometrics 44:837), by midranks."""
    bad, good = probability[target == 1], probability[target == 0]
    ranks = stats.rankdata(np.concatenate([bad, good]))
    beaten_by_bad = (ranks[: len(bad)] - stats.rankdata(bad)) / len(good)
    beats_good = 1 - (ranks[len(bad) :] - stats.rankdata(good)) / len(bad)
    if min(len(bad), len(good)) < 2:
        return 0.5
    return float(np.sqrt(beaten_by_bad.var(ddof=1) / len(bad) + beats_good.var(ddof=1) / len(good)))


def kolmogorov_smirnov(target: IntArray, probability: FloatArray) -> tuple[float, float]:
    """KS and the PD at which it is reached."""
    false_positive, true_positive, thresholds = roc_curve(target, probability)
    best = int(np.argmax(true_positive - false_positive))
    return float(true_positive[best] - false_positive[best]), float(thresholds[best])


def expected_calibration_error(target: IntArray, probability: FloatArray) -> float:
    """Mean distance between PD and bad rate over ten bins of equal mass."""
    return float(sum(len(t) / len(target) * abs(p.mean() - t.mean()) for t, p in calibration_bins(target, probability)))


def calibration_bins(target: IntArray, probability: FloatArray) -> list[tuple[IntArray, FloatArray]]:
    """Outcomes and PDs in bins of equal mass, from low to high PD; fewer bins when there are fewer rows."""
    order = np.argsort(probability, kind="stable")
    return [
        (target[part], probability[part]) for part in np.array_split(order, min(CALIBRATION_BINS, len(order))) if len(part)
    ]
