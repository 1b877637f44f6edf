"""The landing zone: what counts as a day and as a file, and writing so that a file is whole or not there."""

import contextlib
import datetime
import hashlib
import os
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.landing.listing import (
    DayListing,
    content_digest,
    is_day,
    land,
    list_day,
    list_days,
)
from creditrisk_assets.storage import put_file, replacing, zone_path
from tests.support.examples import write_lines


@given(st.dates())
def test_every_calendar_day_is_a_day(day: datetime.date) -> None:
    assert is_day(day.isoformat())


@pytest.mark.parametrize(
    "name",
    [
        "2026-02-30",
        "2026-13-01",
        "20260201",
        "2026-2-1",
        "2026-02-01 ",
        "2026-02-01\n",
        "today",
        "",
        "\uff12026-02-01",
    ],
)
def test_a_folder_that_is_no_calendar_day_is_not_taken_for_one(name: str) -> None:
    """A single such name given to Dagster as a partition stops the sensor for every other day."""
    assert not is_day(name)


def test_only_data_files_of_a_day_are_listed_by_name(tmp_path: Path) -> None:
    """A file that is still being copied, hidden or an editor's own must not be read as customers, nor spoken of; of any other
    file people must learn that it is not read.
    """
    passing = [
        ".hidden.csv",
        "~b.csv",
        "_SUCCESS.csv",
        "c.csv.part",
        "d.csv.TMP",
        "e.partial",
        "f.filepart",
        "g.crdownload",
        "h.swp",
        "b.csv~",
    ]
    for name in (
        "b.csv",
        "a.PARQUET",
        "readme.txt",
        "customers.xlsx",
        "in.csv.zip",
        "in.csv.gz",
        *passing,
    ):
        (tmp_path / name).write_text("x")
    (tmp_path / "archive").mkdir()
    (tmp_path / ".git").mkdir()
    listing = list_day(tmp_path)
    assert [file.path.name for file in listing.files] == ["a.PARQUET", "b.csv", "in.csv.gz"]
    assert listing.problem is None
    assert listing.ignored_names == ("archive/", "customers.xlsx", "in.csv.zip", "readme.txt")
    assert listing.files[1].size == 1


def test_a_replaced_file_has_another_tag_although_its_size_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("1")
    (before,) = list_day(tmp_path).files
    assert list_day(tmp_path).files == (before,)
    with replacing(path) as file:
        file.write(b"2")
    (after,) = list_day(tmp_path).files
    assert after.tag != before.tag


def test_a_linked_file_is_a_problem_and_not_an_empty_day(tmp_path: Path) -> None:
    """A link may point at anything, and its target's time is not the file's."""
    outside = write_lines(tmp_path / "outside.csv", ["id,x", "1,2"])
    day = tmp_path / "2026-02-01"
    day.mkdir()
    (day / "in.csv").symlink_to(outside)
    assert list_day(day).problem == "in.csv is a link; only regular files are read"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_called_a_data_file_and_is_none_is_a_problem(tmp_path: Path, kind: str) -> None:
    """Reading a pipe would wait for ever."""
    path = tmp_path / "in.csv"
    if kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    what = "a folder" if kind == "folder" else "no file"
    assert list_day(tmp_path).problem == f"in.csv is {what}; only regular files are read"


@pytest.mark.parametrize("name", [b"a\\b.csv", b"two\nlines.csv", b"\xff.csv", b"bell\x07.csv"])
def test_a_name_that_is_not_plain_is_a_problem(tmp_path: Path, name: bytes) -> None:
    """It could lead elsewhere, forge a line of the log, or stop whatever writes it down as text."""
    (tmp_path / os.fsdecode(name)).write_text("x")
    problem = list_day(tmp_path).problem
    assert (
        problem
        == f"{os.fsdecode(name)!r} is not a plain name; valid: a file directly in the day's folder"
    )
    assert problem.isprintable()


def test_a_linked_day_is_a_problem_and_is_not_followed(tmp_path: Path) -> None:
    """It may lead out of the zone, or to another day."""
    land(tmp_path / "elsewhere", "in.csv", pd.DataFrame({"id": [1], "x": [2]}))
    zone = tmp_path / "zone"
    zone.mkdir()
    (zone / "2026-02-01").symlink_to(tmp_path / "elsewhere")
    (zone / "backup").symlink_to(tmp_path / "elsewhere")
    days, strangers = list_days(zone)
    assert days == [
        DayListing("2026-02-01", (), "2026-02-01 is a link; valid: a folder of its own in the zone")
    ]
    assert strangers == ["backup"]


def test_a_folder_that_cannot_be_listed_is_a_problem_and_not_an_empty_day(tmp_path: Path) -> None:
    """An unreadable item never counts as a missing one."""
    gone = list_day(tmp_path / "2026-02-01")
    assert gone.files == ()
    assert gone.problem is not None
    assert "No such file" in gone.problem


