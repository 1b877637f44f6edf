"""Confidence-based performance estimation (CBPE): performance expected from the PDs before any
outcome.

If PDs are calibrated on these customers, outcomes are independent Bernoulli variables with the PDs,
and the expectation of AUC, Brier score, log loss and bad rate needs no outcome. The method is
NannyML's, described in its documentation under "Confidence-based Performance Estimation"; formulas
and errors are derived here from that description.

An estimate holds under `ASSUMPTIONS`, which are shown beside it. It follows covariate shift and is
blind to concept drift.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.modelling.metrics import SMALLEST_PD, Estimate, normal_estimate

FloatArray = NDArray[np.float64]

ASSUMPTIONS = (
    "PDs are calibrated on these customers, outcomes are independent given the PD, and who "
    "defaults is decided as in training: blind to concept drift and prior shift. The interval "
    "covers chance in the outcomes of these customers; it does not cover PDs that are wrong."
)


@dataclass(frozen=True)
class Expected:
    """A figure expected without outcomes.

    Attributes:
        value: its expectation given the PDs.
        standard_error: of the realised figure of the same rows: chance in the outcomes.
        sampling_error: of `value` as an estimate for the population of the rows: chance in the
            sample.
        lowest: smallest possible value.
        highest: largest possible value.
    """

    value: float
    standard_error: float
    sampling_error: float
    lowest: float = 0.0
    highest: float = 1.0

    @property
    def interval(self) -> Estimate:
        """The value with the 95 % interval of the realised figure of the same rows."""
        return normal_estimate(self.value, self.standard_error, self.lowest, self.highest)


def expected_performance(probability: FloatArray) -> dict[str, Expected]:
    """The expected figures of customers with these PDs.

    Args:
        probability: n PDs, 0 to 1.

    Returns:
        bad_rate, brier, log_loss and, if both classes are possible, roc_auc; empty without rows.

    Raises:
        ValueError: if a PD is not between 0 and 1.
    """
    if len(probability) == 0:
        return {}
    if not (probability.min() >= 0 and probability.max() <= 1):  # NaN is neither
        wrong = probability[~((probability >= 0) & (probability <= 1))][0]
        raise ValueError(f"default_probability {wrong}; valid: from 0 to 1")
    variance = probability * (1 - probability)
    inside = np.clip(probability, SMALLEST_PD, 1 - SMALLEST_PD)
    log_odds = np.log(inside) - np.log1p(-inside)
    entropy = -(probability * np.log(inside) + (1 - probability) * np.log1p(-inside))
    expected = {
        "bad_rate": _mean(probability, variance),
        "brier": _mean(variance, variance * (1 - 2 * probability) ** 2),
        "log_loss": _mean(entropy, variance * log_odds**2, np.inf),
    }
    auc = expected_auc(probability)
    return expected if auc is None else {"roc_auc": auc, **expected}


def expected_auc(probability: FloatArray) -> Expected | None:
    """The expected AUC of n PDs, in O(n log n).

    It is the ratio of two expectations over outcomes y: the number of pairs of a bad i and a good j
    in which i has the higher PD (ties count half), and the number of all such pairs:

        sum over i != j of p_i (1 - p_j) k_ij   divided by   sum over i != j of p_i (1 - p_j),
        k_ij = 1, 1/2 or 0.

    The standard error is the delta method's, with the derivative of that ratio by each y_i at y =
    p; the sampling error the infinitesimal jackknife's, with its derivative by the weight of each
    row.

    Returns:
        None if no pair is possible: one row, or PDs that are all 0 or all 1.
    """
    n = len(probability)
    good = 1 - probability
    bads, goods = float(probability.sum()), float(good.sum())
    all_pairs = bads * goods - float(probability @ good)
    if n < 2 or all_pairs <= 0:
        return None
    levels, place = np.unique(probability, return_inverse=True)
    good_below, bad_above = (
        _weight_below(good, place, len(levels)),
        bads - _weight_below(probability, place, len(levels)),
    )
    good_below -= 0.5 * good  # a row makes no pair with itself
    bad_above -= 0.5 * probability
    auc = float(probability @ good_below) / all_pairs

    below = (
        _weight_below(np.ones(n), place, len(levels)) - 0.5
    )  # the other rows that have a lower PD
    by_outcome = (below - (bads - probability)) - auc * ((n - 1) - 2 * (bads - probability))
    outcome_variance = float(probability * good @ by_outcome**2)

    ranked = probability * good_below + good * bad_above
    paired = probability * (goods - good) + good * (bads - probability)
    row_variance = float(((ranked - auc * paired) ** 2).sum())
    return Expected(
        auc, float(np.sqrt(outcome_variance)) / all_pairs, float(np.sqrt(row_variance)) / all_pairs
    )


def _weight_below(weight: FloatArray, place: NDArray[np.intp], levels: int) -> FloatArray:
    """For each row the weight of the rows at lower levels and half of that at its own level, the
    row included.
    """
    at = np.bincount(place, weights=weight, minlength=levels)
    return np.asarray((np.cumsum(at) - 0.5 * at)[place])


def _mean(values: FloatArray, variance: FloatArray, highest: float = 1.0) -> Expected:
    """A mean over rows, from each row's expectation and its variance over outcomes."""
    n = len(values)
    sampling = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else highest
    return Expected(
        float(values.mean()), float(np.sqrt(variance.sum())) / n, sampling, 0.0, highest
    )
