"""Routes to several receivers, each a real server in a process of its own: what arrives where, in which shape."""

import datetime
import email
import email.policy
import ipaddress
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from creditrisk_assets.monitoring import receivers as receivers_module
from creditrisk_assets.monitoring.alert_outbox import Outbox
from creditrisk_assets.monitoring.alerting import Links, Reading
from creditrisk_assets.monitoring.check_catalogue import Tier
from creditrisk_assets.monitoring.episodes import Acknowledgement, Reaction
from creditrisk_assets.monitoring.receiver_trial import send_test_alarm
from creditrisk_assets.monitoring.receivers import Receiver, read_routes
from creditrisk_assets.simulation.processes import reserved_ports
from tests.support.mail_server import mail_server, mails
from tests.support.receiver import received, receiver

LINKS = Links("http://dagster", "http://api")
NOW = 1_000_000.0
SCORE, SENSORS = "score_distribution_is_stable", "sensors_tick"
ADVICE = "Look for the features that shifted with it."


def reading(number: int, passed: bool = False, check: str = SCORE, **changed: Any) -> Reading:
    day = f"2026-02-{number:02d}"
    asset = "drift_report" if check == SCORE else "champion"
    metadata = {
        "summary": "PSI 0.31 <limit 0.10>",
        "observed": 0.31234,
        "threshold": 0.1,
        "rows": 500,
        "model_version": "1",
    }
    values: dict[str, Any] = {
        "severity": "WARN",
        "at": float(number),
        "metadata": metadata,
        "partition": day if check == SCORE else None,
        "day": day,
        "run_id": "r1",
    }
    return Reading(str(number), asset, check, passed=passed, **(values | changed))


def routes(folder: Path, text: str, **environment: str) -> tuple[Receiver, ...]:
    file = folder / "alerts.toml"
    file.write_text(text)
    return read_routes(file, environment)


def bodies(log: Path) -> list[dict[str, Any]]:
    return [json.loads(one["body"]) for one in received(log)]


def run(outbox: Outbox, to: tuple[Receiver, ...], *readings: Reading, now: float = NOW) -> Any:
    outbox.record(readings, 7, LINKS, to)
    done = outbox.deliver(to, now)
    assert done is not None
    return done


