"""Archives the API's decisions: as a set for replay, and as customers of their day.

A finished segment of the decision log is sealed, and its decisions are stored at once. When its day
is over, its customers land as a file of that day and are monitored and learned from like all
others. Then the segment is removed. Every step can be repeated after a crash.
"""

import datetime
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from pydantic_core import from_json, to_json

from creditrisk_assets.decisions.codec import Codec
from creditrisk_assets.decisions.idempotency import IdempotencyIndex
from creditrisk_assets.decisions.log import (
    DecisionLogError,
    Segment,
    SegmentHeader,
    find_record,
    read_segment,
    segments_in,
)
from creditrisk_assets.decisions.sets import (
    DECISION_ID,
    REASONS,
    DecisionsError,
    DecisionSet,
    parse_id,
    store_set,
    stored_decision,
)
from creditrisk_assets.portfolio.columns import arrow_type
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.settings import Settings
from creditrisk_assets.storage import StoredPath, file_sha256, put_file, scratch_folder

log = structlog.get_logger()

ROWS_AT_ONCE = 4_096
ANSWER = "answer"
CONTEXT_COLUMNS = {
    "at": pa.string(),
    "latency_ms": pa.float64(),
    "caller": pa.string(),
    "request_id": pa.string(),
    "trace_id": pa.string(),
    "runtime": pa.string(),
}
"""Columns about the request of a decision."""

ANSWER_COLUMNS = {
    "default_probability": pa.float64(),
    "score": pa.float64(),
    "prediction": pa.int8(),
    "cut_off": pa.float64(),
    "model_version": pa.string(),
    "bundle_sha256": pa.string(),
    "degraded": pa.bool_(),
}


@dataclass(frozen=True)
class ApiDecisions:
    """The places of the API's decisions, as the settings describe them."""

    portfolio: Portfolio
    codec: Codec
    open_segments: Path
    sealed_segments: Path
    decisions: StoredPath
    landing: StoredPath
    scratch: Path

    @classmethod
    def of(cls, settings: Settings) -> "ApiDecisions":
        return cls(
            portfolio=settings.portfolio,
            codec=settings.decision_log_codec,
            open_segments=settings.open_segments,
            sealed_segments=settings.sealed_segments,
            decisions=settings.decisions,
            landing=settings.landing_production,
            scratch=settings.scratch,
        )

    def index(self, file: Path) -> IdempotencyIndex:
        return IdempotencyIndex(file, self.open_segments, self.codec)


@dataclass(frozen=True)
class ArchivePass:
    """The result of one pass: names of segments, and problems."""

    sealed: tuple[str, ...]
    landed: tuple[str, ...]
    problems: tuple[str, ...]


def archive_finished(
    api: ApiDecisions, index: IdempotencyIndex, today: datetime.date, land_now: bool = False
) -> ArchivePass:
    """Seal, store and land finished segments.

    Args:
        api: the places of its decisions.
        index: of idempotency keys; sealing adds them.
        today: UTC; days before it are over.
        land_now: also land sealed segments of a day that is not over. Later segments of that day
            make the day run again.
    """
    sealed, landed, problems = [], [], []
    for path in segments_in(api.open_segments):
        try:
            if index.seal(path, api.sealed_segments) is not None:
                sealed.append(path.name)
        except (DecisionLogError, OSError, sqlite3.Error) as error:
            problems.append(str(error))
    still_open = {path.name[:10] for path in segments_in(api.open_segments)}
    for path in segments_in(api.sealed_segments):
        try:
            day = path.name[:10]
            over = datetime.date.fromisoformat(day) < today and day not in still_open
            if _store_and_land(api, path, over or land_now):
                landed.append(path.name)
        except (DecisionLogError, OSError, RuntimeError) as error:
            problems.append(str(error))
    for problem in problems:
        log.error("decisions_not_archived", problem=problem)
    return ArchivePass(tuple(sealed), tuple(landed), tuple(problems))


