"""The champion's file: written by one process, read by the workers, and there at the next start."""

import datetime
import os
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from creditrisk_assets.cli.main import app
from creditrisk_assets.governance.ledger import LedgerError
from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.scoring.bundle_store import BundleStore
from serving.inference.champion_file import FILE, STALE_SECONDS, ChampionFile, Publisher
from serving.inference.champion_source import Materialization, PastChampion, SourceError

AT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678_901, datetime.UTC)
CHAMPION = {
    "model_version": "7",
    "artifact_uri": "/somewhere",
    "mlflow_uri": "models:/m/7",
    "bundle_sha256": "ab" * 32,
    "verdict": "promoted",
    "reason": "it's “better”",
    "rule": {"cut_off": 0.1 + 0.2, "reference": [1.0, None]},
    "documents_uri": "models/7",
    "ledger_entry": 3,
}
NEXT = {**CHAMPION, "model_version": "8"}


class Store:
    """A source and a ledger as a test wants them."""

    def __init__(self) -> None:
        self.materialized: list[Materialization] = []
        self.down = False
        self.foreign: set[str] = set()

    def name(self, values: dict[str, object]) -> None:
        self.materialized.insert(0, Materialization(AT, {**values, "plot": "x" * 100_000}))

    def materializations(self) -> list[Materialization]:
        if self.down:
            raise ConnectionError("nobody is there")
        return self.materialized

    def require_recorded(self, record: ChampionRecord) -> None:
        if record.model_version in self.foreign:
            raise LedgerError(f"version {record.model_version} is another store's")


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def file(tmp_path: Path) -> ChampionFile:
    return ChampionFile(tmp_path / "champion", BundleStore(tmp_path / "data"), 0)


def publisher(store: Store, file: ChampionFile) -> Publisher:
    return Publisher(store, store.require_recorded, file)


def record(values: dict[str, object] = CHAMPION) -> ChampionRecord:
    return ChampionRecord.from_values(values)


def test_workers_read_the_champion_to_the_bit_and_no_more_than_they_need(
    store: Store, file: ChampionFile
) -> None:
    publishing = publisher(store, file)
    publishing.publish()
    assert file.in_force() is None
    store.name(CHAMPION)
    publishing.publish()
    assert file.in_force() == record()
    assert file.history() == [PastChampion(AT, record())]
    assert file.history()[0].record.documents_uri == "models/7"
    store.name(NEXT)
    publishing.publish()
    assert [past.record.model_version for past in file.history()] == ["8", "7"]
    assert file.path.stat().st_size < 5_000
    assert [path.name for path in file.path.parent.iterdir()] == [FILE]


def test_a_source_that_cannot_be_read_is_a_problem_beside_the_champions_known_so_far(
    store: Store, file: ChampionFile
) -> None:
    publishing = publisher(store, file)
    store.name(CHAMPION)
    publishing.publish()
    store.down = True
    publishing.publish()
    with pytest.raises(SourceError, match="ConnectionError: nobody is there"):
        file.in_force()
    assert [past.record for past in file.history()] == [record()]
    publisher(store, file).publish()  # a publisher that has just started knows them, too
    assert [past.record for past in file.history()] == [record()]
    store.down = False
    publishing.publish()
    assert file.in_force() == record()


def test_a_source_that_has_lost_its_champions_is_a_problem(
    store: Store, file: ChampionFile
) -> None:
    store.name(CHAMPION)
    publisher(store, file).publish()
    store.materialized.clear()
    publisher(store, file).publish()
    with pytest.raises(SourceError, match="names no champion, although there was one"):
        file.in_force()
    assert [past.record for past in file.history()] == [record()]


def test_a_champion_that_the_ledger_does_not_have_is_not_published(
    store: Store, file: ChampionFile
) -> None:
    publishing = publisher(store, file)
    store.name(CHAMPION)
    publishing.publish()
    store.foreign.add("8")
    store.name(NEXT)
    publishing.publish()
    with pytest.raises(SourceError, match="LedgerError: version 8 is another store's"):
        file.in_force()
    assert [past.record for past in file.history()] == [record()]
    store.name({**CHAMPION, "model_version": "9"})
    publishing.publish()
    assert [past.record.model_version for past in file.history()] == ["9", "7"]


def test_a_file_that_is_not_written_any_more_is_stale(store: Store, file: ChampionFile) -> None:
    """Also if nothing has changed for long: as long as the source is read, it is fresh."""
    publishing = publisher(store, file)
    with pytest.raises(SourceError, match="was not read for 10 s"):
        file.in_force()
    publishing.publish()
    for seconds in (-1, 1):  # later than now: the clock was put back
        when = time.time() + seconds * (STALE_SECONDS + 1)
        os.utime(file.path, (when, when))
        with pytest.raises(SourceError, match="was not read for 10 s"):
            file.in_force()
    publishing.publish()
    assert file.in_force() is None
    file.path.unlink()
    publishing.publish()
    assert file.in_force() is None
    file.expire()
    with pytest.raises(SourceError, match="was not read for 10 s"):
        file.in_force()


def test_a_file_that_cannot_be_written_goes_stale_and_is_written_as_soon_as_it_can_be(
    store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.write_text("a file where a folder should be")
    file = ChampionFile(folder, BundleStore(tmp_path), 0)
    publishing = publisher(store, file)
    publishing.publish()
    with pytest.raises(SourceError, match="Not a directory"):
        file.in_force()
    folder.unlink()
    publishing.publish()
    assert file.in_force() is None


@pytest.mark.parametrize("content", ['{"history": 3}', "", "[]"])
def test_a_damaged_file_names_no_champion(content: str, file: ChampionFile) -> None:
    file.path.parent.mkdir()
    file.path.write_text(content)
    with pytest.raises(SourceError, match="cannot be read"):
        file.in_force()
    assert file.history() == []


def test_a_changed_file_names_no_champion(store: Store, file: ChampionFile) -> None:
    store.name(CHAMPION)
    publisher(store, file).publish()
    file.path.write_text(file.path.read_text().replace('"cut_off":', '"cut_off":1'))
    assert file.history() == []
    with pytest.raises(SourceError, match="cannot be read: its SHA-256 is"):
        file.in_force()


def test_at_its_start_a_worker_waits_for_the_first_publication_and_later_for_nothing(
    store: Store, tmp_path: Path
) -> None:
    file = ChampionFile(tmp_path / "champion", BundleStore(tmp_path), 30)
    later = threading.Timer(0.3, publisher(store, file).publish)
    later.start()
    assert file.in_force() is None
    later.join()
    file.path.unlink()
    begun = time.monotonic()
    with pytest.raises(SourceError, match="was not read"):
        file.in_force()
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("source", ["", "dagsterr", "ftp://dagster:3000"])
def test_what_is_no_source_is_refused_by_its_name_before_anything_starts(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDITRISK_CHAMPION_SOURCE", source)
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 1
    assert f"CREDITRISK_CHAMPION_SOURCE: {source!r}" in " ".join(result.stderr.split())
    assert "valid: 'dagster', or the http(s) URL" in " ".join(result.stderr.split())
