"""The page of a day, from the documents that its assets wrote, and its tables as CSV."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import HTTPException, Response
from pydantic import BaseModel, ValidationError

from creditrisk_assets.monitoring.day_documents import (
    BatchDocument,
    Bin,
    ColumnDrift,
    DecisionsDocument,
    DriftDocument,
    OutcomesDocument,
)
from creditrisk_assets.monitoring.loop_status import DayStatus, LoopStatus
from creditrisk_assets.monitoring.segment_report import (
    DecisionSegment,
    OutcomeSegment,
    SegmentDecisions,
    SegmentOutcomes,
)
from creditrisk_assets.storage import StoredPath
from serving.pages.downloads import csv_of, csv_response

log = structlog.get_logger()

OPEN_FIELDS = 5
"""Fields that moved most; their histograms are open."""

BAR_WIDTH = 100.0
READERS = 8
"""Documents that are read at once; a store answers each in some milliseconds."""


@dataclass(frozen=True)
class Bars:
    """A bin with the lengths of its bars, in percent of the longest of the column."""

    bin: Bin
    training: float
    day: float
    month: float | None


@dataclass(frozen=True)
class ColumnView:
    """A column of the day with its bars."""

    column: ColumnDrift
    bars: tuple[Bars, ...]
    times: float


def column_view(column: ColumnDrift) -> ColumnView:
    """A column with its bars."""
    longest = max(
        (share for one in column.bins for share in (one.training, one.day, one.month or 0.0)),
        default=0.0,
    )
    scale = BAR_WIDTH / longest if longest else 0.0
    return ColumnView(
        column,
        tuple(
            Bars(
                one,
                round(one.training * scale, 1),
                round(one.day * scale, 1),
                None if one.month is None else round(one.month * scale, 1),
            )
            for one in column.bins
        ),
        column.psi_judged / column.threshold if column.threshold else 0.0,
    )


def day_of(reports: StoredPath, status: LoopStatus | None, day: str) -> dict[str, Any] | None:
    """The values of a day's page; None if nothing is known about the day.

    Args:
        reports: folder of the documents.
        status: of the loop, None if it was not written.
        day: `YYYY-MM-DD`.
    """
    days = {one.day: one for one in status.days} if status else {}
    batch, decisions, drift, outcomes = (
        _read(kind, reports, day)
        for kind in (BatchDocument, DecisionsDocument, DriftDocument, OutcomesDocument)
    )
    if day not in days and not any((batch, decisions, drift, outcomes)):
        return None
    ordered = sorted(days)
    place = ordered.index(day) if day in days else None
    drifted = drift if isinstance(drift, DriftDocument) else None
    of_day = days.get(day, DayStatus(day=day))
    return {
        "day": of_day,
        "batch": batch,
        "decisions": decisions,
        "drift": drifted,
        "score": column_view(drifted.columns[0]) if drifted else None,
        "fields": [column_view(one) for one in drifted.fields] if drifted else [],
        "open_fields": OPEN_FIELDS,
        "outcomes": outcomes,
        "segments": _read(SegmentDecisions, reports, day),
        "segment_outcomes": _read(SegmentOutcomes, reports, day),
        "earlier": ordered[place - 1] if place else None,
        "later": ordered[place + 1] if place is not None and place + 1 < len(ordered) else None,
        "events": [one for one in status.events if one.day == day] if status else [],
        "episodes": [one for one in status.episodes if one.opened_day <= day <= one.latest_day]
        if status
        else [],
    }


def latest_grades(reports: StoredPath, days: Sequence[DayStatus]) -> OutcomesDocument | None:
    """The outcomes of the latest day that has any; its document pools the grades of its version."""
    latest = next((day.day for day in reversed(days) if day.bad_rate is not None), None)
    found = None if latest is None else _read(OutcomesDocument, reports, latest)
    return found if isinstance(found, OutcomesDocument) else None


def outcomes_of(reports: StoredPath, days: Sequence[str]) -> list[OutcomesDocument]:
    """The documents of outcomes of some days, in their order; a day without one is left out."""
    with ThreadPoolExecutor(READERS, "read-days") as pool:
        found = pool.map(lambda day: _read(OutcomesDocument, reports, day), days)
        return [one for one in found if isinstance(one, OutcomesDocument)]


def table(reports: StoredPath, day: str, name: str) -> Response:
    """A table of a day as CSV.

    Raises:
        HTTPException: 404 if there is no such table, or the day does not have it.
    """
    if name not in TABLES:
        raise HTTPException(404, f"no table {name[:40]!r}; valid: {', '.join(TABLES)}")
    kind, rows_of, without = TABLES[name]
    document = _read(kind, reports, day)
    if document is None:
        raise HTTPException(404, f"{day} has no table {name}")
    if name in COLUMNS:
        return csv_response(f"{day}-{name}", rows_of(document), COLUMNS[name])
    return csv_of(f"{day}-{name}", rows_of(document), without)


DRIFT_COLUMNS = (
    "name",
    "label",
    "psi",
    "psi_judged",
    "threshold",
    "days",
    "drifted",
    "values",
    "training",
    "day",
    "month",
)


SEGMENTATION = ("segmentation",)
COLUMNS = {
    "drift": DRIFT_COLUMNS,
    "segments": (*SEGMENTATION, *DecisionSegment.model_fields),
    "segment-outcomes": (*SEGMENTATION, *OutcomeSegment.model_fields),
}


def _segments(document: SegmentDecisions | SegmentOutcomes) -> list[Mapping[str, Any]]:
    """A row for each segment; a verdict is its p-value."""
    return [
        {"segmentation": one.label}
        | {
            name: value["p_value"] if isinstance(value, dict) else value
            for name, value in segment.model_dump().items()
        }
        for one in document.segmentations
        for segment in one.segments
    ]


def _histograms(document: DriftDocument) -> list[Mapping[str, Any]]:
    """A row for each bin of each column."""
    return [
        column.model_dump(include={*DRIFT_COLUMNS}) | one.model_dump()
        for column in document.columns
        for one in column.bins
    ]


OF_OUTCOMES = ("bads", "bad_rate", "low", "high", "p_value")

TABLES: dict[str, tuple[type[BaseModel], Callable[[Any], Any], tuple[str, ...]]] = {
    "drift": (DriftDocument, _histograms, ()),
    "rejected": (BatchDocument, lambda one: one.reasons, ()),
    "files": (BatchDocument, lambda one: one.files, ()),
    "groups": (DecisionsDocument, lambda one: one.groups, ()),
    "grades": (OutcomesDocument, lambda one: one.grades, ()),
    "decisions": (
        DecisionsDocument,
        lambda one: one.grades,
        OF_OUTCOMES,
    ),
    "segments": (SegmentDecisions, _segments, ()),
    "segment-outcomes": (SegmentOutcomes, _segments, ()),
    "maturing": (OutcomesDocument, lambda one: one.maturing, ()),
}
"""Tables of a day: the document, its rows, and fields that they do not have."""


def _read(kind: Any, reports: StoredPath, day: str) -> Any:
    """A document of a day; None if it is not there or cannot be read."""
    try:
        return kind.read(reports, day)
    except (OSError, ValidationError) as error:
        log.warning("day_not_read", day=day, document=kind.__name__, problem=str(error))
        return None
