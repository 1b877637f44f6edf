"""After a crash: runs whose process is gone.

A code server executes its runs as child processes. When it is killed they die with it, but the event log still says STARTED,
and until Dagster's run monitoring gives them up (an hour) they hold the pool of `champion` and keep the retrain waiting. Whoever
starts the code server knows that no run of an earlier one can be alive.
"""

import dagster as dg

LAUNCHED_BY_CODE_SERVER_TAG = ".dagster/grpc_info"


def end_orphaned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs of a former code server as failed; to be called before a new one starts.

    Runs that a person executes in a process of their own are left alone.

    Returns:
        Their ids. Dagster starts them once more by its run retries.
    """
    unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
    orphans = [run for run in instance.get_runs(unfinished) if LAUNCHED_BY_CODE_SERVER_TAG in run.tags]
    for run in orphans:
        instance.report_run_failed(run, "the code server that executed this run has ended")
    return [run.run_id for run in orphans]
