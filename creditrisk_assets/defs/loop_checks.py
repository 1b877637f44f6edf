"""Checks on the loop itself: five checks on `champion`, run by the job `watch`, and from outside
the daemon by `creditrisk watch`.
"""

import datetime
import time
from collections.abc import Callable
from inspect import getdoc

import dagster as dg
from dagster._core.scheduler.instigation import TickStatus

from creditrisk_assets.defs import event_log
from creditrisk_assets.defs.champion import champion
from creditrisk_assets.defs.check_results import BLOCKING, check_result
from creditrisk_assets.defs.jobs import assess_performance
from creditrisk_assets.defs.status import SENSORS
from creditrisk_assets.landing.listing import list_day
from creditrisk_assets.monitoring import loop_health
from creditrisk_assets.monitoring.loop_health import Finding, RunBeat, SensorBeat
from creditrisk_assets.settings import Settings

NO_API = "none"
CONVERGE_SECONDS = 6.0
"""Time limit for the API's workers to follow a new champion, which takes them up to five seconds.
"""

FAILURES_SINCE = datetime.timedelta(days=7)
"""Older failures are ignored."""
FAILURES_LIMIT = 50

LATE_TICK_SECONDS = 120.0
"""Tolerated delay of a tick: a tick takes up to a minute, and a restart of the daemon another."""

HANGING_RUN_MINUTES = 75.0
"""Limit for a run in progress; Dagster's run monitoring ends one after 60 minutes."""


def unreadable(error: Exception) -> list[Finding]:
    """The findings for a Dagster instance that cannot be read: the state of the sensors is
    unknown.
    """
    first = (str(error).strip().splitlines() or [""])[0]
    message = f"Dagster's instance cannot be read: {type(error).__name__}: {first}"
    return [Finding(loop_health.sensors_tick.__name__, False, message, "unreadable", "readable", 0)]


def sensors_tick(instance: dg.DagsterInstance, _settings: Settings) -> Finding:
    """Every sensor ticked within its interval plus a tolerance, and its last tick did not fail.
    Dagster itself raises no alarm for this.
    """
    beats = []
    for sensor in SENSORS:
        running, ticks = event_log.sensor_ticks(instance, sensor.name)
        error = None
        if ticks and ticks[0].status is TickStatus.FAILURE:
            error = ticks[0].error.message if ticks[0].error else "no message"
        interval = float(sensor.minimum_interval_seconds or 30)
        last = ticks[0].timestamp if ticks else None
        beats.append(SensorBeat(sensor.name, interval, last, error, not running))
    return loop_health.sensors_tick(beats, time.time(), LATE_TICK_SECONDS)


def no_run_hangs(instance: dg.DagsterInstance, _settings: Settings) -> Finding:
    """No run is in progress or queued for longer than the limit."""
    records = instance.get_run_records(dg.RunsFilter(statuses=event_log.IN_FLIGHT))
    return loop_health.no_run_hangs(
        [_beat(record) for record in records], time.time(), HANGING_RUN_MINUTES
    )


def no_run_failed(instance: dg.DagsterInstance, settings: Settings) -> Finding:
    """The last run of each job and day succeeded. Runs that a failed check explains are left out,
    because the check raises the alarm.
    """
    since = datetime.datetime.now(datetime.UTC) - FAILURES_SINCE
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    records = instance.get_run_records(failed, limit=FAILURES_LIMIT)
    explained = {one.run_id for one in event_log.failed_evaluations(instance, BLOCKING)}
    standing = [
        _beat(record)
        for record in records
        if record.dagster_run.run_id not in explained
        and _is_the_last(instance, record.dagster_run)
        and _has_something_to_do(settings, record.dagster_run)
    ]
    return loop_health.no_run_failed(standing, len(records))


def _has_something_to_do(settings: Settings, run: dg.DagsterRun) -> bool:
    """True if the landing zone has a file for the run's day, or the run has no day. Without a file
    only a new one can make the run succeed, and it starts a run itself.
    """
    day = run.tags.get(event_log.PARTITION_TAG)
    if day is None:
        return True
    of_outcomes = run.job_name == assess_performance.name
    folder = (settings.landing_outcomes if of_outcomes else settings.landing_production) / day
    return folder.exists() and bool((listing := list_day(folder)).files or listing.problem)


def _is_the_last(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    day = run.tags.get(event_log.PARTITION_TAG)
    same = dg.RunsFilter(
        job_name=run.job_name, tags={event_log.PARTITION_TAG: day} if day else None
    )
    return [later.run_id for later in instance.get_runs(same, limit=1)] == [run.run_id]


def _beat(record: dg.RunRecord) -> RunBeat:
    run = record.dagster_run
    since = record.start_time or record.create_timestamp.timestamp()
    return RunBeat(
        run.run_id, run.job_name, run.tags.get(event_log.PARTITION_TAG), run.status.value, since
    )


def api_serves_the_champion(instance: dg.DagsterInstance, settings: Settings) -> Finding:
    """The API serves the version and bundle of the champion asset."""
    url = settings.watch_api_url or settings.api_url
    if url.lower() == NO_API:
        return loop_health.api_serves_the_champion(None, None, None, None)
    ends = time.monotonic() + CONVERGE_SECONDS
    while True:
        in_force = event_log.champion_in_force(instance)
        if in_force is None:
            return loop_health.api_serves_the_champion(None, None, url, None)
        finding = loop_health.api_serves_the_champion(
            in_force.model_version, in_force.bundle_sha256, url, loop_health.ask_api(url)
        )
        if finding.passed or time.monotonic() > ends:
            return finding
        time.sleep(1)


def data_is_fresh(instance: dg.DagsterInstance, settings: Settings) -> Finding:
    """Every past business day is scored, except for the tolerated late days. Uses the wall clock,
    because a file can be missing today.
    """
    today = datetime.datetime.now(datetime.UTC).date()
    return loop_health.data_is_fresh(
        event_log.day_of_data(instance),
        today,
        settings.portfolio.data_weekdays,
        settings.portfolio.late_days,
    )


READERS = (sensors_tick, no_run_hangs, no_run_failed, api_serves_the_champion, data_is_fresh)
"""Each gives the name, the description and the finding of a check."""


def _check(read: Callable[[dg.DagsterInstance, Settings], Finding]) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=champion, name=read.__name__, description=getdoc(read))
    def check(
        context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> dg.AssetCheckResult:
        return check_result(**vars(read(context.instance, settings)))

    return check


CHECKS = tuple(_check(read) for read in READERS)

watch = dg.define_asset_job(
    "watch",
    selection=dg.AssetSelection.checks(*(key for check in CHECKS for key in check.check_keys)),
    description="Checks that sensors, runs, API and data are alive.",
)

watch_schedule = dg.ScheduleDefinition(
    name="watch_often",
    job=watch,
    cron_schedule="*/10 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="The checks on the loop, every ten minutes.",
)


def findings(instance: dg.DagsterInstance, settings: Settings) -> list[Finding]:
    """Current findings of the five checks."""
    return [read(instance, settings) for read in READERS]
