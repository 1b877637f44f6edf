"""Writes a program as LLVM's text: vector code for blocks of rows.

A block is up to 64 rows, in vectors of 16; of a request with one row only the first vector is
computed. Each operation is one instruction with IEEE rounding: no instruction has a flag that would
allow LLVM to reorder or to fuse (a product and a sum stay two roundings).

Two functions are exported:
    from_matrix(address, bytes from row to row, bytes from column to column, rows, arguments,
        addresses of the outputs)
    from_columns(address of the columns' addresses, address of their types, rows, arguments,
        addresses of the outputs)
"""

from collections.abc import Iterator, Mapping

import numpy as np

from creditrisk_assets.scoring.compiled.program import TYPES, Operation, Program
from creditrisk_assets.scoring.compiled.schedule import BLOCK_ROWS, BY_ROW, Schedule, schedule

LANES = 16
"""Rows in a vector: 16 float32 fill a register of AVX-512; LLVM splits them for other processors."""

COLUMN_TYPES: Mapping[str, tuple[int, str]] = {
    "float": (0, "{to} = fadd {float} {value}, {zero}"),
    "double": (1, "{to} = fptrunc {double} {value} to {float}"),
    "i64": (2, "{to} = sitofp {i64} {value} to {float}"),
}
"""Types of columns: number, and conversion to float32."""

_INSTRUCTIONS: Mapping[str, str] = {
    "Add": "fadd {type} {0}, {1}",
    "Sub": "fsub {type} {0}, {1}",
    "Mul": "fmul {type} {0}, {1}",
    "Div": "fdiv {type} {0}, {1}",
    "Neg": "fneg {type} {0}",
    "Abs": "call {type} @llvm.fabs.{suffix}({type} {0})",
    "Less": "fcmp olt {type} {0}, {1}",
    "AtMost": "fcmp ole {type} {0}, {1}",
    "AtMostOrMissing": "fcmp ule {type} {0}, {1}",
    "Equal": "fcmp oeq {type} {0}, {1}",
    "Missing": "fcmp uno {type} {0}, {0}",
    "And": "and {type} {0}, {1}",
    "Or": "or {type} {0}, {1}",
    "Not": "xor {type} {0}, splat (i1 true)",
    "Select": "select {truth} {0}, {result} {1}, {result} {2}",
    "Cast": "{cast} {type} {0} to {result}",
}
_WHOLE_NUMBERS: Mapping[str, str] = {
    "Add": "add {type} {0}, {1}",
    "Sub": "sub {type} {0}, {1}",
    "Mul": "mul {type} {0}, {1}",
    "Less": "icmp slt {type} {0}, {1}",
    "AtMost": "icmp sle {type} {0}, {1}",
    "Equal": "icmp eq {type} {0}, {1}",
}
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


def emit(program: Program, arguments: int) -> str:
    """Write a program.

    Args:
        program: with the outputs of a graph.
        arguments: number of its float64 arguments.

    Returns:
        LLVM's text, the same for equal programs.
    """
    plan = schedule(program)
    module = _Module(program, plan, arguments)
    return "\n".join(module.lines()) + "\n"


def vector(kind: str) -> str:
    """Type of a vector of rows."""
    return f"<{LANES} x {kind}>"


def literal(kind: str, value: bytes) -> str:
    """Constant as LLVM reads it: floats as the bits of a float64."""
    number = np.frombuffer(value, dtype=TYPES[kind])[0]
    if kind in ("float", "double"):
        return f"0x{np.float64(number).view(np.uint64):016X}"
    return str(int(number))


