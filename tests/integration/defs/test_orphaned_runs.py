"""After a crash: what a killed code server or command left behind."""

import datetime
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from dagster._core.events import EngineEventData, JobFailureData, RunFailureReason
from dagster._core.execution.plan.objects import StepFailureData
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster_shared.error import SerializableErrorInfo
from s3fs.errors import translate_boto_error

from creditrisk_assets.defs import loop_checks, orphaned_runs
from creditrisk_assets.defs.event_log import PARTITION_TAG, runs_in_flight
from creditrisk_assets.defs.orphaned_runs import (
    AGAIN_OF_TAG,
    LAUNCHED_AT_TAG,
    PROCESS_TAG,
    TRIES_TAG,
    end_orphaned_runs,
    lost_runs,
    this_process,
)
from tests.support.loop import Loop, customers
from tests.support.trials.small_disk import small_disk

STEP_FAILURE, RUN_FAILURE = dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE
PORT = 4000
HERE = {LAUNCHED_AT_TAG: json.dumps({"host": "localhost", "port": PORT})}


def _started_run(loop: Loop, job: str, tags: dict[str, str]) -> str:
    run = loop.instance.create_run_for_job(loop.definitions.resolve_job_def(job), tags=tags)
    loop.instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", run.job_name), run.run_id)
    return run.run_id


def _told(error: BaseException) -> SerializableErrorInfo:
    """An error as Dagster writes it down."""
    try:
        raise error
    except BaseException:  # one of them is no Exception
        return serializable_error_info_from_exc_info(sys.exc_info())


def _report(
    loop: Loop,
    run: dg.DagsterRun,
    kind: dg.DagsterEventType,
    data: StepFailureData | JobFailureData,
    message: str | None = None,
) -> None:
    step = "predictions" if kind == STEP_FAILURE else None
    event = dg.DagsterEvent(
        kind.value, run.job_name, step_key=step, event_specific_data=data, message=message
    )
    loop.instance.report_dagster_event(event, run.run_id)


def _fail_step(loop: Loop, run_id: str, error: Exception) -> None:
    """What a step leaves that ended with an error, and its run."""
    run = loop.instance.get_run_by_id(run_id)
    assert run is not None
    _report(loop, run, STEP_FAILURE, StepFailureData(_told(error), None))  # type: ignore[no-untyped-call]
    loop.instance.report_run_failed(run)


def test_a_run_of_a_killed_code_server_ends_and_one_of_a_person_goes_on(fresh: Loop) -> None:
    """A run that stays STARTED for ever would hold the champion's pool and keep every retrain waiting."""
    orphan = _started_run(fresh, "retrain", HERE)
    by_hand = _started_run(fresh, "train", {})
    assert runs_in_flight(fresh.instance, ["retrain", "train"]) == 2
    assert end_orphaned_runs(fresh.instance, PORT) == [orphan]
    record = fresh.instance.get_run_by_id(orphan)
    assert record is not None
    assert record.status == dg.DagsterRunStatus.FAILURE
    assert runs_in_flight(fresh.instance, ["retrain", "train"]) == 1
    assert end_orphaned_runs(fresh.instance, PORT) == []
    assert by_hand != orphan


@pytest.mark.parametrize(
    "address",
    [
        {"host": "localhost", "port": PORT + 1},
        {"host": "192.0.2.7", "port": PORT},
        {"host": "no-such-host.invalid", "port": PORT},
        {"socket": "code-server.socket", "host": "localhost"},
    ],
)
def test_a_run_of_another_code_server_goes_on(fresh: Loop, address: dict[str, object]) -> None:
    """A second machine's code server, or a second one started by mistake, ended healthy runs."""
    _started_run(fresh, "retrain", {LAUNCHED_AT_TAG: json.dumps(address)})
    assert end_orphaned_runs(fresh.instance, PORT) == []


def test_the_run_of_a_killed_command_ends_and_those_that_live_or_are_elsewhere_go_on(
    fresh: Loop,
) -> None:
    with subprocess.Popen(["sleep", "60"]) as killed:
        gone = {"machine": socket.gethostname(), "id": killed.pid, "start": 0}
        killed.kill()
    mine = json.loads(this_process())
    ended = _started_run(fresh, "train", {PROCESS_TAG: json.dumps(gone)})
    other = _started_run(fresh, "train", {PROCESS_TAG: json.dumps(mine | {"start": 1})})
    for process in (mine, gone | {"machine": "elsewhere"}):
        _started_run(fresh, "retrain", {PROCESS_TAG: json.dumps(process)})
    assert sorted(end_orphaned_runs(fresh.instance, PORT)) == sorted([ended, other])
    assert runs_in_flight(fresh.instance, ["train", "retrain"]) == 2


