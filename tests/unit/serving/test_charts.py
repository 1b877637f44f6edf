"""Charts over days as SVG."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.pages.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    POINTS_MARKED,
    RIGHT,
    TOP,
    WIDTH,
    Level,
    Mark,
    Point,
    Series,
    chart,
)


def day(number: int) -> str:
    return (datetime.date(2025, 1, 1) + datetime.timedelta(days=number)).isoformat()


@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.floats(-1e3, 1e3)),
        min_size=1,
        max_size=80,
        unique_by=lambda one: one[0],
    ),
    st.floats(-1e3, 1e3),
    st.booleans(),
)
def test_whatever_the_figures_every_point_and_the_line_are_inside_the_picture(
    points: list[tuple[int, float]], line: float, with_line: bool
) -> None:
    series = Series(
        "AUC",
        "realised",
        [Point(day(number), value, value - 1, value + 1) for number, value in points],
    )
    compared = (
        [Level(day(points[0][0]), day(points[0][0]), line, "validation")] if with_line else []
    )
    drawn = chart("AUC", [series], references=compared)
    assert drawn is not None
    plotted = drawn.series[0]
    numbers = sorted(number for number, _ in points)
    is_marked = numbers[-1] - numbers[0] < POINTS_MARKED
    corners = [
        tuple(map(float, corner.split(",")))
        for outline in (*plotted.lines, *plotted.areas)
        for corner in outline.split()
    ]
    heights = [edge for place in plotted.points for edge in (place.y, place.low, place.high)]
    heights += [y for _, _, y, _ in drawn.lines] + [y for _, y in corners]
    assert all(TOP - 0.1 <= float(height or 0) <= HEIGHT - BOTTOM + 0.1 for height in heights)
    assert all(LEFT <= x <= WIDTH - RIGHT for x in [place.x for place in plotted.points])
    assert all(LEFT <= x <= WIDTH - RIGHT for x, _ in corners)
    assert all(LEFT <= left <= right <= WIDTH - RIGHT for left, right, _, _ in drawn.lines)
    in_lines = sum(len(line.split()) for line in plotted.lines)
    alone = sum(number - 1 not in numbers and number + 1 not in numbers for number in numbers)
    assert in_lines + alone == len(points)
    assert len(plotted.points) == (len(points) if is_marked else alone)
    if is_marked:
        told = [place.text.partition(":")[0] for place in plotted.points]
        assert told == [day(number) for number in numbers]


def test_a_day_without_a_figure_breaks_the_line_and_no_point_is_lost() -> None:
    drawn = chart(
        "PSI",
        [Series("PSI", "realised", [Point(day(number), 0.1) for number in (0, 1, 2, 5, 6, 9)])],
    )
    assert drawn is not None
    assert [len(line.split()) for line in drawn.series[0].lines] == [3, 2]
    assert len(drawn.series[0].points) == 6


def test_a_higher_figure_is_drawn_higher_and_the_text_says_its_interval() -> None:
    drawn = chart(
        "AUC", [Series("AUC", "realised", [Point(day(0), 0.7), Point(day(1), 0.8, 0.75, 0.85)])]
    )
    assert drawn is not None
    first, second = drawn.series[0].points
    assert second.y < first.y
    assert second.text == "2025-01-02: AUC 0.800 (0.750 to 0.850)"


def test_marks_outside_the_days_are_left_out() -> None:
    marks = [Mark(day(number), str(number), "move") for number in (0, 3, 9)]
    drawn = chart(
        "PSI",
        [Series("PSI", "realised", [Point(day(number), 0.1) for number in range(1, 6)])],
        marks,
    )
    assert drawn is not None
    assert [mark.text for _, mark in drawn.marks] == ["3"]


def test_a_level_is_drawn_over_its_own_days_only() -> None:
    """The new champion's AUC at validation used to be drawn over the days of the old one."""
    series = Series("AUC", "realised", [Point(day(number), 0.7) for number in range(5)])
    levels = [
        Level(day(0), day(2), 0.77, "version 1 at validation"),
        Level(day(3), day(4), 0.8, "version 2 at validation"),
    ]
    drawn = chart("AUC", [series], references=levels)
    assert drawn is not None
    (first, second), places = drawn.lines, drawn.series[0].points
    assert (first[0], second[1]) == (LEFT, WIDTH - RIGHT)
    assert places[2].x < first[1] == second[0] < places[3].x
    assert (first[3], second[3]) == (
        "version 1 at validation 0.770",
        "version 2 at validation 0.800",
    )
    assert second[2] < first[2]


def test_without_a_figure_there_is_no_chart() -> None:
    assert chart("PSI", [Series("PSI", "realised", [])]) is None
    assert chart("PSI", []) is None


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.78])
def test_one_figure_alone_is_a_chart_too(value: float) -> None:
    drawn = chart("PSI", [Series("PSI", "realised", [Point(day(0), value)])], from_zero=True)
    assert drawn is not None
    assert len(drawn.levels) >= 2
