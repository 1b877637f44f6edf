"""Ingestion of a day's files, or of a history file, into one Parquet file of accepted rows and one
CSV file of rejected rows.

Every row that arrives is accepted, rejected with a reason, or an exact duplicate. Memory hardly
depends on the number of rows: batches are validated and written one by one, and the search for
duplicates works on disk (`duplicates`). The accepted rows are written a second time only if there
are duplicates, or if a file turns out to be unreadable after some of its rows were written.

Files count in the order given, and rows in the order of the file: the later observation of a
customer is that of the later file, and within a file that of the later line. The same files give
the same bytes.
"""

import csv
import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from creditrisk_assets.landing.duplicates import DuplicateRule, Duplicates, RowHashes
from creditrisk_assets.landing.table_reader import (
    BATCH_ROWS,
    RawBatch,
    TableStream,
    UnreadableFile,
    read_batches,
)
from creditrisk_assets.landing.validation import (
    MISSING,
    VALUE_SHOWN,
    CheckedBatch,
    RefusedColumns,
    RowCheck,
    accepted_arrays,
    cell_text,
    python_records,
    record_text,
    require_columns,
)
from creditrisk_assets.portfolio.columns import arrow_type
from creditrisk_assets.portfolio.contract import Field, Portfolio
from creditrisk_assets.storage import StoredPath

REJECTED_COLUMNS = ["file", "line", "field", "value", "rule", "message", "rows", "record"]
"""Columns of a quarantine file, one entry for each fault. Where a file is rejected as a whole,
`line` is 0 and `rows` the number of its rows. `record` holds the row's cells, in its first entry
only.
"""

MALFORMED = "malformed line"
SUPERSEDED = "superseded"
UNKNOWN_CUSTOMER = "unknown customer"
UNREADABLE = "unreadable file"

VERSION = "version"
FIRST_REJECTED = 20
ENTRIES_CHUNK_ROWS = 4_096
"""Number of rejected rows whose entries are built at a time."""

Entry = tuple[str, int, str, str, str, str, int, str]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Reconciliation:
    """Row counts of one file: `rows_in` = `accepted` + `rejected` + `duplicates`."""

    file: str
    rows_in: int
    accepted: int
    rejected: int
    duplicates: int

    @property
    def holds(self) -> bool:
        """Whether every row is accounted for."""
        return self.rows_in == self.accepted + self.rejected + self.duplicates


class _RowTotals:
    """Row counts of several files, added up."""

    files: tuple[Reconciliation, ...]

    @property
    def rows_in(self) -> int:
        """Rows that arrived."""
        return sum(file.rows_in for file in self.files)

    @property
    def rejected_rows(self) -> int:
        """Rejected rows, each counted once however many faults it has."""
        return sum(file.rejected for file in self.files)

    @property
    def duplicates(self) -> int:
        """Exact duplicates of other rows."""
        return sum(file.duplicates for file in self.files)

    @property
    def rejected_share(self) -> float:
        """Share of rejected rows in all that arrived. Without any row it is 1.0 if a file could not
        be read, else 0.0.
        """
        if self.rows_in == 0:  # a file that can be read has a row
            return 1.0 if self.files else 0.0
        return self.rejected_rows / self.rows_in


@dataclass(frozen=True)
class IngestResult(_RowTotals):
    """Result of an ingestion.

    Attributes:
        accepted_file: local Parquet file of the identifier and the fields (and `version`), see
            `accepted_schema`.
        rejected_file: local CSV file with `REJECTED_COLUMNS`, in the order of files and lines,
            superseded rows after the others; None if nothing was rejected.
        rows: number of accepted rows.
        files: row counts of each file; an unreadable file has no rows.
        first_rejected: at most 20 rows of the rejected file.
        unreadable_files: names of files that are not tables.
        ignored_columns: columns of the files that are not in the contract.
    """

    accepted_file: Path
    rejected_file: Path | None
    rows: int
    files: tuple[Reconciliation, ...]
    first_rejected: pd.DataFrame
    unreadable_files: tuple[str, ...]
    ignored_columns: tuple[str, ...]


