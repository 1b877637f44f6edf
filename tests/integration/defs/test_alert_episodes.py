"""Episodes from the outbox to the store and back: recorded with and without receivers, carried over from the first release, acknowledged
by API, command and receiver.
"""

import contextlib
import json
import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from typer.testing import CliRunner
from upath import UPath

from creditrisk_assets import database
from creditrisk_assets.backup import embedded
from creditrisk_assets.cli.main import app
from creditrisk_assets.defs.alerts import record_and_deliver
from creditrisk_assets.defs.status import status_for_people
from creditrisk_assets.monitoring import alert_outbox
from creditrisk_assets.monitoring.alert_outbox import Outbox
from creditrisk_assets.monitoring.alerting import Links, Reading
from creditrisk_assets.monitoring.episodes import (
    Acknowledgement,
    EpisodeRecord,
    Reaction,
    react,
    read_episodes,
)
from creditrisk_assets.monitoring.loop_status import LoopStatus
from creditrisk_assets.monitoring.receivers import Routes, WebhookReceiver
from creditrisk_assets.settings import Settings
from tests.support.mail_server import mail_server, mails
from tests.support.receiver import received, receiver

LINKS = Links(None, "http://api")
CHECK = "data_is_fresh"
FIRST_RELEASE = """
CREATE TABLE evaluations (asset TEXT, name TEXT, identity TEXT, PRIMARY KEY (asset, name, identity));
CREATE TABLE episodes (asset TEXT, name TEXT, state TEXT, PRIMARY KEY (asset, name)) WITHOUT ROWID;
CREATE TABLE messages (
    number INTEGER PRIMARY KEY, identity TEXT UNIQUE, episode TEXT, body TEXT, state TEXT DEFAULT 'waiting',
    attempts INT DEFAULT 0, due REAL DEFAULT 0, problem TEXT, receiver TEXT, at REAL
);
"""
"""The tables of the outbox in release 0.1.0."""

OLD_EPISODE = "e" * 32
OLD_STATE = {
    "identity": OLD_EPISODE,
    "asset": "champion",
    "check": CHECK,
    "model_version": None,
    "tier": "look today",
    "first_seen": 1_000.0,
    "message_day": "2026-02-01",
    "failures": 3,
    "latest_day": "2026-02-03",
    "last_failure": {"loop": 1_200.0},
}


def reading(number: int, passed: bool = False, **changed: Any) -> Reading:
    values: dict[str, Any] = {
        "severity": "WARN",
        "at": time.time() + number,
        "metadata": {"summary": f"{number} business days are missing"},
        "partition": None,
        "day": f"2026-02-{number:02d}",
        "observer": "outside",
    }
    return Reading(f"outside-{number}", "champion", CHECK, passed=passed, **(values | changed))


def settings_of(folder: Path, **more: Any) -> Settings:
    return Settings(data_dir=UPath(folder), **more)


def by_webhook(folder: Path, url: str, secret: str | None = None) -> Settings:
    signed = {"alert_webhook_secret": SecretStr(secret)} if secret else {}
    return settings_of(folder, alert_webhook=SecretStr(url), **signed)


def bodies(log: Path) -> list[dict[str, Any]]:
    return [json.loads(one["body"]) for one in received(log)]


def test_without_a_receiver_an_alarm_is_an_episode_too_and_stays_when_it_is_closed(
    tmp_path: Path,
) -> None:
    """Closed alarms used to vanish, and without a webhook there was none."""
    settings = settings_of(tmp_path)
    assert "no alerts are sent" in record_and_deliver(None, settings, [reading(1)])
    (opened,) = read_episodes(settings.episodes)
    assert (opened.state, opened.failures) == ("open", 1)
    assert opened.failure == "Data is missing: 1 business days are missing"
    record_and_deliver(None, settings, [reading(2)])
    record_and_deliver(None, settings, [reading(3, passed=True)])
    (closed,) = read_episodes(settings.episodes)
    assert (closed.id, closed.state, closed.failures) == (opened.id, "closed", 2)
    assert closed.closed_by == "the check passed on 2026-02-03: 3 business days are missing"
    record_and_deliver(None, settings, [reading(4)])
    assert [one.state for one in read_episodes(settings.episodes)] == ["open", "closed"]


