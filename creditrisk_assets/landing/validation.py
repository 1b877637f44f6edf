"""Validation of one batch of cells against the contract: the value of each cell, and its fault.

This is the only validator of tables: landed files, history, outcomes, `creditrisk score` and
`/predict/batch`. Reading files belongs in `table_reader`; joining the batches of a day, and
customers with several rows, in `ingestion`. The module imports no pandas, because the API uses it.
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
"""Texts of a cell without a value, in upper or lower case."""

NUMBER = r"(?i)^[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity)$"

GROUPED = r"^[+-]?[1-9]\d{0,2}\.\d{3}$"
"""A whole number with three decimals, or with a point between thousands: 20.000 may be 20 or
20000.
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

OTHER_TEXTS = (pa.types.is_large_string, pa.types.is_string_view)
OTHER_BINARIES = (
    pa.types.is_fixed_size_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)
"""Tests for types that `_plain` turns into text, and into binary of any length."""

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Rule = Callable[[FloatArray], BoolArray]


@dataclass(frozen=True)
class Faults:
    """Cells that break the contract, by row and then in the order of the fields.

    Attributes:
        rows: row of each fault, from 0.
        kinds: place of each fault's (field, rule) in `table`.
        table: every (field, rule) that occurs.
    """

    rows: NDArray[np.int64]
    kinds: NDArray[np.int64]
    table: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CheckedBatch:
    """Result of validating a batch.

    Attributes:
        numbers: for each field one float64 a row, the decision graph's input; NaN where there is no
            value.
        texts: values of each field of text codes; null where there is none.
        identifiers: the customers; "" where there is none or the batch has no such column.
        faults: the faults.
        good: mask of the rows without a fault.
    """

    numbers: Mapping[str, FloatArray]
    texts: Mapping[str, pa.Array]
    identifiers: pa.Array
    faults: Faults
    good: BoolArray


class RowCheck:
    """Validator of batches by the contract of some fields.

    Args:
        fields: the columns.
        identifier: the customer column, validated where a batch has it. An empty identifier is no
            fault here; the caller decides whether it is required.
    """

    def __init__(self, fields: Sequence[Field], identifier: str) -> None:
        self.fields = tuple(fields)
        self._by_name = {field.name: field for field in fields}
        self.identifier = identifier
        self._rules = {field.name: _rules(field) for field in fields if not field.is_text}

    def __call__(self, cells: pa.RecordBatch) -> CheckedBatch:
        """Validate a batch that has a column for each field.

        A cell has at most one fault: the last of not a number or missing, ambiguous, not a whole
        number, out of range or unknown code.
        """
        numbers: dict[str, FloatArray] = {}
        texts: dict[str, pa.Array] = {}
        faults: dict[str, dict[str, BoolArray]] = {}
        identifiers = pa.repeat("", cells.num_rows)
        if self.identifier in cells.schema.names:
            identifiers, invalid = identifier_texts(cells.column(self.identifier))
            faults[self.identifier] = {NOT_AN_IDENTIFIER: invalid}
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
        return CheckedBatch(numbers, texts, identifiers, found_faults, good)

    def surely_valid(self, cells: pa.RecordBatch) -> BoolArray:
        """Rows that are valid at first sight: numbers within their ranges, known codes, plain
        identifiers. The others may be valid, too; a call of the validator decides.

        A column of numbers takes a twentieth of the validator's time.
        """
        valid = np.ones(cells.num_rows, dtype=bool)
        if self.identifier in cells.schema.names:
            valid &= _plain_identifiers(cells.column(self.identifier))
        for field in self.fields:
            valid &= _plainly_within(cells.column(field.name), field)
        return valid

    def message(self, name: str, value: object, rule: str) -> str:
        """Message about a cell's fault, with the valid values."""
        if rule == MISSING:
            return f"{name}: missing; valid: {self.valid(name)}"
        return (
            f"{name}: {plain_text(value)[:VALUE_SHOWN]!r} {reason(value, rule)}; valid: "
            f"{self.valid(name)}"
        )

    def valid(self, name: str) -> str:
        """Valid values of a column, in words."""
        return VALID_IDENTIFIER if name == self.identifier else self._by_name[name].valid


