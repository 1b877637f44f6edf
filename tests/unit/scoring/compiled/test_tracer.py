"""The tracer: each operation has the bits of onnxruntime, and an unknown one is named."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.helper import make_node

from creditrisk_assets.scoring.bundle import open_session
from creditrisk_assets.scoring.compiled import program as program_module
from creditrisk_assets.scoring.compiled.errors import TooLargeError, UnknownOperationError
from creditrisk_assets.scoring.compiled.graph_file import read_graph
from creditrisk_assets.scoring.compiled.kernel import CompiledGraph
from creditrisk_assets.scoring.compiled.program import Program
from creditrisk_assets.scoring.compiled.proof import ODD_VALUES
from creditrisk_assets.scoring.compiled.tracer import trace
from tests.support.compiled import assert_equal_bits, graph_bytes, traced_graph

Nodes = Sequence[onnx.NodeProto]

FIELDS = 4


def compiled_answers(nodes: Nodes, rows: NDArray[np.float32], **constants: Any) -> NDArray[Any]:
    program = trace(traced_graph(nodes, "y", **constants), rows.shape[1])
    (answers,) = CompiledGraph(program, rows.shape[1], (1.0, 0.0), None)(rows)
    return answers


def assert_like_onnxruntime(
    nodes: Nodes, rows: NDArray[np.float32], **constants: NDArray[Any]
) -> None:
    """The graph's answers, in one batch and row by row, are the compiled ones."""
    session = open_session(graph_bytes(nodes, "y", **constants))
    (expected,) = session.run(["y"], {"raw": rows})
    expected = expected.astype(np.int8) if expected.dtype == np.int64 else expected
    answers = compiled_answers(nodes, rows, **constants)
    assert_equal_bits(answers.reshape(expected.shape), expected)


def odd_rows(count: int = 2_000, fields: int = FIELDS, seed: int = 1) -> NDArray[np.float32]:
    """Odd values in all combinations, numbers of any size, and small whole numbers."""
    rng = np.random.default_rng(seed)
    shape = (count, fields)
    sized = (rng.standard_normal(shape) * np.exp(rng.normal(0, 8, shape))).astype(np.float32)
    small = rng.integers(-3, 4, shape).astype(np.float32)
    choice = rng.integers(0, 3, shape)
    return np.asarray(np.choose(choice, [rng.choice(ODD_VALUES, shape), sized, small]))


HALVES = (
    make_node("Slice", ["raw", "zero", "two", "one"], ["a"]),
    make_node("Slice", ["raw", "two", "four", "one"], ["b"]),
)
"""The first two fields and the last two."""

PLACES = {
    name: np.array([value]) for name, value in {"zero": 0, "one": 1, "two": 2, "four": 4}.items()
}


def double(*names: str) -> list[onnx.NodeProto]:
    """The same names with _d in float64."""
    return [make_node("Cast", [name], [f"{name}_d"], to=TensorProto.DOUBLE) for name in names]


@pytest.mark.parametrize("operation", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
@pytest.mark.parametrize("suffix", ["", "_d"])
def test_an_operation_on_two_numbers_has_the_bits_of_onnxruntime(
    operation: str, suffix: str
) -> None:
    nodes = [
        *HALVES,
        *(double("a", "b") if suffix else ()),
        make_node(operation, [f"a{suffix}", f"b{suffix}"], ["y"]),
    ]
    assert_like_onnxruntime(nodes, odd_rows(), **PLACES)


@pytest.mark.parametrize("operation", ["Max", "Min"])
@pytest.mark.parametrize("names", [["raw", "c"], ["c", "raw"], ["raw", "c", "d"]])
@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, np.nan])
def test_an_extreme_with_constants_has_the_bits_of_onnxruntime(
    operation: str, names: list[str], value: float
) -> None:
    constants = {"c": np.float32(value), "d": np.float32(2)}
    nodes = [make_node(operation, names, ["y"])]
    assert_like_onnxruntime(
        nodes, odd_rows(), **{name: np.array(constants[name]) for name in {*names} - {"raw"}}
    )


@pytest.mark.parametrize("operation", ["Neg", "Abs"])
@pytest.mark.parametrize("name", ["raw", "raw_d"])
def test_an_operation_on_one_number_has_the_bits_of_onnxruntime(operation: str, name: str) -> None:
    nodes = [*double("raw"), make_node(operation, [name], ["y"])]
    assert_like_onnxruntime(nodes, odd_rows())


@pytest.mark.parametrize("operation", ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
@pytest.mark.parametrize("target", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64])
def test_a_comparison_has_the_answer_of_onnxruntime(operation: str, target: int) -> None:
    nodes = [
        *HALVES,
        make_node(operation, ["a", "b"], ["t"]),
        make_node("Cast", ["t"], ["y"], to=target),
    ]
    assert_like_onnxruntime(nodes, odd_rows(), **PLACES)


