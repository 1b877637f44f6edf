"""Who looks at the loop from outside, in a process of its own: what a dead daemon cannot tell, it
tells.
"""

import datetime
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from creditrisk_assets.defs import alerts, loop_checks, status
from creditrisk_assets.defs.check_results import check_metadata
from creditrisk_assets.monitoring.alerting import Reading
from creditrisk_assets.monitoring.check_catalogue import BY_CHECK
from creditrisk_assets.monitoring.loop_health import Finding
from creditrisk_assets.settings import Settings

OUTSIDE = "outside"


@dataclass(frozen=True)
class Watched:
    """What was found, and what became of the alerts; `problems` says why some were not
    delivered.
    """

    findings: tuple[Finding, ...]
    alerts: str
    problems: tuple[str, ...]

    @property
    def well(self) -> bool:
        """Whether nothing is wrong and all alerts have arrived."""
        return all(one.passed for one in self.findings) and not self.problems


def look(home: Path, settings: Settings) -> Watched:
    """Look once, and deliver alerts.

    Args:
        home: folder of `dagster.yaml`.
        settings: of the loop.
    """
    instance = None
    try:
        instance = status.open_instance(home)
        found = loop_checks.findings(instance, settings)
    except Exception as error:  # whatever is the matter with it, it is what must be told
        instance, found = None, loop_checks.unreadable(error)
    readings = [_reading(one) for one in found]
    try:
        try:
            told, *problems = alerts.tell(instance, settings, readings).split("\n")
        except SQLAlchemyError:  # Dagster's storage went away meanwhile; the next look says so
            told, *problems = alerts.tell(None, settings, readings).split("\n")
    except (sqlite3.Error, OSError) as error:
        told = f"the outbox cannot be used: {error}"
        problems = [told]
    return Watched(tuple(found), told, tuple(problems))


def _reading(found: Finding) -> Reading:
    now = time.time()
    watch = BY_CHECK[found.check]
    return Reading(
        identity=f"{OUTSIDE}-{now:.6f}",
        asset=watch.asset,
        check=found.check,
        day=datetime.datetime.fromtimestamp(now, datetime.UTC).date().isoformat(),
        partition=None,
        passed=found.passed,
        severity="ERROR" if watch.is_an_error else "WARN",
        at=now,
        metadata=check_metadata(found.check, passed=found.passed, **loop_checks.said(found)),
        observer=OUTSIDE,
    )
