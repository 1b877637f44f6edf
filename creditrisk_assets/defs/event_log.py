"""Queries of Dagster's history: the champion in force, registered versions, check evaluations, runs
and ticks.

`evaluations` alone uses a part of Dagster that is not public. Put other queries of the history
here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorTick, SensorInstigatorData
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as Checks
from sqlalchemy import or_, select

from creditrisk_assets.governance.retrain_policy import PastRetrain
from creditrisk_assets.monitoring.day_records import KEY as RECORD
from creditrisk_assets.monitoring.day_records import (
    BatchRecord,
    DriftRecord,
    PerformanceRecord,
    ScoresRecord,
)
from creditrisk_assets.scoring.bundle import ChampionRecord

CHAMPION = dg.AssetKey("champion")
BATCH = dg.AssetKey("production_batch")
SCORES = dg.AssetKey("production_scores")
DRIFT = dg.AssetKey("drift_report")
PERFORMANCE = dg.AssetKey("performance_report")
MODELS = (dg.AssetKey("model"), dg.AssetKey("candidate_model"))

IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
EVALUATED = ("SUCCEEDED", "FAILED")
CLOCKS_APART_SECONDS = 60.0
"""Difference of the clocks of two machines that is no fault."""
PAGE = 10
RECORDS_REREAD = 50
"""Record ids that are read again: ids are assigned before they are committed, so a record can
appear after others with higher ids.
"""

HISTORY_LIMIT = 500
"""Limit on the evaluations of a check, and on the runs of a job, that are read."""

PARTITION_TAG = "dagster/partition"
"""Dagster's own tag: the day of a run."""
CAUSE_IDS_TAG = "creditrisk/cause_ids"
LATEST_DAY_TAG = "creditrisk/latest_day_of_data"
ACTION_TAG = "creditrisk/action"
"""Kind of a retrain: `recalibrate` or `refit`."""
SINCE_TAG = "creditrisk/since"
"""The first day of the evidence behind a retrain."""

Record = TypeVar("Record", BatchRecord, ScoresRecord, DriftRecord, PerformanceRecord)
_READ: WeakKeyDictionary[Any, dict[str, dict[int, Any]]] = WeakKeyDictionary()
"""Cache of the finished records that this process has read from each event log."""


@dataclass(frozen=True)
class Evaluation:
    """Finished evaluation of a check.

    Attributes:
        record_id: id in the event log.
        asset: asset of the check.
        check: its name.
        partition: the day; None for an asset without partitions.
        passed: whether it passed.
        severity: `WARN` or `ERROR`.
        run_id: its run; empty for an evaluation without a run.
        planned: when its run was planned, in seconds since the epoch.
        at: when it was made.
        metadata: its metadata as plain values.
    """

    record_id: int
    asset: str
    check: str
    partition: str | None
    passed: bool
    severity: str
    run_id: str
    planned: float
    at: float
    metadata: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """The summary in its metadata; empty without one."""
        return str(self.metadata.get("summary", ""))


@dataclass(frozen=True)
class ChampionMove:
    """Time, values of the metadata and run id of a materialization of `champion`."""

    at: float
    values: dict[str, Any]
    run_id: str


def champion_moves(instance: dg.DagsterInstance, limit: int = HISTORY_LIMIT) -> list[ChampionMove]:
    """The latest materializations of `champion`, newest first."""
    return [
        ChampionMove(
            record.timestamp, _values(record.asset_materialization.metadata), record.run_id
        )
        for record in instance.fetch_materializations(CHAMPION, limit=limit).records
        if record.asset_materialization is not None
    ]


def champion_in_force(instance: dg.DagsterInstance) -> ChampionRecord | None:
    """The champion in the latest materialization of `champion`; None before the first."""
    values = _champion_values(instance)
    return ChampionRecord.from_values(values) if values else None


