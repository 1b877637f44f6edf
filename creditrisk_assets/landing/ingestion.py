"""The files of a day, or a history file, become one Parquet file of accepted rows and one CSV file
of rejected ones.

Every row that arrives is accepted, rejected with a reason, or an exact duplicate. Memory hardly
depends on the number of rows: batches are judged one after the other and written at once, and what
finding repetitions needs is put aside on disk (`repeats`). Only if there are any, or a file turned
out to be unreadable after some of its rows were written, are the accepted rows written again.

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
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from creditrisk_assets.landing.duplicates import Repeated, Repeats, SeenRows
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
    Checked,
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
"""Columns of a quarantine file, one entry for each thing wrong. `line` is 0 and `rows` their number
where the file as a whole was rejected. `record` is the row's own cells, in its first entry; a row
that is wrong in every field is not written out for each.
"""

MALFORMED = "malformed line"
SUPERSEDED = "superseded"
UNKNOWN_CUSTOMER = "unknown customer"
UNREADABLE = "unreadable file"

VERSION = "version"
FIRST_REJECTED = 20
ROWS_AT_A_TIME = 4_096
"""Rejected rows whose entries are put together at a time."""

Entry = tuple[str, int, str, str, str, str, int, str]
BoolArray = NDArray[np.bool_]


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
        accepted_file: local Parquet file of the identifier and the fields (and `version`), see
            `accepted_schema`.
        rejected_file: local CSV file with `REJECTED_COLUMNS`, in the order of files and lines, the
            rows that a later row supersedes behind the others; None if nothing was rejected.
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
        """Rejected rows as a share of those that arrived. Without any row it is 1.0 if a file could
        not be read, else 0.0.
        """
        if self.rows_in == 0:
            return 1.0 if self.unreadable_files else 0.0
        return self.rejected_rows / self.rows_in


@dataclass(frozen=True)
class ValidatedRows(_Counted):
    """The same in memory: `accepted` has the identifier and the fields, `rejected` has
    `REJECTED_COLUMNS`.
    """

    accepted: pd.DataFrame
    rejected: pd.DataFrame
    files: tuple[Reconciliation, ...]
    ignored_columns: tuple[str, ...]

    @property
    def rejected_share(self) -> float:
        """Rejected rows as a share of those that arrived; without any row 1.0 if something was
        rejected, else 0.0.
        """
        if self.rows_in == 0:
            return 1.0 if len(self.rejected) else 0.0
        return self.rejected_rows / self.rows_in


def accepted_schema(
    portfolio: Portfolio, fields: Sequence[Field], repeats: Repeats = "last_wins"
) -> pa.Schema:
    """Columns of the accepted rows: whole numbers and numeric codes int64, decimals float64, texts
    and identifier string.
    """
    columns = [
        (portfolio.identifier, pa.string()),
        *((field.name, arrow_type(field)) for field in fields),
    ]
    return pa.schema([*columns, (VERSION, pa.int64())] if repeats == "versions" else columns)


def ingest(
    paths: Sequence[StoredPath],
    portfolio: Portfolio,
    fields: Sequence[Field],
    folder: Path,
    *,
    repeats: Repeats = "last_wins",
    known_customers: pd.Index | None = None,
    may_lack_identifier: bool = False,
) -> Ingested:
    """Validate files and write what is accepted and what is rejected.

    Args:
        paths: CSV or Parquet files, in order.
        portfolio: whose identifier column the rows carry.
        fields: the columns wanted, apart from the identifier.
        folder: a local folder for the results, and for what is put aside meanwhile.
        repeats: what to do with several rows of one customer. `last_wins`: the last one counts; an
            earlier row like it is an exact duplicate, an earlier one with other values is rejected
            as superseded. `versions`: all stay, numbered from 1 in the column `version`, except a
            row like the one directly before it of that customer, which is an exact duplicate.
        known_customers: identifiers as text; rows of any other customer are rejected.
        may_lack_identifier: whether a file with published column names may come without the
            identifier; its customers are then numbered by their rows, from 1.

    Raises:
        OSError: if a file cannot be opened or its store fails while it is read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _Work(
        portfolio, tuple(fields), folder, repeats, known_customers, may_lack_identifier
    ) as work:
        for path in paths:
            work.take(path)
        return work.finish()