def test_days_come_in_order_strangers_are_named_and_empty_days_are_none(tmp_path: Path) -> None:
    """A file next to the day folders instead of in one would otherwise go unnoticed."""
    for name in ("2026-02-02", "2026-02-01"):
        land(tmp_path / name, "in.csv", pd.DataFrame({"id": [1], "x": [2]}))
    for name in ("2026-02-03", "2026-02-04", "backup", ".git", "2026-02-31"):
        (tmp_path / name).mkdir()
    for name in ("loose.csv", ".loose.csv", "2026-02-05", "2026-02-04/customers.xlsx"):
        (tmp_path / name).write_text("x")
    days, strangers = list_days(tmp_path)
    assert [day.day for day in days] == ["2026-02-01", "2026-02-02", "2026-02-04"]
    assert strangers == ["2026-02-05", "2026-02-31", "backup", "loose.csv"]


def test_a_zone_that_does_not_exist_yet_is_empty(tmp_path: Path) -> None:
    assert list_days(tmp_path / "production") == ([], [])


def test_the_content_digest_tells_any_change_of_name_content_or_number_of_files(
    tmp_path: Path,
) -> None:
    """It is part of a run's key: a corrected file that gave the same key would never be read."""
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_bytes(b"a")
    two.write_bytes(b"b")
    before = content_digest([one, two])
    assert content_digest([one, two]) == before
    seen = {before, content_digest([one]), content_digest([two]), content_digest([])}
    one.write_bytes(b"b")
    two.write_bytes(b"a")
    seen.add(content_digest([one, two]))
    assert len(seen) == 5


@given(
    old=st.none() | st.binary(),
    new=st.binary(min_size=1),
    fails_after=st.none() | st.integers(0, 20),
)
def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, old: bytes | None, new: bytes, fails_after: int | None
) -> None:
    """A reader, or the next run after a crash, must never find half a file, nor a leftover that looks like data."""
    path = tmp_path_factory.mktemp("replacing") / "folder" / "out.csv"
    if old is not None:
        path.parent.mkdir()
        path.write_bytes(old)
    with contextlib.suppress(ConnectionError), replacing(path) as file:
        file.write(new[:fails_after])
        if fails_after is not None:
            raise ConnectionError
    if fails_after is None:
        assert path.read_bytes() == new
    elif old is None:
        assert not path.exists()
    else:
        assert path.read_bytes() == old
    assert [one.name for one in path.parent.iterdir()] in ([], ["out.csv"])


def test_an_interrupted_writer_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    """Ctrl-C and SystemExit are not `Exception`."""
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with replacing(path) as file:
            file.write(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("out.csv", b"old")]


def test_while_a_file_is_written_the_landing_zone_does_not_show_it(tmp_path: Path) -> None:
    with replacing(tmp_path / "in.csv") as file:
        file.write(b"half")
        file.flush()
        assert list_day(tmp_path).files == ()
    assert [one.path.name for one in list_day(tmp_path).files] == ["in.csv"]


def test_a_written_file_can_be_read_by_other_users(tmp_path: Path) -> None:
    """Temporary files are private; the API and the daemon may be other users than the one who lands files."""
    path = land(tmp_path, "in.csv", pd.DataFrame({"id": [1], "x": [2]}))
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "name", ["../in.csv", "in.xlsx", ".in.csv", "in.csv.tmp", "", "..", "a/b.csv"]
)
def test_nothing_is_landed_under_a_name_that_would_not_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        ValueError, match=r"would not be read; valid: a plain name that ends in \.csv"
    ):
        land(tmp_path / "2026-02-01", name, pd.DataFrame({"id": [1], "x": [2]}))
    assert list(tmp_path.iterdir()) == []


def test_a_finished_file_is_moved_to_its_place_in_one_step(tmp_path: Path) -> None:
    local, path = tmp_path / "result", tmp_path / "deep" / "folder" / "out.parquet"
    local.write_bytes(b"new")
    put_file(local, path)
    assert not local.exists()
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in path.parent.iterdir()] == ["out.parquet"]


def test_a_finished_file_is_moved_from_another_disk(tmp_path: Path) -> None:
    """Temporary folders often lie on another file system, where a rename is refused."""
    memory = Path("/dev/shm")  # noqa: S108
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        local = Path(folder) / "result"
        local.write_bytes(b"new")
        put_file(local, tmp_path / "out.parquet")
        assert not local.exists()
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("out.parquet", b"new")]


@pytest.mark.parametrize("place", ["/data/zone", "file:///data/zone"])
def test_a_local_place_is_a_local_path_however_it_is_written(place: str) -> None:
    assert zone_path(place) == Path("/data/zone")
    assert zone_path(zone_path(place)) == Path("/data/zone")
    assert not zone_path("data").is_absolute()


def test_the_digest_of_a_large_file_is_over_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    content = bytes(3 << 20)
    path.write_bytes(content)
    expected = hashlib.sha256(
        f"large.csv\0{hashlib.sha256(content).hexdigest()}\n".encode()
    ).hexdigest()
    assert content_digest([path]) == expected