@dataclass(frozen=True)
class ValidatedRows(_RowTotals):
    """Result of an ingestion in memory: `accepted` has the identifier and the fields, `rejected`
    has `REJECTED_COLUMNS`.
    """

    accepted: pd.DataFrame
    rejected: pd.DataFrame
    files: tuple[Reconciliation, ...]
    ignored_columns: tuple[str, ...]


def accepted_schema(
    portfolio: Portfolio, fields: Sequence[Field], duplicate_rule: DuplicateRule = "last_wins"
) -> pa.Schema:
    """Schema of the accepted rows: whole numbers and numeric codes int64, decimals float64, texts
    and identifier string.
    """
    columns = [
        (portfolio.identifier, pa.string()),
        *((field.name, arrow_type(field)) for field in fields),
    ]
    return pa.schema([*columns, (VERSION, pa.int64())] if duplicate_rule == "versions" else columns)


def ingest(
    paths: Sequence[StoredPath],
    portfolio: Portfolio,
    fields: Sequence[Field],
    folder: Path,
    *,
    duplicate_rule: DuplicateRule = "last_wins",
    known_customers: pd.Index | None = None,
    may_lack_identifier: bool = False,
) -> IngestResult:
    """Validate files and write the accepted and the rejected rows.

    Args:
        paths: CSV or Parquet files, in order.
        portfolio: contract of the identifier column.
        fields: the columns to read, apart from the identifier.
        folder: a local folder for the results and for temporary files.
        duplicate_rule: treatment of several rows of one customer. `last_wins`: the last row counts;
            an earlier row equal to it is an exact duplicate, an earlier row with other values is
            rejected as superseded. `versions`: all rows stay, numbered from 1 in the column
            `version`, except a row equal to the customer's previous row, which is an exact
            duplicate.
        known_customers: identifiers as text; rows of any other customer are rejected.
        may_lack_identifier: whether a file with published column names may lack the identifier;
            its customers are then numbered by their rows, from 1.

    Raises:
        OSError: if a file cannot be opened or its store fails while it is read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _Ingestion(
        portfolio, tuple(fields), folder, duplicate_rule, known_customers, may_lack_identifier
    ) as work:
        for path in paths:
            work.add_file(path)
        return work.finish()


def validate_files(
    paths: Sequence[StoredPath],
    portfolio: Portfolio,
    fields: Sequence[Field],
    *,
    may_lack_identifier: bool = False,
) -> ValidatedRows:
    """Validate the files of one day, or a history file, in memory; the last row of each customer
    counts. See `ingest`.
    """
    with tempfile.TemporaryDirectory(prefix="creditrisk-") as folder:
        result = ingest(
            paths, portfolio, fields, Path(folder), may_lack_identifier=may_lack_identifier
        )
        accepted = pq.read_table(result.accepted_file).to_pandas()
        rejected = (
            result.first_rejected.iloc[:0]
            if result.rejected_file is None
            else read_rejected(result.rejected_file)
        )
    return ValidatedRows(accepted, rejected, result.files, result.ignored_columns)


def read_rejected(path: StoredPath) -> pd.DataFrame:
    """Read a quarantine file: `REJECTED_COLUMNS`, `line` and `rows` int64, the others text."""
    types = {name: "int64" if name in ("line", "rows") else "str" for name in REJECTED_COLUMNS}
    with path.open("rb") as file:
        return pd.read_csv(file, dtype=types, keep_default_na=False)


class _Ingestion:
    """An ingestion in progress: the output so far, and the state needed to finish."""

    def __init__(
        self,
        portfolio: Portfolio,
        fields: tuple[Field, ...],
        folder: Path,
        duplicate_rule: DuplicateRule,
        known_customers: pd.Index | None,
        may_lack_identifier: bool,
    ) -> None:
        self.portfolio = portfolio
        self.identifier = portfolio.identifier
        self.fields = fields
        self.column_names = [portfolio.identifier, *(field.name for field in fields)]
        self.codes = [field.name for field in fields if field.codes is not None]
        self.duplicate_rule = duplicate_rule
        self.may_lack_identifier = may_lack_identifier
        self.schema = accepted_schema(portfolio, fields, duplicate_rule)
        self.known_customers = None if known_customers is None else _KnownCustomers(known_customers)
        self.check = RowCheck(fields, portfolio.identifier)
        self.folder = folder
        self.files: list[Reconciliation] = []
        self.starts: list[int] = []
        self.ignored: set[str] = set()
        self.unreadable: list[str] = []
        self.rolled_back_rows: list[tuple[int, int]] = []
        self.first_rejected: list[Entry] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        aside = tempfile.TemporaryDirectory(dir=self.folder, prefix=".aside-")
        scratch = Path(self._stack.enter_context(aside))
        self.staged = self._stack.enter_context(
            _RowGroups(scratch / "staged.parquet", self.schema, self.codes)
        )
        self.rewritten = scratch / "rewritten.parquet"
        self.rejected_path = scratch / "rejected.csv"
        self.rejected: BinaryIO = self._stack.enter_context(self.rejected_path.open("wb"))
        self._write([tuple(REJECTED_COLUMNS)])
        self.row_hashes = self._stack.enter_context(RowHashes(scratch))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # First pass, file by file

    def add_file(self, path: StoredPath) -> None:
        """Validate a file's rows and write them to the accepted or the rejected rows."""
        staged, rejected_bytes = self.staged.rows, self.rejected.tell()
        first_rejected = len(self.first_rejected)
        self.starts.append(staged)
        try:
            with read_batches(path, BATCH_ROWS, self.portfolio) as stream:
                counts = self._rows(stream)
        except UnreadableFile as error:  # the file's output so far is undone
            if self.staged.rows > staged:
                self.rolled_back_rows.append((staged, self.staged.rows))
            self.rejected.truncate(rejected_bytes)
            self.rejected.seek(rejected_bytes)
            del self.first_rejected[first_rejected:]
            self._reject([(path.name, 0, "", "", UNREADABLE, str(error), 0, "")])
            self.unreadable.append(path.name)
            counts = Reconciliation(path.name, 0, 0, 0, 0)
        self.files.append(counts)

    def _rows(self, stream: TableStream) -> Reconciliation:
        numbered = (
            self.may_lack_identifier
            and stream.has_published_names
            and self.identifier not in stream.names
        )
        try:
            require_columns(stream.schema, self.column_names[1:] if numbered else self.column_names)
        except RefusedColumns as error:
            rows = sum(batch.count for batch in stream)
            self._reject(
                [(stream.file, 0, ", ".join(error.names), "", error.rule, f"{error}", rows, "")]
            )
            return Reconciliation(stream.file, rows, 0, rows, 0)
        rows_in = accepted = 0
        for batch in stream:
            if numbered:  # row numbers are the identifiers
                numbers = np.arange(rows_in + 1, rows_in + 1 + batch.cells.num_rows)
                cells = batch.cells.append_column(self.identifier, pa.array(numbers, pa.int64()))
                batch = replace(batch, cells=cells)
            accepted += self._batch(batch)
            rows_in += batch.count
        self.ignored.update(name for name in stream.names if name not in self.column_names)
        return Reconciliation(stream.file, rows_in, accepted, rows_in - accepted, 0)

    def _batch(self, batch: RawBatch) -> int:
        """Validate one batch; returns the number of accepted rows."""
        checked = self.check(batch.cells)
        identifiers = checked.identifiers
        names = identifiers.to_numpy(zero_copy_only=False)
        faulty = _fault_mask(checked, self.identifier)
        anonymous = (names == "") & ~faulty
        unknown = np.zeros(len(names), dtype=bool)
        if self.known_customers is not None:
            unknown = ~self.known_customers.contains(names) & ~anonymous & ~faulty
        good = checked.good & ~anonymous & ~unknown
        if batch.malformed or not good.all():
            for entries in self._entries(batch, checked, anonymous, unknown, good):
                self._reject(entries)
        accepted = int(good.sum())
        if accepted:
            all_good = accepted == len(good)
            arrays = accepted_arrays(checked, self.fields, None if all_good else good)
            columns = [identifiers if all_good else identifiers.filter(pa.array(good)), *arrays]
            if self.duplicate_rule == "versions":
                columns.append(pa.array(np.ones(accepted, dtype=np.int64)))
            self.staged.write(pa.RecordBatch.from_arrays(columns, schema=self.schema))
            self.row_hashes.add(names, list(checked.numbers.values()), batch.lines, good)
        return accepted

    def _entries(
        self,
        batch: RawBatch,
        checked: CheckedBatch,
        anonymous: NDArray[np.bool_],
        unknown: NDArray[np.bool_],
        good: NDArray[np.bool_],
    ) -> Iterator[list[Entry]]:
        """Entries for a batch's rejected rows and malformed lines, in order of lines."""
        cells = batch.cells.select(self.column_names)
        names = checked.identifiers.to_numpy(zero_copy_only=False)
        malformed = [
            (batch.file, line, "", "", MALFORMED, why, 1, text)
            for line, why, text in batch.malformed
        ]
        bad = np.flatnonzero(~good)
        faults = checked.faults
        done = 0
        for start in range(0, max(len(bad), 1), ENTRIES_CHUNK_ROWS):
            rows = bad[start : start + ENTRIES_CHUNK_ROWS]
            entries: list[Entry] = []
            records = python_records(cells.take(pa.array(rows)))
            first = np.searchsorted(faults.rows, rows).tolist()
            last = np.searchsorted(faults.rows, rows, side="right").tolist()
            for row, record, begin, end in zip(rows.tolist(), records, first, last, strict=True):
                row_faults: list[tuple[str, str, str]] = []
                if anonymous[row]:
                    message = self.check.message(self.identifier, None, MISSING)
                    row_faults.append((self.identifier, MISSING, message))
                if unknown[row] and self.known_customers is not None:
                    message = (
                        f"{self.identifier}: {names[row][:VALUE_SHOWN]!r} is no known customer"
                        f"{self.known_customers.similar(names[row])}; valid: one who was in the "
                        "day's data"
                    )
                    row_faults.append((self.identifier, UNKNOWN_CUSTOMER, message))
                for kind in faults.kinds[begin:end].tolist():
                    name, rule = faults.table[kind]
                    row_faults.append((name, rule, self.check.message(name, record[name], rule)))
                line, text = int(batch.lines[row]), record_text(record)
                for name, rule, message in row_faults:
                    value = cell_text(record[name])
                    entries.append((batch.file, line, name, value, rule, message, 1, text))
                    text = ""
            until = int(batch.lines[rows[-1]]) if start + ENTRIES_CHUNK_ROWS < len(bad) else None
            while done < len(malformed) and (until is None or malformed[done][1] < until):
                entries.append(malformed[done])
                done += 1
            yield sorted(entries, key=lambda entry: entry[1])

    def _reject(self, entries: Sequence[Entry]) -> None:
        self.first_rejected += entries[: max(0, FIRST_REJECTED - len(self.first_rejected))]
        self._write(entries)

    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self.rejected.write(text.getvalue().encode("utf-8", "backslashreplace"))

    # Second pass, all files together

    def finish(self) -> IngestResult:
        """Resolve customers with several rows and write the results."""
        self.staged.close()
        self.row_hashes.close()
        valid = np.ones(self.staged.rows, dtype=bool)
        for start, stop in self.rolled_back_rows:
            valid[start:stop] = False
        found = self.row_hashes.find_duplicates(valid, self.duplicate_rule)
        self._recount(found)
        rows, accepted_path = self.staged.rows, self.staged.path
        if found.any or self.rolled_back_rows:
            accepted_path = self.rewritten
            rows = self._rewrite(valid & ~found.duplicate & ~found.superseded, found)
        self.rejected.close()
        rejected_file = None
        if self.first_rejected:
            rejected_file = self.rejected_path.replace(self.folder / "rejected.csv")
        return IngestResult(
            accepted_file=accepted_path.replace(self.folder / "accepted.parquet"),
            rejected_file=rejected_file,
            rows=rows,
            files=tuple(self.files),
            first_rejected=pd.DataFrame(self.first_rejected, columns=REJECTED_COLUMNS),
            unreadable_files=tuple(self.unreadable),
            ignored_columns=tuple(sorted(self.ignored)),
        )

    def _rewrite(self, final: BoolArray, duplicates: Duplicates) -> int:
        """Write the final staged rows again and reject the superseded rows; returns the number of
        final rows.
        """
        names = np.array([file.file for file in self.files], dtype=object)
        start = 0
        with _RowGroups(self.rewritten, self.schema, self.codes) as result:
            for batch in _row_groups(self.staged.path):
                stop = start + batch.num_rows
                places = np.flatnonzero(duplicates.superseded[start:stop])
                if len(places):
                    files = names[np.searchsorted(self.starts, start + places, side="right") - 1]
                    lines = self.row_hashes.lines(start, batch.num_rows)[places].tolist()
                    found = zip(files, lines, batch.take(pa.array(places)).to_pylist(), strict=True)
                    self._reject(
                        [self._superseded(file, line, record) for file, line, record in found]
                    )
                if duplicates.version is not None:
                    version = pa.array(duplicates.version[start:stop].astype(np.int64))
                    batch = batch.set_column(len(self.column_names), VERSION, version)
                if final[start:stop].any():
                    result.write(batch.filter(pa.array(final[start:stop])))
                start = stop
        return result.rows

    def _superseded(self, file: str, line: int, record: dict[str, Any]) -> Entry:
        customer = record[self.identifier]
        message = (
            f"{self.identifier}: customer {customer[:60]!r} stands again later in the day with "
            "other values; valid: one row for each customer"
        )
        value, text = cell_text(customer), record_text(record)
        return (file, line, self.identifier, value, SUPERSEDED, message, 1, text)

    def _recount(self, duplicates: Duplicates) -> None:
        """Move duplicate and superseded rows out of the `accepted` counts."""
        for place, (start, stop) in enumerate(pairwise([*self.starts, self.staged.rows])):
            file = self.files[place]
            same = int(duplicates.duplicate[start:stop].sum())
            other = int(duplicates.superseded[start:stop].sum())
            self.files[place] = replace(
                file,
                accepted=file.accepted - same - other,
                rejected=file.rejected + other,
                duplicates=same,
            )


