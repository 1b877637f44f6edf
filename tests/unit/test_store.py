"""The identity of a store, its bundles and models below one folder, and the modes of its files."""

import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from upath import UPath

from creditrisk_assets.mlflow_addresses import move_artifacts
from creditrisk_assets.scoring.bundle import GRAPH, Bundle, BundleError, BundlePlace
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.scoring.model_folders import ModelError, ModelFolders, ModelRecord
from creditrisk_assets.settings import Settings, StoreLocation
from creditrisk_assets.storage import create_file, put_file, replacing
from creditrisk_assets.store import IDENTITY, StoreMismatch, claim_folder, open_store, read_identity
from tests.support.examples import written_bundle
from tests.support.places import REPOSITORY


def settings_of(folder: Path) -> Settings:
    return Settings(data_dir=UPath(folder))


def test_a_new_store_gets_an_identity_once(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "data")
    assert read_identity(settings) is None
    assert not (tmp_path / "data").exists()
    first = open_store(settings)
    assert (first.portfolio, first.format) == ("uci_card", 1)
    assert open_store(settings) == read_identity(settings) == first
    assert open_store(settings_of(tmp_path / "other")).id != first.id


def test_a_store_of_another_portfolio_or_format_is_refused_by_name(tmp_path: Path) -> None:
    identity = open_store(settings_of(tmp_path))
    document = tmp_path / IDENTITY
    document.chmod(0o644)
    for changed, message in (
        ({"portfolio": "loans"}, "is of portfolio 'loans' and CREDITRISK_PORTFOLIO is 'uci_card'"),
        ({"format": 9}, "has format 9; valid for this release: 1"),
    ):
        document.write_text(identity.model_copy(update=changed).model_dump_json())
        with pytest.raises(StoreMismatch, match=message):
            open_store(settings_of(tmp_path))
    document.write_text("{}")
    with pytest.raises(StoreMismatch, match="is not the identity of a store"):
        open_store(settings_of(tmp_path))


def test_a_store_without_identity_is_refused_and_not_taken_for_a_new_one(tmp_path: Path) -> None:
    """An empty ledger beside old decisions would name a first champion without a gate."""
    (tmp_path / "decisions" / "2026-03-01").mkdir(parents=True)
    with pytest.raises(StoreMismatch, match=r"holds decisions and no store\.json"):
        open_store(settings_of(tmp_path))
    assert not (tmp_path / IDENTITY).exists()


def test_a_folder_of_another_store_is_refused(tmp_path: Path) -> None:
    first, second = (open_store(settings_of(tmp_path / name)) for name in ("first", "second"))
    folder = UPath(tmp_path / "api")
    claim_folder(folder, first)
    claim_folder(folder, first)
    with pytest.raises(
        StoreMismatch,
        match=f"belongs to store {first.id}, and CREDITRISK_DATA_DIR names store {second.id}",
    ):
        claim_folder(folder, second)


def test_the_default_store_is_beside_the_dagster_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that is run in another folder must not begin a store of its own there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert Path(str(StoreLocation().data_dir)).resolve() == tmp_path / "data"
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "project"))
    assert Path(str(StoreLocation().data_dir)) == tmp_path / "project" / "data"
    monkeypatch.setenv("CREDITRISK_DATA_DIR", "elsewhere")
    assert Path(str(StoreLocation().data_dir)) == Path("elsewhere")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return written_bundle(tmp_path / "made", 0, pd.DataFrame({"a": [1.0]})).load()


def test_a_bundle_is_stored_whole_and_a_damaged_copy_is_replaced(
    tmp_path: Path, bundle: Bundle
) -> None:
    store = BundleStore(UPath(tmp_path / "data"))
    place = store.put(bundle)
    assert place == BundlePlace(
        artifact_uri=f"bundles/{bundle.sha256}", bundle_sha256=bundle.sha256
    )
    graph = tmp_path / "data" / place.artifact_uri / GRAPH
    graph.write_bytes(b"")
    with pytest.raises(BundleError, match="has SHA-256"):
        store.load(bundle.sha256)
    store.put(bundle)
    shutil.rmtree(bundle.location)
    assert store.load(bundle.sha256).sha256 == bundle.sha256
    with pytest.raises(BundleError, match="cannot read"):
        store.load("0" * 64)


