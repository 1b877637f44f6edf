"""Lays out charts over days as SVG without scripts; the page's style sheet colours them."""

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 960.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 12.0, 26.0
TICKS = 4


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
    """A series as coordinates: unbroken lines, and every point."""

    name: str
    style: str
    lines: tuple[str, ...]
    points: tuple[PlottedPoint, ...]


@dataclass(frozen=True)
class Chart:
    """The template's input; coordinates are in the view box."""

    title: str
    series: tuple[PlottedSeries, ...]
    levels: tuple[tuple[float, str], ...]
    days: tuple[tuple[float, str], ...]
    marks: tuple[tuple[float, Mark], ...]
    lines: tuple[tuple[float, float, float, str], ...] = ()
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
) -> Chart | None:
    """Lay out a chart.

    Args:
        title: its caption.
        series: at least one has a point.
        marks: events; those outside the days of the series are left out.
        references: levels to compare with; each line extends half a day beyond its days.
        from_zero: True if the scale starts at 0.

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
        return round(left, 1), round(right, 1), y(level.value), f"{level.name} {level.value:.3f}"

    def y(value: float) -> float:
        return round(
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - bottom) / (top - bottom), 1
        )

    levels = tuple(
        (y(bottom + place * step), f"{bottom + place * step:.3g}")
        for place in range(round((top - bottom) / step) + 1)
    )
    labelled = sorted({round(place * span / TICKS) for place in range(TICKS + 1)})
    return Chart(
        title=title,
        series=tuple(_plot(figures, x, y) for figures in series),
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
    )


def _scale(low: float, high: float) -> tuple[float, float, float]:
    """The scale's round limits around the values, and its step."""
    step = _round(max(high - low, 1e-3) / TICKS)
    return math.floor(low / step) * step, math.ceil(high / step + 1e-9) * step, step


def _round(step: float) -> float:
    """The next larger of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= step * (1 - 1e-9))


def _plot(series: Series, x: Callable[[str], float], y: Callable[[float], float]) -> PlottedSeries:
    points, lines, line, before = [], [], [], None
    for point in sorted(series.points, key=lambda point: point.day):
        low, high = (None if edge is None else y(edge) for edge in (point.low, point.high))
        interval = (
            ""
            if point.low is None or point.high is None
            else f" ({point.low:.3f} to {point.high:.3f})"
        )
        points.append(
            PlottedPoint(
                x(point.day),
                y(point.value),
                low,
                high,
                f"{point.day}: {series.name} {point.value:.3f}{interval}",
            )
        )
        today = datetime.date.fromisoformat(point.day)
        if before is not None and (today - before).days > 1:
            lines.append(line)
            line = []
        line.append(f"{points[-1].x},{points[-1].y}")
        before = today
    lines.append(line)
    return PlottedSeries(
        series.name,
        series.style,
        tuple(" ".join(line) for line in lines if len(line) > 1),
        tuple(points),
    )
