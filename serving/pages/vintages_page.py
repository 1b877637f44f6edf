"""The page of vintages: the bad rate of decisions of a day or a month as they grow older."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Response

from creditrisk_assets.monitoring.day_documents import OutcomesDocument
from creditrisk_assets.storage import StoredPath
from serving.pages.day_page import outcomes_of
from serving.pages.downloads import csv_response

AGES = (0, 1, 3, 7, 14, 30, 60, 90, 180, 365)
"""Days since the decision; a column shows what was known at that age."""

DAYS_SINGLE = 31
"""Of more days, each vintage is a month."""


@dataclass(frozen=True)
class Cell:
    """The outcomes of a vintage that were known at an age."""

    age: int
    matured: int
    bads: int

    @property
    def bad_rate(self) -> float | None:
        """Of the matured."""
        return self.bads / self.matured if self.matured else None


@dataclass(frozen=True)
class Vintage:
    """The decisions of a day or a month.

    Attributes:
        name: `YYYY-MM-DD` or `YYYY-MM`.
        decisions: all of them.
        cells: an entry for each age, None before any outcome of that age could be known.
    """

    name: str
    decisions: int
    cells: tuple[Cell | None, ...]


def vintages_of(documents: Sequence[OutcomesDocument], latest_day: str) -> list[Vintage]:
    """The vintages of some days, the newest first.

    A vintage has a cell for each age that all of its days had reached on the latest day of data.

    Args:
        documents: of the days.
        latest_day: of data.
    """
    by_month = len(documents) > DAYS_SINGLE
    groups: dict[str, list[OutcomesDocument]] = {}
    for one in documents:
        groups.setdefault(one.day[:7] if by_month else one.day, []).append(one)
    end = datetime.date.fromisoformat(latest_day)
    vintages = []
    for name in sorted(groups, reverse=True):
        days = groups[name]
        youngest = min((end - datetime.date.fromisoformat(one.day)).days for one in days)
        vintages.append(
            Vintage(
                name,
                sum(one.decisions for one in days),
                tuple(_cell(days, age) if age <= youngest else None for age in AGES),
            )
        )
    return vintages


def _cell(days: Sequence[OutcomesDocument], age: int) -> Cell:
    """The outcomes that were known when each day was of an age."""
    matured = bads = 0
    for one in days:
        limit = datetime.date.fromisoformat(one.day) + datetime.timedelta(days=age)
        known = [line for line in one.maturing if line.latest_day <= limit.isoformat()]
        if known:
            matured += known[-1].matured
            bads += known[-1].bads
    return Cell(age, matured, bads)


def view(reports: StoredPath, days: Sequence[str], latest_day: str) -> dict[str, Any]:
    """The values of the page: the vintages, and the ages that any of them has reached."""
    vintages = vintages_of(outcomes_of(reports, days), latest_day) if days else []
    reached = [
        place for place in range(len(AGES)) if any(one.cells[place] is not None for one in vintages)
    ]
    return {"vintages": vintages, "ages": [(place, AGES[place]) for place in reached]}


def table(reports: StoredPath, days: Sequence[str], latest_day: str) -> Response:
    """The vintages as CSV, a line for each age."""
    rows = [
        {
            "vintage": one.name,
            "decisions": one.decisions,
            "age_days": cell.age,
            "matured": cell.matured,
            "bads": cell.bads,
            "bad_rate": cell.bad_rate,
        }
        for one in view(reports, days, latest_day)["vintages"]
        for cell in one.cells
        if cell is not None
    ]
    names = ("vintage", "decisions", "age_days", "matured", "bads", "bad_rate")
    return csv_response("vintages", rows, names)
