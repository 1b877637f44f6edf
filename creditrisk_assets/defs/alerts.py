"""Delivery of failed checks as alerts: by the sensor `deliver_alerts`, and by `creditrisk watch`
from outside the daemon.
"""

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from creditrisk_assets.defs import event_log
from creditrisk_assets.defs.check_results import CHECKS
from creditrisk_assets.defs.metadata import sensor
from creditrisk_assets.monitoring.alerting import Links, Reading
from creditrisk_assets.settings import Settings

if TYPE_CHECKING:
    from creditrisk_assets.monitoring.alert_outbox import Outbox

INTERVAL_SECONDS = 30
PAGE = 25


@sensor(minimum_interval_seconds=INTERVAL_SECONDS)
def deliver_alerts(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SkipReason:
    """Sends failed checks to the address of the setting `alert_webhook`, once per episode."""
    message = record_and_deliver(context.instance, settings)
    for problem in message.splitlines()[1:]:
        context.log.warning(problem)
    return dg.SkipReason(message.replace("\n", "; "))


def record_and_deliver(
    instance: dg.DagsterInstance | None, settings: Settings, outside: Sequence[Reading] = ()
) -> str:
    """Record new check results and send due alerts.

    Args:
        instance: source of the check results; None if it cannot be read.
        settings: webhook and outbox.
        outside: results of the external health watch.

    Returns:
        A summary; each line after the first is a problem.

    Raises:
        OutboxError: if the outbox cannot be read or written.
    """
    if settings.alert_webhook is None:
        return "no alerts are sent: CREDITRISK_ALERT_WEBHOOK is not set"
    from creditrisk_assets.monitoring.alert_outbox import Outbox, Receiver

    secret = settings.alert_webhook_secret
    receiver = Receiver(
        settings.alert_webhook.get_secret_value(), secret.get_secret_value() if secret else None
    )
    url = settings.database_url
    with Outbox(settings.alerts, url.get_secret_value() if url else None) as outbox:
        readings = [*(_new_readings(instance, outbox) if instance else ()), *outside]
        outbox.record(
            readings,
            settings.policy.reports.reminder_days,
            Links(settings.dagster_url, settings.api_url),
        )
        delivery = outbox.deliver(receiver)
        if delivery is None:
            return "another process is delivering"
        open_alarms = len(outbox.episodes())
        return "\n".join([f"{delivery.counts}; {open_alarms} open alarms", *delivery.problems])


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
