"""A store is one thing: moved, beside another one, behind an MLflow server, read-only. Its Dagster log lies in its data folder,
as the project's own configuration has it.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import mlflow
import pandas as pd
import pytest
from typer.testing import CliRunner, Result
from upath import UPath

from creditrisk_assets.cli.main import app
from creditrisk_assets.definitions import build_definitions
from creditrisk_assets.defs.store_mark import require_one_store
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.registry import MODEL_NAME, Registry
from creditrisk_assets.simulation.processes import reserved_ports
from creditrisk_assets.store import open_store
from tests.support.embedded_store import loop_of, make_store
from tests.support.loop import Loop, api, checks, customers, new_mlflow_store
from tests.support.places import REPOSITORY
from tests.support.waiting import until

DAY, NEXT_DAY = "2026-05-01", "2026-05-02"
OBEYING_MODES = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
"""Before a command of root's: it may do no more with files than their modes say."""

pytestmark = pytest.mark.embedded(
    "of the store that `creditrisk dev` makes; test_served_store has the other"
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a champion and a day, that has been moved from where it was made: nothing is left there."""
    made = tmp_path_factory.mktemp("made") / "data"
    make_store(made, {DAY: customers(200, 5)})
    return Path(shutil.move(made, tmp_path_factory.mktemp("template") / "data"))


@pytest.fixture
def data_dir(template: Path, tmp_path: Path) -> Path:
    """A copy of it, whose path has a space and an umlaut."""
    return Path(shutil.copytree(template, tmp_path / "Büro zwei" / "data"))


@pytest.fixture
def loop(data_dir: Path) -> Iterator[Loop]:
    made = loop_of(data_dir)
    yield made
    made.instance.dispose()


ONE_AFTER_ANOTHER = """
import json, sys
from typer.testing import CliRunner
from creditrisk_assets.cli.main import app
for arguments in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, arguments)
    if result.exit_code:
        sys.exit(f"{arguments}: {result.output} {result.exception!r}")
"""
"""Commands in one process, which imports once."""


def variables(data_dir: Path) -> dict[str, str]:
    """The environment of a process over a store."""
    return {
        "DAGSTER_HOME": str(REPOSITORY),
        "CREDITRISK_DATA_DIR": str(data_dir),
        "PATH": "/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def command(
    data_dir: Path,
    *arguments: str,
    prefix: Sequence[str] = (),
    environment: dict[str, str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """A command in a process of its own, as a user runs it."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "creditrisk_assets.cli.main", *arguments],
        cwd=REPOSITORY,
        env=variables(data_dir) | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )


def called(data_dir: Path, *arguments: str, environment: dict[str, str] | None = None) -> Result:
    """A command in this process, for what it says: one of its own spends seconds on imports."""
    place = {"DAGSTER_HOME": str(REPOSITORY), "CREDITRISK_DATA_DIR": str(data_dir)}
    with contextlib.chdir(REPOSITORY):
        result = CliRunner().invoke(app, arguments, env=place | (environment or {}))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_store_that_was_moved_verifies_replays_scores_decides_and_learns(
    loop: Loop, data_dir: Path, tmp_path: Path
) -> None:
    """Absolute addresses in it would point to where it was made, or fill a new store there."""
    for arguments in (
        ("champion", "verify"),
        ("replay", "--date", DAY),
        (
            "score",
            str(data_dir / "landing" / "production" / DAY / "customers.csv"),
            "-o",
            str(tmp_path / "scored.csv"),
        ),
    ):
        done = called(data_dir, *arguments)
        assert done.exit_code == 0, done.stderr
    loop.land_day(NEXT_DAY, customers(200, 6))
    assert loop.run("score_production", NEXT_DAY).success
    trained = loop.run("train")
    assert trained.success
    assert checks(trained)["champion_records_agree"].passed
    client = mlflow.MlflowClient(loop.settings.tracking_uri, loop.settings.tracking_uri)
    run_id = Registry(loop.settings).version("1").record.run_id
    assert client.get_run(run_id).info.artifact_uri.startswith(
        (data_dir / "mlflow" / "artifacts").as_uri()
    )
    assert "model_card.html" in {file.path for file in client.list_artifacts(run_id)}


