"""The history that the first model learns from: a file with the UCI columns, or simulated customers."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.portfolio.simulator import simulate
from creditrisk_assets.portfolio.validation import ValidatedRows, target_field, validate_files


class NoHistory(FileNotFoundError):
    """The history file that the settings name is not there."""


@dataclass(frozen=True)
class History:
    """Validated history; `source` says what it was, `sha256` is over the file or over the simulated rows."""

    rows: ValidatedRows
    source: str
    sha256: str


def read_history(raw_data: str, portfolio: Portfolio) -> History:
    """Read and validate a history file.

    Raises:
        NoHistory: if it is not there.
    """
    path = Path(raw_data)
    if not path.is_file():
        raise NoHistory(
            f"CREDITRISK_RAW_DATA: {raw_data!r} is no file; valid: a CSV or Parquet file with the UCI columns, or 'simulated'"
        )
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    rows = validate_files([path], portfolio, [*portfolio.fields, target_field(portfolio)])
    return History(rows, f"file {path.name}", sha256)


def simulated_history(rows: int, seed: int) -> History:
    """Simulated customers as history."""
    frame = simulate(rows, seed)
    digest = hashlib.sha256(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes()).hexdigest()
    return History(ValidatedRows(frame, pd.DataFrame(), (), ()), f"simulated, {rows:,} customers, seed {seed}", digest)
