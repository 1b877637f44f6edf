"""ONNX graphs of a model, from raw fields to PD, points and reasons: features, model, calibration,
scaling.

The graph is the traced feature function followed by the fitted model. Training computes its matrix
by the same traced features (`feature_matrix`), so training and serving agree in every bit.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import ndonnx
import numpy as np
import onnx
import spox
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper
from onnxruntime import InferenceSession
from spox._future import ValuePropBackend, value_prop_backend

from creditrisk_assets.modelling.reasons import explain
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import (
    INTERCEPT,
    SLOPE,
    Calibration,
    Scaling,
    open_session,
)


class Model(Protocol):
    """Fitted model, as far as a graph needs it."""

    def in_graph(self, features: ndonnx.Array) -> ndonnx.Array:
        """Raw log-odds, n float64, from rows x features float32."""


@cache
def _feature_graph(portfolio: Portfolio) -> ModelProto:
    """Trace the feature function, once for each portfolio: it is the slowest step of a graph."""
    raw = ndonnx.argument(shape=("N", len(portfolio.fields)), dtype=ndonnx.float32)
    graph: ModelProto = ndonnx.build({"raw": raw}, {"features": portfolio.compute_features(raw)})
    return graph


@cache
def _feature_session(portfolio: Portfolio) -> InferenceSession:
    return open_session(_feature_graph(portfolio).SerializeToString())


def feature_matrix(portfolio: Portfolio, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute features as in the decision graph.

    Args:
        portfolio: defines the feature function.
        raw: rows x fields, float32, contract order.

    Returns:
        rows x features, float32.

    Raises:
        ValueError: if the feature function does not give one column for each feature.
    """
    result: NDArray[np.float32] = _feature_session(portfolio).run(["features"], {"raw": raw})[0]
    width = len(portfolio.features)
    if result.shape != (len(raw), width):
        raise ValueError(
            f"portfolio {portfolio.name}: compute_features gave {result.shape} for {len(raw)} "
            f"rows; valid: ({len(raw)}, {width}), one column for each of its features"
        )
    return result


@dataclass(frozen=True)
class Graphs:
    """Two graphs of one model, as bytes. Both give bit-identical `default_probability` and `score`.

    Attributes:
        decision: input `raw` (rows x fields).
        reasons: inputs `raw` and `reference` (1 x fields); further outputs `contributions` (rows x
            reasons of the portfolio, log-odds) and `reasons` (rows x up to four indices of reasons,
            -1 for none).
    """

    decision: bytes
    reasons: bytes


# Otherwise each constant, of which a scorecard has hundreds, is evaluated in a session of its own:
# the same graph, slower.
@value_prop_backend(ValuePropBackend.REFERENCE)
def build_graphs(
    portfolio: Portfolio, model: Model, calibration: Calibration, scaling: Scaling
) -> Graphs:
    """Build graphs from raw fields to PD and points, both float64, and reasons.

    Trees give raw log-odds in float32. From there the arithmetic is float64, and the logistic is a
    power of e and not `exp`: onnxruntime's double `exp` rounds by the row's place in a vector
    register, its `pow` rounds every row alike.

    Slope and intercept are the initializers `SLOPE` and `INTERCEPT` of both graphs.
    """
    slope, intercept = (ndonnx.argument(shape=(), dtype=ndonnx.float64) for _ in range(2))
    line = {SLOPE: slope, INTERCEPT: intercept}

    def log_odds(rows: ndonnx.Array) -> ndonnx.Array:
        features = ndonnx.asarray(spox.inline(traced)(raw=rows.unwrap_spox())["features"])
        return model.in_graph(features) * slope + intercept

    def answers(values: ndonnx.Array) -> dict[str, ndonnx.Array]:
        euler = ndonnx.asarray(math.e, dtype=ndonnx.float64)
        probability = 1.0 / (1.0 + ndonnx.pow(euler, -values))
        score = scaling.offset - scaling.factor * values
        return {"default_probability": probability, "score": score}

    fields, traced = len(portfolio.fields), _feature_graph(portfolio)
    raw = ndonnx.argument(shape=("N", fields), dtype=ndonnx.float32)
    reference = ndonnx.argument(shape=(1, fields), dtype=ndonnx.float32)
    explanation = explain(portfolio, raw, reference, log_odds)
    reasons = {
        **answers(explanation.log_odds),
        "contributions": explanation.contributions,
        "reasons": explanation.reasons,
    }
    return Graphs(
        decision=_with_calibration(
            ndonnx.build({"raw": raw, **line}, answers(log_odds(raw))), calibration
        ),
        reasons=_with_calibration(
            ndonnx.build({"raw": raw, "reference": reference, **line}, reasons), calibration
        ),
    )


def calibration_of(graph: bytes) -> Calibration:
    """Read the calibration of a graph."""
    slope, intercept = (
        float(numpy_helper.to_array(initializer))
        for initializer in _calibration_initializers(onnx.load_from_string(graph))
    )
    return Calibration(slope=slope, intercept=intercept)


def recalibrate_graph(graph: bytes, calibration: Calibration) -> bytes:
    """Replace the calibration of a graph; only these 16 bytes change."""
    model = onnx.load_from_string(graph)
    values = (calibration.slope, calibration.intercept)
    for initializer, value in zip(_calibration_initializers(model), values, strict=True):
        initializer.raw_data = np.array(value).astype("<f8").tobytes()
    return bytes(model.SerializeToString(deterministic=True))


def _calibration_initializers(model: ModelProto) -> list[TensorProto]:
    found = {initializer.name: initializer for initializer in model.graph.initializer}
    return [found[SLOPE], found[INTERCEPT]]


def _with_calibration(graph: ModelProto, calibration: Calibration) -> bytes:
    """Turn the inputs `SLOPE` and `INTERCEPT` of a graph into initializers; returns bytes."""
    inputs = [value for value in graph.graph.input if value.name not in (SLOPE, INTERCEPT)]
    del graph.graph.input[:]
    graph.graph.input.extend(inputs)
    for name, value in ((SLOPE, calibration.slope), (INTERCEPT, calibration.intercept)):
        graph.graph.initializer.append(
            numpy_helper.from_array(np.array(value, dtype=np.float64), name)
        )
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString(deterministic=True))
