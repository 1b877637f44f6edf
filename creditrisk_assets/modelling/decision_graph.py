"""One ONNX graph from raw fields to PD and points: features, trees, calibration, scaling.

The feature function is traced, the scikit-learn classifier converted and inlined behind it. Training reads its matrix from
the same traced features (`feature_matrix`), so training and serving cannot disagree in a bit.
"""

import math
from functools import cache

import ndonnx
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime import InferenceSession

from creditrisk_assets.modelling.selection import Model
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import Calibration, Scaling, open_session

EULER = math.e


@cache
def _feature_session(portfolio: Portfolio) -> InferenceSession:
    raw = ndonnx.argument(shape=("N", len(portfolio.fields)), dtype=ndonnx.float32)
    graph = ndonnx.build({"raw": raw}, {"features": portfolio.compute_features(raw)})
    return open_session(graph.SerializeToString())


def feature_matrix(portfolio: Portfolio, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features as the decision graph computes them.

    Args:
        portfolio: whose feature function is traced.
        raw: rows x fields, float32, contract order.

    Returns:
        rows x features, float32.

    Raises:
        ValueError: if the feature function gives another number of columns than the portfolio names.
    """
    result: NDArray[np.float32] = _feature_session(portfolio).run(["features"], {"raw": raw})[0]
    wanted = len(portfolio.features)
    if result.shape != (len(raw), wanted):
        raise ValueError(
            f"portfolio {portfolio.name}: compute_features gave {result.shape} for {len(raw)} rows; "
            f"valid: ({len(raw)}, {wanted}), one column for each of its features"
        )
    return result


def build_decision_graph(portfolio: Portfolio, model: Model, calibration: Calibration, scaling: Scaling) -> bytes:
    """Raw fields in; `default_probability` and `score` out, both float64.

    Trees give raw log-odds in float32. From there the arithmetic is float64, and the logistic is a power of e and not
    `exp`: onnxruntime's double `exp` rounds by the row's place in a vector register, its `pow` rounds every row alike.
    """
    raw = ndonnx.argument(shape=("N", len(portfolio.fields)), dtype=ndonnx.float32)
    raw_log_odds = model.in_graph(portfolio.compute_features(raw))
    log_odds = raw_log_odds * calibration.slope + calibration.intercept
    probability = 1.0 / (1.0 + ndonnx.pow(ndonnx.asarray(EULER, dtype=ndonnx.float64), -log_odds))
    score = scaling.offset - scaling.factor * log_odds
    graph: ModelProto = ndonnx.build({"raw": raw}, {"default_probability": probability, "score": score})
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString(deterministic=True))
