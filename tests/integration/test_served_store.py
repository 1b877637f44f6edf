"""The loop and the API on a store that several machines share, with real servers."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import s3fs
from typer.testing import CliRunner, Result

from creditrisk_assets.cli.main import app
from creditrisk_assets.defs import champion_commands
from creditrisk_assets.governance.ledger import Ledger, LedgerMoved, Move
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.registry import Registry
from creditrisk_assets.storage import create_file
from tests.support.loop import Loop, api, customers
from tests.support.object_store import object_keys
from tests.support.places import REPOSITORY
from tests.support.postgres import new_database
from tests.support.served_store import Servers, machine, servers
from tests.support.waiting import until

pytestmark = pytest.mark.served

CUSTOMER = dict(PORTFOLIO.example)


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, postgres: str, seaweed: str
) -> Iterator[Servers]:
    with pytest.MonkeyPatch.context() as patch, new_database(postgres) as url:
        for name, value in object_keys(seaweed).items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        with servers(tmp_path_factory.mktemp("servers") / "mlflow", url, seaweed) as found:
            for name, value in found.environment.items():
                patch.setenv(name, value)
            yield found
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def store_environment(store: Servers, monkeypatch: pytest.MonkeyPatch) -> Servers:
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    return store


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machines")


@pytest.fixture
def one(
    store_environment: Servers, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Loop]:
    """The first of the store's machines; the store has a champion."""
    home = folders / f"one-{len(list(folders.iterdir()))}"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with machine(home, store_environment) as loop:
        if not Ledger(loop.settings.ledger).entries():
            loop.train()
        yield loop


def command(loop: Loop, *arguments: str) -> Result:
    return CliRunner().invoke(
        app, arguments, env={"DAGSTER_HOME": str(loop.home), "COLUMNS": "200"}
    )


def test_a_day_is_scored_assessed_and_replayed_with_nothing_on_the_machine(one: Loop) -> None:
    landed = customers(300, 3)
    one.land_day("2026-01-05", landed)
    one.land_outcomes("2026-01-05", landed)
    assert [result.success for result in one.settle()] == [True, True]
    assert len(one.frame("production_scores", "2026-01-05")) == 300
    assert one.metadata("performance_report", "2026-01-05")["matured"] == 300
    assert command(one, "champion", "verify").exit_code == 0
    replayed = command(one, "replay", "--date", "2026-01-05", "--json")
    assert [found["different"] for found in json.loads(replayed.stdout)["sets"]] == [0]
    files = {path.name for path in one.home.rglob("*") if path.is_file()}
    assert not {name for name in files if name.endswith((".db", ".parquet"))}, files


def test_a_lost_race_for_a_file_is_a_file_that_exists_and_a_repeated_write_is_not(
    one: Loop,
) -> None:
    file = one.settings.data_dir / "race.json"
    create_file(file, b"first")
    create_file(file, b"first")  # as when the answer to the first request was lost
    with pytest.raises(FileExistsError, match=r"race\.json"):
        create_file(file, b"second")
    assert file.read_bytes() == b"first"