def test_an_acknowledgement_silences_reminders_until_the_end_and_stays_in_the_record(
    tmp_path: Path,
) -> None:
    with receiver(tmp_path) as (url, log):
        settings = by_webhook(tmp_path / "data", url)
        record_and_deliver(None, settings, [reading(1)])
        (opened,) = read_episodes(settings.episodes)
        react(
            settings.episodes,
            opened.id,
            Reaction.of(Acknowledgement(reason="the source was asked"), "anna", "api"),
        )
        record_and_deliver(None, settings, [reading(20)])
        record_and_deliver(None, settings, [reading(21, passed=True)])
        assert [one["kind"] for one in bodies(log)] == ["started", "resolved"]
        (closed,) = read_episodes(settings.episodes)
        assert (closed.acknowledged_by, closed.acknowledged_reason) == (
            "anna",
            "the source was asked",
        )


def test_an_acknowledgement_that_comes_while_the_alarm_ends_is_recorded(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    record_and_deliver(None, settings, [reading(1)])
    (opened,) = read_episodes(settings.episodes)
    with Outbox(settings.alerts) as outbox:
        outbox.record([reading(2, passed=True)], 7, LINKS)  # the list is not written yet
    react(settings.episodes, opened.id, Reaction.of(Acknowledgement(reason="r"), "anna", "api"))
    record_and_deliver(None, settings)
    (closed,) = read_episodes(settings.episodes)
    assert (closed.state, closed.acknowledged_by) == ("closed", "anna")


@pytest.mark.parametrize(
    ("answer", "secret", "by", "warning"),
    [
        ('{"acknowledge": {"by": "pager", "reason": "on call"}}', "s", "pager", ""),
        ('{"acknowledge": {"by": "pager", "reason": "on call"}}', None, None, ""),
        ('{"acknowledge": {"reason": "on call"}}', "s", None, "acknowledge.by is missing"),
        ('{"snooze": {"by": "p", "reason": "r", "days": 99}}', "s", None, "snooze.days is 99"),
        ("thank you", "s", None, ""),
        ('{"acknowledge": {"by": "p", "reason": "r"}}' + " " * 70_000, "s", None, ""),
    ],
)
def test_a_signed_receiver_acknowledges_by_its_answer(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    answer: str,
    secret: str | None,
    by: str | None,
    warning: str,
) -> None:
    caplog.set_level(logging.WARNING)
    with receiver(tmp_path, answer=answer) as (url, _):
        settings = by_webhook(tmp_path / "data", url, secret)
        message = record_and_deliver(None, settings, [reading(1)])
        assert message.startswith("1 delivered, 0 waiting, 0 refused"), "the alert has arrived"
        (opened,) = read_episodes(settings.episodes)
        assert opened.acknowledged_by == by
        assert opened.snoozed_until is None
        if warning:
            assert warning in caplog.text
        else:
            assert "is ignored" not in caplog.text
        record_and_deliver(None, settings, [reading(20)])
        kinds = [one["kind"] for one in bodies(tmp_path / "received.jsonl")]
        assert kinds == (["started"] if by else ["started", "reminder"])


def test_the_status_is_written_again_when_an_episode_changes(tmp_path: Path) -> None:
    """Nothing else has happened in the loop when a person acknowledges an alarm."""
    settings = settings_of(tmp_path)
    with dg.instance_for_test() as instance:

        def tick(cursor: str | None) -> tuple[str | None, bool]:
            context = dg.build_sensor_context(
                instance=instance, cursor=cursor, resources={"settings": settings}
            )
            result = status_for_people(context)
            assert isinstance(result, dg.SensorResult)
            is_written = "monitoring page was written" in str(result.skip_reason)
            return result.cursor or cursor, is_written

        cursor, written = tick(None)
        assert written
        assert LoopStatus.read(settings.reports).episodes == ()
        record_and_deliver(None, settings, [reading(1)])
        cursor, written = tick(cursor)
        assert written
        (opened,) = LoopStatus.read(settings.reports).episodes
        cursor, written = tick(cursor)
        assert not written
        react(settings.episodes, opened.id, Reaction.of(Acknowledgement(reason="r"), "anna", "api"))
        record_and_deliver(None, settings)
        cursor, written = tick(cursor)
        assert written
        assert LoopStatus.read(settings.reports).episodes[0].acknowledged_by == "anna"


def test_a_store_whose_episodes_cannot_be_written_still_sends_its_alerts(tmp_path: Path) -> None:
    with receiver(tmp_path) as (url, log):
        settings = by_webhook(tmp_path / "data", url)
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "episodes").write_text("a file is in the way")
        message = record_and_deliver(None, settings, [reading(1)])
        assert "1 delivered" in message
        assert "the list of episodes was not written" in message
        assert [one["kind"] for one in bodies(log)] == ["started"]


