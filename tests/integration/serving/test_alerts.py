"""The routes of alerts over real HTTP, behind the gateway: who may acknowledge, and what a person sees at once."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from upath import UPath

from creditrisk_assets.monitoring.episodes import EpisodeList, EpisodeRecord, read_reactions
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.settings import ServingSettings, Settings
from serving.access.keys import KeyRing, create_key
from serving.access.rate_limit import RateLimiter
from serving.access.rules import Admission, route_table
from serving.http.alerts import alerts_router
from serving.http.gateway import Gateway
from serving.http.problem_details import problem_handlers
from tests.support.servers import served

OPEN, CLOSED = "a" * 32, "b" * 32
REASON = "the source was asked"


def write_episodes(settings: Settings) -> None:
    values: dict[str, Any] = {
        "asset": "champion",
        "check": "data_is_fresh",
        "failure": "Data is missing: 2 business days are missing",
        "tier": "look today",
        "opened_at": 1_000.0,
        "opened_day": "2026-02-01",
        "latest_day": "2026-02-01",
        "failures": 1,
    }
    closed = {"closed_at": 2_000.0, "closed_by": "the check passed on 2026-02-02"}
    records = (EpisodeRecord(id=OPEN, **values), EpisodeRecord(id=CLOSED, **values, **closed))
    EpisodeList(episodes=records).write(settings.episodes)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(data_dir=UPath(tmp_path / "data"))
    write_episodes(made)
    return made


@contextmanager
def api(settings: Settings, rate: float = 0) -> Iterator[httpx.Client]:
    app = FastAPI()
    for kind, handler in problem_handlers(PORTFOLIO).items():
        app.add_exception_handler(kind, handler)
    app.include_router(alerts_router(settings))
    limiter = RateLimiter(settings.local_dir / "rate", rate, 1) if rate else None
    admission = Admission(KeyRing(settings.api_keys), limiter, any_host=False)
    gateway = Gateway(app, route_table(ServingSettings()), admission)
    with served(gateway) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


def test_a_person_acknowledges_by_key_and_everybody_sees_it_at_once(settings: Settings) -> None:
    anna = create_key(settings.api_keys, "anna", ["acknowledge"])
    reader = create_key(settings.api_keys, "reader", ["read"])
    scorer = create_key(settings.api_keys, "scorer", ["predict"])
    with api(settings) as client:
        path, sent = f"/alerts/{OPEN}/acknowledge", {"reason": REASON}
        assert client.post(path, json=sent).status_code == 401
        for key in (reader, scorer):
            refused = client.post(path, json=sent, headers={"X-API-Key": key})
            assert refused.status_code == 403
            assert "the scope acknowledge is missing" in refused.json()["detail"]
        assert client.get("/alerts", headers={"X-API-Key": scorer}).status_code == 403
        answer = client.post(path, json=sent, headers={"X-API-Key": anna}).raise_for_status()
        assert answer.json()["acknowledged_by"] == "anna"
        assert answer.headers["cache-control"] == "no-store"
        snoozed = client.post(
            f"/alerts/{OPEN}/snooze",
            json={"reason": "holiday", "days": 2},
            headers={"Authorization": f"Bearer {anna}"},
        ).raise_for_status()
        assert snoozed.json()["snoozed_until"] > answer.json()["acknowledged_at"]
        seen = client.get("/alerts", headers={"X-API-Key": reader}).json()["episodes"]
        assert [one["state"] for one in seen] == ["open", "closed"]
        assert (seen[0]["acknowledged_by"], seen[0]["acknowledged_reason"]) == ("anna", REASON)
        assert [one["kind"] for one in seen[0]["reactions"]] == ["acknowledge", "snooze"]
        only = client.get("/alerts?state=closed", headers={"X-API-Key": reader}).json()["episodes"]
        assert [one["id"] for one in only] == [CLOSED]
        assert client.get("/alerts?state=x", headers={"X-API-Key": reader}).status_code == 422
    first, second = read_reactions(settings.episodes, OPEN)
    assert (first.by, first.source, second.kind) == ("anna", "api", "snooze")


def test_a_form_acknowledges_with_the_key_of_the_page_and_goes_back_to_it(
    settings: Settings,
) -> None:
    anna = create_key(settings.api_keys, "anna", ["read", "acknowledge"])
    with api(settings) as client:
        answer = client.post(
            f"/alerts/{OPEN}/acknowledge", data={"reason": REASON}, auth=("anna", anna)
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/monitoring")
        snooze = {"reason": "holiday", "days": "3", "until": ""}
        answer = client.post(f"/alerts/{OPEN}/snooze", data=snooze, auth=("anna", anna))
        assert answer.status_code == 303
        foreign = client.post(
            f"/alerts/{OPEN}/acknowledge",
            data={"reason": REASON},
            auth=("anna", anna),
            headers={"Sec-Fetch-Site": "cross-site"},
        )
        assert foreign.status_code == 403, "a page of another site uses the key of a reader"
    assert [one.by for one in read_reactions(settings.episodes, OPEN)] == ["anna", "anna"]


def test_without_keys_the_caller_is_anonymous(settings: Settings) -> None:
    with api(settings) as client:
        answer = client.post(f"/alerts/{OPEN}/acknowledge", json={"reason": REASON})
        assert answer.raise_for_status().json()["acknowledged_by"] == "anonymous"


@pytest.mark.parametrize(
    ("path", "sent", "status", "detail"),
    [
        (f"{'c' * 32}/acknowledge", {"reason": "r"}, 404, "valid: the id of one"),
        ("x/acknowledge", {"reason": "r"}, 404, "no episode 'x'"),
        (f"{CLOSED}/acknowledge", {"reason": "r"}, 409, "is closed since 1970-01-01"),
        (f"{OPEN}/acknowledge", {}, 422, "reason is missing; valid: one line of text"),
        (f"{OPEN}/acknowledge", {"reason": "a\nb"}, 422, "has a control character or a line"),
        (f"{OPEN}/acknowledge", {"reason": "x" * 501}, 422, "at most 500 characters"),
        (f"{OPEN}/acknowledge", {"reason": 3}, 422, "reason is 3: "),
        (f"{OPEN}/acknowledge", {"reason": "r", "by": "bert"}, 422, "by is 'bert': "),
        (f"{OPEN}/acknowledge", [], 422, "Input should be an object"),
        (f"{OPEN}/snooze", {"reason": "r"}, 422, "valid: either days or until"),
        (f"{OPEN}/snooze", {"reason": "r", "days": 31}, 422, "days is 31: "),
        (f"{OPEN}/snooze", {"reason": "r", "days": "3"}, 422, "days is '3': "),
        (
            f"{OPEN}/snooze",
            {"reason": "r", "until": "2020-01-01T00:00:00Z"},
            422,
            "valid: a time in the next 30 days",
        ),
    ],
)
def test_a_request_that_is_not_valid_says_why_and_stores_nothing(
    settings: Settings, path: str, sent: Any, status: int, detail: str
) -> None:
    with api(settings) as client:
        answer = client.post(f"/alerts/{path}", json=sent)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert detail in answer.json()["detail"]
    assert read_reactions(settings.episodes, OPEN) == []


def test_a_body_that_could_be_read_in_two_ways_is_refused(settings: Settings) -> None:
    path = f"/alerts/{OPEN}/acknowledge"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    with api(settings) as client:
        twice = b'{"reason": "a", "reason": "b"}'
        as_json = {"Content-Type": "application/json"}
        assert client.post(path, content=twice, headers=as_json).status_code == 400
        assert client.post(path, content=b"", headers=as_json).status_code == 400
        for content in (b"reason=a&reason=b", b"reason=%ff", b"nonsense", b"&".join([b"a=1"] * 20)):
            assert client.post(path, content=content, headers=form).status_code == 400, content
        assert (
            client.post(path, content=b"r", headers={"Content-Type": "text/plain"}).status_code
            == 415
        )
        assert client.get(path).status_code == 405


def test_requests_are_limited_by_caller_as_those_of_other_routes(settings: Settings) -> None:
    key = create_key(settings.api_keys, "anna", ["acknowledge"])
    with api(settings, rate=1) as client:
        client.headers["X-API-Key"] = key
        codes = [
            client.post(f"/alerts/{OPEN}/acknowledge", json={"reason": "r"}).status_code
            for _ in range(5)
        ]
        assert codes[0] == 200
        assert 429 in codes


def test_a_damaged_list_is_a_problem_that_ends_and_no_empty_list(settings: Settings) -> None:
    """An empty list would say that there is no alarm."""
    with api(settings) as client:
        (settings.episodes / "episodes.json").write_text("{")
        answer = client.get("/alerts")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        answer = client.post(f"/alerts/{OPEN}/acknowledge", json={"reason": "r"})
        assert answer.status_code == 503
        write_episodes(settings)
        assert client.get("/alerts").status_code == 200
        (settings.episodes / "episodes.json").unlink()
        assert client.get("/alerts").json() == {"episodes": []}


def test_the_document_of_the_api_has_the_bodies_and_the_answers(settings: Settings) -> None:
    app = FastAPI()
    app.include_router(alerts_router(settings))
    document = app.openapi()
    operation = document["paths"]["/alerts/{episode}/snooze"]["post"]
    content = operation["requestBody"]["content"]
    assert set(content) == {"application/json", "application/x-www-form-urlencoded"}
    assert content["application/json"]["schema"]["required"] == ["reason"]
    assert {"200", "303", "409"} <= set(operation["responses"])
    record = document["components"]["schemas"]["EpisodeRecord"]
    assert {"state", "acknowledged_by", "snoozed_until", "closed_by"} <= set(record["properties"])
    assert json.dumps(document)


def test_the_api_opens_no_database_of_the_loop(settings: Settings) -> None:
    with api(settings) as client:
        client.post(f"/alerts/{OPEN}/acknowledge", json={"reason": "r"}).raise_for_status()
    assert not settings.alerts.exists()
