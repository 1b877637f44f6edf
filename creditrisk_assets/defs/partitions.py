"""The one time axis: a partition is a business day in UTC, and there is one for each day that has
landed.
"""

import dagster as dg

from creditrisk_assets.settings import today

DAYS = dg.DynamicPartitionsDefinition(name="day")
"""The sensors add a day when its first file has landed. So any past day may land, in any order, and
a day without files is neither "Missing" in the UI nor part of a backfill. Keys are `YYYY-MM-DD`.
"""

EARLIEST_DAY = "1970-01-01"
"""An earlier day is a slip of the pen in a folder's name."""


def last_day() -> str:
    """The last day that may be read: today, in UTC. A day's file may land before the day is
    over.
    """
    return today().isoformat()


def add_days(instance: dg.DagsterInstance, days: list[str]) -> None:
    """Let runs of some days be started; those that are there already stay."""
    instance.add_dynamic_partitions(str(DAYS.name), days)
