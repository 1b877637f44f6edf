"""One batch of cells against the contract: what each cell is, and what is wrong with it.

Text becomes values here, and pandera judges the numbers. Reading files is `reading`'s matter; `ingestion` joins the batches of a
day and deals with customers that stand in it more than once.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pandera.errors import SchemaErrors

from creditrisk_assets.portfolio.contract import Field

MISSING_WORDS = ("", "na", "nan", "none", "null")
"""What a cell without a value says, in any case."""

NUMBER = r"(?i)^[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity)$"

MISSING = "missing"
NOT_A_NUMBER = "not a number"
NOT_WHOLE = "not a whole number"
OUT_OF_RANGE = "out of range"
UNKNOWN_CODE = "not a known code"

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
        numbers: for each field one float64 for each row: what the decision graph would see, NaN where there is no value.
        texts: for each field of text codes, its values; null where there is none.
        faults: what is wrong.
        good: for each row, whether nothing is.
    """

    numbers: Mapping[str, FloatArray]
    texts: Mapping[str, pa.Array]
    faults: Faults
    good: BoolArray


class RowCheck:
    """The contract of some fields, ready to judge batches."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        self._rules = {field.name: _rules(field) for field in fields if not field.is_text}
        self._schema = contract_schema(fields)

    def __call__(self, cells: pa.RecordBatch) -> Checked:
        """Judge a batch that has a column for each field.

        A cell has at most one fault: the last of not a number or missing, not a whole number, out of range or unknown code.
        """
        numbers: dict[str, FloatArray] = {}
        texts: dict[str, pa.Array] = {}
        faults: dict[str, dict[str, BoolArray]] = {field.name: {} for field in self.fields}
        for field in self.fields:
            column = cells.column(field.name)
            if field.is_text:
                texts[field.name], numbers[field.name], missing = _known_texts(column, field)
                wrong, rule = np.isnan(numbers[field.name]) & ~missing, UNKNOWN_CODE
            else:
                numbers[field.name], missing = to_numbers(column)
                wrong, rule = np.isnan(numbers[field.name]) & ~missing, NOT_A_NUMBER
            faults[field.name] = {rule: wrong, MISSING: missing & field.required}
        for name, rule in self._broken(numbers):
            faults[name][rule] = ~self._rules[name][rule](numbers[name])
        found = _sorted_faults(faults)
        good = np.ones(cells.num_rows, dtype=bool)
        good[found.rows] = False
        return Checked(numbers, texts, found, good)

    def _broken(self, numbers: Mapping[str, FloatArray]) -> list[tuple[str, str]]:
        """Each (field, rule) that pandera finds broken, in the order of the rules."""
        frame = pd.DataFrame({name: numbers[name] for name in self._rules}, copy=False)
        try:
            self._schema.validate(frame, lazy=True, inplace=True)
        except SchemaErrors as error:
            found = set(zip(error.failure_cases["column"], error.failure_cases["check"], strict=True))
            return [(name, rule) for name, rules in self._rules.items() for rule in rules if (name, rule) in found]
        return []


def contract_schema(fields: Sequence[Field]) -> pandera.DataFrameSchema:
    """The contract of the numbers as a pandera schema over float64 columns, NaN where there is no value.

    It tells which rules are broken; which cells break them is found by the rules themselves. (pandera's own list of failure cases
    takes 7 s for 65,536 rows of which each is wrong in every field.)
    """

    def check(rule: str, holds: Rule) -> pandera.Check:
        return pandera.Check(lambda values: bool(holds(values.to_numpy()).all()), error=rule, ignore_na=False)

    def column(field: Field) -> pandera.Column:
        return pandera.Column(float, [check(rule, holds) for rule, holds in _rules(field).items()], nullable=True)

    return pandera.DataFrameSchema({field.name: column(field) for field in fields if not field.is_text})


def accepted_arrays(checked: Checked, fields: Sequence[Field], rows: BoolArray | None = None) -> list[pa.Array]:
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
            numbers = np.where(missing, 0, numbers).astype(np.int64) if missing.any() else numbers.astype(np.int64)
        arrays.append(pa.array(numbers, mask=missing if missing.any() else None))
    return arrays


def to_numbers(column: pa.Array) -> tuple[FloatArray, BoolArray]:
    """A column's cells as float64, NaN where a cell holds no number, and for each cell whether it is missing.

    A whole number beyond 2**53 is rounded, which cannot bring it into the range of any field. Truth values, dates and lists
    are no numbers.
    """
    column = _plain(column)
    if pa.types.is_string(column.type):
        return _text_numbers(column)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        numbers = _canonical(pc.cast(column, pa.float64(), safe=False))
        return numbers, np.isnan(numbers)
    return np.full(len(column), np.nan), column.is_null().to_numpy(zero_copy_only=False)


def identifier_texts(column: pa.Array) -> pa.Array:
    """Identifiers as text: 7, 7.0 and " 7 " are the same customer; a missing one is ""."""
    texts = pc.utf8_trim_whitespace(pc.fill_null(_texts(column), ""))
    if pc.any(pc.match_substring(texts, ".0")).as_py():
        texts = pc.replace_substring_regex(texts, r"^(-?\d+)\.0+$", r"\1")
    return texts


def python_value(cell: pa.Scalar) -> Any:
    """A cell's value; as text where Python has no such value, for example a day after the year 9999."""
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
    """A cell as a person reads it on one line; a missing one is ""."""
    if value is None:
        return ""
    text = str(value)
    return text if text.isprintable() else text.translate(_CONTROL)


