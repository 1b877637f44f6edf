"""Alerts in the shapes of their receivers: the JSON of Slack, Teams and PagerDuty, and a mail, as
pure functions of an alert's body. Sending them belongs in `receivers`.

Sources: Slack's incoming webhooks and Block Kit; the workflow "Post to a channel when a webhook
request is received" of Teams, with an Adaptive Card 1.4; PagerDuty's Events API v2; RFC 5322.
"""

import datetime
from collections.abc import Mapping
from email.message import EmailMessage
from typing import Any

from creditrisk_assets.monitoring.alerting import Kind
from creditrisk_assets.monitoring.check_catalogue import Tier

Body = Mapping[str, Any]

SLACK_TEXT_LENGTH = 3_000
SLACK_HEADER_LENGTH = 150
PAGERDUTY_SUMMARY_LENGTH = 1_024
SUBJECT_LENGTH = 200
"""Longer texts are refused, or cut off by mail programs."""

PAGERDUTY_SEVERITY = {Tier.PAGE: "critical", Tier.TODAY: "warning", Tier.NOTE: "info"}
PAGERDUTY_ACTION = {Kind.ACKNOWLEDGED: "acknowledge", Kind.RESOLVED: "resolve"}
"""All other messages trigger an incident, or add to it."""

TEAMS_COLOUR = {Tier.PAGE: "Attention", Tier.TODAY: "Warning", Tier.NOTE: "Default"}

PREFIX = {Kind.RAISED: "More urgent: ", Kind.REMINDER: "Still: "}
LINKS = {"run_url": "Run", "report_url": "Drift report", "page_url": "Monitoring"}
DOMAIN = "creditrisk.invalid"
"""Of message ids, by which mail programs recognise repeats and order threads. It is no host."""


def title(body: Body) -> str:
    """The line that says what is wrong, or that it ended."""
    line = body.get("summary") or body.get("failure") or body["check"]
    return f"{PREFIX.get(Kind(body['kind']), '')}{line}"


def facts(body: Body) -> dict[str, str]:
    """The figures of an alert by their names; those that it does not have are left out."""
    opened = datetime.datetime.fromtimestamp(body["first_seen"], datetime.UTC)
    values = {
        "Urgency": body["tier"],
        "Check": body["check"],
        "Day": body.get("partition"),
        "Observed": _figure(body.get("observed")),
        "Threshold": _figure(body.get("threshold")),
        "Rows": body.get("rows"),
        "Version": body.get("model_version"),
        "Failures": body.get("failures"),
        "Opened": f"{opened:%Y-%m-%d %H:%M} UTC",
        "Episode": body["episode"],
    }
    return {name: str(value) for name, value in values.items() if value not in (None, "")}


def links(body: Body) -> dict[str, str]:
    """The addresses of an alert by their names."""
    return {name: str(body[field]) for field, name in LINKS.items() if body.get(field)}


def advice(body: Body) -> str | None:
    """Advice for the reader; none after an alarm's end."""
    return None if body["kind"] == Kind.RESOLVED else body.get("action")


def slack(body: Body) -> dict[str, Any]:
    """The JSON of an incoming webhook of Slack."""
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": _cut(title(body), SLACK_HEADER_LENGTH)},
        },
        {
            "type": "section",
            "fields": [
                {"type": "mrkdwn", "text": _cut(f"*{name}*\n{_escaped(value)}", 2_000)}
                for name, value in facts(body).items()
            ],
        },
    ]
    if action := advice(body):
        text = _cut(_escaped(action), SLACK_TEXT_LENGTH)
        blocks.insert(1, {"type": "section", "text": {"type": "mrkdwn", "text": text}})
    if addresses := links(body):
        text = " · ".join(f"<{address}|{name}>" for name, address in addresses.items())
        context = [{"type": "mrkdwn", "text": text}]
        blocks.append({"type": "context", "elements": context})
    return {"text": _cut(_escaped(title(body)), SLACK_TEXT_LENGTH), "blocks": blocks}


def teams(body: Body) -> dict[str, Any]:
    """The JSON of a workflow of Teams, with an Adaptive Card."""
    resolved = body["kind"] == Kind.RESOLVED
    colour = "Good" if resolved else TEAMS_COLOUR[Tier(body["tier"])]
    content: list[dict[str, Any]] = [
        {
            "type": "TextBlock",
            "text": title(body),
            "weight": "Bolder",
            "size": "Medium",
            "color": colour,
            "wrap": True,
        },
        {
            "type": "FactSet",
            "facts": [{"title": name, "value": value} for name, value in facts(body).items()],
        },
    ]
    if action := advice(body):
        content.insert(1, {"type": "TextBlock", "text": action, "wrap": True})
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": content,
        "actions": [
            {"type": "Action.OpenUrl", "title": name, "url": address}
            for name, address in links(body).items()
        ],
    }
    return {
        "type": "message",
        "attachments": [
            {
                "contentType": "application/vnd.microsoft.card.adaptive",
                "contentUrl": None,
                "content": card,
            }
        ],
    }


def pagerduty(body: Body, routing_key: str) -> dict[str, Any]:
    """An event of PagerDuty's Events API v2. All events of an episode have its id as their key, so
    they are about one incident.
    """
    at = datetime.datetime.fromtimestamp(body["evaluated_at"], datetime.UTC)
    version = body.get("model_version")
    return {
        "routing_key": routing_key,
        "event_action": PAGERDUTY_ACTION.get(Kind(body["kind"]), "trigger"),
        "dedup_key": body["episode"],
        "client": "creditrisk",
        # A message of the release before has no address of the page.
        **({"client_url": body["page_url"]} if body.get("page_url") else {}),
        "links": [{"href": address, "text": name} for name, address in links(body).items()],
        "payload": {
            "summary": _cut(title(body), PAGERDUTY_SUMMARY_LENGTH),
            "source": "creditrisk",
            "severity": PAGERDUTY_SEVERITY[Tier(body["tier"])],
            "timestamp": at.isoformat(timespec="milliseconds"),
            "component": body["asset"],
            **({"group": f"version {version}"} if version else {}),
            "class": body["check"],
            "custom_details": dict(body),
        },
    }


def mail(body: Body, sender: str, recipients: tuple[str, ...]) -> EmailMessage:
    """A mail of plain text. The messages of an episode are one thread."""
    message = EmailMessage()
    line = " ".join(title(body).split())
    message["Subject"] = _cut(f"[{body['tier']}] {line}", SUBJECT_LENGTH)
    message["From"], message["To"] = sender, ", ".join(recipients)
    message["Date"] = datetime.datetime.now(datetime.UTC)
    message["Message-ID"] = f"<{body['id']}@{DOMAIN}>"
    message["References"] = f"<{body['episode']}@{DOMAIN}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Creditrisk-Alert"] = body["id"]
    parts = [title(body), advice(body) or ""]
    parts.append("\n".join(f"{name}: {value}" for name, value in facts(body).items()))
    parts.append("\n".join(f"{name}: {address}" for name, address in links(body).items()))
    message.set_content("\n\n".join(part for part in parts if part) + "\n")
    return message


def _figure(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _escaped(text: str) -> str:
    """A text in Slack's markup, where these three signs have a meaning."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
