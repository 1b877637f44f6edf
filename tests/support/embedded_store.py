"""An embedded store as `creditrisk dev` makes it: Dagster's log is where the project's dagster.yaml puts it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from upath import UPath

from creditrisk_assets.definitions import build_definitions
from creditrisk_assets.settings import Settings
from tests.support.loop import Loop, new_mlflow_store
from tests.support.places import REPOSITORY
from tests.support.policies import policy_of


def loop_of(data_dir: Path, **changed: Any) -> Loop:
    """A loop on a store whose Dagster log is where the project's dagster.yaml puts it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CREDITRISK_DATA_DIR", str(data_dir))
        instance = dg.DagsterInstance.from_config(str(REPOSITORY))
    settings = Settings(
        data_dir=UPath(data_dir),
        settle_seconds=0,
        policy=policy_of({}),
        **({"raw_data": "simulated:2000"} | changed),
    )
    return Loop(REPOSITORY, settings, instance, build_definitions(settings))


def make_store(data_dir: Path, days: Mapping[str, pd.DataFrame]) -> None:
    """A store with a champion and scored days; no process has it open."""
    loop = loop_of(data_dir)
    loop.settings.mlflow_dir.mkdir(parents=True)
    (loop.settings.mlflow_dir / "mlflow.db").write_bytes(new_mlflow_store())
    assert loop.run("train").success
    for day, rows in days.items():
        loop.land_day(day, rows)
        assert loop.run("score_production", day).success
    loop.instance.dispose()
