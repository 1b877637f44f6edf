"""What a sensor remembers of a landing zone, and that no day is forgotten."""

import os
from datetime import date, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.landing.cursor import (
    SLICE_DAYS,
    WINDOW_DAYS,
    ZoneMemory,
    bound_seconds,
)
from creditrisk_assets.landing.listing import (
    glimpse,
    list_day,
    listing_stamp,
    zone_names,
    zone_signature,
)

FIRST = "2016-01-01"


def day(number: int) -> str:
    return (date.fromisoformat(FIRST) + timedelta(days=number)).isoformat()


def remembering(count: int) -> ZoneMemory:
    memory = ZoneMemory()
    for number in range(count):
        memory.dealt_with(day(number), f"stamp {number}")
    return memory


@given(st.dictionaries(st.integers(0, 4_000), st.text(max_size=20), max_size=50))
def test_a_cursor_says_what_was_remembered(stamps: dict[int, str]) -> None:
    memory = ZoneMemory()
    for number, stamp in stamps.items():
        memory.dealt_with(day(number), stamp)
    again = ZoneMemory.of(memory.text())
    assert again.days_dealt_with == len(stamps)
    assert all(
        again.knows(day(number), stamp) and not again.knows(day(number), stamp + "x")
        for number, stamp in stamps.items()
    )
    assert not any(again.knows(day(number), "") for number in range(4_010) if number not in stamps)


def test_a_cursor_is_small_and_takes_earlier_days_in() -> None:
    """The first file that lands need not be of the first day."""
    memory = remembering(3_650)
    assert len(memory.text()) < 45_000
    early = ZoneMemory.of(memory.text())
    early.dealt_with("2009-02-28", "early")
    again = ZoneMemory.of(early.text())
    assert again.days_dealt_with == 3_651
    assert again.knows("2009-02-28", "early")
    assert all(again.knows(day(number), f"stamp {number}") for number in range(0, 3_650, 97))


@given(st.integers(0, 900), st.lists(st.integers(0, 1_000), max_size=5))
def test_each_day_has_its_turn_within_the_bound(count: int, unfinished: list[int]) -> None:
    memory = remembering(count)
    first = date.fromisoformat(FIRST).toordinal()
    memory.unfinished |= {first + number for number in unfinished if number >= count}
    days = {day(number) for number in [*range(count), *(one for one in unfinished if one >= count)]}
    rounds = int(bound_seconds(len(days), 1)) or 1
    for _ in range(2):  # wherever a round begins
        seen: set[str] = set()
        for _ in range(rounds):
            looked = memory.next_days([])
            assert set(sorted(days)[-WINDOW_DAYS:]) <= set(looked)
            assert len(looked) <= WINDOW_DAYS + SLICE_DAYS
            seen |= set(looked)
            memory = ZoneMemory.of(memory.text())
        assert seen == days


def test_ten_years_have_their_turn_within_five_minutes() -> None:
    assert bound_seconds(3_650, 5) == 300


def test_days_named_or_left_over_are_looked_at_whatever_their_turn() -> None:
    memory = remembering(1_000)
    memory.next_days([])
    memory.look_again([day(500)])
    assert {day(500), day(600)} <= set(memory.next_days([day(600)]))


def test_names_are_listed_when_something_came_and_at_the_beginning_of_a_round() -> None:
    memory = remembering(200)
    names = [day(number) for number in range(200)]
    assert memory.names_needed("a")
    assert memory.listed(names, [], "a") == []
    memory.next_days([])
    assert not memory.names_needed("a")
    assert memory.names_needed("b")
    assert memory.names_needed("")
    assert memory.listed([*names, day(3), day(300)], ["notes"], "b") == [day(300)]
    assert memory.strangers == ("notes",)
    while memory.turn:
        memory.next_days([])
    assert memory.names_needed("b")


def test_a_glimpse_says_what_a_listing_says(tmp_path: Path) -> None:
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
    seen = glimpse(tmp_path, [*days.values(), day(99)])
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
