"""Writes the functions that load a block of rows into the buffer, as float32.

Rows come as a float32 matrix in any layout, or as columns of several types. The last row of a block
is repeated up to a whole vector, so that no operation ever has a value that is not of a row.
"""

from collections.abc import Mapping

from creditrisk_assets.scoring.compiled.instructions import LANES, vector
from creditrisk_assets.scoring.compiled.program import TYPES

COLUMN_TYPES: Mapping[str, tuple[int, str]] = {
    "float": (0, "fadd {0} {1}, {zero}"),
    "double": (1, "fptrunc {0} {1} to {2}"),
    "i64": (2, "sitofp {0} {1} to {2}"),
}
"""Types of columns: number, and conversion to float32. Adding -0.0 changes no value."""


def loading_functions(places: Mapping[int, int]) -> str:
    """Functions `load_matrix` and `load_columns`.

    Args:
        places: byte in the buffer at which the values of a field start, by the field's number.
    """
    return "\n".join(
        [_load_matrix(places), _load_columns(places), *map(_load_column, COLUMN_TYPES)]
    )


def _load_matrix(places: Mapping[int, int]) -> str:
    fields = "\n".join(
        f"""\
%offset{field} = mul i64 %column_bytes, {field}
%from{field} = getelementptr i8, ptr %from, i64 %offset{field}
%value{field} = load float, ptr %from{field}, align 1
%to{field} = getelementptr i8, ptr %to, i64 {place}
store float %value{field}, ptr %to{field}"""
        for field, place in places.items()
    )
    return f"""
define internal void @load_matrix(ptr noalias %buffer, i64 %first, i64 %rows, i64 %vectors,
                                  ptr %x, i64 %row_bytes, i64 %column_bytes) noinline {{
entry:
%last = sub i64 %rows, 1
%padded = mul i64 %vectors, {LANES}
br label %loop
loop:
%i = phi i64 [0, %entry], [%next, %loop]
%inside = call i64 @llvm.umin.i64(i64 %i, i64 %last)
%row = add i64 %first, %inside
%row_offset = mul i64 %row, %row_bytes
%from = getelementptr i8, ptr %x, i64 %row_offset
%to = getelementptr float, ptr %buffer, i64 %i
{fields}
%next = add i64 %i, 1
%more = icmp ult i64 %next, %padded
br i1 %more, label %loop, label %done
done:
ret void
}}
"""


def _load_columns(places: Mapping[int, int]) -> str:
    """Function of all columns, and one that chooses by the type of a column."""
    fields = "\n".join(
        f"""\
%entry{field} = getelementptr ptr, ptr %x, i64 {field}
%column{field} = load ptr, ptr %entry{field}
%kind_entry{field} = getelementptr i64, ptr %kinds, i64 {field}
%kind{field} = load i64, ptr %kind_entry{field}
%to{field} = getelementptr i8, ptr %buffer, i64 {place}
call void @load_column(ptr %to{field}, i64 %first, i64 %rows, i64 %vectors, ptr %column{field},
                       i64 %kind{field})"""
        for field, place in places.items()
    )
    cases = " ".join(f"i64 {number}, label %{kind}" for kind, (number, _) in COLUMN_TYPES.items())
    branches = "\n".join(
        f"""\
{kind}:
call void @load_{kind}(ptr %to, i64 %first, i64 %rows, i64 %vectors, ptr %column)
ret void"""
        for kind in COLUMN_TYPES
    )
    return f"""
define internal void @load_columns(ptr noalias %buffer, i64 %first, i64 %rows, i64 %vectors,
                                   ptr %x, ptr %kinds) noinline {{
{fields}
ret void
}}
define internal void @load_column(ptr noalias %to, i64 %first, i64 %rows, i64 %vectors,
                                  ptr noalias %column, i64 %kind) noinline {{
switch i64 %kind, label %other [{cases}]
other:
unreachable
{branches}
}}
"""


def _load_column(kind: str) -> str:
    """Function of a column of one type: whole vectors, then single rows up to a whole vector."""
    size = TYPES[kind].itemsize
    number = COLUMN_TYPES[kind][1]
    of_vector = number.format(
        vector(kind), "%v_value", vector("float"), zero="splat (float 0x8000000000000000)"
    )
    of_row = number.format(kind, "%i_value", "float", zero="0x8000000000000000")
    return f"""
define internal void @load_{kind}(ptr noalias %to, i64 %first, i64 %rows, i64 %vectors,
                                  ptr noalias %column) noinline {{
entry:
%full = udiv i64 %rows, {LANES}
%full_rows = mul i64 %full, {LANES}
%padded = mul i64 %vectors, {LANES}
%last = sub i64 %rows, 1
%start = getelementptr {kind}, ptr %column, i64 %first
br label %next_vector
next_vector:
%v = phi i64 [0, %entry], [%v_next, %load_vector]
%v_more = icmp ult i64 %v, %full
br i1 %v_more, label %load_vector, label %next_row
load_vector:
%v_row = mul i64 %v, {LANES}
%v_from = getelementptr {kind}, ptr %start, i64 %v_row
%v_value = load {vector(kind)}, ptr %v_from, align {size}
%v_float = {of_vector}
%v_to = getelementptr float, ptr %to, i64 %v_row
store {vector("float")} %v_float, ptr %v_to, align {4 * LANES}
%v_next = add i64 %v, 1
br label %next_vector
next_row:
%i = phi i64 [%full_rows, %next_vector], [%i_next, %load_row]
%i_more = icmp ult i64 %i, %padded
br i1 %i_more, label %load_row, label %done
load_row:
%inside = call i64 @llvm.umin.i64(i64 %i, i64 %last)
%i_from = getelementptr {kind}, ptr %start, i64 %inside
%i_value = load {kind}, ptr %i_from, align {size}
%i_float = {of_row}
%i_to = getelementptr float, ptr %to, i64 %i
store float %i_float, ptr %i_to
%i_next = add i64 %i, 1
br label %next_row
done:
ret void
}}
"""
