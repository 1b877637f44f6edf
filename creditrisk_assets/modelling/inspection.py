"""What a model has learned, for people: how much each feature matters, and which way the PD moves
along the features that claim a direction. Works on any family, through its log-odds.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from creditrisk_assets.modelling.calibration import calibrated
from creditrisk_assets.modelling.metrics import row_log_loss
from creditrisk_assets.modelling.training import Fit, TrainingRows
from creditrisk_assets.portfolio.contract import Portfolio

FloatMatrix = NDArray[np.float32]

IMPORTANCE_ROWS = 400
PROFILE_ROWS = 60
PROFILE_POINTS = 8
"""Rows that are inspected, and values of a feature that its profile is drawn through: some 40,000
rows to score.
"""


class Profile(BaseModel):
    """Mean PD of the same customers with one feature set to each of some values (partial
    dependence: Friedman 2001, Annals of Statistics 29:1189). `direction` is what the portfolio
    claims: +1 raises the PD, -1 lowers it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    direction: int
    values: list[float]
    mean_pd: list[float]


class Inspection(BaseModel):
    """What is known of a model's features.

    Attributes:
        importance: for each feature the rise of the log loss when its values are dealt out anew
            among the rows.
        profiles: of the features that claim a direction.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    importance: dict[str, float]
    profiles: dict[str, Profile]


def inspect(portfolio: Portfolio, fitted: Fit, judged: TrainingRows, seed: int) -> Inspection:
    """Look into a fitted model.

    Args:
        portfolio: whose features they are.
        fitted: the model.
        judged: rows that it was not fitted on.
        seed: of the sample and of the dealing out.
    """
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(judged.target))[:IMPORTANCE_ROWS]
    features, target = judged.features[sample], judged.target[sample]
    return Inspection(
        importance=dict(
            zip(portfolio.feature_names, _importance(fitted, features, target, rng), strict=True)
        ),
        profiles=_profiles(portfolio, fitted, features),
    )


def _importance(
    fitted: Fit, features: FloatMatrix, target: NDArray[np.int64], rng: np.random.Generator
) -> list[float]:
    rows, columns = features.shape
    dealt = np.repeat(features[None], columns + 1, axis=0)  # the last one stays as it is
    for column in range(columns):
        dealt[column, :, column] = rng.permutation(features[:, column])
    probability = _pd(fitted, dealt.reshape(-1, columns)).reshape(columns + 1, rows)
    losses = [float(row_log_loss(target, one).mean()) for one in probability]
    return [loss - losses[-1] for loss in losses[:-1]]


def _profiles(portfolio: Portfolio, fitted: Fit, features: FloatMatrix) -> dict[str, Profile]:
    rows = features[:PROFILE_ROWS]
    grids = {
        place: _grid(features[:, place])
        for place, feature in enumerate(portfolio.features)
        if feature.monotone and not np.isnan(features[:, place]).all()
    }
    if not grids:
        return {}
    moved = np.concatenate(
        [_with_column(rows, place, value) for place, grid in grids.items() for value in grid]
    )
    means = iter(_pd(fitted, moved).reshape(-1, len(rows)).mean(axis=1).tolist())
    return {
        portfolio.features[place].name: Profile(
            direction=portfolio.features[place].monotone,
            values=grid.tolist(),
            mean_pd=[next(means) for _ in grid],
        )
        for place, grid in grids.items()
    }


def _grid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    known = values[~np.isnan(values)]
    return np.unique(np.quantile(known, np.linspace(0, 1, PROFILE_POINTS), method="nearest"))


def _with_column(rows: FloatMatrix, place: int, value: np.float32) -> FloatMatrix:
    moved = rows.copy()
    moved[:, place] = value
    return moved


def _pd(fitted: Fit, features: FloatMatrix) -> NDArray[np.float64]:
    return calibrated(fitted.calibration, fitted.model.log_odds(features))
