"""Lays out charts over days as SVG without scripts; the page's style sheet colours them.

The view box is so narrow that its text can be read on a telephone, where a chart is as wide as the
screen. A chart of many days has no mark for each day, and its intervals are one area; the table of
the page has the figures.
"""

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH, HEIGHT = 480.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 12.0, 26.0
TICKS = 4
DAYS_LABELLED = 3
POINTS_MARKED = 70
"""More days than these have no marks of their own."""


@dataclass(frozen=True)
class Point:
    """A figure of a day, and its 95 % interval if it has one."""

    day: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """Figures of one kind; `style` is their class in the style sheet."""

    name: str
    style: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Mark:
    """An event on a day; `style` is its class in the style sheet."""

    day: str
    text: str
    style: str


@dataclass(frozen=True)
class Level:
    """A reference figure over some days, both included."""

    first: str
    last: str
    value: float
    name: str


@dataclass(frozen=True)
class PlottedPoint:
    """The coordinates and the text of a point."""

    x: float
    y: float
    low: float | None
    high: float | None
    text: str


@dataclass(frozen=True)
class PlottedSeries:
    """A series as coordinates: unbroken lines, and every point; or areas of the intervals in place
    of the points.
    """

    name: str
    style: str
    lines: tuple[str, ...]
    points: tuple[PlottedPoint, ...]
    areas: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart:
    """The template's input; coordinates are in the view box."""

    title: str
    series: tuple[PlottedSeries, ...]
    levels: tuple[tuple[float, str], ...]
    days: tuple[tuple[float, str], ...]
    marks: tuple[tuple[float, Mark], ...]
    lines: tuple[tuple[float, float, float, str], ...] = ()
    unit: str = ""
    first: str = ""
    last: str = ""
    summary: str = ""
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def chart(
    title: str,
    series: Sequence[Series],
    marks: Sequence[Mark] = (),
    references: Sequence[Level] = (),
    from_zero: bool = False,
    unit: str = "",
) -> Chart | None:
    """Lay out a chart.

    Args:
        title: its caption.
        series: at least one has a point.
        marks: events; those outside the days of the series are left out.
        references: levels to compare with; each line extends half a day beyond its days.
        from_zero: True if the scale starts at 0.
        unit: of the figures.

    Returns:
        The chart; None if no series has a point.
    """
    points = [point for figures in series for point in figures.points]
    if not points:
        return None
    first, last = (
        datetime.date.fromisoformat(end(point.day for point in points)) for end in (min, max)
    )
    span = max((last - first).days, 1)
    values = [
        edge
        for point in points
        for edge in (point.value, point.low, point.high)
        if edge is not None and math.isfinite(edge)
    ]
    values += [level.value for level in references]
    bottom, top, step = _scale(0.0 if from_zero else min(values), max(values))

    def x(day: str) -> float:
        return round(
            LEFT + (WIDTH - LEFT - RIGHT) * (datetime.date.fromisoformat(day) - first).days / span,
            1,
        )

    half = (WIDTH - LEFT - RIGHT) / span / 2

    def line(level: Level) -> tuple[float, float, float, str]:
        left, right = max(LEFT, x(level.first) - half), min(WIDTH - RIGHT, x(level.last) + half)
        text = f"{level.name} {_figure(level.value)}".strip()
        return round(left, 1), round(right, 1), y(level.value), text

    def y(value: float) -> float:
        return round(
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - bottom) / (top - bottom), 1
        )

    levels = tuple(
        (y(bottom + place * step), _short(bottom + place * step))
        for place in range(round((top - bottom) / step) + 1)
    )
    labelled = sorted({round(place * span / (DAYS_LABELLED - 1)) for place in range(DAYS_LABELLED)})
    marked = span < POINTS_MARKED
    return Chart(
        title=title,
        series=tuple(_plot(figures, x, y, marked) for figures in series),
        levels=levels,
        days=tuple(
            (x(day), day)
            for day in ((first + datetime.timedelta(days=days)).isoformat() for days in labelled)
        ),
        marks=tuple(
            (x(mark.day), mark)
            for mark in marks
            if first.isoformat() <= mark.day <= last.isoformat()
        ),
        lines=tuple(line(level) for level in references),
        unit=unit,
        first=first.isoformat(),
        last=last.isoformat(),
        summary=_summary(series),
    )


def _summary(series: Sequence[Series]) -> str:
    """The latest figure of each series, in words."""
    latest = [
        (figures.name, max(figures.points, key=lambda point: point.day))
        for figures in series
        if figures.points
    ]
    return "; ".join(f"{name} {_figure(point.value)} on {point.day}" for name, point in latest)


def _figure(value: float) -> str:
    """A figure with three decimals, or a large one with thousands separators."""
    return f"{value:,.0f}" if abs(value) >= 1_000 or value.is_integer() else f"{value:.3f}"


def _short(value: float) -> str:
    """A figure of the scale, at most six characters long."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            divisor = 1e3 if letter == "k" else size
            return f"{value / divisor:.3g}{letter}"
    return f"{value:.3g}" if abs(value) < 1_000 else f"{value:,.0f}"


def _scale(low: float, high: float) -> tuple[float, float, float]:
    """The scale's round limits around the values, and its step."""
    step = _round(max(high - low, 1e-3) / TICKS)
    return math.floor(low / step) * step, math.ceil(high / step + 1e-9) * step, step


def _round(step: float) -> float:
    """The next larger of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= step * (1 - 1e-9))


def _plot(
    series: Series, x: Callable[[str], float], y: Callable[[float], float], marked: bool
) -> PlottedSeries:
    points = [
        PlottedPoint(
            x(point.day),
            y(point.value),
            None if point.low is None else y(point.low),
            None if point.high is None else y(point.high),
            f"{point.day}: {series.name} {_figure(point.value)}{_interval(point)}",
        )
        for point in sorted(series.points, key=lambda point: point.day)
    ]
    days = sorted(datetime.date.fromisoformat(point.day) for point in series.points)
    breaks = [place for place in range(1, len(days)) if (days[place] - days[place - 1]).days > 1]
    edges = [0, *breaks, len(points)]
    runs = [points[start:end] for start, end in pairwise(edges) if end > start]
    return PlottedSeries(
        series.name,
        series.style,
        tuple(" ".join(f"{one.x},{one.y}" for one in run) for run in runs if len(run) > 1),
        tuple(points) if marked else tuple(run[0] for run in runs if len(run) == 1),
        () if marked else tuple(area for run in runs if (area := _area(run))),
    )


def _interval(point: Point) -> str:
    if point.low is None or point.high is None:
        return ""
    return f" ({_figure(point.low)} to {_figure(point.high)})"


def _area(run: Sequence[PlottedPoint]) -> str:
    """The outline of the intervals of days in a row; empty if one of them has none."""
    if len(run) < 2 or any(one.low is None or one.high is None for one in run):
        return ""
    there = [f"{one.x},{one.high}" for one in run]
    back = [f"{one.x},{one.low}" for one in reversed(run)]
    return " ".join([*there, *back])
