"""Scoring of files: valid rows get a decision, the others an error, and no row is lost.

The decisions come from a bundle in this process, or from the API; both give the same numbers. The
file is read, scored and written batch by batch, so its length does not matter.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
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
from creditrisk_assets.portfolio.contract import Field, Portfolio
from creditrisk_assets.scoring.bundle import Bundle, ChampionRecord, Decisions
from creditrisk_assets.storage import StoredPath, replacing

CHUNK_ROWS = 1_000
ANSWER_TYPES = {
    "default_probability": pa.float64(),
    "score": pa.float64(),
    "prediction": pa.int8(),
    "reasons": pa.string(),
    "model_version": pa.string(),
    "bundle_sha256": pa.string(),
}
ANSWER_COLUMNS = list(ANSWER_TYPES)
RETRIES = 10
MALFORMED_SHOWN = 100


class ScoringError(RuntimeError):
    """A file cannot be scored; the message says why."""


Scorer = Callable[[pd.DataFrame], pd.DataFrame]
"""Source of decisions. It gets valid records, with a column for each field: whole numbers, decimals
and text codes, NaN or None where a value is missing. It returns a frame of `ANSWER_COLUMNS`, in the
order of the records.
"""


@dataclass(frozen=True)
class ScoredFile:
    """Numbers of scored and rejected rows, the first 100 malformed lines, and the number of all."""

    scored: int
    rejected: int
    malformed: list[Malformed]
    malformed_lines: int


def score_file(
    source: StoredPath,
    destination: StoredPath,
    portfolio: Portfolio,
    scorer: Scorer,
    on_progress: Callable[[int, int | None], None],
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
        stream = read_batches(source, portfolio=portfolio)
    with stream:
        with _reading(source):
            require_columns(stream.schema, portfolio.field_names, [portfolio.identifier])
        present = [name for name in (*ANSWER_COLUMNS, "error") if name in stream.names]
        if present:
            raise ScoringError(
                f"{source}: already has column {', '.join(present)}; valid: a file that was not "
                "scored before"
            )
        with (
            replacing(destination) as file,
            _Writer(file, destination.name.lower().endswith(".parquet")) as writer,
        ):
            return _score_stream(stream, writer, source, portfolio, scorer, on_progress)


def local_scorer(
    bundle: Bundle,
    champion: ChampionRecord,
    decide: Callable[[NDArray[np.float32]], Decisions] | None = None,
) -> Scorer:
    """Scorer by a bundle in this process and the rule in force.

    Args:
        bundle: the champion's.
        champion: in force.
        decide: decides on rows x fields; by default the bundle's graphs.
    """

    def score(records: pd.DataFrame) -> pd.DataFrame:
        raw = bundle.raw(records)
        decisions = decide(raw) if decide else bundle.decide(raw, champion.rule)
        return pd.DataFrame(
            {
                "default_probability": decisions.default_probability,
                "score": decisions.score,
                "prediction": decisions.prediction,
                "reasons": join_reasons(bundle.reason_codes(decisions)),
                "model_version": champion.model_version,
                "bundle_sha256": bundle.sha256,
            }
        )

    return score


def join_reasons(codes: list[list[str]]) -> list[str]:
    """Join the reason codes of each row for a column: `R01 R03`, the strongest first."""
    return [" ".join(row) for row in codes]


def api_scorer(client: httpx.Client, portfolio: Portfolio) -> Scorer:
    """Scorer by the API behind an HTTP client, with a call of `/predict/batch` for each chunk.

    A call without an answer, or without a champion, is repeated with the same idempotency key, so
    no customer is decided on twice.
    """
    is_connected = False

    def score(records: pd.DataFrame) -> pd.DataFrame:
        nonlocal is_connected
        columns = {
            field.name: _json_values(records[field.name], field) for field in portfolio.fields
        }
        rows = [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
        response = _post(client, rows, RETRIES if is_connected else 1)
        is_connected = True
        if response.status_code != httpx.codes.OK:
            raise ScoringError(
                f"{response.url} answered {response.status_code}: {response.text[:500]}"
            )
        decisions = response.json()
        problem = next((decision for decision in decisions if "problems" in decision), None)
        if problem is not None or len(decisions) != len(rows):
            raise ScoringError(
                f"{response.url} has not decided on every row: {problem or len(decisions)}"[:500]
            )
        answers = pd.DataFrame(decisions)
        answers["reasons"] = join_reasons(
            [[reason["code"] for reason in reasons] for reasons in answers["reasons"]]
        )
        return answers[ANSWER_COLUMNS]

    return score


def _post(client: httpx.Client, rows: list[dict[str, Any]], attempts: int) -> httpx.Response:
    """Post rows until the answer is not "try again later", with a limited number of attempts.

    Args:
        client: of the API.
        rows: body of the request.
        attempts: connection failures allowed: one if the API has never answered.
    """
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    for left in reversed(range(RETRIES)):
        try:
            response = client.post("/predict/batch", json=rows, headers=headers)
        except httpx.TransportError as error:
            attempts -= 1
            if not attempts or not left:
                raise ScoringError(f"{client.base_url}: {type(error).__name__}: {error}") from error
            time.sleep(1)
            continue
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE or not left:
            return response
        time.sleep(float(response.headers.get("Retry-After", "1")))
    raise AssertionError("the last attempt returns or raises")


def _score_stream(
    stream: TableStream,
    writer: "_Writer",
    source: StoredPath,
    portfolio: Portfolio,
    scorer: Scorer,
    on_progress: Callable[[int, int | None], None],
) -> ScoredFile:
    check = RowCheck(portfolio.fields, portfolio.identifier)
    done = scored = rejected = malformed_lines = 0
    malformed: list[Malformed] = []
    for batch in _batches(stream, source):
        checked = check(batch.cells)
        good = np.flatnonzero(checked.good)
        arrays = accepted_arrays(checked, portfolio.fields, checked.good)
        records = pa.Table.from_arrays(arrays, names=portfolio.field_names).to_pandas()
        answers = []
        read = done + batch.cells.num_rows
        for start in range(0, len(good), CHUNK_ROWS):
            answers.append(scorer(records.iloc[start : start + CHUNK_ROWS]))
            rows = done + int(good[min(start + CHUNK_ROWS, len(good)) - 1]) + 1
            share = stream.share_read
            on_progress(rows, round(read / share) if share > 0 else None)
        writer.write(stream.headers, batch.cells, answers, good, _errors(batch, checked, check))
        done = read
        scored += len(good)
        rejected += batch.cells.num_rows - len(good)
        malformed_lines += len(batch.malformed)
        malformed += batch.malformed[: MALFORMED_SHOWN - len(malformed)]
    return ScoredFile(scored, rejected, malformed, malformed_lines)


def _batches(stream: TableStream, source: StoredPath) -> Iterator[RawBatch]:
    with _reading(source):
        yield from stream


@contextmanager
def _reading(source: StoredPath) -> Iterator[None]:
    try:
        yield
    except (UnreadableFile, RefusedColumns, OSError) as error:
        raise ScoringError(f"{source}: {error}") from error


def _errors(batch: RawBatch, checked: CheckedBatch, check: RowCheck) -> list[str | None]:
    """All faults of each row as one text, or None."""
    errors: list[str | None] = [None] * batch.cells.num_rows
    for row, kind in zip(checked.faults.rows.tolist(), checked.faults.kinds.tolist(), strict=True):
        name, rule = checked.faults.table[kind]
        message = check.message(name, python_value(batch.cells.column(name)[row]), rule)
        errors[row] = message if errors[row] is None else f"{errors[row]}; {message}"
    return errors


def _json_values(values: pd.Series, field: Field) -> list[Any]:
    """Values of a field for JSON, None where missing."""
    is_whole = field.kind != "decimal" and not field.is_text
    pairs = zip(values.tolist(), values.isna().tolist(), strict=True)
    return [None if gap else int(value) if is_whole else value for value, gap in pairs]


class _Writer:
    """Writer of a scored file, batch by batch."""

    def __init__(self, file: IO[bytes], as_parquet: bool) -> None:
        self._file = file
        self._as_parquet = as_parquet
        self._parquet: pq.ParquetWriter | None = None
        self._has_header = False

    def write(
        self,
        headers: list[str],
        cells: pa.RecordBatch,
        answers: list[pd.DataFrame],
        good: Any,
        errors: list[str | None],
    ) -> None:
        """Add rows.

        Args:
            headers: the source file's own column names.
            cells: all rows of a batch, unchanged.
            answers: decisions on the valid rows.
            good: places of the valid rows.
            errors: error of each row, or None.
        """
        decisions = (
            pd.concat(answers, ignore_index=True)
            if answers
            else pd.DataFrame(columns=ANSWER_COLUMNS)
        )
        place = np.full(cells.num_rows, -1)
        place[good] = np.arange(len(good))
        places = pa.array(place, mask=place < 0)
        table = pa.Table.from_arrays(cells.columns, names=headers)
        for name, kind in ANSWER_TYPES.items():
            table = table.append_column(
                name, pa.array(decisions[name].to_numpy(), kind, from_pandas=True).take(places)
            )
        table = table.append_column("error", pa.array(errors, pa.string()))
        if self._as_parquet:
            if self._parquet is None:
                self._parquet = pq.ParquetWriter(self._file, table.schema)
            self._parquet.write_table(table)
        else:
            # A null must not turn the column's integers into floats.
            frame = text_columns(table).to_pandas(integer_object_nulls=True)
            frame.to_csv(self._file, index=False, header=not self._has_header)
        self._has_header = True

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._parquet is not None:
            self._parquet.close()
