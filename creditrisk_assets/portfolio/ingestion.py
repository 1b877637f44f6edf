"""The files of a day, or a history file, become one Parquet file of accepted rows and one CSV file of rejected ones.

Every row that arrives is accepted, rejected with a reason, or an exact duplicate. Memory does not depend on the number of rows:
batches are judged one after the other and written at once, and of each accepted row only two 64-bit hashes and its line are put
aside, on disk, from which customers with several rows are found by sorting one column of hashes. Only if there are such
customers, or a file turned out to be unreadable after some of its rows were written, are the accepted rows written again.

Files count in the order given, and rows in the order of the file: the later observation of a customer is that of the later
file, and within a file that of the later line. The same files give the same bytes.
"""

import csv
import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from creditrisk_assets.portfolio.contract import Field, Portfolio
from creditrisk_assets.portfolio.reading import BATCH_ROWS, RawBatch, TableStream, UnreadableFile, read_batches
from creditrisk_assets.portfolio.storage import StoredPath
from creditrisk_assets.portfolio.validation import (
    MISSING,
    Checked,
    RowCheck,
    accepted_arrays,
    arrow_type,
    cell_text,
    fault_message,
    identifier_texts,
    python_records,
    record_text,
)

REJECTED_COLUMNS = ["file", "line", "field", "value", "rule", "message", "rows", "record"]
"""Columns of a quarantine file, one line for each thing wrong. `line` is 0 and `rows` their number where the file as a whole was
rejected.
"""

MALFORMED = "malformed line"
MISSING_COLUMN = "missing column"
SUPERSEDED = "superseded"
UNKNOWN_CUSTOMER = "unknown customer"
UNREADABLE = "unreadable file"

VERSION = "version"
FIRST_REJECTED = 20
ROWS_AT_A_TIME = 4_096
"""Rejected rows whose entries are put together at a time."""

Repeats = Literal["last_wins", "versions"]
Entry = tuple[str, int, str, str, str, str, int, str]
Hashes = NDArray[np.uint64]
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Reconciliation:
    """Where the rows of one file went: `rows_in` = `accepted` + `rejected` + `duplicates`."""

    file: str
    rows_in: int
    accepted: int
    rejected: int
    duplicates: int

    @property
    def holds(self) -> bool:
        """Whether every row is accounted for."""
        return self.rows_in == self.accepted + self.rejected + self.duplicates


class _Counted:
    """The rows of some files, added up."""

    files: tuple[Reconciliation, ...]

    @property
    def rows_in(self) -> int:
        """Rows that arrived."""
        return sum(file.rows_in for file in self.files)

    @property
    def rejected_rows(self) -> int:
        """Rows that were rejected, each counted once however much is wrong with it."""
        return sum(file.rejected for file in self.files)

    @property
    def duplicates(self) -> int:
        """Rows that stood there before, or stand there again, exactly as they are."""
        return sum(file.duplicates for file in self.files)


@dataclass(frozen=True)
class Ingested(_Counted):
    """What became of some files.

    Attributes:
        accepted_file: local Parquet file of the identifier and the fields (and `version`), see `accepted_schema`.
        rejected_file: local CSV file with `REJECTED_COLUMNS`, in the order of files and lines, the rows that a later row
            supersedes behind the others; None if nothing was rejected.
        rows: how many rows were accepted.
        files: for each file, where its rows went; one that cannot be read has no rows.
        first_rejected: at most 20 rows of the rejected file.
        unreadable_files: names of files that are no tables at all.
        ignored_columns: columns that were in a file and mean nothing to the contract.
    """

    accepted_file: Path
    rejected_file: Path | None
    rows: int
    files: tuple[Reconciliation, ...]
    first_rejected: pd.DataFrame
    unreadable_files: tuple[str, ...]
    ignored_columns: tuple[str, ...]

    @property
    def rejected_share(self) -> float:
        """Rejected rows as a share of those that arrived. Without any row it is 1.0 if a file could not be read, else 0.0."""
        if self.rows_in == 0:
            return 1.0 if self.unreadable_files else 0.0
        return self.rejected_rows / self.rows_in


@dataclass(frozen=True)
class ValidatedRows(_Counted):
    """The same in memory: `accepted` has the identifier and the fields, `rejected` has `REJECTED_COLUMNS`."""

    accepted: pd.DataFrame
    rejected: pd.DataFrame
    files: tuple[Reconciliation, ...]
    ignored_columns: tuple[str, ...]

    @property
    def rejected_share(self) -> float:
        """Rejected rows as a share of those that arrived; without any row 1.0 if something was rejected, else 0.0."""
        if self.rows_in == 0:
            return 1.0 if len(self.rejected) else 0.0
        return self.rejected_rows / self.rows_in