@pytest.mark.parametrize("operation", ["And", "Or"])
def test_truth_values_are_joined_as_by_onnxruntime(operation: str) -> None:
    nodes = [
        *HALVES,
        make_node("IsNaN", ["a"], ["m"]),
        make_node("Less", ["a", "b"], ["l"]),
        make_node("Not", ["l"], ["n"]),
        make_node(operation, ["m", "n"], ["t"]),
        make_node("Cast", ["t"], ["y"], to=TensorProto.FLOAT),
    ]
    assert_like_onnxruntime(nodes, odd_rows(), **PLACES)


def test_a_choice_has_the_bits_of_onnxruntime() -> None:
    """Onnxruntime's choice turns a first value of -0.0 into +0.0, and leaves a second one."""
    rows = odd_rows()
    rows[:8] = [[-0.0, -0.0, -0.0, -0.0], [0.0, -0.0, 1.0, -0.0]] * 4
    nodes = [
        *HALVES,
        make_node("Less", ["a", "b"], ["t"]),
        make_node("Where", ["t", "a", "b"], ["y"]),
    ]
    assert_like_onnxruntime(nodes, rows, **PLACES)
    nodes[-1] = make_node("Where", ["fixed", "a", "b"], ["y"])
    assert_like_onnxruntime(nodes, rows, **PLACES, fixed=np.array([[True, False]]))


@settings(max_examples=10)
@given(width=st.integers(2, 19), exact=st.booleans())
def test_a_sum_over_fields_has_the_bits_of_onnxruntime(width: int, exact: bool) -> None:
    """In float64 a row alone starts at an aligned address; in float32 whole numbers have one sum."""
    rows = odd_rows(200, width, seed=width)
    rows = np.where(np.isfinite(rows), rows, np.float32(1))
    if exact:
        rows = np.round(np.clip(rows, -1_000, 1_000)).astype(np.float32)
    kind = TensorProto.FLOAT if exact else TensorProto.DOUBLE
    nodes = [
        make_node("Cast", ["raw"], ["c"], to=kind),
        make_node("ReduceSum", ["c", "axis"], ["y"], keepdims=0),
    ]
    axis = np.array([1])
    session = open_session(graph_bytes(nodes, "y", axis=axis))
    alone = [session.run(["y"], {"raw": rows[place : place + 1]})[0] for place in range(len(rows))]
    assert_equal_bits(compiled_answers(nodes, rows, axis=axis)[:, 0], np.concatenate(alone))


def test_a_power_has_the_bits_of_onnxruntime() -> None:
    nodes = [*double("raw"), make_node("Pow", ["e", "raw_d"], ["y"])]
    rows = odd_rows()
    rows[:1_000] = np.random.default_rng(3).normal(0, 20, (1_000, FIELDS))
    assert_like_onnxruntime(nodes, rows, e=np.array(np.e))


@given(data=st.data())
@settings(max_examples=10)
def test_the_largest_come_in_order_and_of_equals_the_first_comes_first(
    data: st.DataObject,
) -> None:
    width = data.draw(st.integers(1, 7))
    count = data.draw(st.integers(1, width))
    rows = np.random.default_rng(width).integers(0, 4, (300, width)).astype(np.float32)
    for outputs in (["y", "places"], ["values", "y"]):
        nodes = [make_node("TopK", ["raw", "count"], outputs, axis=1)]
        assert_like_onnxruntime(nodes, rows, count=np.array([count]))


def test_values_are_moved_as_by_onnxruntime() -> None:
    nodes = [
        make_node("Reshape", ["raw", "square"], ["r"]),
        make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        make_node("Unsqueeze", ["t", "one"], ["u"]),
        make_node("Squeeze", ["u", "one"], ["s"]),
        make_node("Gather", ["s", "order"], ["g"], axis=2),
        make_node("Concat", ["g", "r"], ["c"], axis=1),
        make_node("Slice", ["c", "last", "far", "one", "back"], ["b"]),
        make_node("Reshape", ["b", "flat"], ["f"]),
        make_node("Identity", ["f"], ["y"]),
    ]
    assert_like_onnxruntime(
        nodes,
        odd_rows(50),
        square=np.array([-1, 2, 2]),
        one=np.array([1]),
        order=np.array([1, 0]),
        last=np.array([-1]),
        far=np.array([-9]),
        back=np.array([-1]),
        flat=np.array([0, -1]),
    )


def test_a_table_is_read_as_by_onnxruntime() -> None:
    table = np.random.default_rng(1).standard_normal(5)
    nodes = [
        make_node("Greater", ["raw", "zero"], ["t"]),
        make_node("Cast", ["t"], ["n"], to=TensorProto.INT64),
        make_node("ReduceSum", ["n", "axis"], ["s"], keepdims=0),
        make_node("Gather", ["table", "s"], ["y"]),
    ]
    assert_like_onnxruntime(
        nodes, odd_rows(), zero=np.float32(0).reshape(1), axis=np.array([1]), table=table
    )


