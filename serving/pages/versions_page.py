"""The page of versions: any two of them side by side on the same customers."""

from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import HTTPException, Response
from pydantic import ValidationError

from creditrisk_assets.monitoring.loop_status import LoopStatus
from creditrisk_assets.monitoring.version_documents import (
    VersionFigures,
    VersionsDocument,
    VersionSegment,
)
from creditrisk_assets.storage import StoredPath
from serving.pages.downloads import csv_response
from serving.pages.month_page import totals_of

log = structlog.get_logger()

FIGURES = (
    ("roc_auc", "AUC", 1),
    ("gini", "Gini", 1),
    ("ks", "KS", 1),
    ("brier", "Brier score", -1),
    ("log_loss", "Log loss", -1),
    ("ece", "Calibration error (ECE)", -1),
    ("calibration_in_the_large", "Mean PD less bad rate", 0),
    ("calibration_slope", "Calibration slope (1 is right)", 0),
)
"""Name, label, and whether more of it is better (1), less (-1) or neither (0)."""


@dataclass(frozen=True)
class Line:
    """A figure of both versions.

    Attributes:
        label: for people.
        left: figure and its interval, as texts.
        right: likewise.
        difference: right less left, as a text.
        better: `left`, `right`, or empty if neither or not known.
    """

    label: str
    left: tuple[str, str]
    right: tuple[str, str]
    difference: str
    better: str = ""


def compared(
    reports: StoredPath, left: str, right: str, status: LoopStatus | None
) -> dict[str, Any]:
    """The values of the page.

    Args:
        reports: folder of the documents.
        left: version; empty for the one before that in force.
        right: version; empty for the one in force.
        status: of the loop.

    Raises:
        HTTPException: 422 if a version is not known.
    """
    document = _read(reports)
    if document is None:
        return {
            "document": None,
            "left": None,
            "right": None,
            "lines": [],
            "segments": {},
            "live": {},
        }
    known = {one.version: one for one in document.versions}
    for name, version in (("left", left), ("right", right)):
        if version and version not in known:
            valid = ", ".join(known)
            raise HTTPException(422, f"{name} is {version[:40]!r}; valid: one of {valid}")
    in_force = status.champion.model_version if status and status.champion else document.in_force
    chosen_right = known.get(right or in_force) or document.versions[0]
    others = [one for one in document.versions if one.version != chosen_right.version]
    chosen_left = known.get(left) or (others[0] if others else chosen_right)
    return {
        "document": document,
        "in_force": in_force,
        "left": chosen_left,
        "right": chosen_right,
        "lines": _lines(chosen_left, chosen_right, document.currency),
        "segments": _segments(chosen_left, chosen_right),
        "live": _live(status),
    }


@dataclass(frozen=True)
class Worth:
    """The realised loss of held-out customers, with all of them and without the refused.

    Attributes:
        customers: of the evidence.
        refused: share of them at or above the cut-off.
        all: loss of all, in the currency.
        approved: loss of those under the cut-off.
        per_thousand: the difference for each 1,000 customers.
        currency: unit.
    """

    customers: int
    refused: float
    all: float
    approved: float
    per_thousand: float
    currency: str


def worth_of(reports: StoredPath, version: str) -> Worth | None:
    """The worth of a version on the evidence; None if it was not compared, or the portfolio names
    no exposure.
    """
    document = _read(reports)
    found = document and next((one for one in document.versions if one.version == version), None)
    if not document or not found or document.loss is None or found.approved_loss is None:
        return None
    saved = document.loss - found.approved_loss
    return Worth(
        document.rows,
        1 - (found.approval_rate or 0.0),
        document.loss,
        found.approved_loss,
        1_000 * saved / document.rows,
        document.currency,
    )


def table(reports: StoredPath) -> Response:
    """All versions and figures as CSV.

    Raises:
        HTTPException: 404 if no version was judged.
    """
    document = _read(reports)
    if document is None:
        raise HTTPException(404, "no version was judged yet")
    names = sorted({name for one in document.versions for name in one.figures})
    own = [name for name in VersionFigures.model_fields if name not in ("figures", "segments")]
    rows = [one.model_dump(include={*own}) | one.figures for one in document.versions]
    return csv_response("versions", rows, [*own, *names])


def _lines(left: VersionFigures, right: VersionFigures, currency: str) -> list[Line]:
    lines = [_figure_line(left, right, *figure) for figure in FIGURES]
    shares = (
        ("approval_rate", "Approval rate at its cut-off"),
        ("approved_bad_rate", "Bad rate of the approved"),
        ("approval_at_equal_bad_rate", "Approval rate at the bad rate of the version in force"),
    )
    for name, label in shares:
        sign = {"approved_bad_rate": -1, "approval_at_equal_bad_rate": 1}.get(name, 0)
        lines.append(_line(label, getattr(left, name), getattr(right, name), ".4f", sign))
    lines.append(
        _line(
            f"Mean expected loss of an approved customer ({currency})",
            left.approved_expected_loss,
            right.approved_expected_loss,
            ",.0f",
            0,
        )
    )
    return [line for line in lines if line.left[0] or line.right[0]]


def _segments(
    left: VersionFigures, right: VersionFigures
) -> dict[str, list[tuple[VersionSegment, VersionSegment]]]:
    """The segments that both versions have, by segmentation."""
    of_right = {(one.segmentation, one.segment): one for one in right.segments}
    pairs: dict[str, list[tuple[VersionSegment, VersionSegment]]] = {}
    for one in left.segments:
        other = of_right.get((one.segmentation, one.segment))
        if other is not None:
            pairs.setdefault(one.segmentation, []).append((one, other))
    return pairs


def _figure_line(
    left: VersionFigures, right: VersionFigures, name: str, label: str, sign: int
) -> Line:
    line = _line(label, left.figures.get(name), right.figures.get(name), ".4f", sign)
    intervals = [
        f"{one.figures[f'{name}_low']:.4f} to {one.figures[f'{name}_high']:.4f}"
        if f"{name}_low" in one.figures
        else ""
        for one in (left, right)
    ]
    return Line(
        line.label,
        (line.left[0], intervals[0]),
        (line.right[0], intervals[1]),
        line.difference,
        line.better,
    )


def _line(label: str, left: float | None, right: float | None, spec: str, sign: int) -> Line:
    texts = ["" if one is None else f"{one:{spec}}" for one in (left, right)]
    if left is None or right is None:
        return Line(label, (texts[0], ""), (texts[1], ""), "")
    difference = right - left
    better = "" if sign * difference == 0 else ("right" if sign * difference > 0 else "left")
    return Line(label, (texts[0], ""), (texts[1], ""), f"{difference:+{spec}}", better)


def _live(status: LoopStatus | None) -> dict[str, dict[str, Any]]:
    """The realised figures of the days that each version decided."""
    if status is None:
        return {}
    days = sorted(status.days, key=lambda day: day.day)
    return {total["version"]: total for total in totals_of(days)}


def _read(reports: StoredPath) -> VersionsDocument | None:
    try:
        return VersionsDocument.read(reports)
    except (OSError, ValidationError) as error:
        log.warning("versions_not_read", problem=str(error))
        return None
