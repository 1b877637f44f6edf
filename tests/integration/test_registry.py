"""MLflow as it really is: its first use by several processes, its alias, its versions."""

import multiprocessing
import os
import shutil
import signal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import mlflow
import pytest
from upath import UPath

from creditrisk_assets.registry import Registry
from creditrisk_assets.scoring.bundle import BundleError, load_bundle
from creditrisk_assets.settings import Settings
from tests.support.copied_process import CopiedProcess
from tests.support.folders import copy_folder
from tests.support.loop import Loop
from tests.support.waiting import until


def _prepare(environment: dict[str, str]) -> str | None:
    os.environ.update(environment)
    registry = Registry(Settings())
    registry.prepare()
    return registry.champion_bundle()


def test_several_processes_may_use_a_new_store_at_once(fresh: Loop, tmp_path: Path) -> None:
    """MLflow alone can leave a broken database when two processes create it together, and machines share no lock."""
    shutil.rmtree(fresh.settings.mlflow_dir, ignore_errors=True)  # it is not made yet
    machines = [
        fresh.environment | {"DAGSTER_HOME": str(tmp_path / f"machine-{number}")}
        for number in range(3)
    ]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=spawn) as pool:
        assert list(pool.map(_prepare, machines)) == [None, None, None]


@pytest.mark.embedded("MLflow's file is of an embedded store")
def test_a_process_that_is_killed_while_mlflow_makes_its_database_leaves_none(fresh: Loop) -> None:
    """MLflow cannot go on with a database whose migrations were broken off: nothing could be trained any more."""
    folder = fresh.settings.mlflow_dir
    shutil.rmtree(folder)
    script = "from creditrisk_assets.registry import *; Registry(Settings()).prepare()"
    process = CopiedProcess(script, [], fresh.environment, fresh.home)
    began = folder / ".unfinished" / "mlflow.db"
    until(lambda: began.is_file() and began.stat().st_size > 100_000, 60)
    process.kill()
    assert process.ended() == -signal.SIGKILL
    assert not (folder / "mlflow.db").exists()
    assert began.exists()
    registry = Registry(fresh.settings)
    registry.prepare()
    assert registry.champion_bundle() is None
    assert sorted(path.name for path in folder.iterdir()) == [".prepare.lock", "mlflow.db"]


def test_a_champion_is_challenger_no_longer(trained: Loop) -> None:
    registry = Registry(trained.settings)
    version = trained.champion().model_version
    registry.set_challenger(version)
    registry.set_champion(version)
    client = mlflow.MlflowClient(trained.settings.tracking_uri, trained.settings.tracking_uri)
    assert {
        name: str(of) for name, of in client.get_registered_model("credit_default").aliases.items()
    } == {"champion": version}


def test_a_bundle_that_was_changed_after_registration_is_refused(
    trained: Loop, tmp_path: Path
) -> None:
    record = trained.champion()
    copy = tmp_path / "bundle"
    copy_folder(UPath(trained.bundle(record).location), copy)
    manifest = copy / "extra_files" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"cut_off": 0.', '"cut_off": 0.9'))
    with pytest.raises(BundleError, match=r"has SHA-256 .*; valid:"):
        load_bundle(str(copy), record.bundle_sha256)
