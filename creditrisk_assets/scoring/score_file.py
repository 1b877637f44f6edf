"""Scoring of files: valid rows get a decision, the others an error, and no row is lost.

The file is read, scored and written batch by batch, so its length does not matter. Batches are
checked and decided in several threads, which pyarrow, compiled code and onnxruntime use without
Python's lock; one reads and writes, in the order of the file.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from creditrisk_assets.landing.table_reader import (
    Malformed,
    RawBatch,
    TableStream,
    UnreadableFile,
    read_batches,
)
from creditrisk_assets.landing.validation import (
    CheckedBatch,
    RefusedColumns,
    RowCheck,
    accepted_arrays,
    python_value,
    require_columns,
    text_columns,
)
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.scorers import (
    ANSWER_COLUMNS,
    ANSWER_TYPES,
    Answers,
    Scorer,
    ScoringError,
)
from creditrisk_assets.storage import StoredPath, replacing

MALFORMED_SHOWN = 100
GROUP_ROWS = 1 << 18
"""Rows of a Parquet file's row group."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class ScoredFile:
    """Result of scoring a file.

    Attributes:
        scored: rows with a decision.
        rejected: rows with an error.
        declined: scored rows with the prediction 1.
        pd_sum: over the scored rows.
        errors: number of cells by field and rule, such as `age: out of range`.
        malformed: the first 100 lines that are not rows.
        malformed_lines: number of all such lines.
    """

    scored: int = 0
    rejected: int = 0
    declined: int = 0
    pd_sum: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    malformed: list[Malformed] = field(default_factory=list)
    malformed_lines: int = 0

    @property
    def mean_pd(self) -> float:
        """Mean PD of the scored rows; NaN without one."""
        return self.pd_sum / self.scored if self.scored else float("nan")

    @property
    def declined_share(self) -> float:
        """Share of the scored rows that are declined; NaN without one."""
        return self.declined / self.scored if self.scored else float("nan")


@dataclass(frozen=True)
class _Part:
    """A batch of the file: its rows, the rows read up to its end, and the estimated total."""

    batch: RawBatch
    read: int
    total: int | None


@dataclass(frozen=True)
class _ScoredPart:
    """Rows of a batch with their answers and errors, and the batch's figures."""

    part: _Part
    answers: Answers
    errors: pa.Array
    figures: ScoredFile


def score_file(
    source: StoredPath,
    destination: StoredPath,
    portfolio: Portfolio,
    scorer: Scorer,
    on_progress: Callable[[int, int | None], None],
    *,
    decisions_only: bool = False,
) -> ScoredFile:
    """Score a CSV or Parquet file; the result has the file's own columns, the decision's, and
    `error`.

    Args:
        source: the file.
        destination: a `.csv` or `.parquet` path, written atomically.
        portfolio: contract of the rows.
        scorer: source of the decisions.
        on_progress: called with the rows done and the total, which is an estimate until the end and
            None before there is one.
        decisions_only: of the file's own columns only the identifier is written.

    Raises:
        ScoringError: if the file cannot be read, lacks columns or already has a column of the
            decision, or the destination has another suffix.
    """
    if not destination.name.lower().endswith((".csv", ".parquet")):
        raise ScoringError(
            f"{destination}: cannot write {Path(destination.name).suffix!r}; valid: .csv or "
            ".parquet"
        )
    with _reading(source):
        stream = read_batches(source, scorer.rows, portfolio)
    with stream:
        with _reading(source):
            require_columns(stream.schema, portfolio.field_names, [portfolio.identifier])
        present = [name for name in (*ANSWER_COLUMNS, "error") if name in stream.names]
        if present:
            raise ScoringError(
                f"{source}: already has column {', '.join(present)}; valid: a file that was not "
                "scored before"
            )
        headers = {
            name: header
            for name, header in zip(stream.names, stream.headers, strict=True)
            if name == portfolio.identifier or not decisions_only
        }
        with (
            replacing(destination) as file,
            _Writer(file, headers, destination.name.lower().endswith(".parquet")) as writer,
        ):
            return _score_stream(stream, writer, source, portfolio, scorer, on_progress)


def _score_stream(
    stream: TableStream,
    writer: "_Writer",
    source: StoredPath,
    portfolio: Portfolio,
    scorer: Scorer,
    on_progress: Callable[[int, int | None], None],
) -> ScoredFile:
    check = RowCheck(portfolio.fields, portfolio.identifier)
    result = ScoredFile()
    with ThreadPoolExecutor(scorer.threads) as pool:
        scored_parts = _in_order(
            pool,
            lambda part: _score_part(part, check, portfolio, scorer),
            _parts(stream, source),
            scorer.threads,
        )
        for scored in scored_parts:
            writer.write(scored.part.batch.cells, scored.answers, scored.errors)
            figures, batch = scored.figures, scored.part.batch
            result.scored += figures.scored
            result.rejected += figures.rejected
            result.declined += figures.declined
            result.pd_sum += figures.pd_sum
            result.errors += figures.errors
            result.malformed_lines += len(batch.malformed)
            result.malformed += batch.malformed[: MALFORMED_SHOWN - len(result.malformed)]
            on_progress(scored.part.read, scored.part.total)
    return result


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
    """Results of some work in the order of the items; at most `ahead` + 1 are under way."""
    running: deque[Future[R]] = deque()
    try:
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()


