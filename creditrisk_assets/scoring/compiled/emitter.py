"""Writes a program as a module of LLVM's text: vector code for blocks of rows.

A block is up to 64 rows, in vectors of 16; of a call with one row only the first vector is
computed. Each step of the schedule is a function of its own, with a loop over the vectors.

Two functions are exported; both end with the rows, the arguments and the addresses of the outputs:
    from_matrix(address, bytes from row to row, bytes from column to column, …)
    from_columns(address of the columns' addresses, address of their types, …)
"""

import numpy as np

from creditrisk_assets.scoring.compiled.instructions import (
    LANES,
    LIBRARY,
    StepText,
    fixed_value,
    literal,
    vector,
)
from creditrisk_assets.scoring.compiled.loading import loading_functions
from creditrisk_assets.scoring.compiled.program import TYPES, Program
from creditrisk_assets.scoring.compiled.schedule import BLOCK_ROWS, BY_ROW, Schedule, schedule

SOURCES = {
    "matrix": "ptr %x, i64 %row_bytes, i64 %column_bytes",
    "columns": "ptr %x, ptr %kinds",
}
"""First parameters of the exported functions, by the kind of rows."""


def emit(program: Program, arguments: int) -> str:
    """Write a program.

    Args:
        program: with the outputs of a graph.
        arguments: number of its float64 arguments.

    Returns:
        LLVM's text, the same for equal programs.
    """
    plan = schedule(program)
    names = [f"%a{place}" for place in range(arguments)]
    parameters = "".join(f", double {name}" for name in names)
    addresses = "".join(f", ptr %o{place}" for place in range(len(program.outputs)))
    tables: dict[bytes, str] = {}

    def table(content: bytes) -> str:
        return tables.setdefault(content, f"@table_{len(tables)}")

    steps = []
    for place, numbers in enumerate(plan.steps):
        lines = StepText(program, plan.places, table).lines(numbers)
        by_row = program.operations[numbers[0]].name == BY_ROW
        steps.append(_step(place, lines, by_row, names, parameters))
    fields = {
        program.operations[number].place: plan.places[number]
        for number in plan.inputs
        if number in plan.places
    }
    return "\n".join(
        [
            LIBRARY,
            *(_table(name, content) for content, name in tables.items()),
            *steps,
            _block(len(steps), parameters),
            _store(program, plan, parameters, addresses),
            loading_functions(fields),
            *(
                _entry(source, rows, plan.size, parameters, addresses)
                for source, rows in SOURCES.items()
            ),
        ]
    )


def _table(name: str, content: bytes) -> str:
    entries = np.frombuffer(content, dtype=np.float64)
    values = ", ".join(f"double {literal('double', entry.tobytes())}" for entry in entries)
    return f"{name} = internal constant [{len(entries)} x double] [{values}]"


def _step(place: int, lines: list[str], by_row: bool, names: list[str], parameters: str) -> str:
    """Function of a step: a loop over the vectors of a block, or over its rows."""
    count, rows = ("%rows", 1) if by_row else ("%vectors", LANES)
    kind = vector("double")
    splats = "\n".join(
        f"""\
{name}.one = insertelement {kind} poison, double {name}, i64 0
{name}.all = shufflevector {kind} {name}.one, {kind} poison, {vector("i32")} zeroinitializer"""
        for name in names
    )
    bases = "\n".join(
        f"""\
%offset{size} = mul i64 %i, {size * rows}
%base{size} = getelementptr i8, ptr %buffer, i64 %offset{size}"""
        for size in (1, 4, 8)
    )
    body = "\n".join(lines)
    return f"""
define internal void @step_{place}(ptr noalias %buffer, i64 %rows, i64 %vectors{parameters})
    noinline {{
entry:
{splats}
br label %loop
loop:
%i = phi i64 [0, %entry], [%next, %loop]
{bases}
{body}
%next = add i64 %i, 1
%more = icmp ult i64 %next, {count}
br i1 %more, label %loop, label %done
done:
ret void
}}
"""


def _block(steps: int, parameters: str) -> str:
    """Function of all steps."""
    signature = f"ptr %buffer, i64 %rows, i64 %vectors{parameters}"
    calls = "\n".join(f"call void @step_{place}({signature})" for place in range(steps))
    return f"""
define internal void @block({signature}) noinline {{
{calls}
ret void
}}
"""


def _store(program: Program, plan: Schedule, parameters: str, addresses: str) -> str:
    """Function that stores the results of a block, row by row."""
    lines = []
    for output, numbers in enumerate(program.outputs.values()):
        kind = program.type(numbers[0])
        size = TYPES[kind].itemsize
        lines += [
            f"%row{output} = mul i64 %row, {len(numbers) * size}",
            f"%to{output} = getelementptr i8, ptr %o{output}, i64 %row{output}",
        ]
        for column, number in enumerate(numbers):
            name = f"{output}.{column}"
            value = fixed_value(program.operations[number])
            if value is None:
                value = f"%value{name}"
                lines += [
                    f"%from{name} = getelementptr i8, ptr %buffer, i64 {plan.places[number]}",
                    f"%at{name} = getelementptr {kind}, ptr %from{name}, i64 %i",
                    f"{value} = load {kind}, ptr %at{name}",
                ]
            lines += [
                f"%to{name} = getelementptr {kind}, ptr %to{output}, i64 {column}",
                f"store {kind} {value}, ptr %to{name}",
            ]
    body = "\n".join(lines)
    return f"""
define internal void @store(ptr %buffer, i64 %first, i64 %rows{parameters}{addresses}) noinline {{
entry:
br label %loop
loop:
%i = phi i64 [0, %entry], [%next, %loop]
%row = add i64 %first, %i
{body}
%next = add i64 %i, 1
%more = icmp ult i64 %next, %rows
br i1 %more, label %loop, label %done
done:
ret void
}}
"""


def _entry(source: str, rows: str, size: int, parameters: str, addresses: str) -> str:
    """Exported function: a loop over blocks, whose buffer is on the stack."""
    return f"""
define void @from_{source}({rows}, i64 %n{parameters}{addresses}) {{
entry:
%buffer = alloca [{max(size, 1)} x i8], align 128
br label %loop
loop:
%first = phi i64 [0, %entry], [%next, %loop]
%left = sub i64 %n, %first
%rows = call i64 @llvm.umin.i64(i64 %left, i64 {BLOCK_ROWS})
%rounded = add i64 %rows, {LANES - 1}
%vectors = udiv i64 %rounded, {LANES}
call void @load_{source}(ptr %buffer, i64 %first, i64 %rows, i64 %vectors, {rows})
call void @block(ptr %buffer, i64 %rows, i64 %vectors{parameters})
call void @store(ptr %buffer, i64 %first, i64 %rows{parameters}{addresses})
%next = add i64 %first, {BLOCK_ROWS}
%more = icmp ult i64 %next, %n
br i1 %more, label %loop, label %done
done:
ret void
}}
"""