def _plainly_within(column: pa.Array, field: Field) -> BoolArray | bool:
    """Rows whose value of a field satisfies the contract at first sight."""
    valid: BoolArray | bool
    missing = np.zeros(len(column), dtype=bool)
    if column.null_count:
        missing = column.is_null().to_numpy(zero_copy_only=False)
    if field.is_text:
        if column.type not in (pa.string(), pa.large_string()):
            return False
        known = pc.is_in(column, pa.array(list(field.codes or ()), column.type))
        valid = known.to_numpy(zero_copy_only=False)
        return valid if field.required else valid | missing
    if not (pa.types.is_integer(column.type) or column.type in (pa.float32(), pa.float64())):
        return False
    values = (column.fill_null(0) if column.null_count else column).to_numpy()
    if not len(values):
        return True
    if field.codes is None:
        least, most = np.array([field.minimum, field.maximum], dtype=np.float64).tolist()
    else:
        least, most = min(field.codes), max(field.codes)
    valid = True
    if not (values.min() >= least and values.max() <= most):  # also if any is NaN
        valid = (values >= least) & (values <= most)
    if field.codes is not None and len(field.codes) <= most - least:
        valid &= np.isin(values, list(field.codes))
    elif field.kind != "decimal" and values.dtype.kind == "f":
        whole = np.trunc(values) == values
        valid = valid if whole.all() else valid & whole
    if values.dtype.kind == "f" and not field.required:
        valid |= np.isnan(values)
    if column.null_count:
        valid = valid & ~missing if field.required else valid | missing
    return valid


_PLAIN_BYTE = np.zeros(256, dtype=bool)
_PLAIN_BYTE[0x21:0x7F] = True
_PLAIN_BYTE[[ord(sign[0]) for sign in SUSPICIOUS]] = False
"""Printable ASCII without spaces and without the first characters of `SUSPICIOUS`."""


def _plain_identifiers(column: pa.Array) -> BoolArray | bool:
    """Rows whose identifier is valid, and is what it is as text."""
    if pa.types.is_integer(column.type):
        return True
    if column.type not in (pa.string(), pa.large_string()):
        return False
    _, offset_buffer, text_buffer = column.buffers()
    if offset_buffer is None or text_buffer is None:
        return True  # no cell holds a text
    width = np.int32 if column.type == pa.string() else np.int64
    offsets = np.frombuffer(offset_buffer, dtype=width)[
        column.offset : column.offset + len(column) + 1
    ]
    texts = np.frombuffer(text_buffer, dtype=np.uint8)[offsets[0] : offsets[-1]]
    return bool((np.diff(offsets) <= LONGEST_IDENTIFIER).all() and _PLAIN_BYTE[texts].all())