def test_a_lost_run_is_asked_for_again_with_its_day_and_causes_and_not_for_ever(
    fresh: Loop,
) -> None:
    fresh.tick(lost_runs)
    assert fresh.skip_reasons["lost_runs"].startswith("0 runs were lost in a day")
    about = {PARTITION_TAG: "2026-03-01", "creditrisk/content": "abc"}
    lost = _started_run(fresh, "score_production", {**HERE, **about})
    assert end_orphaned_runs(fresh.instance, PORT) == [lost]
    (request,) = fresh.tick(lost_runs).run_requests or []
    assert (request.job_name, request.partition_key, request.run_key) == (
        "score_production",
        "2026-03-01",
        f"again:{lost}",
    )
    assert request.tags == {"creditrisk/content": "abc", AGAIN_OF_TAG: lost, TRIES_TAG: "2"}
    third = _started_run(fresh, "score_production", {**HERE, **about, TRIES_TAG: "3"})
    assert not fresh.tick(lost_runs).run_requests  # the day runs
    end_orphaned_runs(fresh.instance, PORT)
    assert third not in [
        str(one.tags[AGAIN_OF_TAG]) for one in fresh.tick(lost_runs).run_requests or []
    ]


def test_a_run_that_was_made_and_could_not_be_queued_is_asked_for_again(fresh: Loop) -> None:
    """Dagster made the retry of a crashed run while the database's disk was full. It was never queued, and
    every later look took it for the run that does the day.
    """
    job = fresh.definitions.resolve_job_def("score_production")
    day = {PARTITION_TAG: "2026-03-01"}
    made = fresh.instance.create_run_for_job(job, tags=day)
    by_command = fresh.instance.create_run_for_job(job, tags={PROCESS_TAG: this_process()})
    assert not fresh.tick(lost_runs).run_requests  # it may be queued in a moment
    (request,) = fresh.tick(lost_runs).run_requests or []
    assert (request.partition_key, request.tags[AGAIN_OF_TAG]) == ("2026-03-01", made.run_id)
    left = fresh.instance.get_run_by_id(by_command.run_id)
    assert left is not None
    assert left.status == dg.DagsterRunStatus.NOT_STARTED


@pytest.mark.parametrize("is_reaped", [True, False])
def test_a_run_whose_process_is_gone_ends_although_its_code_server_lives(
    fresh: Loop, is_reaped: bool
) -> None:
    """A code server that could not write the end of a run, as with a full disk, never did it again: the run
    stayed STARTED for an hour and held a place in the queue.
    """
    finished = subprocess.Popen(["true"])
    os.waitid(os.P_PID, finished.pid, os.WEXITED | os.WNOWAIT)  # ended; its parent has not asked
    if is_reaped:
        finished.wait()
    with subprocess.Popen(["sleep", "60"]) as living:
        ids = {
            name: _started_run(fresh, "score_production", HERE | {PARTITION_TAG: day})
            for name, day in (
                ("gone", "2026-03-01"),
                ("living", "2026-03-02"),
                ("unknown", "2026-03-03"),
            )
        }
        for name, process in (("gone", finished.pid), ("living", living.pid)):
            run = fresh.instance.get_run_by_id(ids[name])
            assert run is not None
            begun = EngineEventData.in_process(process)
            fresh.instance.report_engine_event("Started process for run", run, begun)
        assert not fresh.tick(lost_runs).run_requests  # its code server may be about to end it
        (request,) = fresh.tick(lost_runs).run_requests or []
        living.kill()
    finished.wait()
    assert request.tags[AGAIN_OF_TAG] == ids["gone"]
    assert runs_in_flight(fresh.instance, ["score_production"]) == 2


