"""The status of the loop as plain values, for `creditrisk status`, the monitoring page, the demo
and the tests, and the sensor that writes it for the monitoring page.
"""

import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import (
    DagsterInstance as DagsterInstance,
)  # re-exported: the demo holds one and imports no Dagster
from dagster._core.scheduler.instigation import TickStatus
from pydantic import ValidationError

from creditrisk_assets.defs import alerts, event_log, orphaned_runs, sensors
from creditrisk_assets.defs.check_results import CHECKS
from creditrisk_assets.defs.event_log import ChampionMove
from creditrisk_assets.defs.event_log import champion_in_force as champion_in_force
from creditrisk_assets.defs.history import raw_data
from creditrisk_assets.defs.io import ParquetIOManager
from creditrisk_assets.defs.jobs import retrain
from creditrisk_assets.defs.landing_scan import days_waiting, zone_problems
from creditrisk_assets.defs.metadata import sensor
from creditrisk_assets.defs.production import production_batch
from creditrisk_assets.defs.retraining import history_mark, retrain_decision
from creditrisk_assets.landing.history import History
from creditrisk_assets.landing.ingestion import ValidatedRows
from creditrisk_assets.monitoring.check_catalogue import BY_CHECK
from creditrisk_assets.monitoring.day_records import (
    BatchRecord,
    DriftRecord,
    PerformanceRecord,
    ScoresRecord,
)
from creditrisk_assets.monitoring.episodes import EPISODES_FILE, read_episodes
from creditrisk_assets.monitoring.loop_status import (
    DAYS_SHOWN,
    DAYS_WRITTEN,
    DayStatus,
    Event,
    FailedCheck,
    LoopStatus,
    RunStatus,
    SensorStatus,
)
from creditrisk_assets.portfolio.outcomes import maturity
from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.settings import Settings
from creditrisk_assets.storage import file_sha256

INTERVAL_SECONDS = 10
DAYS_READ = 100
"""Days that are read from the event log at once."""

STATUS_AGE_SECONDS = 300.0
"""Limit on the age of the written status: it contains messages of sensors, which change without any
event.
"""


def open_instance(home: Path) -> DagsterInstance:
    """Open the Dagster instance of a folder with a `dagster.yaml`; sets `DAGSTER_HOME` of this
    process to the folder.

    Raises:
        FileNotFoundError: if there is no `dagster.yaml`.
    """
    if not (home / "dagster.yaml").is_file():
        raise FileNotFoundError(
            f"{home} has no dagster.yaml; run from the project's folder or set DAGSTER_HOME to it"
        )
    os.environ["DAGSTER_HOME"] = str(home.resolve())
    return DagsterInstance.get()


def stored_history(home: Path, settings: Settings) -> History | None:
    """The training history of a store; None before the first materialization of `raw_data`.

    Args:
        home: folder of `dagster.yaml`.
        settings: the store.
    """
    import pandas as pd

    if not (home / "dagster.yaml").is_file():
        return None
    event = open_instance(home).get_latest_materialization_event(raw_data.key)
    path = settings.storage / f"{raw_data.key.to_python_identifier()}{ParquetIOManager.extension}"
    if event is None or event.asset_materialization is None or not path.exists():
        return None
    metadata = event.asset_materialization.metadata
    with path.open("rb") as file:
        rows = ValidatedRows(pd.read_parquet(file), pd.DataFrame(), (), ())
    return History(rows, str(metadata["source"].value), str(metadata["sha256"].value))


def daemon_is_up(instance: DagsterInstance, since: float) -> bool:
    """True if the sensor daemon has sent a heartbeat since a time."""
    beat = instance.get_daemon_heartbeats().get("SENSOR")
    return beat is not None and beat.timestamp >= since


