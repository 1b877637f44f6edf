"""State of a landing zone in a sensor's cursor; no day is forgotten."""

import os
from datetime import date, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.landing.cursor import (
    SLICE_DAYS,
    WINDOW_DAYS,
    LandingCursor,
    longest_delay_seconds,
)
from creditrisk_assets.landing.listing import (
    list_day,
    listing_stamp,
    quick_stamps,
    zone_names,
    zone_signature,
)

FIRST = "2016-01-01"


def day(number: int) -> str:
    return (date.fromisoformat(FIRST) + timedelta(days=number)).isoformat()


def remembering(count: int) -> LandingCursor:
    memory = LandingCursor()
    for number in range(count):
        memory.mark_done(day(number), f"stamp {number}")
    return memory


@given(st.dictionaries(st.integers(0, 4_000), st.text(max_size=20), max_size=50))
def test_a_cursor_says_what_was_remembered(stamps: dict[int, str]) -> None:
    memory = LandingCursor()
    for number, stamp in stamps.items():
        memory.mark_done(day(number), stamp)
    again = LandingCursor.parse(memory.dump())
    assert again.days_done == len(stamps)
    assert all(
        again.is_done(day(number), stamp) and not again.is_done(day(number), stamp + "x")
        for number, stamp in stamps.items()
    )
    assert not any(
        again.is_done(day(number), "") for number in range(4_010) if number not in stamps
    )


def test_a_cursor_is_small_and_takes_earlier_days_in() -> None:
    """The first file that lands need not be of the first day."""
    memory = remembering(3_650)
    assert len(memory.dump()) < 45_000
    early = LandingCursor.parse(memory.dump())
    early.mark_done("2009-02-28", "early")
    again = LandingCursor.parse(early.dump())
    assert again.days_done == 3_651
    assert again.is_done("2009-02-28", "early")
    assert all(again.is_done(day(number), f"stamp {number}") for number in range(0, 3_650, 97))


@given(st.integers(0, 900), st.lists(st.integers(0, 1_000), max_size=5))
def test_each_day_has_its_turn_within_the_bound(count: int, unfinished: list[int]) -> None:
    memory = remembering(count)
    first = date.fromisoformat(FIRST).toordinal()
    memory.unfinished |= {first + number for number in unfinished if number >= count}
    days = {day(number) for number in [*range(count), *(one for one in unfinished if one >= count)]}
    rounds = int(longest_delay_seconds(len(days), 1)) or 1
    for _ in range(2):  # wherever a round begins
        seen: set[str] = set()
        for _ in range(rounds):
            looked = memory.next_days([])
            assert set(sorted(days)[-WINDOW_DAYS:]) <= set(looked)
            assert len(looked) <= WINDOW_DAYS + SLICE_DAYS
            seen |= set(looked)
            memory = LandingCursor.parse(memory.dump())
        assert seen == days


def test_ten_years_have_their_turn_within_five_minutes() -> None:
    assert longest_delay_seconds(3_650, 5) == 300


def test_days_named_or_left_over_are_looked_at_whatever_their_turn() -> None:
    memory = remembering(1_000)
    memory.next_days([])
    memory.revisit([day(500)])
    assert {day(500), day(600)} <= set(memory.next_days([day(600)]))


def test_names_are_listed_when_something_came_and_at_the_beginning_of_a_round() -> None:
    memory = remembering(200)
    names = [day(number) for number in range(200)]
    assert memory.needs_names("a")
    assert memory.update_names(names, [], "a") == []
    memory.next_days([])
    assert not memory.needs_names("a")
    assert memory.needs_names("b")
    assert memory.needs_names("")
    assert memory.update_names([*names, day(3), day(300)], ["notes"], "b") == [day(300)]
    assert memory.unrecognised == ("notes",)
    while memory.turn:
        memory.next_days([])
    assert memory.needs_names("b")


def test_a_quick_stamp_is_the_stamp_of_the_listing(tmp_path: Path) -> None:
    names = ("plain", "two", "hidden", "empty", "stranger", "folder", "link", "odd")
    days = {name: day(number) for number, name in enumerate(names)}
    for name in days.values():
        (tmp_path / name).mkdir()
    (tmp_path / days["plain"] / "a.csv").write_text("1")
    for name in ("b.parquet", "a.CSV"):
        (tmp_path / days["two"] / name).write_text("1")
    (tmp_path / days["hidden"] / "a.csv").write_text("1")
    (tmp_path / days["hidden"] / ".b.csv").write_text("1")
    (tmp_path / days["stranger"] / "a.xlsx").write_text("1")
    (tmp_path / days["folder"] / "a.csv").mkdir()
    (tmp_path / days["link"]).rmdir()
    (tmp_path / days["link"]).symlink_to(tmp_path / days["plain"])
    (tmp_path / days["odd"] / "a\nb.csv").write_text("1")
    seen = quick_stamps(tmp_path, [*days.values(), day(99)])
    for name in ("plain", "two", "hidden"):
        assert seen.pop(days[name]) == listing_stamp(list_day(tmp_path / days[name]))
    assert seen == {days[name]: None for name in ("stranger", "folder", "link", "odd")}


def test_a_signature_differs_when_a_name_came_and_says_nothing_of_a_zone_that_just_changed(
    tmp_path: Path,
) -> None:
    assert zone_signature(tmp_path / "none", 0) == ""
    now = tmp_path.stat().st_mtime
    assert zone_signature(tmp_path, now + 1) == ""
    before = zone_signature(tmp_path, now + 60)
    assert before
    (tmp_path / "2026-02-01").mkdir()
    os.utime(tmp_path, (now + 10, now + 10))
    assert zone_signature(tmp_path, now + 60) not in ("", before)
    assert zone_names(tmp_path) == (["2026-02-01"], [])
