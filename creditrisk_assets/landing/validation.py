"""One batch of cells against the contract: what each cell is, and what is wrong with it.

The one rule for tables, wherever they arrive: landed files, history, outcomes, `creditrisk score`,
`/predict/batch`. Reading files is `reading`'s matter; `ingestion` joins the batches of a day and
deals with customers that stand in it more than once. No pandas here: the API validates with it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from creditrisk_assets.portfolio.contract import Field, missing_columns
from creditrisk_assets.portfolio.identifiers import (
    FLOAT64_EXACT_INTEGER,
    LONGEST_IDENTIFIER,
    SUSPICIOUS,
    VALID_IDENTIFIER,
    WITHOUT_FRACTION,
    identifier_of,
)

MISSING_WORDS = ("", "na", "nan", "none", "null")
"""What a cell without a value says, in any case."""

NUMBER = r"(?i)^[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity)$"

GROUPED = r"^[+-]?[1-9]\d{0,2}\.\d{3}$"
"""A whole number with a point and three zeros, or one with a point between thousands: 20.000 may be
20 or 20000.
"""

MISSING = "missing"
NOT_A_NUMBER = "not a number"
NOT_WHOLE = "not a whole number"
OUT_OF_RANGE = "out of range"
UNKNOWN_CODE = "not a known code"
AMBIGUOUS = "ambiguous"
NOT_AN_IDENTIFIER = "not an identifier"
MISSING_COLUMN = "missing column"
WRONG_TYPE = "wrong type"

VALUE_SHOWN = 60

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Rule = Callable[[FloatArray], BoolArray]


@dataclass(frozen=True)
class Faults:
    """Cells that break the contract, by row and then in the order of the fields.

    Attributes:
        rows: the row of each, from 0.
        kinds: for each, the place of its (field, rule) in `table`.
        table: every (field, rule) that occurs.
    """

    rows: NDArray[np.int64]
    kinds: NDArray[np.int64]
    table: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Checked:
    """A batch that was judged.

    Attributes:
        numbers: for each field one float64 for each row: what the decision graph would see, NaN
            where there is no value.
        texts: for each field of text codes, its values; null where there is none.
        identifiers: the customers, "" where none is named, as everywhere if the batch has no such
            column.
        faults: what is wrong.
        good: for each row, whether nothing is.
    """

    numbers: Mapping[str, FloatArray]
    texts: Mapping[str, pa.Array]
    identifiers: pa.Array
    faults: Faults
    good: BoolArray


class RowCheck:
    """The contract of some fields, ready to judge batches.

    Args:
        fields: the columns.
        identifier: the column that names the customer, judged where a batch has it. That one is
            empty is no fault: whether there must be one is the door's matter.
    """

    def __init__(self, fields: Sequence[Field], identifier: str) -> None:
        self.fields = tuple(fields)
        self._by_name = {field.name: field for field in fields}
        self.identifier = identifier
        self._rules = {field.name: _rules(field) for field in fields if not field.is_text}

    def __call__(self, cells: pa.RecordBatch) -> Checked:
        """Judge a batch that has a column for each field.

        A cell has at most one fault: the last of not a number or missing, ambiguous, not a whole
            number, out of range or unknown
        code.
        """
        numbers: dict[str, FloatArray] = {}
        texts: dict[str, pa.Array] = {}
        faults: dict[str, dict[str, BoolArray]] = {}
        identifiers = pa.repeat("", cells.num_rows)
        if self.identifier in cells.schema.names:
            identifiers, nameless = identifier_texts(cells.column(self.identifier))
            faults[self.identifier] = {NOT_AN_IDENTIFIER: nameless}
        for field in self.fields:
            column = _plain(cells.column(field.name))
            if field.is_text:
                texts[field.name], values, missing = _known_texts(column, field)
                found = {UNKNOWN_CODE: np.isnan(values) & ~missing}
            else:
                column = _words_as_codes(column, field)
                values, missing = to_numbers(column)
                found = {NOT_A_NUMBER: np.isnan(values) & ~missing}
                if field.kind != "decimal" and (ambiguous := _grouped(column)) is not None:
                    values[ambiguous] = np.nan
                    found[AMBIGUOUS] = ambiguous
            if field.required:
                found[MISSING] = missing
            numbers[field.name] = values
            broken = self._rules.get(field.name, {})
            faults[field.name] = found | {rule: ~holds(values) for rule, holds in broken.items()}
        found_faults = _sorted_faults(faults)
        good = np.ones(cells.num_rows, dtype=bool)
        good[found_faults.rows] = False
        return Checked(numbers, texts, identifiers, found_faults, good)

    def message(self, name: str, value: object, rule: str) -> str:
        """What is wrong with a cell, and what would be accepted."""
        if rule == MISSING:
            return f"{name}: missing; valid: {self.valid(name)}"
        return (
            f"{name}: {plain_text(value)[:VALUE_SHOWN]!r} {reason(value, rule)}; valid: "
            f"{self.valid(name)}"
        )

    def valid(self, name: str) -> str:
        """The values that a column accepts, in words."""
        return VALID_IDENTIFIER if name == self.identifier else self._by_name[name].valid


class RefusedColumns(ValueError):
    """A table lacks columns, or has some of a type that holds neither text nor numbers; the message
    says which.

    Attributes:
        rule: `MISSING_COLUMN` or `WRONG_TYPE`.
        names: the columns.
    """

    def __init__(self, rule: str, names: Sequence[str], message: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.names = list(names)


def require_columns(schema: pa.Schema, wanted: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Check that a table can be read at all.

    Args:
        schema: its columns, as `TableStream.schema` gives them.
        wanted: columns that it must have.
        optional: columns that are read where they are there.

    Raises:
        RefusedColumns: if it cannot.
    """
    if (message := missing_columns(schema.names, wanted, optional)) is not None:
        raise RefusedColumns(
            MISSING_COLUMN, [name for name in wanted if name not in schema.names], message
        )
    read = [*wanted, *(name for name in optional if name in schema.names)]
    wrong = [name for name in read if not _is_readable(schema.field(name).type)]
    if wrong:
        types = "; ".join(f"{name} is of type {schema.field(name).type}" for name in wrong)
        raise RefusedColumns(
            WRONG_TYPE, wrong, f"{types}; valid: text or numbers, and UUIDs for identifiers"
        )


