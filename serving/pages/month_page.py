"""The report of a month, made for print."""

from collections.abc import Sequence
from typing import Any

from creditrisk_assets.monitoring.loop_status import DayStatus, LoopStatus
from creditrisk_assets.storage import StoredPath
from serving.pages import day_page, overview
from serving.pages.overview import Range


def month_of(
    reports: StoredPath, status: LoopStatus, month: str, currency: str
) -> dict[str, Any] | None:
    """The values of a month's report; None if no day of it has landed.

    Args:
        reports: folder of the documents.
        status: of the loop.
        month: `YYYY-MM`.
        currency: unit of the losses.
    """
    days = sorted(
        (day for day in status.days if day.day.startswith(f"{month}-")), key=lambda day: day.day
    )
    if not days:
        return None
    first, last = days[0].day, days[-1].day
    return {
        "month": month,
        "days": days,
        "shown": Range(first, last),
        "totals": totals_of(days),
        "currency": currency,
        "charts": overview.charts_of(status, days, currency),
        "grades": day_page.latest_grades(reports, days),
        "events": [one for one in status.events if one.day and first <= one.day <= last],
        "episodes": [
            one for one in status.episodes if one.opened_day <= last and one.latest_day >= first
        ],
    }


def totals_of(days: Sequence[DayStatus]) -> list[dict[str, Any]]:
    """Sums of days by version, in the order of the versions' first days: days, decisions, approved,
    matured, losses, and the bad rate and mean PD of the matured.
    """
    totals = []
    for version in dict.fromkeys(day.model_version for day in days if day.model_version):
        own = [day for day in days if day.model_version == version]
        matured = sum(day.matured or 0 for day in own if day.bad_rate is not None)
        totals.append(
            {
                "version": version,
                "days": len(own),
                "rejected": sum(day.rejected or 0 for day in own),
                "matured": matured,
                **{
                    name: _sum(own, name)
                    for name in (
                        "decisions",
                        "approved",
                        "expected_loss",
                        "matured_expected_loss",
                        "realised_loss",
                    )
                },
                **{name: _mean(own, name) for name in ("bad_rate", "mean_pd")},
            }
        )
    return totals


def _sum(days: Sequence[DayStatus], name: str) -> float | None:
    figures = [getattr(day, name) for day in days if getattr(day, name) is not None]
    return sum(figures) if figures else None


def _mean(days: Sequence[DayStatus], name: str) -> float | None:
    """The mean over matured decisions."""
    figures = [
        (getattr(day, name), day.matured or 0) for day in days if getattr(day, name) is not None
    ]
    rows = sum(weight for _, weight in figures)
    return sum(value * weight for value, weight in figures) / rows if rows else None
