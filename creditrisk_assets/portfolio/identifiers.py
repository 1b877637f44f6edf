"""Identifiers of customers: the same text for the same customer, whatever the type or spelling.

All inputs follow this rule: landed files, outcomes, history, `creditrisk score` and the API.
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
"""Largest magnitude up to which float64 distinguishes all whole numbers."""

UUID_BYTES = 16

WITHOUT_FRACTION = r"^(-?\d+)\.0+$"
"""Whole number from a column of floats: 7.0 is customer 7."""

ROUNDED = re.compile(r"[+-]?(\d+\.\d*e[+-]?\d+|\d+e\+\d+)", re.IGNORECASE | re.ASCII)
GROUPED = re.compile(r"-?[1-9]\d{0,2}\.000", re.ASCII)
FORMULA = re.compile(r'=".*"', re.DOTALL)
SUSPICIOUS = (".", "+", '="')
"""Every text that matches one of the patterns contains one of these."""


def identifier_of(value: object) -> str:
    """Identifier of a customer as text; "" if missing.

    Args:
        value: a cell of a file, or a value of JSON.

    Raises:
        ValueError: if the value is not a valid identifier; the message says why.
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