def test_a_place_outside_of_a_table_reads_no_memory_outside_of_it() -> None:
    nodes = [
        make_node("Less", ["raw", "zero"], ["t"]),
        make_node("Cast", ["t"], ["n"], to=TensorProto.INT64),
        make_node("Mul", ["n", "far"], ["p"]),
        make_node("Gather", ["table", "p"], ["y"]),
    ]
    constants = {"zero": np.zeros(1, np.float32), "table": np.array([1.0, 2.0, 3.0])}
    rows = np.array([[1, -1, 1, -1]], dtype=np.float32)
    for far in (10**12, -(10**12)):
        answers = compiled_answers(nodes, rows, far=np.array([far]), **constants)
        assert answers.tolist() == [[1.0, 3.0, 1.0, 3.0]]


TREE: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0],
    "nodes_nodeids": [0, 1, 2],
    "nodes_featureids": [0, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_values": [1.0, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
    "target_treeids": [0, 0],
    "target_nodeids": [1, 2],
    "target_ids": [0, 0],
    "target_weights": [1.0, 2.0],
    "n_targets": 1,
}


def tree(**changes: Any) -> onnx.NodeProto:
    return make_node(
        "TreeEnsembleRegressor", ["raw"], ["y"], domain="ai.onnx.ml", **(TREE | changes)
    )


@pytest.mark.parametrize(
    "changes", [{}, {"nodes_missing_value_tracks_true": [1, 0, 0]}, {"base_values": [0.25]}]
)
def test_a_tree_has_the_bits_of_onnxruntime(changes: dict[str, Any]) -> None:
    assert_like_onnxruntime([tree(**changes)], odd_rows())


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([make_node("Exp", ["raw"], ["y"])], "operation Exp is unknown; valid: Abs, Add"),
        ([make_node("Pow", ["raw", "raw"], ["y"])], "Pow: a power of other numbers than float64"),
        (
            [make_node("Cast", ["raw"], ["y"], to=TensorProto.INT64)],
            "Cast: a cast from float to i64 is unknown",
        ),
        (
            [make_node("Cast", ["raw"], ["y"], to=TensorProto.FLOAT16)],
            "Cast: to is 10; valid",
        ),
        ([make_node("Add", ["raw", "flags"], ["y"])], "Add: Add of float and i1 is unknown"),
        ([make_node("Div", ["wholes", "wholes"], ["y"])], "Div of whole numbers is unknown"),
        (
            [make_node("Where", ["flags", "raw", "wholes"], ["y"])],
            "Where: a choice between float and i64",
        ),
        ([make_node("ReduceSum", ["raw"], ["y"])], "ReduceSum: a sum over all axes"),
        ([make_node("Reshape", ["raw", "wholes"], ["y"])], "Reshape: cannot reshape"),
        ([make_node("TopK", ["raw", "wholes"], ["y", "p"], largest=0)], "only the largest values"),
        ([make_node("Constant", [], ["y"], value_float=1.0)], "Constant: attributes are"),
        ([tree(nodes_modes=["BRANCH_LT", "LEAF", "LEAF"])], "nodes_modes has .*BRANCH_LT"),
        ([tree(post_transform="LOGISTIC")], "post_transform is b'LOGISTIC'; valid: b'NONE'"),
        ([tree(aggregate_function="MAX")], "aggregate_function is b'MAX'"),
        ([tree(target_nodeids=[1, 1])], "a leaf of two values"),
    ],
)
def test_an_unknown_operation_is_named(nodes: Nodes, message: str) -> None:
    graph = traced_graph(nodes, "y", flags=np.array([True]), wholes=np.array([1]))
    with pytest.raises(UnknownOperationError, match=message):
        trace(graph, FIELDS)


def test_a_place_that_depends_on_the_row_is_refused_outside_of_tables() -> None:
    nodes = [
        make_node("Less", ["raw", "zero"], ["t"]),
        make_node("Cast", ["t"], ["n"], to=TensorProto.INT64),
        make_node("Gather", ["raw", "n"], ["y"], axis=1),
    ]
    with pytest.raises(UnknownOperationError, match="Gather: places that depend on the row"):
        trace(traced_graph(nodes, "y", zero=np.zeros(1, np.float32)), FIELDS)


def test_a_graph_without_a_calibration_of_its_own_is_refused() -> None:
    with pytest.raises(UnknownOperationError, match="valid: with calibration_slope"):
        read_graph(graph_bytes([make_node("Neg", ["raw"], ["y"])], "y"))


def test_equal_operations_are_one_and_constants_are_evaluated() -> None:
    program = Program()
    field, one, two = program.input(0), *(program.constant(np.float32(k)) for k in (1, 2))
    total = program.apply("Add", field, one)
    assert program.apply("Add", field, one) == total
    assert program.value(program.apply("Add", one, two)) == np.float32(3)
    assert program.value(program.apply("Div", one, program.constant(np.float32(0)))) == np.inf
    test = program.apply("Less", one, two)
    assert program.select(test, total, field) == total
    assert program.select(program.apply("Less", field, two), total, total) == total
    assert program.constant(np.float32(0.0)) != program.constant(np.float32(-0.0))
    assert program.constant(np.float32(np.nan)) == program.constant(np.float32(np.nan))


def test_a_program_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_module, "MOST_OPERATIONS", 3)
    program = Program()
    for field in range(3):
        program.input(field)
    with pytest.raises(TooLargeError, match="more than 3 operations"):
        program.input(3)
