"""Recovery of runs that ended by no fault of theirs: their process is gone after a crash, or a
disk, a bucket or a server failed them.

A code server executes its runs as child processes, which die with it; a command executes its run in
its own process. After a crash the event log still has them as STARTED, and until Dagster's run
monitoring ends them (an hour) they occupy the pool of `champion` and block the retrain. A starting
code server knows which of them are dead: those that were launched at its own address, and those of
commands on its machine whose process is gone. It marks them as lost, and the sensor `lost_runs`
requests them again. Runs of other machines and servers go on. Dagster's own retry fails here: it
tries once, while the new server does not answer yet.

A running code server ends the runs of its dead processes itself, but if it cannot write that (a
full disk, a database that is away), it gives up looking for good. So the sensor looks too.

A run can also be lost between its making and its place in the queue, if the database fails just
then: Dagster's own retry of a crashed run makes it, cannot queue it, and does not come back to it.

A step that meets a full disk or a server that is away fails its run. Dagster would repeat either
every failed run or none; here only those are repeated whose error is one of storage or network.
"""

import datetime
import errno
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
from dagster._core.events import JobFailureData
from dagster_shared.error import SerializableErrorInfo

from creditrisk_assets.defs.event_log import IN_FLIGHT, PARTITION_TAG
from creditrisk_assets.defs.jobs import assess_performance, audit, retrain, score_production, train
from creditrisk_assets.defs.metadata import sensor
from creditrisk_assets.settings import Settings

LAUNCHED_AT_TAG = ".dagster/grpc_info"
"""Dagster's own tag of a run that a code server executes: the server's address, as JSON."""
RETRIES_TAG = "dagster/max_retries"

PROCESS_TAG = "creditrisk/process"
"""Tag of a run that a command executes: machine, id and start of its process."""

LOST_TAG = "creditrisk/lost"
"""Tag of a run that has failed: `KILLED`, `OUTSIDE`, or `OWN` if the failure is its own."""
KILLED, OUTSIDE, OWN = "true", "outside", "no"
AGAIN_OF_TAG = "creditrisk/again_of"
"""Tag of a repeated run: the id of the lost one."""
TRIES_TAG = "creditrisk/tries"

PROCESS_ENDED = "the process that executed this run has ended"
NEVER_QUEUED = "this run was made, but could not be queued"
"""Messages at the end of a lost run."""

FIRST_EVENTS = 10
"""Dagster writes a run's process before its first step."""

KILLED_LIMIT = 3
"""A killed run that was tried this often is not repeated, since it may be the run that kills its
process; the alarm of `no_run_failed` stays open.
"""
WAIT_SECONDS = (30.0, 30.0, 30.0, 60.0, 120.0, 300.0)
"""From the failure of each try by something outside to the next one; the last failure is final. The
waits are short, because an outage often lasts longer inside of a server: SeaweedFS looks once a
minute whether there is space again.
"""

ANSWERED_500 = getattr(errno, "EREMOTEIO", errno.EIO)
ANSWERED_503 = errno.EBUSY
"""Numbers that s3fs gives to an answer of an object store; a full one answers 500."""
STORAGE_ERRORS = frozenset(
    f"[Errno {number}]"
    for number in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        ANSWERED_500,
        ANSWERED_503,
    )
)
"""Marks in the message of an `OSError` of a disk or bucket that is full, read-only or broken."""
FAILURES = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
INTERRUPTED = dg.DagsterExecutionInterruptedError.__name__
"""Error of a step that was running when its run was ended."""
OVER_TIME = "Exceeded maximum runtime"
"""Dagster's message at the end of a run that lasted longer than `dagster.yaml` allows."""
NETWORK_ERRORS = frozenset(
    {
        "ConnectionError",
        "ConnectionRefusedError",
        "ConnectionResetError",
        "EndpointConnectionError",
        "OperationalError",
        "PermissionError",
        "ReadTimeout",
        "TimeoutError",
    }
)
"""Errors of the clients of databases, object stores and HTTP for a server that does not answer, or
that refuses: an object store does while this machine's clock is more than 15 minutes off.
"""
LOST_SINCE = datetime.timedelta(days=1)
OWN_TAG_PREFIXES = ("dagster/", ".dagster/", LOST_TAG, PROCESS_TAG)
"""Prefixes of tags that describe the lost run itself; a repeated run does not take them over."""

