"""Reads ONNX files, as far as the tracer needs them.

The API does without the package `onnx`, so this module describes the messages of the format to
protobuf by itself. Field numbers are those of `onnx.proto`, which never change.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

from creditrisk_assets.scoring.bundle import INTERCEPT, SLOPE
from creditrisk_assets.scoring.compiled.errors import UnknownOperationError

Array = NDArray[Any]

MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Model": {"graph": (7, "Graph")},
    "Graph": {
        "node": (1, "Node*"),
        "initializer": (5, "Tensor*"),
        "output": (12, "Value*"),
    },
    "Value": {"name": (1, "string")},
    "Node": {
        "input": (1, "string*"),
        "output": (2, "string*"),
        "op_type": (4, "string"),
        "attribute": (5, "Attribute*"),
    },
    "Attribute": {
        "name": (1, "string"),
        "f": (2, "float"),
        "i": (3, "int64"),
        "s": (4, "bytes"),
        "t": (5, "Tensor"),
        "floats": (7, "float*"),
        "ints": (8, "int64*"),
        "strings": (9, "bytes*"),
        "type": (20, "int32"),
    },
    "Tensor": {
        "dims": (1, "int64*"),
        "data_type": (2, "int32"),
        "float_data": (4, "float*"),
        "int32_data": (5, "int32*"),
        "int64_data": (7, "int64*"),
        "name": (8, "string"),
        "raw_data": (9, "bytes"),
        "double_data": (10, "double*"),
    },
}
"""Fields of each message: number and type; * marks a repeated field. Others are skipped."""

ATTRIBUTE_VALUES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}
"""Field with the value, by the attribute's type."""

TENSOR_TYPES: Mapping[int, tuple[str, str]] = {
    1: ("<f4", "float_data"),
    6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"),
    9: ("?", "int32_data"),
    11: ("<f8", "double_data"),
}
"""Type of the numbers, and the field that has them if `raw_data` is empty, by the data type."""


@dataclass(frozen=True)
class Node:
    """Operation of a graph. An attribute is a number, bytes, a list of these, or an array."""

    operation: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """Graph in the order of its evaluation.

    Attributes:
        constants: initializers, the calibration left out.
        calibration: slope and intercept.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    calibration: tuple[float, float]
    outputs: tuple[str, ...]


def read_graph(content: bytes) -> Graph:
    """Read a graph of a bundle.

    Raises:
        UnknownOperationError: if it has no calibration of its own, or a tensor or an attribute of
            an unknown type.
    """
    graph = _message_class("Model").FromString(content).graph
    tensors = {tensor.name: _array(tensor) for tensor in graph.initializer}
    if not {SLOPE, INTERCEPT} <= tensors.keys():
        raise UnknownOperationError(
            f"the graph's initializers are {sorted(tensors)}; valid: with {SLOPE} and {INTERCEPT}"
        )
    calibration = (float(tensors.pop(SLOPE)), float(tensors.pop(INTERCEPT)))
    return Graph(
        nodes=tuple(map(_node, graph.node)),
        constants=tensors,
        calibration=calibration,
        outputs=tuple(value.name for value in graph.output),
    )


def _node(message: Any) -> Node:
    return Node(
        operation=message.op_type,
        inputs=tuple(message.input),
        outputs=tuple(message.output),
        attributes={attribute.name: _attribute(attribute) for attribute in message.attribute},
    )


def _attribute(message: Any) -> Any:
    field = ATTRIBUTE_VALUES.get(message.type)
    if field is None:
        raise UnknownOperationError(
            f"attribute {message.name} has type {message.type}; valid: {sorted(ATTRIBUTE_VALUES)}"
        )
    if field == "t":
        return _array(message.t)
    value = getattr(message, field)
    return list(value) if field.endswith("s") and len(field) > 1 else value


def _array(message: Any) -> Array:
    if message.data_type not in TENSOR_TYPES:
        raise UnknownOperationError(
            f"tensor {message.name} has data type {message.data_type}; valid: "
            f"{sorted(TENSOR_TYPES)}"
        )
    kind, field = TENSOR_TYPES[message.data_type]
    values = (
        np.frombuffer(message.raw_data, dtype=kind)
        if message.raw_data
        else np.array(getattr(message, field), dtype=kind)
    )
    return values.reshape(tuple(message.dims))


@cache
def _message_class(name: str) -> Any:
    """Class of a message, in a pool of its own, so that the package `onnx` is not disturbed."""
    file = descriptor_pb2.FileDescriptorProto(name="graph.proto", package="creditrisk")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in MESSAGES.items():
        description = file.message_type.add(name=message)
        for field, (number, type_name) in fields.items():
            plain = type_name.removesuffix("*")
            entry = description.field.add(
                name=field,
                number=number,
                label=kinds.LABEL_REPEATED if type_name != plain else kinds.LABEL_OPTIONAL,
            )
            if plain in MESSAGES:
                entry.type = kinds.TYPE_MESSAGE
                entry.type_name = f".creditrisk.{plain}"
            else:
                entry.type = getattr(kinds, f"TYPE_{plain.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"creditrisk.{name}"))
