"""After a crash: what a killed code server left behind."""

import dagster as dg

from creditrisk_assets.defs import loop_checks
from creditrisk_assets.defs.event_log import PARTITION_TAG, runs_in_flight
from creditrisk_assets.defs.orphaned_runs import (
    AGAIN_OF_TAG,
    LAUNCHED_BY_CODE_SERVER_TAG,
    TRIES_TAG,
    end_orphaned_runs,
    lost_runs,
)
from tests.support.loop import Loop, customers


def _started_run(loop: Loop, job: str, tags: dict[str, str]) -> str:
    run = loop.instance.create_run_for_job(loop.definitions.resolve_job_def(job), tags=tags)
    loop.instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", run.job_name), run.run_id)
    return run.run_id


def test_a_run_of_a_killed_code_server_ends_and_one_of_a_person_goes_on(fresh: Loop) -> None:
    """A run that stays STARTED for ever would hold the champion's pool and keep every retrain waiting."""
    orphan = _started_run(fresh, "retrain", {LAUNCHED_BY_CODE_SERVER_TAG: "{}"})
    by_hand = _started_run(fresh, "train", {})
    assert runs_in_flight(fresh.instance, ["retrain", "train"]) == 2
    assert end_orphaned_runs(fresh.instance) == [orphan]
    record = fresh.instance.get_run_by_id(orphan)
    assert record is not None
    assert record.status == dg.DagsterRunStatus.FAILURE
    assert runs_in_flight(fresh.instance, ["retrain", "train"]) == 1
    assert end_orphaned_runs(fresh.instance) == []
    assert by_hand != orphan


def test_a_lost_run_is_asked_for_again_with_its_day_and_causes_and_not_for_ever(
    fresh: Loop,
) -> None:
    fresh.tick(lost_runs)
    assert fresh.skip_reasons["lost_runs"].startswith("0 runs were lost in a day")
    about = {PARTITION_TAG: "2026-03-01", "creditrisk/content": "abc"}
    lost = _started_run(fresh, "score_production", {LAUNCHED_BY_CODE_SERVER_TAG: "{}", **about})
    assert end_orphaned_runs(fresh.instance) == [lost]
    (request,) = fresh.tick(lost_runs).run_requests or []
    assert (request.job_name, request.partition_key, request.run_key) == (
        "score_production",
        "2026-03-01",
        f"again:{lost}",
    )
    assert request.tags == {"creditrisk/content": "abc", AGAIN_OF_TAG: lost, TRIES_TAG: "2"}
    third = _started_run(
        fresh, "score_production", {LAUNCHED_BY_CODE_SERVER_TAG: "{}", **about, TRIES_TAG: "3"}
    )
    assert not fresh.tick(lost_runs).run_requests  # the day runs
    end_orphaned_runs(fresh.instance)
    assert third not in [
        str(one.tags[AGAIN_OF_TAG]) for one in fresh.tick(lost_runs).run_requests or []
    ]


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
