"""From the values of a record to the decision graph's input: one float32 matrix, columns in
contract order; and back.

Training, batch and the API all encode here; text codes become numbers by the field's own table.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.portfolio.contract import Code, Kind


class Encoded(Protocol):
    """What encoding needs to know of a field: of the contract, or of a bundle's manifest."""

    @property
    def name(self) -> str:
        """The column."""

    @property
    def is_text(self) -> bool:
        """Whether its values are text codes."""

    @property
    def code_numbers(self) -> Mapping[Any, float]:
        """The number of each code."""


class Decoded(Encoded, Protocol):
    """What decoding needs to know of a field besides."""

    @property
    def kind(self) -> Kind:
        """What its values are."""


def raw_matrix(columns: Mapping[str, Any] | Any, fields: Sequence[Encoded]) -> NDArray[np.float32]:
    """Encode records that satisfy the contract.

    Args:
        columns: for each field, its values: a frame, or a mapping of sequences of equal length.
            What is missing is None or NaN.
        fields: the columns wanted, in order.

    Returns:
        rows x fields, float32; NaN where a value is missing.

    Raises:
        ValueError: if a text is not a known code.
    """
    encoded = [_numbers(columns[field.name], field) for field in fields]
    return np.ascontiguousarray(np.stack(encoded, axis=1), dtype=np.float32)


class RowEncoder:
    """Encodes a few records at a time, given as mappings: the same numbers as `raw_matrix`, without
    its cost for each column.

    Args:
        fields: the columns wanted, in order.
    """

    def __init__(self, fields: Sequence[Encoded]) -> None:
        self._names = [field.name for field in fields]
        self._tables = {
            place: (field.name, field.code_numbers)
            for place, field in enumerate(fields)
            if field.is_text
        }

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
        """Encode records that satisfy the contract.

        Args:
            records: of each a value for every field, None where one is missing.

        Returns:
            rows x fields, float32; NaN where a value is missing.

        Raises:
            ValueError: if a text is not a known code.
        """
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
        raise ValueError(_stranger(name, text, table))
    return number


def _stranger(name: str, text: object, table: Mapping[Any, float]) -> str:
    return f"{name}: {text!r} is not a known code; valid: one of {', '.join(map(str, table))}"


def _numbers(values: Any, field: Encoded) -> NDArray[np.float32]:
    if not field.is_text:
        return np.asarray(values, dtype=np.float64).astype(np.float32)
    table = field.code_numbers
    texts = np.asarray(values, dtype=object)
    known, places = np.unique(texts.astype(str), return_inverse=True)
    numbers = np.array([table.get(text, np.nan) for text in known.tolist()], dtype=np.float32)[
        places.reshape(-1)
    ]
    missing = np.array([not isinstance(text, str) for text in texts.tolist()], dtype=bool)
    strangers = np.isnan(numbers) & ~missing
    if strangers.any():
        raise ValueError(_stranger(field.name, texts[strangers][0], table))
    numbers[missing] = np.nan
    return numbers


def record_of(
    row: Sequence[float | None], fields: Sequence[Decoded]
) -> dict[str, Code | float | None]:
    """The record of which a row of the matrix was made; encoded again it gives the same bits.

    Args:
        row: one number for each field; None or NaN where a value is missing.
        fields: the columns, in order.
    """
    return {field.name: _value(number, field) for number, field in zip(row, fields, strict=True)}


def _value(number: float | None, field: Decoded) -> Code | float | None:
    if number is None or np.isnan(number):
        return None
    if field.is_text:
        return next(str(code) for code, place in field.code_numbers.items() if place == number)
    if field.kind == "decimal":
        return float(str(np.float32(number)))  # the shortest decimal number that is this float32
    return int(number)
