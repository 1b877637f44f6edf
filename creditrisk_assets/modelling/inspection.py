"""Inspection of a model for people: importance of each feature, and the PD along the features that
claim a direction. It works on any family, through its log-odds.
"""

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.modelling.calibration import calibrated_pd
from creditrisk_assets.modelling.metrics import row_log_loss
from creditrisk_assets.modelling.training import Fit, TrainingRows
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import Document

FloatMatrix = NDArray[np.float32]

IMPORTANCE_ROWS = 400
PROFILE_ROWS = 60
PROFILE_POINTS = 8
"""Rows for importance, rows for profiles, and values on a profile: some 40,000 rows to score."""


class Profile(Document):
    """Mean PD of the same customers with one feature set to each of several values (partial
    dependence: Friedman 2001, Annals of Statistics 29:1189). `direction` is the portfolio's claim:
    +1 raises the PD, -1 lowers it.
    """

    direction: int
    values: list[float]
    mean_pd: list[float]


class Inspection(Document):
    """Importance and profiles of a model's features.

    Attributes:
        importance: rise of the log loss when a feature's values are permuted, for each feature.
        profiles: of the features that claim a direction.
    """

    importance: dict[str, float]
    profiles: dict[str, Profile]


def inspect(portfolio: Portfolio, fitted: Fit, held_out: TrainingRows, seed: int) -> Inspection:
    """Inspect a fitted model.

    Args:
        portfolio: defines the features.
        fitted: the model.
        held_out: rows that it was not fitted on.
        seed: for the sample and the permutations.
    """
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(held_out.target))[:IMPORTANCE_ROWS]
    features, target = held_out.features[sample], held_out.target[sample]
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
    permuted = np.repeat(features[None], columns + 1, axis=0)  # the last copy stays unchanged
    for column in range(columns):
        permuted[column, :, column] = rng.permutation(features[:, column])
    probability = _pd(fitted, permuted.reshape(-1, columns)).reshape(columns + 1, rows)
    losses = [float(row_log_loss(target, pds).mean()) for pds in probability]
    return [loss - losses[-1] for loss in losses[:-1]]


def _profiles(portfolio: Portfolio, fitted: Fit, features: FloatMatrix) -> dict[str, Profile]:
    rows = features[:PROFILE_ROWS]
    points = np.linspace(0, 1, PROFILE_POINTS)
    grids = {}
    for place, feature in enumerate(portfolio.features):
        present = features[~np.isnan(features[:, place]), place]
        if feature.monotone and len(present):
            grids[place] = np.unique(np.quantile(present, points, method="nearest"))
    if not grids:
        return {}
    values = [(place, value) for place, grid in grids.items() for value in grid]
    modified = np.repeat(rows[None], len(values), axis=0)
    for copy, (place, value) in zip(modified, values, strict=True):
        copy[:, place] = value
    probability = _pd(fitted, modified.reshape(-1, rows.shape[1]))
    means = iter(probability.reshape(-1, len(rows)).mean(axis=1).tolist())
    return {
        portfolio.features[place].name: Profile(
            direction=portfolio.features[place].monotone,
            values=grid.tolist(),
            mean_pd=[next(means) for _ in grid],
        )
        for place, grid in grids.items()
    }


def _pd(fitted: Fit, features: FloatMatrix) -> NDArray[np.float64]:
    return calibrated_pd(fitted.calibration, fitted.model.log_odds(features))