def test_two_stores_of_one_clone_do_not_touch_each_other(
    loop: Loop, data_dir: Path, tmp_path: Path
) -> None:
    """Tried out in a second data folder, another model must not take over the API of the first."""
    first = loop.champion()
    with api(
        loop, CREDITRISK_DATA_DIR=str(data_dir), CREDITRISK_API_DIR=str(tmp_path / "api")
    ) as client:
        until(lambda: client.get("/ready").status_code == 200, 20)
        other = loop_of(tmp_path / "other", raw_data="simulated:2000:7")
        assert other.run("train").success
        assert other.champion().bundle_sha256 != first.bundle_sha256
        other.instance.dispose()
        for _ in range(8):
            answer = client.post("/predict", json=dict(PORTFOLIO.example)).raise_for_status().json()
            assert answer["bundle_sha256"] == first.bundle_sha256
        assert client.get("/ready").json()["problem"] is None
    assert called(data_dir, "champion", "verify").exit_code == 0
    taken = command(
        tmp_path / "other", "serve", environment={"CREDITRISK_API_DIR": str(tmp_path / "api")}
    )
    assert taken.returncode == 1
    assert "api belongs to store" in taken.stderr.replace("\n", " ")


def test_a_run_on_the_log_of_another_store_is_refused_before_anything_is_written(
    loop: Loop, tmp_path: Path
) -> None:
    new, other = tmp_path / "new", tmp_path / "other"
    for folder in (new, other):
        settings = loop.settings.model_copy(update={"data_dir": UPath(folder)})
        if folder == other:
            open_store(settings)
        mixed = Loop(loop.home, settings, loop.instance, build_definitions(settings))
        result = mixed.run("train")
        assert not result.success
        said = str(result.all_events)
        assert "belongs to store" in said
        assert {path.name for path in folder.rglob("*")} <= {"store.json"}


def test_a_dagster_instance_of_another_store_ends_a_command(data_dir: Path, tmp_path: Path) -> None:
    loop = loop_of(tmp_path / "other")
    require_one_store(loop.settings, loop.instance)
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(
        f"storage: {{sqlite: {{base_dir: '{tmp_path / 'other' / 'dagster' / 'storage'}'}}}}\ntelemetry: {{enabled: false}}\n"
    )
    for arguments in (
        ("status",),
        ("champion", "cut-off", "0.3", "--why", "a try"),
        ("champion", "verify"),
    ):
        done = called(data_dir, *arguments, environment={"DAGSTER_HOME": str(home)})
        assert done.exit_code == 1
        assert "belongs to store" in done.stderr
    loop.instance.dispose()


def test_a_version_deleted_in_mlflow_is_registered_again_and_keeps_its_number(loop: Loop) -> None:
    client = mlflow.MlflowClient(loop.settings.tracking_uri, loop.settings.tracking_uri)
    record = loop.champion()
    Registry(loop.settings).prepare()
    client.delete_model_version(MODEL_NAME, "1")
    assert not checks(loop.run("audit"))["champion_records_agree"].passed
    trained = loop.run("train")
    assert trained.success
    assert checks(trained)["champion_records_agree"].passed
    again = loop.champion()
    assert (again.model_version, again.bundle_sha256) == (
        record.model_version,
        record.bundle_sha256,
    )
    assert again.mlflow_uri == f"models:/{MODEL_NAME}/2"
    (version,) = client.search_model_versions(f"name = '{MODEL_NAME}'")
    assert version.tags["bundle_sha256"] == record.bundle_sha256
    documents = {file.path for file in client.list_artifacts(str(version.run_id))}
    assert {"model_card.html", "inventory.json", "plots", "verdicts"} <= documents
    raw = loop.bundle().raw({name: [value] for name, value in PORTFOLIO.example.items()})
    frame = pd.DataFrame(raw.astype(float), columns=loop.bundle().input_names)
    answer = loop.mlflow_model(f"models:/{MODEL_NAME}@champion").predict(frame)
    assert float(answer["default_probability"].iloc[0]) == float(
        loop.bundle().score(raw).default_probability[0]
    )


