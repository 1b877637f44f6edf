"""Spans arrive at a real OTLP receiver, and a receiver that is gone is nobody's matter."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import serving
from creditrisk_assets.settings import ServingSettings
from creditrisk_assets.simulation.processes import reserved_ports
from serving.access.keys import KeyRing
from serving.access.rules import route_table
from serving.http.gateway import Gateway
from serving.ops.tracing import Tracing, tracing
from tests.support.servers import gateway, served

ROOT = Path(str(serving.__file__)).parents[1]


class Receiver(HTTPServer):
    """Takes spans as a collector does."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        super().__init__(("127.0.0.1", 0), Take)


class Take(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        received = ExportTraceServiceRequest.FromString(
            self.rfile.read(int(self.headers["Content-Length"]))
        )
        for resource in received.resource_spans:
            self.server.services |= {
                one.value.string_value
                for one in resource.resource.attributes
                if one.key == "service.name"
            }
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def gateway_with(observer: Tracing, folder: Path) -> Gateway:
    app = FastAPI()

    @app.get("/ready")
    async def ready(request: Request) -> str:
        request.state.model_version = "12"
        return "ready"

    @app.get("/metrics")
    async def metrics() -> str:
        raise RuntimeError

    return gateway(
        app, route_table(ServingSettings()), KeyRing(folder / "none.json"), listeners=[observer]
    )


def test_each_request_is_one_span_in_its_caller_s_trace(receiver: Receiver, tmp_path: Path) -> None:
    observer = tracing(f"http://127.0.0.1:{receiver.server_port}/")
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with (
        served(gateway_with(observer, tmp_path)) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        answer = client.get(
            "/ready", headers={"traceparent": f"00-{trace}-{parent}-01", "X-Request-ID": "case-1"}
        )
        client.get("/ready", headers={"traceparent": f"00-{trace}-{parent}-00"})
        client.get("/metrics")
        time.sleep(0.1)
    observer.close()
    assert receiver.services == {"creditrisk-api"}
    followed, failed = receiver.spans
    assert followed.name == "GET /ready"
    assert followed.kind == Span.SPAN_KIND_SERVER
    assert (followed.trace_id.hex(), followed.parent_span_id.hex()) == (trace, parent)
    assert followed.span_id.hex() == answer.headers["traceparent"].split("-")[2]
    values = {one.key: one.value.string_value or one.value.int_value for one in followed.attributes}
    assert values == {
        "http.request.method": "GET",
        "http.route": "/ready",
        "http.response.status_code": 200,
        "creditrisk.request_id": "case-1",
        "creditrisk.caller": "nobody",
        "creditrisk.model_version": "12",
    }
    assert 0 < followed.end_time_unix_nano - followed.start_time_unix_nano < 5e9
    assert abs(followed.end_time_unix_nano - time.time_ns()) < 60e9
    assert not failed.parent_span_id
    assert failed.status.code == failed.status.STATUS_CODE_ERROR


def test_a_receiver_that_is_gone_costs_no_request(tmp_path: Path) -> None:
    observer = tracing(f"http://127.0.0.1:{reserved_ports(1)[0]}")
    with (
        served(gateway_with(observer, tmp_path)) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        taken = []
        for _ in range(200):
            start = time.perf_counter()
            assert client.get("/ready").status_code == 200
            taken.append(time.perf_counter() - start)
    assert max(taken) < 1
    start = time.monotonic()
    observer.close()
    assert time.monotonic() - start < 30


def test_without_the_extra_the_message_says_what_to_install() -> None:
    """The module is kept out of this process by telling Python that there is none of this name."""
    code = (
        "import sys; sys.modules['opentelemetry.exporter'] = None\n"
        "from serving.ops.tracing import tracing, TracingMissing\n"
        "try: tracing('http://127.0.0.1:4318')\n"
        "except TracingMissing as missing: print(missing)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert "pip install 'creditrisk[otel]'" in done.stdout
