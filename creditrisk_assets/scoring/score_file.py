"""Scoring of files: valid rows get a decision, the others an error, and no row is lost.

The file is read, scored and written batch by batch, so its length does not matter. Batches are
checked and decided in several threads, which pyarrow, compiled code and onnxruntime use without
Python's lock; one reads and writes, in the order of the file.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from creditrisk_assets.landing.table_reader import (
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
)
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.scored_files import (
    MALFORMED_SHOWN,
    FolderWriter,
    ScoredFile,
    ScoredRows,
    TableWriter,
    Writer,
)
from creditrisk_assets.scoring.scorers import ANSWER_COLUMNS, ANSWER_TYPES, Scorer, ScoringError
from creditrisk_assets.storage import StoredPath, replacing

SUFFIXES = (".csv", ".parquet", "")

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class _Batch:
    """A batch of the file, the rows read up to its end, and the estimated total."""

    raw: RawBatch
    read: int
    total: int | None


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
        destination: a `.csv` or `.parquet` path, written atomically, or a folder for parts of a
            million rows; there a scoring that was killed goes on behind its last part.
        portfolio: contract of the rows.
        scorer: source of the decisions.
        on_progress: called with the rows done and the total, which is an estimate until the end and
            None before there is one.
        decisions_only: of the file's own columns only the identifier is written.

    Raises:
        ScoringError: if the file cannot be read, lacks columns or already has a column of the
            decision, or the destination has another suffix or holds something else.
    """
    suffix = Path(destination.name).suffix.lower()
    if suffix not in SUFFIXES:
        raise ScoringError(
            f"{destination}: cannot write {suffix!r}; valid: .csv, .parquet, or a folder"
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
        with ExitStack() as stack:
            writer: Writer
            if suffix:
                file = stack.enter_context(replacing(destination))
                writer = TableWriter(file, headers, suffix == ".parquet")
            else:
                run = _run(source, scorer, headers)
                writer = FolderWriter(destination, headers, run)
            stack.enter_context(writer)
            _score_stream(stream, writer, source, portfolio, scorer, on_progress)
        return writer.figures


def _run(source: StoredPath, scorer: Scorer, headers: Mapping[str, str]) -> dict[str, Any]:
    """The file and the model of a scoring, by which an unfinished one is known again."""
    status = source.stat()
    return {
        "source": source.name,
        "bytes": status.st_size,
        "modified": status.st_mtime,
        "decided_by": scorer.decided_by,
        "columns": [*headers, *scorer.columns],
        "batch_rows": scorer.rows,
    }


def _score_stream(
    stream: TableStream,
    writer: Writer,
    source: StoredPath,
    portfolio: Portfolio,
    scorer: Scorer,
    on_progress: Callable[[int, int | None], None],
) -> None:
    check = RowCheck(portfolio.fields, portfolio.identifier)
    batches = _batches(stream, source)
    done = 0
    while done < writer.rows_done and (batch := next(batches, None)) is not None:
        done = batch.read
        on_progress(done, None)
    with ThreadPoolExecutor(scorer.threads) as pool:
        for batch, rows in _in_order(
            pool,
            lambda batch: (batch, _scored(batch.raw, check, portfolio, scorer)),
            batches,
            scorer.threads,
        ):
            writer.write(rows)
            on_progress(batch.read, batch.total)


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


def _batches(stream: TableStream, source: StoredPath) -> Iterator[_Batch]:
    read = 0
    with _reading(source):
        for batch in stream:
            read += batch.cells.num_rows
            share = stream.share_read
            yield _Batch(batch, read, round(read / share) if share > 0 else None)


@contextmanager
def _reading(source: StoredPath) -> Iterator[None]:
    try:
        yield
    except (UnreadableFile, RefusedColumns, OSError) as error:
        raise ScoringError(f"{source}: {error}") from error


def _scored(batch: RawBatch, check: RowCheck, portfolio: Portfolio, scorer: Scorer) -> ScoredRows:
    """Check the rows of a batch, and decide on the valid ones."""
    cells, count = batch.cells, batch.cells.num_rows
    names = portfolio.field_names
    records = pa.RecordBatch.from_arrays([cells.column(name) for name in names], names)
    malformed = batch.malformed[:MALFORMED_SHOWN]
    figures = ScoredFile(malformed=malformed, malformed_lines=len(batch.malformed))
    errors = pa.nulls(count, pa.string())
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
        none = {name: pa.nulls(count, ANSWER_TYPES[name]) for name in scorer.columns}
        return ScoredRows(cells, none, errors, figures)
    answers = scorer(records)
    figures.declined = int(pc.sum(answers["prediction"]).as_py())
    figures.pd_sum = float(answers["default_probability"].to_numpy().sum())
    if figures.rejected:
        places = np.full(count, -1)
        places[valid] = np.arange(records.num_rows)
        rows = pa.array(places, mask=places < 0)
        answers = {name: column.take(rows) for name, column in answers.items()}
    return ScoredRows(cells, answers, errors, figures)


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
