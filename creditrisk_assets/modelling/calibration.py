"""From a model's raw log-odds to a PD (Platt 1999: a line on the log-odds scale)."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from creditrisk_assets.scoring.bundle import Calibration

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def platt(raw_log_odds: FloatArray, target: IntArray, weight: IntArray) -> Calibration:
    """The line that gives the outcomes their greatest likelihood.

    Args:
        raw_log_odds: n, of rows that the model was not fitted on.
        target: n, 1 = bad.
        weight: n, how many times each row counts.
    """
    fitted = LogisticRegression(C=np.inf).fit(raw_log_odds[:, None], target, sample_weight=weight)
    return Calibration(slope=float(fitted.coef_[0, 0]), intercept=float(fitted.intercept_[0]))


def calibrated(calibration: Calibration, raw_log_odds: FloatArray) -> FloatArray:
    """PD from the classifier's raw log-odds."""
    return np.asarray(1 / (1 + np.exp(-(calibration.intercept + calibration.slope * raw_log_odds))))
