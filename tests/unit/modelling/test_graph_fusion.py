"""One node for the extreme of all columns: the same values, and nothing else is touched."""

from collections import Counter
from collections.abc import Callable
from functools import reduce
from typing import Any

import ndonnx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import ModelProto, checker

from creditrisk_assets.modelling.graph_fusion import fuse_extremes
from creditrisk_assets.scoring.bundle import open_session

WIDTH = 5
FINITE = st.floats(width=32, allow_nan=False)
MATRICES = arrays(np.float32, st.tuples(st.integers(0, 4), st.just(WIDTH)), elements=FINITE)


def traced(formula: Callable[[Any], Any]) -> ModelProto:
    raw = ndonnx.argument(shape=("N", WIDTH), dtype=ndonnx.float32)
    model: ModelProto = ndonnx.build({"raw": raw}, {"values": formula(raw)})
    return model


def columns(matrix: Any, places: Any = range(WIDTH)) -> list[Any]:
    return [matrix[:, place : place + 1] for place in places]


def both(raw: Any) -> Any:
    """The smallest of all columns, and the largest of absolute ones; one column is used again."""
    largest = reduce(ndonnx.maximum, columns(ndonnx.abs(raw)))
    return ndonnx.concat([reduce(ndonnx.minimum, columns(raw)), largest, raw[:, :1]], axis=1)


WHOLE = traced(both)
FUSED = fuse_extremes(WHOLE)
SESSIONS = [open_session(model.SerializeToString()) for model in (WHOLE, FUSED)]


def kinds(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_the_extremes_are_one_node_each_and_unused_slices_go() -> None:
    checker.check_model(FUSED)
    found = kinds(FUSED)
    assert (found["ReduceMax"], found["ReduceMin"], found["Max"], found["Min"]) == (1, 1, 0, 0)
    assert found["Slice"] == 1
    assert kinds(WHOLE)["Max"] == WIDTH - 1  # the graph that was given is as before


@given(MATRICES)
def test_the_values_are_the_same(rows: np.ndarray) -> None:
    before, after = (session.run(["values"], {"raw": rows})[0] for session in SESSIONS)
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    "formula",
    [
        lambda raw: reduce(ndonnx.maximum, columns(raw, range(WIDTH - 1))),
        lambda raw: reduce(ndonnx.maximum, columns(raw, [0, 0, 1, 2, 3])),
        lambda raw: reduce(
            ndonnx.maximum, [*columns(raw, range(WIDTH - 1)), ndonnx.abs(raw)[:, 4:5]]
        ),
        lambda raw: ndonnx.maximum(raw[:, :2], raw[:, 2:4]),
        lambda raw: ndonnx.maximum(raw, 0.0),
    ],
    ids=["some columns", "one twice", "two matrices", "wide slices", "a constant"],
)
def test_other_extremes_stay(formula: Callable[[Any], Any]) -> None:
    model = traced(formula)
    assert kinds(fuse_extremes(model))["Max"] == kinds(model)["Max"] > 0
