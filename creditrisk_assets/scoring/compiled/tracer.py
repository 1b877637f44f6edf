"""Turns a graph into a program: its nodes are evaluated once, on one row of symbols.

Moving values about (Slice, Gather, Concat, …) then costs nothing at all, and so does everything
that depends on constants alone. `TopK` becomes a sorting network. Rows are independent in the
graphs of a bundle; that they are is shown by the proof, as are the meanings written here.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.scoring.bundle import INTERCEPT, SLOPE
from creditrisk_assets.scoring.compiled.errors import UnknownOperationError
from creditrisk_assets.scoring.compiled.graph_file import TENSOR_TYPES, Graph, Node
from creditrisk_assets.scoring.compiled.program import TYPE_NAMES, TYPES, Program
from creditrisk_assets.scoring.compiled.trees import sums_of_trees

Symbols = NDArray[np.int64]
"""Array of numbers of operations, in the shape that the values have for one row."""

RAW, REFERENCE = "raw", "reference"

VECTOR_BYTES = 16
"""Bytes of the vectors in which onnxruntime adds."""


def trace(graph: Graph, fields: int, reference: Sequence[float | None] | None = None) -> Program:
    """Trace a graph of a bundle. Slope and intercept are the arguments 0 and 1 of the program.

    Args:
        graph: of the decision, or with reasons.
        fields: columns of `raw`.
        reference: value of each field, for a graph with reasons; it becomes part of the program.

    Returns:
        A program with the outputs of the graph; whole numbers are int8.

    Raises:
        UnknownOperationError: if an operation of the graph, or a use of it, is unknown.
        TooLargeError: if the program gets too large.
    """
    program = Program()
    symbols: dict[str, Symbols] = {
        RAW: np.array([[program.input(field) for field in range(fields)]]),
        SLOPE: np.array(program.argument(0)),
        INTERCEPT: np.array(program.argument(1)),
        **{name: _constants(program, values) for name, values in graph.constants.items()},
    }
    if reference is not None:
        symbols[REFERENCE] = _constants(program, np.array([reference], dtype=np.float32))
    for node in graph.nodes:
        operands = [symbols[name] for name in node.inputs if name]
        results = _evaluate(program, node, operands)
        symbols.update(zip(node.outputs, results, strict=True))
    for name in graph.outputs:
        numbers = symbols[name].reshape(-1).tolist()
        whole = program.type(numbers[0]) == "i64"
        program.outputs[name] = [
            program.cast(number, "i8") if whole else number for number in numbers
        ]
    return program


def _evaluate(program: Program, node: Node, operands: list[Symbols]) -> list[Symbols]:
    operation = _OPERATIONS.get(node.operation)
    if operation is None:
        raise UnknownOperationError(
            f"operation {node.operation} is unknown; valid: {', '.join(sorted(_OPERATIONS))}"
        )
    try:
        return operation(program, node, operands)
    except (UnknownOperationError, KeyError, IndexError, ValueError) as error:
        raise UnknownOperationError(f"operation {node.operation}: {error}") from error


def _constants(program: Program, values: NDArray[Any]) -> Symbols:
    return _each(program.constant, values)


def _each(function: Callable[..., int], *arrays: NDArray[Any]) -> Symbols:
    """Apply a function to the elements of arrays of one shape, or broadcast to it."""
    arrays = tuple(np.broadcast_arrays(*arrays))
    flat = [array.reshape(-1) for array in arrays]
    results = [function(*elements) for elements in zip(*flat, strict=True)]
    return np.array(results, dtype=np.int64).reshape(arrays[0].shape)


def _whole_numbers(program: Program, symbols: Symbols) -> list[int]:
    """Constant whole numbers: axes, places, shapes."""
    values = [program.value(number) for number in symbols.reshape(-1).tolist()]
    if any(value is None for value in values):
        raise UnknownOperationError("axes, places and shapes that depend on the row are unknown")
    return [int(value) for value in values]


def _element_wise(name: str) -> "_Evaluator":
    def evaluate(program: Program, _: Node, operands: list[Symbols]) -> list[Symbols]:
        return [_each(lambda *numbers: program.apply(name, *numbers), *operands)]

    return evaluate


def _exchanged(name: str) -> "_Evaluator":
    """Comparison with its two operands exchanged."""

    def evaluate(program: Program, _: Node, operands: list[Symbols]) -> list[Symbols]:
        return [_each(lambda a, b: program.apply(name, b, a), *operands)]

    return evaluate


def _extreme(*, largest: bool) -> "_Evaluator":
    """Larger or smaller one; NaN if any is. Of +0.0 and -0.0 the second, but a constant yields."""

    def evaluate(program: Program, _: Node, operands: list[Symbols]) -> list[Symbols]:
        def better(a: int, b: int) -> int:
            if program.value(a) is not None and program.value(b) is None:
                a, b = b, a  # onnxruntime puts the single value last
            first = program.apply("Less", *((b, a) if largest else (a, b)))
            if program.type(a) in ("float", "double"):
                first = program.apply("Or", first, program.apply("Missing", a))
            return program.select(first, a, b)

        return [reduce(lambda a, b: _each(better, a, b), operands)]

    return evaluate


def _where(program: Program, _: Node, operands: list[Symbols]) -> list[Symbols]:
    """Choice. onnxruntime's gives +0.0 for a first value of -0.0, as adding +0.0 does."""

    def choose(condition: int, then: int, other: int) -> int:
        if program.type(then) in ("float", "double") and program.value(condition) is not False:
            zero = program.constant(TYPES[program.type(then)].type(0.0))
            then = program.apply("Add", then, zero)
        return program.select(condition, then, other)

    return [_each(choose, *operands)]