def _parts(stream: TableStream, source: StoredPath) -> Iterator[_Part]:
    read = 0
    with _reading(source):
        for batch in stream:
            read += batch.cells.num_rows
            share = stream.share_read
            yield _Part(batch, read, round(read / share) if share > 0 else None)


@contextmanager
def _reading(source: StoredPath) -> Iterator[None]:
    try:
        yield
    except (UnreadableFile, RefusedColumns, OSError) as error:
        raise ScoringError(f"{source}: {error}") from error


def _score_part(part: _Part, check: RowCheck, portfolio: Portfolio, scorer: Scorer) -> _ScoredPart:
    """Check the rows of a batch, and decide on the valid ones."""
    cells, count = part.batch.cells, part.batch.cells.num_rows
    names = portfolio.field_names
    records = pa.RecordBatch.from_arrays([cells.column(name) for name in names], names)
    figures, errors = ScoredFile(), pa.nulls(count, pa.string())
    valid = check.surely_valid(cells)
    rest = np.flatnonzero(~valid)
    if len(rest):
        checked = check(cells.take(pa.array(rest)) if len(rest) < count else cells)
        if len(rest) < count and checked.good.any():  # the validator reads their values
            rest, checked = np.arange(count), check(cells)
        if len(rest) < count:
            records = records.filter(pa.array(valid))
        else:
            valid = checked.good
            arrays = accepted_arrays(checked, portfolio.fields, valid)
            records = pa.RecordBatch.from_arrays(arrays, names)
        errors = _error_texts(cells, rest, checked, check)
        kinds = np.bincount(checked.faults.kinds, minlength=len(checked.faults.table)).tolist()
        for (name, rule), cells_of_kind in zip(checked.faults.table, kinds, strict=True):
            figures.errors[f"{name}: {rule}"] = cells_of_kind
    figures.scored = records.num_rows
    figures.rejected = count - records.num_rows
    if not records.num_rows:
        return _ScoredPart(
            part,
            {name: pa.nulls(count, ANSWER_TYPES[name]) for name in scorer.columns},
            errors,
            figures,
        )
    answers = scorer(records)
    figures.declined = int(pc.sum(answers["prediction"]).as_py())
    figures.pd_sum = float(answers["default_probability"].to_numpy().sum())
    if figures.rejected:
        places = np.full(count, -1)
        places[valid] = np.arange(records.num_rows)
        rows = pa.array(places, mask=places < 0)
        answers = {name: column.take(rows) for name, column in answers.items()}
    return _ScoredPart(part, answers, errors, figures)


def _error_texts(
    cells: pa.RecordBatch, rows: NDArray[np.int64], checked: CheckedBatch, check: RowCheck
) -> pa.Array:
    """All faults of each row as one text, or null.

    Args:
        cells: of the batch.
        rows: those that were checked.
        checked: the result.
        check: the validator.
    """
    texts: list[str | None] = [None] * cells.num_rows
    places, kinds = rows[checked.faults.rows].tolist(), checked.faults.kinds.tolist()
    for row, kind in zip(places, kinds, strict=True):
        name, rule = checked.faults.table[kind]
        message = check.message(name, python_value(cells.column(name)[row]), rule)
        before = texts[row]
        texts[row] = message if before is None else f"{before}; {message}"
    return pa.array(texts, pa.string())


class _Writer:
    """Writer of a scored file, batch by batch.

    Args:
        file: open for writing.
        headers: the written columns of the source, and their headers there.
        as_parquet: as Parquet, otherwise as CSV.
    """

    def __init__(self, file: IO[bytes], headers: dict[str, str], as_parquet: bool) -> None:
        self._file = file
        self._headers = headers
        self._as_parquet = as_parquet
        self._parquet: pq.ParquetWriter | None = None
        self._has_header = False
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0

    def write(self, cells: pa.RecordBatch, answers: Answers, errors: pa.Array) -> None:
        """Add rows.

        Args:
            cells: all rows of a batch, unchanged.
            answers: decisions, null where there is none.
            errors: error of each row, or null.
        """
        columns = {header: cells.column(name) for name, header in self._headers.items()}
        columns |= answers | {"error": errors}
        batch = pa.RecordBatch.from_pydict(columns)
        if not self._as_parquet:
            # A null must not turn the column's integers into floats.
            table = text_columns(pa.Table.from_batches([batch]))
            frame = table.to_pandas(integer_object_nulls=True)
            frame.to_csv(self._file, index=False, header=not self._has_header)
            self._has_header = True
            return
        if self._waiting and batch.schema != self._waiting[0].schema:
            self._flush()
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        if self._waiting_rows >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        """Write the waiting rows as a row group."""
        if not self._waiting:
            return
        table = pa.Table.from_batches(self._waiting)
        self._parquet = self._parquet or pq.ParquetWriter(self._file, table.schema)
        self._parquet.write_table(table)
        self._waiting, self._waiting_rows = [], 0

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        if self._parquet is not None:
            self._parquet.close()
