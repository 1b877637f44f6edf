"""The API's processes run with the packages of requirements-serving.lock alone."""

import contextlib
import importlib.metadata
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.processes import reserved_ports
from tests.support.loop import Loop
from tests.support.places import REPOSITORY
from tests.support.waiting import until
from tests.support.webserver import webserver

CUSTOMER = dict(PORTFOLIO.example)
FORBIDDEN = ("dagster", "mlflow", "pandas", "sklearn", "scipy", "matplotlib", "evidently", "onnx")
"""Some that the lock must not have."""

HOOK = """
import sys

REFUSED = frozenset({refused!r})

class Refusing:
    def find_spec(self, name, path, target=None):
        if name in REFUSED:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refusing())
"""
"""As `sitecustomize`, it takes modules away from every Python process."""


def distribution_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def modules_outside_the_lock() -> set[str]:
    """Importable modules that only packages outside requirements-serving.lock have."""
    lock = (REPOSITORY / "requirements-serving.lock").read_text()
    locked = {
        distribution_name(name) for name in re.findall(r"^([\w.-]+)[\[=]", lock, re.MULTILINE)
    }
    locked.add("creditrisk")
    return {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if locked.isdisjoint(map(distribution_name, owners))
    }


@dataclass
class ServingOnly:
    """An installation for the API, and the environment of a store for its processes."""

    environment: dict[str, str]
    home: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "creditrisk_assets.cli.main", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), env=self.environment, cwd=self.home, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def installation(trained: Loop, tmp_path_factory: pytest.TempPathFactory) -> ServingOnly:
    hook = tmp_path_factory.mktemp("hook")
    (hook / "sitecustomize.py").write_text(HOOK.format(refused=modules_outside_the_lock()))
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CREDITRISK_", "COV"))
    }
    environment = {
        **variables,
        "PYTHONPATH": f"{hook}{os.pathsep}{REPOSITORY}",
        **trained.environment,
        "CREDITRISK_LIMITS": '{"segment_minutes": 0.01}',
    }
    return ServingOnly(environment, trained.home)


@pytest.fixture(scope="module")
def api(installation: ServingOnly, trained: Loop) -> Iterator[httpx.Client]:
    """A running API that reads the champion from a Dagster webserver."""
    port, dagster_port = reserved_ports(2)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(webserver(trained, dagster_port))
        process = subprocess.Popen(
            installation.command("serve", "--port", str(port)),
            env=installation.environment | {"CREDITRISK_CHAMPION_SOURCE": source},
            cwd=installation.home,
        )
        stack.callback(process.wait, 30)
        stack.callback(process.send_signal, signal.SIGTERM)
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30))

        def is_ready() -> bool:
            assert process.poll() is None
            with contextlib.suppress(httpx.TransportError):
                return client.get("/ready").status_code == 200
            return False

        until(is_ready, 60)
        yield client


def test_the_lock_has_no_library_of_training_or_orchestration() -> None:
    assert set(FORBIDDEN) <= modules_outside_the_lock()


def test_a_decision_is_made_found_and_archived(
    api: httpx.Client, installation: ServingOnly, trained: Loop
) -> None:
    answer = api.post("/predict", json=CUSTOMER)
    assert answer.status_code == 200, answer.text
    decision = answer.json()["decision_id"]
    assert api.get(f"/decisions/{decision}").status_code == 200
    segment = decision.rpartition("-")[0][11:]

    def is_landed() -> bool:  # the API finishes the segment within two seconds
        landed = installation.run("decisions", "archive", "--now")
        assert landed.returncode == 0, landed.stderr
        return any(trained.settings.landing_production.glob(f"*/api-{segment}.parquet"))

    until(is_landed, 60)
    assert api.get(f"/decisions/{decision}").status_code == 200
    replayed = installation.run("replay", decision)
    assert replayed.returncode == 0, replayed.stderr


@pytest.mark.parametrize(
    "kind", ["text/csv", "application/x-ndjson", "application/vnd.apache.parquet"]
)
@pytest.mark.parametrize(
    "answer", ["application/x-ndjson", "text/csv", "application/vnd.apache.parquet"]
)
def test_batches_of_every_format(api: httpx.Client, kind: str, answer: str) -> None:
    table = pa.Table.from_pylist([CUSTOMER | {PORTFOLIO.identifier: str(row)} for row in range(3)])
    if kind == "text/csv":
        names = table.column_names
        lines = [
            ",".join(names),
            *(",".join(str(row[name]) for name in names) for row in table.to_pylist()),
        ]
        body = "\n".join(lines).encode()
    elif kind == "application/x-ndjson":
        body = "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()
    else:
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        body = buffer.getvalue()
    response = api.post(
        "/predict/batch", content=body, headers={"Content-Type": kind, "Accept": answer}
    )
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/monitoring",
        "/model-info",
        "/model/card",
        "/metrics",
        "/health",
        "/docs",
        "/openapi.json",
    ],
)
def test_pages_and_documents(api: httpx.Client, path: str) -> None:
    assert api.get(path).status_code == 200


def test_the_page_decides_and_compares(api: httpx.Client) -> None:
    decided = api.post("/", data={name: str(value) for name, value in CUSTOMER.items()})
    assert decided.status_code == 200, decided.text
    compared = api.post("/what-if", json=CUSTOMER)
    assert compared.status_code == 200, compared.text


def test_reports_and_plots(api: httpx.Client, trained: Loop) -> None:
    [verdict, *_] = (trained.settings.reports / "verdicts").glob("*.html")
    assert api.get(f"/reports/verdicts/{verdict.stem}").status_code == 200
    plots = re.findall(r"/model/plots/[\w-]+\.png", api.get("/").text)
    assert plots
    assert {api.get(plot).status_code for plot in plots} == {200}


def test_keys_are_made(installation: ServingOnly, tmp_path: Path) -> None:
    environment = installation.environment | {
        "CREDITRISK_API_KEYS_FILE": str(tmp_path / "keys.json")
    }
    made = ServingOnly(environment, installation.home).run(
        "keys", "create", "scoring", "--scope", "predict"
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip()


@pytest.mark.parametrize(
    "command", ["status", "train", "init", "code-server", "watch", "demo", "simulate"]
)
def test_other_commands_name_the_extra(installation: ServingOnly, command: str) -> None:
    refused = installation.run(command)
    assert refused.returncode == 1
    message = " ".join(refused.stderr.split())
    assert re.search(
        r"is not installed; this command needs the extra dagster: pip install 'creditrisk\[dagster\]'$",
        message,
    )


def test_serve_names_the_extra_that_its_champion_source_needs(installation: ServingOnly) -> None:
    refused = installation.run("serve")
    assert refused.returncode == 1
    assert "CREDITRISK_CHAMPION_SOURCE is dagster" in refused.stderr
    assert "creditrisk[dagster]" in refused.stderr


def test_the_help_needs_no_extra(installation: ServingOnly) -> None:
    assert installation.run("--help").returncode == 0
