"""The scorecard: a logistic regression on weights of evidence, the interpretable rival of the
trees.

Each feature is cut into a few bins, each bin has a weight of evidence (WoE), each feature one
coefficient. Every step can be read in a table of points, which is why banks use it (Siddiqi 2006,
Credit Risk Scorecards).
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

from creditrisk_assets.modelling.float32 import float32_not_above
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import Calibration, Scaling

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PARAMETERS: dict[str, float | int] = {
    "bins": 8,
    "smallest_bin_share": 0.03,
    "smallest_bin_rows": 100,
    "prior_rows": 20,
    "l1_regularization": 0.27,
}
"""Most bins of a feature; least share of the rows, and least rows, in a bin; rows of the overall
bad rate added to each bin; penalty on a coefficient, in log loss a row: divided by the root of the
rows, as the noise of a coefficient is.
"""


@dataclass(frozen=True)
class BinnedFeature:
    """One feature of the scorecard.

    Bin k holds values above edge k - 1 up to and including edge k; the last bin holds missing
    values.

    Attributes:
        position: its column in the feature matrix.
        edges: upper ends of all bins but the highest, ascending, float32.
        rows: of each bin, the last one missing; the weight of the training rows in it.
        bads: of each bin.
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
        """What each bin adds to the log-odds of being bad."""
        return -self.coefficient * self.woe

    def bins(self, matrix: NDArray[np.float32]) -> NDArray[np.intp]:
        """The bin of each row of a feature matrix."""
        return _bins(matrix[:, self.position], self.edges)


@dataclass(frozen=True)
class Scorecard:
    """A fitted scorecard: the features that have a coefficient, and the intercept (log-odds of
    being bad).
    """

    family: ClassVar[str] = "scorecard"
    parameters: ClassVar[dict[str, float | int]] = PARAMETERS

    features: tuple[BinnedFeature, ...]
    intercept: float

    @classmethod
    def fitted(
        cls,
        portfolio: Portfolio,
        matrix: NDArray[np.float32],
        target: IntArray,
        weight: IntArray,
        seed: int,
    ) -> Self:
        """Cut each feature into bins, then choose features and coefficients together.

        The coefficients minimise log loss plus an L1 penalty and may not be negative: what has the
        wrong sign or adds nothing beside the others gets a coefficient of 0 and leaves.

        Args:
            portfolio: whose monotone directions the bins keep.
            matrix: n x features; NaN is a missing value.
            target: n, 1 = bad.
            weight: n, how many times each row counts.
            seed: for ties between cuts that are equally good.
        """
        binned = [
            _binned(position, feature.monotone, matrix[:, position], target, weight, seed)
            for position, feature in enumerate(portfolio.features)
        ]
        evidence = np.column_stack([one.woe[one.bins(matrix)] for one in binned])
        intercept, coefficients = _positive_lasso(evidence, 1 - target, weight.astype(np.float64))
        kept = tuple(
            replace(one, coefficient=float(coefficient))
            for one, coefficient in zip(binned, coefficients, strict=True)
            if coefficient > 0
        )
        return cls(kept, -intercept)

    def log_odds(self, features: NDArray[np.float32]) -> FloatArray:
        """Log-odds of being bad: n. Added feature by feature, as the graph adds them."""
        result = np.full(len(features), self.intercept)
        for one in self.features:
            result = result + one.log_odds[one.bins(features)]
        return result

    def in_graph(self, features: ndonnx.Array) -> ndonnx.Array:
        """The same as a part of a graph, bit for bit: rows x features float32 in, n float64 out.

        The number of edges below a value, a sum of whole numbers, is its bin; the bin's log-odds
        are looked up.
        """
        width = max(len(one.edges) for one in self.features)
        edges = np.full((len(self.features), width), np.inf, dtype=np.float32)
        table = np.zeros((len(self.features), width + 2))
        for row, one in enumerate(self.features):
            edges[row, : len(one.edges)] = one.edges
            table[row, : len(one.edges) + 1] = one.log_odds[:-1]
            table[row, -1] = one.log_odds[-1]
        positions = ndonnx.asarray(
            np.array([one.position for one in self.features], dtype=np.int64)
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

    def audited(self) -> dict[str, object]:
        """Plain arrays and numbers, for `skops`."""
        return {"intercept": self.intercept, "features": [vars(one) for one in self.features]}

    def table(
        self, names: Sequence[str], calibration: Calibration, scaling: Scaling
    ) -> pd.DataFrame:
        """The scorecard as people read it.

        Args:
            names: of the columns of the feature matrix.
            calibration: of its log-odds.
            scaling: of points.

        Returns:
            feature, bin, share of the training rows, bad rate (NaN where no row was), WoE and
            points, one row a bin; first the points that everybody starts from. Points of one bin of
            each feature and the start add up to the score.
        """
        start = calibration.intercept + calibration.slope * self.intercept
        lines: list[tuple[str, str, float, float, float, float]] = [
            ("start", "", 1.0, np.nan, np.nan, scaling.offset - scaling.factor * start)
        ]
        for one in self.features:
            points = -scaling.factor * calibration.slope * one.log_odds
            rates = np.divide(
                one.bads, one.rows, out=np.full(len(one.rows), np.nan), where=one.rows > 0
            )
            shares = one.rows / one.rows.sum()
            texts = _bin_texts(one.edges)
            lines += [
                (names[one.position], *row)
                for row in zip(texts, shares, rates, one.woe, points, strict=True)
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
    """Bins of one feature without a coefficient: the leaves of a small tree, monotone where a
    direction is claimed.
    """
    edges = _edges(values, target, weight, direction, seed)
    bins = _bins(values, edges)
    rows = np.bincount(bins, weight, len(edges) + 2).astype(np.float64)
    bads = np.bincount(bins, weight * target, len(edges) + 2).astype(np.float64)
    rate = float(bads.sum() / rows.sum())
    prior = PARAMETERS["prior_rows"]
    odds = (rows - bads + prior * (1 - rate)) / (bads + prior * rate)
    woe = np.log(odds) - np.log((1 - rate) / rate)
    if (
        direction
    ):  # the prior moves small bins more than large ones and must not turn two neighbours round
        woe[:-1] = -direction * np.maximum.accumulate(-direction * woe[:-1])
    return BinnedFeature(position, edges, rows, bads, woe, 0.0)


def _edges(
    values: NDArray[np.float32], target: IntArray, weight: IntArray, direction: int, seed: int
) -> NDArray[np.float32]:
    known = ~np.isnan(values)
    if not known.any():
        return np.empty(0, dtype=np.float32)
    smallest = PARAMETERS["smallest_bin_rows"] / float(weight[known].sum())
    tree = DecisionTreeClassifier(
        criterion="log_loss",
        max_leaf_nodes=int(PARAMETERS["bins"]),
        min_weight_fraction_leaf=min(0.5, max(PARAMETERS["smallest_bin_share"], smallest)),
        monotonic_cst=[direction],
        random_state=seed,
    ).fit(values[known, None], target[known], sample_weight=weight[known])
    inner = tree.tree_.children_left >= 0
    return np.unique(float32_not_above(tree.tree_.threshold[inner]))


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
    """Intercept and coefficients, none negative, of an L1-penalised logistic regression.

    Without negative coefficients the penalty is their sum, so that the problem is smooth and has
    bounds only.
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
