"""Scan of the landing zones for Dagster's partitions: new days, waiting days and unreadable
items.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from upath import UPath

from creditrisk_assets.defs.partitions import EARLIEST_DAY, last_day
from creditrisk_assets.landing.arrivals import Arrivals, find_arrivals
from creditrisk_assets.landing.cursor import LandingCursor
from creditrisk_assets.landing.listing import (
    DayListing,
    list_day,
    list_days,
    listing_stamp,
    quick_stamps,
    zone_names,
    zone_signature,
)
from creditrisk_assets.settings import Settings

UNRECOGNISED_SHOWN = 20
"""Limit in a sensor's skip reason; `creditrisk status` lists all."""


def arrivals_in(
    zone: UPath,
    memory: LandingCursor,
    settings: Settings,
    state: Callable[[Sequence[str]], Mapping[str, str]] = lambda _: {},
    named: Iterable[str] = (),
) -> tuple[Arrivals, Mapping[str, str]]:
    """Scan the days that are due in a landing zone, and its new days.

    Args:
        zone: folder of days.
        memory: cursor with the stamp of each processed day and the next days to scan; updated.
        settings: settling time of a file.
        state: returns, for some days, further state whose change makes a day new.
        named: days that are scanned regardless of their turn.

    Returns:
        New and changed files, and the state of each scanned day apart from its files.

    Raises:
        OSError: if the zone cannot be read.
    """
    now = time.time()
    signature = zone_signature(zone, now)
    new: list[str] = []
    if memory.needs_names(signature):
        days, unrecognised = zone_names(zone)
        new = memory.update_names(days, unrecognised[:UNRECOGNISED_SHOWN], signature)
    chosen = memory.next_days([*named, *new])
    states = state(chosen)
    listings: list[DayListing] = []
    for day, stamp in quick_stamps(zone, chosen).items():
        if stamp is None or not memory.is_done(day, stamp + states.get(day, "")):
            listings.append(list_day(zone / day))
    stamps = {
        one.day: stamp
        for one in listings
        if memory.is_done(one.day, (stamp := listing_stamp(one)) + states.get(one.day, ""))
    }
    arrivals = find_arrivals(
        listings,
        memory.unrecognised,
        stamps,
        EARLIEST_DAY,
        last_day(),
        now,
        settings.settle_seconds,
    )
    stamps = {day: stamp + states.get(day, "") for day, stamp in arrivals.stamps.items()}
    return replace(arrivals, stamps=stamps), states


def zone_problems(settings: Settings) -> list[str]:
    """Items of the landing zones that are not read, each with the reason and the valid form. Scans
    all days.
    """
    zones = {"production": settings.landing_production, "outcomes": settings.landing_outcomes}
    problems = []
    for name, zone in zones.items():
        try:
            days, unrecognised = list_days(zone)
            arrivals = find_arrivals(
                days,
                unrecognised,
                {},
                EARLIEST_DAY,
                last_day(),
                time.time(),
                settings.settle_seconds,
            )
            problems += [f"{name}: {problem}" for problem in arrivals.problems]
        except OSError as error:  # the status must stay readable when a store is not
            problems.append(f"{name}: {zone} cannot be read: {error}")
    return problems


def days_waiting(settings: Settings, scored: Collection[str]) -> list[str]:
    """Days that have landed and are not scored; empty if the landing zone cannot be read, which
    `zone_problems` reports.

    Args:
        settings: the landing zone.
        scored: scored days.
    """
    try:
        days, _ = zone_names(settings.landing_production)
        unscored = [day for day in days if day not in scored and EARLIEST_DAY <= day <= last_day()]
        return [day for day in unscored if list_day(settings.landing_production / day).files]
    except OSError:
        return []
