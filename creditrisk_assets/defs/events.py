"""What the event log knows: the champion in force, the contender to be judged, failed checks, runs in flight.

Every reading of Dagster's history is here; `failed_evaluations` is the one place that uses a part of it that is not public.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from creditrisk_assets.governance.retrain_policy import Cause, PastRetrain
from creditrisk_assets.monitoring.triage import MaturedEvidence
from creditrisk_assets.scoring.bundle import Bundle, ChampionRecord, load_bundle

if TYPE_CHECKING:
    import pandas as pd

CHAMPION = dg.AssetKey("champion")
SCORES = dg.AssetKey("production_scores")
CONTENDERS = (dg.AssetKey("model"), dg.AssetKey("candidate_model"))

IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]

HISTORY_LIMIT = 500
"""Evaluations of one check, and runs of one job, that are looked back at."""

CAUSE_IDS_TAG = "creditrisk/cause_ids"
LATEST_DAY_TAG = "creditrisk/latest_day_of_data"
ACTION_TAG = "creditrisk/action"
"""What kind of retrain a run is: `recalibrate` or `refit`."""
SINCE_TAG = "creditrisk/since"
"""The first day of the evidence that a retrain was started for."""


def champion_in_force(instance: dg.DagsterInstance) -> ChampionRecord | None:
    """What the latest materialization of `champion` says, or None before the first."""
    event = instance.get_latest_materialization_event(CHAMPION)
    if event is None or event.asset_materialization is None:
        return None
    return ChampionRecord.from_metadata(dict(event.asset_materialization.metadata))


def champion_of_version(instance: dg.DagsterInstance, version: str) -> ChampionRecord:
    """What was said of a version when it was champion.

    Raises:
        LookupError: if it never was.
    """
    for record in instance.fetch_materializations(CHAMPION, limit=HISTORY_LIMIT).records:
        if record.asset_materialization is not None:
            champion = ChampionRecord.from_metadata(dict(record.asset_materialization.metadata))
            if champion.model_version == version:
                return champion
    raise LookupError(f"version {version} is in none of the last {HISTORY_LIMIT} materializations of champion")


def bundle_that_scored(instance: dg.DagsterInstance, scores: "pd.DataFrame") -> tuple[str, Bundle]:
    """Version and bundle that made a day's scores."""
    version = str(scores["model_version"].iloc[0])
    record = champion_of_version(instance, version)
    return version, load_bundle(record.artifact_uri, str(scores["bundle_sha256"].iloc[0]))


def batch_of_day(instance: dg.DagsterInstance, day: str) -> tuple[int, int]:
    """Rows that landed for a day, and those of them that were rejected, as `production_batch` last said; none where it is not
    known.
    """
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey("production_batch"), asset_partitions=[day]), limit=1
    ).records
    if not found or found[0].asset_materialization is None:
        return 0, 0
    metadata = found[0].asset_materialization.metadata
    return int(str(metadata["rows_in"].value)), int(str(metadata["rows_rejected"].value))


def champion_ledger_marks(instance: dg.DagsterInstance) -> list[tuple[int, str]]:
    """Number and SHA-256 of the ledger's last entry as each of the latest materializations of `champion` names it."""
    marks = []
    for record in instance.fetch_materializations(CHAMPION, limit=HISTORY_LIMIT).records:
        if record.asset_materialization is not None:
            metadata = record.asset_materialization.metadata
            marks.append((int(str(metadata["ledger_entry"].value)), str(metadata["ledger_sha256"].value)))
    return marks


def latest_contender(instance: dg.DagsterInstance) -> str | None:
    """Version number of the newest materialization of `model` or `candidate_model`."""
    newest: tuple[float, str] | None = None
    for key in CONTENDERS:
        event = instance.get_latest_materialization_event(key)
        if event is not None and event.asset_materialization is not None:
            version = str(event.asset_materialization.metadata["model_version"].value)
            newest = max(newest or (0.0, ""), (event.timestamp, version))
    return newest[1] if newest else None


