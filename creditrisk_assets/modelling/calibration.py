"""Calibration of raw log-odds to PDs (Platt 1999: a line on the log-odds scale), and its update."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression

from creditrisk_assets.modelling.metrics import logistic_fit, ranks_without_overlap
from creditrisk_assets.scoring.bundle import Calibration

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

UPDATE_LEVEL = 0.05
"""Level of the tests that choose how much of a calibration is changed (Vergouwe et al. 2017)."""


def fit_platt(raw_log_odds: FloatArray, target: IntArray, weight: IntArray) -> Calibration:
    """Fit the calibration line by maximum likelihood.

    Args:
        raw_log_odds: n, of rows that the model was not fitted on.
        target: n, 1 = bad.
        weight: n, how many times each row counts.
    """
    fitted = LogisticRegression(C=np.inf).fit(raw_log_odds[:, None], target, sample_weight=weight)
    return Calibration(slope=float(fitted.coef_[0, 0]), intercept=float(fitted.intercept_[0]))


def calibrated_pd(calibration: Calibration, raw_log_odds: FloatArray) -> FloatArray:
    """PD from the classifier's raw log-odds."""
    return np.asarray(1 / (1 + np.exp(-(calibration.intercept + calibration.slope * raw_log_odds))))


@dataclass(frozen=True)
class Update:
    """Change of calibrated log-odds: intercept + slope * old log-odds.

    Attributes:
        kind: the changed parts.
        intercept: 0 if nothing changes.
        slope: 1 if it does not change.
        change_p: of the likelihood-ratio test of both against no change (2 degrees of freedom).
        slope_p: of the likelihood-ratio test of both against the intercept alone (1 degree).
    """

    kind: Literal["none", "intercept", "intercept and slope"]
    intercept: float
    slope: float
    change_p: float
    slope_p: float

    def apply(self, calibration: Calibration) -> Calibration:
        """Update a calibration of raw log-odds."""
        return Calibration(
            slope=self.slope * calibration.slope,
            intercept=self.intercept + self.slope * calibration.intercept,
        )


def least_update(log_odds: FloatArray, target: IntArray, level: float = UPDATE_LEVEL) -> Update:
    """Find the smallest change of calibrated log-odds that no larger change significantly beats.

    This is the closed testing procedure of Vergouwe et al. (2017, Statistics in Medicine 36:4529),
    whose fullest update here is a new intercept and slope: nothing changes unless both together fit
    significantly better; then only the intercept changes, unless the slope with it fits
    significantly better still.

    Args:
        log_odds: n, calibrated, of rows that the model was not fitted on.
        target: n, 1 = bad.
        level: of both likelihood-ratio tests.

    Raises:
        ValueError: if no line has maximum likelihood: only one class, all log-odds equal, or
            classes that the log-odds separate.
    """
    bads = int(target.sum())
    if (
        bads in (0, len(target))
        or ranks_without_overlap(target, log_odds)
        or np.ptp(log_odds) < 1e-9
    ):
        raise ValueError(
            f"no line fits best: {bads} bads in {len(target)} rows, log-odds that do not overlap "
            "or are all alike; valid: bads and goods whose log-odds overlap"
        )
    ones = np.ones((len(target), 1))
    shifted = logistic_fit(ones, target, np.zeros(1), log_odds)
    both = logistic_fit(np.column_stack([ones, log_odds]), target, np.array([0.0, 1.0]))
    if shifted is None or both is None:
        raise ValueError(
            f"no line fits best: the fit to {bads} bads in {len(target)} rows does not converge"
        )
    shift, (intercept, slope) = float(shifted[0][0]), map(float, both[0])
    most = _log_likelihood(intercept + slope * log_odds, target)
    change_p = float(stats.chi2.sf(2 * (most - _log_likelihood(log_odds, target)), 2))
    slope_p = float(stats.chi2.sf(2 * (most - _log_likelihood(shift + log_odds, target)), 1))
    if change_p >= level:
        return Update("none", 0.0, 1.0, change_p, slope_p)
    if slope_p >= level:
        return Update("intercept", shift, 1.0, change_p, slope_p)
    return Update("intercept and slope", intercept, slope, change_p, slope_p)


def _log_likelihood(log_odds: FloatArray, target: IntArray) -> float:
    return -float(np.logaddexp(0.0, np.where(target == 1, -log_odds, log_odds)).sum())
