"""OpenLineage: what a real receiver gets of the loop's runs, and what happens without one."""

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pytest
from openlineage.client.event_v2 import (
    InputDataset,
    Job,
    OutputDataset,
    Run,
    RunEvent,
    RunState,
)

from creditrisk_assets.definitions import build_definitions
from creditrisk_assets.defs.lineage_events import is_on, lineage_events
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from tests.support.loop import Loop, customers

ASSETS = ("production_batch", "production_scores", "drift_report", "segment_report")
DAY = "2026-09-01"


@dataclass
class Receiver:
    """A receiver of lineage events on a port of its own; with `status` 500 it refuses them."""

    status: int = 201
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    received = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if received.status == 201:
                assert self.path == "/api/v1/lineage"
                received.bodies.append(body)
                received.keys.append(self.headers["Authorization"])
            self.send_response(received.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on the output of the tests."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "a-key")
    yield received
    server.shutdown()
    thread.join()
    server.server_close()


def tick(loop: Loop, cursor: str | None) -> tuple[str, str]:
    """The message of one tick of the sensor, and its new cursor."""
    context = dg.build_sensor_context(
        instance=loop.instance,
        cursor=cursor,
        definitions=build_definitions(loop.settings),
        resources={"settings": loop.settings},
    )
    result = lineage_events(context)
    assert isinstance(result, dg.SensorResult)
    assert result.cursor is not None
    return str(result.skip_reason.skip_message if result.skip_reason else ""), result.cursor


def validated(body: dict[str, Any]) -> RunEvent:
    """The event as the client's own model, which refuses what the standard does not allow."""
    assert body["schemaURL"].startswith("https://openlineage.io/spec/")
    for facets in (
        body["run"]["facets"],
        body["job"]["facets"],
        *(one["facets"] for one in (*body["inputs"], *body["outputs"])),
    ):
        for facet in facets.values():
            assert facet["_producer"]
            assert facet["_schemaURL"].startswith("https://openlineage.io/spec/facets/")
    return RunEvent(
        eventTime=body["eventTime"],
        producer=body["producer"],
        run=Run(body["run"]["runId"], body["run"]["facets"]),
        job=Job(body["job"]["namespace"], body["job"]["name"], body["job"]["facets"]),
        eventType=RunState[body["eventType"]],
        inputs=[InputDataset(one["namespace"], one["name"]) for one in body["inputs"]],
        outputs=[OutputDataset(one["namespace"], one["name"]) for one in body["outputs"]],
    )


def test_a_day_is_told_with_inputs_outputs_columns_and_their_sources(
    trained: Loop, receiver: Receiver
) -> None:
    _, cursor = tick(trained, None)
    trained.land_day(DAY, customers(200, 71))
    assert trained.run("score_production", DAY).success
    message, cursor = tick(trained, cursor)
    events = [validated(body) for body in receiver.bodies]
    assert message == f"{len(events)} events of 1 runs sent"
    assert set(receiver.keys) == {"Bearer a-key"}
    assert [(event.eventType, event.job.name) for event in events] == [
        (RunState.START, "score_production"),
        *(
            (state, f"score_production.{asset}")
            for asset in ASSETS
            for state in (RunState.START, RunState.COMPLETE)
        ),
        (RunState.COMPLETE, "score_production"),
    ]
    assert {event.job.namespace for event in events} == {"creditrisk"}
    ids = {event.job.name: event.run.runId for event in events}
    assert len(set(ids.values())) == 1 + len(ASSETS)
    scores = receiver.bodies[4]
    assert scores["job"]["name"] == "score_production.production_scores"
    facets = scores["run"]["facets"]
    assert facets["parent"]["run"]["runId"] == ids["score_production"]
    assert facets["nominalTime"]["nominalStartTime"] == f"{DAY}T00:00:00Z"
    assert {one["name"] for one in scores["inputs"]} == {"champion", "production_batch"}
    (written,) = receiver.bodies[2]["outputs"]
    made = trained.instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey("production_batch"), asset_partitions=[DAY]), limit=1
    )
    materialization = made.records[0].asset_materialization
    assert materialization is not None
    assert materialization.tags is not None
    version = materialization.tags["dagster/data_version"]
    assert written["facets"]["version"]["datasetVersion"] == version
    (output,) = scores["outputs"]
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 200
    columns = {one["name"]: one for one in output["facets"]["schema"]["fields"]}
    assert list(columns) == list(trained.frame("production_scores", DAY).columns)
    assert columns["pay_0"]["description"] == "payment status in September, months late"
    sources = output["facets"]["columnLineage"]["fields"]["default_probability"]["inputFields"]
    assert {(one["namespace"], one["name"], one["field"]) for one in sources} == {
        ("creditrisk", "production_batch", name)
        for name in PORTFOLIO.field_names
        if name not in PORTFOLIO.protected
    }
    again, _ = tick(trained, cursor)
    assert again == "0 events of 0 runs sent"


def test_a_failed_run_is_told_without_a_value_of_a_customer(
    trained: Loop, receiver: Receiver
) -> None:
    """The message of an error may quote the row that it is about."""
    day = "2026-09-02"
    _, cursor = tick(trained, None)
    trained.land_day(day, customers(100, 72).assign(pay_0="secret value"))
    assert not trained.run("score_production", day).success
    tick(trained, cursor)
    events = [validated(body) for body in receiver.bodies]
    states = {event.job.name: event.eventType for event in events}
    assert states["score_production"] is RunState.FAIL
    assert states["score_production.production_scores"] is RunState.FAIL
    assert "secret value" not in json.dumps(receiver.bodies)
    error = receiver.bodies[-1]["run"]["facets"]["errorMessage"]["message"]
    assert error.startswith("production_batch: ")
    assert "/runs/" in error


def test_events_of_a_receiver_that_is_down_are_sent_when_it_is_up(
    trained: Loop, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__RETRY", '{"total": 0}')
    _, cursor = tick(trained, None)
    day = "2026-09-03"
    trained.land_day(day, customers(100, 73))
    assert trained.run("score_production", day).success
    message, cursor = tick(trained, cursor)
    assert message.startswith("0 events sent, then ")
    assert message.endswith("; the others are sent later")
    for name in ("TYPE", "URL", "RETRY"):
        monkeypatch.delenv(f"OPENLINEAGE__TRANSPORT__{name}")
    message, cursor = tick(trained, cursor)
    expected = 2 + 2 * len(ASSETS)
    assert message == f"{expected} events of 1 runs sent"
    assert len(receiver.bodies) == expected


def test_it_is_off_unless_openlineages_own_variables_say_otherwise(
    trained: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off it costs nothing: there is no sensor, and the client is not imported."""

    def sensors() -> set[str]:
        return {one.name for one in build_definitions(trained.settings).sensors or ()}

    assert not is_on()
    assert "lineage_events" not in sensors()
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "bank")  # names no receiver
    assert not is_on()
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")
    assert "lineage_events" in sensors()
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert not is_on()
