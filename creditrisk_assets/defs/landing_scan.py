"""The landing zones as Dagster's partitions see them: which days are new, and what lies there that
cannot be read.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

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
"""In a sensor's skip reason; `creditrisk status` shows all."""


@dataclass(frozen=True)
class Seen:
    """What a look at the days whose turn it is gives: what arrived, and the state of each of those
    days.
    """

    arrivals: Arrivals
    states: Mapping[str, str]


def arrivals_in(
    zone: UPath,
    memory: LandingCursor,
    settings: Settings,
    state: Callable[[Sequence[str]], Mapping[str, str]] = lambda _: {},
    named: Iterable[str] = (),
) -> Seen:
    """Look at those days of a landing zone whose turn it is, and at those that are new in it.

    Args:
        zone: folder of days.
        memory: how each day looked when it was dealt with; which days are next goes on in it.
        settings: how long a file must have been still.
        state: what else than its files makes a day new when it changes, for some days.
        named: days to be looked at whatever their turn.

    Raises:
        OSError: if the zone cannot be looked at.
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
    looks = {
        day: stamp
        for day, stamp in map(_look, listings)
        if memory.is_done(day, stamp + states.get(day, ""))
    }
    arrivals = find_arrivals(
        listings, memory.unrecognised, looks, EARLIEST_DAY, last_day(), now, settings.settle_seconds
    )
    return Seen(
        replace(
            arrivals,
            stamps={day: stamp + states.get(day, "") for day, stamp in arrivals.stamps.items()},
        ),
        states,
    )


def zone_problems(settings: Settings) -> list[str]:
    """What lies in the landing zones and is not read, each with the reason and what would be valid;
    all days are looked at.
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
        except OSError as error:  # the status must be readable above all when a store is not
            problems.append(f"{name}: {zone} cannot be looked at: {error}")
    return problems


def days_waiting(settings: Settings, scored: Collection[str]) -> list[str]:
    """Days that have landed and were not scored; none where the landing zone cannot be looked at,
    which `zone_problems` says.

    Args:
        settings: where the landing zone is.
        scored: days that were scored.
    """
    try:
        days, _ = zone_names(settings.landing_production)
        unscored = [day for day in days if day not in scored and EARLIEST_DAY <= day <= last_day()]
        return [day for day in unscored if list_day(settings.landing_production / day).files]
    except OSError:
        return []


def _look(day: DayListing) -> tuple[str, str]:
    return day.day, listing_stamp(day)