def records_of(
    instance: dg.DagsterInstance, asset: dg.AssetKey, days: Sequence[str], kind: type[Record]
) -> dict[str, tuple[Record, str]]:
    """Record and run id of each day's latest materialization of an asset."""
    latest: dict[str, tuple[Record, str]] = {}
    of_days = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=list(days))
    for event in instance.fetch_materializations(of_days, limit=HISTORY_LIMIT).records:
        materialization, day = event.asset_materialization, str(event.partition_key)
        if materialization is not None and day not in latest:
            latest[day] = (
                kind.model_validate(materialization.metadata[RECORD].value),
                event.run_id,
            )
    return latest


def newest_materializations(
    instance: dg.DagsterInstance, assets: Iterable[dg.AssetKey]
) -> dict[str, int]:
    """The id of the latest materialization of any of some assets, by day."""
    newest: dict[str, int] = {}
    for asset in assets:
        by_day = instance.event_log_storage.get_latest_storage_id_by_partition(
            asset, dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        for day, number in by_day.items():
            newest[day] = max(number, newest.get(day, 0))
    return newest


def cause_of(tags: Mapping[str, str]) -> str | None:
    """The cause in a run's tags: the evidence, then the failed checks with their number."""
    parts = [
        tags[name]
        for name in ("creditrisk/cause_evidence", "creditrisk/cause_values")
        if tags.get(name)
    ]
    return "; ".join(parts) or None


def latest_registered_version(instance: dg.DagsterInstance) -> str | None:
    """Version of the newest materialization of `model` or `candidate_model`."""
    newest: tuple[float, str] | None = None
    for key in MODELS:
        event = instance.get_latest_materialization_event(key)
        if event is not None and event.asset_materialization is not None:
            version = str(event.asset_materialization.metadata["model_version"].value)
            newest = max(newest or (0.0, ""), (event.timestamp, version))
    return newest[1] if newest else None


def failed_evaluations(
    instance: dg.DagsterInstance, checks: Iterable[dg.AssetCheckKey]
) -> list["Evaluation"]:
    """The latest finished evaluation of each check and day, where it failed."""
    failed = []
    for check in checks:
        latest: dict[str | None, Evaluation] = {}
        for one in evaluations(instance, check):
            latest.setdefault(one.partition, one)
        failed += [one for one in latest.values() if not one.passed]
    return sorted(failed, key=lambda one: (one.partition or "", one.check))


def evaluations(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> list["Evaluation"]:
    """The finished evaluations of a check, the latest first.

    Record ids are assigned when a run is planned, so they identify records but give no order of
    completion: a planned evaluation is read again until it has finished.
    """
    known: dict[int, Evaluation | None] = _read(instance, check.to_user_string())
    pending: dict[int, None] = _read(instance, f"{check.to_user_string()} pending")
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise TypeError(f"the event log is a {type(storage).__name__}; valid: an event log in SQL")
    query = select(Checks.c.id, Checks.c.execution_status).where(
        Checks.c.asset_key == check.asset_key.to_string(), Checks.c.check_name == check.name
    )
    if known or pending:
        newest = max(known.keys() | pending.keys())
        query = query.where(
            or_(Checks.c.id > newest - RECORDS_REREAD, Checks.c.id.in_(list(pending)))
        )
    with storage.index_connection() as connection:
        # Sorts by the index alone; sorting the rows would read every evaluation.
        latest_rows = connection.execute(
            query.order_by(Checks.c.id.desc()).limit(2 * HISTORY_LIMIT)
        )
        status = {row.id: row.execution_status for row in latest_rows}
        new = [number for number, at in status.items() if at in EVALUATED and number not in known][
            :HISTORY_LIMIT
        ]
        rows = (
            connection.execute(select(Checks).where(Checks.c.id.in_(new))).mappings().all()
            if new
            else []
        )
    pending.update(dict.fromkeys(number for number, at in status.items() if at not in EVALUATED))
    for number in new:
        pending.pop(number, None)
    known.update(
        (row["id"], _evaluation(check, AssetCheckExecutionRecord.from_db_row(row, key=check)))
        for row in rows
    )
    _trim(known)
    _trim(pending)
    read = [one for one in known.values() if one is not None]
    return sorted(read, key=lambda one: (one.planned, one.record_id), reverse=True)


def _evaluation(check: dg.AssetCheckKey, record: AssetCheckExecutionRecord) -> "Evaluation | None":
    event = record.event.dagster_event if record.event else None
    if event is None:
        return None
    evaluation = event.asset_check_evaluation_data
    return Evaluation(
        record_id=record.id,
        asset=check.asset_key.to_user_string(),
        check=check.name,
        partition=evaluation.partition,
        passed=record.status == AssetCheckExecutionRecordStatus.SUCCEEDED,
        severity=evaluation.severity.value,
        run_id=record.run_id,
        planned=record.create_timestamp,
        at=record.event.timestamp if record.event else record.create_timestamp,
        metadata=_values(evaluation.metadata),
    )


def _read(instance: dg.DagsterInstance, name: str) -> dict[int, Any]:
    return _READ.setdefault(instance.event_log_storage, {}).setdefault(name, {})


def _trim(known: dict[int, Any]) -> None:
    for old in sorted(known)[:-HISTORY_LIMIT] if len(known) > HISTORY_LIMIT else ():
        del known[old]


def _champion_values(instance: dg.DagsterInstance) -> dict[str, Any]:
    """Values of the latest materialization of `champion`; none before the first."""
    event = instance.get_latest_materialization_event(CHAMPION)
    if event is None or event.asset_materialization is None:
        return {}
    return _values(event.asset_materialization.metadata)


def _values(metadata: Mapping[str, dg.MetadataValue[Any]]) -> dict[str, Any]:
    return {name: value.value for name, value in metadata.items()}


def answered_causes(instance: dg.DagsterInstance, job_name: str) -> frozenset[int]:
    """Record ids of the failed checks that the runs of a job answered."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job_name), limit=HISTORY_LIMIT)
    return frozenset(
        int(one) for run in runs for one in run.tags.get(CAUSE_IDS_TAG, "").split(",") if one
    )


def past_retrains(instance: dg.DagsterInstance, job_name: str) -> list[PastRetrain]:
    """Finished retrains, newest first; runs that a person started have no day of data."""
    promoted = {
        move.run_id for move in champion_moves(instance) if move.values["verdict"] == "promoted"
    }
    today = day_of_data(instance)
    past = []
    for run in instance.get_runs(
        dg.RunsFilter(job_name=job_name, statuses=FINISHED), limit=HISTORY_LIMIT
    ):
        started = run.tags.get(LATEST_DAY_TAG)
        ago = (
            (date.fromisoformat(today) - date.fromisoformat(started)).days
            if started and today
            else None
        )
        past.append(PastRetrain(ago, run.run_id in promoted))
    return past


def sensor_ticks(
    instance: dg.DagsterInstance, name: str, limit: int = 1, after: float | None = None
) -> tuple[bool, Sequence[InstigatorTick]]:
    """State of a sensor: whether it is on, and its latest ticks, newest first. A sensor that was
    loaded from several code locations has several states; the one with the newest tick counts.

    Args:
        instance: the Dagster instance.
        name: name of the sensor.
        limit: limit on the ticks.
        after: earliest time of a tick, in seconds since the epoch.
    """
    running, latest = True, list[InstigatorTick]()
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        if state.name == name:
            ticks = instance.get_ticks(
                state.instigator_origin_id, state.selector_id, limit=limit, after=after
            )
            if ticks and (not latest or ticks[0].timestamp > latest[0].timestamp):
                running, latest = state.is_running, list(ticks)
    return running, latest


def release_sensors_of_the_future(instance: dg.DagsterInstance, now: float) -> list[str]:
    """Let sensors tick again whose last tick was later than now, by a clock that has been set back
    since. Dagster would let them wait until that time.

    Args:
        instance: the Dagster instance.
        now: seconds since the epoch.

    Returns:
        Names of these sensors.
    """
    released = []
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        data = state.instigator_data
        if not isinstance(data, SensorInstigatorData):
            continue
        last = max(data.last_tick_timestamp or 0.0, data.last_tick_start_timestamp or 0.0)
        if last > now + CLOCKS_APART_SECONDS:
            ticked = data._replace(last_tick_timestamp=now, last_tick_start_timestamp=now)
            instance.update_instigator_state(state.with_data(ticked))
            released.append(state.name)
    return released


def runs_in_flight(instance: dg.DagsterInstance, job_names: Sequence[str]) -> int:
    """Unfinished runs of some jobs."""
    return sum(
        instance.get_runs_count(dg.RunsFilter(job_name=name, statuses=IN_FLIGHT))
        for name in job_names
    )


def matured_evidence(
    instance: dg.DagsterInstance, model_version: str, excluded_days: frozenset[str], days: int
) -> dict[str, Mapping[str, float]]:
    """Figures of matured decisions of a version, by day, from the latest `performance_report` of
    each day.

    Args:
        instance: the Dagster instance.
        model_version: version of the decisions.
        excluded_days: days that are left out.
        days: number of the latest assessed days.
    """
    latest: dict[str, PerformanceRecord] = {}
    for day, record in performance_records(instance)[:days]:
        latest.setdefault(day, record)
    return {
        day: {
            **record.figures,
            "matured": record.matured,
            "pending": record.pending,
            "missing": record.missing,
        }
        for day, record in latest.items()
        if record.figures["rows"]
        and record.model_version == model_version
        and day not in excluded_days
    }


def performance_records(instance: dg.DagsterInstance) -> list[tuple[str, PerformanceRecord]]:
    """Days and records of the latest materializations of `performance_report`, newest first; a day
    can appear twice. They do not change, and reading hundreds of them is the most expensive step of
    a sensor, so each process reads a record once.
    """
    known: dict[int, tuple[str, PerformanceRecord]] = _read(instance, "performance_report")
    before, read = None, 0
    while read < HISTORY_LIMIT:
        of_page = dg.AssetRecordsFilter(asset_key=PERFORMANCE, before_storage_id=before)
        events = instance.fetch_materializations(of_page, limit=PAGE).records
        new = [event for event in events if event.storage_id not in known]
        for event in new:
            if event.asset_materialization is not None:
                value = event.asset_materialization.metadata[RECORD].value
                record = PerformanceRecord.model_validate(value)
                known[event.storage_id] = (str(event.partition_key), record)
        read += len(events)
        if len(events) < PAGE or not new:
            break
        before = events[-1].storage_id
    _trim(known)
    return [known[identifier] for identifier in sorted(known, reverse=True)]


def latest_day_of_data(instance: dg.DagsterInstance) -> str:
    """The latest scored day. Outcomes are due by this clock, not by the wall clock."""
    return max(instance.get_materialized_partitions(SCORES))


def day_of_data(instance: dg.DagsterInstance) -> str | None:
    """The latest scored day; None before the first."""
    return latest_day_of_data(instance) if instance.get_materialized_partitions(SCORES) else None


def decided_days(
    instance: dg.DagsterInstance, days: Iterable[str] | None = None, after: int | None = None
) -> Mapping[str, int]:
    """Scored days, each with a number that changes when the day is scored again.

    Args:
        instance: the Dagster instance.
        days: restriction to these days.
        after: restriction to scorings after this number.
    """
    chosen = None if days is None else set(days)
    if chosen is not None and not chosen:
        return {}
    return instance.event_log_storage.get_latest_storage_id_by_partition(
        SCORES, dg.DagsterEventType.ASSET_MATERIALIZATION, chosen, after
    )


def latest_decided(instance: dg.DagsterInstance) -> int:
    """Number of the latest scoring of any day; 0 before the first."""
    records = instance.fetch_materializations(SCORES, limit=1).records
    return records[0].storage_id if records else 0


def champion_training_days(instance: dg.DagsterInstance) -> frozenset[str]:
    """Production days in the training rows of the champion in force."""
    values = _champion_values(instance)
    days = str(values["production_days"]) if values else ""
    return frozenset(day for day in days.split(",") if day)
