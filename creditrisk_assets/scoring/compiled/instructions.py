"""Writes the operations of one step as LLVM's text, for a vector of rows or for one row.

Each operation is one instruction with IEEE rounding. No instruction has a flag that would allow
LLVM to reorder or to fuse: a product and a sum stay two roundings.
"""

from collections.abc import Callable, Mapping

import numpy as np

from creditrisk_assets.scoring.compiled.program import TYPES, Operation, Program
from creditrisk_assets.scoring.compiled.schedule import BY_ROW

LANES = 16
"""Rows in a vector: 16 float32 fill a register of AVX-512; for others LLVM splits them."""

LIBRARY = f"""\
declare double @pow(double, double)
declare i64 @llvm.umin.i64(i64, i64)
declare <{LANES} x float> @llvm.fabs.v{LANES}f32(<{LANES} x float>)
declare <{LANES} x double> @llvm.fabs.v{LANES}f64(<{LANES} x double>)
"""
"""Declarations of the functions that are called. `pow` is the C library's, as in onnxruntime."""

INSTRUCTIONS: Mapping[str, str] = {
    "Add": "fadd {type} {0}, {1}",
    "Sub": "fsub {type} {0}, {1}",
    "Mul": "fmul {type} {0}, {1}",
    "Div": "fdiv {type} {0}, {1}",
    "Neg": "fneg {type} {0}",
    "Abs": "call {type} @llvm.fabs.v{lanes}f{bits}({type} {0})",
    "Less": "fcmp olt {type} {0}, {1}",
    "AtMost": "fcmp ole {type} {0}, {1}",
    "AtMostOrMissing": "fcmp ule {type} {0}, {1}",
    "Equal": "fcmp oeq {type} {0}, {1}",
    "Missing": "fcmp uno {type} {0}, {0}",
    "And": "and {type} {0}, {1}",
    "Or": "or {type} {0}, {1}",
    "Not": "xor {type} {0}, splat (i1 true)",
    "Select": "select {truth} {0}, {type} {1}, {type} {2}",
    "Cast": "{cast} {type} {0} to {result}",
}

WHOLE_NUMBERS: Mapping[str, str] = {
    "Add": "add {type} {0}, {1}",
    "Sub": "sub {type} {0}, {1}",
    "Mul": "mul {type} {0}, {1}",
    "Less": "icmp slt {type} {0}, {1}",
    "AtMost": "icmp sle {type} {0}, {1}",
    "Equal": "icmp eq {type} {0}, {1}",
}
"""Instructions of whole numbers, where they differ."""

_CASTS: Mapping[tuple[str, str], str] = {
    ("float", "double"): "fpext",
    ("double", "float"): "fptrunc",
    ("i1", "float"): "uitofp",
    ("i1", "double"): "uitofp",
    ("i1", "i64"): "zext",
    ("i64", "float"): "sitofp",
    ("i64", "double"): "sitofp",
    ("i64", "i8"): "trunc",
}


def vector(kind: str) -> str:
    """Type of a vector of rows."""
    return f"<{LANES} x {kind}>"


def literal(kind: str, content: bytes) -> str:
    """Constant as LLVM reads it: floats as the bits of a float64."""
    number = np.frombuffer(content, dtype=TYPES[kind])[0]
    if kind in ("float", "double"):
        return f"0x{np.float64(number).view(np.uint64):016X}"
    return str(int(number))


def fixed_value(operation: Operation) -> str | None:
    """Text of a constant or an argument as a scalar; None for other operations."""
    if operation.name == "argument":
        return f"%a{operation.place}"
    if operation.name == "constant":
        return literal(operation.type, operation.content)
    return None


class StepText:
    """Text of the operations of one step.

    Values of other steps are loaded where they are first needed, those for other steps are stored
    where they are computed. `%base1`, `%base4` and `%base8` point to the vector in the buffer, for
    values of so many bytes; `%a0.all`, … are vectors of the arguments.

    Args:
        program: to be written.
        places: of the values that cross from one step to another.
        table: function from the content of a table to its name.
    """

    def __init__(
        self, program: Program, places: Mapping[int, int], table: Callable[[bytes], str]
    ) -> None:
        self._program = program
        self._places = places
        self._table = table
        self._by_row = False
        self._names: dict[int, str] = {}
        self._lines: list[str] = []

    def lines(self, numbers: tuple[int, ...]) -> list[str]:
        """Lines of a step's operations."""
        self._by_row = self._program.operations[numbers[0]].name == BY_ROW
        for number in numbers:
            self._compute(number)
            if number in self._places:
                kind, pointer = self._pointer(number)
                self._lines.append(f"store {kind} {self._names[number]}, {pointer}")
        return self._lines

    def _pointer(self, number: int) -> tuple[str, str]:
        """Type of a value, and its address with the alignment."""
        kind = self._program.type(number)
        size = TYPES[kind].itemsize
        self._lines.append(
            f"%p{number} = getelementptr i8, ptr %base{size}, i64 {self._places[number]}"
        )
        if self._by_row:
            return kind, f"ptr %p{number}, align {size}"
        return vector(kind), f"ptr %p{number}, align {size * LANES}"

    def _operand(self, number: int) -> str:
        """Name of a value, which is loaded or computed if it has none yet."""
        if number in self._names:
            return self._names[number]
        operation = self._program.operations[number]
        fixed = fixed_value(operation)
        if fixed is not None and self._by_row:
            self._names[number] = fixed
        elif fixed is not None and operation.name == "argument":
            self._names[number] = f"{fixed}.all"
        elif fixed is not None:
            self._names[number] = f"splat ({operation.type} {fixed})"
        elif operation.type == "i1":
            self._compute(number)
        else:
            kind, pointer = self._pointer(number)
            self._names[number] = f"%v{number}"
            self._lines.append(f"%v{number} = load {kind}, {pointer}")
        return self._names[number]

    def _compute(self, number: int) -> None:
        operation = self._program.operations[number]
        operands = [self._operand(operand) for operand in operation.operands]
        name = self._names[number] = f"%v{number}"
        if operation.name == "Lookup":
            self._look_up(name, operation, operands[0])
        elif operation.name == BY_ROW:
            self._lines.append(
                f"{name} = call double @pow(double {operands[0]}, double {operands[1]})"
            )
        else:
            kind = self._program.type(operation.operands[-1])
            others = WHOLE_NUMBERS if kind == "i64" else {}
            instruction = others.get(operation.name) or INSTRUCTIONS[operation.name]
            text = instruction.format(
                *operands,
                type=vector(kind),
                truth=vector("i1"),
                result=vector(operation.type),
                lanes=LANES,
                bits=8 * TYPES[kind].itemsize,
                cast=_CASTS.get((kind, operation.type)),
            )
            self._lines.append(f"{name} = {text}")

    def _look_up(self, name: str, operation: Operation, index: str) -> None:
        """Entries of a table, row by row; an index outside of it is moved inside."""
        last = len(operation.content) // TYPES[operation.type].itemsize - 1
        table, previous = self._table(operation.content), "poison"
        for lane in range(LANES):
            part = f"{name}.{lane}"
            result = name if lane == LANES - 1 else f"{part}.v"
            self._lines += [
                f"{part}.i = extractelement {vector('i64')} {index}, i64 {lane}",
                f"{part}.inside = call i64 @llvm.umin.i64(i64 {part}.i, i64 {last})",
                f"{part}.p = getelementptr double, ptr {table}, i64 {part}.inside",
                f"{part}.x = load double, ptr {part}.p",
                f"{result} = insertelement {vector('double')} {previous}, double {part}.x, "
                f"i64 {lane}",
            ]
            previous = result
