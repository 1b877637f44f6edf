"""Episodes of failed checks and the delivery of their alerts: by the sensor `deliver_alerts`, and
by `creditrisk watch` from outside the daemon.
"""

import datetime
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from creditrisk_assets.defs import event_log
from creditrisk_assets.defs.check_results import CHECKS
from creditrisk_assets.defs.metadata import sensor
from creditrisk_assets.monitoring.alerting import Links, Reading
from creditrisk_assets.monitoring.episodes import (
    EpisodeError,
    EpisodeList,
    Reaction,
    react,
    reactions_of_answer,
    read_reactions,
)
from creditrisk_assets.settings import Settings

if TYPE_CHECKING:
    from creditrisk_assets.monitoring.alert_outbox import Outbox
    from creditrisk_assets.monitoring.receivers import Receiver

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 30
PAGE = 25
NO_RECEIVERS = (
    "no alerts are sent: neither CREDITRISK_ALERT_WEBHOOK nor CREDITRISK_ALERT_ROUTES is set"
)


@sensor(minimum_interval_seconds=INTERVAL_SECONDS)
def deliver_alerts(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SkipReason:
    """Records failed checks as episodes, and sends alerts to the receivers of the settings, once
    per episode.
    """
    message = record_and_deliver(context.instance, settings)
    for problem in message.splitlines()[1:]:
        context.log.warning(problem)
    return dg.SkipReason(message.replace("\n", "; "))


def record_and_deliver(
    instance: dg.DagsterInstance | None, settings: Settings, outside: Sequence[Reading] = ()
) -> str:
    """Record new check results and people's reactions, write the list of episodes, and send due
    alerts.

    Args:
        instance: source of the check results; None if it cannot be read.
        settings: receivers, outbox, and place of the episodes.
        outside: results of the external health watch.

    Returns:
        A summary; each line after the first is a problem.

    Raises:
        OutboxError: if the outbox cannot be read or written.
        RoutesError: if the routes of alerts are not valid.
    """
    from creditrisk_assets.monitoring.alert_outbox import Outbox
    from creditrisk_assets.monitoring.receivers import receivers_of

    receivers = receivers_of(settings)
    url = settings.database_url
    problems: list[str] = []
    with Outbox(settings.alerts, url.get_secret_value() if url else None) as outbox:
        readings = [*(_new_readings(instance, outbox) if instance else ()), *outside]
        outbox.record(
            readings,
            settings.policy.reports.reminder_days,
            Links(settings.dagster_url, settings.api_url),
            receivers,
            _new_reactions(settings, outbox, problems),
        )
        try:
            EpisodeList(episodes=tuple(outbox.records())).write(settings.episodes)
        except OSError as error:  # the alerts leave nevertheless
            problems.append(f"the list of episodes was not written: {error}")
        open_alarms = f"{len(outbox.episodes())} open alarms"
        if not receivers:
            return "\n".join([f"{NO_RECEIVERS}; {open_alarms}", *problems])
        delivery = outbox.deliver(
            receivers, on_answer=lambda *answer: _take_answer(settings, *answer)
        )
        if delivery is None:
            return "\n".join(["another process is delivering", *problems])
        return "\n".join([f"{delivery.counts}; {open_alarms}", *problems, *delivery.problems])


def _new_reactions(
    settings: Settings, outbox: "Outbox", problems: list[str]
) -> dict[str, list[Reaction]]:
    """The reactions of people that the outbox has not recorded yet, by episode."""
    try:
        return {
            episode: read_reactions(settings.episodes, episode, known)
            for episode, known in outbox.reactions_known().items()
        }
    except OSError as error:
        problems.append(f"acknowledgements were not read: {error}")
        return {}


def _take_answer(settings: Settings, receiver: "Receiver", episode: str, answer: bytes) -> None:
    """Store the acknowledgement or snooze in a receiver's answer; one that is malformed is logged.

    Only a signed webhook may answer so: the secret shows that the receiver belongs to this loop,
    while an address alone may be a relay that others answer for.
    """
    from creditrisk_assets.monitoring.receivers import WebhookReceiver

    if not isinstance(receiver, WebhookReceiver) or receiver.secret is None:
        return
    try:
        for reaction in reactions_of_answer(answer):
            react(settings.episodes, episode, reaction)
    except (EpisodeError, OSError) as error:
        log.warning("the answer of %s to an alert is ignored: %s", receiver.name, error)


def _new_readings(instance: dg.DagsterInstance, outbox: "Outbox") -> list[Reading]:
    """The evaluations that the outbox has not recorded yet."""
    new: list[Reading] = []
    for key in CHECKS:
        readings = [_reading(one) for one in event_log.evaluations(instance, key)]
        for start in range(0, len(readings), PAGE):
            unrecorded = outbox.unrecorded(readings[start : start + PAGE])
            new += unrecorded
            if not unrecorded:
                break
    return new


def _reading(one: event_log.Evaluation) -> Reading:
    day = datetime.datetime.fromtimestamp(one.at, datetime.UTC).date()
    return Reading(
        identity=f"{one.record_id}-{one.at:.3f}",
        asset=one.asset,
        check=one.check,
        day=one.partition or day.isoformat(),
        partition=one.partition,
        passed=one.passed,
        severity=one.severity,
        at=one.at,
        metadata=one.metadata,
        run_id=one.run_id,
    )
