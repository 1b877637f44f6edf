"""Selection of the landed days that are new or changed and ready to read: a pure function of the
listing of a landing zone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from creditrisk_assets.landing.listing import SUFFIXES, DayListing, listing_stamp

DAY_PATTERN = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
READABLE = f"a file that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
DATE_PATTERN = re.compile(r"\d{8}|\d{1,4}[-./_ ]\d{1,2}[-./_ ]\d{1,4}", re.ASCII)


@dataclass(frozen=True)
class Arrivals:
    """State of the days in a landing zone.

    Attributes:
        ready: days that are new or changed, settled, and may be read.
        stamps: for each ready day, the stamp of its listing, to be stored once the day is done.
        waiting: days that cannot be read yet, each with the reason.
        problems: items that are not read, each with the reason; they stop nothing else and stay in
            place.
        unsettled: days that are still changing, or could not be read.
    """

    ready: tuple[DayListing, ...]
    stamps: dict[str, str]
    waiting: tuple[str, ...]
    problems: tuple[str, ...]
    unsettled: tuple[str, ...] = ()


def find_arrivals(
    days: Sequence[DayListing],
    unrecognised: Sequence[str],
    remembered: Mapping[str, str],
    first_day: str,
    last_day: str,
    now: float,
    settle_seconds: float,
) -> Arrivals:
    """Find the days that are new or changed.

    Args:
        days: the landing zone's days.
        unrecognised: names in the zone that are not day folders.
        remembered: the stamps of days that are done.
        first_day: the earliest valid day, `YYYY-MM-DD`.
        last_day: the last day that may be read, today or earlier; no day may be read if it is
            before `first_day`.
        now: seconds since the epoch.
        settle_seconds: a file changed more recently than this may still be incomplete.
    """
    ready, stamps, waiting, unsettled = [], {}, [], []
    problems = [unrecognised_problem(name) for name in unrecognised]
    bounds = f"{first_day} to {last_day}" if first_day <= last_day else "none yet"
    for day in days:
        stamp = listing_stamp(day)
        problems += [
            f"{day.day}: {name} is not read; valid: {READABLE}" for name in day.ignored_names
        ]
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
        ):  # a modification time in the future is ignored
            waiting.append(f"{day.day} changed less than {settle_seconds:g} s ago")
            unsettled.append(day.day)
        else:
            ready.append(day)
            stamps[day.day] = stamp
    return Arrivals(tuple(ready), stamps, tuple(waiting), tuple(problems), tuple(unsettled))


def unrecognised_problem(name: str) -> str:
    """Message about a name in the zone that is not a day folder."""
    if DAY_PATTERN.fullmatch(name):
        return (
            f"{name!r} is no day's folder: the calendar has no such day, or it is a file; valid: "
            "a folder named YYYY-MM-DD"
        )
    if DATE_PATTERN.fullmatch(name):
        return f"{name!r} is a date in another form; valid: a folder named YYYY-MM-DD"
    if name.lower().endswith(SUFFIXES):
        return f"{name!r} lies outside of any day; valid: in a folder named YYYY-MM-DD"
    return f"{name!r} is not a day; valid: a folder named YYYY-MM-DD"
