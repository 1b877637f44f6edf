"""What is read from the event log, whatever the order in which runs end."""

from collections.abc import Sequence

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
)
from dagster._core.definitions.partitions.subset import DefaultPartitionsSubset
from dagster._core.events import DagsterEventType

from creditrisk_assets.defs import event_log
from tests.support.loop import Loop

CHECK = dg.AssetCheckKey(dg.AssetKey("drift_report"), "score_distribution_is_stable")
SAID = {"summary": "score 0.3 > 0.1", "model_version": "1"}


@pytest.fixture
def instance(fresh: Loop) -> dg.DagsterInstance:
    return fresh.instance


def planned(instance: dg.DagsterInstance, days: Sequence[int]) -> dict[int, str]:
    """Runs of some days that are in the queue: the check's evaluation is planned, as Dagster does it. Day and run."""
    runs = {day: dg.DagsterRun(job_name="score_production") for day in days}
    for day, run in runs.items():
        instance.add_run(run)
        data = AssetCheckEvaluationPlanned(
            asset_key=CHECK.asset_key,
            check_name=CHECK.name,
            partitions_subset=DefaultPartitionsSubset({name_of(day)}),
        )
        event = dg.DagsterEvent(
            DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
            run.job_name,
            event_specific_data=data,
        )
        instance.report_dagster_event(event, run.run_id)
    return {day: run.run_id for day, run in runs.items()}


def ended(instance: dg.DagsterInstance, day: int, run_id: str, passed: bool) -> None:
    """The run of a day has evaluated its check."""
    evaluation = dg.AssetCheckEvaluation(
        asset_key=CHECK.asset_key,
        check_name=CHECK.name,
        passed=passed,
        metadata={name: dg.MetadataValue.text(text) for name, text in SAID.items()},
        partition=name_of(day),
    )
    event = dg.DagsterEvent(
        DagsterEventType.ASSET_CHECK_EVALUATION.value,
        "score_production",
        event_specific_data=evaluation,
    )
    instance.report_dagster_event(event, run_id)


def name_of(day: int) -> str:
    return f"2025-{1 + day // 28:02d}-{1 + day % 28:02d}"


def test_an_evaluation_that_many_later_ones_have_overtaken_is_still_seen(
    instance: dg.DagsterInstance,
) -> None:
    """A run hangs while two hundred that were planned after it end; its alarm must not be lost."""
    runs = planned(instance, range(200))
    for day in range(1, 200):
        ended(instance, day, runs[day], passed=True)
        if day % 40 == 0:
            assert len(event_log.evaluations(instance, CHECK)) == day
    assert event_log.failed_evaluations(instance, [CHECK]) == []
    ended(instance, 0, runs[0], passed=False)
    (cause,) = event_log.failed_evaluations(instance, [CHECK])
    assert (cause.partition, cause.summary, cause.metadata) == (name_of(0), SAID["summary"], SAID)


def test_of_a_day_that_is_evaluated_again_the_run_that_was_planned_last_counts(
    instance: dg.DagsterInstance,
) -> None:
    first, second = (planned(instance, [3])[3] for _ in range(2))
    ended(instance, 3, second, passed=True)
    ended(instance, 3, first, passed=False)
    assert event_log.failed_evaluations(instance, [CHECK]) == []
    assert len(event_log.evaluations(instance, CHECK)) == 2
