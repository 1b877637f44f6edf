"""After a crash: runs whose process is gone.

A code server executes its runs as child processes. When it is killed they die with it, but the
event log still says STARTED, and until Dagster's run monitoring gives them up (an hour) they hold
the pool of `champion` and keep the retrain waiting. A code server that starts knows that no run of
an earlier one can be alive: it marks them as lost, and the sensor `lost_runs` asks for them again.
Dagster's own retry cannot: it looks once, while the new server does not answer yet, and gives up
for good.
"""

import datetime
from collections.abc import Mapping

import dagster as dg

from creditrisk_assets.defs.event_log import IN_FLIGHT, PARTITION_TAG
from creditrisk_assets.defs.jobs import assess_performance, audit, retrain, score_production, train
from creditrisk_assets.settings import Settings

LAUNCHED_BY_CODE_SERVER_TAG = ".dagster/grpc_info"
RETRIES_TAG = "dagster/max_retries"
"""Dagster's own."""

LOST_TAG = "creditrisk/lost"
"""On a run that ended because its code server did."""
AGAIN_OF_TAG = "creditrisk/again_of"
"""On a run that is asked for again: the lost one."""
TRIES_TAG = "creditrisk/tries"

TRIES_LIMIT = 3
"""A run that takes its code server with it so often is asked for no more; the alarm of
`no_run_failed` goes on.
"""
LOST_SINCE = datetime.timedelta(days=1)
ITS_OWN = ("dagster/", ".dagster/", "creditrisk/lost")
"""Beginnings of tags that are about a run and not about what it is for."""

ASKED_FOR_AGAIN = (train, retrain, score_production, assess_performance, audit)
"""The jobs; what a person materialized in the UI is the person's to start again."""


def end_orphaned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs of a former code server as lost and failed; to be called before a new one starts.

    Runs that a person executes in a process of their own are left alone.

    Returns:
        Their ids. The sensor `lost_runs` asks for them again.
    """
    unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
    orphans = [
        run for run in instance.get_runs(unfinished) if LAUNCHED_BY_CODE_SERVER_TAG in run.tags
    ]
    for run in orphans:
        instance.add_run_tags(run.run_id, {LOST_TAG: "true", RETRIES_TAG: "0"})
        lost = instance.get_run_by_id(run.run_id) or run
        instance.report_run_failed(lost, "the code server that executed this run has ended")
    return [run.run_id for run in orphans]


@dg.sensor(
    jobs=ASKED_FOR_AGAIN, minimum_interval_seconds=10, default_status=dg.DefaultSensorStatus.RUNNING
)
def lost_runs(
    context: dg.SensorEvaluationContext,
    settings: dg.ResourceParam[Settings],  # noqa: ARG001
) -> dg.SensorResult:
    """A run that ended because its code server was killed is asked for again, with its day and its
    tags, up to three times. The resource `settings` is wanted for its comparison of stores.
    """
    since = datetime.datetime.now(datetime.UTC) - LOST_SINCE
    wanted = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE], tags={LOST_TAG: "true"}, updated_after=since
    )
    jobs = {job.name for job in ASKED_FOR_AGAIN}
    lost = [run for run in context.instance.get_runs(wanted) if run.job_name in jobs]
    requests, given_up = [], 0
    for run in lost:
        tries = int(run.tags.get(TRIES_TAG, "1"))
        if tries >= TRIES_LIMIT:
            given_up += 1
        elif not _has_successor(context.instance, run):
            requests.append(_again(run, tries))
    if requests:
        return dg.SensorResult(run_requests=requests)
    return dg.SensorResult(
        skip_reason=f"{len(lost)} runs were lost in a day; {given_up} of them {TRIES_LIMIT} "
        "times, none is waiting"
    )


def _again(run: dg.DagsterRun, tries: int) -> dg.RunRequest:
    about: Mapping[str, str] = {
        name: value for name, value in run.tags.items() if not name.startswith(ITS_OWN)
    }
    return dg.RunRequest(
        run_key=f"again:{run.run_id}",
        job_name=run.job_name,
        partition_key=run.tags.get(PARTITION_TAG),
        tags={**about, AGAIN_OF_TAG: run.run_id, TRIES_TAG: str(tries + 1)},
    )


def _has_successor(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the same job of the same day runs, or has run since."""
    day = run.tags.get(PARTITION_TAG)
    wanted = dg.RunsFilter(
        job_name=run.job_name,
        tags={PARTITION_TAG: day} if day else None,
        statuses=[*IN_FLIGHT, dg.DagsterRunStatus.SUCCESS],
    )
    latest = instance.get_run_records(wanted, limit=1)
    lost = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]), limit=1)
    return bool(latest) and latest[0].create_timestamp > lost[0].create_timestamp