def old_outbox(folder: Path) -> None:
    """The outbox of a store of the first release: an open alarm whose start was delivered, and a message that waits."""
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "alerts.db")) as file, file:
        file.executescript(FIRST_RELEASE)
        for statement, values in old_rows():
            file.execute(statement, values)


def old_rows() -> list[tuple[str, dict[str, Any]]]:
    message = (
        "INSERT INTO messages (identity, episode, body, state, attempts, due, at) "
        "VALUES (:identity, :episode, :body, :state, 0, 0, 1000)"
    )
    body = {
        "id": "m1",
        "kind": "started",
        "episode": OLD_EPISODE,
        "tier": "look today",
        "check": CHECK,
        "asset": "champion",
        "summary": "Data is missing",
        "evaluated_at": 1_000.0,
        "first_seen": 1_000.0,
        "failures": 1,
        "run_url": None,
    }
    return [
        (
            "INSERT INTO episodes (asset, name, state) VALUES ('champion', :check, :state)",
            {"check": CHECK, "state": json.dumps(OLD_STATE)},
        ),
        (
            message,
            {
                "identity": "m1",
                "episode": OLD_EPISODE,
                "body": json.dumps(body),
                "state": "delivered",
            },
        ),
        (
            message,
            {
                "identity": "m2",
                "episode": "f" * 32,
                "body": json.dumps(body | {"kind": "resolved", "check": "sensors_tick"}),
                "state": "waiting",
            },
        ),
    ]


def goes_on(folder: Path, url: str | None, address: str, log: Path) -> None:
    """The alarm of the first release goes on: nothing is sent twice, what waited is sent, and its end is recorded."""
    to = [WebhookReceiver.model_validate({"name": "webhook", "url": address})]
    with Outbox(folder, url) as outbox:
        outbox.record([], 7, LINKS, to)
        (record,) = outbox.records()
        assert (record.id, record.state, record.failures) == (OLD_EPISODE, "open", 3)
        assert (record.failure, record.opened_day) == ("Data is missing", "2026-02-01")
        done = outbox.deliver(to)
        assert done is not None
        assert done.delivered == 1
        assert [one["check"] for one in bodies(log)] == ["sensors_tick"]
        late = {"at": time.time() + 100_000}
        outbox.record([reading(4, passed=True, **late)], 7, LINKS, to)
        done = outbox.deliver(to)
        assert done is not None
        assert done.delivered == 1
        assert bodies(log)[-1]["episode"] == OLD_EPISODE
        (record,) = outbox.records()
        assert record.state == "closed"


def test_an_open_alarm_of_the_first_release_reaches_a_new_receiver_of_every_kind(
    tmp_path: Path,
) -> None:
    """Its messages lack what later ones have."""
    old_outbox(tmp_path / "alerts")
    kinds: dict[str, dict[str, Any]] = {
        "slack": {},
        "teams": {},
        "pagerduty": {"routing_key": "key"},
    }
    with receiver(tmp_path) as (url, log), Outbox(tmp_path / "alerts") as outbox:
        to = Routes.model_validate(
            {
                "receivers": [
                    {"name": kind, "kind": kind, "url": url, **more} for kind, more in kinds.items()
                ]
            }
        ).receivers
        done = outbox.deliver(to)
        assert done is not None
        assert done.delivered == 3
        (event,) = [one for one in bodies(log) if "dedup_key" in one]
        assert event["dedup_key"] == OLD_EPISODE


