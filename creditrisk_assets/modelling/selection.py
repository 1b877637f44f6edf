"""Model selection: every candidate is cross-fitted on the training rows, and a rule selects one.

Held-out rows play no part. The cross-fitted scores of the selected candidate also calibrate it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import ndonnx
import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from creditrisk_assets.modelling.boosting import SHALLOW_PARAMETERS, BoostedTrees
from creditrisk_assets.modelling.calibration import calibrated_pd, fit_platt
from creditrisk_assets.modelling.metrics import row_log_loss
from creditrisk_assets.modelling.scorecard import Scorecard
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import Calibration

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
FloatMatrix = NDArray[np.float32]

FOLDS = 3

ONE_STANDARD_ERROR = 1.0
"""A simpler candidate is selected if its log loss exceeds the best by at most this many standard
errors of the difference (Breiman et al. 1984, Classification and Regression Trees, section 3.4.3).
"""


class Model(Protocol):
    """Fitted model of any family."""

    @property
    def parameters(self) -> Mapping[str, float | int]:
        """Parameters of the fit."""

    def log_odds(self, features: FloatMatrix) -> FloatArray:
        """Raw log-odds of being bad: n, from rows x features."""

    def in_graph(self, features: ndonnx.Array) -> ndonnx.Array:
        """Raw log-odds as part of a graph: n float64, from rows x features float32."""

    def skops_object(self) -> object:
        """Object to store by `skops`."""


@dataclass(frozen=True)
class Candidate:
    """Named family with its parameters; `fit` takes a portfolio, rows x features, outcomes (1 =
    bad), weights and a seed.
    """

    name: str
    fit: Callable[[Portfolio, FloatMatrix, IntArray, IntArray, int], Model]


SCORECARD = Candidate("scorecard", Scorecard.fit)

CANDIDATES = (
    SCORECARD,
    Candidate("shallow_trees", partial(BoostedTrees.fit, parameters=SHALLOW_PARAMETERS)),
    Candidate("boosted_trees", BoostedTrees.fit),
)
"""Ordered from simple to flexible: additive effects, interactions of two or three features, deeper
interactions.
"""


@dataclass(frozen=True)
class CrossFit:
    """Out-of-fold scores of a candidate.

    Attributes:
        candidate: the candidate.
        raw_log_odds: n.
        calibration: fitted to them.
        row_losses: n, log loss of each row's calibrated PD.
    """

    candidate: Candidate
    raw_log_odds: FloatArray
    calibration: Calibration
    row_losses: FloatArray


@dataclass(frozen=True)
class Selection:
    """Selected candidate, and figures of all: log loss on cross-fitted scores, its excess over the
    best, and the standard error of the excess over the rows.
    """

    chosen: CrossFit
    figures: dict[str, dict[str, float]]


def select(fits: Sequence[CrossFit], weight: IntArray) -> Selection:
    """Select the simplest candidate with a cross-fitted log loss within one standard error of the
    best.

    Args:
        fits: of the candidates, from simple to flexible.
        weight: n, how many times each row counts.
    """
    share = weight / weight.sum()
    best = min(fits, key=lambda fit: float(share @ fit.row_losses))
    figures = {fit.candidate.name: _compare(fit.row_losses, best.row_losses, share) for fit in fits}
    close = [
        fit
        for fit in fits
        if (found := figures[fit.candidate.name])["excess"]
        <= ONE_STANDARD_ERROR * found["standard_error"]
    ]
    return Selection(close[0], figures)


def cross_fit(
    candidate: Candidate,
    portfolio: Portfolio,
    matrix: FloatMatrix,
    target: IntArray,
    weight: IntArray,
    seed: int,
) -> CrossFit:
    """Score each fold by a fit of the candidate on the other folds.

    Args:
        candidate: the candidate.
        portfolio: its monotone directions constrain the models.
        matrix: n x features.
        target: n, 1 = bad.
        weight: n, how many times each row counts.
        seed: for the folds and the fits.
    """
    raw_log_odds = np.empty(len(target), dtype=np.float64)
    for inside, outside in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(
        matrix, target
    ):
        model = candidate.fit(portfolio, matrix[inside], target[inside], weight[inside], seed)
        raw_log_odds[outside] = model.log_odds(matrix[outside])
    calibration = fit_platt(raw_log_odds, target, weight)
    return CrossFit(
        candidate,
        raw_log_odds,
        calibration,
        row_log_loss(target, calibrated_pd(calibration, raw_log_odds)),
    )


def _compare(losses: FloatArray, best: FloatArray, share: FloatArray) -> dict[str, float]:
    differences = losses - best
    excess = float(share @ differences)
    error = float(np.sqrt((share**2) @ (differences - excess) ** 2))
    return {"log_loss": float(share @ losses), "excess": excess, "standard_error": error}