REPEATED_JOBS = (train, retrain, score_production, assess_performance, audit)
"""Jobs whose lost runs are repeated; runs that a person started in the UI are not."""


def end_orphaned_runs(instance: dg.DagsterInstance, port: int) -> list[str]:
    """Mark the dead runs of this machine as lost and failed. Call this before a code server starts.

    Args:
        instance: with the runs.
        port: of the code server that is about to start; no other may listen there.

    Returns:
        Ids of the marked runs, which the sensor `lost_runs` requests again.
    """
    unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
    orphans = [
        run
        for run in instance.get_runs(unfinished)
        if _was_launched_at(run, port) or _is_of_dead_command(run)
    ]
    for run in orphans:
        _end(instance, run, PROCESS_ENDED)
    return [run.run_id for run in orphans]


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun, message: str) -> None:
    instance.add_run_tags(run.run_id, {LOST_TAG: KILLED, RETRIES_TAG: "0"})
    lost = instance.get_run_by_id(run.run_id) or run
    instance.report_run_failed(lost, message)


def runs_without_process(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs that a code server of this machine has begun and whose process is gone, although
    none of the two has written an end.
    """
    begun = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    return [run for run in begun if _was_launched_here(run) and _has_dead_process(instance, run)]


def runs_never_queued(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs that have been made and neither queued nor begun. That takes a moment; a run that a
    command executes itself may take longer.
    """
    made = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.NOT_STARTED]))
    return [run for run in made if PROCESS_TAG not in run.tags]


def _was_launched_here(run: dg.DagsterRun) -> bool:
    address: dict[str, object] = json.loads(run.tags.get(LAUNCHED_AT_TAG, "{}"))
    return "host" in address and _is_of_this_machine(str(address["host"]))


def _has_dead_process(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """True if the process that Dagster's first event on a run names is not there any more."""
    events = instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT, limit=FIRST_EVENTS
    )
    for record in events.records:
        event = record.event_log_entry.dagster_event
        process = event.engine_event_data.metadata.get("pid") if event is not None else None
        if process is not None:
            return not _is_alive(int(str(process.value)))
    return False


def _is_alive(process_id: int) -> bool:
    """True if a process executes; one that has ended and whose parent has not asked does not."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # of another user
    stat = Path(f"/proc/{process_id}/stat")
    return not stat.parent.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def this_process() -> str:
    """The value of `PROCESS_TAG` for a run that this process executes."""
    return json.dumps({"machine": socket.gethostname(), **_identity(os.getpid())})


def _was_launched_at(run: dg.DagsterRun, port: int) -> bool:
    """True if a run was launched at a port of this machine."""
    address: dict[str, object] = json.loads(run.tags.get(LAUNCHED_AT_TAG, "{}"))
    return address.get("port") == port and _is_of_this_machine(str(address.get("host")))


def _is_of_this_machine(host: str) -> bool:
    """True if a name leads to an address of this machine: only those can be bound."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    for family, kind, protocol, _, place in found:
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.bind(place)
            except OSError:
                continue
            return True
    return False


def _is_of_dead_command(run: dg.DagsterRun) -> bool:
    """True if a command of this machine executed a run and is gone."""
    process: dict[str, object] = json.loads(run.tags.get(PROCESS_TAG, "{}"))
    if process.pop("machine", None) != socket.gethostname():
        return False
    try:
        return _identity(int(str(process["id"]))) != process
    except OSError:
        return True


def _identity(process_id: int) -> dict[str, int]:
    """The id of a process and, on Linux, its start in ticks since the machine's.

    Raises:
        OSError: if there is no such process.
    """
    os.kill(process_id, 0)
    stat = Path(f"/proc/{process_id}/stat")
    start = stat.read_text().rpartition(")")[2].split()[19] if stat.parent.exists() else 0
    return {"id": process_id, "start": int(start)}