def test_slack_teams_and_pagerduty_get_an_alarm_its_acknowledgement_and_its_end_in_their_shapes(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        places = {
            name: stack.enter_context(receiver(tmp_path, answer="ok", name=name))
            for name in ("slack", "teams", "pagerduty")
        }
        to = routes(
            tmp_path,
            """
            [[receivers]]
            name = "desk"
            kind = "slack"
            url = "${SLACK}"
            [[receivers]]
            name = "channel"
            kind = "teams"
            url = "${TEAMS}"
            [[receivers]]
            name = "pager"
            kind = "pagerduty"
            routing_key = "${KEY}"
            url = "${PAGER}"
            """,
            KEY="R0UT1NG",
            **{
                variable: places[name][0]
                for variable, name in (
                    ("SLACK", "slack"),
                    ("TEAMS", "teams"),
                    ("PAGER", "pagerduty"),
                )
            },
        )
        outbox = stack.enter_context(Outbox(tmp_path / "alerts"))
        assert run(outbox, to, reading(1)).delivered == 3
        (episode,) = outbox.episodes().values()
        acknowledged = Reaction.of(Acknowledgement(reason="asked the source"), "anna", "api")
        outbox.record([], 7, LINKS, to, {episode.identity: [acknowledged]})
        assert run(outbox, to).delivered == 3
        assert run(outbox, to, reading(2, passed=True)).delivered == 3

        started, taken, ended = bodies(places["pagerduty"][1])
        assert (started["event_action"], taken["event_action"], ended["event_action"]) == (
            "trigger",
            "acknowledge",
            "resolve",
        )
        assert {one["dedup_key"] for one in (started, taken, ended)} == {episode.identity}
        assert started["routing_key"] == "R0UT1NG"
        assert started["client"] == "creditrisk"
        assert started["client_url"] == "http://api/monitoring"
        assert started["links"] == [
            {"href": "http://dagster/runs/r1", "text": "Run"},
            {"href": "http://api/reports/drift/2026-02-01", "text": "Drift report"},
            {"href": "http://api/monitoring", "text": "Monitoring"},
        ]
        payload = started["payload"]
        details = payload.pop("custom_details")
        assert details["check"] == SCORE
        assert details["action"].startswith(ADVICE)
        assert payload == {
            "summary": "The score has shifted: PSI 0.31 <limit 0.10>",
            "source": "creditrisk",
            "severity": "warning",
            "timestamp": "1970-01-01T00:00:01.000+00:00",
            "component": "drift_report",
            "group": "version 1",
            "class": SCORE,
        }
        assert taken["payload"]["summary"].startswith("Acknowledged by anna: asked the source")
        assert ended["payload"]["summary"].startswith("Resolved: The score has shifted.")

        started, taken, ended = bodies(places["slack"][1])
        header, advice, figures, context = started["blocks"]
        assert header == {
            "type": "header",
            "text": {"type": "plain_text", "text": "The score has shifted: PSI 0.31 <limit 0.10>"},
        }
        assert started["text"] == "The score has shifted: PSI 0.31 &lt;limit 0.10&gt;"
        assert advice["type"] == "section"
        assert advice["text"]["type"] == "mrkdwn"
        assert advice["text"]["text"].startswith(ADVICE)
        assert figures["type"] == "section"
        assert len(figures["fields"]) <= 10, "Slack refuses more"
        assert {"type": "mrkdwn", "text": "*Observed*\n0.3123"} in figures["fields"]
        assert {"type": "mrkdwn", "text": "*Urgency*\nlook today"} in figures["fields"]
        assert context["elements"][0]["text"].startswith("<http://dagster/runs/r1|Run> · ")
        assert taken["text"].startswith("Acknowledged by anna: asked the source")
        assert ended["text"].startswith("Resolved: ")
        assert [block["type"] for block in ended["blocks"]] == ["header", "section", "context"]

        started, taken, ended = bodies(places["teams"][1])
        assert started["type"] == "message"
        (attachment,) = started["attachments"]
        assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
        card = attachment["content"]
        assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
        heading, advice, figures = card["body"]
        assert heading["text"] == "The score has shifted: PSI 0.31 <limit 0.10>"
        assert (heading["type"], heading["color"], heading["wrap"]) == (
            "TextBlock",
            "Warning",
            True,
        )
        assert advice["text"].startswith(ADVICE)
        assert figures["type"] == "FactSet"
        assert {"title": "Version", "value": "1"} in figures["facts"]
        assert card["actions"][0] == {
            "type": "Action.OpenUrl",
            "title": "Run",
            "url": "http://dagster/runs/r1",
        }
        assert ended["attachments"][0]["content"]["body"][0]["color"] == "Good"


EMAIL = """
[[receivers]]
name = "risk"
kind = "email"
host = "127.0.0.1"
port = {port}
tls = "{tls}"
sender = "creditrisk <alerts@bank.example>"
recipients = ["risk@bank.example", "desk@bank.example"]
"""


def read_mail(one: dict[str, Any]) -> EmailMessage:
    message = email.message_from_string(one["content"], policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_a_mail_arrives_at_all_addresses_and_an_episode_is_one_thread(tmp_path: Path) -> None:
    with mail_server(tmp_path) as (port, log), Outbox(tmp_path / "alerts") as outbox:
        to = routes(tmp_path, EMAIL.format(port=port, tls="none"))
        assert run(outbox, to, reading(1)).problems == ()
        assert run(outbox, to, reading(2, passed=True)).delivered == 1
        first, last = mails(log)
        assert first["recipients"] == ["risk@bank.example", "desk@bank.example"]
        assert first["sender"] == "alerts@bank.example"
        started, ended = read_mail(first), read_mail(last)
        assert started["Subject"] == "[look today] The score has shifted: PSI 0.31 <limit 0.10>"
        assert started["To"] == "risk@bank.example, desk@bank.example"
        assert started["References"] == ended["References"]
        assert started["Message-ID"] != ended["Message-ID"]
        assert started["Auto-Submitted"] == "auto-generated"
        text = started.get_content().replace("\r\n", "\n")
        assert ADVICE in text
        assert "Observed: 0.3123\n" in text
        assert "Run: http://dagster/runs/r1\n" in text
        assert ended["Subject"].strip().startswith("[look today] Resolved: ")


@pytest.mark.parametrize(
    ("answer", "state"),
    [("451 later", "waiting"), ("550 spam", "refused"), ("hang", "waiting")],
)
def test_a_mail_that_is_not_taken_waits_or_is_refused_as_the_server_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, state: str
) -> None:
    monkeypatch.setattr(receivers_module, "POST_TIMEOUT_SECONDS", 1.0)
    with mail_server(tmp_path, [answer]) as (port, log), Outbox(tmp_path / "alerts") as outbox:
        to = routes(tmp_path, EMAIL.format(port=port, tls="none"))
        done = run(outbox, to, reading(1))
        assert (done.delivered, getattr(done, state)) == (0, 1)
        assert len(done.problems) == 1
        again = outbox.deliver(to, NOW + 1_000)
        assert again is not None
        assert again.delivered == (state == "waiting")
        ids = {read_mail(one)["Message-ID"] for one in mails(log)}
        assert len(ids) == 1, "a repeat is recognised by its id"


def test_an_address_that_the_server_does_not_know_is_named_and_the_others_get_the_mail(
    tmp_path: Path,
) -> None:
    with (
        mail_server(tmp_path, unknown=["desk@bank.example"]) as (port, log),
        Outbox(tmp_path / "alerts") as outbox,
    ):
        to = routes(tmp_path, EMAIL.format(port=port, tls="none"))
        done = run(outbox, to, reading(1))
        assert done.delivered == 1
        assert "not taken for desk@bank.example (550 no such user)" in done.problems[0]
        assert mails(log)[0]["recipients"] == ["risk@bank.example"]


@contextmanager
def certificate(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A certificate of this machine that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    files = folder / "tls.crt", folder / "tls.key"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    yield files


def tls_options(crt: Path, key: Path) -> dict[str, str]:
    return {"certificate": str(crt), "key": str(key), "password": "right"}


def test_a_password_goes_only_through_a_connection_whose_certificate_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = EMAIL + 'user = "alerts"\npassword = "${{file:{secret}}}"\n'
    (tmp_path / "secret").write_text("right\n")
    with (
        certificate(tmp_path) as (crt, key),
        mail_server(tmp_path, **tls_options(crt, key)) as (port, log),
        Outbox(tmp_path / "alerts") as outbox,
    ):
        text = login.format(port=port, tls="starttls", secret=tmp_path / "secret")
        done = run(outbox, routes(tmp_path, text), reading(1))
        assert (done.waiting, "CERTIFICATE_VERIFY_FAILED" in done.problems[0]) == (1, True)
        monkeypatch.setenv("SSL_CERT_FILE", str(crt))
        (tmp_path / "secret").write_text("wrong\n")
        done = outbox.deliver(routes(tmp_path, text), NOW + 1_000)
        assert done is not None
        assert done.refused == 1, "a wrong password is not tried for ever"
        assert "535" in done.problems[0]
        (tmp_path / "secret").write_text("right\n")
        done = outbox.deliver(routes(tmp_path, text), NOW + 1_001)
        assert done is not None
        assert done.delivered == 1, "with another password it is offered again"
        assert [(one["tls"], one["user"]) for one in mails(log)] == [(True, "alerts")]


TWO = """
[[receivers]]
name = "pager"
kind = "webhook"
url = "${PAGER}"
tiers = ["page now"]
[[receivers]]
name = "desk"
kind = "webhook"
url = "${DESK}"
checks = ["score_distribution_is_stable"]
"""


def test_each_alert_goes_where_its_urgency_and_its_check_send_it(tmp_path: Path) -> None:
    with (
        receiver(tmp_path, name="pager") as (pager, pager_log),
        receiver(tmp_path, name="desk") as (desk, desk_log),
        Outbox(tmp_path / "alerts") as outbox,
    ):
        to = routes(tmp_path, TWO, PAGER=pager, DESK=desk)
        run(outbox, to, reading(1), reading(2, check=SENSORS), reading(3, check="data_is_fresh"))
        assert [one["check"] for one in bodies(pager_log)] == [SENSORS]
        assert [one["check"] for one in bodies(desk_log)] == [SCORE]
        page = {"summary": "worse", "tier": Tier.PAGE.value, "model_version": "1"}
        run(outbox, to, reading(4, metadata=page), now=NOW + 1)
        run(outbox, to, reading(5, passed=True), now=NOW + 2)
        assert [(one["check"], one["kind"]) for one in bodies(pager_log)[1:]] == [
            (SCORE, "raised"),
            (SCORE, "resolved"),
        ], "an alarm that becomes urgent reaches the pager, and its end too"
        assert [one["kind"] for one in bodies(desk_log)] == ["started", "raised", "resolved"]


@pytest.mark.parametrize("answer", ["422", "500", "hang", "drop", "down"])
def test_a_receiver_refuses_and_the_others_get_every_alert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """An alert that waits for the receiver before it in a list is lost when that one is dead."""
    monkeypatch.setattr(receivers_module, "POST_TIMEOUT_SECONDS", 1.0)
    with ExitStack() as stack:
        outbox = stack.enter_context(Outbox(tmp_path / "alerts"))
        desk, desk_log = stack.enter_context(receiver(tmp_path, name="desk"))
        if answer == "down":
            (port,) = reserved_ports(1)
            pager = f"http://127.0.0.1:{port}/hook"
        else:
            script = ",".join([answer] * 4)
            pager, _ = stack.enter_context(receiver(tmp_path, script, name="pager"))
        text = TWO.replace('tiers = ["page now"]\n', "")
        to = routes(tmp_path, text, PAGER=pager, DESK=desk)
        done = run(outbox, to, reading(1))
        assert done.delivered == 1
        assert done.problems[0].startswith("pager (127.0.0.1)")
        assert run(outbox, to, reading(2, passed=True), now=NOW + 1).delivered == 1
        assert [one["kind"] for one in bodies(desk_log)] == ["started", "resolved"]
        waiting = outbox.messages("refused" if answer == "422" else "waiting")
        assert [(one["receiver"], one["kind"]) for one in waiting] == [
            ("pager", "started"),
            ("pager", "resolved"),
        ]
        corrected, log = stack.enter_context(receiver(tmp_path, name="corrected"))
        again = outbox.deliver(routes(tmp_path, text, PAGER=corrected, DESK=desk), NOW + 5_000)
        assert again is not None
        assert (again.delivered, again.waiting, again.refused) == (2, 0, 0)
        assert [one["kind"] for one in bodies(log)] == ["started", "resolved"]
        assert len(bodies(desk_log)) == 2


def test_a_new_receiver_gets_the_alarms_that_are_open_and_not_the_past(tmp_path: Path) -> None:
    with (
        receiver(tmp_path, name="desk") as (desk, log),
        Outbox(tmp_path / "alerts") as outbox,
    ):
        outbox.record([reading(1), reading(2, check=SENSORS)], 7, LINKS)
        to = routes(tmp_path, TWO, PAGER=desk, DESK=desk)
        assert run(outbox, to).delivered == 2
        assert run(outbox, to, now=NOW + 100).delivered == 0
        assert sorted(one["check"] for one in bodies(log)) == [SCORE, SENSORS]


def test_an_alarm_that_a_process_without_receivers_recorded_and_ended_is_still_sent(
    tmp_path: Path,
) -> None:
    """Of several processes that record, one alone may know the receivers."""
    with (
        receiver(tmp_path, name="desk") as (desk, log),
        Outbox(tmp_path / "alerts") as outbox,
    ):
        to = routes(tmp_path, TWO, PAGER=desk, DESK=desk)
        run(outbox, to, reading(1, passed=True))
        outbox.record([reading(2)], 7, LINKS)
        outbox.record([reading(3, passed=True)], 7, LINKS)
        assert run(outbox, to).delivered == 2
        assert [one["kind"] for one in bodies(log)] == ["started", "resolved"]


def test_a_test_alarm_reaches_each_receiver_whatever_its_route_and_names_the_one_that_refuses(
    tmp_path: Path,
) -> None:
    with (
        receiver(tmp_path, name="pager") as (pager, log),
        receiver(tmp_path, "403", answer="no such token", name="desk") as (desk, _),
    ):
        to = routes(tmp_path, TWO, PAGER=pager, DESK=desk)
        good, bad = send_test_alarm(to, "http://api")
        assert (good.name, good.arrived, good.problem) == ("pager", True, None)
        assert (bad.name, bad.state, bad.problem) == (
            "desk",
            "refused",
            "answered 403 no such token",
        )
        assert [one["kind"] for one in bodies(log)] == ["started", "resolved"]
        assert bodies(log)[0]["tier"] == "page now"


def test_a_problem_shows_no_secret_of_the_receiver(tmp_path: Path) -> None:
    text = '[[receivers]]\nname = "p"\nkind = "pagerduty"\nrouting_key = "${KEY}"\nurl = "${URL}"\n'
    with (
        receiver(tmp_path, "400", answer='{"message": "bad key R0UT1NG"}') as (url, _),
        Outbox(tmp_path / "alerts") as outbox,
    ):
        (problem,) = run(
            outbox, routes(tmp_path, text, KEY="R0UT1NG", URL=url), reading(1)
        ).problems
        assert "bad key …" in problem
        assert "R0UT1NG" not in problem
        assert "hidden" not in problem
