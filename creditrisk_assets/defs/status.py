"""What the loop has done, as plain values: for `creditrisk status`, the demo and the tests."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import DagsterInstance as DagsterInstance  # re-exported: the demo holds one and imports no Dagster

from creditrisk_assets.defs import events, sensors
from creditrisk_assets.defs.monitoring import WATCHED_CHECKS
from creditrisk_assets.defs.production import production_batch
from creditrisk_assets.defs.zones import zone_problems
from creditrisk_assets.governance.retrain_policy import Cause
from creditrisk_assets.portfolio.outcomes import maturity
from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.settings import Settings


@dataclass(frozen=True)
class DayStatus:
    """One production day as far as it has come; None where it has not come that far."""

    day: str
    rows: int | None
    rejected: int | None
    model_version: str | None
    score_psi: float | None
    drifted_columns: int | None
    matured: int | None
    pending: int | None
    missing: int | None
    roc_auc: float | None
    failed_checks: tuple[str, ...]


@dataclass(frozen=True)
class RunStatus:
    """One run: its job, day, status, start (seconds since the epoch) and why it was started, if a sensor said so."""

    run_id: str
    job: str
    day: str | None
    status: str
    started: float | None
    cause: str | None


@dataclass(frozen=True)
class SensorStatus:
    """A sensor's last tick: status, and its skip reason or error."""

    name: str
    status: str
    message: str


@dataclass(frozen=True)
class LoopStatus:
    """The champion since when (seconds since the epoch), the days, the unfinished and last failed runs, the sensors, and what
    lies in the landing zones and cannot be read.
    """

    champion: ChampionRecord | None
    champion_since: float | None
    days: tuple[DayStatus, ...]
    runs_in_flight: tuple[RunStatus, ...]
    failed_runs: tuple[RunStatus, ...]
    sensors: tuple[SensorStatus, ...]
    landing_problems: tuple[str, ...]


def open_instance(home: Path) -> DagsterInstance:
    """The Dagster instance that a folder's `dagster.yaml` configures; the folder becomes `DAGSTER_HOME` of this process.

    Raises:
        FileNotFoundError: if there is no `dagster.yaml`.
    """
    if not (home / "dagster.yaml").is_file():
        raise FileNotFoundError(f"{home} has no dagster.yaml; run from the project's folder or set DAGSTER_HOME to it")
    os.environ["DAGSTER_HOME"] = str(home.resolve())
    return DagsterInstance.get()


def champion_in_force(instance: DagsterInstance) -> ChampionRecord | None:
    """What the latest materialization of `champion` says, or None before the first."""
    return events.champion_in_force(instance)


def daemon_is_up(instance: DagsterInstance, since: float) -> bool:
    """Whether the sensor daemon has given a sign of life since a time."""
    beat = instance.get_daemon_heartbeats().get("SENSOR")
    return beat is not None and beat.timestamp >= since


def loop_status(instance: DagsterInstance, settings: Settings, last_days: int = 30) -> LoopStatus:
    """What the instance's event log and the landing zones say of the loop.

    Args:
        instance: the Dagster instance.
        settings: where the landing zones are.
        last_days: how many of the latest days.
    """
    since = _champion_since(instance)
    landed = sorted(instance.get_materialized_partitions(production_batch.key))[-last_days:]
    causes = failed_checks(instance)
    return LoopStatus(
        champion=events.champion_in_force(instance),
        champion_since=since,
        days=tuple(_day(instance, day, causes, settings.portfolio.performance_window_days) for day in landed),
        runs_in_flight=tuple(unfinished_runs(instance)),
        failed_runs=tuple(failed_runs(instance)),
        sensors=tuple(_sensor(instance, one) for one in sensors.ALL),
        landing_problems=tuple(zone_problems(settings)),
    )


def day_status(instance: DagsterInstance, settings: Settings, day: str) -> DayStatus:
    """One day as far as it has come."""
    causes = failed_checks(instance)
    return _day(instance, day, causes, settings.portfolio.performance_window_days)


def failed_checks(instance: DagsterInstance) -> list[Cause]:
    """The watched checks and days whose latest evaluation failed."""
    return events.failed_evaluations(instance, WATCHED_CHECKS)