def find_decision(api: ApiDecisions, decision_id: str) -> tuple[ChampionRecord, pa.RecordBatch]:
    """The champion and the row of a decision of a batch or of the API, from the log or the store.

    Raises:
        DecisionsError: if there is no such decision, or its file was changed.
    """
    day, name, row = parse_id(decision_id)
    try:
        # A segment that is removed meanwhile is stored already.
        in_log = find_record((api.open_segments, api.sealed_segments), api.codec, day, name, row)
    except DecisionLogError as error:
        raise DecisionsError(str(error)) from error
    if in_log is None:
        return stored_decision(api.decisions, decision_id)
    header, line = in_log
    table = decision_table(api.portfolio, header, [line])
    record = table.set_column(0, DECISION_ID, pa.array([decision_id])).to_batches()[0]
    return header.champion, record


def _store_and_land(api: ApiDecisions, path: Path, may_land: bool) -> bool:
    """Store a sealed segment's decisions and, if allowed, land its customers and remove it.

    Returns:
        True if it has landed.
    """
    document = api.decisions / path.name[:10] / f"{path.stem[11:]}.json"
    if document.exists() and not may_land:
        return False
    segment = read_segment(path, api.codec)
    if segment is None or not segment.rows:
        path.unlink()  # its process made no decision
        return False
    with scratch_folder(api.scratch) as folder:
        if not document.exists():
            staged = folder / "stored.parquet"
            _write(api.portfolio, segment, staged)
            header = segment.header
            decisions = DecisionSet(
                day=header.day,
                batch_sha256=file_sha256(path),
                champion=header.champion,
                rows=segment.rows,
                file_sha256=file_sha256(staged),
                segment=header.name,
            )
            store_set(api.decisions, staged, decisions)
        if not may_land:
            return False
        staged = folder / "landed.parquet"
        _write(
            api.portfolio,
            segment,
            staged,
            [api.portfolio.identifier, *api.portfolio.field_names],
        )
        put_file(staged, api.landing / path.name[:10] / f"api-{path.stem[11:]}.parquet")
    path.unlink()
    return True


def _write(
    portfolio: Portfolio, segment: Segment, path: Path, columns: list[str] | None = None
) -> None:
    """Write a segment's decisions to a Parquet file, in chunks: as Python objects they take many
    times the memory of their text.
    """
    writer, lines = None, segment.lines()
    try:
        for first in range(0, segment.rows, ROWS_AT_ONCE):
            table = decision_table(
                portfolio, segment.header, list(islice(lines, ROWS_AT_ONCE)), first
            )
            table = table if columns is None else table.select(columns)
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def decision_table(
    portfolio: Portfolio, header: SegmentHeader, lines: Sequence[bytes], first: int = 0
) -> pa.Table:
    """Lines of a segment, the first with a row number, as the columns of stored decisions, which
    include the answer as it was sent.

    Without an identifier from the caller, the decision's id is the identifier, also for the
    outcome.
    """
    records: list[dict[str, Any]] = [from_json(line) for line in lines]
    ids = [header.decision_id(row) for row in range(first, first + len(records))]
    answers = [record["answer"] for record in records]
    customers = [record["customer"] for record in records]
    identifiers = [
        customer.get(portfolio.identifier) or decision_id
        for customer, decision_id in zip(customers, ids, strict=True)
    ]
    columns: dict[str, pa.Array] = {
        DECISION_ID: pa.array(ids, pa.string()),
        portfolio.identifier: pa.array(identifiers, pa.string()),
    }
    for field in portfolio.fields:
        columns[field.name] = pa.array(
            [customer.get(field.name) for customer in customers], arrow_type(field)
        )
    for name, kind in ANSWER_COLUMNS.items():
        columns[name] = pa.array([answer[name] for answer in answers], kind)
    for place, name in enumerate(REASONS):
        codes = [
            answer["reasons"][place]["code"] if place < len(answer["reasons"]) else None
            for answer in answers
        ]
        columns[name] = pa.array(codes, pa.string())
    for name, kind in CONTEXT_COLUMNS.items():
        columns[name] = pa.array([record.get(name) for record in records], kind)
    keys = [record.get("idempotency", {}).get("key") for record in records]
    columns["idempotency_key"] = pa.array(keys, pa.string())
    columns[ANSWER] = pa.array([to_json(answer).decode() for answer in answers], pa.string())
    return pa.table(columns)