def test_a_number_that_means_another_bundle_is_not_given_again(loop: Loop) -> None:
    """MLflow begins at 1 when its database is lost; the ledger's version 1 stays the ledger's."""
    (loop.settings.mlflow_dir / "mlflow.db").write_bytes(new_mlflow_store())
    loop.settings.raw_data = "simulated:2000:11"
    assert loop.make("raw_data", "features", "model").success
    assert loop.metadata("model")["model_version"] == "2"
    assert loop.champion().model_version == "1"
    loop.make("champion")
    assert checks(loop.run("audit"))["champion_records_agree"].passed


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """A team's server as `mlflow server` starts it: artifacts go through it."""
    (port,) = reserved_ports(1)
    folder.mkdir()
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder}/m.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    (folder / "m.db").write_bytes(new_mlflow_store())
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    program = str(Path(sys.executable).with_name("mlflow"))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "server", *store, "--port", str(port), "--workers", "1"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        assert process.poll() is None
        try:
            return httpx.get(f"{url}/health").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        until(is_up, 60)
        yield url
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)


def test_an_mlflow_server_with_proxied_artifacts_is_one_stores_registry(tmp_path: Path) -> None:
    with mlflow_server(tmp_path / "server") as url:
        loop = loop_of(tmp_path / "data", mlflow_tracking_uri=url)
        assert loop.run("train").success
        location = {"MLFLOW_TRACKING_URI": url}
        verified = called(tmp_path / "data", "champion", "verify", environment=location)
        assert verified.exit_code == 0, verified.stdout
        assert loop.mlflow_model(f"models:/{MODEL_NAME}@champion")
        loop.instance.dispose()

        other = loop_of(tmp_path / "other", mlflow_tracking_uri=url)
        refused = other.run("train")
        assert not refused.success
        assert f"registered model {MODEL_NAME} of MLflow {url} belongs to store" in str(
            refused.all_events
        )
        assert not (tmp_path / "other" / "storage").exists()
        other.instance.dispose()
    away = command(
        tmp_path / "data",
        "champion",
        "verify",
        environment={**location, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
    )
    assert away.returncode == 1
    assert (
        "does not hold: MLflow's alias champion names the same bundle: MLFLOW_TRACKING_URI is"
        in away.stdout
    )
    assert "Traceback" not in away.stderr


def test_commands_that_only_read_work_on_a_store_that_may_not_be_written(
    data_dir: Path, tmp_path: Path
) -> None:
    """An auditor's copy."""
    landed, scored = (
        data_dir / "landing" / "production" / DAY / "customers.csv",
        tmp_path / "scored.csv",
    )
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in data_dir.rglob("*")}
    for path in (data_dir, *before):
        path.chmod(path.stat().st_mode & ~0o222)
    prefix = OBEYING_MODES if os.geteuid() == 0 else ()
    assert (
        command(data_dir, "simulate", "--days", "1", "--rows", "100", prefix=prefix).returncode == 1
    )  # it may not be written
    reading = [
        ("champion", "verify"),
        ("champion", "show"),
        ("champion", "history"),
        ("status",),
        ("replay", "--date", DAY),
        ("score", str(landed), "-o", str(scored)),
    ]
    done = subprocess.run(
        [*prefix, sys.executable, "-c", ONE_AFTER_ANOTHER, json.dumps(reading)],
        cwd=REPOSITORY,
        env=variables(data_dir),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert scored.read_text().count("\n") == 201
    assert {
        path: (path.stat().st_mtime_ns, path.stat().st_size) for path in data_dir.rglob("*")
    } == before


def test_a_store_is_backed_up_while_it_answers_and_restored_under_another_path(
    loop: Loop, data_dir: Path, tmp_path: Path
) -> None:
    away = tmp_path / "backup"
    with api(loop) as client:
        until(lambda: client.get("/ready").status_code == 200, 30)
        told = [client.post("/predict", json=dict(PORTFOLIO.example)).json() for _ in range(20)]
        calls, going_on = [], threading.Event()

        def call() -> None:
            while not going_on.is_set():
                calls.append(client.post("/predict", json=dict(PORTFOLIO.example)).status_code)

        caller = threading.Thread(target=call)
        caller.start()
        made = command(data_dir, "backup", str(away))
        going_on.set()
        caller.join()
    assert made.returncode == 0, made.stderr
    assert set(calls) == {200}
    shutil.rmtree(data_dir)
    restored = tmp_path / "elsewhere" / "store"
    done = command(restored, "restore", str(away))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "does not hold" not in done.stdout
    assert ", 0 differ" in done.stdout
    replayed = command(restored, "replay", told[0]["decision_id"])
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    again = loop_of(restored)
    again.land_day(NEXT_DAY, customers(200, 6))
    assert again.run("score_production", NEXT_DAY).success
    assert again.champion().ledger_entry == 1
    with api(again) as client:
        until(lambda: client.get("/ready").status_code == 200, 30)
        found = client.get(f"/decisions/{told[-1]['decision_id']}")
        assert found.json()["answer"] == told[-1]
    again.instance.dispose()


def test_what_is_no_whole_backup_or_no_empty_place_is_refused_and_makes_no_store(
    data_dir: Path, tmp_path: Path
) -> None:
    away, new = tmp_path / "backup", tmp_path / "new"

    def refused(*arguments: str, store: Path = new, **environment: str) -> str:
        done = called(store, *arguments, environment=environment)
        assert done.exit_code == 1
        assert not (new / "store.json").exists()
        return " ".join(done.stderr.split())

    assert "is no store" in refused("backup", str(away))
    for place in (data_dir, data_dir / "landing" / "backup"):
        assert "is a part of the store" in refused("backup", str(place), store=data_dir)
    assert called(data_dir, "backup", str(away)).exit_code == 0
    assert "is not empty; valid: a new folder" in refused("backup", str(away), store=data_dir)
    assert "has a store; valid: a new CREDITRISK_DATA_DIR" in refused(
        "restore", str(away), store=data_dir
    )
    assert "has no backup.json" in refused("restore", str(tmp_path / "nowhere"))
    assert "127.0.0.1:9/none" in refused(
        "restore", str(away), CREDITRISK_DATABASE_URL="postgresql://nobody@127.0.0.1:9/none"
    )
    entry = away / "ledger" / "000001.json"
    content = entry.read_bytes()
    entry.chmod(0o644)
    entry.write_bytes(content.replace(b"first", b"fi\\u0072st"))
    assert f"{entry} has SHA-256" in refused("restore", str(away))
    assert "restoring.json" in refused(
        "restore", str(away)
    )  # what was made in part is no new place
    shutil.rmtree(new)
    entry.unlink()
    assert f"{entry} is missing; the manifest names it" in refused("restore", str(away))


def test_the_parts_of_a_store_are_named_and_one_of_another_store_is_found(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parts(place: Path) -> dict[str, tuple[str, bool]]:
        done = called(place, "store", "check", "--json")
        found = {part["name"]: part for part in json.loads(done.stdout)["parts"]}
        assert done.exit_code == (0 if all(part["holds"] for part in found.values()) else 1)
        return {name: (part["state"], part["holds"]) for name, part in found.items()}

    whole = parts(data_dir)
    assert all(holds for _, holds in whole.values()), whole
    assert "embedded shape" in whole["data folder"][0]
    assert whole["ledger"][0] == "1 entries, version 1 in force"
    assert whole["alerts"][0] == "no receiver"
    with monkeypatch.context() as patch:
        patch.setenv("CREDITRISK_ALERT_ROUTES", str(tmp_path / "none.toml"))
        state, holds = parts(data_dir)["alerts"]
        assert ("none.toml cannot be read" in state, holds) == (True, False)
    assert parts(tmp_path / "none") == {
        "data folder": ("no store yet; `creditrisk init` makes one", False)
    }
    mark = data_dir / "store.json"
    mark.chmod(0o644)
    mark.write_text(mark.read_text().replace('"id": "', '"id": "0'))
    for name in ("Dagster", "MLflow"):
        state, holds = parts(data_dir)[name]
        assert (state.startswith("belongs to store "), holds) == (True, False)