def validate_files(
    paths: Sequence[StoredPath],
    portfolio: Portfolio,
    fields: Sequence[Field],
    *,
    may_lack_identifier: bool = False,
) -> ValidatedRows:
    """Validate the files of one day, or a history file, in memory; of each customer the last row
    counts. See `ingest`.
    """
    with tempfile.TemporaryDirectory(prefix="creditrisk-") as folder:
        done = ingest(
            paths, portfolio, fields, Path(folder), may_lack_identifier=may_lack_identifier
        )
        accepted = pq.read_table(done.accepted_file).to_pandas()
        rejected = (
            done.first_rejected.iloc[:0]
            if done.rejected_file is None
            else read_rejected(done.rejected_file)
        )
    return ValidatedRows(accepted, rejected, done.files, done.ignored_columns)


def read_rejected(path: StoredPath) -> pd.DataFrame:
    """A quarantine file as it was written: `REJECTED_COLUMNS`, `line` and `rows` int64, the others
    text.
    """
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
        may_lack_identifier: bool,
    ) -> None:
        self.portfolio = portfolio
        self.identifier = portfolio.identifier
        self.fields = fields
        self.wanted = [portfolio.identifier, *(field.name for field in fields)]
        self.codes = [field.name for field in fields if field.codes is not None]
        self.repeats = repeats
        self.may_lack_identifier = may_lack_identifier
        self.schema = accepted_schema(portfolio, fields, repeats)
        self.known = None if known_customers is None else _Known(known_customers)
        self.check = RowCheck(fields, portfolio.identifier)
        self.folder = folder
        self.files: list[Reconciliation] = []
        self.starts: list[int] = []
        self.ignored: set[str] = set()
        self.unreadable: list[str] = []
        self.withdrawn: list[tuple[int, int]] = []
        self.first_rejected: list[Entry] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        aside = Path(
            self._stack.enter_context(
                tempfile.TemporaryDirectory(dir=self.folder, prefix=".aside-")
            )
        )
        self.staged = self._stack.enter_context(
            _RowGroups(aside / "staged.parquet", self.schema, self.codes)
        )
        self.rewritten = aside / "rewritten.parquet"
        self.rejected_path = aside / "rejected.csv"
        self.rejected: BinaryIO = self._stack.enter_context(self.rejected_path.open("wb"))
        self._write([tuple(REJECTED_COLUMNS)])
        self.seen = self._stack.enter_context(SeenRows(aside))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    # First, file by file

    def take(self, path: StoredPath) -> None:
        """Judge a file's rows and write them where they belong."""
        mark = _Mark(self.staged.rows, self.rejected.tell(), len(self.first_rejected))
        self.starts.append(mark.staged)
        try:
            with read_batches(path, BATCH_ROWS, self.portfolio) as stream:
                counts = self._rows(stream)
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

    def _rows(self, stream: TableStream) -> Reconciliation:
        numbered = (
            self.may_lack_identifier
            and stream.has_published_names
            and self.identifier not in stream.names
        )
        try:
            require_columns(stream.schema, self.wanted[1:] if numbered else self.wanted)
        except RefusedColumns as error:
            rows = sum(batch.count for batch in stream)
            self._reject(
                [(stream.file, 0, ", ".join(error.names), "", error.rule, f"{error}", rows, "")]
            )
            return Reconciliation(stream.file, rows, 0, rows, 0)
        rows_in = accepted = 0
        for batch in stream:
            accepted += self._batch(
                _numbered(batch, self.identifier, rows_in) if numbered else batch
            )
            rows_in += batch.count
        self.ignored.update(name for name in stream.names if name not in self.wanted)
        return Reconciliation(stream.file, rows_in, accepted, rows_in - accepted, 0)

    def _batch(self, batch: RawBatch) -> int:
        """Judge one batch; returns how many of its rows were accepted."""
        checked = self.check(batch.cells)
        identifiers = checked.identifiers
        names = identifiers.to_numpy(zero_copy_only=False)
        anonymous = (names == "") & ~_has_fault(checked, self.identifier)
        unknown = np.zeros(len(names), dtype=bool)
        if self.known is not None:
            unknown = ~self.known.has(names) & ~anonymous & ~_has_fault(checked, self.identifier)
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
            self.seen.add(names, list(checked.numbers.values()), batch.lines, good)
        return accepted

    def _entries(
        self,
        batch: RawBatch,
        checked: Checked,
        anonymous: NDArray[np.bool_],
        unknown: NDArray[np.bool_],
        good: NDArray[np.bool_],
    ) -> Iterator[list[Entry]]:
        """What to write of a batch's rejected rows and malformed lines, in the order of their
        lines.
        """
        cells = batch.cells.select(self.wanted)
        names = checked.identifiers.to_numpy(zero_copy_only=False)
        malformed = [
            (line, (batch.file, line, "", "", MALFORMED, why, 1, text))
            for line, why, text in batch.malformed
        ]
        bad = np.flatnonzero(~good)
        faults = checked.faults
        done = 0
        for start in range(0, max(len(bad), 1), ROWS_AT_A_TIME):
            rows = bad[start : start + ROWS_AT_A_TIME]
            entries: list[tuple[int, Entry]] = []
            records = python_records(cells.take(pa.array(rows)))
            first, last = (
                np.searchsorted(faults.rows, rows),
                np.searchsorted(faults.rows, rows, side="right"),
            )
            for row, record, begin, end in zip(
                rows.tolist(), records, first.tolist(), last.tolist(), strict=True
            ):
                line, text = int(batch.lines[row]), record_text(record)
                wrong: list[tuple[str, str, str]] = []
                if anonymous[row]:
                    wrong.append(
                        (
                            self.identifier,
                            MISSING,
                            self.check.message(self.identifier, None, MISSING),
                        )
                    )
                if unknown[row] and self.known is not None:
                    who = names[row][:VALUE_SHOWN]
                    message = (
                        f"{self.identifier}: {who!r} is no known "
                        f"customer{self.known.like(names[row])}"
                    )
                    wrong.append(
                        (
                            self.identifier,
                            UNKNOWN_CUSTOMER,
                            f"{message}; valid: one who was in the day's data",
                        )
                    )
                for kind in faults.kinds[begin:end].tolist():
                    name, rule = faults.table[kind]
                    wrong.append((name, rule, self.check.message(name, record[name], rule)))
                for name, rule, message in wrong:
                    entry = (
                        batch.file,
                        line,
                        name,
                        cell_text(record[name]),
                        rule,
                        message,
                        1,
                        text,
                    )
                    entries.append((line, entry))
                    text = ""
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
        self.seen.close()
        alive = np.ones(self.staged.rows, dtype=bool)
        for start, stop in self.withdrawn:
            alive[start:stop] = False
        repeated = self.seen.repeated(alive, self.repeats)
        self._count_again(repeated)
        rows, accepted_path = self.staged.rows, self.staged.path
        if repeated.any or self.withdrawn:
            accepted_path = self.rewritten
            rows = self._rewrite(alive & ~repeated.duplicate & ~repeated.superseded, repeated)
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

    def _rewrite(self, keep: BoolArray, repeated: Repeated) -> int:
        """Write the staged rows again, those that are kept, and list those that are superseded;
        returns how many are kept.
        """
        names = np.array([file.file for file in self.files], dtype=object)
        start = 0
        with _RowGroups(self.rewritten, self.schema, self.codes) as result:
            for batch in _row_groups(self.staged.path):
                stop = start + batch.num_rows
                places = np.flatnonzero(repeated.superseded[start:stop])
                if len(places):
                    files = names[np.searchsorted(self.starts, start + places, side="right") - 1]
                    lines = self.seen.lines(start, batch.num_rows)[places].tolist()
                    found = zip(files, lines, batch.take(pa.array(places)).to_pylist(), strict=True)
                    self._reject(
                        [self._superseded(file, line, record) for file, line, record in found]
                    )
                if repeated.version is not None:
                    version = pa.array(repeated.version[start:stop].astype(np.int64))
                    batch = batch.set_column(len(self.wanted), VERSION, version)
                if keep[start:stop].any():
                    result.write(batch.filter(pa.array(keep[start:stop])))
                start = stop
        return result.rows

    def _superseded(self, file: str, line: int, record: dict[str, Any]) -> Entry:
        who = record[self.identifier]
        message = (
            f"{self.identifier}: customer {who[:60]!r} stands again later in the day with other "
            "values; valid: one row for each customer"
        )
        return (
            file,
            line,
            self.identifier,
            cell_text(who),
            SUPERSEDED,
            message,
            1,
            record_text(record),
        )

    def _count_again(self, repeated: Repeated) -> None:
        """Move rows that turned out not to count from `accepted` to where they belong."""
        for place, (start, stop) in enumerate(pairwise([*self.starts, self.staged.rows])):
            file = self.files[place]
            same, other = (
                int(repeated.duplicate[start:stop].sum()),
                int(repeated.superseded[start:stop].sum()),
            )
            self.files[place] = replace(
                file,
                accepted=file.accepted - same - other,
                rejected=file.rejected + other,
                duplicates=same,
            )


