"""The landing zone in an object store: the same rules as on disk, over real HTTP against moto's S3 server."""

import hashlib
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import s3fs
from upath import UPath

from creditrisk_assets.landing.history import NoHistory, read_history
from creditrisk_assets.landing.ingestion import ingest, read_rejected
from creditrisk_assets.landing.listing import (
    DayListing,
    content_digest,
    land,
    list_day,
    list_days,
)
from creditrisk_assets.landing.table_reader import UnreadableFile, read_batches
from creditrisk_assets.storage import put_file, replacing, zone_path
from tests.support.buckets import BUCKET, put_key
from tests.support.examples import TINY

ROWS = pd.DataFrame({"id": ["1", "2"], "amount": [10, 20], "code": [1, 2]})


@pytest.fixture
def zone(bucket: UPath) -> UPath:
    """An empty landing zone."""
    return bucket / "landing" / "production"


# What lies there


def test_a_day_that_lands_in_a_bucket_is_listed_at_once(zone: UPath) -> None:
    """A listing that is remembered would never show the file that lands a minute later."""
    assert list_days(zone) == ([], [])
    land(zone / "2026-02-01", "a.csv", ROWS)
    days, _ = list_days(zone)
    assert [[file.path.name for file in day.files] for day in days] == [["a.csv"]]
    land(zone / "2026-02-01", "b.csv", ROWS)
    land(zone / "2026-02-02", "a.csv", ROWS)
    days, strangers = list_days(zone)
    assert [(day.day, [file.path.name for file in day.files]) for day in days] == [
        ("2026-02-01", ["a.csv", "b.csv"]),
        ("2026-02-02", ["a.csv"]),
    ]
    assert (strangers, days[0].problem) == ([], None)
    assert days[0].files[0].size == len(ROWS.to_csv(index=False))
    assert abs(days[0].files[0].modified - time.time()) < 60


def test_a_replaced_object_has_another_tag_and_the_same_content_the_same(zone: UPath) -> None:
    day = zone / "2026-02-01"
    land(day, "a.csv", ROWS)
    (before,) = list_day(day).files
    land(day, "a.csv", ROWS)
    assert list_day(day).files[0].tag == before.tag
    land(day, "a.csv", ROWS.assign(amount=[10, 21]))
    (after,) = list_day(day).files
    assert (after.size, after.tag != before.tag) == (before.size, True)


def test_hidden_and_temporary_objects_are_ignored_and_others_named(zone: UPath) -> None:
    for key in (
        "in.csv",
        ".in.csv",
        "_SUCCESS",
        "in.csv.part",
        "in.csv.tmp",
        "customers.xlsx",
        "archive/in.csv",
        ".aside/in.csv",
    ):
        put_key(f"2026-02-01/{key}")
    put_key("2026-02-01/", b"")  # what the console's button "create folder" makes
    listing = list_day(zone / "2026-02-01")
    assert [file.path.name for file in listing.files] == ["in.csv"]
    assert (listing.problem, listing.ignored_names) == (None, ("archive/", "customers.xlsx"))


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("2026-02-01/../x.csv", "'..'"),
        ("2026-02-01//x.csv", "''"),
        ("2026-02-01/./x.csv", "'.'"),
        ("2026-02-01/a\\b.csv", r"'a\\b.csv'"),
        ("2026-02-01/two\nlines.csv", r"'two\nlines.csv'"),
        ("2026-02-01/x?versionId=1.csv", "'x?versionId=1.csv'"),
    ],
    ids=range(6),
)
def test_a_key_that_leads_elsewhere_is_a_problem_of_its_day_and_is_not_read(
    zone: UPath, key: str, shown: str
) -> None:
    put_key("2026-02-01/in.csv")
    put_key(key)
    days, strangers = list_days(zone)
    assert days == [list_day(zone / "2026-02-01")]
    assert (
        days[0].problem
        == f"{shown} is not a plain name; valid: a file directly in the day's folder"
    )
    assert (days[0].files, strangers) == ((), [])


def test_a_folder_that_is_called_a_data_file_is_a_problem(zone: UPath) -> None:
    """Spark writes such folders."""
    put_key("2026-02-01/out.parquet/part-0.parquet")
    listing = list_day(zone / "2026-02-01")
    assert listing == DayListing(
        "2026-02-01", (), "out.parquet is a folder; only regular files are read"
    )


def test_what_lies_in_the_zone_and_in_no_day_is_named(zone: UPath) -> None:
    for key in (
        "loose.csv",
        "2026-02-30/in.csv",
        "../in.csv",
        "/in.csv",
        ".hidden/in.csv",
        "2026-02-01/in.csv",
    ):
        put_key(key)
    days, strangers = list_days(zone)
    assert [day.day for day in days] == ["2026-02-01"]
    assert strangers == ["", "..", "2026-02-30", "loose.csv"]


@pytest.mark.parametrize("name", ["we ird#%20?.csv", "*.csv", "[a].csv", "ä+&=.csv", "a:b.csv"])
def test_an_odd_but_plain_name_is_read_as_it_stands(zone: UPath, name: str) -> None:
    put_key(f"2026-02-01/{name}")
    listing = list_day(zone / "2026-02-01")
    assert listing.problem is None
    (file,) = listing.files
    assert file.path.name == name
    assert (
        b"".join(
            batch.cells.to_pandas()["id"].str.cat().encode() for batch in read_batches(file.path)
        )
        == b"9"
    )


