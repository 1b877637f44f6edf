"""Alerts arrive: an outbox on disk, and a real receiver in a process of its own that fails in every way."""

import hashlib
import hmac
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from creditrisk_assets import database
from creditrisk_assets.monitoring import alert_outbox, receivers
from creditrisk_assets.monitoring.alert_outbox import LONGEST_RETRY_SECONDS, Delivery, Outbox
from creditrisk_assets.monitoring.alerting import Links, Reading
from creditrisk_assets.monitoring.receivers import Receiver, WebhookReceiver
from creditrisk_assets.simulation.processes import reserved_ports
from tests.support.receiver import received, receiver

LINKS = Links(None, "http://api")
NOW = 1_000_000.0


def reading(
    number: int, passed: bool = False, check: str = "score_distribution_is_stable", **changed: Any
) -> Reading:
    day = f"2026-02-{number:02d}"
    metadata = {"summary": "s", "observed": float("nan"), "model_version": "1"}
    values: dict[str, Any] = {
        "severity": "WARN",
        "at": float(number),
        "metadata": metadata,
        "partition": day,
        "day": day,
    }
    return Reading(str(number), "drift_report", check, passed=passed, **(values | changed))


@pytest.fixture(params=["a file", "the database"])
def database_or_none(request: pytest.FixtureRequest) -> str | None:
    """Where the outbox is: an address, or None for a file."""
    if request.param == "a file":
        return None
    url = str(request.getfixturevalue("database_url"))
    database.prepare(url)
    return url


def webhook(url: str, secret: str | None = None, name: str = "webhook") -> WebhookReceiver:
    return WebhookReceiver.model_validate({"name": name, "url": url, "secret": secret})


def delivered(outbox: Outbox, to: Receiver, now: float) -> Delivery:
    done = outbox.deliver([to], now)
    assert done is not None
    return done


def test_an_alert_arrives_with_its_signature_and_is_sent_once(tmp_path: Path) -> None:
    with receiver(tmp_path) as (url, log), Outbox(tmp_path / "alerts") as outbox:
        assert outbox.record([reading(1), reading(2)], 7, LINKS, [webhook(url)]) == 1
        assert outbox.record([reading(1), reading(2)], 7, LINKS, [webhook(url)]) == 0
        assert delivered(outbox, webhook(url, "secret"), NOW) == Delivery(1, 0, 0, ())
        assert delivered(outbox, webhook(url, "secret"), NOW) == Delivery(0, 0, 0, ())
        (sent,) = received(log)
        body = json.loads(sent["body"])
        assert (body["kind"], body["check"], body["observed"]) == (
            "started",
            "score_distribution_is_stable",
            None,
        )
        assert sent["headers"]["x-creditrisk-alert"] == body["id"]
        expected = hmac.new(b"secret", sent["body"].encode(), hashlib.sha256).hexdigest()
        assert sent["headers"]["x-creditrisk-signature"] == f"sha256={expected}"
        assert "x-creditrisk-signature" not in webhook(url).headers("i", b"")


@pytest.mark.parametrize("answer", ["500", "503", "429", "408", "hang", "drop"])
def test_what_did_not_arrive_is_sent_again_and_keeps_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(receivers, "POST_TIMEOUT_SECONDS", 1.0)
    with (
        receiver(tmp_path, f"{answer},{answer}") as (url, log),
        Outbox(tmp_path / "alerts") as outbox,
    ):
        outbox.record([reading(1)], 7, LINKS, [webhook(url)])
        to = webhook(url)
        first = delivered(outbox, to, NOW)
        assert (first.delivered, first.waiting, len(first.problems)) == (0, 1, 1)
        assert "hidden" not in first.problems[0]
        assert delivered(outbox, to, NOW + 1).problems == (), "not before its time"
        assert delivered(outbox, to, NOW + 100).waiting == 1
        assert delivered(outbox, to, NOW + 1_000).delivered == 1
        assert len({sent["headers"]["x-creditrisk-alert"] for sent in received(log)}) == 1
        assert [sent["answer"] for sent in received(log)] == [answer, answer, "200"]


def test_a_receiver_that_asks_for_patience_gets_it(tmp_path: Path) -> None:
    with receiver(tmp_path, "429:300") as (url, _), Outbox(tmp_path / "alerts") as outbox:
        outbox.record([reading(1)], 7, LINKS, [webhook(url)])
        delivered(outbox, webhook(url), NOW)
        assert delivered(outbox, webhook(url), NOW + 299).delivered == 0
        assert delivered(outbox, webhook(url), NOW + 301).delivered == 1


