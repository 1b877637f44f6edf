"""The store of the first release, as `tests/data/README.md` describes it: how it was made, and what it holds."""

import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner
from upath import UPath

from creditrisk_assets.cli.main import app
from creditrisk_assets.definitions import build_definitions
from creditrisk_assets.defs import champion_commands
from creditrisk_assets.defs.store_mark import require_one_store
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.settings import Settings
from serving.access.keys import create_key
from tests.support.loop import Loop, api, customers, new_mlflow_store
from tests.support.places import REPOSITORY
from tests.support.trained import ANY_GAIN, history
from tests.support.waiting import until

DAYS = ("2026-01-05", "2026-01-06")
ROWS = 80
CUT_OFF = 0.3
ARCHIVE = REPOSITORY / "tests" / "data" / "store-0.1.0.tar.xz"
BACKUP, KEY, ANSWERS = "backup", "key", "answers.json"
CALLS = 30
IDEMPOTENCY = "a-key-of-the-first-release"


def make(archive: Path) -> None:
    """Make a small store of the present code, and write its backup with what a test asks it."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        home, place = Path(folder) / "store", Path(folder) / "made"
        place.mkdir()
        names = {
            "DAGSTER_HOME": REPOSITORY,
            "CREDITRISK_DATA_DIR": home,
            "CREDITRISK_ACTOR": "an analyst",
        }
        for name, value in names.items():
            patch.setenv(name, str(value))
        loop = _store(home)
        key = create_key(loop.settings.api_keys, "bank", ["predict", "read"])
        answers: list[dict[str, Any]] = []
        for number in range(
            2
        ):  # the first decisions are archived, the others are in the log of the API
            with api(loop) as client:
                client.headers["Authorization"] = f"Bearer {key}"
                until(lambda: client.get("/ready").status_code == 200, 60)
                for customer in customers(CALLS, 50 + number)[PORTFOLIO.field_names].to_dict(
                    "records"
                ):
                    headers = {"Idempotency-Key": f"{IDEMPOTENCY}-{number}"} if not answers else {}
                    answers.append(
                        client.post("/predict", json=customer, headers=headers)
                        .raise_for_status()
                        .json()
                    )
                if number == 1:
                    _command("backup", str(place / BACKUP))
            if number == 0:
                _command("decisions", "archive", "--now")
        loop.instance.dispose()
        (place / KEY).write_text(key)
        (place / ANSWERS).write_text(json.dumps(answers))
        with tarfile.open(archive, "w:xz", preset=9) as file:
            for name in (BACKUP, KEY, ANSWERS):
                file.add(place / name, name)


def _store(data_dir: Path) -> Loop:
    """A store with a poor champion, two days with outcomes, a promotion and a move of the cut-off."""
    settings = Settings(data_dir=UPath(data_dir), settle_seconds=0, **ANY_GAIN)
    instance = dg.DagsterInstance.from_config(str(REPOSITORY))
    loop = Loop(REPOSITORY, settings, instance, build_definitions(settings))
    settings.mlflow_dir.mkdir(parents=True)
    (settings.mlflow_dir / "mlflow.db").write_bytes(new_mlflow_store())
    require_one_store(settings, instance)
    files = data_dir.parent
    for is_poor, day in zip((True, False), DAYS, strict=True):
        settings.raw_data = history(files, is_poor, rows=600)
        loop.train()
        landed = customers(ROWS, len(day) + is_poor, 1_000_000 + is_poor * ROWS)
        loop.land_day(day, landed)
        loop.land_outcomes(day, landed)
        results = loop.settle()
        assert results
        assert all(result.success for result in results)
    assert loop.champion().model_version == "2"
    champion_commands.set_cut_off(instance, settings, CUT_OFF, "a stricter policy")
    return loop


def _command(*arguments: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output


def unpack(folder: Path) -> tuple[str, list[dict[str, object]]]:
    """Unpack the archive into a folder: the key, and the API's answers in their order."""
    with tarfile.open(ARCHIVE) as file:
        file.extractall(folder, filter="data")
    return (folder / KEY).read_text(), json.loads((folder / ANSWERS).read_text())
