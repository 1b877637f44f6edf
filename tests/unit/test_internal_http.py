"""No proxy is asked for the store's own services."""

import http.server
import json
import os
import threading
import urllib.request
from collections.abc import Iterator

import httpx
import pytest

from creditrisk_assets import internal_http
from creditrisk_assets.monitoring.loop_health import ask_api
from serving.inference.champion_source import DagsterWebserverSource
from tests.support.places import REFUSING_PROXY


class _Answering(http.server.BaseHTTPRequestHandler):
    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        document = {
            "model_version": "3",
            "bundle_sha256": "abc",
            "data": {"assetOrError": {"__typename": "AssetNotFoundError"}},
        }
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    do_GET = do_POST = _answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in REFUSING_PROXY.items():
        monkeypatch.setenv(name, value)


def test_a_service_on_loopback_is_asked_directly(service: str) -> None:
    with pytest.raises(httpx.ConnectError):
        httpx.get(service)  # through the proxy, as a library does by default
    assert internal_http.get(service).status_code == 200
    with internal_http.direct_client(base_url=service) as client:
        assert client.get("/ready").status_code == 200
    answer = ask_api(service)
    assert (answer.version, answer.problem) == ("3", None)
    assert DagsterWebserverSource(service).materializations() == []


def test_libraries_are_told_to_leave_the_proxy_out(
    monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    monkeypatch.setenv("NO_PROXY", "bank.example")
    internal_http.exempt_from_proxies(
        "http://mlflow.bank.example:5000", "sqlite:////data/mlflow.db"
    )
    internal_http.exempt_from_proxies("http://mlflow.bank.example:5000")
    exempt = "bank.example,127.0.0.1,localhost,::1,mlflow.bank.example"
    assert (os.environ["NO_PROXY"], os.environ["no_proxy"]) == (exempt, exempt)
    assert urllib.request.proxy_bypass("bank.example")  # the operator's own exemption
    assert httpx.get(service).status_code == 200
