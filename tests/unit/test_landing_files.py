"""The landing zone: what counts as a day and as a file, reading one, and writing so that a file is whole or not there."""

import contextlib
import datetime
import hashlib
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.portfolio.landing import (
    UnreadableFile,
    content_digest,
    is_day,
    land,
    list_day,
    list_days,
    read_rows,
    replacing,
    write_quarantine,
)
from tests.unit.helpers import write_lines


@given(st.dates())
def test_every_calendar_day_is_a_day(day: datetime.date) -> None:
    assert is_day(day.isoformat())


@pytest.mark.parametrize(
    "name", ["2026-02-30", "2026-13-01", "20260201", "2026-2-1", "2026-02-01 ", "2026-02-01\n", "today", "", "\uff12026-02-01"]
)
def test_a_folder_that_is_no_calendar_day_is_not_taken_for_one(name: str) -> None:
    """One such name given to Dagster as a partition stops the sensor for every other day."""
    assert not is_day(name)


def test_only_data_files_of_a_day_are_listed_by_name(tmp_path: Path) -> None:
    """A file that is still being copied (.part, hidden) or an editor's own must not be read as customers."""
    for name in ("b.csv", "a.PARQUET", ".hidden.csv", "~b.csv", "_SUCCESS.csv", "c.csv.part", "readme.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.csv").mkdir()
    listing = list_day(tmp_path)
    assert [file.path.name for file in listing.files] == ["a.PARQUET", "b.csv"]
    assert listing.problem is None
    assert listing.files[1].size == 1


def test_a_linked_file_is_a_problem_and_not_an_empty_day(tmp_path: Path) -> None:
    """A link may point at anything, and its target's time is not the file's."""
    outside = write_lines(tmp_path / "outside.csv", ["id,x", "1,2"])
    day = tmp_path / "2026-02-01"
    day.mkdir()
    (day / "in.csv").symlink_to(outside)
    assert list_day(day).problem == "in.csv is a link; only regular files are read"


def test_a_folder_that_cannot_be_listed_is_a_problem_and_not_an_empty_day(tmp_path: Path) -> None:
    """What could not be read is never taken for what is not there."""
    gone = list_day(tmp_path / "2026-02-01")
    assert gone.files == ()
    assert gone.problem is not None
    assert "No such file" in gone.problem


def test_days_come_in_order_strangers_are_named_and_empty_days_are_none(tmp_path: Path) -> None:
    for name in ("2026-02-02", "2026-02-01"):
        land(tmp_path / name, "in.csv", pd.DataFrame({"id": [1], "x": [2]}))
    for name in ("2026-02-03", "backup", ".git", "2026-02-31"):
        (tmp_path / name).mkdir()
    (tmp_path / "loose.csv").write_text("x")
    days, strangers = list_days(tmp_path)
    assert [day.day for day in days] == ["2026-02-01", "2026-02-02"]
    assert strangers == ["2026-02-31", "backup"]


def test_a_zone_that_does_not_exist_yet_is_empty(tmp_path: Path) -> None:
    assert list_days(tmp_path / "production") == ([], [])


def test_the_content_digest_tells_any_change_of_name_content_or_number_of_files(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_csv_is_read_the_same_in_every_dialect(tmp_path: Path, delimiter: str, mark: bytes, ending: str) -> None:
    """Excel writes semicolons, a byte-order mark and carriage returns."""
    lines = ["ID,Pay.0,note", '1,"2","a b"', "2,3,"]
    text = ending.join(lines).replace(",", delimiter) + ending
    path = tmp_path / "in.csv"
    path.write_bytes(mark + text.encode())
    rows = read_rows(path)
    assert rows.cells.to_dict("list") == {"id": ["1", "2"], "pay_0": ["2", "3"], "note": ["a b", ""]}
    assert rows.headers == ["ID", "Pay.0", "note"]
    assert (rows.lines, rows.malformed) == ([2, 3], [])


def test_rows_keep_their_line_numbers_past_empty_and_malformed_lines(tmp_path: Path) -> None:
    """The line in a quarantine entry is what a person looks up in the file."""
    path = write_lines(tmp_path / "in.csv", ["id,x", "1,a", "", "2,b,extra", "3,c", "4", "5,d"])
    rows = read_rows(path)
    assert rows.cells["id"].tolist() == ["1", "3", "5"]
    assert rows.lines == [2, 5, 7]
    assert rows.malformed == [
        (4, "3 cells where the header has 2", "2,b,extra"),
        (6, "1 cells where the header has 2", "4"),
    ]
    assert rows.count == 5


def test_malformed_lines_are_found_beyond_the_first_block_of_a_large_file(tmp_path: Path) -> None:
    """The reader works in blocks of a megabyte; a line number counted within its block would point elsewhere."""
    lines = ["id,x", *(f"{number},{'x' * 40}" for number in range(2, 60_002))]
    lines[50_000] += ",9"  # line 50,001
    rows = read_rows(write_lines(tmp_path / "in.csv", lines))
    assert [line for line, *_ in rows.malformed] == [50_001]
    assert rows.cells["id"].tolist() == [str(line) for line in rows.lines]
    assert rows.count == 60_000


def test_a_cell_is_kept_as_its_own_text(tmp_path: Path) -> None:
    """Leading zeros of an identifier, "NA" and "1e3" are for validation to judge, not for the reader to change."""
    path = write_lines(tmp_path / "in.csv", ["id,x", "007,NA", "1e3, 5 ", "null,nan"])
    assert read_rows(path).cells.to_dict("list") == {"id": ["007", "1e3", "null"], "x": ["NA", " 5 ", "nan"]}


def test_parquet_is_read_whatever_index_pandas_stored_in_it(tmp_path: Path) -> None:
    """A frame hides columns that were an index; a filtered frame carries its old row numbers."""
    frame = pd.DataFrame({"ID": ["1", "2", "3"], "x": [5, 6, 7]})
    for number, stored in enumerate((frame, frame.set_index("ID"), frame.iloc[1:], frame[frame["x"] != 6])):
        path = tmp_path / f"{number}.parquet"
        stored.to_parquet(path)
        rows = read_rows(path)
        wanted = stored.reset_index() if stored.index.name else stored
        assert rows.cells["id"].tolist() == wanted["ID"].tolist()
        assert rows.cells["x"].tolist() == wanted["x"].tolist()
        assert rows.cells.index.tolist() == list(range(len(wanted)))
        assert rows.lines == list(range(1, len(wanted) + 1))


def test_an_unreadable_file_says_why(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"")
    with pytest.raises(UnreadableFile, match="empty"):
        read_rows(path)


@given(old=st.none() | st.binary(), new=st.binary(min_size=1), fails_after=st.none() | st.integers(0, 20))
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


def test_a_clean_day_leaves_no_quarantine_of_an_earlier_attempt(tmp_path: Path) -> None:
    """A corrected file must not stand beside yesterday's complaints about it."""
    rejected = pd.DataFrame([{"file": "in.csv", "line": 2, "message": "age: missing"}])
    path = write_quarantine(tmp_path / "2026-02-01", rejected)
    assert path is not None
    assert pd.read_csv(path).to_dict("records") == rejected.to_dict("records")
    assert write_quarantine(path.parent, rejected.iloc[:0]) is None
    assert not path.exists()
    assert write_quarantine(tmp_path / "never", rejected.iloc[:0]) is None


def test_the_digest_of_a_large_file_is_over_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    content = bytes(3 << 20)
    path.write_bytes(content)
    expected = hashlib.sha256(f"large.csv\0{hashlib.sha256(content).hexdigest()}\n".encode()).hexdigest()
    assert content_digest([path]) == expected
