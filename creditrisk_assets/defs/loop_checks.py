"""The loop watches itself: five checks on `champion`, run by the job `watch`, and by `creditrisk
watch` from outside.
"""

import datetime
import time
from collections.abc import Sequence
from typing import Any

import dagster as dg
from dagster._core.scheduler.instigation import TickStatus

from creditrisk_assets.defs import event_log
from creditrisk_assets.defs.champion import champion
from creditrisk_assets.defs.check_results import BLOCKING, check_result
from creditrisk_assets.defs.jobs import assess_performance
from creditrisk_assets.defs.status import SENSORS
from creditrisk_assets.landing.listing import list_day
from creditrisk_assets.monitoring import loop_health
from creditrisk_assets.monitoring.loop_health import (
    ApiAnswer,
    Finding,
    RunBeat,
    SensorBeat,
)
from creditrisk_assets.settings import Settings

NO_API = "none"
CONVERGE_SECONDS = 6.0
"""The workers of the API follow a new champion within five seconds."""

FAILURES_SINCE = datetime.timedelta(days=7)
"""A failure before that is history."""
FAILURES_LOOKED_AT = 50

LATE_TICK_SECONDS = 120.0
"""A sensor may be late by this: a tick may take a minute, and the daemon another to restart."""

HANGING_RUN_MINUTES = 75.0
"""A run under way for longer hangs: Dagster's run monitoring ends one after 60 minutes."""


