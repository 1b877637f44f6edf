"""From rows to a fit: train, calibrate, choose the cut-off. Everything is chosen inside the training rows."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from creditrisk_assets.modelling.boosting import SEED, BoostedTrees
from creditrisk_assets.modelling.metrics import kolmogorov_smirnov
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import Calibration

FloatArray = NDArray[np.float64]

CALIBRATION_FOLDS = 3

MINIMUM_BADS = 50
"""Below this many bads (or goods), a third of them says nothing of a PD."""


PRODUCTION_WEIGHT_LIMIT = 5
"""Matured production rows together weigh as much as the history, but no single row counts more than this many times."""


class TrainingError(RuntimeError):
    """Training cannot give a model that may be served; the message says why."""


@dataclass(frozen=True)
class TrainingRows:
    """Rows to fit on or to judge by.

    Attributes:
        raw: n x fields, float32, contract order.
        features: n x features, float32, as the decision graph computes them from `raw`.
        target: n, 1 = bad.
        weight: n, how many times each row counts.
    """

    raw: NDArray[np.float32]
    features: NDArray[np.float32]
    target: NDArray[np.int64]
    weight: NDArray[np.int64]

    def fingerprint(self) -> str:
        """SHA-256 over the rows, their outcomes and weights."""
        digest = hashlib.sha256()
        for array in (self.raw, self.target, self.weight):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Fit:
    """A fitted model with its calibration and cut-off, both from cross-fitted scores of its own training rows."""

    model: BoostedTrees
    calibration: Calibration
    cut_off: float


def fit(portfolio: Portfolio, rows: TrainingRows, seed: int = SEED) -> Fit:
    """Fit the classifier; calibration and cut-off come from cross-fitted scores of the training rows.

    The cut-off is the PD at which KS is reached, the usual place where no cost of errors has been given.

    Raises:
        TrainingError: if there are too few bads or goods, or the scores do not separate them.
    """
    bads = int(rows.target.sum())
    if min(bads, len(rows.target) - bads) < MINIMUM_BADS:
        raise TrainingError(
            f"{bads} bads in {len(rows.target)} training rows; valid: at least {MINIMUM_BADS} bads and as many goods"
        )
    matrix = rows.features
    raw_scores = np.empty(len(rows.target), dtype=np.float64)
    folds = StratifiedKFold(CALIBRATION_FOLDS, shuffle=True, random_state=seed)
    for inside, outside in folds.split(matrix, rows.target):
        fold = BoostedTrees.fitted(portfolio, matrix[inside], rows.target[inside], rows.weight[inside], seed)
        raw_scores[outside] = fold.log_odds(matrix[outside])
    platt = LogisticRegression(C=np.inf).fit(raw_scores[:, None], rows.target, sample_weight=rows.weight)
    calibration = Calibration(slope=float(platt.coef_[0, 0]), intercept=float(platt.intercept_[0]))
    separation, cut_off = kolmogorov_smirnov(rows.target, calibrated(calibration, raw_scores))
    if calibration.slope <= 0 or not np.isfinite(cut_off):
        raise TrainingError(
            f"on rows that they were not fitted on the scores do not separate bads from goods (KS {separation:.3f}, calibration "
            f"slope {calibration.slope:.3f}); valid: a slope above 0, which the features of {portfolio.name} must carry"
        )
    model = BoostedTrees.fitted(portfolio, matrix, rows.target, rows.weight, seed)
    return Fit(model, calibration, cut_off)


def predict(fitted: Fit, features: NDArray[np.float32]) -> FloatArray:
    """PD by scikit-learn itself, for the parity check and for evaluation."""
    return calibrated(fitted.calibration, fitted.model.log_odds(features))


def calibrated(calibration: Calibration, raw_log_odds: FloatArray) -> FloatArray:
    """PD from the classifier's raw log-odds."""
    return np.asarray(1 / (1 + np.exp(-(calibration.intercept + calibration.slope * raw_log_odds))))
