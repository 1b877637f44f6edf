"""The figures of the monitoring page: a range of days, one version or all, and their charts."""

import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import urlencode

from creditrisk_assets.monitoring.loop_status import DAYS_SHOWN, DayStatus, Event, LoopStatus
from serving.pages.charts import Chart, Level, Mark, Point, Series, chart
from serving.pages.templating import VERDICT_LABELS

Z95 = 1.959964
CUSTOMARY_PSI = (0.10, 0.25)
"""Bands of the rule of thumb: stable below the first, shifted above the second."""

EVENT_LABELS = {**VERDICT_LABELS, "failed": "retrain failed", "in flight": "retrain under way"}
CHAMPION_MOVES = ("first", "promoted", "rolled_back", "cut_off")
"""Events that change decisions."""

DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
RANGES = ((30, "30 days"), (90, "90 days"), (365, "a year"))


class InvalidRange(ValueError):
    """A day of the range is no day, or the range ends before it begins."""


@dataclass(frozen=True)
class Range:
    """The days and the version that the page shows.

    Attributes:
        first: the first day.
        last: the last day.
        version: of the model; empty for all.
    """

    first: str
    last: str
    version: str = ""

    @classmethod
    def of(cls, days: Sequence[DayStatus], first: str, last: str, version: str) -> Self:
        """The range that a query names; without one the latest days.

        Raises:
            InvalidRange: if a text is no day, or the last day is before the first.
        """
        for name, text in (("from", first), ("to", last)):
            if text and not _is_day(text):
                raise InvalidRange(f"{name} is {text[:40]!r}; valid: a day as YYYY-MM-DD")
        newest = last or max((day.day for day in days), default="")
        if not newest:
            return cls(first, last, version)
        oldest = first or before(newest, DAYS_SHOWN - 1)
        if oldest > newest:
            raise InvalidRange(f"from is {oldest}, after {newest}; valid: a day up to {newest}")
        return cls(oldest, newest, version)

    def holds(self, day: DayStatus) -> bool:
        """True if a day is shown."""
        return self.first <= day.day <= self.last and self.version in ("", day.model_version)

    @property
    def query(self) -> str:
        """The query that names the range."""
        return urlencode({"from": self.first, "to": self.last, "version": self.version})

    def latest(self, days: int) -> str:
        """The query of the latest days of the range."""
        return replace(self, first=before(self.last, days - 1)).query


def before(day: str, days: int) -> str:
    """The day some days before, or the first day that a calendar has."""
    ordinal = datetime.date.fromisoformat(day).toordinal() - days
    return datetime.date.fromordinal(max(ordinal, 1)).isoformat()


def _is_day(text: str) -> bool:
    try:
        return DAY.fullmatch(text) is not None and bool(datetime.date.fromisoformat(text))
    except ValueError:
        return False


def days_shown(status: LoopStatus, shown: Range) -> list[DayStatus]:
    """The days of the range, the oldest first."""
    return sorted((day for day in status.days if shown.holds(day)), key=lambda day: day.day)


def versions_of(status: LoopStatus) -> list[str]:
    """The versions that decided a day, the newest first."""
    by_day = sorted(status.days, key=lambda day: day.day, reverse=True)
    return list(dict.fromkeys(day.model_version for day in by_day if day.model_version))


def charts_of(status: LoopStatus, days: Sequence[DayStatus], currency: str) -> list[Chart]:
    """Stability, discrimination, level, volume, approvals and losses, with the events."""
    marks = [
        _mark(event)
        for event in status.events
        if event.day is not None and event.kind != "unchanged"
    ]
    drawn = [
        chart(
            "PSI of the score",
            [
                _series(days, "days judged together", "realised", "score_psi_judged"),
                _series(days, "alert line", "limit", "score_psi_threshold"),
            ],
            marks,
            _over(days, CUSTOMARY_PSI, "customary"),
            from_zero=True,
        ),
        chart(
            "AUC",
            [
                _series(
                    days,
                    "estimated without outcomes",
                    "estimated",
                    "estimated_roc_auc",
                    lambda day: day.estimated_roc_auc_standard_error,
                ),
                _series(
                    days,
                    "realised",
                    "realised",
                    "roc_auc",
                    lambda day: day.roc_auc_standard_error,
                ),
            ],
            marks,
            _at_validation(days),
        ),
        chart(
            "Bad rate and mean PD of matured decisions",
            [
                _series(days, "mean PD", "estimated", "mean_pd"),
                _series(days, "bad rate", "realised", "bad_rate", _rate_error),
            ],
            marks,
            from_zero=True,
        ),
        chart(
            "Customers",
            [
                _series(days, "accepted rows", "realised", "rows"),
                _series(days, "rejected rows", "limit", "rejected"),
            ],
            marks,
            from_zero=True,
            unit="rows a day",
        ),
        chart(
            "Approval rate",
            [_series(days, "approval rate", "realised", "approval_rate")],
            marks,
            unit="share under the cut-off",
        ),
        chart(
            "Loss of matured decisions",
            [
                _series(days, "expected", "estimated", "matured_expected_loss"),
                _series(days, "realised", "realised", "realised_loss"),
            ],
            marks,
            from_zero=True,
            unit=currency,
        ),
    ]
    return [one for one in drawn if one is not None]


def _series(
    days: Sequence[DayStatus],
    name: str,
    style: str,
    figure: str,
    error: Callable[[DayStatus], float | None] = lambda _: None,
) -> Series:
    figures = ((day, getattr(day, figure)) for day in days)
    points = [_point(day.day, float(one), error(day)) for day, one in figures if one is not None]
    return Series(name, style, points)


def _rate_error(day: DayStatus) -> float | None:
    """The binomial standard error of a day's bad rate."""
    rate = day.bad_rate or 0.0
    return (rate * (1 - rate) / day.matured) ** 0.5 if day.matured else None


def _over(days: Sequence[DayStatus], values: Sequence[float], name: str) -> list[Level]:
    """Levels over all days that have a PSI."""
    compared = [day.day for day in days if day.score_psi_judged is not None]
    return [Level(compared[0], compared[-1], value, name) for value in values] if compared else []


def _at_validation(days: Sequence[DayStatus]) -> list[Level]:
    """The AUC at validation of each version, over the days that it decided."""
    levels = list[Level]()
    for day in days:
        name = f"version {day.model_version} at validation"
        if day.validation_roc_auc is None:
            continue
        if levels and levels[-1].name == name:
            levels[-1] = replace(levels[-1], last=day.day)
        else:
            levels.append(Level(day.day, day.day, day.validation_roc_auc, name))
    return levels


def _point(day: str, value: float, error: float | None) -> Point:
    if error is None:
        return Point(day, value)
    return Point(day, value, max(0.0, value - Z95 * error), min(1.0, value + Z95 * error))


def _mark(event: Event) -> Mark:
    label = EVENT_LABELS.get(event.kind, event.kind)
    is_move = event.kind in CHAMPION_MOVES
    version = event.model_version if is_move else event.challenger
    suffix = f", version {version}" if version else ""
    return Mark(str(event.day), f"{event.day}: {label}{suffix}", "move" if is_move else "tried")