def test_an_embedded_outbox_of_the_first_release_goes_on(tmp_path: Path) -> None:
    old_outbox(tmp_path / "alerts")
    with receiver(tmp_path) as (address, log):
        goes_on(tmp_path / "alerts", None, address, log)


def test_a_served_outbox_of_the_first_release_goes_on(tmp_path: Path, database_url: str) -> None:
    database.prepare(database_url)
    engine = database.connect(database_url)
    with engine.begin() as connection:
        for statement, values in old_rows():
            connection.execute(sa.text(statement), values)
    engine.dispose()
    with receiver(tmp_path) as (address, log):
        goes_on(tmp_path / "alerts", database_url, address, log)


def test_the_release_before_still_reads_the_open_episodes(tmp_path: Path) -> None:
    """Its watch may run beside this release during an upgrade, and it refuses unknown fields."""
    settings = settings_of(tmp_path)
    record_and_deliver(None, settings, [reading(1)])
    with closing(sqlite3.connect(settings.alerts / "alerts.db")) as file:
        ((state,),) = file.execute("SELECT state FROM episodes")
        waiting = file.execute("SELECT count(*) FROM messages WHERE state = 'waiting'").fetchone()
    assert json.loads(state).keys() == OLD_STATE.keys()
    assert waiting == (0,), "it would send them to its one receiver"


def test_an_episode_that_the_release_before_has_closed_is_closed(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    record_and_deliver(None, settings, [reading(1)])
    with closing(sqlite3.connect(settings.alerts / "alerts.db")) as file, file:
        file.execute("DELETE FROM episodes")
    record_and_deliver(None, settings)
    (record,) = read_episodes(settings.episodes)
    assert (record.state, record.closed_by) == ("closed", "another release of the loop")


def test_closed_episodes_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_outbox, "CLOSED_STORED", 2)
    with Outbox(tmp_path) as outbox:
        for number in range(1, 9, 2):
            outbox.record([reading(number)], 7, LINKS)
            outbox.record([reading(number + 1, passed=True)], 7, LINKS)
        assert [one.latest_day for one in outbox.records()] == ["2026-02-07", "2026-02-05"]


def test_a_backup_has_episodes_and_deliveries_also_of_an_outbox_of_the_first_release(
    tmp_path: Path,
) -> None:
    old_outbox(tmp_path / "old")
    with Outbox(tmp_path / "new") as outbox:
        to = [WebhookReceiver.model_validate({"name": "webhook", "url": "http://127.0.0.1:9"})]
        outbox.record([reading(1)], 7, LINKS, to)
        before: list[EpisodeRecord] = outbox.records()
        waiting = outbox.messages()
    for name in ("old", "new"):
        rows, made = tmp_path / f"{name}-rows", tmp_path / f"{name}-made"
        keys = tmp_path / f"{name}-keys" / "idempotency.db"
        embedded.export_own(tmp_path / name, keys, rows)
        keys.parent.mkdir()
        embedded.import_own(rows, made, keys)
    with Outbox(tmp_path / "new-made") as outbox:
        assert outbox.records() == before
        assert outbox.messages() == waiting
    with receiver(tmp_path) as (address, log):
        goes_on(tmp_path / "old-made", None, address, log)