def accepted_arrays(
    checked: Checked, fields: Sequence[Field], rows: BoolArray | None = None
) -> list[pa.Array]:
    """The values of the rows wanted, one array of `arrow_type` for each field."""
    mask = None if rows is None else pa.array(rows)
    arrays = []
    for field in fields:
        if field.is_text:
            texts = checked.texts[field.name]
            arrays.append(texts if mask is None else texts.filter(mask))
            continue
        numbers = checked.numbers[field.name]
        if rows is not None:
            numbers = numbers[rows]
        missing = np.isnan(numbers)
        if field.kind != "decimal":
            numbers = (
                np.where(missing, 0, numbers).astype(np.int64)
                if missing.any()
                else numbers.astype(np.int64)
            )
        arrays.append(pa.array(numbers, mask=missing if missing.any() else None))
    return arrays


def to_numbers(column: pa.Array) -> tuple[FloatArray, BoolArray]:
    """A column's cells as float64, NaN where a cell holds no number, and for each cell whether it
    is missing.

    A whole number beyond 2**53 is rounded, which cannot bring it into the range of any field. The
    column is of a type that `require_columns` passes.
    """
    column = _plain(column)
    if (
        pa.types.is_integer(column.type)
        or pa.types.is_floating(column.type)
        or pa.types.is_decimal(column.type)
    ):
        numbers = _canonical(pc.cast(column, pa.float64(), safe=False))
        return numbers, np.isnan(numbers)
    texts, unreadable = _decoded(column)
    numbers, missing = _text_numbers(texts)
    return numbers, missing & ~unreadable