def accepted_schema(portfolio: Portfolio, fields: Sequence[Field], repeats: Repeats = "last_wins") -> pa.Schema:
    """Columns of the accepted rows: whole numbers and numeric codes int64, decimals float64, texts and identifier string."""
    columns = [(portfolio.identifier, pa.string()), *((field.name, arrow_type(field)) for field in fields)]
    return pa.schema([*columns, (VERSION, pa.int64())] if repeats == "versions" else columns)


def ingest(
    paths: Sequence[StoredPath],
    portfolio: Portfolio,
    fields: Sequence[Field],
    folder: Path,
    *,
    repeats: Repeats = "last_wins",
    known_customers: pd.Index | None = None,
) -> Ingested:
    """Validate files and write what is accepted and what is rejected.

    Args:
        paths: CSV or Parquet files, in order.
        portfolio: whose identifier column the rows carry.
        fields: the columns wanted, apart from the identifier.
        folder: a local folder for the results, and for what is put aside meanwhile.
        repeats: what to do with several rows of one customer. `last_wins`: the last one counts; an earlier row like it is an
            exact duplicate, an earlier one with other values is rejected as superseded. `versions`: all stay, numbered from 1 in
            the column `version`, except a row like the one directly before it of that customer, which is an exact duplicate.
        known_customers: identifiers as text; rows of any other customer are rejected.

    Raises:
        OSError: if a file cannot be opened or its store fails while it is read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _Work(portfolio, tuple(fields), folder, repeats, known_customers) as work:
        for path in paths:
            work.take(path)
        return work.finish()


def validate_files(paths: Sequence[StoredPath], portfolio: Portfolio, fields: Sequence[Field]) -> ValidatedRows:
    """Validate the files of one day, or a history file, in memory; of each customer the last row counts."""
    with tempfile.TemporaryDirectory(prefix="creditrisk-") as folder:
        done = ingest(paths, portfolio, fields, Path(folder))
        accepted = pq.read_table(done.accepted_file).to_pandas()
        rejected = done.first_rejected.iloc[:0] if done.rejected_file is None else read_rejected(done.rejected_file)
    return ValidatedRows(accepted, rejected, done.files, done.ignored_columns)


def read_rejected(path: StoredPath) -> pd.DataFrame:
    """A quarantine file as it was written: `REJECTED_COLUMNS`, `line` and `rows` int64, the others text."""
    types = {name: "int64" if name in ("line", "rows") else "str" for name in REJECTED_COLUMNS}
    with path.open("rb") as file:
        return pd.read_csv(file, dtype=types, keep_default_na=False)


@dataclass(frozen=True)
class _Mark:
    """How far the work had come before a file: rows staged, bytes and entries rejected."""

    staged: int
    rejected_bytes: int
    first_rejected: int


class _Work:
    """Files being ingested: what has been written so far, and what must be known to finish."""

    def __init__(
        self,
        portfolio: Portfolio,
        fields: tuple[Field, ...],
        folder: Path,
        repeats: Repeats,
        known_customers: pd.Index | None,
    ) -> None:
        self.identifier = portfolio.identifier
        self.fields = fields
        self.by_name = {field.name: field for field in fields}
        self.wanted = [portfolio.identifier, *self.by_name]
        self.codes = [field.name for field in fields if field.codes is not None]
        self.repeats = repeats
        self.schema = accepted_schema(portfolio, fields, repeats)
        self.known = None if known_customers is None else known_customers.unique()
        self.check = RowCheck(fields)
        self.folder = folder
        self.files: list[Reconciliation] = []
        self.starts: list[int] = []
        self.ignored: set[str] = set()
        self.unreadable: list[str] = []
        self.withdrawn: list[tuple[int, int]] = []
        self.first_rejected: list[Entry] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        aside = Path(self._stack.enter_context(tempfile.TemporaryDirectory(dir=self.folder, prefix=".aside-")))
        self.staged = self._stack.enter_context(_RowGroups(aside / "staged.parquet", self.schema, self.codes))
        self.rewritten = aside / "rewritten.parquet"
        self.rejected_path = aside / "rejected.csv"
        self.rejected: BinaryIO = self._stack.enter_context(self.rejected_path.open("wb"))
        self._write([tuple(REJECTED_COLUMNS)])
        names = ("customer", "row", "line")
        self.aside = {name: self._stack.enter_context(_Column(aside / name)) for name in names}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    # First, file by file

    def take(self, path: StoredPath) -> None:
        """Judge a file's rows and write them where they belong."""
        mark = _Mark(self.staged.rows, self.rejected.tell(), len(self.first_rejected))
        self.starts.append(mark.staged)
        try:
            with read_batches(path, BATCH_ROWS) as stream:
                lacking = [name for name in self.wanted if name not in stream.names]
                counts = self._lacking(stream, lacking) if lacking else self._rows(stream)
        except UnreadableFile as error:
            self._withdraw(mark)
            self._reject([(path.name, 0, "", "", UNREADABLE, str(error), 0, "")])
            self.unreadable.append(path.name)
            counts = Reconciliation(path.name, 0, 0, 0, 0)
        self.files.append(counts)

    def _withdraw(self, mark: _Mark) -> None:
        """Take back what has been written of a file."""
        if self.staged.rows > mark.staged:
            self.withdrawn.append((mark.staged, self.staged.rows))
        self.rejected.truncate(mark.rejected_bytes)
        self.rejected.seek(mark.rejected_bytes)
        del self.first_rejected[mark.first_rejected :]

    def _lacking(self, stream: TableStream, lacking: Sequence[str]) -> Reconciliation:
        rows = sum(batch.count for batch in stream)
        names = ", ".join(lacking)
        message = f"missing column{'s' if len(lacking) > 1 else ''} {names}; valid: {', '.join(self.wanted)}"
        self._reject([(stream.file, 0, names, "", MISSING_COLUMN, message, rows, "")])
        return Reconciliation(stream.file, rows, 0, rows, 0)

    def _rows(self, stream: TableStream) -> Reconciliation:
        rows_in = accepted = 0
        for batch in stream:
            rows_in += batch.count
            accepted += self._batch(batch)
        self.ignored.update(name for name in stream.names if name not in self.wanted)
        return Reconciliation(stream.file, rows_in, accepted, rows_in - accepted, 0)

    def _batch(self, batch: RawBatch) -> int:
        """Judge one batch; returns how many of its rows were accepted."""
        checked = self.check(batch.cells)
        identifiers = identifier_texts(batch.cells.column(self.identifier))
        names = identifiers.to_numpy(zero_copy_only=False)
        anonymous = names == ""
        unknown = np.zeros(len(names), dtype=bool) if self.known is None else (self.known.get_indexer(names) < 0) & ~anonymous
        good = checked.good & ~anonymous & ~unknown
        if batch.malformed or not good.all():
            for entries in self._entries(batch, checked, anonymous, unknown, good):
                self._reject(entries)
        accepted = int(good.sum())
        if accepted:
            everything = accepted == len(good)
            arrays = accepted_arrays(checked, self.fields, None if everything else good)
            columns = [identifiers if everything else identifiers.filter(pa.array(good)), *arrays]
            if self.repeats == "versions":
                columns.append(pa.array(np.ones(accepted, dtype=np.int64)))
            self.staged.write(pa.RecordBatch.from_arrays(columns, schema=self.schema))
            self.aside["customer"].write(_text_hashes(names, "customer, 64 bit")[good])
            self.aside["row"].write(_row_hashes(list(checked.numbers.values()))[good])
            self.aside["line"].write(batch.lines[good].view(np.uint64))
        return accepted

    def _entries(
        self, batch: RawBatch, checked: Checked, anonymous: NDArray[np.bool_], unknown: NDArray[np.bool_], good: NDArray[np.bool_]
    ) -> Iterator[list[Entry]]:
        """What to write of a batch's rejected rows and malformed lines, in the order of their lines."""
        cells = batch.cells.select(self.wanted)
        malformed = [(line, (batch.file, line, "", "", MALFORMED, why, 1, text)) for line, why, text in batch.malformed]
        bad = np.flatnonzero(~good)
        faults = checked.faults
        done = 0
        for start in range(0, max(len(bad), 1), ROWS_AT_A_TIME):
            rows = bad[start : start + ROWS_AT_A_TIME]
            entries: list[tuple[int, Entry]] = []
            records = python_records(cells.take(pa.array(rows)))
            first, last = np.searchsorted(faults.rows, rows), np.searchsorted(faults.rows, rows, side="right")
            for row, record, begin, end in zip(rows.tolist(), records, first.tolist(), last.tolist(), strict=True):
                line, text = int(batch.lines[row]), record_text(record)
                wrong: list[tuple[str, str, str]] = []
                if anonymous[row]:
                    wrong.append((self.identifier, MISSING, f"{self.identifier}: missing; valid: a customer identifier"))
                if unknown[row]:
                    value = str(record[self.identifier])[:60]
                    message = f"{self.identifier}: {value!r} is no known customer; valid: one who was in the day's data"
                    wrong.append((self.identifier, UNKNOWN_CUSTOMER, message))
                for kind in faults.kinds[begin:end].tolist():
                    name, rule = faults.table[kind]
                    wrong.append((name, rule, fault_message(self.by_name[name], record[name], rule)))
                for name, rule, message in wrong:
                    entry = (batch.file, line, name, cell_text(record[name]), rule, message, 1, text)
                    entries.append((line, entry))
            until = int(batch.lines[rows[-1]]) if start + ROWS_AT_A_TIME < len(bad) else None
            while done < len(malformed) and (until is None or malformed[done][0] < until):
                entries.append(malformed[done])
                done += 1
            yield [entry for _, entry in sorted(entries, key=lambda one: one[0])]

    def _reject(self, entries: Sequence[Entry]) -> None:
        self.first_rejected += entries[: max(0, FIRST_REJECTED - len(self.first_rejected))]
        self._write(entries)

    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self.rejected.write(text.getvalue().encode("utf-8", "backslashreplace"))

    # Then all of them together

    def finish(self) -> Ingested:
        """Deal with customers that have several rows, and put the results in their places."""
        self.staged.close()
        for column in self.aside.values():
            column.close()
        alive = np.ones(self.staged.rows, dtype=bool)
        for start, stop in self.withdrawn:
            alive[start:stop] = False
        several = self._several(alive)
        rows = self.staged.rows
        accepted_path = self.staged.path
        if len(several) or self.withdrawn:
            accepted_path = self.rewritten
            rows = self._rewrite(alive, several)
        self.rejected.close()
        rejected_file = None
        if self.first_rejected:
            rejected_file = self.rejected_path.replace(self.folder / "rejected.csv")
        return Ingested(
            accepted_file=accepted_path.replace(self.folder / "accepted.parquet"),
            rejected_file=rejected_file,
            rows=rows,
            files=tuple(self.files),
            first_rejected=pd.DataFrame(self.first_rejected, columns=REJECTED_COLUMNS),
            unreadable_files=tuple(self.unreadable),
            ignored_columns=tuple(sorted(self.ignored)),
        )

    def _several(self, alive: NDArray[np.bool_]) -> Positions:
        """Staged rows whose customer has several, in order (and, once in a million times, a row of another customer)."""
        customers = self.aside["customer"].read()
        ordered = np.sort(customers if alive.all() else customers[alive])
        repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        del ordered
        if not len(repeated):
            return np.empty(0, dtype=np.int64)
        found = []
        for start in range(0, len(customers), BATCH_ROWS):
            part = customers[start : start + BATCH_ROWS]
            places = np.minimum(np.searchsorted(repeated, part), len(repeated) - 1)
            found.append(start + np.flatnonzero((repeated[places] == part) & alive[start : start + BATCH_ROWS]))
        return np.concatenate(found)

    def _rewrite(self, alive: NDArray[np.bool_], several: Positions) -> int:
        """Write the staged rows again without those that do not count; returns how many are left."""
        customer = [self.aside["customer"].read()[several], self._hashed_again(several)]
        row = self.aside["row"].read()[several]
        order = np.lexsort(customer[::-1])
        several, row = several[order], row[order]
        follows = np.zeros(len(several), dtype=bool)  # whether the same customer stands directly before
        follows[1:] = (customer[0][order][1:] == customer[0][order][:-1]) & (customer[1][order][1:] == customer[1][order][:-1])
        superseded = np.zeros(len(alive), dtype=bool)
        version: NDArray[np.int64] | None = None
        if self.repeats == "versions":
            duplicate = follows.copy()
            duplicate[1:] &= row[1:] == row[:-1]
            number = np.cumsum(~duplicate)
            begin = np.flatnonzero(~follows)
            version = np.ones(len(alive), dtype=np.int64)
            version[several] = number - np.repeat(number[begin], np.diff(np.append(begin, len(several)))) + 1
        else:
            last = np.append(np.flatnonzero(~follows)[1:], len(several)) - 1 if len(several) else np.empty(0, dtype=np.int64)
            winner = np.repeat(last, np.diff(np.concatenate([[-1], last])))
            loses = winner != np.arange(len(several))
            duplicate = loses & (row == row[winner])
            superseded[several[loses & ~duplicate]] = True
        keep = alive.copy()
        keep[several[duplicate]] = False
        keep &= ~superseded
        self._count_again(several[duplicate], np.flatnonzero(superseded))
        with _RowGroups(self.rewritten, self.schema, self.codes) as result:
            self._copy(result, keep, superseded, version)
        return result.rows

    def _hashed_again(self, several: Positions) -> Hashes:
        """Another 64 bits of the identifiers of some staged rows: together they tell any two customers apart."""
        found, start = [], 0
        with pq.ParquetFile(self.staged.path) as staged:
            for batch in staged.iter_batches(batch_size=BATCH_ROWS, use_threads=False, columns=[self.identifier]):
                first, last = np.searchsorted(several, [start, start + batch.num_rows])
                names = batch.column(0).take(pa.array(several[first:last] - start)).to_numpy(zero_copy_only=False)
                found.append(_text_hashes(names, "64 bits of more."))
                start += batch.num_rows
        return np.concatenate(found) if found else np.empty(0, dtype=np.uint64)

    def _copy(
        self, result: "_RowGroups", keep: NDArray[np.bool_], superseded: NDArray[np.bool_], version: NDArray[np.int64] | None
    ) -> None:
        lines = self.aside["line"].read()[superseded] if superseded.any() else np.empty(0, dtype=np.uint64)
        names = np.array([file.file for file in self.files], dtype=object)
        listed = start = 0
        with pq.ParquetFile(self.staged.path) as staged:
            for batch in staged.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
                stop = start + batch.num_rows
                places = np.flatnonzero(superseded[start:stop])
                if len(places):
                    files = names[np.searchsorted(self.starts, start + places, side="right") - 1]
                    records = batch.take(pa.array(places)).to_pylist()
                    found = zip(files, lines[listed : listed + len(places)].tolist(), records, strict=True)
                    self._reject([self._superseded(file, line, record) for file, line, record in found])
                    listed += len(places)
                if version is not None:
                    batch = batch.set_column(len(self.wanted), VERSION, pa.array(version[start:stop]))
                if keep[start:stop].any():
                    result.write(batch.filter(pa.array(keep[start:stop])))
                start = stop

    def _superseded(self, file: str, line: int, record: dict[str, Any]) -> Entry:
        who = record[self.identifier]
        message = (
            f"{self.identifier}: customer {who[:60]!r} stands again later in the day with other values; valid: one row for each "
            "customer"
        )
        return (file, line, self.identifier, cell_text(who), SUPERSEDED, message, 1, record_text(record))

    def _count_again(self, duplicates: Positions, superseded: Positions) -> None:
        """Move rows that turned out not to count from `accepted` to where they belong."""

        def by_file(positions: Positions) -> list[int]:
            places = np.searchsorted(self.starts, positions, side="right") - 1
            return [int(one) for one in np.bincount(places, minlength=len(self.files))]

        moved = zip(self.files, by_file(duplicates), by_file(superseded), strict=True)
        self.files = [
            replace(file, accepted=file.accepted - same - other, rejected=file.rejected + other, duplicates=same)
            for file, same, other in moved
        ]


