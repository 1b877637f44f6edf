"""Bundles of any model, and graphs of single operations, to compile."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from creditrisk_assets.modelling.bundling import input_fields, write_bundle
from creditrisk_assets.modelling.decision_graph import Model, build_graphs
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import (
    INTERCEPT,
    SLOPE,
    Bundle,
    Calibration,
    DecisionRule,
    Manifest,
    ReasonText,
    Scaling,
    TrainingFacts,
    open_session,
)
from creditrisk_assets.scoring.compiled.graph_file import Graph, read_graph
from tests.support.examples import FloatMatrix

CALIBRATION = Calibration(slope=0.9, intercept=0.1)


def bundle_of(
    folder: Path,
    portfolio: Portfolio,
    model: Model,
    raw: FloatMatrix,
    reference: Sequence[float | None],
    calibration: Calibration = CALIBRATION,
) -> Bundle:
    """A bundle of a fitted model, whose golden requests are among some rows."""
    graphs = build_graphs(portfolio, model, calibration, Scaling())
    probability = open_session(graphs.decision).run(["default_probability"], {"raw": raw})[0]
    manifest = Manifest(
        portfolio=portfolio.name,
        inputs=input_fields(portfolio),
        features=portfolio.feature_names,
        protected=list(portfolio.protected),
        reasons=[
            ReasonText(code=one.code, text=one.text, fields=list(one.fields))
            for one in portfolio.reasons
        ],
        rule=DecisionRule(cut_off=float(np.median(probability)), reference=list(reference)),
        scaling=Scaling(),
        calibration=calibration,
        training=TrainingFacts(
            kind="history",
            rows=0,
            bads=0,
            fingerprint="",
            production_days=[],
            seed=0,
            family="handmade",
            parameters={},
            candidates={},
        ),
        metrics={},
        parity=0.0,
        libraries={},
    )
    return write_bundle(folder, graphs, manifest, (raw, probability), {})


def graph_bytes(nodes: Sequence[onnx.NodeProto], output: str, **constants: NDArray[Any]) -> bytes:
    """A graph from `raw`, rows x fields float32, to one output; constants by name."""
    return bytes(
        helper.make_model(
            helper.make_graph(
                nodes,
                "graph",
                [helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["N", None])],
                [helper.make_value_info(output, None)],
                [numpy_helper.from_array(value, name) for name, value in constants.items()],
            ),
            opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)],
            ir_version=10,
        ).SerializeToString()
    )


def traced_graph(
    nodes: Sequence[onnx.NodeProto], output: str, **constants: NDArray[Any]
) -> Graph:
    """Such a graph as the tracer takes it, with a calibration."""
    calibration = {SLOPE: np.array(1.0), INTERCEPT: np.array(0.0)}
    return read_graph(graph_bytes(nodes, output, **constants, **calibration))


def assert_equal_bits(answer: NDArray[Any], expected: NDArray[Any]) -> None:
    """All bits are equal; any NaN equals any other."""
    assert (answer.shape, answer.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(answer, expected)
    if answer.dtype.kind == "f":
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(answer)[number], np.signbit(expected)[number])
