"""The partitions: a partition is a business day in UTC, and each landed day has one."""

from datetime import date, timedelta

import dagster as dg

from creditrisk_assets.settings import today

DAYS = dg.DynamicPartitionsDefinition(name="day")
"""Days as `YYYY-MM-DD`. The sensors add a day when its first file has landed, so days can land in
any order, and a day without files is neither "Missing" in the UI nor part of a backfill.
"""

EARLIEST_DAY = "1970-01-01"
"""Earlier days are treated as typing errors in a folder's name."""


def last_day() -> str:
    """The last day that may be read: today, in UTC. Files of a day may land before the day is
    over.
    """
    return today().isoformat()


def days_before(day: str, count: int) -> list[str]:
    """The given number of days before a day, the nearest first."""
    return [
        (date.fromisoformat(day) - timedelta(days=back)).isoformat() for back in range(1, count + 1)
    ]


def add_days(instance: dg.DagsterInstance, days: list[str]) -> None:
    """Add days to the partitions; existing days stay."""
    instance.add_dynamic_partitions(str(DAYS.name), days)
