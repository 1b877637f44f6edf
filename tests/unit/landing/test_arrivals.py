"""Selection of the landed days that may be read now."""

from creditrisk_assets.landing.arrivals import Arrivals, find_arrivals
from creditrisk_assets.landing.listing import DayListing, LandedFile, listing_stamp
from creditrisk_assets.storage import zone_path

NOW, SETTLE = 1_000_000.0, 5.0
FIRST, LAST = "2026-02-01", "2026-02-03"


def file(name: str, modified: float = NOW - 60, tag: str = "a") -> LandedFile:
    return LandedFile(zone_path(name), 10, modified, tag)


def day(
    name: str, *modified: float, tag: str = "a", ignored_names: tuple[str, ...] = ()
) -> DayListing:
    files = tuple(file(f"{number}.csv", when, tag) for number, when in enumerate(modified))
    return DayListing(name, files, None, ignored_names)


def looked(
    *days: DayListing, remembered: dict[str, str] | None = None, unrecognised: tuple[str, ...] = ()
) -> Arrivals:
    return find_arrivals(days, unrecognised, remembered or {}, FIRST, LAST, NOW, SETTLE)


def test_a_new_day_whose_files_have_settled_is_ready_with_a_stamp_to_remember() -> None:
    new = day("2026-02-01", NOW - 60, NOW - 5)
    result = looked(new)
    assert result == Arrivals((new,), {"2026-02-01": listing_stamp(new)}, (), ())


def test_a_day_that_was_dealt_with_is_not_read_again_until_it_changes() -> None:
    before = day("2026-02-01", NOW - 60)
    remembered = looked(before).stamps
    assert looked(before, remembered=remembered) == Arrivals((), {}, (), ())
    for changed in (
        day("2026-02-01", NOW - 60, tag="b"),
        day("2026-02-01", NOW - 60, NOW - 60),
        DayListing("2026-02-01", (file("other.csv"),)),
    ):
        assert looked(changed, remembered=remembered).ready == (changed,)


def test_a_file_that_was_only_copied_again_is_the_same_file() -> None:
    """A store gives the same tag for the same content, and a run over the same files would give the same bytes."""
    before = day("2026-02-01", NOW - 60)
    assert looked(day("2026-02-01", NOW - 30), remembered=looked(before).stamps).ready == ()


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
    """A single partition key that does not exist stops a whole tick of the sensor."""
    good = day("2026-02-03", NOW - 60)
    result = looked(
        day("2026-01-31", NOW - 60),
        DayListing("2026-02-02", (), "in.csv is a link; only regular files are read"),
        good,
        day("2026-02-09", NOW - 60),
        unrecognised=("backup", "2026-02-30", "20260201", "1.2.2026", "loose.csv"),
    )
    assert result.ready == (good,)
    assert result.problems == (
        "'backup' is not a day; valid: a folder named YYYY-MM-DD",
        "'2026-02-30' is no day's folder: the calendar has no such day, or it is a file; valid: a folder named YYYY-MM-DD",
        "'20260201' is a date in another form; valid: a folder named YYYY-MM-DD",
        "'1.2.2026' is a date in another form; valid: a folder named YYYY-MM-DD",
        "'loose.csv' lies outside of any day; valid: in a folder named YYYY-MM-DD",
        "2026-01-31 is before the earliest day; valid: 2026-02-01 to 2026-02-03",
        "2026-02-02: in.csv is a link; only regular files are read",
        "2026-02-09 is in the future; valid: 2026-02-01 to 2026-02-03",
    )


def test_a_file_of_another_kind_is_told_and_the_day_is_read_without_it() -> None:
    """The source of customers.xlsx must learn that it is not read; other files are not held back for it."""
    new = day("2026-02-01", NOW - 60, ignored_names=("customers.xlsx",))
    only = day("2026-02-02", ignored_names=("archive/",))
    result = looked(new, only)
    assert result.ready == (new,)
    assert result.problems == (
        "2026-02-01: customers.xlsx is not read; valid: a file that ends in .csv, .csv.gz or .parquet",
        "2026-02-02: archive/ is not read; valid: a file that ends in .csv, .csv.gz or .parquet",
    )


def test_a_problem_of_a_remembered_day_is_still_told() -> None:
    before = day("2026-02-01", NOW - 60)
    broken = DayListing("2026-02-01", (), "cannot be listed")
    assert looked(broken, remembered=looked(before).stamps).problems == (
        "2026-02-01: cannot be listed",
    )


def test_before_the_first_day_every_day_is_a_problem_and_none_is_ready() -> None:
    result = find_arrivals(
        [day("2026-02-01", NOW - 60)], [], {}, "2026-02-01", "2026-01-31", NOW, SETTLE
    )
    assert result.ready == ()
    assert result.problems == ("2026-02-01 is in the future; valid: none yet",)