def failed_evaluations(instance: dg.DagsterInstance, checks: Iterable[dg.AssetCheckKey]) -> list[Cause]:
    """For each check and day whose latest finished evaluation failed: that evaluation.

    Record ids are given when a run is planned, so they are names, never a cursor.
    """
    finished = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}
    causes = []
    for check in checks:
        records = instance.event_log_storage.get_asset_check_execution_history(check, limit=HISTORY_LIMIT, status=finished)
        latest: dict[str, Cause | None] = {}
        for record in sorted(records, key=lambda one: one.create_timestamp, reverse=True):
            event = record.event.dagster_event if record.event else None
            if event is None:
                continue
            evaluation = event.asset_check_evaluation_data
            day = str(evaluation.partition)
            if day in latest:
                continue
            failed = record.status == AssetCheckExecutionRecordStatus.FAILED
            latest[day] = (
                Cause(
                    record_id=record.id,
                    check=check.name,
                    partition=day,
                    value=str(evaluation.metadata["summary"].value),
                    model_version=str(evaluation.metadata["model_version"].value),
                )
                if failed
                else None
            )
        causes += [cause for cause in latest.values() if cause is not None]
    return sorted(causes, key=lambda cause: (cause.partition, cause.check))


def answered_causes(instance: dg.DagsterInstance, job_name: str) -> frozenset[int]:
    """Record ids that runs of a job were started for."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job_name), limit=HISTORY_LIMIT)
    return frozenset(int(one) for run in runs for one in run.tags.get(CAUSE_IDS_TAG, "").split(",") if one)


def past_retrains(instance: dg.DagsterInstance, job_name: str) -> list[PastRetrain]:
    """Finished runs of a job, newest first; one that a person started has no day of data in its tags."""
    promoted = {
        record.run_id
        for record in instance.fetch_materializations(CHAMPION, limit=HISTORY_LIMIT).records
        if record.asset_materialization is not None and record.asset_materialization.metadata["verdict"].value == "promoted"
    }
    past = []
    for run in instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=FINISHED), limit=HISTORY_LIMIT):
        started = run.tags.get(LATEST_DAY_TAG)
        ago = (date.fromisoformat(latest_day_of_data(instance)) - date.fromisoformat(started)).days if started else None
        past.append(PastRetrain(ago, run.run_id in promoted))
    return past


def runs_in_flight(instance: dg.DagsterInstance, job_names: Sequence[str]) -> int:
    """Unfinished runs of some jobs."""
    return sum(instance.get_runs_count(dg.RunsFilter(job_name=name, statuses=IN_FLIGHT)) for name in job_names)


def matured_evidence(
    instance: dg.DagsterInstance, model_version: str, excluded_days: frozenset[str], days: int
) -> dict[str, MaturedEvidence]:
    """How the decisions of a version turned out, by day, as the latest `performance_report` of each day says.

    Args:
        instance: the Dagster instance.
        model_version: that decided.
        excluded_days: days that are left out.
        days: how many of the days that were assessed last.
    """
    found: dict[str, MaturedEvidence | None] = {}
    for record in instance.fetch_materializations(dg.AssetKey("performance_report"), limit=days).records:
        materialization = record.asset_materialization
        if materialization is None or materialization.partition in (None, *found):
            continue
        values = {name: value.value for name, value in materialization.metadata.items()}
        counts = values["rows"] and values["model_version"] == model_version
        found[str(materialization.partition)] = (
            MaturedEvidence(
                day=str(materialization.partition),
                **{name: values[name] for name in ("rows", "bads", "mean_pd", "pd_variance")},  # type: ignore[arg-type]
                **{name: values.get(name) for name in ("roc_auc", "roc_auc_standard_error", "expected_roc_auc")},  # type: ignore[arg-type]
            )
            if counts
            else None
        )
    return {day: one for day, one in found.items() if one is not None and day not in excluded_days}


def latest_day_of_data(instance: dg.DagsterInstance) -> str:
    """The latest day that has been scored: the clock by which outcomes are due. Never the wall clock."""
    return max(instance.get_materialized_partitions(SCORES))


def day_of_data(instance: dg.DagsterInstance) -> str | None:
    """The latest day that has been scored, or None before the first."""
    return latest_day_of_data(instance) if instance.get_materialized_partitions(SCORES) else None


def decided_days(instance: dg.DagsterInstance) -> Mapping[str, int]:
    """Days that have been scored, each with a number that changes whenever it is scored again."""
    return instance.get_latest_storage_id_by_partition(SCORES, dg.DagsterEventType.ASSET_MATERIALIZATION)


def champion_training_days(instance: dg.DagsterInstance) -> frozenset[str]:
    """Production days that the champion in force was trained on."""
    event = instance.get_latest_materialization_event(CHAMPION)
    if event is None or event.asset_materialization is None:
        return frozenset()
    days = str(event.asset_materialization.metadata["production_days"].value)
    return frozenset(day for day in days.split(",") if day)
