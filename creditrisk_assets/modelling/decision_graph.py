"""The ONNX graphs of a model, from raw fields to PD, points and reasons: features, model,
calibration, scaling.

The feature function is traced, the fitted model put behind it. Training reads its matrix from
the same traced features (`feature_matrix`), so training and serving cannot disagree in a bit.
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

from creditrisk_assets.modelling.reasons import explained
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import Calibration, Scaling, open_session

EULER = math.e

SLOPE, INTERCEPT = "calibration_slope", "calibration_intercept"
"""Initializers of both graphs: the calibration, which can be replaced without touching anything
else.
"""


class Model(Protocol):
    """What a graph needs of a fitted model."""

    def in_graph(self, features: ndonnx.Array) -> ndonnx.Array:
        """Raw log-odds, n float64, from rows x features float32."""


@cache
def _feature_graph(portfolio: Portfolio) -> ModelProto:
    """The traced feature function; tracing takes longer than all else about a graph, so it is done
    once.
    """
    raw = ndonnx.argument(shape=("N", len(portfolio.fields)), dtype=ndonnx.float32)
    graph: ModelProto = ndonnx.build({"raw": raw}, {"features": portfolio.compute_features(raw)})
    return graph


@cache
def _feature_session(portfolio: Portfolio) -> InferenceSession:
    return open_session(_feature_graph(portfolio).SerializeToString())


def feature_matrix(portfolio: Portfolio, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features as the decision graph computes them.

    Args:
        portfolio: whose feature function is traced.
        raw: rows x fields, float32, contract order.

    Returns:
        rows x features, float32.

    Raises:
        ValueError: if the feature function gives another number of columns than the portfolio
            names.
    """
    result: NDArray[np.float32] = _feature_session(portfolio).run(["features"], {"raw": raw})[0]
    wanted = len(portfolio.features)
    if result.shape != (len(raw), wanted):
        raise ValueError(
            f"portfolio {portfolio.name}: compute_features gave {result.shape} for {len(raw)} "
            f"rows; valid: ({len(raw)}, {wanted}), one column for each of its features"
        )
    return result


@dataclass(frozen=True)
class Graphs:
    """Two graphs of one model, as bytes. Both give `default_probability` and `score`, the same
    bits.

    Attributes:
        decision: from `raw` (rows x fields).
        reasons: from `raw` and `reference` (1 x fields); gives also `contributions` (rows x reasons
            of the portfolio, log-odds) and `reasons` (rows x up to four places of reasons, -1 for
            none).
    """

    decision: bytes
    reasons: bytes


def build_graphs(
    portfolio: Portfolio, model: Model, calibration: Calibration, scaling: Scaling
) -> Graphs:
    """Raw fields in; PD and points out, both float64, and why.

    Trees give raw log-odds in float32. From there the arithmetic is float64, and the logistic is a
    power of e and not `exp`: onnxruntime's double `exp` rounds by the row's place in a vector
    register, its `pow` rounds every row alike.

    Slope and intercept are not written into the nodes but are the initializers `SLOPE` and
    `INTERCEPT` of both graphs.
    """
    # A known constant is worked out by a session of its own otherwise, of which a scorecard has
    # hundreds: the same graph, slower.
    with value_prop_backend(ValuePropBackend.REFERENCE):
        return _built(portfolio, model, calibration, scaling)


def _built(
    portfolio: Portfolio, model: Model, calibration: Calibration, scaling: Scaling
) -> Graphs:
    slope, intercept = (ndonnx.argument(shape=(), dtype=ndonnx.float64) for _ in range(2))
    line = {SLOPE: slope, INTERCEPT: intercept}

    def log_odds(rows: ndonnx.Array) -> ndonnx.Array:
        features = ndonnx.asarray(spox.inline(traced)(raw=rows.unwrap_spox())["features"])
        return model.in_graph(features) * slope + intercept

    def answers(of: ndonnx.Array) -> dict[str, ndonnx.Array]:
        probability = 1.0 / (1.0 + ndonnx.pow(ndonnx.asarray(EULER, dtype=ndonnx.float64), -of))
        return {"default_probability": probability, "score": scaling.offset - scaling.factor * of}

    fields, traced = len(portfolio.fields), _feature_graph(portfolio)
    raw = ndonnx.argument(shape=("N", fields), dtype=ndonnx.float32)
    reference = ndonnx.argument(shape=(1, fields), dtype=ndonnx.float32)
    why = explained(portfolio, raw, reference, log_odds)
    reasons = {**answers(why.log_odds), "contributions": why.contributions, "reasons": why.reasons}
    return Graphs(
        decision=_calibrated(
            ndonnx.build({"raw": raw, **line}, answers(log_odds(raw))), calibration
        ),
        reasons=_calibrated(
            ndonnx.build({"raw": raw, "reference": reference, **line}, reasons), calibration
        ),
    )


def calibration_of(graph: bytes) -> Calibration:
    """The calibration that a graph holds.

    Raises:
        LookupError: if the graph was built before slope and intercept had names.
    """
    slope, intercept = (
        float(numpy_helper.to_array(one)) for one in _line(onnx.load_from_string(graph))
    )
    return Calibration(slope=slope, intercept=intercept)


def recalibrated_graph(graph: bytes, calibration: Calibration) -> bytes:
    """The same graph with another calibration: 16 bytes are replaced, all others stay.

    Raises:
        LookupError: if the graph was built before slope and intercept had names.
    """
    model = onnx.load_from_string(graph)
    for one, value in zip(_line(model), (calibration.slope, calibration.intercept), strict=True):
        one.raw_data = np.array(value).astype("<f8").tobytes()
    return bytes(model.SerializeToString(deterministic=True))


def _line(model: ModelProto) -> list[TensorProto]:
    """The initializers `SLOPE` and `INTERCEPT`."""
    found = {one.name: one for one in model.graph.initializer}
    missing = [name for name in (SLOPE, INTERCEPT) if name not in found]
    if missing:
        raise LookupError(
            f"the graph has no initializer {missing[0]}: it was built before its calibration "
            "could be replaced"
        )
    return [found[SLOPE], found[INTERCEPT]]


def _calibrated(graph: ModelProto, calibration: Calibration) -> bytes:
    """A graph whose inputs `SLOPE` and `INTERCEPT` have become initializers, as bytes."""
    inputs = [one for one in graph.graph.input if one.name not in (SLOPE, INTERCEPT)]
    del graph.graph.input[:]
    graph.graph.input.extend(inputs)
    for name, value in ((SLOPE, calibration.slope), (INTERCEPT, calibration.intercept)):
        graph.graph.initializer.append(
            numpy_helper.from_array(np.array(value, dtype=np.float64), name)
        )
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString(deterministic=True))