def _cast(program: Program, node: Node, operands: list[Symbols]) -> list[Symbols]:
    target = TENSOR_TYPES.get(node.attributes["to"])
    kind = TYPE_NAMES.get(np.dtype(target[0])) if target else None
    if kind is None:
        raise UnknownOperationError(f"to is {node.attributes['to']}; valid: {sorted(TENSOR_TYPES)}")
    return [_each(lambda number: program.cast(number, kind), operands[0])]


def _constant(program: Program, node: Node, _: list[Symbols]) -> list[Symbols]:
    if "value" not in node.attributes:
        raise UnknownOperationError(f"attributes are {sorted(node.attributes)}; valid: value")
    return [_constants(program, node.attributes["value"])]


def _identity(_: Program, __: Node, operands: list[Symbols]) -> list[Symbols]:
    return operands


def _reshape(program: Program, node: Node, operands: list[Symbols]) -> list[Symbols]:
    shape = _whole_numbers(program, operands[1])
    if not node.attributes.get("allowzero"):
        shape = [size or operands[0].shape[axis] for axis, size in enumerate(shape)]
    return [operands[0].reshape(shape)]


def _transpose(_: Program, node: Node, operands: list[Symbols]) -> list[Symbols]:
    return [operands[0].transpose(node.attributes.get("perm"))]


def _concat(_: Program, node: Node, operands: list[Symbols]) -> list[Symbols]:
    return [np.concatenate(operands, axis=node.attributes["axis"])]


def _unsqueeze(program: Program, _: Node, operands: list[Symbols]) -> list[Symbols]:
    return [np.expand_dims(operands[0], tuple(_whole_numbers(program, operands[1])))]


def _squeeze(program: Program, _: Node, operands: list[Symbols]) -> list[Symbols]:
    axes = tuple(_whole_numbers(program, operands[1])) if len(operands) > 1 else None
    return [np.squeeze(operands[0], axes)]