def identifier_texts(column: pa.Array) -> tuple[pa.Array, BoolArray]:
    """Identifiers as text, and for each whether it names no customer although it is there.

    7, 7.0 and " 7 " are the same customer; a missing one is "". `identifier_of` is the rule; here
    it is asked only about cells that it might refuse.
    """
    column = _plain(column)
    if pa.types.is_integer(column.type):
        return pc.fill_null(pc.cast(column, pa.string()), ""), np.zeros(len(column), dtype=bool)
    if pa.types.is_floating(column.type):
        return _number_identifiers(column)
    texts, undecoded = _decoded(column)
    texts = pc.utf8_trim_whitespace(pc.fill_null(texts, ""))
    plain = pc.and_(
        pc.utf8_is_printable(texts), pc.less_equal(pc.utf8_length(texts), LONGEST_IDENTIFIER)
    )
    for sign in SUSPICIOUS:
        plain = pc.and_not(plain, pc.match_substring(texts, sign))
    nameless = np.zeros(len(texts), dtype=bool)
    suspicious = np.flatnonzero(~plain.to_numpy(zero_copy_only=False) | undecoded)
    if len(suspicious):
        for place in suspicious.tolist():
            nameless[place] = _names_nobody(column[place])
        if pc.any(pc.match_substring(texts, ".0")).as_py():
            texts = pc.replace_substring_regex(texts, WITHOUT_FRACTION, r"\1")
    return texts, nameless


def text_columns(table: pa.Table) -> pa.Table:
    """A table for a text file: columns of bytes and UUIDs as their text, bytes that are none in
    hexadecimal.
    """
    for place, field in enumerate(table.schema):
        column = table.column(place).combine_chunks()
        plain = _plain(column)
        if plain is column and not pa.types.is_binary(plain.type):
            continue
        if pa.types.is_binary(plain.type):
            plain = pa.array(
                [None if cell is None else plain_text(cell) for cell in plain.to_pylist()],
                pa.string(),
            )
        table = table.set_column(place, field.name, plain)
    return table


def python_value(cell: pa.Scalar) -> Any:
    """A cell's value; as text where Python has no such value, for example a day after the year
    9999.
    """
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        return repr(cell)