def test_reactions_and_the_list_are_in_the_object_store(
    bucket: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API and the outbox are on two machines then, with nothing in common but the bucket."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    loop, api = (Settings(data_dir=bucket / "store") for _ in range(2))
    assert loop.alerts.is_relative_to(tmp_path)
    record_and_deliver(None, loop, [reading(1)])
    (opened,) = read_episodes(api.episodes)
    for by in ("anna", "bert"):
        react(api.episodes, opened.id, Reaction.of(Acknowledgement(reason="r"), by, "api"))
    assert [one.by for one in read_episodes(api.episodes)[0].reactions] == ["anna", "bert"]
    record_and_deliver(None, loop, [reading(2, passed=True)])
    (closed,) = read_episodes(api.episodes)
    assert (closed.state, [one.by for one in closed.reactions]) == ("closed", ["anna", "bert"])


def command(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
    assert result.exit_code == code, f"{result.output} {result.exception!r}"
    return result.output


def test_the_commands_list_acknowledge_and_snooze(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDITRISK_DATA_DIR", str(tmp_path))
    assert "no alarm yet" in command("alerts")
    settings = settings_of(tmp_path)
    record_and_deliver(None, settings, [reading(1)])
    (opened,) = read_episodes(settings.episodes)
    listed = command("alerts")
    assert opened.id[:8] in listed
    # The width of the console is that of its first import.
    assert all(part in listed for part in ("Data is missing: 1 business", "[data_is_fresh]"))
    person = ("--by", "anna", "--reason", "the source was asked")
    shown = command("alerts", "acknowledge", opened.id[:8], *person)
    assert "acknowledged by anna" in shown
    document = json.loads(command("alerts", "snooze", opened.id, "--days", "2", *person, "--json"))
    assert document["snoozed_until"] > time.time()
    document = json.loads(command("alerts", "--json"))
    assert document == json.loads(command("alerts", "list", "--json"))
    assert document["episodes"][0]["acknowledged_by"] == "anna"
    assert [one["source"] for one in document["episodes"][0]["reactions"]] == ["command"] * 2
    assert "no episode begins with 'ffffff'" in command(
        "alerts", "acknowledge", "ffffff", *person, code=1
    )
    assert "days is 31" in command("alerts", "snooze", opened.id, "--days", "31", *person, code=2)
    assert "reason is ''" in command(
        "alerts", "acknowledge", opened.id, "--by", "anna", "--reason", "", code=2
    )
    record_and_deliver(None, settings, [reading(2, passed=True)])
    assert "is closed since" in command("alerts", "acknowledge", opened.id, *person, code=1)
    assert "closed 2" in command("alerts")


ROUTES = """
[[receivers]]
name = "mail"
kind = "email"
host = "127.0.0.1"
port = {port}
tls = "none"
sender = "alerts@bank.example"
recipients = ["risk@bank.example"]

[[receivers]]
name = "desk"
kind = "slack"
url = "${{DESK_URL}}"
"""


def test_the_command_tests_each_receiver_and_says_which_did_not_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDITRISK_DATA_DIR", str(tmp_path / "data"))
    assert "there is no receiver of alerts" in command("alerts", "test", code=1)
    file = tmp_path / "alerts.toml"
    with (
        mail_server(tmp_path) as (port, log),
        receiver(tmp_path, "200,200,404", answer="no_service") as (url, _),
    ):
        file.write_text(ROUTES.format(port=port))
        monkeypatch.setenv("CREDITRISK_ALERT_ROUTES", str(file))
        monkeypatch.setenv("DESK_URL", url)
        shown = command("alerts", "test")
        assert f"mail (email, 127.0.0.1:{port}): delivered" in shown
        assert "desk (slack, 127.0.0.1): delivered" in shown
        assert len(mails(log)) == 2
        shown = command("alerts", "test", "--receiver", "desk", "--json", code=1)
        (one,) = json.loads(shown)["receivers"]
        assert (one["state"], one["problem"]) == ("refused", "answered 404 no_service")
        assert "no receiver 'x'; valid: mail, desk" in command(
            "alerts", "test", "--receiver", "x", code=1
        )


@pytest.mark.parametrize(
    "arguments", [("init",), ("watch",), ("code-server", "--port", "4999"), ("alerts", "test")]
)
def test_routes_that_are_not_valid_are_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Otherwise the first alarm of a weekend finds the mistake."""
    monkeypatch.setenv("CREDITRISK_DATA_DIR", str(tmp_path / "data"))
    file = tmp_path / "alerts.toml"
    file.write_text(ROUTES.format(port=1))
    monkeypatch.setenv("CREDITRISK_ALERT_ROUTES", str(file))
    shown = command(*arguments, code=1)
    assert "receivers.1.url refers to DESK_URL, which the environment does not have" in shown
    with contextlib.suppress(FileNotFoundError):
        assert not list((tmp_path / "data").iterdir())