def _numbered(batch: RawBatch, identifier: str, rows_before: int) -> RawBatch:
    """A batch whose customers are called by the number of their row."""
    numbers = pa.array(range(rows_before + 1, rows_before + 1 + batch.cells.num_rows), pa.int64())
    return replace(batch, cells=batch.cells.append_column(identifier, numbers))


class _Known:
    """The customers that are known."""

    def __init__(self, customers: pd.Index) -> None:
        self._customers = customers.unique()
        self._without_zeros: pd.Series | None = None

    def has(self, names: NDArray[np.object_]) -> BoolArray:
        """For each name, whether it is known."""
        return np.asarray(self._customers.get_indexer(pd.Index(names)) >= 0)

    def like(self, name: str) -> str:
        """A known customer whose identifier differs from an unknown one by leading zeros alone, in
        words; else "".
        """
        if self._without_zeros is None:
            texts = pd.Series(self._customers, index=self._customers.astype("str").str.lstrip("0"))
            self._without_zeros = texts[~texts.index.duplicated()]
        bare = name.lstrip("0")
        known = self._without_zeros.get(bare) if bare else None
        if known is None:
            return ""
        how = "without its leading zeros" if len(name) < len(known) else "with leading zeros"
        return f": it looks like {known!r} {how}"


def _has_fault(checked: Checked, name: str) -> BoolArray:
    """For each row whether a column has a fault there."""
    found = np.zeros(len(checked.good), dtype=bool)
    kinds = [place for place, (column, _) in enumerate(checked.faults.table) if column == name]
    found[checked.faults.rows[np.isin(checked.faults.kinds, kinds)]] = True
    return found


class _RowGroups:
    """A Parquet file being written in row groups of about `BATCH_ROWS`, however small the batches
    are that come.
    """

    def __init__(self, path: Path, schema: pa.Schema, repetitive: Sequence[str]) -> None:
        self.path = path
        self.rows = 0
        self._schema = schema
        self._writer = pq.ParquetWriter(
            path, schema, use_dictionary=list(repetitive)
        )  # others cost twice the time, for nothing
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _row_groups(path: Path) -> Iterator[pa.RecordBatch]:
    """A Parquet file, one row group after the other; `iter_batches` over all of them keeps what it
    has read.
    """
    with pq.ParquetFile(path) as file:
        for place in range(file.num_row_groups):
            yield from file.read_row_group(place, use_threads=False).combine_chunks().to_batches()