def loop_status(
    instance: DagsterInstance,
    settings: Settings,
    last_days: int = DAYS_SHOWN,
    known: Mapping[str, DayStatus] | None = None,
) -> LoopStatus:
    """The status of the loop, from the event log and the landing zones.

    Args:
        instance: the Dagster instance.
        settings: the landing zones.
        last_days: number of the latest days.
        known: days that nothing has written to since; only their alarms and their maturity are
            determined anew.
    """
    landed = sorted(instance.get_materialized_partitions(production_batch.key))[-last_days:]
    moves = event_log.champion_moves(instance)
    champion = ChampionRecord.from_values(moves[0].values) if moves else None
    failed = failed_checks(instance)
    retraining = retrain_decision(instance, settings)
    return LoopStatus(
        written=time.time(),
        champion=champion,
        champion_since=_since(moves),
        cut_off_by=moves[0].values["cut_off_by"] if moves else None,
        champion_because=champion.effective_reason if champion else None,
        checks_run=sum(bool(event_log.evaluations(instance, check)) for check in CHECKS),
        checks=len(CHECKS),
        waiting_days=tuple(
            days_waiting(settings, instance.get_materialized_partitions(event_log.SCORES))
        ),
        retraining=retraining.reason,
        retraining_needs_person=retraining.needs_person,
        days=tuple(_all_days(instance, settings, landed, failed, _validation(moves), known or {})),
        alarms=tuple(_failed(one) for one in failed if one.partition is None),
        episodes=read_episodes(settings.episodes),
        events=tuple(_events(instance, moves)),
        runs_in_flight=tuple(unfinished_runs(instance)),
        failed_runs=tuple(failed_runs(instance)),
        sensors=tuple(_sensor(instance, sensor.name) for sensor in SENSORS),
        landing_problems=tuple(zone_problems(settings)),
        dagster_url=settings.dagster_url,
        mlflow_url=settings.mlflow_url,
    )