class RefusedColumns(ValueError):
    """A table lacks columns, or has columns of a type other than text or numbers; the message names
    them.

    Attributes:
        rule: `MISSING_COLUMN` or `WRONG_TYPE`.
        names: the columns.
    """

    def __init__(self, rule: str, names: Sequence[str], message: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.names = list(names)


def require_columns(
    schema: pa.Schema, required: Sequence[str], optional: Sequence[str] = ()
) -> None:
    """Check that a table has the columns of the contract, in readable types.

    Args:
        schema: its columns, from `TableStream.schema`.
        required: columns that must be present.
        optional: columns that are read if present.

    Raises:
        RefusedColumns: if it does not.
    """
    if (message := missing_columns(schema.names, required, optional)) is not None:
        raise RefusedColumns(
            MISSING_COLUMN, [name for name in required if name not in schema.names], message
        )
    read = [*required, *(name for name in optional if name in schema.names)]
    wrong = [name for name in read if not _is_readable(schema.field(name).type)]
    if wrong:
        types = "; ".join(f"{name} is of type {schema.field(name).type}" for name in wrong)
        raise RefusedColumns(
            WRONG_TYPE, wrong, f"{types}; valid: text or numbers, and UUIDs for identifiers"
        )


def accepted_arrays(
    checked: CheckedBatch, fields: Sequence[Field], rows: BoolArray | None = None
) -> list[pa.Array]:
    """Values of the selected rows, one array of `arrow_type` for each field."""
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
            numbers = (np.where(missing, 0, numbers) if missing.any() else numbers).astype(np.int64)
        arrays.append(pa.array(numbers, mask=missing if missing.any() else None))
    return arrays


def to_numbers(column: pa.Array) -> tuple[FloatArray, BoolArray]:
    """Convert a column to float64, NaN where a cell holds no number, and a mask of missing cells.

    A whole number beyond 2**53 is rounded, which cannot bring it into the range of any field. The
    column must be of a type that `require_columns` accepts.
    """
    column = _plain(column)
    if not (_holds_text(column.type) or pa.types.is_null(column.type)):
        numbers = _canonical(pc.cast(column, pa.float64(), safe=False))
        return numbers, np.isnan(numbers)
    texts, unreadable = _decoded(column)
    numbers, missing = _text_numbers(texts)
    return numbers, missing & ~unreadable


def identifier_texts(column: pa.Array) -> tuple[pa.Array, BoolArray]:
    """Convert identifiers to text, with a mask of the cells that are not valid identifiers.

    7, 7.0 and " 7 " are the same customer; a missing identifier is "". The rule is `identifier_of`,
    called only for cells that it might refuse.
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
    invalid = np.zeros(len(texts), dtype=bool)
    suspicious = np.flatnonzero(~plain.to_numpy(zero_copy_only=False) | undecoded)
    if len(suspicious):
        for place in suspicious.tolist():
            try:
                identifier_of(python_value(column[place]))
            except ValueError:
                invalid[place] = True
        if pc.any(pc.match_substring(texts, ".0")).as_py():
            texts = pc.replace_substring_regex(texts, WITHOUT_FRACTION, r"\1")
    return texts, invalid


def text_columns(table: pa.Table) -> pa.Table:
    """Table for a text file: bytes and UUIDs become text, undecodable bytes hexadecimal."""
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
    """Value of a cell; text where Python has no such value, for example a date after the year
    9999.
    """
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        return repr(cell)


def python_records(cells: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows of a batch as Python values."""
    try:
        return list(cells.to_pylist())
    except (ValueError, OverflowError):
        columns = zip(cells.schema.names, cells.columns, strict=True)
        values = {name: [python_value(cell) for cell in column] for name, column in columns}
        return [{name: values[name][row] for name in values} for row in range(cells.num_rows)]


def cell_text(value: object) -> str:
    """A cell as printable text on one line."""
    text = plain_text(value)
    return text if text.isprintable() else text.translate(_CONTROL)


def plain_text(value: object) -> str:
    """A cell as text, control characters included; "" if missing, undecodable bytes in
    hexadecimal.
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
    """Cells of one row as a line of JSON."""
    return json.dumps(
        {name: cell_text(value) for name, value in record.items()}, ensure_ascii=False
    )


def reason(value: object, rule: str) -> str:
    """Reason why a cell with a value breaks a rule: `is not a number, for it has a decimal
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
    return f"is {rule}{_number_hint(text) if rule == NOT_A_NUMBER else ''}"


_GROUPS = re.compile(r"[+-]?\d{1,3}(?P<sign>[.,'\u2019\s_])\d{3}((?P=sign)\d{3})*([.,]\d+)?")
_COMMA = re.compile(r"[+-]?\d+,\d+")
_MINUS = re.compile(r"[\u2010-\u2015\u2212]\s*[\d.,]+|[\d.,]+-|\([\d.,]+\)")
_UNIT = re.compile(r"[^\d\s.,+-]{1,4}\s*[+-]?[\d.,]+|[+-]?[\d.,]+\s*[^\d\s.,+-]{1,4}")


def _number_hint(text: str) -> str:
    """Hint at the part of a text that is not numeric; "" if unknown."""
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
    """Rules of a field's numbers: name, and a function from values to a mask of the valid ones.

    NaN is valid: missing values have a rule of their own.
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
    """Reduce faults to one for each cell, the last by order of rules."""
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
    return values, _say_missing(texts, np.isnan(values))


def _say_missing(texts: pa.Array, selection: BoolArray) -> BoolArray:
    """Mask of the selected cells that are null or hold a word for a missing value."""
    if selection.any():
        selected = pc.utf8_trim_whitespace(texts.filter(pa.array(selection)))
        words = pc.fill_null(pc.utf8_lower(selected), "")
        selection[selection] = pc.is_in(words, pa.array(MISSING_WORDS)).to_numpy(False)
    return selection


def _canonical(numbers: pa.Array) -> FloatArray:
    """Give equal numbers equal bits: one zero, and one NaN, which also represents null."""
    values: FloatArray = numbers.to_numpy(zero_copy_only=False) + 0.0
    values[np.isnan(values)] = np.nan
    return values


def _known_texts(column: pa.Array, field: Field) -> tuple[pa.Array, FloatArray, BoolArray]:
    """Known text codes (others null), their numbers (others NaN), and a mask of missing cells."""
    codes = pa.array(list(field.codes or ()), pa.string())
    texts, unreadable = _decoded(column)
    texts = pc.utf8_trim_whitespace(pc.fill_null(texts, ""))
    places = pc.index_in(texts, codes)
    numbers = pc.cast(places, pa.float64()).to_numpy(zero_copy_only=False)
    return pc.take(codes, places), numbers, _say_missing(texts, np.isnan(numbers) & ~unreadable)


def _words_as_codes(column: pa.Array, field: Field) -> pa.Array:
    """Replace the words of a field by their codes."""
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
    """Mask of the cells whose point may separate thousands; None if no cell has a point."""
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


def _decoded(column: pa.Array) -> tuple[pa.Array, BoolArray]:
    """Cells as text, null where missing, and a mask of bytes that are not UTF-8 text, null as well.

    A whole number is written without a point.
    """
    no_cell = np.zeros(len(column), dtype=bool)
    if pa.types.is_string(column.type):
        return column, no_cell
    if pa.types.is_binary(column.type):
        try:
            return pc.cast(column, pa.string()), no_cell
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
    return texts, no_cell


def _decoded_cell(cell: bytes | None) -> str | None:
    try:
        return None if cell is None else cell.decode()
    except UnicodeDecodeError:
        return None


def _plain(column: pa.Array) -> pa.Array:
    """Convert a column to a plain type: a UUID to text, bytes to binary of any length."""
    if isinstance(column.type, pa.UuidType):
        return pa.array(
            [None if cell is None else f"{cell}" for cell in column.to_pylist()], pa.string()
        )
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = _plain(column.dictionary_decode())
    if any(test(column.type) for test in OTHER_TEXTS):
        return pc.cast(column, pa.string())
    if any(test(column.type) for test in OTHER_BINARIES):
        return pc.cast(column, pa.binary())
    return column


def _holds_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _is_readable(kind: pa.DataType) -> bool:
    """Whether a column's type holds texts, numbers, UUIDs or only nulls."""
    if isinstance(kind, pa.BaseExtensionType):
        return isinstance(kind, pa.UuidType | pa.JsonType)
    if pa.types.is_dictionary(kind):
        return _is_readable(kind.value_type)
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    texts = (pa.types.is_string, *OTHER_TEXTS, pa.types.is_binary, *OTHER_BINARIES)
    return any(test(kind) for test in (*texts, *numbers))
