"""What one process reads of the source and the workers take from a file."""

import datetime
import os
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from creditrisk_assets.cli.main import app
from serving.inference.champion_source import (
    HISTORY_LIMIT,
    Materialization,
    SourceError,
    champion_in,
    contender_in,
)
from serving.inference.published import STALE_SECONDS, PublishedSource, Publisher

AT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678_901, datetime.UTC)
CHAMPION = {
    "model_version": "7",
    "artifact_uri": "/somewhere",
    "mlflow_uri": "models:/m/7",
    "bundle_sha256": "ab" * 32,
    "verdict": "promoted",
    "reason": "it's “better”",
    "rule": {"cut_off": 0.1 + 0.2, "reference": [1.0, None]},
}


class Store:
    """What a test says was materialized."""

    def __init__(self) -> None:
        self.said: dict[str, list[Materialization]] = {}
        self.down = False

    def materializations(self, asset: str, limit: int) -> list[Materialization]:
        if self.down:
            raise ConnectionError("nobody is there")
        return self.said.get(asset, [])[:limit]


@pytest.fixture
def store() -> Store:
    return Store()


def test_workers_see_what_the_source_says_to_the_bit_and_no_more_than_they_need(
    store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "run" / "champion.json"
    publisher, source = Publisher(store, file), PublishedSource(file, 0)
    publisher.publish()
    assert champion_in(source) is None
    store.said["champion"] = [Materialization(AT, {**CHAMPION, "plot": "x" * 100_000})]
    store.said["model"] = [Materialization(AT, CHAMPION)]
    publisher.publish()
    assert champion_in(source) == champion_in(store)
    assert contender_in(source) == contender_in(store)
    assert source.materializations("champion", HISTORY_LIMIT) == [Materialization(AT, CHAMPION)]
    assert source.materializations("champion", 0) == []
    assert file.stat().st_size < 5_000
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_source_that_cannot_be_read_is_told_and_so_is_its_return(
    store: Store, tmp_path: Path
) -> None:
    publisher, source = (
        Publisher(store, tmp_path / "champion.json"),
        PublishedSource(tmp_path / "champion.json", 0),
    )
    store.down = True
    publisher.publish()
    with pytest.raises(SourceError, match="ConnectionError: nobody is there"):
        champion_in(source)
    store.down = False
    publisher.publish()
    assert champion_in(source) is None


def test_what_nobody_writes_any_more_is_not_believed(store: Store, tmp_path: Path) -> None:
    """Also if nothing has changed for long: as long as it is read, it is fresh."""
    file = tmp_path / "champion.json"
    publisher, source = Publisher(store, file), PublishedSource(file, 0)
    with pytest.raises(SourceError, match="was not read for 10 s"):
        champion_in(source)
    publisher.publish()
    for seconds in (-1, 1):  # later than now: the clock was put back
        when = time.time() + seconds * (STALE_SECONDS + 1)
        os.utime(file, (when, when))
        with pytest.raises(SourceError, match="was not read for 10 s"):
            champion_in(source)
    publisher.publish()
    assert champion_in(source) is None
    file.unlink()
    publisher.publish()
    assert champion_in(source) is None


def test_a_file_that_cannot_be_written_goes_stale_and_is_written_as_soon_as_it_can_be(
    store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.write_text("a file where a folder should be")
    publisher, source = (
        Publisher(store, folder / "champion.json"),
        PublishedSource(folder / "champion.json", 0),
    )
    publisher.publish()
    with pytest.raises(SourceError, match="Not a directory"):
        champion_in(source)
    folder.unlink()
    publisher.publish()
    assert champion_in(source) is None


def test_what_is_no_publication_is_told(tmp_path: Path) -> None:
    (tmp_path / "champion.json").write_text('{"materializations": 3}')
    with pytest.raises(SourceError, match="cannot be read"):
        champion_in(PublishedSource(tmp_path / "champion.json", 0))


def test_at_its_start_a_worker_waits_for_the_first_word_and_later_for_nothing(
    store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "champion.json"
    source = PublishedSource(file, 30)
    later = threading.Timer(0.3, Publisher(store, file).publish)
    later.start()
    assert champion_in(source) is None
    later.join()
    file.unlink()
    begun = time.monotonic()
    with pytest.raises(SourceError, match="was not read"):
        champion_in(source)
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
