"""The process that keeps decisions: begun again where it was killed, told to end with the workers, gone with its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.keeper import kept

KEEPER = """
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
    while len(found := {int(path.name.removeprefix("begun-")) for path in folder.glob("begun-*")}) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def test_a_keeper_that_was_killed_is_begun_again_and_the_last_one_is_waited_for(tmp_path: Path) -> None:
    with kept([sys.executable, "-c", KEEPER, str(tmp_path)], again_seconds=0.05):
        (first,) = begun(tmp_path, 1)
        os.kill(first, signal.SIGKILL)
        (second,) = begun(tmp_path, 2) - {first}
    assert (tmp_path / "ended").read_text() == str(second)
    assert len(begun(tmp_path, 2)) == 2


def test_a_keeper_that_cannot_begin_holds_up_nobody() -> None:
    start = time.monotonic()
    with kept([sys.executable, "-c", "raise SystemExit(3)"], again_seconds=30):
        time.sleep(0.5)
    assert time.monotonic() - start < 10


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_it_does_not_begin_where_its_parent_has_ended_already() -> None:
    command = [sys.executable, "-m", "serving.keeper", str(os.getpid() + 1)]
    assert subprocess.run(command, check=False, timeout=30).returncode == 0
