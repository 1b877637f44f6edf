"""Which landed days are new or changed and may be read now: a pure function of what the landing
zone looks like.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from creditrisk_assets.landing.listing import SUFFIXES, DayListing, listing_stamp

LIKE_A_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
READ = f"a file that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
LIKE_A_DATE = re.compile(r"\d{8}|\d{1,4}[-./_ ]\d{1,2}[-./_ ]\d{1,4}", re.ASCII)


@dataclass(frozen=True)
class Arrivals:
    """What a look at a landing zone gives.

    Attributes:
        ready: days that are new or changed, settled, and may be read.
        stamps: for each ready day, how its listing looked, to be remembered once it is dealt with.
        waiting: days that are not to be read yet, each with the reason.
        problems: what is not read, each with the reason; it stops nothing else, and stays where it
            is.
        unsettled: days that are still changing, or could not be read.
    """

    ready: tuple[DayListing, ...]
    stamps: dict[str, str]
    waiting: tuple[str, ...]
    problems: tuple[str, ...]
    unsettled: tuple[str, ...] = ()


def look(
    days: Sequence[DayListing],
    strangers: Sequence[str],
    remembered: Mapping[str, str],
    first_day: str,
    last_day: str,
    now: float,
    settle_seconds: float,
) -> Arrivals:
    """Tell what is new.

    Args:
        days: the landing zone's days.
        strangers: names in it that are no day's folder.
        remembered: the stamps of days that were dealt with.
        first_day: the earliest day that is taken for one, `YYYY-MM-DD`.
        last_day: the last day that may be read, which is today or before; if it is before
            `first_day`, none may be.
        now: seconds since the epoch.
        settle_seconds: a file changed more recently than this may still be written.
    """
    ready, stamps, waiting, unsettled = [], {}, [], []
    problems = [stranger_problem(name) for name in strangers]
    bounds = f"{first_day} to {last_day}" if first_day <= last_day else "none yet"
    for day in days:
        stamp = listing_stamp(day)
        problems += [f"{day.day}: {name} is not read; valid: {READ}" for name in day.passed_over]
        if day.problem is not None:
            problems.append(f"{day.day}: {day.problem}")
            unsettled.append(day.day)
        elif day.day < first_day:
            problems.append(f"{day.day} is before the earliest day; valid: {bounds}")
        elif day.day > last_day:
            problems.append(f"{day.day} is in the future; valid: {bounds}")
        elif not day.files or remembered.get(day.day) == stamp:
            continue
        elif any(
            0 <= now - file.modified < settle_seconds for file in day.files
        ):  # a time in the future tells nothing
            waiting.append(f"{day.day} changed less than {settle_seconds:g} s ago")
            unsettled.append(day.day)
        else:
            ready.append(day)
            stamps[day.day] = stamp
    return Arrivals(tuple(ready), stamps, tuple(waiting), tuple(problems), tuple(unsettled))


def stranger_problem(name: str) -> str:
    """What is the matter with a name in the zone that is no day's folder."""
    if LIKE_A_DAY.fullmatch(name):
        return (
            f"{name!r} is no day's folder: the calendar has no such day, or it is a file; valid: "
            "a folder named YYYY-MM-DD"
        )
    if LIKE_A_DATE.fullmatch(name):
        return f"{name!r} is a date in another form; valid: a folder named YYYY-MM-DD"
    if name.lower().endswith(SUFFIXES):
        return f"{name!r} lies outside of any day; valid: in a folder named YYYY-MM-DD"
    return f"{name!r} is not a day; valid: a folder named YYYY-MM-DD"
