"""The monitoring page: the champion, its days, alarms, retrains and promotions on one time axis.

It reads the status that the loop writes beside the reports, so it needs no database of the
orchestrator, and loads nothing from another host.
"""

import datetime
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import structlog
from fastapi import APIRouter, HTTPException, Path
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from creditrisk_assets.monitoring.loop_status import DAYS_SHOWN, DayStatus, Event, LoopStatus
from creditrisk_assets.settings import Settings
from serving.pages.charts import Chart, Level, Mark, Point, Series, chart
from serving.pages.templating import VERDICT_LABELS, environment

log = structlog.get_logger()

Z95 = 1.959964
EVENT_LABELS = {**VERDICT_LABELS, "failed": "retrain failed", "in flight": "retrain under way"}
CHAMPION_MOVES = ("first", "promoted", "rolled_back", "cut_off")
"""Events that change decisions."""


def monitoring_router(settings: Settings) -> APIRouter:
    """The page, and the reports that it links to.

    Args:
        settings: the place of the reports.
    """
    router = APIRouter()

    @router.get("/monitoring", response_class=HTMLResponse, include_in_schema=False)
    def monitoring() -> HTMLResponse:
        status, problem = _status(settings)
        days = sorted(status.days, key=lambda day: day.day) if status else []
        content = (
            environment()
            .get_template("monitoring.html")
            .render(
                portfolio=settings.portfolio,
                status=status,
                problem=problem,
                days=days,
                charts=_charts(status, days) if status else [],
                event_labels=EVENT_LABELS,
                days_shown=DAYS_SHOWN,
            )
        )
        return HTMLResponse(content)

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


def _report(settings: Settings, name: str, missing: str) -> HTMLResponse:
    try:
        page = (settings.reports / name).read_bytes()
    except FileNotFoundError as error:
        raise HTTPException(404, missing) from error
    return HTMLResponse(page)


def _status(settings: Settings) -> tuple[LoopStatus | None, str | None]:
    """The loop's status, or None with the reason."""
    try:
        return LoopStatus.read(settings.reports), None
    except FileNotFoundError:
        return (
            None,
            "The loop has written nothing yet. It does so within seconds once its daemon runs: "
            "make dev.",
        )
    except (OSError, ValidationError) as error:
        log.warning("loop_status_not_read", problem=str(error))
        return None, "The status of the loop cannot be read now."


def _charts(status: LoopStatus, days: list[DayStatus]) -> list[Chart]:
    """Stability, ranking and level over the days, with the events."""
    marks = [
        _mark(event)
        for event in status.events
        if event.day is not None and event.kind != "unchanged"
    ]

    def series(
        name: str,
        style: str,
        figure: str,
        error: Callable[[DayStatus], float | None] = lambda _: None,
    ) -> Series:
        figures = ((day, getattr(day, figure)) for day in days)
        points = [_point(day.day, one, error(day)) for day, one in figures if one is not None]
        return Series(name, style, points)

    def rate_error(day: DayStatus) -> float | None:
        """The binomial standard error of a day's bad rate."""
        rate = day.bad_rate or 0.0
        return (rate * (1 - rate) / day.matured) ** 0.5 if day.matured else None

    charts = [
        chart(
            "PSI of the score, days judged together",
            [
                series("PSI", "realised", "score_psi_judged"),
                series("alarm line", "limit", "score_psi_threshold"),
            ],
            marks,
            from_zero=True,
        ),
        chart(
            "AUC: estimated without outcomes, and realised",
            [
                series(
                    "estimated",
                    "estimated",
                    "estimated_roc_auc",
                    lambda day: day.estimated_roc_auc_standard_error,
                ),
                series("realised", "realised", "roc_auc", lambda day: day.roc_auc_standard_error),
            ],
            marks,
            _at_validation(days),
        ),
        chart(
            "Bad rate and mean PD of matured decisions",
            [
                series("mean PD", "estimated", "mean_pd"),
                series("bad rate", "realised", "bad_rate", rate_error),
            ],
            marks,
            from_zero=True,
        ),
    ]
    return [chart for chart in charts if chart is not None]


def _at_validation(days: list[DayStatus]) -> list[Level]:
    """The AUC at validation of each version, over the days that it decided."""
    levels = list[Level]()
    for day in days:
        name = f"version {day.model_version} at validation"
        if day.validation_roc_auc is None:
            continue
        if levels and levels[-1].name == name:
            levels[-1] = replace(levels[-1], last=day.day)
        else:
            levels.append(Level(day.day, day.day, day.validation_roc_auc, name))
    return levels


def _point(day: str, value: float, error: float | None) -> Point:
    if error is None:
        return Point(day, value)
    return Point(day, value, max(0.0, value - Z95 * error), min(1.0, value + Z95 * error))


def _mark(event: Event) -> Mark:
    label = EVENT_LABELS.get(event.kind, event.kind)
    is_move = event.kind in CHAMPION_MOVES
    version = event.model_version if is_move else event.challenger
    suffix = f", version {version}" if version else ""
    return Mark(str(event.day), f"{event.day}: {label}{suffix}", "move" if is_move else "tried")
