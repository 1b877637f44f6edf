"""Trees as scalar operations: each inner node is a comparison and a choice."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.scoring.compiled.errors import UnknownOperationError
from creditrisk_assets.scoring.compiled.graph_file import Node
from creditrisk_assets.scoring.compiled.program import Program


@dataclass(frozen=True)
class Leaf:
    """End of a branch; `value` is the number of its constant."""

    value: int


@dataclass(frozen=True)
class Split:
    """Inner node: a row goes left if its feature is at most the threshold (the number of a
    constant), or is missing and `comparison` sends missing values there.
    """

    feature: int
    threshold: int
    comparison: str
    left: "Split | Leaf"
    right: "Split | Leaf"


def sums_of_trees(program: Program, node: Node, features: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums over all trees, float32, in onnxruntime's order: tree by tree, the base value last.

    All rows of the matrix pass a tree before the next tree, so that what they share is close.

    Args:
        program: to be extended.
        node: a `TreeEnsembleRegressor` with one target.
        features: rows x features, numbers of operations.

    Returns:
        rows x 1, numbers of operations.

    Raises:
        UnknownOperationError: if the node does more than add up the leaves of such trees.
    """
    roots = _roots(program, node)
    base = program.constant(np.float32(node.attributes.get("base_values", [0.0])[0]))
    sums = [program.constant(np.float32(0.0))] * len(features)
    for root in roots:
        for place, row in enumerate(features.tolist()):
            sums[place] = program.apply("Add", sums[place], _value(program, root, row))
    return np.array([[program.apply("Add", total, base)] for total in sums])


def _value(program: Program, node: Split | Leaf, row: list[int]) -> int:
    """Value of the leaf that a row reaches."""
    if isinstance(node, Leaf):
        return node.value
    test = program.apply(node.comparison, row[node.feature], node.threshold)
    decided = program.value(test)
    if decided is not None:
        return _value(program, node.left if decided else node.right, row)
    return program.select(test, _value(program, node.left, row), _value(program, node.right, row))


def _roots(program: Program, node: Node) -> list[Split | Leaf]:
    """Trees in their order."""
    values: dict[str, Any] = dict(node.attributes)
    _require(values, node.operation)
    keys = list(zip(values["nodes_treeids"], values["nodes_nodeids"], strict=True))
    lines = {key: line for line, key in enumerate(keys)}
    leaves = list(zip(values["target_treeids"], values["target_nodeids"], strict=True))
    if len(set(leaves)) != len(leaves):
        raise UnknownOperationError(f"{node.operation} has a leaf of two values; valid: one each")
    weights = {
        key: program.constant(np.float32(weight))
        for key, weight in zip(leaves, values["target_weights"], strict=True)
    }
    missing_left = values.get("nodes_missing_value_tracks_true") or [0] * len(keys)

    def tree(key: tuple[int, int]) -> Split | Leaf:
        line = lines[key]
        if values["nodes_modes"][line] == b"LEAF":
            return Leaf(weights[key])
        return Split(
            feature=values["nodes_featureids"][line],
            threshold=program.constant(np.float32(values["nodes_values"][line])),
            comparison="AtMostOrMissing" if missing_left[line] else "AtMost",
            left=tree((key[0], values["nodes_truenodeids"][line])),
            right=tree((key[0], values["nodes_falsenodeids"][line])),
        )

    children = {
        (tree_id, child)
        for tree_id, mode, *pair in zip(
            values["nodes_treeids"],
            values["nodes_modes"],
            values["nodes_truenodeids"],
            values["nodes_falsenodeids"],
            strict=True,
        )
        if mode != b"LEAF"
        for child in pair
    }
    return [tree(key) for key in sorted(set(keys) - children)]


def _require(values: dict[str, Any], operation: str) -> None:
    """Check that the trees are added up, go left by <=, and give one number."""
    allowed: dict[str, tuple[Any, ...]] = {
        "aggregate_function": (b"SUM",),
        "post_transform": (b"NONE",),
        "n_targets": (1,),
    }
    for name, valid in allowed.items():
        if values.get(name, valid[0]) not in valid:
            raise UnknownOperationError(
                f"{operation}: {name} is {values[name]!r}; valid: {valid[0]!r}"
            )
    others = set(values["nodes_modes"]) - {b"LEAF", b"BRANCH_LEQ"}
    if others:
        raise UnknownOperationError(
            f"{operation}: nodes_modes has {sorted(others)}; valid: LEAF and BRANCH_LEQ"
        )