class _RowGroups:
    """A Parquet file being written in row groups of about `BATCH_ROWS`, however small the batches are that come."""

    def __init__(self, path: Path, schema: pa.Schema, repetitive: Sequence[str]) -> None:
        self.path = path
        self.rows = 0
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, use_dictionary=list(repetitive))  # others cost twice the time, for nothing
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
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema), row_group_size=BATCH_ROWS)
        self._waiting, self._rows_waiting = [], 0

    def close(self) -> None:
        if self._writer.is_open:
            self._flush()
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Column:
    """One 64-bit number for each staged row, put aside on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")

    def write(self, values: NDArray[np.uint64]) -> None:
        self._file.write(np.ascontiguousarray(values).data)

    def read(self) -> NDArray[np.uint64]:
        return np.fromfile(self._path, dtype=np.uint64)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _text_hashes(texts: NDArray[np.object_], key: str) -> Hashes:
    return np.asarray(pd.util.hash_array(texts, hash_key=key, categorize=False), dtype=np.uint64)


def _row_hashes(columns: Sequence[NDArray[np.float64]]) -> Hashes:
    """One hash for each row; rows with the same numbers, and none in the same places, have the same."""
    hashed = (np.asarray(pd.util.hash_array(column.view(np.uint64), categorize=False), dtype=np.uint64) for column in columns)
    result = next(hashed)
    for one in hashed:
        result *= np.uint64(0x9E3779B97F4A7C15)
        result += one
    return result
