"""A code server that is killed in the middle of a run, with the real daemon."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from creditrisk_assets.cli.main import app
from creditrisk_assets.defs import status
from creditrisk_assets.defs.event_log import champion_in_force
from creditrisk_assets.defs.orphaned_runs import AGAIN_OF_TAG, end_orphaned_runs
from creditrisk_assets.defs.store_mark import require_one_store
from creditrisk_assets.settings import Settings
from creditrisk_assets.simulation import processes
from tests.support.places import REPOSITORY

ROWS = "5000"
"""So many that the training is still going on when the server is killed."""


def until(happened: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def _copies_of_a_fork_server(group: int) -> int:
    """Processes of a group that a fork server has made of itself; Dagster would start interpreters of their own."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent, in_group = (entry / "stat").read_text().rpartition(")")[2].split()[1:3]
            if int(in_group) == group:
                found[entry.name] = parent, (entry / "cmdline").read_bytes()
    return sum(
        b"multiprocessing.forkserver" in command and parent in found and found[parent][1] == command
        for parent, command in found.values()
    )


def _watch() -> str:
    """The output of `creditrisk watch`. It fails in any case, for want of an API."""
    result = CliRunner().invoke(app, ["watch"], env={"COLUMNS": "400"})
    assert result.exit_code == 1, f"{result.output} {result.exception!r}"
    return result.output


@pytest.mark.timeout(300)
def test_a_training_whose_code_server_is_killed_is_started_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster's own retry looks while the server is away, and gives up."""
    for name, value in {
        "DAGSTER_HOME": str(REPOSITORY),
        "CREDITRISK_DATA_DIR": str(tmp_path / "data"),
        "CREDITRISK_RAW_DATA": f"simulated:{ROWS}",
    }.items():
        monkeypatch.setenv(name, value)
    instance = status.open_instance(REPOSITORY)
    (port,) = processes.reserved_ports(1)
    workspace = tmp_path / "workspace.yaml"
    processes.write_workspace(workspace, port)
    ports = processes.Ports(port, 0, 0, None)
    since = time.time()
    every = processes.services(ports, workspace, lambda: status.daemon_is_up(instance, since))
    server, daemon = (
        next(one for one in every if one.name == name) for name in ("code-server", "dagster-daemon")
    )

    def runs(*statuses: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
        return list(instance.get_runs(dg.RunsFilter(job_name="train", statuses=[*statuses])))

    require_one_store(Settings(), instance)
    assert "is the daemon running?" in _watch()
    with processes.running(
        [server, daemon], REPOSITORY, {}, tmp_path / "logs", lambda _: None
    ) as up:
        program = str(Path(sys.executable).with_name("dagster"))
        subprocess.run(
            [program, "job", "launch", "-w", str(workspace), "-j", "train"],
            cwd=REPOSITORY,
            check=True,
        )
        until(lambda: runs(dg.DagsterRunStatus.STARTED), 60)
        killed = up.services[0][1]
        assert _copies_of_a_fork_server(killed.pid) == 1
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        (orphan,) = end_orphaned_runs(instance, port)  # as the next code server does
        with processes.running([server], REPOSITORY, {}, tmp_path / "logs", lambda _: None):
            until(lambda: runs(dg.DagsterRunStatus.SUCCESS), 120)
            assert "well: sensors_tick" in _watch()
    (again,) = runs(dg.DagsterRunStatus.SUCCESS)
    assert again.tags[AGAIN_OF_TAG] == orphan
    assert len(runs(*dg.DagsterRunStatus)) == 2
    assert champion_in_force(instance) is not None
    instance.dispose()
