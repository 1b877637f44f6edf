"""Failed checks become alerts, and alerts are delivered: by a sensor, and by `creditrisk watch`
from outside.
"""

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from creditrisk_assets.defs import event_log
from creditrisk_assets.defs.check_results import CHECKS
from creditrisk_assets.monitoring.alerting import Links, Reading
from creditrisk_assets.settings import Settings

if TYPE_CHECKING:
    from creditrisk_assets.monitoring.alert_outbox import Outbox

INTERVAL_SECONDS = 30
PAGE = 25


@dg.sensor(minimum_interval_seconds=INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.RUNNING)
def deliver_alerts(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SkipReason:
    """Failed checks are told to the address of the setting `alert_webhook`, once for each
    episode.
    """
    told = tell(context.instance, settings)
    for problem in told.splitlines()[1:]:
        context.log.warning(problem)
    return dg.SkipReason(told.replace("\n", "; "))


def tell(
    instance: dg.DagsterInstance | None, settings: Settings, outside: Sequence[Reading] = ()
) -> str:
    """Take notice of what the checks found since the last time, and deliver what is due.

    Args:
        instance: whose checks are read; None if it cannot be.
        settings: who is told.
        outside: what somebody outside of the loop found.

    Returns:
        What was done; each line after the first is a problem.

    Raises:
        sqlite3.Error: if the outbox cannot be read or written.
    """
    if settings.alert_webhook is None:
        return "nobody is told: CREDITRISK_ALERT_WEBHOOK is not set"
    from creditrisk_assets.monitoring.alert_outbox import Outbox, Receiver

    secret = settings.alert_webhook_secret
    receiver = Receiver(
        settings.alert_webhook.get_secret_value(), secret.get_secret_value() if secret else None
    )
    with Outbox(settings.alerts) as outbox:
        readings = [*(_new_readings(instance, outbox) if instance else ()), *outside]
        outbox.record(
            readings,
            settings.policy.reports.reminder_days,
            Links(settings.dagster_url, settings.api_url),
        )
        done = outbox.deliver(receiver)
        if done is None:
            return "somebody else is delivering"
        going_on = len(outbox.episodes())
        return "\n".join([f"{done.counts}; {going_on} alarms go on", *done.problems])


def _new_readings(instance: dg.DagsterInstance, outbox: "Outbox") -> list[Reading]:
    """Evaluations that were not taken notice of."""
    new: list[Reading] = []
    for key in CHECKS:
        readings = [_reading(one) for one in event_log.evaluations(instance, key)]
        for start in range(0, len(readings), PAGE):
            unseen = outbox.unrecorded(readings[start : start + PAGE])
            new += unseen
            if not unseen:
                break
    return new


def _reading(one: event_log.Evaluation) -> Reading:
    made = datetime.datetime.fromtimestamp(one.at, datetime.UTC).date()
    return Reading(
        identity=f"{one.record_id}-{one.at:.3f}",
        asset=one.asset,
        check=one.check,
        day=one.partition or made.isoformat(),
        partition=one.partition,
        passed=one.passed,
        severity=one.severity,
        at=one.at,
        metadata=one.metadata,
        run_id=one.run_id,
    )