@sensor(minimum_interval_seconds=INTERVAL_SECONDS)
def status_for_people(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SensorResult:
    """Writes the status for the monitoring page of the API when something has happened, at the
    latest after five minutes. Starts no run.
    """
    mark, now = f"{history_mark(context.instance)} {_episodes_mark(settings)}", time.time()
    earlier = json.loads(context.cursor) if context.cursor else {}
    if earlier.get("mark") == mark and now - earlier["written"] < STATUS_AGE_SECONDS:
        return dg.SensorResult(skip_reason="nothing has happened since the page was written")
    newest = event_log.newest_materializations(context.instance, OF_A_DAY)
    known = _known_days(settings, newest, earlier.get("read", 0))
    loop_status(context.instance, settings, DAYS_WRITTEN, known).write(settings.reports)
    read = max(newest.values(), default=0)
    cursor = json.dumps({"mark": mark, "written": now, "read": read})
    return dg.SensorResult(skip_reason="the monitoring page was written", cursor=cursor)


def _episodes_mark(settings: Settings) -> str:
    """Changes when the list of episodes does."""
    file = settings.episodes / EPISODES_FILE
    return file_sha256(file)[:16] if file.exists() else ""


SENSORS = (
    *sensors.STARTING,
    orphaned_runs.lost_runs,
    alerts.deliver_alerts,
    status_for_people,
)
"""Every sensor of the graph."""


OF_A_DAY = (event_log.BATCH, event_log.SCORES, event_log.DRIFT, event_log.PERFORMANCE)
"""The assets whose figures a day's status has."""


def _known_days(settings: Settings, newest: Mapping[str, int], read: int) -> dict[str, DayStatus]:
    """The days of the written status that no asset has been materialized for since.

    Args:
        settings: the place of the status.
        newest: id of the latest materialization for each day.
        read: the latest of these ids when the status was written.
    """
    try:
        written = LoopStatus.read(settings.reports)
    except (FileNotFoundError, ValidationError):
        return {}
    return {day.day: day for day in written.days if newest.get(day.day, 0) <= read}


def day_status(instance: DagsterInstance, settings: Settings, day: str) -> DayStatus:
    """The status of one day."""
    validation = _validation(event_log.champion_moves(instance))
    (status,) = _days(instance, settings, [day], failed_checks(instance), validation)
    return status


def failed_checks(instance: DagsterInstance) -> list[event_log.Evaluation]:
    """The latest evaluation of each check and day, where it failed."""
    return event_log.failed_evaluations(instance, CHECKS)


def sensors_idle_since(instance: DagsterInstance, since: float) -> bool:
    """True if each sensor that starts runs has ticked since a time, and its last tick requested
    nothing.
    """
    latest = (event_log.sensor_ticks(instance, one.name, 1, since)[1] for one in sensors.STARTING)
    return all(ticks and ticks[0].status is TickStatus.SKIPPED for ticks in latest)


def unfinished_runs(instance: DagsterInstance) -> list[RunStatus]:
    """Runs that are queued or in progress."""
    return runs(instance, event_log.IN_FLIGHT)


def failed_runs(instance: DagsterInstance, limit: int = 5) -> list[RunStatus]:
    """The latest failed runs."""
    return runs(instance, [dg.DagsterRunStatus.FAILURE], limit)


def runs(
    instance: DagsterInstance, statuses: list[dg.DagsterRunStatus] | None = None, limit: int = 100
) -> list[RunStatus]:
    """The latest runs, newest first."""
    filters = dg.RunsFilter(statuses=statuses) if statuses else None
    return [
        RunStatus(
            run_id=record.dagster_run.run_id,
            job=record.dagster_run.job_name,
            day=record.dagster_run.tags.get(event_log.PARTITION_TAG),
            status=record.dagster_run.status.value,
            started=record.start_time,
            cause=event_log.cause_of(record.dagster_run.tags),
            action=record.dagster_run.tags.get(event_log.ACTION_TAG),
        )
        for record in instance.get_run_records(filters, limit=limit)
    ]


def verdicts(instance: DagsterInstance, limit: int = 20) -> list[ChampionRecord]:
    """The champions in the latest materializations of `champion`, newest first."""
    moves = event_log.champion_moves(instance, limit)
    return [ChampionRecord.from_values(move.values) for move in moves]


def _validation(moves: Sequence[ChampionMove]) -> dict[str, float]:
    """The AUC at validation of each version that was champion."""
    return {move.values["model_version"]: move.values["validation_roc_auc"] for move in moves}


def _since(moves: Sequence[ChampionMove]) -> float | None:
    """The time at which the version in force became champion."""
    since = None
    for move in moves:
        if move.values["model_version"] != moves[0].values["model_version"]:
            break
        since = move.at
    return since


def _events(instance: DagsterInstance, moves: Sequence[ChampionMove]) -> list[Event]:
    """Events of the champion, newest first: verdicts, commands, and retrains without a verdict."""
    tags = {
        run.run_id: run.tags
        for run in instance.get_runs(
            dg.RunsFilter(job_name=retrain.name), limit=event_log.HISTORY_LIMIT
        )
    }
    events = []
    for move in moves:
        champion = ChampionRecord.from_values(move.values)
        of_run = tags.get(move.run_id, {})
        events.append(
            Event(
                at=move.at,
                day=of_run.get(event_log.LATEST_DAY_TAG) or move.values.get("day_of_data"),
                kind=champion.verdict,
                action=of_run.get(event_log.ACTION_TAG)
                or ("refit" if move.run_id in tags else None),
                text=champion.reason,
                cause=event_log.cause_of(of_run),
                model_version=champion.model_version,
                challenger=move.values.get("challenger_version"),
                verdict=move.values.get("verdict_sha256"),
                run_id=move.run_id or None,
            )
        )
    judged = {move.run_id for move in moves}
    for record in instance.get_run_records(
        dg.RunsFilter(job_name=retrain.name), limit=event_log.HISTORY_LIMIT
    ):
        run = record.dagster_run
        if run.run_id not in judged:
            events.append(
                Event(
                    at=record.start_time or record.create_timestamp.timestamp(),
                    day=run.tags.get(event_log.LATEST_DAY_TAG),
                    kind="in flight" if run.status in event_log.IN_FLIGHT else "failed",
                    action=run.tags.get(event_log.ACTION_TAG) or "refit",
                    text=f"run {run.status.value}",
                    cause=event_log.cause_of(run.tags),
                    run_id=run.run_id,
                )
            )
    return sorted(events, key=lambda event: event.at, reverse=True)


def _all_days(
    instance: DagsterInstance,
    settings: Settings,
    days: Sequence[str],
    failed: Sequence[event_log.Evaluation],
    validation: Mapping[str, float],
    known: Mapping[str, DayStatus],
) -> list[DayStatus]:
    """The status of some days, of which those that are known are not read again."""
    read = [day for day in days if day not in known]
    statuses = {
        day.day: day
        for start in range(0, len(read), DAYS_READ)
        for day in _days(instance, settings, read[start : start + DAYS_READ], failed, validation)
    }
    latest_day = event_log.day_of_data(instance)
    window = settings.portfolio.performance_window_days
    for day in days:
        if day not in known:
            continue
        before, now = known[day], {}
        if latest_day and before.decisions and before.matured is not None:
            waiting = maturity(before.decisions, before.matured, day, latest_day, window)
            now = {"pending": waiting.pending, "missing": waiting.missing}
        alarms = tuple(_failed(one) for one in failed if one.partition == day)
        statuses[day] = before.model_copy(update={"alarms": alarms, **now})
    return [statuses[day] for day in days]


def _days(
    instance: DagsterInstance,
    settings: Settings,
    days: Sequence[str],
    failed: Sequence[event_log.Evaluation],
    validation: Mapping[str, float],
) -> list[DayStatus]:
    """The status of some days; `validation` has the AUC at validation of each version that was
    champion.
    """
    if not days:
        return []
    batches = event_log.records_of(instance, event_log.BATCH, days, BatchRecord)
    scores = event_log.records_of(instance, event_log.SCORES, days, ScoresRecord)
    drifts = event_log.records_of(instance, event_log.DRIFT, days, DriftRecord)
    performances = event_log.records_of(instance, event_log.PERFORMANCE, days, PerformanceRecord)
    latest_day = event_log.day_of_data(instance)
    window = settings.portfolio.performance_window_days
    statuses = []
    for day in days:
        batch = batches[day][0] if day in batches else None
        score = scores[day][0] if day in scores else None
        drift = drifts[day][0] if day in drifts else None
        performance = performances[day][0] if day in performances else None
        shown: dict[str, Any] = {}
        if batch is not None:
            shown |= {"rows": batch.rows, "rejected": batch.rejected}
        if score is not None:
            version = score.model_version
            shown |= {"model_version": version, "validation_roc_auc": validation.get(version)}
            shown |= {"approved": score.approved, "expected_loss": score.expected_loss}
            if latest_day:  # by the data's clock now, not at the arrival of the outcomes
                matured = performance.matured if performance else 0
                waiting = maturity(score.rows, matured, day, latest_day, window)
                shown |= dataclasses.asdict(waiting)
        if drift is not None:
            shown |= {name: getattr(drift, name) for name in FROM_DRIFT}
            shown |= {
                "drifted_columns": len(drift.drifted),
                "drifted": ", ".join(drift.drifted) or "none",
            }
        if performance is not None:
            shown |= {name: performance.figures.get(name) for name in FROM_PERFORMANCE}
            shown["matured_expected_loss"] = performance.figures.get("expected_loss")
        statuses.append(
            DayStatus(
                day=day,
                alarms=tuple(_failed(one) for one in failed if one.partition == day),
                runs={
                    asset.to_user_string(): of_day[day][1]
                    for asset, of_day in (
                        (event_log.SCORES, scores),
                        (event_log.DRIFT, drifts),
                        (event_log.PERFORMANCE, performances),
                    )
                    if day in of_day
                },
                **shown,
            )
        )
    return statuses


FROM_DRIFT = (
    "score_psi",
    "score_psi_judged",
    "score_psi_threshold",
    "estimated_roc_auc",
    "estimated_roc_auc_standard_error",
    "has_report",
)
FROM_PERFORMANCE = ("roc_auc", "roc_auc_standard_error", "mean_pd", "bad_rate", "realised_loss")


def _failed(one: event_log.Evaluation) -> FailedCheck:
    watch = BY_CHECK[one.check]
    return FailedCheck(
        check=one.check,
        failure=watch.failure,
        tier=watch.tier.value,
        summary=one.summary,
        run_id=one.run_id or None,
    )


def _sensor(instance: DagsterInstance, name: str) -> SensorStatus:
    running, ticks = event_log.sensor_ticks(instance, name)
    if not ticks:
        return SensorStatus(name=name, status="never ticked", message="is the daemon running?")
    message = ticks[0].skip_reason or (ticks[0].error.message if ticks[0].error else "")
    return SensorStatus(
        name=name, status=ticks[0].status.value if running else "stopped", message=message
    )
