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
    """DeLong's standard error of the AUC (DeLong et al. 1988, Biometrics 44:837)."""
    return _standard_error(*_placements(target, probability))


def auc_gain(target: IntArray, challenger: FloatArray, champion: FloatArray) -> tuple[float, float]:
    """AUC of the challenger minus AUC of the champion on the same rows, and DeLong's standard error of that difference."""
    bads, goods = _placements(target, challenger)
    champion_bads, champion_goods = _placements(target, champion)
    return float(bads.mean() - champion_bads.mean()), _standard_error(bads - champion_bads, goods - champion_goods)


def _placements(target: IntArray, probability: FloatArray) -> tuple[FloatArray, FloatArray]:
    """For each bad the share of goods that it ranks above, for each good the share of bads above it; ties count half."""
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


def expected_calibration_error(target: IntArray, probability: FloatArray) -> float:
    """Mean distance between PD and bad rate over ten bins of equal mass."""
    return float(sum(len(t) / len(target) * abs(p.mean() - t.mean()) for t, p in calibration_bins(target, probability)))


def calibration_bins(target: IntArray, probability: FloatArray) -> list[tuple[IntArray, FloatArray]]:
    """Outcomes and PDs in bins of equal mass, from low to high PD; fewer bins when there are fewer rows."""
    order = np.argsort(probability, kind="stable")
    return [(target[part], probability[part]) for part in np.array_split(order, min(CALIBRATION_BINS, len(order))) if len(part)]
