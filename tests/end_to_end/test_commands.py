"""The commands as their users type them, those that start something with real processes."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from creditrisk_assets.cli.main import app
from creditrisk_assets.simulation.card_customers import simulate
from creditrisk_assets.simulation.processes import reserved_ports
from tests.support.places import REFUSING_PROXY, REPOSITORY

CREDITRISK = [sys.executable, "-m", "creditrisk_assets.cli.main"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the project's Dagster configuration and nothing else."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


def _run(project: Path, *arguments: str, expected: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [*CREDITRISK, *arguments],
        cwd=project,
        env=_environment(project),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == expected, result.stdout + result.stderr
    return result


def _called(project: Path, *arguments: str, expected: int = 0) -> Result:
    """A command in this process: one of its own spends seconds on imports, and these say the same in both."""
    with contextlib.chdir(project):
        result = CliRunner().invoke(
            app,
            arguments,
            env={**_environment(project), "DAGSTER_HOME": None, "CREDITRISK_DATA_DIR": None},
        )
    assert result.exit_code == expected, result.stdout + result.stderr
    return result


def _environment(project: Path) -> dict[str, str]:
    """A bank's machine: a proxy for the world outside, which knows nothing of this machine's loopback. Here it refuses."""
    return {"PATH": os.environ["PATH"], "HOME": str(project), "COLUMNS": "200"} | REFUSING_PROXY


@pytest.mark.timeout(600)
def test_the_demo_shows_the_whole_loop_on_a_small_portfolio(project: Path) -> None:
    """Real daemon, code server, webserver and API: train, stable days, drift, retrain, promotion, swap, no failed call."""
    data = project / "customers.csv"
    simulate(12_000, 3).to_csv(data, index=False)
    result = _run(project, "demo", "--data", str(data))
    assert "no retrain on stable days" in result.stdout
    assert "challenger is better" in result.stdout
    assert "failed: 0" in result.stdout
    assert "all of it happened" in result.stdout
    store = project / "data" / "demo"
    status = json.loads(
        subprocess.run(
            [*CREDITRISK, "status", "--json"],
            cwd=store,
            env={
                **_environment(project),
                "DAGSTER_HOME": str(store),
                "CREDITRISK_DATA_DIR": str(store / "data"),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert [day["drifted_columns"] > 0 for day in status["days"]] == [False, False, True, True]
    assert status["champion"]["verdict"] == "promoted"
    assert not status["failed_runs"]


def test_dev_starts_everything_and_leaves_nothing_behind(project: Path) -> None:
    """A Ctrl-C or a kill -9 that leaves a daemon behind would hold the ports and go on launching runs.

    The second start is in the project of the first and on its ports.
    """
    ports = reserved_ports(3)
    _dev_until(project, ports, signal.SIGKILL, -signal.SIGKILL)
    _dev_until(project, ports, signal.SIGINT, 0)


def _dev_until(project: Path, ports: Sequence[int], how: signal.Signals, exit_code: int) -> None:
    """Start everything on three ports, end it by a signal, and wait until none of its processes is left."""
    dagster, api, mlflow = ports
    command = [
        *CREDITRISK,
        "dev",
        "--dagster-port",
        str(dagster),
        "--api-port",
        str(api),
        "--mlflow-port",
        str(mlflow),
    ]
    process = subprocess.Popen(
        command,
        cwd=project,
        env=_environment(project),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        told = ""
        deadline = time.monotonic() + 120
        while "no champion yet" not in told:
            assert time.monotonic() < deadline, told
            told += process.stdout.readline()
        assert httpx.get(f"http://127.0.0.1:{dagster}/server_info").status_code == 200
        assert httpx.get(f"http://127.0.0.1:{api}/ready").status_code == 503
        assert httpx.get(f"http://127.0.0.1:{mlflow}/health").status_code == 200
        children = _descendants(process.pid)
        assert len(children) >= 5
        os.kill(process.pid, how)
        assert process.wait(60) == exit_code
        deadline = time.monotonic() + 60
        while alive := [child for child in children if _alive(child)]:
            assert time.monotonic() < deadline, alive
            time.sleep(0.2)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_port_in_use_is_named(project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = _run(project, "dev", "--dagster-port", str(port), expected=1)
    assert f"port {port} for the Dagster UI is in use" in result.stderr


def test_simulate_lands_days_that_are_the_same_for_the_same_seed(project: Path) -> None:
    _called(
        project,
        "simulate",
        "--days",
        "2",
        "--rows",
        "50",
        "--start",
        "2026-06-01",
        "--scenario",
        "concept-drift",
    )
    landed = sorted(
        path.relative_to(project) for path in (project / "data" / "landing").rglob("*.csv")
    )
    assert [str(path) for path in landed] == [
        f"data/landing/{zone}/2026-06-0{day}/{name}.csv"
        for zone, name in (("outcomes", "outcomes"), ("production", "customers"))
        for day in (1, 2)
    ]
    before = [(project / path).read_bytes() for path in landed]
    _called(
        project,
        "simulate",
        "--days",
        "2",
        "--rows",
        "50",
        "--start",
        "2026-06-01",
        "--scenario",
        "concept-drift",
    )
    assert [(project / path).read_bytes() for path in landed] == before


def test_without_a_champion_commands_fail_with_what_to_run(project: Path) -> None:
    for arguments in (("champion", "show"), ("score", "x.csv", "-o", "y.csv")):
        result = _called(project, *arguments, expected=1)
        assert "there is no champion yet; run make train" in result.stderr
    assert "champion: none yet" in _called(project, "status").stdout


def test_what_cannot_be_read_is_in_the_status(project: Path) -> None:
    for name in ("2026-1-5", "1969-12-31", "2999-01-01"):
        folder = project / "data" / "landing" / "production" / name
        folder.mkdir(parents=True)
        (folder / "customers.csv").write_text("id\n1\n")
    said = " ".join(_called(project, "status").stdout.split())
    assert (
        "production: '2026-1-5' is a date in another form; valid: a folder named YYYY-MM-DD" in said
    )
    assert "production: 1969-12-31 is before the earliest day; valid: 1970-01-01 to" in said
    assert "production: 2999-01-01 is in the future; valid: 1970-01-01 to" in said


@pytest.mark.parametrize(
    ("portfolio", "message"),
    [
        (
            "no_such_module.PORTFOLIO",
            "CREDITRISK_PORTFOLIO: 'no_such_module.PORTFOLIO': Invalid python path: No module named",
        ),
        ("broken.PORTFOLIO", "field Amount: not a canonical name; valid: 'amount'"),
    ],
)
def test_a_portfolio_that_cannot_be_used_is_named_with_the_reason(
    project: Path, portfolio: str, message: str
) -> None:
    (project / "broken.py").write_text(
        "from creditrisk_assets.portfolio.contract import Field\nPORTFOLIO = Field('Amount', 'how much', 'EUR', 0, 1)\n"
    )
    result = subprocess.run(
        [*CREDITRISK, "portfolio", "describe"],
        cwd=project,
        env=_environment(project) | {"CREDITRISK_PORTFOLIO": portfolio},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert message in " ".join(result.stderr.split()).replace("'Amount':", "Amount:")


def test_outside_the_project_the_message_says_where_to_run(tmp_path: Path) -> None:
    result = _called(tmp_path, "status", expected=1)
    assert "has no dagster.yaml; run from the project's folder" in result.stderr


def test_wrong_usage_has_exit_code_two(project: Path) -> None:
    _called(project, "simulate", "--days", "none", expected=2)
    for command in (("simulate", "--scenario", "locusts"), ("drill", "locusts")):
        assert "scenario 'locusts'; valid: stable, covariate-shift" in " ".join(
            _called(project, *command, expected=2).stderr.split()
        )
    _called(project, "no-such-command", expected=2)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that they started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(
                    entry.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1]
                )
            except (FileNotFoundError, ProcessLookupError):
                continue
    found, frontier = [], [pid]
    while frontier:
        frontier = [child for child, parent in parents.items() if parent in frontier]
        found += frontier
    return found
