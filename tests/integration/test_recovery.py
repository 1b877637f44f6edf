"""After a crash: what a killed code server left behind."""

import dagster as dg

from creditrisk_assets.defs.events import runs_in_flight
from creditrisk_assets.defs.recovery import LAUNCHED_BY_CODE_SERVER_TAG, end_orphaned_runs
from tests.integration.conftest import Loop


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
