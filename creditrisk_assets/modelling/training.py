"""Training: select a candidate, fit, calibrate, find the cut-off, all on the training rows."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from creditrisk_assets.modelling.boosting import SEED
from creditrisk_assets.modelling.calibration import calibrated_pd
from creditrisk_assets.modelling.metrics import kolmogorov_smirnov
from creditrisk_assets.modelling.selection import (
    CANDIDATES,
    Candidate,
    CrossFit,
    Model,
    Selection,
    cross_fit,
    select,
)
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import Calibration

FloatArray = NDArray[np.float64]

MINIMUM_BADS = 50
"""With fewer bads (or goods), a third of them says nothing about a PD."""

PRODUCTION_WEIGHT_LIMIT = 5
"""Matured production rows together weigh as much as the history, but each row counts at most this
many times.
"""


class TrainingError(RuntimeError):
    """Training gives no model fit for serving; the message says why."""


@dataclass(frozen=True)
class TrainingRows:
    """Rows for fitting or evaluation.

    Attributes:
        raw: n x fields, float32, contract order.
        features: n x features, float32, computed from `raw` as in the decision graph.
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

    def require_enough(self, purpose: str) -> None:
        """Raise `TrainingError` if there are too few bads or goods to fit on."""
        bads = int(self.target.sum())
        if min(bads, len(self.target) - bads) < MINIMUM_BADS:
            raise TrainingError(
                f"{bads} bads in {len(self.target)} {purpose}; valid: at least {MINIMUM_BADS} bads "
                "and as many goods"
            )

    def require_both_classes(self) -> None:
        """Raise `TrainingError` if there are no held-out bads, or no goods."""
        if len(np.unique(self.target)) < 2:
            raise TrainingError(
                f"{len(self.target)} held-out rows of one class; valid: at least one good and one "
                "bad"
            )


@dataclass(frozen=True)
class Fit:
    """Fitted model with its calibration and cut-off, both from cross-fitted scores of its training
    rows, and the selection of its family.
    """

    model: Model
    calibration: Calibration
    cut_off: float
    selection: Selection


def fit(
    portfolio: Portfolio,
    rows: TrainingRows,
    candidates: Sequence[Candidate] = CANDIDATES,
    seed: int = SEED,
) -> Fit:
    """Select a candidate, fit it and calibrate it, all on the training rows.

    Raises:
        TrainingError: if there are too few bads or goods, or the scores do not separate them.
    """
    return fit_best(portfolio, rows, cross_fit_candidates(portfolio, rows, candidates, seed), seed)


def cross_fit_candidates(
    portfolio: Portfolio,
    rows: TrainingRows,
    candidates: Sequence[Candidate] = CANDIDATES,
    seed: int = SEED,
) -> list[CrossFit]:
    """Cross-fit every candidate on the training rows.

    Raises:
        TrainingError: if there are too few bads or goods.
    """
    rows.require_enough("training rows")
    with threadpool_limits(limits=1):  # the order of sums depends on the number of threads
        return [
            cross_fit(candidate, portfolio, rows.features, rows.target, rows.weight, seed)
            for candidate in candidates
        ]


def fit_best(
    portfolio: Portfolio, rows: TrainingRows, fits: Sequence[CrossFit], seed: int = SEED
) -> Fit:
    """Select a cross-fitted candidate and fit it on all rows.

    The cut-off is the PD at which KS is reached, the usual choice without costs of errors.

    Raises:
        TrainingError: if the scores do not separate bads from goods.
    """
    selection = select(fits, rows.weight)
    chosen = selection.chosen
    separation, cut_off = kolmogorov_smirnov(
        rows.target, calibrated_pd(chosen.calibration, chosen.raw_log_odds)
    )
    if chosen.calibration.slope <= 0 or not np.isfinite(cut_off):
        raise TrainingError(
            "on rows that they were not fitted on the scores do not separate bads from goods (KS "
            f"{separation:.3f}, calibration slope {chosen.calibration.slope:.3f}); valid: a slope "
            f"above 0, which the features of {portfolio.name} must carry"
        )
    with threadpool_limits(limits=1):
        model = chosen.candidate.fit(portfolio, rows.features, rows.target, rows.weight, seed)
    return Fit(model, chosen.calibration, cut_off, selection)


def predict(fitted: Fit, features: NDArray[np.float32]) -> FloatArray:
    """PD by the model in Python, for the parity check and for evaluation."""
    return calibrated_pd(fitted.calibration, fitted.model.log_odds(features))
