"""The gateway around a FastAPI application, over real HTTP."""

import base64
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from fastapi_offline import FastAPIOffline
from structlog.testing import capture_logs

from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.settings import ServingLimits, ServingSettings
from serving.access import keys
from serving.access.keys import KeyRing, create_key, revoke_keys
from serving.access.rate_limit import RateLimiter
from serving.access.rules import JSON_TYPE, route_table
from serving.http.gateway import Exchange
from serving.http.json import StrictRoute
from serving.http.problem_details import problem_handlers
from serving.http.schemas import request_model
from tests.support.servers import gateway, served
from tests.support.waiting import until

EXAMPLE = dict(PORTFOLIO.example)
BODY_LIMIT, BATCH_LIMIT = 4_096, 100_000
SECONDS = 0.4
Customer = request_model(PORTFOLIO)


def application() -> Any:
    app = FastAPIOffline()
    app.router.route_class = StrictRoute
    for kind, handler in problem_handlers(PORTFOLIO).items():
        app.add_exception_handler(kind, handler)

    @app.post("/predict")
    async def predict(customer: Customer, request: Request) -> dict[str, Any]:  # type: ignore[valid-type]
        state = request.state
        assert time.perf_counter() - state.received_at < 5
        return {
            "caller": state.caller.name,
            "scopes": sorted(state.caller.scopes),
            "trace": state.trace.trace_id,
        }

    @app.post("/predict/batch")
    async def batch(request: Request) -> dict[str, int]:
        return {"bytes": sum([len(piece) async for piece in request.stream()])}

    @app.get("/decisions/{decision}")
    async def decision(decision: str) -> dict[str, str]:
        return {"decision": decision}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse("<html></html>")

    @app.get("/model-info")
    async def model_info() -> None:
        raise HTTPException(503, "no champion", headers={"Retry-After": "5"})

    @app.get("/metrics")
    async def metrics() -> None:
        raise RuntimeError("the secret inside, of customer 4711")

    @app.get("/model/half")
    async def half() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("the secret inside, of customer 4711")

        return StreamingResponse(pieces())

    @app.get("/forgotten")
    async def forgotten() -> str:
        return "a route that is in no table"

    return app


@dataclass
class Watch:
    """Looks on and remembers."""

    begun: int
    seen: list[tuple[str, int, str | None]]

    def on_request(self) -> None:
        self.begun += 1

    def on_response(self, exchange: Exchange) -> None:
        self.seen.append((exchange.rule.template, exchange.status, exchange.refusal_reason))


@dataclass(frozen=True)
class Site:
    client: httpx.Client
    port: int
    keys: dict[str, str]
    file: Path
    watch: Watch

    def auth(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[name]}"}


@pytest.fixture(scope="module")
def settings() -> ServingSettings:
    return ServingSettings(
        limits=ServingLimits(
            predict_body_limit=BODY_LIMIT, batch_body_limit=BATCH_LIMIT, body_seconds=SECONDS
        )
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, settings: ServingSettings) -> Iterator[Site]:
    """With keys."""
    folder = tmp_path_factory.mktemp("gateway_app")
    file = folder / "keys.json"
    keys = {
        "scorer": create_key(file, "scorer", ["predict"]),
        "reader": create_key(file, "reader", ["read"]),
        "boss": create_key(file, "boss", ["admin"]),
        "hasty": create_key(file, "hasty", ["predict"]),
        "leaver": create_key(file, "leaver", ["predict"]),
    }
    watch = Watch(0, [])
    limiter = RateLimiter(folder / "table", 100_000, 100_000)
    gateway_app = gateway(
        application(),
        route_table(settings, (JSON_TYPE, "text/csv")),
        KeyRing(file),
        limiter=limiter,
        listeners=[watch],
    )
    with (
        served(gateway_app) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client,
    ):
        yield Site(client, port, keys, file, watch)


@pytest.fixture(scope="module")
def open_site(
    tmp_path_factory: pytest.TempPathFactory, settings: ServingSettings
) -> Iterator[httpx.Client]:
    """Without keys, on loopback."""
    ring = KeyRing(tmp_path_factory.mktemp("open") / "keys.json")
    gateway_app = gateway(application(), route_table(settings), ring)
    with (
        served(gateway_app) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client,
    ):
        yield client


