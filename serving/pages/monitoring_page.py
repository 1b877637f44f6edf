"""The pages of monitoring: the loop, a day, the versions, a month; their tables as CSV, and JSON.

They read the documents that the loop writes beside the reports, so they need no database of the
orchestrator, and load nothing from another host.
"""

import datetime
import time
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, HTTPException, Path, Query, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from creditrisk_assets.monitoring.loop_state import state_of
from creditrisk_assets.monitoring.loop_status import LoopStatus
from creditrisk_assets.settings import Settings
from serving.pages import day_page, month_page, overview, versions_page, vintages_page
from serving.pages.downloads import csv_of, csv_response
from serving.pages.overview import EVENT_LABELS, InvalidRange, Range
from serving.pages.templating import VERDICT_LABELS, environment

log = structlog.get_logger()

NOT_WRITTEN = (
    "The loop has written nothing yet. It does so within seconds once its daemon runs: make dev."
)
NOT_READ = "The status of the loop cannot be read now."
ALERT_COLUMNS = (
    "id",
    "state",
    "tier",
    "check",
    "failure",
    "model_version",
    "opened_day",
    "latest_day",
    "failures",
    "acknowledged_by",
    "acknowledged_reason",
    "snoozed_until",
    "closed_at",
    "closed_by",
)

DayName = Annotated[datetime.date, Path(description="Day of data, YYYY-MM-DD.")]
From = Annotated[str, Query(alias="from")]
To = Annotated[str, Query(alias="to")]


def monitoring_router(settings: Settings) -> APIRouter:
    """The pages, and the reports that they link to.

    Args:
        settings: the place of the reports.
    """
    router = APIRouter()

    @router.get("/monitoring", response_class=HTMLResponse, include_in_schema=False)
    def monitoring(first: From = "", last: To = "", version: str = "") -> HTMLResponse:
        status, problem = _status(settings)
        shown = _range(status, first, last, version)
        days = overview.days_shown(status, shown) if status else []
        return _page(
            settings,
            "monitoring.html",
            status=status,
            problem=problem,
            state=_state(settings, status) if status else None,
            shown=shown,
            days=days,
            versions=overview.versions_of(status) if status else [],
            charts=overview.charts_of(status, days, _currency(settings)) if status else [],
            grades=day_page.latest_grades(settings.reports, days),
            ranges=overview.RANGES,
            months=sorted({day.day[:7] for day in days}, reverse=True),
        )

    @router.get("/monitoring.json")
    def monitoring_json() -> LoopStatus:
        """The status of the loop as a document: champion, days with their figures, alerts with who
        acknowledged them, retrains and moves of the champion.
        """
        return _required_status(settings)

    @router.get("/monitoring/days.csv", include_in_schema=False)
    def days_csv(first: From = "", last: To = "", version: str = "") -> Response:
        status = _required_status(settings)
        shown = _range(status, first, last, version)
        return csv_of("days", overview.days_shown(status, shown), ("alarms", "runs", "has_report"))

    @router.get("/monitoring/alerts.csv", include_in_schema=False)
    def alerts_csv() -> Response:
        rows = (one.model_dump() for one in _required_status(settings).episodes)
        return csv_response("alerts", rows, ALERT_COLUMNS)

    @router.get("/monitoring/events.csv", include_in_schema=False)
    def events_csv() -> Response:
        return csv_of("events", _required_status(settings).events)

    @router.get("/monitoring/versions", response_class=HTMLResponse, include_in_schema=False)
    def versions(left: str = "", right: str = "") -> HTMLResponse:
        status, problem = _status(settings)
        compared = versions_page.compared(settings.reports, left, right, status)
        return _page(settings, "versions.html", status=status, problem=problem, **compared)

    @router.get("/monitoring/versions.csv", include_in_schema=False)
    def versions_csv() -> Response:
        return versions_page.table(settings.reports)

    def vintage_days(first: str, last: str, version: str) -> tuple[Range, list[str], str]:
        status = _required_status(settings)
        shown = _range(status, first, last, version)
        days = [day.day for day in overview.days_shown(status, shown) if day.matured]
        return shown, days, max((day.day for day in status.days), default="")

    @router.get("/monitoring/vintages", response_class=HTMLResponse, include_in_schema=False)
    def vintages(first: From = "", last: To = "", version: str = "") -> HTMLResponse:
        shown, days, latest = vintage_days(first, last, version)
        view = vintages_page.view(settings.reports, days, latest)
        return _page(settings, "vintages.html", shown=shown, **view)

    @router.get("/monitoring/vintages.csv", include_in_schema=False)
    def vintages_csv(first: From = "", last: To = "", version: str = "") -> Response:
        _, days, latest = vintage_days(first, last, version)
        return vintages_page.table(settings.reports, days, latest)

    @router.get("/monitoring/months/{month}", response_class=HTMLResponse, include_in_schema=False)
    def month(month: Annotated[str, Path(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]) -> HTMLResponse:
        status = _required_status(settings)
        view = month_page.month_of(settings.reports, status, month, _currency(settings))
        if view is None:
            raise HTTPException(404, f"no day of {month} has landed")
        return _page(settings, "month.html", status=status, **view)

    @router.get("/monitoring/{day}", response_class=HTMLResponse, include_in_schema=False)
    def day(day: DayName) -> HTMLResponse:
        status, _ = _status(settings)
        view = day_page.day_of(settings.reports, status, day.isoformat())
        if view is None:
            raise HTTPException(404, f"{day} has not landed; valid: a day of the monitoring page")
        return _page(settings, "day.html", status=status, **view)

    @router.get("/monitoring/{day}/{table}.csv", include_in_schema=False)
    def day_csv(day: DayName, table: str) -> Response:
        return day_page.table(settings.reports, day.isoformat(), table)

    @router.get("/reports/drift/{day}", response_class=HTMLResponse)
    def drift_report(day: datetime.date) -> HTMLResponse:
        """The Evidently report of a day."""
        return _report(
            settings, f"drift/{day.isoformat()}/report.html", f"no drift report for {day}"
        )

    @router.get("/reports/drift/windows/{until}/{days}", response_class=HTMLResponse)
    def window_report(
        until: datetime.date, days: Annotated[int, Path(ge=1, le=366)]
    ) -> HTMLResponse:
        """The Evidently report of several days together."""
        return _report(
            settings,
            f"drift/windows/{until.isoformat()}/{days}/report.html",
            f"no report of {days} days to {until}",
        )

    @router.get("/reports/verdicts/{sha256}", response_class=HTMLResponse)
    def verdict(
        sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="Of the verdict.")],
    ) -> HTMLResponse:
        """A verdict of the promotion gate: every test, its figures and its limits."""
        return _report(settings, f"verdicts/{sha256}.html", f"no verdict {sha256}")

    return router


