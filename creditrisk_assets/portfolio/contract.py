"""What a customer record is: fields, types, units, ranges and codes.

Only plain values live here, so that the API process can import it without pandas. Checking rows against the contract is
`validation`; the data set itself is described in `uci_card`.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

FLOAT32_EXACT_INTEGER = 2**24
"""Largest magnitude up to which float32, the type of the decision graph's input, holds every whole number exactly."""


@dataclass(frozen=True)
class Field:
    """One whole-number field of a customer record.

    `codes` maps every allowed code to its meaning; a field without codes is a quantity between `minimum` and `maximum`.

    Raises:
        ValueError: if the range is empty, or holds whole numbers that float32 cannot tell apart.
    """

    name: str
    description: str
    unit: str
    minimum: int
    maximum: int
    codes: dict[int, str] | None = None

    def __post_init__(self) -> None:
        if self.minimum > self.maximum:
            raise ValueError(f"field {self.name}: minimum {self.minimum} is above maximum {self.maximum}")
        largest = max(abs(self.minimum), abs(self.maximum))
        if largest > FLOAT32_EXACT_INTEGER:
            raise ValueError(
                f"field {self.name}: {largest} cannot be held exactly by float32; valid: at most {FLOAT32_EXACT_INTEGER}"
            )
        if self.codes is not None and (min(self.codes) < self.minimum or max(self.codes) > self.maximum):
            raise ValueError(f"field {self.name}: a code lies outside {self.minimum}..{self.maximum}")

    @property
    def valid(self) -> str:
        """What would be accepted, in words."""
        if self.codes is not None:
            return "one of " + ", ".join(str(code) for code in sorted(self.codes))
        return f"a whole number from {self.minimum} to {self.maximum}" + (f" ({self.unit})" if self.unit else "")


@dataclass(frozen=True)
class Feature:
    """One column of the feature matrix; `monotone` is +1 where more of it may only raise the risk, -1 where only lower it."""

    name: str
    monotone: int = 0


@dataclass(frozen=True, eq=False)
class Portfolio:
    """Everything that is particular to one book of customers.

    `compute_features` is array-API code: it takes the raw matrix (rows x fields, float32, columns in contract order) and
    returns the feature matrix (rows x features, float32, columns in the order of `features`). It must not let a row's bits
    depend on its neighbours or on the processor: element-wise operations, and reductions only where their order cannot matter.
    """

    name: str
    identifier: str
    target: str
    fields: tuple[Field, ...]
    protected: tuple[str, ...]
    features: tuple[Feature, ...]
    compute_features: Callable[[Any], Any]
    performance_window_days: int

    @cached_property
    def field_names(self) -> list[str]:
        """Names of the fields in the order of the decision graph's input columns."""
        return [field.name for field in self.fields]

    @cached_property
    def feature_names(self) -> list[str]:
        """Names of the feature matrix's columns."""
        return [feature.name for feature in self.features]

    @cached_property
    def monotone_constraints(self) -> list[int]:
        """One of -1, 0, +1 for each feature."""
        return [feature.monotone for feature in self.features]


def canonical_name(header: str) -> str:
    """The contract's spelling of a column header: `PAY_0` and `default.payment.next.month` become `pay_0` and
    `default_payment_next_month`.
    """
    return re.sub(r"[^a-z0-9]+", "_", header.strip().lower()).strip("_")


def canonical_names(headers: Sequence[str]) -> list[str]:
    """Canonical spelling of a file's headers.

    Raises:
        ValueError: if two headers mean the same column.
    """
    names = [canonical_name(header) for header in headers]
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise ValueError(f"the header names a column twice: {', '.join(repeated)}")
    return names