class _Module:
    """Text of a program's module."""

    def __init__(self, program: Program, plan: Schedule, arguments: int) -> None:
        self._program = program
        self._plan = plan
        self._parameters = "".join(f", double %a{place}" for place in range(arguments))
        self._outputs = list(program.outputs.items())
        self._addresses = "".join(f", ptr %o{place}" for place in range(len(self._outputs)))
        self._tables: dict[bytes, str] = {}

    def lines(self) -> Iterator[str]:
        steps = [
            line for place, step in enumerate(self._plan.steps) for line in self._step(place, step)
        ]
        yield "declare double @pow(double, double)"
        yield from (
            f"declare {vector(kind)} @llvm.fabs.v{LANES}{suffix}({vector(kind)})"
            for kind, suffix in (("float", "f32"), ("double", "f64"))
        )
        for table, name in self._tables.items():
            entries = np.frombuffer(table, dtype=np.float64)
            values = ", ".join(f"double {literal('double', entry.tobytes())}" for entry in entries)
            yield f"{name} = internal constant [{len(entries)} x double] [{values}]"
        yield from steps
        yield from self._block()
        yield from self._store()
        yield from self._load_matrix()
        yield from self._load_columns()
        yield from self._entry("matrix", "ptr %x, i64 %row_bytes, i64 %column_bytes")
        yield from self._entry("columns", "ptr %x, ptr %kinds")

    def _step(self, place: int, numbers: tuple[int, ...]) -> Iterator[str]:
        """Function of a step: a loop over the vectors of a block, or over its rows."""
        by_row = self._program.operations[numbers[0]].name == BY_ROW
        count, lanes = ("%rows", 1) if by_row else ("%vectors", LANES)
        yield (
            f"define internal void @step_{place}"
            f"(ptr noalias %buffer, i64 %rows, i64 %vectors{self._parameters}) noinline {{"
        )
        yield "entry:"
        for name in self._parameters.split(", double ")[1:] if not by_row else ():
            yield f"{name}.one = insertelement {vector('double')} poison, double {name}, i64 0"
            yield (
                f"{name}.all = shufflevector {vector('double')} {name}.one, {vector('double')} "
                f"poison, {vector('i32')} zeroinitializer"
            )
        yield "br label %loop"
        yield "loop:"
        yield "%i = phi i64 [0, %entry], [%next, %loop]"
        for size in (4, 8, 1):
            yield f"%offset{size} = mul i64 %i, {size * lanes}"
            yield f"%base{size} = getelementptr i8, ptr %buffer, i64 %offset{size}"
        yield from _Step(self._program, self._plan, self._table, by_row).lines(numbers)
        yield "%next = add i64 %i, 1"
        yield f"%more = icmp ult i64 %next, {count}"
        yield "br i1 %more, label %loop, label %done"
        yield "done:"
        yield "ret void"
        yield "}"

    def _table(self, content: bytes) -> str:
        return self._tables.setdefault(content, f"@table_{len(self._tables)}")

    def _block(self) -> Iterator[str]:
        """Function of all steps."""
        signature = f"ptr %buffer, i64 %rows, i64 %vectors{self._parameters}"
        yield f"define internal void @block({signature}) noinline {{"
        yield from (f"call void @step_{place}({signature})" for place in range(len(self._plan.steps)))
        yield "ret void"
        yield "}"

    def _store(self) -> Iterator[str]:
        """Function that stores a block's results, row by row."""
        yield f"define internal void @store(ptr %buffer, i64 %first, i64 %rows{self._parameters}"
        yield f"{self._addresses}) noinline {{"
        yield "entry:"
        yield "br label %loop"
        yield "loop:"
        yield "%i = phi i64 [0, %entry], [%next, %loop]"
        yield "%row = add i64 %first, %i"
        for output, (_, numbers) in enumerate(self._outputs):
            kind = self._program.type(numbers[0])
            yield f"%row{output} = mul i64 %row, {len(numbers) * TYPES[kind].itemsize}"
            yield f"%to{output} = getelementptr i8, ptr %o{output}, i64 %row{output}"
            for column, number in enumerate(numbers):
                name = f"{output}.{column}"
                value = self._scalar(number)
                if value is None:
                    value = f"%value{name}"
                    yield (
                        f"%from{name} = getelementptr {kind}, ptr %buffer, "
                        f"i64 {self._plan.places[number] // TYPES[kind].itemsize}"
                    )
                    yield f"%at{name} = getelementptr {kind}, ptr %from{name}, i64 %i"
                    yield f"{value} = load {kind}, ptr %at{name}"
                yield f"%to{name} = getelementptr {kind}, ptr %to{output}, i64 {column}"
                yield f"store {kind} {value}, ptr %to{name}"
        yield from _loop_end("%rows")

    def _scalar(self, number: int) -> str | None:
        """A constant or an argument; None for other values."""
        return _free_scalar(self._program.operations[number])

    def _load_matrix(self) -> Iterator[str]:
        """Function that loads a block of rows of a float32 matrix; the last row fills the last
        vector.
        """
        yield "define internal void @load_matrix(ptr noalias %buffer, i64 %first, i64 %rows,"
        yield "i64 %vectors, ptr %x, i64 %row_bytes, i64 %column_bytes) noinline {"
        yield "entry:"
        yield "%last = sub i64 %rows, 1"
        yield f"%padded = mul i64 %vectors, {LANES}"
        yield "br label %loop"
        yield "loop:"
        yield "%i = phi i64 [0, %entry], [%next, %loop]"
        yield "%inside = call i64 @llvm.umin.i64(i64 %i, i64 %last)"
        yield "%row = add i64 %first, %inside"
        yield "%row_offset = mul i64 %row, %row_bytes"
        yield "%from = getelementptr i8, ptr %x, i64 %row_offset"
        yield "%to = getelementptr float, ptr %buffer, i64 %i"
        for number in self._stored_inputs():
            field = self._program.operations[number].value
            yield f"%offset{field} = mul i64 %column_bytes, {field}"
            yield f"%from{field} = getelementptr i8, ptr %from, i64 %offset{field}"
            yield f"%value{field} = load float, ptr %from{field}, align 1"
            yield f"%to{field} = getelementptr i8, ptr %to, i64 {self._plan.places[number]}"
            yield f"store float %value{field}, ptr %to{field}"
        yield from _loop_end("%padded")
        yield "declare i64 @llvm.umin.i64(i64, i64)"

    def _load_columns(self) -> Iterator[str]:
        """Function that loads a block of rows of columns, and one for each type of column."""
        yield "define internal void @load_columns(ptr noalias %buffer, i64 %first, i64 %rows,"
        yield "i64 %vectors, ptr %x, ptr %kinds) noinline {"
        for number in self._stored_inputs():
            field = self._program.operations[number].value
            yield f"%entry{field} = getelementptr ptr, ptr %x, i64 {field}"
            yield f"%column{field} = load ptr, ptr %entry{field}"
            yield f"%kind_at{field} = getelementptr i64, ptr %kinds, i64 {field}"
            yield f"%kind{field} = load i64, ptr %kind_at{field}"
            yield f"%to{field} = getelementptr i8, ptr %buffer, i64 {self._plan.places[number]}"
            yield (
                f"call void @load_column(ptr %to{field}, i64 %first, i64 %rows, i64 %vectors, "
                f"ptr %column{field}, i64 %kind{field})"
            )
        yield "ret void"
        yield "}"
        yield "define internal void @load_column(ptr noalias %to, i64 %first, i64 %rows,"
        yield "i64 %vectors, ptr noalias %column, i64 %kind) noinline {"
        cases = " ".join(f"i64 {code}, label %{kind}" for kind, (code, _) in COLUMN_TYPES.items())
        yield f"switch i64 %kind, label %never [{cases}]"
        yield "never:"
        yield "unreachable"
        for kind in COLUMN_TYPES:
            yield f"{kind}:"
            yield (
                f"call void @load_{kind}(ptr %to, i64 %first, i64 %rows, i64 %vectors, ptr %column)"
            )
            yield "ret void"
        yield "}"
        for kind in COLUMN_TYPES:
            yield from _load_column(kind)

    def _stored_inputs(self) -> list[int]:
        return [number for number in self._plan.inputs if number in self._plan.places]

    def _entry(self, source: str, parameters: str) -> Iterator[str]:
        """Exported function: a loop over blocks."""
        yield f"define void @from_{source}({parameters}, i64 %n{self._parameters}"
        yield f"{self._addresses}) {{"
        yield "entry:"
        yield f"%buffer = alloca [{self._plan.size + BLOCK_ROWS * 8} x i8], align 128"
        yield "br label %loop"
        yield "loop:"
        yield f"%first = phi i64 [0, %entry], [%next, %loop]"
        yield "%left = sub i64 %n, %first"
        yield f"%rows = call i64 @llvm.umin.i64(i64 %left, i64 {BLOCK_ROWS})"
        yield f"%rounded = add i64 %rows, {LANES - 1}"
        yield f"%vectors = udiv i64 %rounded, {LANES}"
        yield (
            f"call void @load_{source}"
            f"(ptr %buffer, i64 %first, i64 %rows, i64 %vectors, {parameters})"
        )
        yield f"call void @block(ptr %buffer, i64 %rows, i64 %vectors{self._parameters})"
        yield (
            f"call void @store(ptr %buffer, i64 %first, i64 %rows{self._parameters}"
            f"{self._addresses})"
        )
        yield f"%next = add i64 %first, {BLOCK_ROWS}"
        yield "%more = icmp ult i64 %next, %n"
        yield "br i1 %more, label %loop, label %done"
        yield "done:"
        yield "ret void"
        yield "}"


