"""External health watch. Runs outside the Dagster daemon, so it can report that the daemon is
down.
"""

import datetime
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from creditrisk_assets.defs import alerts, event_log, loop_checks, status
from creditrisk_assets.defs.check_results import check_result
from creditrisk_assets.monitoring.alert_outbox import OutboxError
from creditrisk_assets.monitoring.alerting import Reading
from creditrisk_assets.monitoring.check_catalogue import BY_CHECK
from creditrisk_assets.monitoring.loop_health import Finding
from creditrisk_assets.monitoring.receivers import RoutesError
from creditrisk_assets.settings import Settings

OUTSIDE = "outside"


@dataclass(frozen=True)
class WatchReport:
    """Findings and the delivery of their alerts.

    Attributes:
        findings: results of the checks on the loop.
        alerts: summary of the delivery.
        problems: reasons why alerts were not delivered.
        released: sensors that waited for a time in the future, and may tick again.
    """

    findings: tuple[Finding, ...]
    alerts: str
    problems: tuple[str, ...]
    released: tuple[str, ...] = ()

    @property
    def well(self) -> bool:
        """True if every check passed and every alert was delivered."""
        return all(one.passed for one in self.findings) and not self.problems


def watch_once(home: Path, settings: Settings) -> WatchReport:
    """Run the checks on the loop once, deliver alerts, and release sensors after a clock was set
    back, which no sensor could do.

    Args:
        home: folder of `dagster.yaml`.
        settings: settings of the loop.
    """
    instance, released = None, list[str]()
    try:
        instance = status.open_instance(home)
        released = event_log.release_sensors_of_the_future(instance, time.time())
        findings = loop_checks.findings(instance, settings)
    except Exception as error:  # any failure to read the instance is itself the finding
        instance, findings = None, loop_checks.unreadable(error)
    readings = [_reading(one) for one in findings]
    try:
        try:
            message, *problems = alerts.record_and_deliver(instance, settings, readings).split("\n")
        except SQLAlchemyError:  # Dagster's storage has gone since; the next watch reports it
            message, *problems = alerts.record_and_deliver(None, settings, readings).split("\n")
    except (OutboxError, OSError) as error:
        message = f"the outbox cannot be used: {error}"
        # A store that may only be read records nothing, and without a receiver no alert is lost.
        has_receivers = settings.alert_webhook is not None or settings.alert_routes is not None
        problems = [message] if has_receivers else []
    except RoutesError as error:
        message = f"no alerts are sent: {error}"
        problems = [message]
    return WatchReport(tuple(findings), message, tuple(problems), tuple(released))


def _reading(finding: Finding) -> Reading:
    now = time.time()
    result = check_result(**vars(finding))
    return Reading(
        identity=f"{OUTSIDE}-{now:.6f}",
        asset=BY_CHECK[finding.check].asset,
        check=finding.check,
        day=datetime.datetime.fromtimestamp(now, datetime.UTC).date().isoformat(),
        partition=None,
        passed=finding.passed,
        severity=result.severity.value,
        at=now,
        metadata={name: value.value for name, value in result.metadata.items()},
        observer=OUTSIDE,
    )
