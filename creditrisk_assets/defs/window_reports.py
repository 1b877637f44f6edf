"""Reports over several days, written by `creditrisk report` and the job `window_reports`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from creditrisk_assets.defs.drift import (
    report_heading,
    scored_by,
    stored_reports,
    write_report,
)
from creditrisk_assets.defs.event_log import day_of_data
from creditrisk_assets.defs.io import ParquetRows, stored_path
from creditrisk_assets.defs.partitions import days_before
from creditrisk_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

WINDOWS = (7, 30)
"""Lengths, in days, of the reports that are written daily."""


class NothingToReport(LookupError):
    """No report is possible; the message gives the reason."""


@dataclass(frozen=True)
class WindowReport:
    """A written report.

    Attributes:
        until: the last day.
        days: requested number of days.
        used: those of them that the model of the last day scored.
        rows: rows of these days.
        model_version: that model.
        stability: a line for each column, over all those rows.
        html: path of the page.
        url: address of the page at the API.
    """

    until: str
    days: int
    used: list[str]
    rows: int
    model_version: str
    stability: "pd.DataFrame"
    html: str
    url: str


def write_window_report(
    instance: dg.DagsterInstance, settings: Settings, days: int, until: str | None = None
) -> WindowReport:
    """Report on the rows of several days together. Figures come from the counts in `drift_report`,
    which cover all rows; pictures come from a sample over all days.

    Args:
        instance: the Dagster instance.
        settings: the store of the days.
        days: number of days up to and including the last.
        until: the last day, by default the latest scored day.

    Raises:
        NothingToReport: if the last day has no drift report, or pictures are turned off.
    """
    from creditrisk_assets.monitoring.drift_table import window_stability
    from creditrisk_assets.monitoring.evidently_report import report_columns, report_on_rows
    from creditrisk_assets.scoring.reference_profile import reference_profile_of

    if not settings.policy.reports.rows:
        raise NothingToReport(
            "reports.rows of the policy is 0; valid: the rows that a report may draw"
        )
    last = until or day_of_data(instance)
    scores = None if last is None else stored_path(settings.storage, "production_scores", last)
    if last is None or scores is None or not scores.exists():
        what = f"{last} was not scored" if last else "no day was scored yet"
        raise NothingToReport(f"{what}; valid: a day that `creditrisk status` lists")
    version, bundle = scored_by(settings, ParquetRows(scores))
    reports = stored_reports(settings, [last, *days_before(last, days - 1)], version)
    if not reports:
        raise NothingToReport(
            f"the days up to {last} have no drift report; valid: days after the job "
            "score_production"
        )
    profile = reference_profile_of(bundle)
    stability = window_stability(profile, [frame for _, frame in reports], settings.policy.drift)
    used = [day for day, _ in reports]
    files = [stored_path(settings.storage, "production_scores", day) for day in reversed(used)]
    folder = f"drift/windows/{last}/{days}"
    heading = report_heading(settings, f"{days} days to {last}, version {version}", last)
    try:
        report = report_on_rows(
            files, bundle, report_columns(stability), settings.policy.reports.rows, heading
        )
    except (
        Exception
    ) as error:  # the drawing library may raise anything; the days are measured already
        raise NothingToReport(
            f"the report up to {last} cannot be drawn: {type(error).__name__}: {error}"
        ) from error
    written = write_report(settings, folder, report)
    return WindowReport(
        until=last,
        days=days,
        used=used,
        rows=int(stability["pooled_rows"].iloc[0]),
        model_version=version,
        stability=stability,
        html=str(written["evidently_html"].value),
        url=str(written["evidently_report"].value),
    )


@dg.op
def write_window_reports(
    context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]
) -> None:
    """Write the reports over the last 7 and 30 days of data."""
    for days in WINDOWS:
        try:
            report = write_window_report(context.instance, settings, days)
        except NothingToReport as reason:
            context.log.info(f"no report over {days} days: {reason}")
            continue
        context.log.info(
            f"{days} days until {report.until}, {report.rows:,} rows of {len(report.used)} days: "
            f"{report.url}"
        )


@dg.job(description="Evidently reports over the last 7 and 30 days of data.")
def window_reports() -> None:
    """Run the daily window reports."""
    write_window_reports()


daily_window_reports = dg.ScheduleDefinition(
    name="daily_window_reports",
    job=window_reports,
    cron_schedule="0 4 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="The window reports, at 04:00 UTC.",
)