class _Step:
    """Text of the operations of one step.

    Values of other steps are loaded where they are first needed, those for other steps are stored
    where they are computed.
    """

    def __init__(self, program: Program, plan: Schedule, table, by_row: bool) -> None:
        self._program = program
        self._plan = plan
        self._table = table
        self._by_row = by_row
        self._names: dict[int, str] = {}
        self._lines: list[str] = []

    def lines(self, numbers: tuple[int, ...]) -> list[str]:
        inside = set(numbers)
        for number in numbers:
            self._compute(number, inside)
            if number in self._plan.places:
                kind = self._program.type(number)
                pointer = self._pointer(number)
                self._lines.append(
                    f"store {self._kind(kind)} {self._names[number]}, ptr {pointer}, "
                    f"align {self._align(kind)}"
                )
        return self._lines

    def _kind(self, kind: str) -> str:
        return kind if self._by_row else vector(kind)

    def _align(self, kind: str) -> int:
        size = TYPES[kind].itemsize
        return size if self._by_row else size * LANES

    def _pointer(self, number: int) -> str:
        size = TYPES[self._program.type(number)].itemsize
        self._lines.append(
            f"%p{number} = getelementptr i8, ptr %base{size}, i64 {self._plan.places[number]}"
        )
        return f"%p{number}"

    def _operand(self, number: int, inside: set[int]) -> str:
        """Name of a value, loaded or computed before if it has none yet."""
        name = self._names.get(number)
        if name is not None:
            return name
        operation = self._program.operations[number]
        if (scalar := _free_scalar(operation)) is not None:
            if self._by_row:
                name = scalar
            elif operation.name == "argument":
                name = f"{scalar}.all"
            else:
                name = f"splat ({operation.type} {scalar})"
            self._names[number] = name
            return name
        if operation.type == "i1":
            self._compute(number, inside)
            return self._names[number]
        pointer = self._pointer(number)
        name = self._names[number] = f"%v{number}"
        self._lines.append(
            f"{name} = load {self._kind(operation.type)}, ptr {pointer}, "
            f"align {self._align(operation.type)}"
        )
        return name

    def _compute(self, number: int, inside: set[int]) -> None:
        operation = self._program.operations[number]
        operands = [self._operand(operand, inside) for operand in operation.operands]
        name = self._names[number] = f"%v{number}"
        if operation.name == "Lookup":
            self._look_up(name, operation, operands[0])
        elif operation.name == BY_ROW:
            self._lines.append(
                f"{name} = call double @pow(double {operands[0]}, double {operands[1]})"
            )
        else:
            kind = self._program.type(operation.operands[-1])
            table = _WHOLE_NUMBERS if kind == "i64" else {}
            text = table.get(operation.name) or _INSTRUCTIONS[operation.name]
            instruction = text.format(
                *operands,
                type=vector(kind),
                truth=vector("i1"),
                result=vector(operation.type),
                suffix=f"v{LANES}f{8 * TYPES[kind].itemsize}",
                cast=_CASTS.get((kind, operation.type)),
            )
            self._lines.append(f"{name} = {instruction}")

    def _look_up(self, name: str, operation: Operation, index: str) -> None:
        """Entries of a table, row by row; an index outside of it would be moved inside."""
        content = operation.value
        assert isinstance(content, bytes)  # noqa: S101  # a Lookup has a table
        last = len(content) // 8 - 1
        table, lines, previous = self._table(content), self._lines, "poison"
        for lane in range(LANES):
            part = f"{name}.{lane}"
            lines.append(f"{part}.i = extractelement {vector('i64')} {index}, i64 {lane}")
            lines.append(f"{part}.low = call i64 @llvm.umin.i64(i64 {part}.i, i64 {last})")
            lines.append(f"{part}.p = getelementptr double, ptr {table}, i64 {part}.low")
            lines.append(f"{part}.x = load double, ptr {part}.p")
            result = name if lane == LANES - 1 else f"{part}.v"
            lines.append(
                f"{result} = insertelement {vector('double')} {previous}, double {part}.x, "
                f"i64 {lane}"
            )
            previous = result