@dg.asset_check(asset=champion)
def sensors_tick(
    context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """Every sensor ticked within its interval and some slack, and its last tick did not fail:
    Dagster itself raises no alarm.
    """
    return _result(watch_sensors(context.instance, settings))


@dg.asset_check(asset=champion)
def no_run_hangs(
    context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """No run is under way, or in the queue, for longer than the limit."""
    return _result(watch_runs(context.instance, settings))


@dg.asset_check(asset=champion)
def no_run_failed(
    context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """The last run of each job and day did not fail, but where a failed check says why and raises
    the alarm itself.
    """
    return _result(watch_failures(context.instance, settings))


@dg.asset_check(asset=champion)
def api_serves_the_champion(
    context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """The API answers by the version and the bundle that the champion asset names."""
    return _result(watch_api(context.instance, settings))


@dg.asset_check(asset=champion)
def data_is_fresh(
    context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """Every business day that is over was scored, up to the days that may be missing. Here the wall
    clock counts: the question is whether today's file came.
    """
    return _result(watch_data(context.instance, settings))


CHECKS = (sensors_tick, no_run_hangs, no_run_failed, api_serves_the_champion, data_is_fresh)

watch = dg.define_asset_job(
    "watch",
    selection=dg.AssetSelection.checks(*(key for check in CHECKS for key in check.check_keys)),
    description="Whether sensors, runs, API and data are alive.",
)

watch_schedule = dg.ScheduleDefinition(
    name="watch_often",
    job=watch,
    cron_schedule="*/10 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="The loop watches itself, every ten minutes.",
)


def findings(instance: dg.DagsterInstance, settings: Settings) -> list[Finding]:
    """All five, as they are now."""
    watches = (watch_sensors, watch_runs, watch_failures, watch_api, watch_data)
    return [one(instance, settings) for one in watches]


def unreadable(error: Exception) -> list[Finding]:
    """What is found where Dagster's instance cannot be read: nobody knows whether anything
    ticks.
    """
    first = (str(error).strip().splitlines() or [""])[0]
    told = f"Dagster's instance cannot be read: {type(error).__name__}: {first}"
    return [Finding(loop_health.sensors_tick.__name__, False, told, "unreadable", "readable", 0)]


def watch_sensors(instance: dg.DagsterInstance, _settings: Settings) -> Finding:
    """Whether every sensor ticks."""
    return loop_health.sensors_tick(sensor_beats(instance, SENSORS), time.time(), LATE_TICK_SECONDS)


def sensor_beats(
    instance: dg.DagsterInstance, watched: Sequence[dg.SensorDefinition]
) -> list[SensorBeat]:
    """The last sign of life of each sensor."""
    beats = []
    for sensor in watched:
        running, ticks = event_log.sensor_ticks(instance, sensor.name)
        error = None
        if ticks and ticks[0].status is TickStatus.FAILURE:
            error = ticks[0].error.message if ticks[0].error else "no message"
        interval = float(sensor.minimum_interval_seconds or 30)
        beats.append(
            SensorBeat(
                sensor.name, interval, ticks[0].timestamp if ticks else None, error, not running
            )
        )
    return beats


def watch_runs(instance: dg.DagsterInstance, _settings: Settings) -> Finding:
    """Whether a run hangs."""
    records = instance.get_run_records(dg.RunsFilter(statuses=event_log.IN_FLIGHT))
    return loop_health.no_run_hangs(
        [_beat(record) for record in records], time.time(), HANGING_RUN_MINUTES
    )


def watch_failures(instance: dg.DagsterInstance, settings: Settings) -> Finding:
    """Whether a run failed, and neither a later run of the same job and day nor a failed check says
    more. A run on a day without a file is no failure of the loop: only a file could make it
    succeed, and when one lands the day runs by itself.
    """
    since = datetime.datetime.now(datetime.UTC) - FAILURES_SINCE
    wanted = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    records = instance.get_run_records(wanted, limit=FAILURES_LOOKED_AT)
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
    """Whether a file lies where a run of a day reads; runs of no day always have."""
    day = run.tags.get(event_log.PARTITION_TAG)
    if day is None:
        return True
    of_outcomes = run.job_name == assess_performance.name
    folder = (settings.landing_outcomes if of_outcomes else settings.landing_production) / day
    return folder.exists() and bool((listing := list_day(folder)).files or listing.problem)


def _is_the_last(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    day = run.tags.get(event_log.PARTITION_TAG)
    wanted = dg.RunsFilter(
        job_name=run.job_name, tags={event_log.PARTITION_TAG: day} if day else None
    )
    return [later.run_id for later in instance.get_runs(wanted, limit=1)] == [run.run_id]


def _beat(record: dg.RunRecord) -> RunBeat:
    run = record.dagster_run
    since = record.start_time or record.create_timestamp.timestamp()
    return RunBeat(
        run.run_id, run.job_name, run.tags.get(event_log.PARTITION_TAG), run.status.value, since
    )


def watch_api(instance: dg.DagsterInstance, settings: Settings) -> Finding:
    """Whether the API serves the champion; it is given the seconds that it may take to follow."""
    url = settings.watch_api_url or settings.api_url
    if url.lower() == NO_API:
        return loop_health.api_serves_the_champion(None, None, None, None)
    ends = time.monotonic() + CONVERGE_SECONDS
    while True:
        in_force = event_log.champion_in_force(instance)
        if in_force is None:
            return loop_health.api_serves_the_champion(None, None, url, None)
        answer: ApiAnswer = loop_health.ask_api(url)
        found = loop_health.api_serves_the_champion(
            in_force.model_version, in_force.bundle_sha256, url, answer
        )
        if found.passed or time.monotonic() > ends:
            return found
        time.sleep(1)


def watch_data(instance: dg.DagsterInstance, settings: Settings) -> Finding:
    """Whether the data is fresh."""
    today = datetime.datetime.now(datetime.UTC).date()
    return loop_health.data_is_fresh(
        event_log.day_of_data(instance),
        today,
        settings.portfolio.data_weekdays,
        settings.portfolio.late_days,
    )


def _result(found: Finding) -> dg.AssetCheckResult:
    return check_result(found.check, passed=found.passed, **said(found))


def said(found: Finding) -> dict[str, Any]:
    """What a finding says, as a watched check says it."""
    return {name: getattr(found, name) for name in ("summary", "observed", "threshold", "rows")}
