"""Which landed days may be read now."""

from pathlib import Path

from creditrisk_assets.portfolio.arrivals import Arrivals, listing_stamp, look
from creditrisk_assets.portfolio.landing import DayListing, LandedFile

NOW, SETTLE = 1_000_000.0, 5.0
DAYS = frozenset({"2026-02-01", "2026-02-02", "2026-02-03"})


def day(name: str, *modified: float, size: int = 10) -> DayListing:
    return DayListing(name, tuple(LandedFile(Path(f"{number}.csv"), size, when) for number, when in enumerate(modified)))


def looked(*days: DayListing, remembered: dict[str, str] | None = None, strangers: tuple[str, ...] = ()) -> Arrivals:
    return look(days, strangers, remembered or {}, DAYS, NOW, SETTLE)


def test_a_new_day_whose_files_have_settled_is_ready_with_a_stamp_to_remember() -> None:
    new = day("2026-02-01", NOW - 60, NOW - 5)
    result = looked(new)
    assert result == Arrivals((new,), {"2026-02-01": listing_stamp(new)}, (), ())


def test_a_day_that_was_dealt_with_is_not_read_again_until_it_changes() -> None:
    before = day("2026-02-01", NOW - 60)
    remembered = looked(before).stamps
    assert looked(before, remembered=remembered) == Arrivals((), {}, (), ())
    for changed in (
        day("2026-02-01", NOW - 50),
        day("2026-02-01", NOW - 60, size=11),
        day("2026-02-01", NOW - 60, NOW - 60),
        DayListing("2026-02-01", (LandedFile(Path("other.csv"), 10, NOW - 60),)),
    ):
        assert looked(changed, remembered=remembered).ready == (changed,)


def test_a_day_waits_until_its_youngest_file_has_settled() -> None:
    """Half of a file that is still being copied would be scored as the whole day."""
    result = looked(day("2026-02-01", NOW - 60, NOW - 4.9))
    assert (result.ready, result.stamps) == ((), {})
    assert result.waiting == ("2026-02-01 changed less than 5 s ago",)


def test_a_file_from_the_future_is_read_and_not_waited_for_until_then() -> None:
    """A clock that is a year ahead would otherwise keep its day waiting for a year."""
    ahead = day("2026-02-01", NOW + 365 * 86_400)
    assert looked(ahead).ready == (ahead,)


def test_what_cannot_be_read_is_named_and_stops_no_other_day() -> None:
    """One partition key that does not exist stops a whole tick of the sensor."""
    good = day("2026-02-03", NOW - 60)
    result = looked(
        DayListing("2026-02-02", (), "in.csv is a link; only regular files are read"),
        day("2026-02-09", NOW - 60),
        good,
        strangers=("backup",),
    )
    assert result.ready == (good,)
    assert result.problems == (
        "'backup' is not a day; valid: a folder named YYYY-MM-DD",
        "2026-02-02: in.csv is a link; only regular files are read",
        "2026-02-09 has no partition; valid: 2026-02-01 to 2026-02-03",
    )


def test_a_problem_of_a_remembered_day_is_still_told() -> None:
    before = day("2026-02-01", NOW - 60)
    broken = DayListing("2026-02-01", (), "cannot be listed")
    assert looked(broken, remembered=looked(before).stamps).problems == ("2026-02-01: cannot be listed",)


def test_without_any_partition_every_day_is_a_problem_and_none_is_ready() -> None:
    result = look([day("2026-02-01", NOW - 60)], [], {}, frozenset(), NOW, SETTLE)
    assert result.ready == ()
    assert result.problems == ("2026-02-01 has no partition; valid: none yet",)