def python_records(cells: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch as Python values."""
    try:
        return list(cells.to_pylist())
    except (ValueError, OverflowError):
        columns = zip(cells.schema.names, cells.columns, strict=True)
        values = {name: [python_value(cell) for cell in column] for name, column in columns}
        return [{name: values[name][row] for name in values} for row in range(cells.num_rows)]


def cell_text(value: object) -> str:
    """The same as a person reads it on one line."""
    text = plain_text(value)
    return text if text.isprintable() else text.translate(_CONTROL)


def plain_text(value: object) -> str:
    """A cell as text, whatever signs are in it; a missing one is "". Bytes that are no text are
    shown in hexadecimal.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return f"0x{value.hex()}"
    return repr(value) if isinstance(value, bool | int | float) else f"{value}"


def record_text(record: Mapping[str, object]) -> str:
    """One row's own cells as a line of JSON."""
    return json.dumps(
        {name: cell_text(value) for name, value in record.items()}, ensure_ascii=False
    )


def reason(value: object, rule: str) -> str:
    """Why a cell that is not missing breaks a rule: `is not a number, for it has a decimal
    comma`.
    """
    text = plain_text(value).strip()
    if rule == NOT_AN_IDENTIFIER:
        try:
            identifier_of(value)
        except ValueError as error:
            return str(error)
    if rule == AMBIGUOUS:
        return (
            f"is {rule}: {text.partition('.')[0]}, or {text.replace('.', '')} with a point "
            "between thousands"
        )
    return f"is {rule}{_why_no_number(text) if rule == NOT_A_NUMBER else ''}"


_GROUPS = re.compile(r"[+-]?\d{1,3}(?P<sign>[.,'\u2019\s_])\d{3}((?P=sign)\d{3})*([.,]\d+)?")
_COMMA = re.compile(r"[+-]?\d+,\d+")
_MINUS = re.compile(r"[\u2010-\u2015\u2212]\s*[\d.,]+|[\d.,]+-|\([\d.,]+\)")
_UNIT = re.compile(r"[^\d\s.,+-]{1,4}\s*[+-]?[\d.,]+|[+-]?[\d.,]+\s*[^\d\s.,+-]{1,4}")


def _why_no_number(text: str) -> str:
    """The part of a text that keeps it from being a number, where it is known."""
    plain = "write digits, with a decimal point and nothing between thousands"
    if groups := _GROUPS.fullmatch(text):
        sign = groups["sign"]
        if sign == "," and text.count(",") == 1 and "." not in text:
            whole, _, rest = text.partition(",")
            return (
                f", for it is ambiguous: {whole}{rest} with a comma between thousands, or "
                f"{whole}.{rest} with a decimal comma"
            )
        return f", for it has {sign!r} between thousands: {plain}"
    if _COMMA.fullmatch(text):
        return f", for it has a decimal comma: {plain}"
    if _MINUS.fullmatch(text):
        return ", for its minus sign is not a '-' before the digits"
    if _UNIT.fullmatch(text):
        return f", for it has a unit or another sign in it: {plain}"
    return ""


_CONTROL = {code: repr(chr(code))[1:-1] for code in (*range(9), *range(11, 32), 127, 10)}


def _rules(field: Field) -> dict[str, Rule]:
    """What must hold of a field's numbers, where there are any: name of the rule, and a test that
    gives a truth value for each.

    A value without a number passes: that it is missing is another matter.
    """
    rules: dict[str, Rule] = {}
    if field.kind != "decimal":
        rules[NOT_WHOLE] = lambda values: (np.trunc(values) == values) | np.isnan(values)
    if field.codes is None:
        least, most = np.array([field.minimum, field.maximum], dtype=np.float64)
        rules[OUT_OF_RANGE] = lambda values: ~((values < least) | (values > most))
    elif not field.is_text:
        codes = np.array(list(field.codes), dtype=np.float64)
        rules[UNKNOWN_CODE] = lambda values: np.isin(values, codes) | np.isnan(values)
    return rules


def _sorted_faults(faults: Mapping[str, Mapping[str, BoolArray]]) -> Faults:
    """One fault for each cell, the last that was found."""
    table: list[tuple[str, str]] = []
    rows, kinds = [], []
    for name, rules in faults.items():
        later: BoolArray | None = None
        for rule, broken in reversed(list(rules.items())):
            found = broken if later is None else broken & ~later
            later = broken if later is None else broken | later
            places = np.flatnonzero(found)
            if len(places):
                rows.append(places)
                kinds.append(np.full(len(places), len(table)))
                table.append((name, rule))
    if not rows:
        return Faults(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), ())
    together, which = np.concatenate(rows), np.concatenate(kinds)
    order = np.argsort(together, kind="stable")
    return Faults(together[order], which[order], tuple(table))


def _text_numbers(texts: pa.Array) -> tuple[FloatArray, BoolArray]:
    try:
        numbers = pc.cast(texts, pa.float64())
    except pa.ArrowInvalid:
        texts = pc.utf8_trim_whitespace(texts)
        readable = pc.match_substring_regex(texts, NUMBER)
        numbers = pc.cast(pc.if_else(readable, texts, None), pa.float64())
    values = _canonical(numbers)
    missing = np.isnan(values)
    if missing.any():
        none = pa.array(missing)
        words = pc.fill_null(pc.utf8_lower(pc.utf8_trim_whitespace(texts.filter(none))), "")
        missing[missing] = pc.is_in(words, pa.array(MISSING_WORDS)).to_numpy(zero_copy_only=False)
    return values, missing


def _canonical(numbers: pa.Array) -> FloatArray:
    """Equal numbers with equal bits: one kind of zero, and one of NaN, which stands for null
    too.
    """
    values: FloatArray = numbers.to_numpy(zero_copy_only=False) + 0.0
    values[np.isnan(values)] = np.nan
    return values


def _known_texts(column: pa.Array, field: Field) -> tuple[pa.Array, FloatArray, BoolArray]:
    """Text codes: the known ones (others null), their numbers (NaN), and for each cell whether it
    is missing.
    """
    codes = pa.array(list(field.codes or ()), pa.string())
    texts, unreadable = _decoded(column)
    texts = pc.utf8_trim_whitespace(pc.fill_null(texts, ""))
    places = pc.index_in(texts, codes)
    numbers = pc.cast(places, pa.float64()).to_numpy(zero_copy_only=False)
    missing = np.isnan(numbers) & ~unreadable
    if missing.any():
        words = pc.utf8_lower(texts.filter(pa.array(missing)))
        missing[missing] = pc.is_in(words, pa.array(MISSING_WORDS)).to_numpy(zero_copy_only=False)
    return pc.take(codes, places), numbers, missing


