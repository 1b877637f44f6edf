"""A real loop: real Dagster instance, real MLflow store, real files or objects; jobs and sensors stepped by hand."""

import contextlib
import dataclasses
import functools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import mlflow
import pandas as pd
import pytest
from upath import UPath

from creditrisk_assets.definitions import build_definitions
from creditrisk_assets.defs import event_log
from creditrisk_assets.defs.io import stored_path
from creditrisk_assets.job_runner import QUIET
from creditrisk_assets.landing.listing import land
from creditrisk_assets.scoring.bundle import Bundle, ChampionRecord
from creditrisk_assets.scoring.bundle_store import BUNDLES, BundleStore
from creditrisk_assets.scoring.model_folders import MODELS
from creditrisk_assets.settings import Settings
from creditrisk_assets.simulation.card_customers import simulate
from creditrisk_assets.simulation.processes import reserved_ports
from creditrisk_assets.simulation.stepped_loop import SteppedLoop
from creditrisk_assets.store import IDENTITY
from tests.support import shape
from tests.support.environment import environment_of
from tests.support.folders import copy_folder
from tests.support.places import REPOSITORY
from tests.support.policies import policy_of
from tests.support.waiting import until

HISTORY_ROWS = 4_000
STOP_SECONDS = 30
"""A stopping API seals its log first, in processes of their own; on a busy machine it took more than 10 s."""


@functools.cache
def new_mlflow_store() -> bytes:
    """The database that MLflow makes for a new store. It takes seconds for its fifty migrations, each time."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        mlflow.MlflowClient(uri, uri).search_experiments()
        return (Path(folder) / "mlflow.db").read_bytes()


@dataclasses.dataclass
class Loop(SteppedLoop):
    """A stepped loop with what tests do to it and ask of it."""

    @classmethod
    def of(cls, home: Path, **settings: Any) -> "Loop":
        """A loop in a folder, whose store has the shape of this process of tests."""
        defaults: dict[str, Any] = {
            "data_dir": home / "data",
            "settle_seconds": 0,
            "policy": policy_of({}),
            "raw_data": f"simulated:{HISTORY_ROWS}",
        }
        served = shape.stores()
        if served is None:
            wanted = Settings(**(defaults | settings))
            if not wanted.mlflow_dir.exists():
                wanted.mlflow_dir.mkdir(parents=True)
                (wanted.mlflow_dir / "mlflow.db").write_bytes(new_mlflow_store())
            return cls.in_folder(home, wanted)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DAGSTER_HOME", str(home))
            wanted = Settings(**(defaults | served.settings_of(home) | settings))
            for name, value in environment_of(home, wanted).items():
                patch.setenv(name, value)
            return cls.opened(home, wanted)

    @classmethod
    def opened(cls, home: Path, settings: Settings) -> "Loop":
        """A loop on the Dagster instance that a folder's `dagster.yaml` and the environment name."""
        instance = dg.DagsterInstance.from_config(str(home))
        return cls(home, settings, instance, build_definitions(settings))

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a process finds this loop's store."""
        return environment_of(self.home, self.settings)

    def close(self) -> None:
        """End what this process has open or runs for the store."""
        self.instance.dispose()
        served = shape.stores()
        if served is not None:
            served.close(self.home)

    def place(self, name: str) -> UPath:
        """A place of its own beside the store."""
        return self.settings.data_dir.parent / name

    def apart(self, name: str, **changed: Any) -> "Loop":
        """A copy of this loop's store without its days, on the same Dagster instance."""
        store, place = self.settings.data_dir, self.place(name)
        for part in (BUNDLES, MODELS, "ledger"):
            copy_folder(store / part, place / part)
        (place / IDENTITY).write_bytes((store / IDENTITY).read_bytes())
        settings = self.settings.model_copy(update={"data_dir": place, **changed})
        return Loop(self.home, settings, self.instance, build_definitions(settings))

    def land_day(self, day: str, customers: pd.DataFrame, name: str = "customers.csv") -> UPath:
        fields = customers.drop(columns=self.settings.portfolio.target, errors="ignore")
        return land(self.settings.landing_production / day, name, fields)

    def land_outcomes(self, day: str, customers: pd.DataFrame, name: str = "outcomes.csv") -> UPath:
        portfolio = self.settings.portfolio
        labels = customers[[portfolio.identifier, portfolio.target]]
        return land(self.settings.landing_outcomes / day, name, labels)

    def make(self, *assets: str) -> dg.ExecuteInProcessResult:
        """Materialize assets that no job selects so, with their checks, as somebody does in the UI."""
        every = self.definitions.resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey(asset) for asset in assets]
        return every.execute_in_process(
            instance=self.instance, asset_selection=keys, run_config=QUIET, raise_on_error=False
        )

    def frame(self, asset: str, day: str) -> pd.DataFrame:
        with stored_path(self.settings.storage, asset, day).open("rb") as file:
            return pd.read_parquet(file)

    def rejected(self, asset: str, day: str) -> pd.DataFrame:
        with (self.settings.quarantine / day / f"{asset}.csv").open("rb") as file:
            return pd.read_csv(file)

    def champion(self) -> ChampionRecord:
        record = event_log.champion_in_force(self.instance)
        assert record is not None
        return record

    def mlflow_model(self, uri: str) -> Any:
        """A model as any MLflow client of this loop's store loads it.

        MLflow keeps the addresses of its store and of its registry for the whole process, and other loops of this process have
        set both to theirs.
        """
        with pytest.MonkeyPatch.context() as patch:
            for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
                patch.setenv(
                    name, self.settings.tracking_uri
                )  # MLflow does so too, and other loops' settings would read them
            mlflow.set_tracking_uri(self.settings.tracking_uri)
            mlflow.set_registry_uri(self.settings.tracking_uri)
            return mlflow.pyfunc.load_model(uri)

    def bundle(self, record: ChampionRecord | None = None) -> Bundle:
        """The bundle that a record names, by default the champion's."""
        return BundleStore(self.settings.data_dir).load((record or self.champion()).bundle_sha256)

    def metadata(self, asset: str, day: str | None = None) -> dict[str, Any]:
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(
                asset_key=dg.AssetKey(asset), asset_partitions=[day] if day else None
            ),
            limit=1,
        ).records
        assert records, f"{asset} {day} was not materialized"
        materialization = records[0].asset_materialization
        assert materialization is not None
        return {name: value.value for name, value in materialization.metadata.items()}


@contextlib.contextmanager
def api(loop: Loop, **environment: str | None) -> Iterator[httpx.Client]:
    """The API as a process of its own over a loop's store, started in the loop's folder. A variable that is None is not set."""
    (port,) = reserved_ports(1)
    log = (loop.home / "api.log").open("wb")
    store: dict[str, str | None] = {
        **loop.environment,
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(REPOSITORY),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "creditrisk_assets.cli.main", "serve", "--port", str(port)],
        env={name: value for name, value in (store | environment).items() if value is not None},
        stdout=log,
        stderr=log,
        cwd=loop.home,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            until(lambda: _alive(client, process), 60)
            yield client
    finally:
        log.close()
        process.terminate()
        try:
            assert process.wait(STOP_SECONDS) in (0, -15)
        finally:
            process.kill()
            process.wait()


def _alive(client: httpx.Client, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None
    try:
        return client.get("/health").status_code == 200
    except httpx.ConnectError:
        return False


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {
        evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()
    }


def customers(rows: int, seed: int, first_identifier: int = 1_000_000) -> pd.DataFrame:
    return simulate(rows, seed, first_identifier)