def test_a_receiver_that_is_down_for_a_while_gets_everything_in_order_after_a_restart_of_ours(
    tmp_path: Path, database_or_none: str | None
) -> None:
    (port,) = reserved_ports(1)
    url = f"http://127.0.0.1:{port}/hook"
    with Outbox(tmp_path / "alerts", database_or_none) as outbox:
        outbox.record([reading(1)], 7, LINKS, [webhook(url)])
        done = delivered(outbox, webhook(url), NOW)
        assert (done.waiting, "ConnectError" in done.problems[0]) == (1, True)
        outbox.record([reading(2, passed=True)], 7, LINKS, [webhook(url)])
        for tries in range(12):
            delivered(outbox, webhook(url), NOW + 1_000 * (tries + 1))
    with (
        receiver(tmp_path, port=port) as (_, log),
        Outbox(tmp_path / "alerts", database_or_none) as outbox,
    ):
        assert (
            delivered(outbox, webhook(url), NOW + 12_000 + LONGEST_RETRY_SECONDS + 1).delivered == 2
        )
        assert [json.loads(sent["body"])["kind"] for sent in received(log)] == [
            "started",
            "resolved",
        ]


def test_what_the_receiver_will_never_take_is_not_sent_for_ever_and_stops_nothing_else(
    tmp_path: Path,
) -> None:
    with receiver(tmp_path, "422") as (url, log), Outbox(tmp_path / "alerts") as outbox:
        outbox.record(
            [reading(1), reading(2, check="data_quality_is_stable")], 7, LINKS, [webhook(url)]
        )
        done = delivered(outbox, webhook(url), NOW)
        assert (done.delivered, done.refused) == (1, 1)
        assert "refused alert" in done.problems[0]
        assert delivered(outbox, webhook(url), NOW + 10_000) == Delivery(0, 0, 1, ())
        assert [one["problem"] for one in outbox.messages("refused")] == ["answered 422"]
        assert delivered(outbox, webhook(url + "&corrected=1"), NOW + 10_000).delivered == 1
        assert len(received(log)) == 3


def test_an_alert_that_is_refused_for_now_holds_back_only_its_own_episode(tmp_path: Path) -> None:
    with receiver(tmp_path, "500") as (url, log), Outbox(tmp_path / "alerts") as outbox:
        for one in (
            reading(1),
            reading(2, check="data_quality_is_stable"),
            reading(3, passed=True),
        ):
            outbox.record([one], 7, LINKS, [webhook(url)])
        assert delivered(outbox, webhook(url), NOW).delivered == 1
        assert delivered(outbox, webhook(url), NOW + 1_000).delivered == 2
        sent = [json.loads(one["body"]) for one in received(log)]
        assert [(one["check"], one["kind"]) for one in sent] == [
            ("score_distribution_is_stable", "started"),
            ("data_quality_is_stable", "started"),
            ("score_distribution_is_stable", "started"),
            ("score_distribution_is_stable", "resolved"),
        ]


def test_the_past_of_a_check_is_passed_over_but_for_an_alarm_that_goes_on(
    tmp_path: Path, database_or_none: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_outbox, "EVALUATIONS_STORED", 5)
    with Outbox(tmp_path, database_or_none) as outbox:
        assert outbox.record([reading(1), reading(2, passed=True), reading(3)], 7, LINKS) == 1
        assert outbox.messages()[0]["partition"] == "2026-02-03"
        assert (
            outbox.record([reading(4, passed=True), reading(5), reading(6, passed=True)], 7, LINKS)
            == 3
        )


def _both(folder: Path, database_or_none: str | None, url: str, rounds: int) -> None:
    with Outbox(folder, database_or_none) as outbox:
        for number in range(rounds):
            outbox.record([reading(1 + number % 28, check=f"c{number}")], 7, LINKS, [webhook(url)])
            outbox.deliver([webhook(url)])


def test_two_deliverers_at_once_send_nothing_twice_and_lose_nothing(
    tmp_path: Path, database_or_none: str | None
) -> None:
    rounds = 30
    with receiver(tmp_path) as (url, log):
        spawn = multiprocessing.get_context("spawn")
        both = [
            spawn.Process(target=_both, args=(tmp_path / "alerts", database_or_none, url, rounds))
            for _ in range(3)
        ]
        for one in both:
            one.start()
        for one in both:
            one.join(120)
            assert one.exitcode == 0
        with Outbox(tmp_path / "alerts", database_or_none) as outbox:
            outbox.deliver([webhook(url)])
        ids = [sent["headers"]["x-creditrisk-alert"] for sent in received(log)]
        assert (len(ids), len(set(ids))) == (rounds, rounds)
