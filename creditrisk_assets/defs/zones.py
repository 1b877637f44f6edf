"""The landing zones as Dagster's partitions see them: which days are new, and what lies there that cannot be read."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from upath import UPath

from creditrisk_assets.defs.partitions import DAYS, FIRST_DAY
from creditrisk_assets.portfolio.arrivals import Arrivals, look
from creditrisk_assets.settings import Settings


def arrivals_in(
    zone: UPath, remembered: Mapping[str, str], settings: Settings, state: Callable[[str], str] = lambda _: ""
) -> Arrivals:
    """Look at a landing zone.

    Args:
        zone: folder of days.
        remembered: how each day looked when it was dealt with.
        settings: how long a file must have been still.
        state: what else than its files makes a day new when it changes.
    """
    from creditrisk_assets.portfolio.landing import list_days

    days, strangers = list_days(zone)
    last_day = str(DAYS.get_last_partition_key())
    looks = {day: stamp.removesuffix(state(day)) for day, stamp in remembered.items() if stamp.endswith(state(day))}
    arrivals = look(days, strangers, looks, FIRST_DAY, last_day, time.time(), settings.settle_seconds)
    return replace(arrivals, stamps={day: stamp + state(day) for day, stamp in arrivals.stamps.items()})


def zone_problems(settings: Settings) -> list[str]:
    """What lies in the landing zones and is not read, each with the reason and what would be valid."""
    zones = {"production": settings.landing_production, "outcomes": settings.landing_outcomes}
    problems = []
    for name, zone in zones.items():
        try:
            problems += [f"{name}: {problem}" for problem in arrivals_in(zone, {}, settings).problems]
        except OSError as error:  # the status must be readable above all when a store is not
            problems.append(f"{name}: {zone} cannot be looked at: {error}")
    return problems