def sensors_idle_since(instance: DagsterInstance, since: float, ticks: int) -> bool:
    """Whether each sensor has ticked so often since a time, and at the last tick asked for nothing."""
    for sensor in sensors.ALL:
        state = next((one for one in instance.all_instigator_state() if one.name == sensor.name), None)
        if state is None:
            return False
        latest = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=ticks, after=since)
        if len(latest) < ticks or latest[0].status.value != "SKIPPED":
            return False
    return True


def unfinished_runs(instance: DagsterInstance) -> list[RunStatus]:
    """Runs that are queued or going on."""
    return runs(instance, events.IN_FLIGHT)


def failed_runs(instance: DagsterInstance, limit: int = 5) -> list[RunStatus]:
    """The latest runs that failed."""
    return runs(instance, [dg.DagsterRunStatus.FAILURE], limit)


def runs(instance: DagsterInstance, statuses: list[dg.DagsterRunStatus] | None = None, limit: int = 100) -> list[RunStatus]:
    """The latest runs, newest first."""
    filters = dg.RunsFilter(statuses=statuses) if statuses else None
    return [
        RunStatus(
            run_id=record.dagster_run.run_id,
            job=record.dagster_run.job_name,
            day=record.dagster_run.tags.get("dagster/partition"),
            status=record.dagster_run.status.value,
            started=record.start_time,
            cause=record.dagster_run.tags.get("creditrisk/cause_values"),
        )
        for record in instance.get_run_records(filters, limit=limit)
    ]


def verdicts(instance: DagsterInstance, limit: int = 20) -> list[ChampionRecord]:
    """What the latest materializations of `champion` said, newest first."""
    records = instance.fetch_materializations(events.CHAMPION, limit=limit).records
    return [
        ChampionRecord.from_metadata(dict(record.asset_materialization.metadata))
        for record in records
        if record.asset_materialization is not None
    ]


def _champion_since(instance: DagsterInstance) -> float | None:
    since = None
    version = None
    for record in instance.fetch_materializations(events.CHAMPION, limit=events.HISTORY_LIMIT).records:
        if record.asset_materialization is None:
            continue
        of_record = record.asset_materialization.metadata["model_version"].value
        version = version or of_record
        if of_record != version:
            break
        since = record.timestamp
    return since


def _day(instance: DagsterInstance, day: str, causes: list[Cause], window_days: int) -> DayStatus:
    batch = _metadata(instance, "production_batch", day)
    scores = _metadata(instance, "production_scores", day)
    drift = _metadata(instance, "drift_report", day)
    performance = _metadata(instance, "performance_report", day)
    decisions, matured = scores.get("dagster/row_count"), performance.get("matured", 0)
    waiting = None
    if decisions is not None:  # by the clock of the data as it is now, not as it was when the outcomes came
        waiting = maturity(decisions, matured, day, events.latest_day_of_data(instance), window_days)
    return DayStatus(
        day=day,
        rows=batch.get("dagster/row_count"),
        rejected=batch.get("rows_rejected"),
        model_version=scores.get("model_version"),
        score_psi=drift.get("score_psi"),
        drifted_columns=drift.get("drifted_columns"),
        matured=waiting.matured if waiting else None,
        pending=waiting.pending if waiting else None,
        missing=waiting.missing if waiting else None,
        roc_auc=performance.get("roc_auc"),
        failed_checks=tuple(cause.check for cause in causes if cause.partition == day),
    )


def _metadata(instance: DagsterInstance, asset: str, day: str) -> dict[str, Any]:
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[day]), limit=1
    ).records
    if not found or found[0].asset_materialization is None:
        return {}
    return {name: value.value for name, value in found[0].asset_materialization.metadata.items()}


def _sensor(instance: DagsterInstance, sensor: dg.SensorDefinition) -> SensorStatus:
    state = next((one for one in instance.all_instigator_state() if one.name == sensor.name), None)
    if state is None:
        return SensorStatus(sensor.name, "never ticked", "is the daemon running?")
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
    if not ticks:
        return SensorStatus(sensor.name, "never ticked", "is the daemon running?")
    message = ticks[0].skip_reason or (ticks[0].error.message if ticks[0].error else "")
    return SensorStatus(sensor.name, ticks[0].status.value, message)