def _words_as_codes(column: pa.Array, field: Field) -> pa.Array:
    """A column in which the words of a field stand as their codes."""
    if not field.words or not _holds_text(column.type):
        return column
    texts, unreadable = _decoded(column)
    if unreadable.any():
        return column
    lowered = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
    places = pc.index_in(lowered, pa.array(list(field.words), pa.string()))
    return pc.coalesce(
        pc.take(pa.array([f"{code:d}" for code in field.words.values()], pa.string()), places),
        texts,
    )


def _grouped(column: pa.Array) -> BoolArray | None:
    """For each cell whether its point may stand between thousands; None if no cell has one."""
    if not _holds_text(column.type):
        return None
    texts, _ = _decoded(column)
    if not pc.any(pc.match_substring(texts, ".")).as_py():
        return None
    found = pc.fill_null(pc.match_substring_regex(pc.utf8_trim_whitespace(texts), GROUPED), False)
    return np.asarray(found.to_numpy(zero_copy_only=False))


def _number_identifiers(column: pa.Array) -> tuple[pa.Array, BoolArray]:
    numbers = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
    missing = np.isnan(numbers)
    whole = ~missing & (np.trunc(numbers) == numbers) & (np.abs(numbers) <= FLOAT64_EXACT_INTEGER)
    texts = pc.cast(
        pa.array(np.where(whole, numbers, 0).astype(np.int64), mask=~whole), pa.string()
    )
    return pc.fill_null(texts, ""), ~whole & ~missing


def _names_nobody(cell: pa.Scalar) -> bool:
    try:
        identifier_of(python_value(cell))
    except ValueError:
        return True
    return False


def _decoded(column: pa.Array) -> tuple[pa.Array, BoolArray]:
    """Cells as text, null where missing; and for each whether it is bytes that are no UTF-8 text,
    null as well.

    A whole number is written without a point.
    """
    none = np.zeros(len(column), dtype=bool)
    if pa.types.is_string(column.type):
        return column, none
    if pa.types.is_binary(column.type):
        try:
            return pc.cast(column, pa.string()), none
        except pa.ArrowInvalid:
            texts = [_decoded_cell(cell) for cell in column.to_pylist()]
            return pa.array(texts, pa.string()), np.array(
                [text is None for text in texts]
            ) & column.is_valid().to_numpy(False)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    texts = pc.cast(column, pa.string())
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        texts = pc.replace_substring_regex(texts, WITHOUT_FRACTION, r"\1")
    return texts, none


def _decoded_cell(cell: bytes | None) -> str | None:
    try:
        return None if cell is None else cell.decode()
    except UnicodeDecodeError:
        return None


def _plain(column: pa.Array) -> pa.Array:
    """The same values in one of the usual types: a UUID as text, bytes as binary of any length."""
    if isinstance(column.type, pa.UuidType):
        return pa.array(
            [None if one is None else f"{one}" for one in column.to_pylist()], pa.string()
        )
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = _plain(column.dictionary_decode())
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        return pc.cast(column, pa.string())
    if any(
        test(column.type)
        for test in (
            pa.types.is_fixed_size_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
        )
    ):
        return pc.cast(column, pa.binary())
    return column


def _holds_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _is_readable(kind: pa.DataType) -> bool:
    """Whether a column's type holds texts, numbers, UUIDs or nothing at all."""
    if isinstance(kind, pa.BaseExtensionType):
        return isinstance(kind, pa.UuidType | pa.JsonType)
    if pa.types.is_dictionary(kind):
        return _is_readable(kind.value_type)
    tests = (
        *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        *(
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_fixed_size_binary,
            pa.types.is_binary_view,
        ),
        *(pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null),
    )
    return any(test(kind) for test in tests)