def test_a_store_that_does_not_answer_is_a_problem_and_no_empty_zone(
    monkeypatch: pytest.MonkeyPatch, zone: UPath
) -> None:
    """What could not be read is never taken for what is not there."""
    land(zone / "2026-02-01", "a.csv", ROWS)
    with pytest.raises(OSError, match="bucket does not exist"):
        list_days(zone_path("s3://another-bank/landing"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    away = zone_path(f"s3://{BUCKET}/landing/production")
    monkeypatch.setattr(away.fs, "retries", 1)
    with pytest.raises(OSError, match="Could not connect"):
        list_days(away)
    problem = list_day(away / "2026-02-01").problem
    assert problem is not None
    assert "Could not connect" in problem


# Reading and writing


def test_csv_and_parquet_are_read_from_a_bucket_as_from_disk(zone: UPath, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "id": np.arange(200_000),
            "amount": rng.integers(0, 1_100, 200_000),
            "code": rng.integers(1, 4, 200_000),
        }
    )
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.iloc[50_000:].to_parquet(tmp_path / "b.parquet", row_group_size=40_000)
    for name in ("a.csv", "b.parquet"):
        (tmp_path / f"copy-{name}").write_bytes((tmp_path / name).read_bytes())
        put_file(tmp_path / f"copy-{name}", zone / "2026-02-01" / name)
    local = [tmp_path / "a.csv", tmp_path / "b.parquet"]
    stored = [file.path for file in list_day(zone / "2026-02-01").files]
    here, there = (
        ingest(paths, TINY, TINY.fields, tmp_path / name)
        for paths, name in ((local, "here"), (stored, "there"))
    )
    assert there.files == here.files
    assert there.accepted_file.read_bytes() == here.accepted_file.read_bytes()
    assert there.rejected_file is not None
    assert here.rejected_file is not None
    assert there.rejected_file.read_bytes() == here.rejected_file.read_bytes()
    assert content_digest(stored) == content_digest(local)


def test_an_object_that_is_no_table_is_unreadable_and_one_that_is_gone_is_not(zone: UPath) -> None:
    put_key("2026-02-01/broken.csv", b"\x00\x01")
    put_key("2026-02-01/broken.parquet", b"PAR1" + bytes(100) + b"PAR1")
    put_key("2026-02-01/empty.csv", b"")
    for name in ("broken.csv", "broken.parquet", "empty.csv"):
        with pytest.raises(UnreadableFile):
            list(read_batches(zone / "2026-02-01" / name))
    for name in ("gone.csv", "gone.parquet"):
        with pytest.raises(FileNotFoundError):
            read_batches(zone / "2026-02-01" / name)


def test_an_object_that_changes_while_it_is_read_is_no_mixture_of_both(zone: UPath) -> None:
    """The first half of one file and the second half of another, both with the same header, would look like one."""
    lines = [f"{number},10,1\n" for number in range(1_500_000)]
    put_key("2026-02-01/a.csv", b"id,amount,code\n" + "".join(lines).encode())
    with read_batches(zone / "2026-02-01" / "a.csv") as stream:
        batches = iter(stream)
        next(batches)
        put_key("2026-02-01/a.csv", b"id,amount,code\n" + "".join(reversed(lines)).encode())
        with pytest.raises(OSError, match="no longer exists"):
            list(batches)


def test_a_file_appears_in_a_bucket_whole_or_not_at_all(zone: UPath) -> None:
    path = zone / "2026-02-01" / "out.csv"
    with replacing(path) as file:
        file.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"

    def interrupted() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"half"
    assert [file.path.name for file in list_day(path.parent).files] == ["out.csv"]


def test_a_finished_file_of_many_megabytes_is_sent_in_parts_and_is_the_same_there(
    zone: UPath, tmp_path: Path
) -> None:
    local = tmp_path / "large.csv"
    content = np.random.default_rng(1).bytes(120 << 20)
    local.write_bytes(content)
    put_file(local, zone / "2026-02-01" / "large.csv")
    assert not local.exists()
    (file,) = list_day(zone / "2026-02-01").files
    assert file.size == len(content)
    with file.path.open("rb") as stored:
        assert hashlib.file_digest(stored, "sha256").digest() == hashlib.sha256(content).digest()  # type: ignore[arg-type]


def test_quarantine_is_written_to_a_bucket_and_read_back(zone: UPath, tmp_path: Path) -> None:
    put_key("2026-02-01/in.csv", b"id,amount,code\n1,ten,1\n2,10,1\n")
    result = ingest([zone / "2026-02-01" / "in.csv"], TINY, TINY.fields, tmp_path)
    assert result.rejected_file is not None
    place = zone.parent.parent / "quarantine" / "2026-02-01" / "production_batch.csv"
    put_file(result.rejected_file, place)
    assert read_rejected(place)["message"].tolist() == [
        "amount: 'ten' is not a number; valid: a whole number from 0 to 1000 (NT$)"
    ]


def test_a_history_is_read_from_a_bucket(zone: UPath) -> None:
    content = b"ID,Amount,Code,Bad\n1,10,1,0\n2,20,2,1\n"
    put_key("past.csv", content)
    history = read_history(f"s3://{BUCKET}/landing/production/past.csv", TINY)
    assert history.rows.accepted["bad"].tolist() == [0, 1]
    assert (history.source, history.sha256) == (
        "file past.csv",
        hashlib.sha256(content).hexdigest(),
    )
    with pytest.raises(NoHistory):
        read_history(f"s3://{BUCKET}/landing/production/none.csv", TINY)
