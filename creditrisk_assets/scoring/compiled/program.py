"""Programs: scalar operations that compute the answers of one row.

Equal operations are one, and operations on constants are evaluated while the program is made. The
meaning of each operation is that of onnxruntime, to the bit.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from creditrisk_assets.scoring.compiled.errors import TooLargeError, UnknownOperationError

TYPES: Mapping[str, np.dtype[Any]] = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "i64": np.dtype(np.int64),
    "i8": np.dtype(np.int8),
    "i1": np.dtype(np.bool_),
}
"""Types of scalars by their name in vector code."""

TYPE_NAMES = {kind: name for name, kind in TYPES.items()}

COMPARISONS = ("Less", "AtMost", "AtMostOrMissing", "Equal", "Missing")
"""Operations that give a truth value: a < b; a <= b; a <= b or a or b is NaN; a = b; a is NaN."""

CASTS = frozenset(
    {
        ("float", "double"),
        ("double", "float"),
        ("i1", "float"),
        ("i1", "double"),
        ("i1", "i64"),
        ("i64", "float"),
        ("i64", "double"),
        ("i64", "i8"),
    }
)
"""Conversions with one meaning on all processors."""

MOST_OPERATIONS = 120_000
"""Limit of a program, some 15 s of compilation: 180 trees of 12 leaves have 16,000 with the reasons
of four groups, 109,000 with those of six.
"""

VALUE_FREE = ("input", "argument", "constant")
"""Operations that compute nothing."""


class Operation(NamedTuple):
    """Scalar operation.

    Attributes:
        name: `input` (a field of the row), `argument` (of the call), `constant`, or what it does.
        type: of its result, a key of `TYPES`.
        operands: numbers of the operations with its operands.
        place: of an input or argument.
        content: bytes of a constant, or of the table of a `Lookup`.
    """

    name: str
    type: str
    operands: tuple[int, ...] = ()
    place: int = 0
    content: bytes = b""


_FOLD: Mapping[str, Callable[..., Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "Neg": lambda a: -a,
    "Abs": abs,
    "Less": lambda a, b: a < b,
    "AtMost": lambda a, b: a <= b,
    "AtMostOrMissing": lambda a, b: not a > b,
    "Equal": lambda a, b: a == b,
    "Missing": lambda a: a != a,
    "And": lambda a, b: a and b,
    "Or": lambda a, b: a or b,
    "Not": lambda a: not a,
}


class Program:
    """Program in the making. Operations are known by their numbers; operands precede their users.

    Attributes:
        outputs: numbers of the results, by the name of the graph's output.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.outputs: dict[str, list[int]] = {}
        self._numbers: dict[Operation, int] = {}
        self._constants: dict[int, Any] = {}

    def input(self, field: int) -> int:
        """Field of the row, float32."""
        return self._add(Operation("input", "float", place=field))

    def argument(self, place: int) -> int:
        """Argument of the call, float64."""
        return self._add(Operation("argument", "double", place=place))

    def constant(self, value: np.generic) -> int:
        """Constant of a numpy type.

        Raises:
            UnknownOperationError: if the type is none of `TYPES`.
        """
        name = TYPE_NAMES.get(value.dtype)
        if name is None:
            raise UnknownOperationError(
                f"a constant has type {value.dtype}; valid: {', '.join(map(str, TYPE_NAMES))}"
            )
        number = self._add(Operation("constant", name, content=value.tobytes()))
        self._constants[number] = value
        return number

    def value(self, number: int) -> Any:
        """Value of a constant, a numpy scalar; None for other operations."""
        return self._constants.get(number)

    def type(self, number: int) -> str:
        return self.operations[number].type

    def apply(self, name: str, *operands: int) -> int:
        """Operation on operands of one type, by its name in `_FOLD`.

        Raises:
            UnknownOperationError: if the operands' types do not fit.
            TooLargeError: if the program gets too large.
        """
        known = self._constants
        kinds = {self.operations[operand].type for operand in operands}
        if len(kinds) != 1 or ("i1" in kinds) != (name in ("And", "Or", "Not")):
            raise UnknownOperationError(f"{name} of {' and '.join(sorted(kinds))} is unknown")
        (kind,) = kinds
        if kind == "i64" and name not in ("Add", "Sub", "Mul", "Less", "AtMost", "Equal"):
            raise UnknownOperationError(f"{name} of whole numbers is unknown")
        result = "i1" if name in COMPARISONS else kind
        if all(operand in known for operand in operands):
            with np.errstate(all="ignore"):
                value = _FOLD[name](*(known[operand] for operand in operands))
            return self.constant(TYPES[result].type(value))
        return self._add(Operation(name, result, operands))

    def select(self, condition: int, then: int, other: int) -> int:
        """One of two values of a type.

        Raises:
            UnknownOperationError: if their types differ.
        """
        if self.type(then) != self.type(other):
            raise UnknownOperationError(
                f"a choice between {self.type(then)} and {self.type(other)} is unknown"
            )
        decided = self.value(condition)
        if decided is not None:
            return then if decided else other
        if then == other:
            return then
        return self._add(Operation("Select", self.type(then), (condition, then, other)))

    def cast(self, operand: int, kind: str) -> int:
        """Value in another type.

        Raises:
            UnknownOperationError: if the conversion is none of `CASTS`.
        """
        current = self.type(operand)
        if current == kind:
            return operand
        if (current, kind) not in CASTS:
            raise UnknownOperationError(f"a cast from {current} to {kind} is unknown")
        value = self.value(operand)
        if value is not None:
            with np.errstate(all="ignore"):
                return self.constant(value.astype(TYPES[kind]))
        return self._add(Operation("Cast", kind, (operand,)))

    def power(self, base: int, exponent: int) -> int:
        """Power by the C library, float64; it is not evaluated here, for numpy has its own."""
        if {self.type(base), self.type(exponent)} != {"double"}:
            raise UnknownOperationError("a power of other numbers than float64 is unknown")
        return self._add(Operation("Pow", "double", (base, exponent)))

    def lookup(self, table: np.ndarray, index: int) -> int:
        """Entry of a table, n float64; the index is moved into 0..n - 1."""
        if table.dtype != np.float64 or table.ndim != 1 or self.type(index) != "i64":
            raise UnknownOperationError(
                f"a look-up in a {table.ndim}-dimensional table of {table.dtype} is unknown"
            )
        return self._add(Operation("Lookup", "double", (index,), content=table.tobytes()))

    def reachable(self) -> list[int]:
        """Operations that the outputs need, in order."""
        found: set[int] = set()
        waiting = [number for numbers in self.outputs.values() for number in numbers]
        while waiting:
            number = waiting.pop()
            if number not in found:
                found.add(number)
                waiting.extend(self.operations[number].operands)
        return sorted(found)

    def _add(self, operation: Operation) -> int:
        number = self._numbers.get(operation)
        if number is None:
            number = len(self.operations)
            if number == MOST_OPERATIONS:
                raise TooLargeError(f"the program has more than {MOST_OPERATIONS} operations")
            self.operations.append(operation)
            self._numbers[operation] = number
        return number