def raw(port: int, sent: bytes, *more: tuple[float, bytes]) -> bytes:
    """What a connection answers to bytes, and to more of them after pauses, until it is closed or silent for three seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=3) as connection:
        connection.sendall(sent)
        for pause, piece in more:
            time.sleep(pause)
            try:
                connection.sendall(piece)
            except OSError:
                break
        answer = b""
        try:
            while piece := connection.recv(65_536):
                answer += piece
        except (TimeoutError, ConnectionResetError):
            answer += b"(not closed)"
        return answer


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem that a response is, whole and consistent."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["type"] == "about:blank"
    assert document["title"]
    assert document["detail"]
    assert document["instance"] == response.headers["x-request-id"]
    return document


def test_a_key_lets_in_by_each_of_its_three_ways(site: Site) -> None:
    key = site.keys["scorer"]
    basic = base64.b64encode(f"anything:{key}".encode()).decode()
    for headers in (
        {"Authorization": f"Bearer {key}"},
        {"X-API-Key": key},
        {"Authorization": f"Basic {basic}"},
    ):
        answer = site.client.post("/predict", json=EXAMPLE, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["caller"] == "scorer"
        assert answer.json()["scopes"] == ["predict"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer cr_000000000000_" + "0" * 64},
        {"X-API-Key": "x"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Digest x"},
    ],
)
def test_without_a_good_key_nothing_is_told(site: Site, headers: dict[str, str]) -> None:
    answer = site.client.post("/predict", json=EXAMPLE, headers=headers)
    assert "key" in problem(answer, 401)["detail"]
    assert answer.headers["www-authenticate"] == 'Bearer realm="creditrisk"'
    assert site.client.get("/no-such-route", headers=headers).status_code == 401


def test_a_browser_is_asked_for_a_key_on_pages_only(site: Site) -> None:
    assert "Basic" in site.client.get("/").headers["www-authenticate"]
    assert "Basic" in site.client.get("/reports/drift/2026-01-01").headers["www-authenticate"]
    assert "Basic" not in site.client.get("/model-info").headers["www-authenticate"]
    assert site.client.get("/", auth=("", site.keys["reader"])).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "scorer", "reader", "boss"),
    [
        ("POST", "/predict", 422, 403, 422),
        ("GET", "/decisions/1", 200, 200, 200),
        ("GET", "/", 403, 200, 200),
        ("GET", "/model-info", 403, 503, 503),
        ("GET", "/forgotten", 403, 403, 200),
        ("GET", "/nothing", 403, 403, 404),
        ("DELETE", "/predict", 403, 403, 405),
        ("GET", "/health", 200, 200, 200),
        ("HEAD", "/docs", 200, 200, 200),
        ("GET", "/docs", 200, 200, 200),
        ("GET", "/static-offline-docs/swagger-ui.css", 200, 200, 200),
        ("GET", "/static-offline-docs/%2e%2e/metrics", 404, 404, 404),
        ("GET", "//metrics", 403, 403, 404),
    ],
)
def test_each_scope_opens_what_it_is_for(
    site: Site, method: str, path: str, scorer: int, reader: int, boss: int
) -> None:
    """What no table names, and a path that goes around the table, is closed to all but admin."""
    got = {}
    url = httpx.URL(scheme="http", host="127.0.0.1", port=site.port, raw_path=path.encode())
    for name in ("scorer", "reader", "boss"):
        content = b"{}" if method == "POST" else None
        headers = {"Content-Type": JSON_TYPE, **site.auth(name)}
        got[name] = site.client.request(method, url, content=content, headers=headers).status_code
    assert got == {"scorer": scorer, "reader": reader, "boss": boss}


def test_what_a_caller_may_not_do_names_the_scope(site: Site) -> None:
    answer = site.client.post("/predict", json=EXAMPLE, headers=site.auth("reader"))
    assert problem(answer, 403)["detail"] == "reader may not do this: the scope predict is missing"


def test_a_revoked_key_is_refused_within_two_seconds(site: Site) -> None:
    assert (
        site.client.post("/predict", json=EXAMPLE, headers=site.auth("leaver")).status_code == 200
    )
    revoke_keys(site.file, "leaver")
    time.sleep(keys.LOOK_SECONDS + 0.2)
    assert (
        site.client.post("/predict", json=EXAMPLE, headers=site.auth("leaver")).status_code == 401
    )
    assert (
        site.client.post("/predict", json=EXAMPLE, headers=site.auth("scorer")).status_code == 200
    )


def test_who_asks_too_often_is_told_when_to_come_again(
    tmp_path: Path, settings: ServingSettings
) -> None:
    file = tmp_path / "keys.json"
    key = create_key(file, "hasty", ["predict"])
    gateway_app = gateway(
        application(),
        route_table(settings),
        KeyRing(file),
        limiter=RateLimiter(tmp_path / "table", 0.1, 3),
    )
    with (
        served(gateway_app) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": key}) as client,
    ):
        assert [client.post("/predict", json=EXAMPLE).status_code for _ in range(5)] == [
            200,
            200,
            200,
            429,
            429,
        ]
        answer = client.post("/predict", json=EXAMPLE)
        assert "hasty sends more than 0.1 requests a second" in problem(answer, 429)["detail"]
        assert 9 <= int(answer.headers["retry-after"]) <= 10
        assert answer.headers["ratelimit-policy"] == '"caller";q=3;w=30'
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON;charset=UTF-8", 200),
        ('application/json; charset="utf-8"', 200),
        ("application/json; charset=latin-1", 415),
        ("application/problem+json", 415),
        ("text/plain", 415),
        ("", 415),
        ("application/x-www-form-urlencoded", 415),
    ],
)
def test_only_json_in_utf_8_is_a_decision_s_question(
    site: Site, content_type: str, status: int
) -> None:
    answer = site.client.post(
        "/predict",
        content=json.dumps(EXAMPLE),
        headers={"Content-Type": content_type, **site.auth("scorer")},
    )
    assert answer.status_code == status, answer.text
    if status == 415:
        assert "valid: application/json" in problem(answer, 415)["detail"]
        assert answer.headers["accept-post"] == "application/json"


def test_the_batch_takes_the_types_that_it_was_given(site: Site) -> None:
    def post(content_type: str) -> int:
        headers = {"Content-Type": content_type, **site.auth("scorer")}
        return site.client.post(
            "/predict/batch", content=b"a,b\n1,2\n", headers=headers
        ).status_code

    assert [
        post("text/csv; charset=utf-8"),
        post("application/json"),
        post("text/csv; charset=utf-16"),
        post("text/html"),
    ] == [
        200,
        200,
        415,
        415,
    ]


def test_a_compressed_body_is_not_read(site: Site) -> None:
    headers = {"Content-Type": JSON_TYPE, "Content-Encoding": "gzip", **site.auth("scorer")}
    problem(site.client.post("/predict", content=b"x", headers=headers), 415)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "not JSON"),
        (b'{"age": 1, "age": 2}', 400, "the key 'age' is there twice"),
        (b'{"limit_bal": NaN}', 400, "not JSON"),
        (b"[" * 3_000, 400, "deeper than 8"),
        (b"[" * 20 + b"]" * 20, 400, "deeper than 8"),
        (b"\xef\xbb\xbf{}", 400, "byte order mark"),
        (b'{"age": "\xff"}', 400, "not UTF-8"),
        (b"[]", 422, "contract"),
        (b"null", 422, "contract"),
    ],
)
def test_json_that_could_mean_two_things_is_refused(
    site: Site, body: bytes, status: int, told: str
) -> None:
    answer = site.client.post(
        "/predict", content=body, headers={"Content-Type": JSON_TYPE, **site.auth("scorer")}
    )
    assert told in problem(answer, status)["detail"]


def test_protected_values_are_told_to_those_who_may_read_only(site: Site) -> None:
    wrong = {**EXAMPLE, "sex": 77, "AGE": "ninety", "pay_0": 99, "limit_bal": "x" * 500}
    del wrong["age"]

    def told(name: str) -> dict[str, Any]:
        answer = site.client.post("/predict", json=wrong, headers=site.auth(name))
        return {one["field"].lower(): one for one in problem(answer, 422)["problems"]}

    secret, boss = told("scorer"), told("boss")
    assert secret["sex"] == {
        "field": "sex",
        "value": "redacted",
        "problem": "not valid",
        "valid": "one of 1, 2",
    }
    assert secret["age"]["value"] == "redacted"
    assert "77" not in json.dumps([secret["sex"], secret["age"]])
    assert "ninety" not in json.dumps(secret)
    assert secret["pay_0"]["value"] == "99"
    assert boss["sex"]["value"] == "77"
    assert boss["age"]["value"] == "ninety"
    assert len(boss["limit_bal"]["value"]) == 100


def test_a_body_over_the_limit_is_refused_at_once_and_the_client_can_read_why(site: Site) -> None:
    headers = {"Content-Type": JSON_TYPE, **site.auth("scorer")}
    for path, size, limit in (
        ("/predict", BODY_LIMIT + 1, "4,096"),
        ("/predict", 5_000_000, "4,096"),
        ("/predict/batch", 5_000_000, "100,000"),
    ):
        answer = site.client.post(path, content=b"x" * size, headers=headers)
        assert problem(answer, 413)["detail"] == f"the body is larger than {limit} bytes"
        assert answer.headers["connection"] == "close"


def test_a_chunked_body_is_counted_while_it_comes(site: Site) -> None:
    headers = {"Content-Type": JSON_TYPE, **site.auth("scorer")}

    def pieces(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield b"x" * 1_000

    problem(site.client.post("/predict", content=pieces(5), headers=headers), 413)
    problem(site.client.post("/predict/batch", content=pieces(200), headers=headers), 413)
    assert site.client.post("/predict/batch", content=pieces(90), headers=headers).json() == {
        "bytes": 90_000
    }


def settle() -> None:
    """The answer is here before the server has written down that it gave it."""
    time.sleep(0.1)


def head(site: Site, path: str, *headers: str, name: str = "scorer") -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"X-API-Key: {site.keys[name]}",
        "Content-Type: application/json",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_body_that_does_not_come_is_not_waited_for(site: Site) -> None:
    start = time.monotonic()
    for sent in (
        head(site, "/predict", "Content-Length: 100"),
        head(site, "/predict", "Content-Length: 100") + b"{",
    ):
        answer = raw(site.port, sent)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer
        assert not answer.endswith(b"(not closed)")
    dripping = [(SECONDS / 4, b" ")] * 8
    assert raw(site.port, head(site, "/predict", "Content-Length: 100"), *dripping).startswith(
        b"HTTP/1.1 408 "
    )
    assert time.monotonic() - start < 20


def test_a_batch_may_take_its_time_but_not_be_silent_nor_drip(site: Site) -> None:
    slow = [(SECONDS / 2, b"400\r\n" + b"x" * 0x400 + b"\r\n")] * 4
    chunked = head(site, "/predict/batch", "Transfer-Encoding: chunked", "Connection: close")
    assert b'{"bytes":4096}' in raw(site.port, chunked, *slow, (0, b"0\r\n\r\n"))
    assert raw(site.port, chunked, (0, b"1\r\nx\r\n")).startswith(b"HTTP/1.1 408 ")
    assert raw(site.port, chunked, *[(SECONDS / 4, b"1\r\nx\r\n")] * 12).startswith(
        b"HTTP/1.1 408 "
    )


def test_a_client_that_leaves_before_its_body_is_there_is_logged_as_gone(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port)) as connection:
        connection.sendall(head(site, "/predict", "Content-Length: 100"))
        time.sleep(0.1)
    time.sleep(0.2)
    assert site.watch.seen[-1] == ("/predict", 0, None)


def test_what_is_sent_twice_is_a_contradiction(site: Site) -> None:
    answer = raw(
        site.port,
        head(
            site,
            "/predict",
            f"X-API-Key: {site.keys['boss']}",
            "Content-Length: 2",
            "Connection: close",
        )
        + b"{}",
    )
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"x-api-key is there twice" in answer


def test_another_site_s_page_asks_nothing_in_its_reader_s_name(site: Site) -> None:
    for origin, status in (
        ("cross-site", 403),
        ("same-site", 403),
        ("same-origin", 200),
        ("none", 200),
    ):
        headers = {**site.auth("scorer"), "Sec-Fetch-Site": origin}
        assert site.client.post("/predict", json=EXAMPLE, headers=headers).status_code == status


def test_who_was_refused_can_ask_again_on_the_same_connection(site: Site) -> None:
    """Most clients send head and body apart, so the refusal is ready before the body has come."""
    for _ in range(20):
        assert site.client.post("/predict", json=EXAMPLE).status_code == 401
        assert (
            site.client.post(
                "/predict/batch", json=EXAMPLE, headers=site.auth("reader")
            ).status_code
            == 403
        )
        answer = site.client.post(
            "/predict", content=b"x", headers={"Content-Type": "text/html", **site.auth("scorer")}
        )
        assert answer.status_code == 415
        assert "connection" not in answer.headers


def test_a_request_s_id_and_trace_go_in_and_out(site: Site) -> None:
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    headers = {
        **site.auth("scorer"),
        "X-Request-ID": "case-4711",
        "traceparent": f"00-{trace}-{parent}-01",
    }
    answer = site.client.post("/predict", json=EXAMPLE, headers=headers)
    assert answer.headers["x-request-id"] == "case-4711"
    version, trace_id, span, flags = answer.headers["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", trace, "01")
    assert span != parent
    assert answer.json()["trace"] == trace


@pytest.mark.parametrize(
    "sent",
    [
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "nonsense",
    ],
)
def test_a_trace_that_is_not_valid_is_not_gone_on_with(site: Site, sent: str) -> None:
    answer = site.client.get("/health", headers={"traceparent": sent, "X-Request-ID": "a b"})
    made = re.fullmatch(r"00-([0-9a-f]{32})-[0-9a-f]{16}-01", answer.headers["traceparent"])
    assert made
    assert "4bf92f" not in made[1].lower()
    assert answer.headers["x-request-id"] == made[1]


def test_every_answer_is_kept_to_the_one_who_asked(site: Site) -> None:
    for path in ("/health", "/docs", "/", "/decisions/1", "/metrics", "/nothing", "/reports/x"):
        headers = site.client.get(path, headers=site.auth("boss")).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers
        scripts_inline = "script-src 'self' 'unsafe-inline'" in headers["content-security-policy"]
        assert scripts_inline == (path == "/docs")


def test_a_fault_of_the_api_says_nothing_of_the_inside_and_is_found_by_its_id(site: Site) -> None:
    with capture_logs() as lines:
        answer = site.client.get("/metrics", headers=site.auth("boss"))
        settle()
    assert "secret" not in json.dumps(problem(answer, 500))
    failures = [line for line in lines if line["event"] == "failed"]
    assert [line["request_id"] for line in failures] == [answer.headers["x-request-id"]]
    assert failures[0]["error"] == "builtins.RuntimeError"
    assert any("test_gateway.py" in place for place in failures[0]["where"])
    assert "4711" not in json.dumps(lines)


def test_a_fault_in_the_middle_of_an_answer_closes_the_connection(site: Site) -> None:
    with capture_logs() as lines:
        with pytest.raises(httpx.RemoteProtocolError):
            site.client.get("/model/half", headers=site.auth("boss"))
        settle()
    assert [line["error"] for line in lines if line["event"] == "failed"] == [
        "builtins.RuntimeError"
    ]


def test_errors_of_the_application_keep_their_headers(site: Site) -> None:
    answer = site.client.get("/model-info", headers=site.auth("boss"))
    assert problem(answer, 503)["detail"] == "no champion"
    assert answer.headers["retry-after"] == "5"
    assert site.client.delete("/predict", headers=site.auth("boss")).headers["allow"] == "POST"


def test_what_is_refused_is_one_line_in_the_log_without_key_or_customer(site: Site) -> None:
    with capture_logs() as lines:
        site.client.post(
            "/predict", json=EXAMPLE, headers=site.auth("reader") | {"X-Request-ID": "case-1"}
        )
        site.client.post("/predict", json={**EXAMPLE, "age": "ninety"}, headers=site.auth("scorer"))
        site.client.post("/predict", json=EXAMPLE, headers=site.auth("scorer"))
        settle()
    written = [line for line in lines if line["event"] == "request"]
    assert [(line["status"], line["why"], line["caller"]) for line in written] == [
        (403, "scope", "reader"),
        (422, None, "scorer"),
    ]
    assert written[0]["request_id"] == "case-1"
    assert written[1]["key_id"] == site.keys["scorer"][3:15]
    assert {"method", "path", "milliseconds", "client", "trace_id", "span_id"} <= written[0].keys()
    text = json.dumps(lines)
    assert "ninety" not in text
    assert not any(key[16:] in text for key in site.keys.values())


def test_who_looks_on_sees_each_request_once(site: Site) -> None:
    seen, begun = len(site.watch.seen), site.watch.begun
    site.client.get("/health")
    site.client.get("/model-info")
    site.client.post("/predict", json={}, headers=site.auth("scorer"))
    settle()
    assert site.watch.seen[seen:] == [
        ("/health", 200, None),
        ("/model-info", 401, "no_key"),
        ("/predict", 422, None),
    ]
    assert site.watch.begun - begun == 3


def test_without_keys_everybody_on_this_machine_is_anonymous(open_site: httpx.Client) -> None:
    answer = open_site.post("/predict", json=EXAMPLE)
    assert answer.json()["caller"] == "anonymous"
    assert answer.json()["scopes"] == ["acknowledge", "admin", "predict", "read"]
    assert open_site.get("/forgotten").status_code == 200
    assert open_site.get("/nothing").status_code == 404
    assert open_site.delete("/predict").status_code == 405


def test_without_keys_a_name_that_only_leads_here_is_not_this_machine(
    open_site: httpx.Client,
) -> None:
    """A page of another site, whose name has been pointed at 127.0.0.1, must not read what the API says."""
    for host, status in (
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("localhost:8000", 200),
        ("[::1]:1", 200),
    ):
        answer = open_site.post("/predict", json=EXAMPLE, headers={"Host": host})
        assert answer.status_code == status


@pytest.fixture(scope="module")
def raw_site(
    tmp_path_factory: pytest.TempPathFactory, settings: ServingSettings
) -> Iterator[tuple[int, Watch]]:
    """Without keys; /predict is a plain route that reads the body itself, as the API's is."""

    async def doubled(request: Request) -> Response:
        body = await request.body()
        if body == b'"wrong"':
            raise RuntimeError("the secret inside, of customer 4711")
        if body == b'"refused"':
            raise HTTPException(503, "not now", headers={"Retry-After": "5"})
        return Response(b"[%b,%b]" % (body, body), media_type="application/json")

    app = FastAPIOffline()
    for kind, handler in problem_handlers(PORTFOLIO).items():
        app.add_exception_handler(kind, handler)
    app.router.add_route("/predict", doubled, methods=["POST"])
    watch = Watch(0, [])
    ring = KeyRing(tmp_path_factory.mktemp("raw") / "keys.json")
    with served(gateway(app, route_table(settings), ring, listeners=[watch])) as port:
        yield port, watch


