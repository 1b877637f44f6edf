"""Charts over days as SVG, drawn here: they need no script, and the style of the page colours
them.
"""

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 960.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 12.0, 26.0
TICKS = 4


@dataclass(frozen=True)
class Point:
    """A figure of a day, and its 95 % interval where it has one."""

    day: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """Figures of one kind; `style` is the class that colours them."""

    name: str
    style: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Mark:
    """A day on which something was done; `style` is the class that colours it."""

    day: str
    text: str
    style: str


@dataclass(frozen=True)
class Level:
    """A figure to compare with over some days, both included."""

    first: str
    last: str
    value: float
    name: str


@dataclass(frozen=True)
class Place:
    """Where a point is drawn."""

    x: float
    y: float
    low: float | None
    high: float | None
    text: str


@dataclass(frozen=True)
class Drawn:
    """A series as coordinates: unbroken lines, and every point."""

    name: str
    style: str
    lines: tuple[str, ...]
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Chart:
    """All that the template draws; coordinates in the view box."""

    title: str
    series: tuple[Drawn, ...]
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
    compared: Sequence[Level] = (),
    from_zero: bool = False,
) -> Chart | None:
    """Lay a chart out.

    Args:
        title: what it shows.
        series: of which one has a point at least.
        marks: days on which something was done; those outside the days of the series are left out.
        compared: levels to compare with; each is drawn over its own days, with room of half a day
            on both sides.
        from_zero: whether the scale begins at 0.

    Returns:
        None where no series has a point.
    """
    points = [point for one in series for point in one.points]
    if not points:
        return None
    first, last = (
        datetime.date.fromisoformat(found(point.day for point in points)) for found in (min, max)
    )
    span = max((last - first).days, 1)
    reach = [
        edge
        for point in points
        for edge in (point.value, point.low, point.high)
        if edge is not None and math.isfinite(edge)
    ]
    reach += [level.value for level in compared]
    bottom, top, step = _scale(0.0 if from_zero else min(reach), max(reach))

    def x(day: str) -> float:
        return round(
            LEFT + (WIDTH - LEFT - RIGHT) * (datetime.date.fromisoformat(day) - first).days / span,
            1,
        )

    half = (WIDTH - LEFT - RIGHT) / span / 2

    def over(level: Level) -> tuple[float, float, float, str]:
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
        series=tuple(_drawn(one, x, y) for one in series),
        levels=levels,
        days=tuple(
            (x(day), day)
            for day in ((first + datetime.timedelta(days=ago)).isoformat() for ago in labelled)
        ),
        marks=tuple(
            (x(mark.day), mark)
            for mark in marks
            if first.isoformat() <= mark.day <= last.isoformat()
        ),
        lines=tuple(over(level) for level in compared),
    )


def _scale(low: float, high: float) -> tuple[float, float, float]:
    """Round numbers around what is shown: lowest, highest, and the step between."""
    step = _round(max(high - low, 1e-3) / TICKS)
    return math.floor(low / step) * step, math.ceil(high / step + 1e-9) * step, step


def _round(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= step * (1 - 1e-9))


def _drawn(series: Series, x: Callable[[str], float], y: Callable[[float], float]) -> Drawn:
    places, lines, line, before = [], [], [], None
    for point in sorted(series.points, key=lambda one: one.day):
        low, high = (None if edge is None else y(edge) for edge in (point.low, point.high))
        between = (
            ""
            if point.low is None or point.high is None
            else f" ({point.low:.3f} to {point.high:.3f})"
        )
        places.append(
            Place(
                x(point.day),
                y(point.value),
                low,
                high,
                f"{point.day}: {series.name} {point.value:.3f}{between}",
            )
        )
        today = datetime.date.fromisoformat(point.day)
        if before is not None and (today - before).days > 1:
            lines.append(line)
            line = []
        line.append(f"{places[-1].x},{places[-1].y}")
        before = today
    lines.append(line)
    return Drawn(
        series.name,
        series.style,
        tuple(" ".join(one) for one in lines if len(one) > 1),
        tuple(places),
    )
