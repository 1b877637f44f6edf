"""Conversion between records and the decision graph's input, a float32 matrix with columns in
contract order.

Training, batch and the API all encode here; text codes become numbers by the field's own table.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.portfolio.contract import Code, Kind


class EncodedField(Protocol):
    """Field of the contract or of a bundle's manifest, as far as encoding needs it."""

    @property
    def name(self) -> str:
        """The column."""

    @property
    def is_text(self) -> bool:
        """Whether the values are text codes."""

    @property
    def code_numbers(self) -> Mapping[Any, float]:
        """Number of each code."""


class DecodedField(EncodedField, Protocol):
    """Encoded field, as far as decoding needs it."""

    @property
    def kind(self) -> Kind:
        """Kind of the values."""


def raw_matrix(
    columns: Mapping[str, Any] | Any, fields: Sequence[EncodedField]
) -> NDArray[np.float32]:
    """Encode records that satisfy the contract.

    Args:
        columns: values of each field: a frame, or a mapping of sequences of equal length. Missing
            values are None or NaN.
        fields: the columns, in order.

    Returns:
        rows x fields, float32; NaN where a value is missing.

    Raises:
        ValueError: if a text is not a known code.
    """
    encoded = [_numbers(columns[field.name], field) for field in fields]
    return np.ascontiguousarray(np.stack(encoded, axis=1), dtype=np.float32)


class RowEncoder:
    """Encoder of a few records at a time, given as mappings: the same numbers as `raw_matrix`,
    without its cost for each column.

    Args:
        fields: the columns, in order.
    """

    def __init__(self, fields: Sequence[EncodedField]) -> None:
        self._names = [field.name for field in fields]
        self._tables = {
            place: (field.name, field.code_numbers)
            for place, field in enumerate(fields)
            if field.is_text
        }

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
        """Encode records with a value for every field, None if missing."""
        rows: list[list[Any]] = [[record[name] for name in self._names] for record in records]
        for place, (name, table) in self._tables.items():
            for row in rows:
                row[place] = _code_number(name, table, row[place])
        return (
            np.array(rows, dtype=np.float64).reshape(len(rows), len(self._names)).astype(np.float32)
        )


def _code_number(name: str, table: Mapping[Any, float], text: str | None) -> float:
    if text is None:
        return np.nan
    number = table.get(text)
    if number is None:
        raise ValueError(_unknown_code(name, text, table))
    return number


def _unknown_code(name: str, text: object, table: Mapping[Any, float]) -> str:
    return f"{name}: {text!r} is not a known code; valid: one of {', '.join(map(str, table))}"


def _numbers(values: Any, field: EncodedField) -> NDArray[np.float32]:
    if not field.is_text:
        return np.asarray(values, dtype=np.float64).astype(np.float32)
    table = field.code_numbers
    texts = np.asarray(values, dtype=object)
    distinct, places = np.unique(texts.astype(str), return_inverse=True)
    numbers = np.array([table.get(text, np.nan) for text in distinct.tolist()], dtype=np.float32)[
        places.reshape(-1)
    ]
    missing = np.array([not isinstance(text, str) for text in texts.tolist()], dtype=bool)
    unknown = np.isnan(numbers) & ~missing
    if unknown.any():
        raise ValueError(_unknown_code(field.name, texts[unknown][0], table))
    numbers[missing] = np.nan
    return numbers


def record_of(
    row: Sequence[float | None], fields: Sequence[DecodedField]
) -> dict[str, Code | float | None]:
    """Decode a row of the matrix into its record, which encodes to the same bits again.

    Args:
        row: a number for each field; None or NaN if missing.
        fields: the columns, in order.
    """
    return {field.name: _value(number, field) for number, field in zip(row, fields, strict=True)}


def _value(number: float | None, field: DecodedField) -> Code | float | None:
    if number is None or np.isnan(number):
        return None
    if field.is_text:
        return next(str(code) for code, place in field.code_numbers.items() if place == number)
    if field.kind == "decimal":
        return float(str(np.float32(number)))  # the shortest decimal of this float32
    return int(number)
