"""The loop watches itself: what is dead is named, from inside and from outside."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import ANY

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.storage.dagster_run import DagsterRun
from dagster._daemon.sensor import get_elapsed
from dagster_shared.error import DagsterError, SerializableErrorInfo

from creditrisk_assets.defs import alerts, loop_checks
from creditrisk_assets.defs.check_results import CHECKS
from creditrisk_assets.defs.external_watch import watch_once
from creditrisk_assets.defs.status import SENSORS
from creditrisk_assets.monitoring.alert_outbox import Outbox
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.loop import Loop, api, checks
from tests.support.places import REPOSITORY
from tests.support.receiver import received, receiver


def ticked(
    loop: Loop, sensor: dg.SensorDefinition, status: TickStatus = TickStatus.SKIPPED, ago: float = 1
) -> None:
    """What the daemon leaves of a tick."""
    from dagster._core.remote_origin import (
        InProcessCodeLocationOrigin,
        RemoteInstigatorOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    location = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(module_name="creditrisk_assets.definitions"),
        location_name="creditrisk",
    )
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), sensor.name)
    state = InstigatorState(
        origin,
        InstigatorType.SENSOR,
        InstigatorStatus.RUNNING,
        SensorInstigatorData(min_interval=5, sensor_type=sensor.sensor_type),
    )
    if loop.instance.get_instigator_state(state.instigator_origin_id, state.selector_id) is None:
        loop.instance.add_instigator_state(state)
    error = (
        SerializableErrorInfo("ValueError: the disk is gone\n", [], "ValueError")
        if status is TickStatus.FAILURE
        else None
    )
    loop.instance.create_tick(
        TickData(
            instigator_origin_id=state.instigator_origin_id,
            instigator_name=sensor.name,
            instigator_type=InstigatorType.SENSOR,
            status=status,
            timestamp=time.time() - ago,
            selector_id=state.selector_id,
            error=error,
        )
    )


def test_the_job_watch_names_what_is_dead_and_a_failing_sensor_raises_an_alarm(
    fresh: Loop, tmp_path: Path
) -> None:
    """Dagster itself says nothing of a sensor that fails."""
    for sensor in SENSORS:
        ticked(fresh, sensor)
    found = checks(fresh.run("watch"))
    assert {name: one.passed for name, one in found.items()} == dict.fromkeys((*found,), True)
    assert set(found) == {
        "sensors_tick",
        "no_run_hangs",
        "no_run_failed",
        "api_serves_the_champion",
        "data_is_fresh",
    }
    with receiver(tmp_path) as (url, log):
        fresh.settings = fresh.settings.model_copy(
            update={"alert_webhook": type(fresh.settings)(alert_webhook=url).alert_webhook}
        )
        assert alerts.record_and_deliver(fresh.instance, fresh.settings).startswith("0 delivered")
        ticked(fresh, SENSORS[1], TickStatus.FAILURE)
        failed = checks(fresh.run("watch"))["sensors_tick"]
        assert not failed.passed
        assert failed.severity is dg.AssetCheckSeverity.ERROR
        assert (
            failed.metadata["summary"].value
            == "A sensor is late, stopped or failing: new_outcome_partitions failed: ValueError: the disk is gone"
        )
        context = dg.build_sensor_context(
            instance=fresh.instance, resources={"settings": fresh.settings}
        )
        assert "1 delivered" in str(alerts.deliver_alerts(context))
        fresh.run("watch")
        assert "0 delivered" in str(alerts.deliver_alerts(context))
        ticked(fresh, SENSORS[1])
        fresh.run("watch")
        assert "0 open alarms" in str(alerts.deliver_alerts(context))
        sent = [json.loads(one["body"]) for one in received(log)]
        assert [(one["check"], one["kind"], one["tier"]) for one in sent] == [
            ("sensors_tick", "started", "page now"),
            ("sensors_tick", "resolved", "page now"),
        ]


def test_a_run_that_hangs_is_named(fresh: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    run = DagsterRun(
        "retrain",
        run_id="0" * 8 + "-0000-4000-8000-" + "0" * 12,
        status=dg.DagsterRunStatus.STARTED,
    )
    fresh.instance.add_run(run)
    assert loop_checks.no_run_hangs(fresh.instance, fresh.settings).passed
    time.sleep(0.2)
    monkeypatch.setattr(loop_checks, "HANGING_RUN_MINUTES", 0.001)
    found = loop_checks.no_run_hangs(fresh.instance, fresh.settings)
    assert not found.passed
    assert f"run {run.run_id} of retrain is STARTED" in found.summary


def test_a_run_that_failed_is_named_until_a_later_one_succeeds(fresh: Loop) -> None:
    """Of a job that has no check on its way nobody else would say so."""
    assert loop_checks.no_run_failed(fresh.instance, fresh.settings).passed
    for day in ("2025-03-01", "2025-03-02"):
        fresh.land_day(day, simulate(10, 1))  # but there is no champion to score with
    failed = fresh.run("score_production", "2025-03-01")
    assert not failed.success
    found = loop_checks.no_run_failed(fresh.instance, fresh.settings)
    assert (found.passed, found.summary) == (
        False,
        f"run {failed.run_id} of score_production on 2025-03-01 failed",
    )
    assert not fresh.run("score_production", "2025-03-02").success
    assert loop_checks.no_run_failed(fresh.instance, fresh.settings).observed == 2
    again = fresh.instance.create_run_for_job(
        fresh.definitions.resolve_job_def("score_production"),
        tags={"dagster/partition": "2025-03-01"},
    )
    fresh.instance.report_run_failed(again)
    assert loop_checks.no_run_failed(fresh.instance, fresh.settings).observed == 2
    fresh.instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, "score_production"),
        run_id=again.run_id,
    )
    found = loop_checks.no_run_failed(fresh.instance, fresh.settings)
    assert (found.observed, "2025-03-02" in found.summary) == (1, True)


def test_a_day_that_a_check_has_blocked_is_that_check_s_alarm(fresh: Loop) -> None:
    broken = fresh.settings.landing_production / "2025-03-01"
    broken.mkdir(parents=True)
    (broken / "customers.csv").write_text("id\n1\n")
    result = fresh.run("score_production", "2025-03-01")
    assert not result.success
    assert not checks(result)["production_batch_rows_are_mostly_accepted"].passed
    assert loop_checks.no_run_failed(fresh.instance, fresh.settings).passed


def test_a_killed_api_is_named(trained: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_checks, "CONVERGE_SECONDS", 20.0)
    with api(trained) as client:
        url = str(client.base_url)
        settings = trained.settings.model_copy(update={"watch_api_url": url})
        found = loop_checks.api_serves_the_champion(trained.instance, settings)
        assert (found.passed, found.summary) == (
            True,
            f"the API serves version {trained.champion().model_version}",
        )
    monkeypatch.setattr(loop_checks, "CONVERGE_SECONDS", 0.0)
    found = loop_checks.api_serves_the_champion(trained.instance, settings)
    assert not found.passed
    assert found.summary.startswith(f"the API at {url} cannot be reached: ConnectError")
    none = trained.settings.model_copy(update={"watch_api_url": "none"})
    assert "not checked" in loop_checks.api_serves_the_champion(trained.instance, none).summary


def command(loop: Loop, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    own = {
        **loop.environment,
        "PYTHONPATH": str(REPOSITORY),
    }
    return subprocess.run(
        [sys.executable, "-m", "creditrisk_assets.cli.main", "watch", *arguments],
        env={"PATH": os.environ["PATH"]} | own | environment,
        cwd=loop.home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_who_looks_from_outside_sees_a_dead_daemon_and_tells(fresh: Loop, tmp_path: Path) -> None:
    with receiver(tmp_path) as (url, log):
        dead = command(fresh, "--json", CREDITRISK_ALERT_WEBHOOK=url)
        assert dead.returncode == 1
        document = json.loads(dead.stdout)
        assert document["well"] is False
        wrong = {one["check"]: one["summary"] for one in document["findings"] if not one["passed"]}
        assert set(wrong) == {"sensors_tick"}
        assert (
            "new_production_partitions has never ticked; is the daemon running?"
            in wrong["sensors_tick"]
        )
        for sensor in SENSORS:
            ticked(fresh, sensor)
        alive = command(fresh, CREDITRISK_ALERT_WEBHOOK=url)
        assert (alive.returncode, "well: sensors_tick" in alive.stdout) == (0, True), alive.stderr
        sent = [json.loads(one["body"]) for one in received(log)]
        assert [(one["kind"], one["observer"]) for one in sent] == [
            ("started", "outside"),
            ("resolved", "outside"),
        ]


def test_after_a_clock_was_set_back_sensors_do_not_wait_for_the_time_that_was(
    fresh: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster counts a sensor's interval from its last tick, which was by the clock before."""
    for name, value in fresh.environment.items():
        monkeypatch.setenv(name, value)
    for sensor in SENSORS:
        ticked(fresh, sensor)
    state, *_ = fresh.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    ahead = SensorInstigatorData(
        last_tick_timestamp=time.time() + 3_600, min_interval=5, cursor="its own"
    )
    fresh.instance.update_instigator_state(state.with_data(ahead))

    def now() -> InstigatorState:
        found = fresh.instance.get_instigator_state(state.instigator_origin_id, state.selector_id)
        assert found is not None
        return found

    assert (get_elapsed(now()) or 0) < -3_000
    assert watch_once(fresh.home, fresh.settings).released == (state.name,)
    assert (get_elapsed(now()) or 0) > 0
    assert now().instigator_data == ahead._replace(
        last_tick_timestamp=ANY, last_tick_start_timestamp=ANY
    )
    assert watch_once(fresh.home, fresh.settings).released == ()


