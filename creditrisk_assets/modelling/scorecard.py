"""Scorecard: a logistic regression on weights of evidence, the interpretable alternative to trees.

Each feature is cut into a few bins, each bin has a weight of evidence (WoE), and each feature has a
coefficient. Banks use it because a table of points shows every step (Siddiqi 2006, Credit Risk
Scorecards).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Self

import ndonnx
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.tree import DecisionTreeClassifier

from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import Calibration, Scaling
from creditrisk_assets.scoring.float32 import float32_floor

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PARAMETERS: dict[str, float | int] = {
    "bins": 8,
    "smallest_bin_share": 0.03,
    "smallest_bin_rows": 100,
    "prior_rows": 20,
    "l1_regularization": 0.27,
}
"""Most bins of a feature; smallest share of rows and smallest number of rows in a bin; rows of the
overall bad rate added to each bin; penalty on a coefficient, in log loss per row, divided by the
root of the rows like the noise of a coefficient.
"""


@dataclass(frozen=True)
class BinnedFeature:
    """Feature of the scorecard.

    Bin k holds values above edge k - 1 up to and including edge k; the last bin holds missing
    values.

    Attributes:
        position: its column in the feature matrix.
        edges: upper ends of all bins but the highest, ascending, float32.
        rows: weight of the training rows in each bin; the last bin is that of missing values.
        bads: weight of the bads in each bin.
        woe: weight of evidence of each bin, ln(share of goods / share of bads): higher is safer.
        coefficient: of the WoE in the log-odds of being good; above 0.
    """

    position: int
    edges: NDArray[np.float32]
    rows: FloatArray
    bads: FloatArray
    woe: FloatArray
    coefficient: float

    @property
    def log_odds(self) -> FloatArray:
        """Contribution of each bin to the log-odds of being bad."""
        return -self.coefficient * self.woe

    def bins(self, matrix: NDArray[np.float32]) -> NDArray[np.intp]:
        """Bin of each row of a feature matrix."""
        return _bins(matrix[:, self.position], self.edges)


@dataclass(frozen=True)
class Scorecard:
    """Fitted scorecard: the features with a positive coefficient, and the intercept (log-odds of
    being bad).
    """

    parameters: ClassVar[dict[str, float | int]] = PARAMETERS

    features: tuple[BinnedFeature, ...]
    intercept: float

    @classmethod
    def fit(
        cls,
        portfolio: Portfolio,
        matrix: NDArray[np.float32],
        target: IntArray,
        weight: IntArray,
        seed: int,
    ) -> Self:
        """Cut each feature into bins, then choose features and coefficients together.

        The coefficients minimise log loss plus an L1 penalty and may not be negative: features with
        the wrong sign, or without effect beyond the others, get a coefficient of 0 and leave.

        Args:
            portfolio: its monotone directions constrain the bins.
            matrix: n x features; NaN is a missing value.
            target: n, 1 = bad.
            weight: n, how many times each row counts.
            seed: for ties between cuts.
        """
        binned = [
            _binned(position, feature.monotone, matrix[:, position], target, weight, seed)
            for position, feature in enumerate(portfolio.features)
        ]
        evidence = np.column_stack([feature.woe[feature.bins(matrix)] for feature in binned])
        intercept, coefficients = _positive_lasso(evidence, 1 - target, weight.astype(np.float64))
        selected = tuple(
            replace(feature, coefficient=float(coefficient))
            for feature, coefficient in zip(binned, coefficients, strict=True)
            if coefficient > 0
        )
        return cls(selected, -intercept)

    def log_odds(self, features: NDArray[np.float32]) -> FloatArray:
        """Log-odds of being bad: n, added feature by feature as in the graph."""
        result = np.full(len(features), self.intercept)
        for feature in self.features:
            result = result + feature.log_odds[feature.bins(features)]
        return result

    def in_graph(self, features: ndonnx.Array) -> ndonnx.Array:
        """Bit-identical log-odds as part of a graph: rows x features float32 in, n float64 out.

        The bin of a value is the number of edges below it, a sum of whole numbers; its log-odds are
        looked up.
        """
        width = max(len(feature.edges) for feature in self.features)
        edges = np.full((len(self.features), width), np.inf, dtype=np.float32)
        table = np.zeros((len(self.features), width + 2))
        for row, feature in enumerate(self.features):
            edges[row, : len(feature.edges)] = feature.edges
            table[row, : len(feature.edges) + 1] = feature.log_odds[:-1]
            table[row, -1] = feature.log_odds[-1]
        positions = ndonnx.asarray(
            np.array([feature.position for feature in self.features], dtype=np.int64)
        )
        values = ndonnx.take(features, positions, axis=1)
        above = ndonnx.astype(values[:, :, None] > ndonnx.asarray(edges[None]), ndonnx.int64)
        missing = ndonnx.asarray(np.int64(width + 1))
        bins = ndonnx.where(ndonnx.isnan(values), missing, ndonnx.sum(above, axis=2))
        places = bins + ndonnx.asarray(
            np.arange(len(self.features), dtype=np.int64)[None] * (width + 2)
        )
        looked_up = ndonnx.take(
            ndonnx.asarray(table.reshape(-1)), ndonnx.reshape(places, (-1,)), axis=0
        )
        contributions = ndonnx.reshape(looked_up, (-1, len(self.features)))
        result = ndonnx.asarray(np.float64(self.intercept)) + contributions[:, 0]
        for column in range(1, len(self.features)):
            result = result + contributions[:, column]
        return result

    def skops_object(self) -> dict[str, object]:
        return {"intercept": self.intercept, "features": [vars(part) for part in self.features]}

    def table(
        self, names: Sequence[str], calibration: Calibration, scaling: Scaling
    ) -> pd.DataFrame:
        """Scorecard as a table of points.

        Args:
            names: of the columns of the feature matrix.
            calibration: of its log-odds.
            scaling: of points.

        Returns:
            feature, bin, share of the training rows, bad rate (NaN without rows), WoE and points,
            with one row a bin; the first row has the starting points. The starting points and the
            points of a bin of each feature add up to the score.
        """
        start = calibration.intercept + calibration.slope * self.intercept
        lines: list[tuple[str, str, float, float, float, float]] = [
            ("start", "", 1.0, np.nan, np.nan, scaling.offset - scaling.factor * start)
        ]
        for feature in self.features:
            points = -scaling.factor * calibration.slope * feature.log_odds
            rates = np.full(len(feature.rows), np.nan)
            np.divide(feature.bads, feature.rows, out=rates, where=feature.rows > 0)
            shares = feature.rows / feature.rows.sum()
            texts = _bin_texts(feature.edges)
            lines += [
                (names[feature.position], *row)
                for row in zip(texts, shares, rates, feature.woe, points, strict=True)
            ]
        return pd.DataFrame(lines, columns=["feature", "bin", "share", "bad_rate", "woe", "points"])


def _binned(
    position: int,
    direction: int,
    values: NDArray[np.float32],
    target: IntArray,
    weight: IntArray,
    seed: int,
) -> BinnedFeature:
    """Cut a feature into bins, the leaves of a small tree, monotone if it claims a direction."""
    edges = _edges(values, target, weight, direction, seed)
    bins = _bins(values, edges)
    rows = np.bincount(bins, weight, len(edges) + 2).astype(np.float64)
    bads = np.bincount(bins, weight * target, len(edges) + 2).astype(np.float64)
    rate = float(bads.sum() / rows.sum())
    prior = PARAMETERS["prior_rows"]
    odds = (rows - bads + prior * (1 - rate)) / (bads + prior * rate)
    woe = np.log(odds) - np.log((1 - rate) / rate)
    if direction:  # the prior moves small bins more than large ones and must not swap neighbours
        woe[:-1] = -direction * np.maximum.accumulate(-direction * woe[:-1])
    return BinnedFeature(position, edges, rows, bads, woe, 0.0)


def _edges(
    values: NDArray[np.float32], target: IntArray, weight: IntArray, direction: int, seed: int
) -> NDArray[np.float32]:
    present = ~np.isnan(values)
    if not present.any():
        return np.empty(0, dtype=np.float32)
    smallest = PARAMETERS["smallest_bin_rows"] / float(weight[present].sum())
    tree = DecisionTreeClassifier(
        criterion="log_loss",
        max_leaf_nodes=int(PARAMETERS["bins"]),
        min_weight_fraction_leaf=min(0.5, max(PARAMETERS["smallest_bin_share"], smallest)),
        monotonic_cst=[direction],
        random_state=seed,
    ).fit(values[present, None], target[present], sample_weight=weight[present])
    inner = tree.tree_.children_left >= 0
    return np.unique(float32_floor(tree.tree_.threshold[inner]))


def _bins(values: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.intp]:
    return np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="left"))


def _bin_texts(edges: NDArray[np.float32]) -> list[str]:
    ends = [f"{edge:.6g}" for edge in edges.tolist()]
    if not ends:
        return ["any", "missing"]
    between = [f"{low} to {high}" for low, high in pairwise(ends)]
    return [f"up to {ends[0]}", *between, f"above {ends[-1]}", "missing"]


def _positive_lasso(
    evidence: FloatArray, outcome: IntArray, weight: FloatArray
) -> tuple[float, FloatArray]:
    """Fit an L1-penalised logistic regression without negative coefficients; returns intercept and
    coefficients.

    The penalty is then the sum of the coefficients, so the problem is smooth with simple bounds.
    """
    share = weight / weight.sum()
    penalty = PARAMETERS["l1_regularization"] / float(np.sqrt(weight.sum()))
    signs = 2.0 * outcome - 1.0

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        margin = signs * (parameters[0] + evidence @ parameters[1:])
        pull = -signs * share / (1 + np.exp(np.minimum(margin, 700)))
        value = share @ np.logaddexp(0.0, -margin) + penalty * parameters[1:].sum()
        gradient = np.concatenate([[pull.sum()], pull @ evidence + penalty])
        return float(value), gradient

    start = np.zeros(evidence.shape[1] + 1)
    bounds = [(None, None)] + [(0.0, None)] * evidence.shape[1]
    found = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 500, "ftol": 1e-10},
    )
    return float(found.x[0]), np.asarray(found.x[1:])
