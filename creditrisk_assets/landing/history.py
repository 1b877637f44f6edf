"""The training history of the first model: a file of customers with their outcomes, or simulated
customers.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic import ImportString, TypeAdapter

from creditrisk_assets.landing.ingestion import ValidatedRows, validate_files
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.storage import file_sha256, store_errors, zone_path

SIMULATED_SOURCE = "simulated"
"""Prefix of the source of a simulated history."""


class NoHistory(FileNotFoundError):
    """The configured history file does not exist."""


class InvalidHistory(ValueError):
    """A row of a history file breaks the contract."""


@dataclass(frozen=True)
class History:
    """Validated history; `source` describes its origin, `sha256` is over the file or the simulated
    rows.
    """

    rows: ValidatedRows
    source: str
    sha256: str

    @property
    def is_simulated(self) -> bool:
        """Whether its customers were simulated."""
        return self.source.startswith(SIMULATED_SOURCE)


def read_history(raw_data: str, portfolio: Portfolio) -> History:
    """Read and validate a history file.

    Args:
        raw_data: its path or URI.
        portfolio: contract of the rows.

    Raises:
        NoHistory: if the file does not exist.
    """
    path = zone_path(raw_data)
    with store_errors(path):
        if not path.is_file():
            raise NoHistory(
                f"{raw_data!r} is no file; valid: a CSV or Parquet file of customers, or "
                "'simulated'"
            )
        sha256 = file_sha256(path)
    columns = [*portfolio.fields, portfolio.target_field]
    rows = validate_files([path], portfolio, columns, may_lack_identifier=True)
    return History(rows, f"file {path.name}", sha256)


def read_valid_history(raw_data: str, portfolio: Portfolio) -> History:
    """Read a history file in which every row must be valid.

    Args:
        raw_data: its path or URI.
        portfolio: contract of the rows.

    Raises:
        NoHistory: if the file does not exist.
        InvalidHistory: if a row is invalid; names the first one.
    """
    history = read_history(raw_data, portfolio)
    rejected = history.rows.rejected
    if len(rejected):
        first = rejected.iloc[0]
        raise InvalidHistory(
            f"{raw_data}, line {first['line']}: {first['message']} ({len(rejected)} problems in "
            "all)"
        )
    return history


def simulate_history(portfolio: Portfolio, rows: int, seed: int) -> History:
    """Simulate customers as history.

    Raises:
        NoHistory: if the portfolio has no simulator.
    """
    frame = simulator_of(portfolio)(rows, seed, 1)
    digest = hashlib.sha256(
        pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes()
    ).hexdigest()
    return History(
        ValidatedRows(frame, pd.DataFrame(), (), ()),
        f"{SIMULATED_SOURCE}, {rows:,} customers, seed {seed}",
        digest,
    )


def simulator_of(portfolio: Portfolio) -> Callable[[int, int, int], pd.DataFrame]:
    """Import the portfolio's simulator: rows, seed and first identifier in; identifier, fields and
    target out.

    Raises:
        NoHistory: if the portfolio has none.
    """
    if portfolio.simulator is None:
        raise NoHistory(
            f"portfolio {portfolio.name} has no simulator; valid: a file of its customers "
            "(CREDITRISK_RAW_DATA, --from)"
        )
    simulate: Callable[[int, int, int], pd.DataFrame] = TypeAdapter(
        ImportString[Any]
    ).validate_python(portfolio.simulator)
    return simulate