def asked(body: bytes, *more: bytes, version: bytes = b"1.1") -> bytes:
    head = [
        b"POST /predict HTTP/%b" % version,
        b"Host: localhost",
        b"Content-Type: application/json",
        *more,
    ]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body), b"", body])


def test_pipelined_answers_come_in_order_and_the_last_one_closes(
    raw_site: tuple[int, Watch],
) -> None:
    port, _ = raw_site
    answer = raw(
        port, asked(b"1") + asked(b"2", b"Expect: 100-continue") + asked(b"3", b"Connection: close")
    )
    answers = answer.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"").split(b"HTTP/1.1 200 OK")[1:]
    bodies = [one.rpartition(b"\r\n\r\n")[2] for one in answers]
    assert bodies == [b"[1,1]", b"[2,2]", b"[3,3]"]
    assert answer.count(b"connection: close") == 1
    assert b"connection: close" in raw(port, asked(b"4", version=b"1.0"))


def test_what_a_plain_route_refuses_or_fails_at_is_told_as_a_problem(
    raw_site: tuple[int, Watch],
) -> None:
    port, watch = raw_site
    watch.seen.clear()
    for body, status in ((b'"refused"', 503), (b'"wrong"', 500)):
        sent = {"Content-Type": "application/json"}
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", content=body, headers=sent)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["instance"] == answer.headers["x-request-id"]
        assert "4711" not in answer.text
    until(lambda: len(watch.seen) == 2, 5)  # it is told after the answer has left
    assert [status for _, status, _ in watch.seen] == [503, 500]
