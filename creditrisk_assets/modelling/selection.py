"""Which model is trained: every candidate is cross-fitted on the training rows, and one rule
chooses.

Rows that judge the model are not seen here. The cross-fitted scores of the chosen candidate also
calibrate it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import ndonnx
import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from creditrisk_assets.modelling.boosting import SHALLOW_PARAMETERS, BoostedTrees
from creditrisk_assets.modelling.calibration import calibrated, platt
from creditrisk_assets.modelling.metrics import row_log_loss
from creditrisk_assets.modelling.scorecard import Scorecard
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import Calibration

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
FloatMatrix = NDArray[np.float32]

FOLDS = 3

ONE_STANDARD_ERROR = 1.0
"""A simpler candidate is taken if its log loss is not above the best by more than this many
standard errors of the difference (Breiman et al. 1984, Classification and Regression Trees, section
3.4.3).
"""


class Model(Protocol):
    """A fitted model of any family."""

    @property
    def parameters(self) -> Mapping[str, float | int]:
        """What it was fitted with."""

    def log_odds(self, features: FloatMatrix) -> FloatArray:
        """Raw log-odds of being bad: n, from rows x features."""

    def in_graph(self, features: ndonnx.Array) -> ndonnx.Array:
        """The same as a part of a graph: n float64, from rows x features float32."""

    def audited(self) -> object:
        """What `skops` keeps of it."""


class Fitting(Protocol):
    """How a candidate is fitted to rows x features, outcomes (1 = bad), weights and a seed."""

    def __call__(
        self,
        portfolio: Portfolio,
        matrix: FloatMatrix,
        target: IntArray,
        weight: IntArray,
        seed: int,
    ) -> Model:
        """The fitted model."""


@dataclass(frozen=True)
class Candidate:
    """A family with its parameters, by name."""

    name: str
    fitted: Fitting


SCORECARD = Candidate("scorecard", Scorecard.fitted)

CANDIDATES = (
    SCORECARD,
    Candidate("shallow_trees", partial(BoostedTrees.fitted, parameters=SHALLOW_PARAMETERS)),
    Candidate("boosted_trees", BoostedTrees.fitted),
)
"""From the simplest to the most flexible: effects that add up, interactions of two or three
features, deeper ones.
"""


@dataclass(frozen=True)
class CrossFitted:
    """What a candidate says of rows that it was not fitted on.

    Attributes:
        candidate: that was fitted.
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
    """The chosen candidate, and of every candidate its log loss on cross-fitted scores, how much
    that is above the best one's, and the standard error of this difference over the rows.
    """

    chosen: CrossFitted
    figures: dict[str, dict[str, float]]


def select(fits: Sequence[CrossFitted], weight: IntArray) -> Selection:
    """The simplest candidate whose cross-fitted log loss is within one standard error of the best.

    Args:
        fits: of the candidates, from the simplest to the most flexible.
        weight: n, how many times each row counts.
    """
    share = weight / weight.sum()
    best = min(fits, key=lambda one: float(share @ one.row_losses))
    figures = {
        one.candidate.name: _compared(one.row_losses, best.row_losses, share) for one in fits
    }
    close = [one for one in fits if _is_close(figures[one.candidate.name])]
    return Selection(close[0], figures)


def cross_fitted(
    candidate: Candidate,
    portfolio: Portfolio,
    matrix: FloatMatrix,
    target: IntArray,
    weight: IntArray,
    seed: int,
) -> CrossFitted:
    """A candidate fitted on all folds but one, for each of them.

    Args:
        candidate: which.
        portfolio: whose directions the models keep.
        matrix: n x features.
        target: n, 1 = bad.
        weight: n, how many times each row counts.
        seed: of the folds and of the fits.
    """
    raw_log_odds = np.empty(len(target), dtype=np.float64)
    for inside, outside in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(
        matrix, target
    ):
        model = candidate.fitted(portfolio, matrix[inside], target[inside], weight[inside], seed)
        raw_log_odds[outside] = model.log_odds(matrix[outside])
    calibration = platt(raw_log_odds, target, weight)
    return CrossFitted(
        candidate,
        raw_log_odds,
        calibration,
        row_log_loss(target, calibrated(calibration, raw_log_odds)),
    )


def _compared(losses: FloatArray, best: FloatArray, share: FloatArray) -> dict[str, float]:
    differences = losses - best
    excess = float(share @ differences)
    error = float(np.sqrt((share**2) @ (differences - excess) ** 2))
    return {"log_loss": float(share @ losses), "excess": excess, "standard_error": error}


def _is_close(figures: Mapping[str, float]) -> bool:
    return figures["excess"] <= ONE_STANDARD_ERROR * figures["standard_error"]