def test_a_number_means_one_bundle_for_ever(tmp_path: Path) -> None:
    models = ModelFolders(UPath(tmp_path))
    assert models.versions() == []
    with pytest.raises(ModelError, match=r"no model version 7 in .*; valid: none yet"):
        models.record("7")
    for version, mlflow_version, sha256 in (("2", "2", "b"), ("10", "12", "c"), ("1", "1", "a")):
        place = BundlePlace(artifact_uri=f"bundles/{sha256}", bundle_sha256=sha256)
        models.write(
            ModelRecord(
                version=version,
                mlflow_version=mlflow_version,
                run_id="r",
                bundle=place,
                fallback=None,
            )
        )
    assert models.versions() == [1, 2, 10]
    found = models.find("c")
    assert found is not None
    assert (found.version, found.mlflow_version) == ("10", "12")
    assert models.find("d") is None
    assert (
        models.put_documents("10", {"card.html": "<p>", "roc.png": b"png"}, "plots")
        == "models/10/plots"
    )
    assert models.documents("10") == {"plots/card.html": b"<p>", "plots/roc.png": b"png"}
    assert models.has_document("10", "plots/roc.png")
    assert not models.has_document("10", "roc.png")


def test_addresses_of_a_moved_store_are_rewritten_and_others_stay(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    with sqlite3.connect(database) as connection:
        for table, columns in (
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("model_versions", "source, storage_location"),
            ("experiments", "artifact_location"),
        ):
            connection.execute(f"create table {table} ({columns})")
        connection.executemany(
            "insert into runs values (?)",
            [("file:///old/a_b/1",), ("file:///old/a_bc",), ("file:///old/aXb/1",), (None,)],
        )
        connection.execute("insert into experiments values ('file:///old/a_b')")
        connection.execute("insert into model_versions values ('models:/m-1', 'file:///old/a_b/m')")
    move_artifacts(f"sqlite:///{database}", "file:///old/a_b", "file:///new place")
    with sqlite3.connect(database) as connection:
        addresses = [row[0] for row in connection.execute("select artifact_uri from runs")]
        assert addresses == ["file:///new place/1", "file:///old/a_bc", "file:///old/aXb/1", None]
        assert connection.execute("select * from experiments").fetchall() == [
            ("file:///new place",)
        ]
        assert connection.execute("select * from model_versions").fetchall() == [
            ("models:/m-1", "file:///new place/m")
        ]


@pytest.fixture(params=[0o077, 0o027, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_nothing_is_written_wider_than_the_umask_allows(tmp_path: Path, umask: int) -> None:
    place = UPath(tmp_path / "data")
    with replacing(place / "scores.parquet") as file:
        file.write(b"rows")
    staged = tmp_path / "staged"
    staged.write_bytes(b"rows")
    staged.chmod(0o600)
    put_file(staged, place / "decisions.parquet")
    create_file(place / "entry.json", b"{}")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path(str(place)).iterdir()}
    assert modes == {
        "scores.parquet": 0o666 & ~umask,
        "decisions.parquet": 0o666 & ~umask,
        "entry.json": 0o444 & ~umask,
    }


@pytest.mark.starts_processes
def test_make_renews_the_environment_of_a_clone_that_was_renamed(tmp_path: Path) -> None:
    """Its programs name an interpreter that is no longer there."""
    clone = tmp_path / "a clone"
    clone.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements-dev.lock"):
        shutil.copy(REPOSITORY / name, clone / name)
    (clone / ".venv").mkdir()

    def planned(made_in: Path) -> str:
        (clone / ".venv" / ".ready").write_text(str(made_in))
        made = subprocess.run(
            ["make", "-n", "setup"], cwd=clone, capture_output=True, text=True, check=True
        )
        return made.stdout

    assert "-m venv" not in planned(clone)
    assert "-m venv --clear .venv" in planned(tmp_path / "its old name")
