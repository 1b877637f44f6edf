"""Which landed days are new or changed and may be read now: a pure function of what the landing zone looks like."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from creditrisk_assets.portfolio.landing import DayListing


@dataclass(frozen=True)
class Arrivals:
    """What a look at a landing zone gives.

    Attributes:
        ready: days that are new or changed, settled, and may be read.
        stamps: for each ready day, how its listing looked, to be remembered once it is dealt with.
        waiting: days that are not to be read yet, each with the reason.
        problems: what cannot be read at all, each with the reason; it stops nothing else.
    """

    ready: tuple[DayListing, ...]
    stamps: dict[str, str]
    waiting: tuple[str, ...]
    problems: tuple[str, ...]


def look(
    days: Sequence[DayListing],
    strangers: Sequence[str],
    remembered: Mapping[str, str],
    valid_days: frozenset[str],
    now: float,
    settle_seconds: float,
) -> Arrivals:
    """Tell what is new.

    Args:
        days: the landing zone's days.
        strangers: folders in it that are no days.
        remembered: the stamps of days that were dealt with.
        valid_days: days that have a partition.
        now: seconds since the epoch.
        settle_seconds: a file changed more recently than this may still be written.
    """
    ready, stamps, waiting = [], {}, []
    problems = [f"{name!r} is not a day; valid: a folder named YYYY-MM-DD" for name in strangers]
    for day in days:
        stamp = listing_stamp(day)
        if day.problem is not None:
            problems.append(f"{day.day}: {day.problem}")
        elif day.day not in valid_days:
            bounds = f"{min(valid_days)} to {max(valid_days)}" if valid_days else "none yet"
            problems.append(f"{day.day} has no partition; valid: {bounds}")
        elif remembered.get(day.day) == stamp:
            continue
        elif any(0 <= now - file.modified < settle_seconds for file in day.files):  # a time in the future tells nothing
            waiting.append(f"{day.day} changed less than {settle_seconds:g} s ago")
        else:
            ready.append(day)
            stamps[day.day] = stamp
    return Arrivals(tuple(ready), stamps, tuple(waiting), tuple(problems))


def listing_stamp(day: DayListing) -> str:
    """Short hash over names, sizes and times of a day's files: cheap to take, and different whenever a file was touched."""
    text = "\n".join(f"{file.path.name}\0{file.size}\0{file.modified}" for file in day.files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