@pytest.mark.embedded("it fills the disk on which a store lies")
def test_a_run_that_a_full_disk_has_failed_is_asked_for_again_and_one_of_a_broken_file_is_not(
    trained: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = trained.apart("full")
    with small_disk(1) as disk:
        Path(str(loop.settings.data_dir / "storage")).symlink_to(disk.folder)
        disk.fill()
        loop.land_day("2026-07-01", customers(50, 1))
        full = loop.run("score_production", "2026-07-01")
        broken = loop.land_day("2026-07-02", customers(50, 2))
        broken.write_text("id\n1\n")
        disk.free()
        refused = loop.run("score_production", "2026-07-02")
        assert not full.success
        assert not refused.success
        loop.tick(lost_runs)
        assert loop.skip_reasons["lost_runs"] == (
            "1 runs were lost in a day; 0 of them too often, 1 waiting to be repeated"
        )
        monkeypatch.setattr(orphaned_runs, "WAIT_SECONDS", (0.0, 0.0))
        (request,) = loop.tick(lost_runs).run_requests or []
        assert request.tags[AGAIN_OF_TAG] == full.run_id
        again = loop.run(str(request.job_name), request.partition_key, dict(request.tags))
        assert again.success
        assert not loop.tick(lost_runs).run_requests


@pytest.mark.parametrize(
    ("answer", "is_repeated"),
    [
        ("InternalError", True),
        ("SlowDown", True),
        ("RequestTimeTooSkewed", True),
        ("InvalidArgument", False),
    ],
)
def test_a_run_that_an_object_store_has_failed_is_asked_for_again_until_it_has_space(
    fresh: Loop, monkeypatch: pytest.MonkeyPatch, answer: str, is_repeated: bool
) -> None:
    """A full one answers 500, which s3fs makes an error of a number of its own, and takes its time to see
    that there is space again: three tries were over before.
    """
    monkeypatch.setattr(orphaned_runs, "WAIT_SECONDS", (0.0,) * len(orphaned_runs.WAIT_SECONDS))
    refused = ClientError({"Error": {"Code": answer, "Message": "no"}}, "PutObject")
    limit = 1 + len(orphaned_runs.WAIT_SECONDS)
    for tries in range(1, 1 + limit):
        tags = {PARTITION_TAG: "2026-03-01", TRIES_TAG: str(tries)}
        failed = _started_run(fresh, "score_production", tags)
        _fail_step(fresh, failed, translate_boto_error(refused))
        requests = fresh.tick(lost_runs).run_requests or []
        asked_for = failed in [one.tags[AGAIN_OF_TAG] for one in requests]
        assert asked_for == (is_repeated and tries < limit)


def test_a_run_that_a_clock_gone_ahead_has_ended_is_asked_for_again(
    fresh: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster ends a run that lasts longer than an hour, and compares clocks for it."""
    monkeypatch.setattr(orphaned_runs, "WAIT_SECONDS", (0.0, 0.0))
    started = {}
    for day, message in (
        ("2026-03-01", "Exceeded maximum runtime of 3600 seconds."),
        ("2026-03-02", "This run has been marked as failed from outside the execution context."),
    ):
        started[day] = _started_run(fresh, "score_production", {PARTITION_TAG: day})
        run = fresh.instance.get_run_by_id(started[day])
        assert run is not None
        fresh.instance.report_run_failed(run, message)
    (request,) = fresh.tick(lost_runs).run_requests or []
    assert request.tags[AGAIN_OF_TAG] == started["2026-03-01"]


def test_a_run_that_failed_while_the_clock_was_ahead_does_not_wait_for_the_time_that_was(
    fresh: Loop,
) -> None:
    """It was repeated an hour later, when the clock had come to the time of its failure."""
    refused = translate_boto_error(
        ClientError({"Error": {"Code": "RequestTimeTooSkewed", "Message": "no"}}, "PutObject")
    )
    ahead = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    runs = [
        _started_run(fresh, "score_production", {PARTITION_TAG: day})
        for day in ("2026-03-01", "2026-03-02")
    ]
    for run_id in runs:
        _fail_step(fresh, run_id, refused)
    failed = dg.DagsterEvent(RUN_FAILURE.value, "score_production")
    fresh.instance.run_storage.handle_run_event(runs[0], failed, ahead)
    (request,) = fresh.tick(lost_runs).run_requests or []
    assert request.tags[AGAIN_OF_TAG] == runs[0]


def test_a_run_that_could_not_begin_is_asked_for_again_and_a_step_that_was_interrupted_has_no_fault(
    fresh: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its clock an hour ahead, an object store refused a run before its first step, and another one
    was ended in the middle of a step.
    """
    monkeypatch.setattr(orphaned_runs, "WAIT_SECONDS", (0.0, 0.0))
    refused = ClientError(
        {"Error": {"Code": "RequestTimeTooSkewed", "Message": "no"}}, "HeadObject"
    )
    asked = []
    for day, error, message in (
        ("2026-03-01", translate_boto_error(refused), "An exception was thrown during execution."),
        ("2026-03-02", dg.DagsterExecutionInterruptedError(), "Exceeded maximum runtime of 3600 s"),
        ("2026-03-03", ValueError("a wrong setting"), "An exception was thrown during execution."),
    ):
        started = _started_run(fresh, "score_production", {PARTITION_TAG: day})
        run = fresh.instance.get_run_by_id(started)
        assert run is not None
        if isinstance(error, dg.DagsterExecutionInterruptedError):
            _report(fresh, run, STEP_FAILURE, StepFailureData(_told(error), None))  # type: ignore[no-untyped-call]
            fresh.instance.report_run_failed(run, message)
        else:
            data = JobFailureData(_told(error), failure_reason=RunFailureReason.RUN_EXCEPTION)
            _report(fresh, run, RUN_FAILURE, data, message)
        asked += [one.partition_key for one in fresh.tick(lost_runs).run_requests or []]
    assert set(asked) == {"2026-03-01", "2026-03-02"}


def test_a_failed_run_on_a_day_without_a_file_is_no_alarm_that_nothing_can_end(fresh: Loop) -> None:
    """A backfill over days that never landed left one for each."""
    run = fresh.instance.create_run_for_job(
        fresh.definitions.resolve_job_def("score_production"), tags={PARTITION_TAG: "2026-03-01"}
    )
    fresh.instance.report_run_failed(run)
    assert loop_checks.no_run_failed(fresh.instance, fresh.settings).passed
    fresh.land_day("2026-03-01", customers(10, 1))
    found = loop_checks.no_run_failed(fresh.instance, fresh.settings)
    assert not found.passed
    assert "score_production on 2026-03-01 failed" in found.summary