def _page(settings: Settings, template: str, **values: Any) -> HTMLResponse:
    content = (
        environment()
        .get_template(template)
        .render(
            portfolio=settings.portfolio,
            words=settings.portfolio.words,
            labels={one.name: one.label for one in settings.portfolio.fields},
            event_labels=EVENT_LABELS,
            verdict_labels=VERDICT_LABELS,
            **values,
        )
    )
    return HTMLResponse(content)


def _currency(settings: Settings) -> str:
    """The unit of the exposure."""
    portfolio = settings.portfolio
    return next((one.unit for one in portfolio.fields if one.name == portfolio.exposure), "")


def _state(settings: Settings, status: LoopStatus) -> Any:
    return state_of(status, 1 + len(settings.portfolio.fields), time.time())


def _range(status: LoopStatus | None, first: str, last: str, version: str) -> Range:
    try:
        return Range.of(status.days if status else (), first, last, version)
    except InvalidRange as error:
        raise HTTPException(422, str(error)) from error


def _report(settings: Settings, name: str, missing: str) -> HTMLResponse:
    try:
        page = (settings.reports / name).read_bytes()
    except FileNotFoundError as error:
        raise HTTPException(404, missing) from error
    return HTMLResponse(page)


def _required_status(settings: Settings) -> LoopStatus:
    status, problem = _status(settings)
    if status is None:
        raise HTTPException(404 if problem == NOT_WRITTEN else 503, problem)
    return status


def _status(settings: Settings) -> tuple[LoopStatus | None, str | None]:
    """The loop's status, or None with the reason."""
    try:
        return LoopStatus.read(settings.reports, settings.episodes), None
    except FileNotFoundError:
        return None, NOT_WRITTEN
    except (OSError, ValidationError) as error:
        log.warning("loop_status_not_read", problem=str(error))
        return None, NOT_READ