def record_text(record: Mapping[str, object]) -> str:
    """One row's own cells as a line of JSON."""
    return json.dumps({name: cell_text(value) for name, value in record.items()}, ensure_ascii=False)


def fault_message(field: Field, value: object, rule: str) -> str:
    """What is wrong with a cell, and what would be accepted."""
    if rule == MISSING:
        return f"{field.name}: missing; valid: {field.valid}"
    return f"{field.name}: {str(value)[:60]!r} is {rule}; valid: {field.valid}"


_CONTROL = {code: repr(chr(code))[1:-1] for code in (*range(9), *range(11, 32), 127, 10)}


def _rules(field: Field) -> dict[str, Rule]:
    """What must hold of a field's numbers, where there are any: name of the rule, and a test that gives a truth value for each.

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
    """Equal numbers with equal bits: one kind of zero, and one of NaN, which stands for null too."""
    values: FloatArray = numbers.to_numpy(zero_copy_only=False) + 0.0
    values[np.isnan(values)] = np.nan
    return values


def _known_texts(column: pa.Array, field: Field) -> tuple[pa.Array, FloatArray, BoolArray]:
    """Text codes: the known ones (others null), their numbers (NaN), and for each cell whether it is missing."""
    codes = pa.array(list(field.codes or ()), pa.string())
    texts = pc.utf8_trim_whitespace(pc.fill_null(_texts(column), ""))
    places = pc.index_in(texts, codes)
    numbers = pc.cast(places, pa.float64()).to_numpy(zero_copy_only=False)
    missing = np.isnan(numbers)
    if missing.any():
        words = pc.utf8_lower(texts.filter(pa.array(missing)))
        missing[missing] = pc.is_in(words, pa.array(MISSING_WORDS)).to_numpy(zero_copy_only=False)
    return pc.take(codes, places), numbers, missing


def _texts(column: pa.Array) -> pa.Array:
    """Cells as text, null where missing; a whole number is written without a point."""
    column = _plain(column)
    if pa.types.is_string(column.type):
        return column
    if pa.types.is_integer(column.type):
        return pc.cast(column, pa.string())

    values = [python_value(cell) for cell in column]
    if pa.types.is_floating(column.type):
        values = [None if value is None or value != value else value for value in values]
        values = [int(value) if value is not None and float(value).is_integer() else value for value in values]
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _plain(column: pa.Array) -> pa.Array:
    """The same values in one of the usual types."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        return pc.cast(column, pa.string())
    return column
