"""Bundles of any model, and graphs of single operations, to compile."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from creditrisk_assets.modelling.boosting import PARAMETERS, BoostedTrees
from creditrisk_assets.modelling.bundling import input_fields, write_bundle
from creditrisk_assets.modelling.decision_graph import Model, build_graphs
from creditrisk_assets.modelling.scorecard import Scorecard
from creditrisk_assets.portfolio.contract import Portfolio, Reason
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
from creditrisk_assets.scoring.compiled.kernel import Kernel
from tests.support.examples import FloatMatrix, plain_portfolio

GROUPS = 5
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
                [onnx.ValueInfoProto(name=output)],
                [numpy_helper.from_array(value, name) for name, value in constants.items()],
            ),
            opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)],
            ir_version=10,
        ).SerializeToString()
    )


def traced_graph(nodes: Sequence[onnx.NodeProto], output: str, **constants: NDArray[Any]) -> Graph:
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


@dataclass(frozen=True)
class Compiled:
    """A bundle, its kernel, and rows that it has not been fitted on."""

    bundle: Bundle
    kernel: Kernel
    rows: FloatMatrix


def five_groups() -> Portfolio:
    """Nine fields that are their own features: two protected ones, the others in five groups."""
    plain = plain_portfolio(9)
    reasons = tuple(
        Reason(f"R{group}", f"group {group}", tuple(plain.field_names[2 + group :: GROUPS]))
        for group in range(GROUPS)
    )
    return replace(plain, protected=("field_0", "field_1"), reasons=reasons)


def plain_rows(count: int, seed: int) -> FloatMatrix:
    """Rows of the plain portfolio: whole numbers, some of them missing."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 1_001, size=(count, 9)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.05] = np.nan
    return rows


def fitted(model: type[BoostedTrees] | type[Scorecard], portfolio: Portfolio) -> Model:
    """A model of plain rows whose risk grows with the fields and with a product of two."""
    rows = plain_rows(3_000, 1)
    known = np.nan_to_num(rows, nan=300.0) / 1_000
    chance = 0.6 * known.mean(axis=1) + 0.4 * known[:, 2] * known[:, 3]
    target = (np.random.default_rng(2).random(len(rows)) < chance).astype(np.int64)
    weight = np.ones(len(rows), dtype=np.int64)
    if model is Scorecard:
        return Scorecard.fit(portfolio, rows, target, weight, 1)
    parameters = PARAMETERS | {"max_iter": 30, "min_samples_leaf": 20}
    return BoostedTrees.fit(portfolio, rows, target, weight, 1, parameters)