class _KnownCustomers:
    """Lookup of known customers."""

    def __init__(self, customers: pd.Index) -> None:
        self._customers = customers.unique()
        self._without_zeros: pd.Series | None = None

    def contains(self, names: NDArray[np.object_]) -> BoolArray:
        """Mask of the names that are known."""
        return np.asarray(self._customers.get_indexer(pd.Index(names)) >= 0)

    def similar(self, name: str) -> str:
        """Hint at a known customer whose identifier differs only in leading zeros; else ""."""
        if self._without_zeros is None:
            texts = pd.Series(self._customers, index=self._customers.astype("str").str.lstrip("0"))
            self._without_zeros = texts[~texts.index.duplicated()]
        bare = name.lstrip("0")
        known = self._without_zeros.get(bare) if bare else None
        if known is None:
            return ""
        how = "without its leading zeros" if len(name) < len(known) else "with leading zeros"
        return f": it looks like {known!r} {how}"


def _fault_mask(checked: CheckedBatch, name: str) -> BoolArray:
    """Mask of the rows in which a column has a fault."""
    mask = np.zeros(len(checked.good), dtype=bool)
    kinds = [place for place, (column, _) in enumerate(checked.faults.table) if column == name]
    mask[checked.faults.rows[np.isin(checked.faults.kinds, kinds)]] = True
    return mask


class _RowGroups:
    """Writer of a Parquet file in row groups of about `BATCH_ROWS`, whatever the batches' size."""

    def __init__(self, path: Path, schema: pa.Schema, repetitive: Sequence[str]) -> None:
        self.path = path
        self.rows = 0
        self._schema = schema
        # A dictionary for any other column costs twice the time without benefit.
        self._writer = pq.ParquetWriter(path, schema, use_dictionary=list(repetitive))
        self._waiting: list[pa.RecordBatch] = []
        self._rows_waiting = 0

    def write(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        self._waiting.append(batch)
        self._rows_waiting += batch.num_rows
        if self._rows_waiting >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(
                pa.Table.from_batches(self._waiting, self._schema), row_group_size=BATCH_ROWS
            )
        self._waiting, self._rows_waiting = [], 0

    def close(self) -> None:
        if self._writer.is_open:
            self._flush()
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _row_groups(path: Path) -> Iterator[pa.RecordBatch]:
    """Row groups of a Parquet file one by one; `iter_batches` would hold all of them in memory."""
    with pq.ParquetFile(path) as file:
        for place in range(file.num_row_groups):
            yield from file.read_row_group(place, use_threads=False).combine_chunks().to_batches()