def test_an_alert_that_cannot_be_delivered_is_an_error_and_waits(fresh: Loop) -> None:
    for sensor in SENSORS:
        ticked(fresh, sensor, ago=10_000)
    failed = command(fresh, CREDITRISK_ALERT_WEBHOOK="http://127.0.0.1:9/hook")
    assert failed.returncode == 1
    assert "1 waiting" in failed.stdout
    url = fresh.settings.database_url
    with Outbox(fresh.settings.alerts, url.get_secret_value() if url else None) as outbox:
        assert [one["check"] for one in outbox.messages("waiting")] == ["sensors_tick"]


def test_a_storage_that_cannot_be_read_is_told(
    fresh: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise DagsterError("the database is gone")

    monkeypatch.setattr("creditrisk_assets.defs.status.open_instance", broken)
    health = watch_once(fresh.home, fresh.settings)
    assert not health.well
    assert (
        health.findings[0].summary
        == "Dagster's instance cannot be read: DagsterError: the database is gone"
    )


def test_every_check_of_the_graph_is_in_the_table(fresh: Loop) -> None:
    """One that is not would alarm nobody."""
    of_the_graph = fresh.definitions.resolve_asset_graph().asset_check_keys
    assert set(CHECKS) == of_the_graph
    assert len(CHECKS) == len(of_the_graph)


@pytest.mark.parametrize("job", ["train", "retrain"])
def test_a_run_that_makes_a_champion_does_not_wait_for_the_watch(fresh: Loop, job: str) -> None:
    steps = {node.name for node in fresh.definitions.resolve_job_def(job).nodes}
    assert "champion_champion_records_agree" in steps
    assert not any(
        name in step for step in steps for name in ("sensors_tick", "api_serves_the_champion")
    )
