"""The store of the first release: the present code restores it, verifies it, replays it, answers by it, and goes on."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs
from typer.testing import CliRunner, Result

from creditrisk_assets.backup.copies import Manifest as Backup
from creditrisk_assets.cli.main import app
from creditrisk_assets.decisions.sets import DecisionSet
from creditrisk_assets.governance.ledger import Entry, Ledger
from creditrisk_assets.modelling.inspection import Inspection
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import INSPECTION, MANIFEST, REFERENCE_PROFILE, Manifest
from creditrisk_assets.scoring.model_folders import RECORD, ModelRecord
from creditrisk_assets.scoring.reference_profile import ReferenceProfile
from creditrisk_assets.settings import Settings
from creditrisk_assets.store import IDENTITY, Identity
from serving.access.keys import KeyFile
from tests.support.first_release import BACKUP, CUT_OFF, DAYS, unpack
from tests.support.loop import Loop, api, customers
from tests.support.object_store import object_keys
from tests.support.places import REPOSITORY
from tests.support.postgres import new_database
from tests.support.served_store import servers
from tests.support.waiting import until

NEXT_DAY = "2026-01-07"
"""After those of the store."""
ACTIONS = ("first", "promoted", "cut_off")
DOCUMENTS: dict[str, Any] = {
    IDENTITY: Identity,
    "ledger/*.json": Entry,
    f"bundles/*/{MANIFEST}": Manifest,
    f"bundles/*/{REFERENCE_PROFILE}": ReferenceProfile,
    f"bundles/*/{INSPECTION}": Inspection,
    f"models/*/{RECORD}": ModelRecord,
    "decisions/*/*.json": DecisionSet,
    "api-keys.json": KeyFile,
    "backup.json": Backup,
}
"""The stored documents by their place in a backup."""


@pytest.fixture
def in_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of an embedded store that is not there yet."""
    monkeypatch.setenv("DAGSTER_HOME", str(REPOSITORY))
    monkeypatch.setenv("CREDITRISK_DATA_DIR", str(tmp_path / "store"))


@pytest.fixture
def on_servers(
    tmp_path: Path, postgres: str, seaweed: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The environment of a served store that is not there yet."""
    for name, value in object_keys(seaweed).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    with new_database(postgres) as url, servers(tmp_path / "mlflow", url, seaweed) as found:
        monkeypatch.setenv("DAGSTER_HOME", str(REPOSITORY))
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("CREDITRISK_API_DIR", str(tmp_path / "api"))
        yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.embedded("of the shape itself; the next test has the other one")
@pytest.mark.usefixtures("in_new_folder")
def test_a_store_of_the_first_release_goes_on_in_a_folder(tmp_path: Path) -> None:
    goes_on(tmp_path)


@pytest.mark.served
@pytest.mark.usefixtures("on_servers")
def test_a_store_of_the_first_release_goes_on_on_servers(tmp_path: Path) -> None:
    goes_on(tmp_path)


def goes_on(tmp_path: Path) -> None:
    """Restore the store where the environment says, and use all of it."""
    key, answers = unpack(tmp_path)
    restored = command("restore", str(tmp_path / BACKUP))
    assert "does not hold" not in restored.stdout
    assert ", 0 differ" in restored.stdout
    command("init")  # the tables of this release
    command("decisions", "archive", "--now")
    assert all(
        part["holds"] for part in json.loads(command("store", "check", "--json").stdout)["parts"]
    )
    verified = command("champion", "verify").stdout
    assert "3 entries" in verified
    assert "bundle of version 1" in verified
    settings = Settings(settle_seconds=0)
    days = sorted(path.name for path in settings.decisions.iterdir())
    assert {*DAYS} < {*days}
    decided = [made for day in days for made in sets_of(day)]
    assert sum(made["decisions"]["rows"] for made in decided) == 2 * 80 + len(answers)
    assert {made["different"] for made in decided} == {0}
    loop = Loop.opened(REPOSITORY, settings)
    champion = loop.champion()
    assert (champion.model_version, champion.rule.cut_off) == ("2", CUT_OFF)
    with api(loop, **os.environ) as client:
        until(lambda: client.get("/ready").status_code == 200, 60)
        assert client.post("/predict", json=dict(PORTFOLIO.example)).status_code == 401
        client.headers["Authorization"] = f"Bearer {key}"
        for answer in (answers[0], answers[-1]):
            assert client.get(f"/decisions/{answer['decision_id']}").json()["answer"] == answer
        new = client.post("/predict", json=dict(PORTFOLIO.example)).raise_for_status().json()
        assert (new["bundle_sha256"], new["cut_off"]) == (champion.bundle_sha256, CUT_OFF)
    landed = customers(80, 9, 2_000_000)
    loop.land_day(NEXT_DAY, landed)
    loop.land_outcomes(NEXT_DAY, landed)
    assert [
        result.success
        for result in loop.settle()
        if result.dagster_run.tags["dagster/partition"] == NEXT_DAY
    ] == [True, True]
    assert loop.metadata("performance_report", NEXT_DAY)["matured"] == 80
    loop.instance.dispose()


def command(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, f"{result.output} {result.exception!r}"
    return result


def sets_of(day: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(command("replay", "--date", day, "--json").stdout)[
        "sets"
    ]
    return found


def test_documents_of_the_first_release_are_written_again_with_the_same_fields(
    tmp_path: Path,
) -> None:
    """A field more would break the hashes of the ledger, and be unknown to a release that answers beside this one."""
    unpack(tmp_path)
    backup = tmp_path / BACKUP
    assert [entry.action for entry in Ledger(backup / "ledger").entries()] == list(ACTIONS)
    for pattern, kind in DOCUMENTS.items():
        files = list(backup.glob(pattern))
        assert files, pattern
        for file in files:
            raw = file.read_bytes()
            read = kind.model_validate_json(raw)
            assert json.loads(written(read)) == json.loads(raw), file


def written(document: Any) -> bytes | str:
    """The document as the product writes it."""
    match document:
        case Entry() | DecisionSet():
            return document.content()
        case KeyFile():
            return document.model_dump_json(exclude_none=True)
    return str(document.model_dump_json())