def test_of_two_machines_that_move_the_champion_the_slow_one_repeats_what_the_ledger_has(
    one: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wrote alias and asset last: the API decided by a cut-off that the ledger had replaced."""
    ledger = Ledger(one.settings.ledger)
    overtaken: list[str] = []

    def slow(registry: Registry, number: str) -> None:
        if not overtaken:
            overtaken.append(number)
            champion_commands.set_cut_off(one.instance, one.settings, 0.41, "the fast machine")
        original(registry, number)

    original = Registry.set_champion
    # A lock of one machine keeps no other machine from moving.
    monkeypatch.setattr(champion_commands, "lock_champion", lambda _: nullcontext())
    monkeypatch.setattr(Registry, "set_champion", slow)
    champion_commands.set_cut_off(one.instance, one.settings, 0.21, "the slow machine")
    assert [entry.after.rule.cut_off for entry in ledger.entries()[-2:]] == [0.21, 0.41]
    assert one.champion().rule.cut_off == 0.41
    assert command(one, "champion", "verify").exit_code == 0


def test_of_two_moves_from_the_same_entry_one_is_refused_in_words(one: Loop) -> None:
    ledger = Ledger(one.settings.ledger)
    head = ledger.entries()[-1]
    move = Move(**{name: getattr(head, name) for name in Move.model_fields})
    assert ledger.append(move, head).number == head.number + 1
    with pytest.raises(LedgerMoved, match="the champion was moved meanwhile; decide again"):
        ledger.append(move, head)
    champion_commands.align(one.instance, one.settings)
    assert command(one, "champion", "verify").exit_code == 0


def test_one_key_is_one_decision_on_whatever_replica_and_a_key_made_once_opens_all(
    one: Loop, store_environment: Servers
) -> None:
    made = command(one, "keys", "create", "bank", "--scope", "predict", "--scope", "read")
    assert made.exit_code == 0, made.stderr
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    with ExitStack() as stack:
        clients = [
            stack.enter_context(replica(one, store_environment, name)) for name in ("a", "b")
        ]
        for client in clients:
            until(partial(_answers, client, "/ready", 200, headers), 60)
            assert client.post("/predict", json=CUSTOMER).status_code == 401
        keyed = [headers | {"Idempotency-Key": f"k{number}"} for number in range(20)]
        first = [
            clients[number % 2].post("/predict", json=CUSTOMER, headers=of)
            for number, of in enumerate(keyed)
        ]
        again = [
            clients[1 - number % 2].post("/predict", json=CUSTOMER, headers=of)
            for number, of in enumerate(keyed)
        ]
        assert {answer.status_code for answer in (*first, *again)} == {200}
        assert [answer.content for answer in first] == [answer.content for answer in again]
        other = clients[0].post("/predict", json=CUSTOMER | {"limit_bal": 1}, headers=keyed[0])
        assert other.status_code == 422
        assert command(one, "keys", "revoke", "bank").exit_code == 0
        for client in clients:
            until(partial(_answers, client, "/model-info", 401, headers), 10)


def test_while_the_object_store_or_mlflow_hangs_the_api_decides_and_a_champion_is_taken_afterwards(
    one: Loop, store_environment: Servers
) -> None:
    before = one.champion()
    hanging = processes_with(store_environment.objects.rpartition(":")[2], "weed")
    hanging += processes_with(store_environment.mlflow.rpartition(":")[2], "mlflow")
    assert len(hanging) >= 2
    with replica(one, store_environment, "c") as client:
        until(partial(_answers, client, "/ready", 200, {}), 60)
        for number in hanging:
            os.kill(number, signal.SIGSTOP)
        try:
            ends = time.monotonic() + 12  # the champion's file is stale after ten seconds
            while time.monotonic() < ends:
                for headers in ({}, {"Idempotency-Key": f"{time.monotonic()}"}):
                    start = time.monotonic()
                    answer = client.post("/predict", json=CUSTOMER, headers=headers)
                    assert answer.status_code == 200
                    assert time.monotonic() - start < 5
                time.sleep(0.5)
            assert client.get("/ready").status_code == 200
        finally:
            for number in hanging:
                os.kill(number, signal.SIGCONT)
        cut_off = 0.33 if before.rule.cut_off != 0.33 else 0.34
        champion_commands.set_cut_off(one.instance, one.settings, cut_off, "after the outage")

        def is_taken() -> bool:
            return bool(client.post("/predict", json=CUSTOMER).json()["cut_off"] == cut_off)

        until(is_taken, 60)


def processes_with(port: str, name: str) -> list[int]:
    """Processes of a program that were started with a port."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_text().split("\0")
            if any(name in word for word in words) and any(
                word.rpartition("=")[2] == port for word in words
            ):
                found.append(int(folder.name))
    return found


def test_a_backup_is_restored_in_another_database_bucket_and_mlflow(
    one: Loop,
    store_environment: Servers,
    postgres: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    landed = customers(200, 9)
    one.land_day("2026-01-08", landed)
    assert all(result.success for result in one.settle())
    away = f"s3://{store_environment.bucket}/backups/1"
    made = command(one, "backup", away)
    assert made.exit_code == 0, made.stderr
    assert "(served)" in made.stdout
    with ExitStack() as stack:
        url = stack.enter_context(new_database(postgres))
        other = stack.enter_context(servers(tmp_path / "mlflow", url, store_environment.objects))
        for name, value in other.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
        (tmp_path / "home").mkdir()
        shutil.copy(REPOSITORY / "dagster.yaml", tmp_path / "home")
        restored = CliRunner().invoke(app, ["restore", away], env={"COLUMNS": "200"})
        assert restored.exit_code == 0, restored.stdout + restored.stderr
        assert "does not hold" not in restored.stdout
        again = stack.enter_context(machine(tmp_path / "again", other))
        assert again.champion() == one.champion()
        again.land_day("2026-01-09", customers(200, 10))
        assert [result.success for result in again.settle()] == [True]
        refused = CliRunner().invoke(app, ["restore", away], env={"COLUMNS": "200"})
        assert (refused.exit_code, "has a store" in refused.stderr) == (1, True)


def _answers(client: httpx.Client, path: str, status: int, headers: dict[str, str]) -> bool:
    return bool(client.get(path, headers=headers).status_code == status)


def replica(loop: Loop, servers: Servers, name: str) -> Any:
    """An API of the store with a disk of its own."""
    environment: dict[str, str | None] = {
        **servers.environment,
        "CREDITRISK_API_DIR": str(loop.home / name),
    }
    return api(loop, **environment)
