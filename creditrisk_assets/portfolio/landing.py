"""The landing zone: which files have arrived for which day, and reading one of them row by row.

A file is read as text, so that one bad cell costs one row and not the file. What the cells must hold is `validation`'s matter.
"""

import codecs
import csv
import datetime
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from creditrisk_assets.portfolio.contract import canonical_names

DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
SUFFIXES = (".csv", ".parquet")
NO_ROWS = "the file has a header and no rows; valid: at least one row"


class UnreadableFile(ValueError):
    """A landed file that cannot be read as a table at all; the message says why."""


@dataclass(frozen=True)
class LandedFile:
    """One data file of one day, as the directory listing shows it."""

    path: Path
    size: int
    modified: float


@dataclass(frozen=True)
class DayListing:
    """What one day's folder holds, or why it cannot be listed."""

    day: str
    files: tuple[LandedFile, ...]
    problem: str | None = None


@dataclass(frozen=True)
class RawRows:
    """The rows of one file before validation.

    `cells` has canonical column names and the file's own values; `headers` are the file's own column names; `lines` gives each
    row's line in the file (its row number for Parquet, from 1); `malformed` lists lines that are no rows at all, with what is
    wrong and their text.
    """

    file: str
    cells: pd.DataFrame
    headers: list[str]
    lines: list[int]
    malformed: list[tuple[int, str, str]]

    @property
    def count(self) -> int:
        """How many rows the file held, readable or not."""
        return len(self.lines) + len(self.malformed)


def is_day(name: str) -> bool:
    """Whether a folder's name is a calendar day written `YYYY-MM-DD`."""
    if DAY.fullmatch(name) is None:
        return False
    try:
        datetime.date.fromisoformat(name)
    except ValueError:
        return False
    return True


def list_day(folder: Path) -> DayListing:
    """The data files in one day's folder, by name; hidden files and other suffixes are not data and are passed over.

    A folder or file that cannot be looked at is reported in `problem`, never taken for an empty day.
    """
    files = []
    try:
        for path in sorted(folder.iterdir()):
            if path.name.startswith((".", "~", "_")) or path.suffix.lower() not in SUFFIXES:
                continue
            if path.is_symlink():
                return DayListing(folder.name, (), f"{path.name} is a link; only regular files are read")
            if path.is_file():
                status = path.stat()
                files.append(LandedFile(path, status.st_size, status.st_mtime))
    except OSError as error:
        return DayListing(folder.name, (), f"{folder}: {error.strerror}")
    return DayListing(folder.name, tuple(files))


def list_days(zone: Path) -> tuple[list[DayListing], list[str]]:
    """Every day of a landing zone in order, and the names of folders that are not days.

    A zone that does not exist yet is empty.
    """
    if not zone.exists():
        return [], []
    folders = sorted(entry for entry in zone.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    days = [list_day(folder) for folder in folders if is_day(folder.name)]
    strangers = [folder.name for folder in folders if not is_day(folder.name)]
    return [day for day in days if day.files or day.problem], strangers


def content_digest(paths: Sequence[Path]) -> str:
    """SHA-256 over the names and contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name}\0{content}\n".encode())
    return digest.hexdigest()


def read_rows(path: Path) -> RawRows:
    """Read one CSV or Parquet file without judging its cells.

    CSV is UTF-8 with or without a byte-order mark, separated by commas or semicolons.

    Raises:
        UnreadableFile: if it is empty, not text, not Parquet, has no rows, or names a column twice.
    """
    if path.stat().st_size == 0:
        raise UnreadableFile("the file is empty; valid: a header line and at least one row")
    rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    if rows.count == 0:
        raise UnreadableFile(NO_ROWS)
    return rows


def _read_parquet(path: Path) -> RawRows:
    try:
        table = pq.ParquetFile(path).read()
        names = canonical_names(table.column_names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableFile(f"not a readable Parquet file: {error}") from error
    lines = list(range(1, table.num_rows + 1))
    cells = table.rename_columns(names).to_pandas(integer_object_nulls=True)  # a missing one must not turn the others into floats
    return RawRows(path.name, cells, table.column_names, lines, [])


def _read_csv(path: Path) -> RawRows:
    _require_utf8(path)
    header, delimiter = _read_header(path)
    try:
        names = canonical_names(header)
    except ValueError as error:
        raise UnreadableFile(str(error)) from error

    skipped: dict[int, tuple[str, str]] = {}

    def set_aside(row: Any) -> str:
        skipped[row.number] = (f"{row.actual_columns} cells where the header has {row.expected_columns}", row.text)
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=1, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False, invalid_row_handler=set_aside),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=False
            ),
        )
    except pa.ArrowException as error:
        raise UnreadableFile(f"not a readable CSV file: {error}") from error
    lines = [line for line in range(2, 2 + table.num_rows + len(skipped)) if line not in skipped]
    malformed = [(line, why, text) for line, (why, text) in sorted(skipped.items())]
    cells = table.to_pandas()
    blank = (cells == "").all(axis=1).to_numpy()  # an empty line is no row
    return RawRows(
        path.name,
        cells[~blank].reset_index(drop=True),
        [name.strip() for name in header],
        [line for line, empty in zip(lines, blank, strict=True) if not empty],
        malformed,
    )


def _require_utf8(path: Path) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    read = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                raise UnreadableFile(
                    f"not a text file: byte {error.object[error.start]:#04x} near position {read + error.start}; valid: UTF-8 CSV"
                ) from error
            read += len(block)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise UnreadableFile("not a text file: it ends within a character; valid: UTF-8 CSV") from error


def _read_header(path: Path) -> tuple[list[str], str]:
    with path.open("rb") as file:
        text = file.readline(1 << 20).decode("utf-8-sig", errors="replace")
        rest = file.read(1)
    if "\0" in text:
        raise UnreadableFile("not a text file: the first line holds a zero byte; valid: UTF-8 CSV")
    delimiter = ";" if text.count(";") > text.count(",") else ","
    try:
        cells = next(csv.reader([text], delimiter=delimiter), [])
    except csv.Error as error:
        raise UnreadableFile(f"the first line {text[:60]!r} is no header: {error}") from error
    if len(cells) < 2:
        raise UnreadableFile(f"the first line {text.strip()[:60]!r} is no header; valid: column names separated by , or ;")
    if not rest:
        raise UnreadableFile(NO_ROWS)
    return cells, delimiter


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file so that it appears whole or not at all, on disk before it has its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_quarantine(folder: Path, rejected: pd.DataFrame) -> Path | None:
    """Write a day's rejected rows to `<folder>/rejected.csv`; with nothing rejected, an older file is removed.

    Returns:
        Where they are, or None if nothing was rejected.
    """
    path = folder / "rejected.csv"
    if rejected.empty:
        path.unlink(missing_ok=True)
        return None
    with replacing(path) as file:
        rejected.to_csv(file, index=False)
    return path


def land(folder: Path, name: str, frame: pd.DataFrame) -> Path:
    """Put a frame into a day's landing folder as a CSV file that appears whole or not at all."""
    path = folder / name
    with replacing(path) as file:
        frame.to_csv(file, index=False)
    return path


def record_text(record: dict[str, Any]) -> str:
    """One row's own cells as a line of JSON."""
    return json.dumps({name: str(value) for name, value in record.items()}, ensure_ascii=False)
