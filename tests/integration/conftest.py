"""A real loop in a folder: real Dagster instance on SQLite, real MLflow store, real files; jobs and sensors stepped by hand."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from creditrisk_assets.definitions import build_definitions
from creditrisk_assets.defs import events
from creditrisk_assets.portfolio.landing import land
from creditrisk_assets.portfolio.simulator import simulate
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.settings import Settings

HISTORY_ROWS = 4_000


@dataclasses.dataclass
class Loop:
    """The system without its daemon."""

    home: Path
    settings: Settings
    instance: dg.DagsterInstance
    definitions: dg.Definitions
    cursors: dict[str, str | None] = dataclasses.field(default_factory=dict)

    @classmethod
    def in_folder(cls, home: Path, **settings: Any) -> "Loop":
        home.mkdir(parents=True, exist_ok=True)
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        made = Settings(data_dir=home / "data", settle_seconds=0, simulated_rows=HISTORY_ROWS, report_rows=500, **settings)
        return cls(home, made, dg.DagsterInstance.from_config(str(home)), build_definitions(made))

    def run(self, job: str, day: str | None = None, tags: dict[str, str] | None = None) -> dg.ExecuteInProcessResult:
        resolved = self.definitions.resolve_job_def(job)
        return resolved.execute_in_process(instance=self.instance, partition_key=day, tags=tags, raise_on_error=False)

    def tick(self, sensor: dg.SensorDefinition) -> dg.SensorResult:
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(sensor.name),
            resources={"settings": self.settings},
            sensor_name=sensor.name,
        )
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        if result.cursor is not None:
            self.cursors[sensor.name] = result.cursor
        return result

    def land_day(self, day: str, customers: pd.DataFrame, name: str = "customers.csv") -> Path:
        fields = customers.drop(columns=PORTFOLIO.target, errors="ignore")
        return land(self.settings.landing_production / day, name, fields)

    def land_outcomes(self, day: str, customers: pd.DataFrame) -> Path:
        labels = customers[[PORTFOLIO.identifier, PORTFOLIO.target]]
        return land(self.settings.landing_outcomes / day, "outcomes.csv", labels)

    def champion(self) -> ChampionRecord:
        record = events.champion_in_force(self.instance)
        assert record is not None
        return record

    def metadata(self, asset: str, day: str | None = None) -> dict[str, Any]:
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[day] if day else None), limit=1
        ).records
        assert records, f"{asset} {day} was not materialized"
        materialization = records[0].asset_materialization
        assert materialization is not None
        return {name: value.value for name, value in materialization.metadata.items()}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def customers(rows: int, seed: int, first_identifier: int = 1_000_000) -> pd.DataFrame:
    return simulate(rows, seed, first_identifier)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Loop]:
    """A loop in which nothing has happened yet."""
    loop = Loop.in_folder(tmp_path / "site")
    yield loop
    loop.instance.dispose()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A loop with a first champion. Tests that share it use days of their own and do not move the champion."""
    loop = Loop.in_folder(tmp_path_factory.mktemp("trained") / "site")
    assert loop.run("train").success
    yield loop
    loop.instance.dispose()
