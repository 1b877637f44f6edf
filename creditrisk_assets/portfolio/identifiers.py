"""Identifiers of customers: one text for each customer, in whatever type or spelling it arrives.

The one rule of all doors: landed files, outcomes, history, `creditrisk score`, the API.
    `validation` applies it to columns.
"""

import re
import uuid
from decimal import Decimal

LONGEST_IDENTIFIER = 100
"""Characters."""

VALID_IDENTIFIER = (
    f"text of up to {LONGEST_IDENTIFIER} printable characters, a whole number or a UUID"
)

FLOAT64_EXACT_INTEGER = 2**53
"""Largest magnitude up to which float64 tells all whole numbers apart."""

UUID_BYTES = 16

WITHOUT_FRACTION = r"^(-?\d+)\.0+$"
"""A whole number as a column of floats prints it: 7.0 is customer 7."""

ROUNDED = re.compile(r"[+-]?(\d+\.\d*e[+-]?\d+|\d+e\+\d+)", re.IGNORECASE | re.ASCII)
GROUPED = re.compile(r"-?[1-9]\d{0,2}\.000", re.ASCII)
FORMULA = re.compile(r'=".*"', re.DOTALL)
SUSPICIOUS = (".", "+", '="')
"""Each text that one of the patterns refuses holds one of these."""


def identifier_of(value: object) -> str:
    """The text that names a customer; "" where there is none.

    Args:
        value: a cell of a file, or a value of JSON.

    Raises:
        ValueError: if the value names no customer; the message says why.
    """
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        raise ValueError("is a truth value")
    if isinstance(value, int):
        return f"{value:d}"
    if isinstance(value, float | Decimal):
        return _of_number(value)
    if isinstance(value, uuid.UUID):
        return f"{value}"
    if isinstance(value, bytes):
        try:
            return _of_text(value.decode())
        except UnicodeDecodeError:
            hint = (
                "; a UUID needs a column of Parquet's type UUID" if len(value) == UUID_BYTES else ""
            )
            raise ValueError(f"is bytes that are no UTF-8 text{hint}") from None
    if isinstance(value, str):
        return _of_text(value)
    raise ValueError(f"is of type {type(value).__name__}")


def _of_number(value: float | Decimal) -> str:
    if abs(value) == float("inf") or value % 1:
        raise ValueError("is not a whole number")
    if isinstance(value, float) and abs(value) > FLOAT64_EXACT_INTEGER:
        raise ValueError("is a float too large to tell neighbouring whole numbers apart")
    return f"{int(value):d}"


def _of_text(value: str) -> str:
    text = value.strip()
    if len(text) > LONGEST_IDENTIFIER:
        raise ValueError(f"has {len(text):,} characters")
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    if ROUNDED.fullmatch(text):
        raise ValueError(
            "is in scientific notation, as spreadsheets round long numbers; export the column as "
            "text"
        )
    if GROUPED.fullmatch(text):
        raise ValueError(
            f"is ambiguous: {text[:-4]}, or {text.replace('.', '')} with a point between thousands"
        )
    if FORMULA.fullmatch(text):
        raise ValueError(f"is a spreadsheet formula; export the column as text: {text[2:-1]}")
    return re.sub(WITHOUT_FRACTION, r"\1", text, flags=re.ASCII)