@sensor(jobs=REPEATED_JOBS, minimum_interval_seconds=10)
def lost_runs(
    context: dg.SensorEvaluationContext,
    settings: dg.ResourceParam[Settings],  # noqa: ARG001
) -> dg.SensorResult:
    """Repeats runs whose process was killed, or that a disk, a bucket or a server failed, with
    their day and tags, as often as `KILLED_LIMIT` and `WAIT_SECONDS` allow. The resource `settings`
    is required for its comparison of stores.
    """
    gone = {run.run_id: (run, PROCESS_ENDED) for run in runs_without_process(context.instance)}
    gone |= {run.run_id: (run, NEVER_QUEUED) for run in runs_never_queued(context.instance)}
    # At two looks, since the code server ends the run of a dead process itself, after some seconds,
    # and a run is queued a moment after it was made.
    for run_id in gone.keys() & set((context.cursor or "").split()):
        _end(context.instance, *gone.pop(run_id))
    cursor = " ".join(gone)
    since = datetime.datetime.now(datetime.UTC) - LOST_SINCE
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    jobs = {job.name for job in REPEATED_JOBS}
    requests, lost, waiting, given_up = [], 0, 0, 0
    for record in context.instance.get_run_records(failed):
        run = record.dagster_run
        if run.job_name not in jobs or (why := _why(context.instance, run)) == OWN:
            continue
        lost += 1
        tries = int(run.tags.get(TRIES_TAG, "1"))
        waits = WAIT_SECONDS if why == OUTSIDE else (0.0,) * (KILLED_LIMIT - 1)
        if tries > len(waits):
            given_up += 1
        elif not _has_successor(context.instance, run):
            # An end in the future was written before the clock was set back.
            if record.end_time is None or abs(time.time() - record.end_time) >= waits[tries - 1]:
                requests.append(_repeat(run, tries))
            else:
                waiting += 1
    if requests:
        return dg.SensorResult(run_requests=requests, cursor=cursor)
    return dg.SensorResult(
        cursor=cursor,
        skip_reason=f"{lost} runs were lost in a day; {given_up} of them too often, "
        f"{waiting} waiting to be repeated",
    )


def _why(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """The value of `LOST_TAG` of a failed run, which gets it when it is looked at first."""
    known = run.tags.get(LOST_TAG)
    if known is not None:
        return known
    found = OUTSIDE if _was_failed_from_outside(instance, run) else OWN
    instance.add_run_tags(run.run_id, {LOST_TAG: found})
    return found


def _was_failed_from_outside(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """True if each failed step, or the failed start of the run, has an error of storage or network;
    or if nothing did, and Dagster ended the run for its time, as it does when the clock goes ahead.
    """
    events = instance.all_logs(run.run_id, of_type=FAILURES)
    ends = [event.dagster_event for event in events if event.dagster_event is not None]
    errors = [end.step_failure_data.error for end in ends if end.is_step_failure]
    for end in ends:
        if not end.is_step_failure and isinstance(end.event_specific_data, JobFailureData):
            errors += [end.event_specific_data.error] if end.event_specific_data.error else []
    errors = [error for error in errors if error is None or error.cls_name != INTERRUPTED]
    if not errors:
        return any(OVER_TIME in (end.message or "") for end in ends)
    return all(any(_is_of_outside(cause) for cause in _causes(error)) for error in errors)


def _causes(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    """An error, and those that led to it."""
    while error is not None:
        yield error
        error = error.cause or error.context


def _is_of_outside(error: SerializableErrorInfo) -> bool:
    return error.cls_name in NETWORK_ERRORS or (
        error.cls_name == OSError.__name__ and any(mark in error.message for mark in STORAGE_ERRORS)
    )


def _repeat(run: dg.DagsterRun, tries: int) -> dg.RunRequest:
    about: Mapping[str, str] = {
        name: value for name, value in run.tags.items() if not name.startswith(OWN_TAG_PREFIXES)
    }
    return dg.RunRequest(
        run_key=f"again:{run.run_id}",
        job_name=run.job_name,
        partition_key=run.tags.get(PARTITION_TAG),
        tags={**about, AGAIN_OF_TAG: run.run_id, TRIES_TAG: str(tries + 1)},
    )


def _has_successor(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """True if the same job of the same day is running or has succeeded since."""
    day = run.tags.get(PARTITION_TAG)
    same = dg.RunsFilter(
        job_name=run.job_name,
        tags={PARTITION_TAG: day} if day else None,
        statuses=[*IN_FLIGHT, dg.DagsterRunStatus.SUCCESS],
    )
    latest = instance.get_run_records(same, limit=1)
    lost = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]), limit=1)
    return bool(latest) and latest[0].create_timestamp > lost[0].create_timestamp
