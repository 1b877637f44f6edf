"""A store goes from its embedded shape to the served one and back, with real servers."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import mlflow
import pytest
import s3fs
import sqlalchemy as sa

from creditrisk_assets.database import url_in_schema
from creditrisk_assets.decisions.codec import PLAIN
from creditrisk_assets.decisions.idempotency import IdempotencyIndex
from creditrisk_assets.definitions import build_definitions
from creditrisk_assets.defs.moving import environment_of
from creditrisk_assets.monitoring.alert_outbox import Outbox
from creditrisk_assets.registry import MODEL_NAME, Registry
from creditrisk_assets.settings import Settings
from creditrisk_assets.storage import files_below
from serving.access.keys import create_key, read_keys
from tests.support.embedded_store import loop_of, make_store
from tests.support.loop import Loop, customers
from tests.support.object_store import object_keys
from tests.support.places import REPOSITORY
from tests.support.postgres import new_database
from tests.support.served_store import Servers, machine, servers

pytestmark = pytest.mark.served

DAYS = ("2026-01-05", "2026-01-06", "2026-01-07")
COPIED = ("ledger", "decisions", "bundles", "storage", "landing", "policies", "models")


@pytest.fixture
def target(
    tmp_path: Path, postgres: str, seaweed: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Servers]:
    for name, value in object_keys(seaweed).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    with new_database(postgres) as url, servers(tmp_path / "mlflow", url, seaweed) as found:
        yield found
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("made") / "data"
    make_store(made, {DAYS[0]: customers(200, 3)})
    return made


@pytest.fixture
def source(template: Path, tmp_path: Path) -> Settings:
    """An embedded store with a champion, a day with outcomes, an API key, an idempotency key and an
    alert.
    """
    loop = loop_of(shutil.copytree(template, tmp_path / "source"))
    loop.land_outcomes(DAYS[0], customers(200, 3))
    assert loop.run("assess_performance", DAYS[0]).success
    loop.instance.dispose()
    settings = loop.settings
    create_key(settings.api_keys, "bank", ["predict"])
    index = IdempotencyIndex(settings.idempotency_file, settings.open_segments, PLAIN)
    with index.exclusive():
        index.add("bank", "k1", "digest", b'{"answer": "\xc3\xbc"}')
    index.close()
    with Outbox(settings.alerts):
        pass
    with closing(sqlite3.connect(settings.alerts / "alerts.db")) as alerts, alerts:
        alerts.execute("INSERT INTO evaluations VALUES ('a', 'check', 'e1')")
        alerts.execute(
            "INSERT INTO messages (number, identity, episode, body, at) "
            "VALUES (7, 'm1', 'e', '{}', 12.5)"
        )
    return settings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of dagster.yaml; a served store keeps what is this machine's beside it."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", folder)
    return folder


def command(home: Path, environment: dict[str, str], *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "creditrisk_assets.cli.main", *arguments],
        env=_variables(home, environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
        start_new_session=True,
    )


def run(home: Path, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    process = command(home, environment, *arguments)
    out, problem = process.communicate()
    return process.returncode, " ".join((out + problem).split())


def _variables(home: Path, environment: dict[str, str]) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return {
        **own,
        "DAGSTER_HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(REPOSITORY),
        "CREDITRISK_SETTLE_SECONDS": "0",
        **environment,
    }


def settings_file(path: Path, settings: dict[str, str]) -> Path:
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return path


def content(settings: Settings) -> dict[str, bytes]:
    """The files that are the same at every place."""
    return {
        f"{part}/{name}": file.read_bytes()
        for part in COPIED
        for name, file in files_below(settings.data_dir / part).items()
    }


def history(instance: dg.DagsterInstance) -> dict[str, object]:
    """The records of Dagster that the loop reads."""
    runs = {run.run_id: run for run in instance.get_runs()}
    return {
        "runs": {run: (one.status, one.tags) for run, one in runs.items()},
        "events": {run: Counter(map(str, instance.all_logs(run))) for run in runs},
        "assets": {
            key.to_user_string(): [
                record.storage_id
                for record in instance.fetch_materializations(key, limit=100).records
            ]
            for key in instance.all_asset_keys()
        },
        "partitions": sorted(instance.get_dynamic_partitions("day")),
    }


def registered(uri: str) -> list[object]:
    client = mlflow.MlflowClient(uri, uri)
    aliases = client.get_registered_model(MODEL_NAME).aliases
    found: list[object] = [{name: str(version) for name, version in aliases.items()}]
    for version in client.search_model_versions(f"name = '{MODEL_NAME}'"):
        logged = client.get_run(str(version.run_id))
        artifacts = sorted(one.path for one in client.list_artifacts(str(version.run_id), "plots"))
        assert artifacts
        found.append((str(version.version), version.tags, logged.data.to_dictionary(), artifacts))
    return found


def test_a_store_is_moved_to_servers_and_back_and_goes_on_at_each_place(
    source: Settings, home: Path, target: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"CREDITRISK_DATA_DIR": str(source.data_dir)}
    monkeypatch.setenv("CREDITRISK_DATA_DIR", old["CREDITRISK_DATA_DIR"])
    with dg.DagsterInstance.from_config(str(home)) as instance:
        before = history(instance)
    files, models = content(source), registered(source.tracking_uri)
    api = {"CREDITRISK_API_DIR": str(tmp_path / "replica")}
    served = {**target.environment, **api}
    to = settings_file(tmp_path / "served.env", served)
    code, shown = run(home, old, "store", "move", str(to))
    assert code == 0, shown
    assert "does not hold" not in shown
    assert "replay of a sample: 200 decisions, 0 differ" in shown
    assert content(source) == files

    assert before["partitions"] == [DAYS[0]]
    for name, value in served.items():
        monkeypatch.setenv(name, value)
    with machine(tmp_path / "machine", target) as loop:
        assert history(loop.instance) == before
        moved = content(loop.settings)
        assert {name: moved[name] for name in moved if not name.startswith("models/")} == {
            name: files[name] for name in files if not name.startswith("models/")
        }
        assert moved == files
        assert registered(target.mlflow) == models
        loop.land_day(DAYS[1], customers(200, 4))
        ended = loop.settle()
        assert ended
        assert all(result.success for result in ended)
        loop.instance.dispose()
    engine = sa.create_engine(url_in_schema(target.database, "creditrisk"))
    with engine.begin() as connection:
        rows = connection.execute(
            sa.text("SELECT caller, key, digest, answer FROM idempotency_keys")
        )
        assert [(*row[:3], bytes(row.answer)) for row in rows] == [
            ("bank", "k1", "digest", b'{"answer": "\xc3\xbc"}')
        ]
        numbers = connection.execute(
            sa.text(
                "INSERT INTO messages (identity, episode, body, at) VALUES ('m2', 'e', '{}', 13) "
                "RETURNING number"
            )
        )
        assert numbers.scalar_one() == 8
        document = connection.execute(sa.text("SELECT document FROM api_keys")).scalar_one()
        assert document == source.api_keys.read_text()
    engine.dispose()

    back = tmp_path / "back"
    embedded = {"CREDITRISK_DATA_DIR": str(back)}
    to = settings_file(tmp_path / "back.env", embedded)
    code, shown = run(home, served, "store", "move", str(to))
    assert code == 0, shown
    assert "does not hold" not in shown
    for name in ("CREDITRISK_DATABASE_URL", "MLFLOW_TRACKING_URI", "CREDITRISK_API_DIR"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("CREDITRISK_DATA_DIR", str(back))
    settings = Settings(settle_seconds=0, policy=source.policy)
    again = content(settings)
    assert {name: again[name] for name in files} == files
    assert registered(settings.tracking_uri) == models
    assert read_keys(settings.api_keys) == read_keys(source.api_keys)
    with closing(sqlite3.connect(settings.alerts / "alerts.db")) as alerts:
        found = alerts.execute("SELECT number, identity FROM messages").fetchall()
        assert found == [(7, "m1"), (8, "m2")]
    index = IdempotencyIndex(settings.idempotency_file, settings.open_segments, PLAIN)
    with index.exclusive():
        answer = index.find("bank", "k1")
    index.close()
    assert answer is not None
    assert answer.answer == b'{"answer": "\xc3\xbc"}'
    Registry(settings).prepare()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        after = history(instance)
        for kind in ("runs", "events"):
            for run_id, value in before[kind].items():  # type: ignore[attr-defined]  # a dictionary
                assert after[kind][run_id] == value  # type: ignore[index]
        loop = Loop(home, settings, instance, build_definitions(settings))
        loop.land_day(DAYS[2], customers(200, 5))
        assert loop.run("score_production", DAYS[2]).success


def test_what_cannot_be_moved_is_refused_and_a_killed_move_is_no_store(
    source: Settings, home: Path, target: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"CREDITRISK_DATA_DIR": str(source.data_dir)}
    served = {**target.environment, "CREDITRISK_API_DIR": str(tmp_path / "replica")}
    to = settings_file(tmp_path / "served.env", served)

    def refused(file: Path) -> str:
        code, shown = run(home, old, "store", "move", str(file))
        assert code == 1
        assert "Traceback" not in shown
        return shown

    away = served | {"CREDITRISK_DATABASE_URL": "postgresql://u:secret@127.0.0.1:9/none"}
    shown = refused(settings_file(tmp_path / "away.env", away))
    assert "127.0.0.1:9/none" in shown
    assert "secret" not in shown

    used = tmp_path / "used"
    (used / "ledger").mkdir(parents=True)
    (used / "ledger" / "000001.json").write_text("{}")
    shown = refused(settings_file(tmp_path / "used.env", {"CREDITRISK_DATA_DIR": str(used)}))
    assert "has ledger; valid: an empty CREDITRISK_DATA_DIR" in shown

    monkeypatch.setenv("CREDITRISK_DATA_DIR", old["CREDITRISK_DATA_DIR"])
    with dg.DagsterInstance.from_config(str(home)) as instance:
        started = dg.DagsterRun(job_name="train", status=dg.DagsterRunStatus.STARTED)
        instance.add_run(started)
        shown = refused(to)
        assert f"run {started.run_id} of train is STARTED; valid: no run in progress" in shown
        instance.delete_run(started.run_id)

    process = command(home, old, "store", "move", str(to))
    mark = Settings(data_dir=served["CREDITRISK_DATA_DIR"]).data_dir / "restoring.json"
    deadline = time.monotonic() + 60
    while not mark.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (mark.parent / "store.json").exists()
    code, shown = run(home, served, "store", "check")
    assert (code, "no store yet" in shown) == (1, True)
    code, shown = run(home, served, "init")
    assert code == 1
    assert "restoring.json" in shown
    shown = refused(to)
    assert "of a restoration that did not end; valid: a new place; remove what is there" in shown


def test_the_settings_of_the_new_place_replace_those_of_the_old_one(tmp_path: Path) -> None:
    lines = {"SECRET": "s$3", "CREDITRISK_DATA_DIR": "/new/${SECRET}", "A": "$B"}
    file = settings_file(tmp_path / "new.env", lines)
    present = {"CREDITRISK_DATABASE_URL": "postgresql://old", "CREDITRISK_PORTFOLIO": "p"}
    assert environment_of(file, present) == {
        "CREDITRISK_PORTFOLIO": "p",
        "SECRET": "s$3",
        "CREDITRISK_DATA_DIR": "/new/s$3",
        "A": "$B",
    }
