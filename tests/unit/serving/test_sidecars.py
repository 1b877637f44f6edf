"""Processes beside the workers: begun again where they were killed, told to end with the workers, gone with their parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from upath import UPath

from creditrisk_assets.decisions.codec import PLAIN
from creditrisk_assets.decisions.log import SegmentWriter, segments_in
from creditrisk_assets.settings import Settings
from serving.ops.sidecars import ARCHIVER, PUBLISHER, running
from tests.support.segments import header

COMPANION = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def looked_once_more(*_):
    (folder / "ended").write_text(str(os.getpid()))
    sys.exit()
signal.signal(signal.SIGTERM, looked_once_more)
(folder / f"begun-{os.getpid()}").touch()
time.sleep(60)
"""


def begun(folder: Path, count: int) -> set[int]:
    """The processes that were begun, once there are so many."""
    deadline = time.monotonic() + 20
    while (
        len(found := {int(path.name.removeprefix("begun-")) for path in folder.glob("begun-*")})
        < count
    ):
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


@pytest.mark.starts_processes
def test_one_that_was_killed_is_begun_again_and_the_last_one_is_waited_for(tmp_path: Path) -> None:
    with running([sys.executable, "-c", COMPANION, str(tmp_path)], restart_seconds=0.05):
        (first,) = begun(tmp_path, 1)
        os.kill(first, signal.SIGKILL)
        (second,) = begun(tmp_path, 2) - {first}
    assert (tmp_path / "ended").read_text() == str(second)
    assert len(begun(tmp_path, 2)) == 2


@pytest.mark.starts_processes
def test_one_that_cannot_begin_holds_up_nobody() -> None:
    start = time.monotonic()
    with running([sys.executable, "-c", "raise SystemExit(3)"], restart_seconds=30):
        time.sleep(0.5)
    assert time.monotonic() - start < 10


@pytest.mark.starts_processes
@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process that its parent has ended"
)
@pytest.mark.parametrize("name", [ARCHIVER, PUBLISHER])
def test_it_does_not_begin_where_its_parent_has_ended_already(name: str) -> None:
    command = [sys.executable, "-m", "serving.ops.sidecars", name, str(os.getpid() + 1)]
    assert subprocess.run(command, check=False, timeout=30).returncode == 0


SUPERVISOR = """
import multiprocessing, os, pathlib, signal, sys, time
from serving.ops.sidecars import end_with_supervisor
folder = pathlib.Path(sys.argv[1])
def work():
    supervisor = os.getppid()
    (folder / f"begun-{os.getpid()}").touch()
    while os.getppid() == supervisor:
        time.sleep(0.01)
    try:
        end_with_supervisor()
        (folder / "went-on").touch()
    finally:
        (folder / "over").touch()
multiprocessing.get_context("fork").Process(target=work).start()
while not list(folder.glob("begun-*")):
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.starts_processes
@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process that its parent has ended"
)
def test_a_worker_whose_supervisor_was_killed_while_it_began_does_not_go_on(tmp_path: Path) -> None:
    """It would hold the port, and decide beside those who were started instead."""
    subprocess.run([sys.executable, "-c", SUPERVISOR, str(tmp_path)], check=False, timeout=30)
    deadline = time.monotonic() + 20
    while not (tmp_path / "over").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (tmp_path / "went-on").exists()


@pytest.mark.starts_processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_archiver_that_is_stopped_before_it_has_begun_archives_once_all_the_same(
    tmp_path: Path,
) -> None:
    settings = Settings(data_dir=UPath(tmp_path))
    SegmentWriter(
        settings.open_segments, header(), PLAIN
    ).close()  # a process that decided nothing has left it
    environment = {**os.environ, "CREDITRISK_DATA_DIR": str(tmp_path)}
    archiver = subprocess.Popen(
        [sys.executable, "-m", "serving.ops.sidecars", ARCHIVER, str(os.getpid())], env=environment
    )
    deadline = time.monotonic() + 20
    while signal.SIGTERM not in held_back(archiver.pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    archiver.terminate()
    assert archiver.wait(30) == 0
    assert segments_in(settings.open_segments) == []


def held_back(process: int) -> set[signal.Signals]:
    """The signals that a process takes later."""
    status = Path(f"/proc/{process}/status").read_text()
    (mask,) = (
        int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk:")
    )
    return {one for one in signal.Signals if mask >> (one - 1) & 1}
