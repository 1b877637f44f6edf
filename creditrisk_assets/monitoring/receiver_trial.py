"""A test alarm to each receiver of alerts, past the outbox, so that its answer is known at once."""

import json
import secrets
import time
from collections.abc import Sequence
from typing import NamedTuple

import httpx

from creditrisk_assets.monitoring.alerting import Kind
from creditrisk_assets.monitoring.receivers import Outcome, Receiver

CHECK = "test_alarm"
FAILURE = "A test of the receivers of alerts"


class ReceiverResult(NamedTuple):
    """The result of a receiver: `delivered`, `refused`, `not taken now` or `not reached`, and the
    problem if there is one.
    """

    name: str
    kind: str
    place: str
    state: str
    problem: str | None

    @property
    def arrived(self) -> bool:
        """Whether beginning and end arrived, and everywhere."""
        return self.state == "delivered" and self.problem is None


def send_test_alarm(receivers: Sequence[Receiver], api_url: str) -> list[ReceiverResult]:
    """Send the beginning and the end of an alarm that nothing has caused, whatever the routes.

    Args:
        receivers: all get both messages.
        api_url: address of the API, for the link.
    """
    episode = secrets.token_hex(16)
    with httpx.Client() as client:
        return [_test(client, one, episode, api_url) for one in receivers]


def _test(client: httpx.Client, receiver: Receiver, episode: str, api_url: str) -> ReceiverResult:
    outcome = Outcome("waiting")
    for kind in (Kind.STARTED, Kind.RESOLVED):
        identity = secrets.token_hex(16)
        body = _body(kind, identity, episode, receiver, api_url)
        outcome = receiver.send(client, identity, json.dumps(body).encode())
        if outcome.state != "delivered":
            break
    state: str = outcome.state if outcome.state != "waiting" else "not taken now"
    if outcome.is_unreachable:
        state = "not reached"
    return ReceiverResult(receiver.name, receiver.kind, receiver.place, state, outcome.problem)


def _body(
    kind: Kind, identity: str, episode: str, receiver: Receiver, api_url: str
) -> dict[str, object]:
    """A message as `alerting` makes them."""
    end = "Resolved: " if kind is Kind.RESOLVED else ""
    now = time.time()
    return {
        "id": identity,
        "kind": kind.value,
        "episode": episode,
        "asset": "champion",
        "check": CHECK,
        "partition": None,
        "tier": receiver.tiers[0].value,
        "severity": "WARN",
        "failure": FAILURE,
        "summary": f"{end}{FAILURE}: nothing is wrong",
        "observed": None,
        "threshold": None,
        "rows": None,
        "question": "Do alerts arrive here?",
        "action": "Nothing is to be done: `creditrisk alerts test` has sent this.",
        "model_version": None,
        "evaluation": identity,
        "evaluated_at": now,
        "first_seen": now,
        "failures": 1,
        "observer": "loop",
        "run_url": None,
        "report_url": None,
        "page_url": f"{api_url}/monitoring",
    }