def _free_scalar(operation: Operation) -> str | None:
    """Text of a constant or an argument as a scalar; None for other operations."""
    if operation.name == "argument":
        return f"%a{operation.value}"
    if operation.name == "constant":
        assert isinstance(operation.value, bytes)  # noqa: S101  # a constant has its bytes
        return literal(operation.type, operation.value)
    return None


def _loop_end(count: str) -> Iterator[str]:
    yield "%next = add i64 %i, 1"
    yield f"%more = icmp ult i64 %next, {count}"
    yield "br i1 %more, label %loop, label %done"
    yield "done:"
    yield "ret void"
    yield "}"


def _load_column(kind: str) -> Iterator[str]:
    """Function that loads a block of one column as float32: whole vectors, then single rows, of
    which the last fills the last vector.
    """
    size = TYPES[kind].itemsize
    conversion = COLUMN_TYPES[kind][1]
    whole = {name: vector(name) for name in COLUMN_TYPES}
    single = {name: name for name in COLUMN_TYPES}
    yield f"define internal void @load_{kind}(ptr noalias %to, i64 %first, i64 %rows,"
    yield "i64 %vectors, ptr noalias %column) noinline {"
    yield "entry:"
    yield f"%full = udiv i64 %rows, {LANES}"
    yield f"%single = mul i64 %full, {LANES}"
    yield f"%padded = mul i64 %vectors, {LANES}"
    yield "%last = sub i64 %rows, 1"
    yield f"%start = getelementptr {kind}, ptr %column, i64 %first"
    yield "br label %vector_head"
    yield "vector_head:"
    yield "%v = phi i64 [0, %entry], [%v_next, %vector_body]"
    yield "%v_more = icmp ult i64 %v, %full"
    yield "br i1 %v_more, label %vector_body, label %row_head"
    yield "vector_body:"
    yield f"%v_row = mul i64 %v, {LANES}"
    yield f"%v_from = getelementptr {kind}, ptr %start, i64 %v_row"
    yield f"%v_value = load {vector(kind)}, ptr %v_from, align {size}"
    yield conversion.format(to="%v_float", value="%v_value", zero="splat (float -0.0)", **whole)
    yield "%v_to = getelementptr float, ptr %to, i64 %v_row"
    yield f"store {vector('float')} %v_float, ptr %v_to, align {4 * LANES}"
    yield "%v_next = add i64 %v, 1"
    yield "br label %vector_head"
    yield "row_head:"
    yield "%i = phi i64 [%single, %vector_head], [%i_next, %row_body]"
    yield "%i_more = icmp ult i64 %i, %padded"
    yield "br i1 %i_more, label %row_body, label %done"
    yield "row_body:"
    yield "%inside = call i64 @llvm.umin.i64(i64 %i, i64 %last)"
    yield f"%i_from = getelementptr {kind}, ptr %start, i64 %inside"
    yield f"%i_value = load {kind}, ptr %i_from, align {size}"
    yield conversion.format(to="%i_float", value="%i_value", zero="-0.0", **single)
    yield "%i_to = getelementptr float, ptr %to, i64 %i"
    yield "store float %i_float, ptr %i_to"
    yield "%i_next = add i64 %i, 1"
    yield "br label %row_head"
    yield "done:"
    yield "ret void"
    yield "}"
