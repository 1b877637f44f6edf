"""Replicas of the API on one store: what `python -m benchmarks.serving.replicas` does for minutes."""

import os
import signal
import time

import httpx
import pytest

from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from tests.support.postgres import new_database, own_postgres_server, postgres_server
from tests.support.trials.replicas import Load, replicas_of, run
from tests.support.trials.site import Site
from tests.support.waiting import until

pytestmark = pytest.mark.served

CUSTOMER = dict(PORTFOLIO.example)
HEALED_SECONDS = 120


def test_replicas_that_are_killed_under_load_lose_nothing_and_decide_no_key_twice(
    site: Site,
) -> None:
    with postgres_server() as server, new_database(server) as url:
        load = Load(decisions=300, promotions=2, kill_seconds=1.5, seed=5)
        outcome = run(replicas_of(site, url, 2), load)
    assert outcome.holds, outcome
    assert outcome.acknowledged >= 300


def test_while_the_database_is_away_only_requests_with_a_key_wait_and_it_heals_by_itself(
    site: Site,
) -> None:
    with own_postgres_server() as server, new_database(server.address) as url:
        one, two = replicas_of(site, url, 2)
        for replica in (one, two):
            replica.start()
        try:
            with (
                httpx.Client(base_url=one.url, timeout=10) as first,
                httpx.Client(base_url=two.url, timeout=10) as second,
            ):
                keyed = {"Idempotency-Key": "before"}
                before = first.post("/predict", json=CUSTOMER, headers=keyed).json()
                server.stop()  # what this replica has decided, it answers again without the database
                assert first.post("/predict", json=CUSTOMER).status_code == 200
                own = first.post("/predict", json=CUSTOMER, headers=keyed)
                assert (own.status_code, own.json()) == (200, before)
                for headers in (keyed, {"Idempotency-Key": "during"}):
                    refused = second.post("/predict", json=CUSTOMER, headers=headers)
                    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
                    assert "the database of idempotency keys" in refused.json()["detail"]
                one.kill_all()
                one.start()  # with the API keys and the champion that it had
                assert first.post("/predict", json=CUSTOMER).status_code == 200
                server.start()
                during = {"Idempotency-Key": "during"}

                def is_healed() -> bool:
                    answer = second.post("/predict", json=CUSTOMER, headers=during)
                    return bool(answer.status_code == 200)

                until(is_healed, HEALED_SECONDS)
                told = second.post("/predict", json=CUSTOMER, headers=keyed)
                assert told.json() == before
                same = [
                    one.post("/predict", json=CUSTOMER, headers=during) for one in (first, second)
                ]
                assert same[0].content == same[1].content
        finally:
            for replica in (one, two):
                replica.stop()


def test_a_database_that_hangs_is_one_that_does_not_answer(site: Site) -> None:
    """A request with a key would hold the thread, and with it all keys and batches, for ever."""
    with own_postgres_server() as server, new_database(server.address) as url:
        (one,) = replicas_of(site, url, 1)
        one.start()
        try:
            with httpx.Client(base_url=one.url, timeout=30) as client:

                def ask(key: str) -> httpx.Response:
                    return client.post("/predict", json=CUSTOMER, headers={"Idempotency-Key": key})

                assert ask("before").status_code == 200
                hanging = server.processes()
                for number in hanging:
                    os.kill(number, signal.SIGSTOP)
                try:
                    start = time.monotonic()
                    assert ask("during").status_code == 503
                    assert ask("before").status_code == 200
                    assert client.post("/predict", json=CUSTOMER).status_code == 200
                    assert time.monotonic() - start < 20
                    ready = client.get("/ready")
                    assert (ready.status_code, ready.json()["degraded"]) == (200, False)
                finally:
                    for number in hanging:
                        os.kill(number, signal.SIGCONT)
                until(lambda: ask("during").status_code == 200, HEALED_SECONDS)
        finally:
            one.stop()
