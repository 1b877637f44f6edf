"""Gradient-boosted trees: fitting, and raw log-odds by scikit-learn and in the decision graph."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import ndonnx
import numpy as np
import onnx
import spox.opset.ai.onnx.ml.v3 as op
from numpy.typing import NDArray
from skl2onnx import to_onnx
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.float32 import float32_floor

FloatArray = NDArray[np.float64]

SEED = 20051001
"""Month of the UCI outcomes; any fixed number would do."""

OPSET = {"": 21, "ai.onnx.ml": 3}

PARAMETERS: dict[str, float | int] = {
    "learning_rate": 0.05,
    "max_iter": 180,
    "max_leaf_nodes": 12,
    "min_samples_leaf": 80,
    "l2_regularization": 100.0,
    "max_features": 0.2,
}
"""Many shallow, strongly shrunk trees on correlated features; docs/evidence/model.md has the
alternatives that were tried.
"""

SHALLOW_PARAMETERS = PARAMETERS | {"max_leaf_nodes": 4, "max_iter": 120}


@dataclass(frozen=True)
class BoostedTrees:
    """Fitted classifier. Its raw log-odds are float32 sums over trees."""

    classifier: HistGradientBoostingClassifier
    parameters: Mapping[str, float | int]

    @classmethod
    def fit(
        cls,
        portfolio: Portfolio,
        matrix: NDArray[np.float32],
        target: NDArray[np.int64],
        weight: NDArray[np.int64],
        seed: int,
        parameters: Mapping[str, float | int] = PARAMETERS,
    ) -> Self:
        """Fit on rows repeated by their weight: with sample weights, binning alone takes
        scikit-learn 1.9 six times as long as the fit.

        Args:
            portfolio: its monotone directions constrain the trees.
            matrix: n x features.
            target: n, 1 = bad.
            weight: n, how many times each row counts.
            seed: for the random features at each split.
            parameters: of the trees.
        """
        classifier = HistGradientBoostingClassifier(
            **parameters,
            monotonic_cst=portfolio.monotone_constraints,
            early_stopping=False,
            random_state=seed,
        )
        # scikit-learn cannot bin a column without values.
        filled = np.where(np.isnan(matrix).all(axis=0), np.float32(0), matrix)
        with _single_thread():
            classifier.fit(np.repeat(filled, weight, axis=0), np.repeat(target, weight))
        for predictors in classifier._predictors:
            for predictor in predictors:
                predictor.nodes["num_threshold"] = float32_floor(predictor.nodes["num_threshold"])
        return cls(classifier, dict(parameters))

    def log_odds(self, features: NDArray[np.float32]) -> FloatArray:
        """Raw log-odds of being bad by scikit-learn: n."""
        with _single_thread():
            return np.asarray(self.classifier.decision_function(features), dtype=np.float64)

    def in_graph(self, features: ndonnx.Array) -> ndonnx.Array:
        """Raw log-odds as part of a graph: rows x features float32 in, n float64 out."""
        example = np.zeros((1, self.classifier.n_features_in_), dtype=np.float32)
        converted = to_onnx(
            self.classifier,
            example,
            options={"zipmap": False, "raw_scores": True},
            target_opset=OPSET,
        )
        (trees,) = (
            node for node in converted.graph.node if node.op_type == "TreeEnsembleClassifier"
        )
        attributes: dict[str, Any] = {
            attribute.name: onnx.helper.get_attribute_value(attribute)
            for attribute in trees.attribute
        }
        nodes: dict[str, Any] = {
            name: list(values) for name, values in attributes.items() if name.startswith("nodes_")
        }
        nodes["nodes_modes"] = [mode.decode() for mode in attributes["nodes_modes"]]
        # A regressor of the same trees gives just the sum: no label, no second column.
        sums = op.tree_ensemble_regressor(
            features.unwrap_spox(),
            base_values=attributes["base_values"],
            n_targets=1,
            target_ids=attributes["class_ids"],
            target_nodeids=attributes["class_nodeids"],
            target_treeids=attributes["class_treeids"],
            target_weights=attributes["class_weights"],
            **nodes,
        )
        return ndonnx.astype(ndonnx.reshape(ndonnx.asarray(sums), (-1,)), ndonnx.float64)

    def skops_object(self) -> HistGradientBoostingClassifier:
        return self.classifier


def _single_thread() -> threadpool_limits:
    """Limit OpenMP to one thread: on busy cores waiting threads cost up to 50 times their gain."""
    return threadpool_limits(limits=1, user_api="openmp")