def _slice(program: Program, _: Node, operands: list[Symbols]) -> list[Symbols]:
    starts, ends, *rest = (_whole_numbers(program, operand) for operand in operands[1:])
    axes = rest[0] if rest else range(len(starts))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    parts = [slice(None)] * operands[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        parts[axis] = slice(start, end, step)
    return [operands[0][tuple(parts)]]


def _gather(program: Program, node: Node, operands: list[Symbols]) -> list[Symbols]:
    values, places = operands
    axis = node.attributes.get("axis", 0)
    if all(program.value(number) is not None for number in places.reshape(-1).tolist()):
        return [values.take(np.reshape(_whole_numbers(program, places), places.shape), axis=axis)]
    entries = [program.value(number) for number in values.reshape(-1).tolist()]
    if axis or any(entry is None for entry in entries):
        raise UnknownOperationError("places that depend on the row, in no table, are unknown")
    table = np.array(entries).reshape(values.shape)
    return [_each(lambda number: program.lookup(table, number), places)]


def _reduce_sum(program: Program, node: Node, operands: list[Symbols]) -> list[Symbols]:
    """Sum over axes. Along the last one onnxruntime adds in the order of its vectors."""
    keep = bool(node.attributes.get("keepdims", 1))
    values = operands[0]
    if len(operands) < 2:
        raise UnknownOperationError("a sum over all axes would be one over all rows")

    def add(left: Symbols, right: Symbols) -> Symbols:
        return _each(lambda a, b: program.apply("Add", a, b), left, right)

    axes = tuple(_whole_numbers(program, operands[1]))
    for axis in axes:
        terms = list(np.moveaxis(values, axis, 0))
        if axis in (-1, values.ndim - 1):
            lanes = VECTOR_BYTES // TYPES[program.type(int(values.flat[0]))].itemsize
            total = _sum_by_lanes(terms, lanes, add)
        else:
            total = reduce(add, terms)
        values = np.expand_dims(total, axis)
    return [values if keep else np.squeeze(values, axes)]


def _sum_by_lanes(
    terms: list[Symbols], lanes: int, add: Callable[[Symbols, Symbols], Symbols]
) -> Symbols:
    """Sum as onnxruntime's library Eigen adds numbers that start at an aligned address: pairs of
    vectors, the vectors to one, its halves, then the rest in order.

    At another address it starts with another number: the order matters to fractions, and makes them
    unfit for such sums (decision 0001).
    """
    vectors = [terms[start : start + lanes] for start in range(0, len(terms) - lanes + 1, lanes)]
    if not vectors:
        return reduce(add, terms)

    def add_vectors(left: list[Symbols], right: list[Symbols]) -> list[Symbols]:
        return [add(*pair) for pair in zip(left, right, strict=True)]

    pairs = 2 * (len(vectors) // 2)
    total = reduce(add_vectors, vectors[0:pairs:2] or vectors)
    if pairs:
        total = add_vectors(total, reduce(add_vectors, vectors[1:pairs:2]))
        total = reduce(add_vectors, vectors[pairs:], total)
    while len(total) > 1:
        half = len(total) // 2
        total = add_vectors(total[:half], total[half:])
    return reduce(add, terms[lanes * len(vectors) :], total[0])


def _power(program: Program, _: Node, operands: list[Symbols]) -> list[Symbols]:
    return [_each(program.power, *operands)]


def _top_k(program: Program, node: Node, operands: list[Symbols]) -> list[Symbols]:
    """Largest values of each line and their places, by a sorting network of neighbours: a value
    passes the one before it only if it is larger, so that of equals the first comes first.
    """
    axis = node.attributes.get("axis", -1)
    if not node.attributes.get("largest", 1) or axis not in (-1, operands[0].ndim - 1):
        raise UnknownOperationError("only the largest values of the last axis are known")
    (count,) = _whole_numbers(program, operands[1])
    lines = operands[0].reshape(-1, operands[0].shape[-1])
    found = [_largest(program, line, count) for line in lines.tolist()]
    shape = (*operands[0].shape[:-1], count)
    return [np.array([pair[part] for pair in found]).reshape(shape) for part in range(2)]


def _largest(program: Program, values: list[int], count: int) -> tuple[list[int], list[int]]:
    places = [program.constant(np.int64(place)) for place in range(len(values))]
    for front in range(count):
        for place in range(len(values) - 1, front, -1):
            above = program.apply("Less", values[place - 1], values[place])
            for line in (values, places):
                upper, lower = line[place - 1], line[place]
                line[place - 1] = program.select(above, lower, upper)
                line[place] = program.select(above, upper, lower)
    return values[:count], places[:count]


def _trees(program: Program, node: Node, operands: list[Symbols]) -> list[Symbols]:
    return [sums_of_trees(program, node, operands[0])]


_Evaluator = Callable[[Program, Node, list[Symbols]], list[Symbols]]

_OPERATIONS: Mapping[str, _Evaluator] = {
    **{name: _element_wise(name) for name in ("Add", "Sub", "Mul", "Div", "Neg", "Abs")},
    **{name: _element_wise(name) for name in ("And", "Or", "Not", "Equal", "Less")},
    "LessOrEqual": _element_wise("AtMost"),
    "Greater": _exchanged("Less"),
    "GreaterOrEqual": _exchanged("AtMost"),
    "IsNaN": _element_wise("Missing"),
    "Max": _extreme(largest=True),
    "Min": _extreme(largest=False),
    "Where": _where,
    "Cast": _cast,
    "Constant": _constant,
    "Identity": _identity,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Slice": _slice,
    "Gather": _gather,
    "ReduceSum": _reduce_sum,
    "Pow": _power,
    "TopK": _top_k,
    "TreeEnsembleRegressor": _trees,
}
