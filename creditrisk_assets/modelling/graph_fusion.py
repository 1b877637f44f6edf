"""Makes a traced graph cheaper: one node for the extreme of all columns of a matrix."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper, shape_inference

COLUMN_AXIS = 1
EXTREMES = {"Max": "ReduceMax", "Min": "ReduceMin"}


def fuse_extremes(model: ModelProto) -> ModelProto:
    """Replace `Max(Max(x[:, :1], x[:, 1:2]), …)` over all columns of `x`, and the same of `Min`, by
    one reduction.

    A formula writes the extreme column by column, as `xp.max` traces to branches for empty arrays
    and NaN. Values are the same if no column has NaN; of two zeros either sign may remain.

    Args:
        model: a graph with constants as nodes. A pattern that is not recognised stays as it is.
    """
    inferred = shape_inference.infer_shapes(model)
    widths = {
        value.name: value.type.tensor_type.shape.dim[COLUMN_AXIS].dim_value
        for value in (*inferred.graph.value_info, *inferred.graph.input)
        if len(value.type.tensor_type.shape.dim) == COLUMN_AXIS + 1
    }
    constants = {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    makers = {output: node for node in model.graph.node for output in node.output}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        matrix = None
        if node.op_type in EXTREMES:
            matrix = _matrix_of_all_columns(_leaves(node, makers), makers, constants, widths)
        nodes += [node] if matrix is None else _reduction(node, matrix)
    fused = ModelProto()
    fused.CopyFrom(model)
    del fused.graph.node[:]
    fused.graph.node.extend(_used(nodes, {output.name for output in model.graph.output}))
    return fused


def _leaves(node: NodeProto, makers: dict[str, NodeProto]) -> Iterable[str]:
    """The inputs of nested nodes of one kind."""
    for name in node.input:
        maker = makers.get(name)
        if maker is not None and maker.op_type == node.op_type:
            yield from _leaves(maker, makers)
        else:
            yield name


def _matrix_of_all_columns(
    names: Iterable[str],
    makers: dict[str, NodeProto],
    constants: dict[str, NDArray[np.int64]],
    widths: dict[str, int],
) -> str | None:
    """The matrix whose columns these values are, each once; None if there is no such matrix."""
    places: list[int] = []
    matrices = set()
    for name in names:
        maker = makers.get(name)
        if maker is None or maker.op_type != "Slice":
            return None
        matrix, *bounds = maker.input
        if not all(bound in constants for bound in bounds):
            return None
        start, *others = (constants[bound].tolist() for bound in bounds)
        if others != [[start[0] + 1], [COLUMN_AXIS], [1]]:
            return None
        places.append(start[0])
        matrices.add(matrix)
    if len(matrices) != 1:
        return None
    (matrix,) = matrices
    return matrix if sorted(places) == list(range(widths.get(matrix, 0))) else None


def _reduction(node: NodeProto, matrix: str) -> list[NodeProto]:
    (output,) = node.output
    axes = helper.make_node(
        "Constant", [], [f"{output}_axes"], value=numpy_helper.from_array(np.array([COLUMN_AXIS]))
    )
    inputs = [matrix, f"{output}_axes"]
    return [axes, helper.make_node(EXTREMES[node.op_type], inputs, [output], keepdims=1)]


def _used(nodes: list[NodeProto], outputs: set[str]) -> list[NodeProto]:
    """The nodes that an output needs, in their order."""
    needed, result = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            result.append(node)
    return result[::-1]
