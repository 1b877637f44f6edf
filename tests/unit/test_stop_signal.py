"""Processes that are told to stop, by more than one who tells them so."""

import signal
import subprocess
import sys
import time

import pytest

PROCESS = """
import sys
from creditrisk_assets.stop_signal import StopSignal
stop = StopSignal()
print("ready", flush=True)
while not stop.wait(0.01):
    pass
print("told", flush=True)
"""


@pytest.mark.starts_processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_burst_of_signals_ends_a_process_and_hangs_none(number: signal.Signals) -> None:
    """A lock that a signal handler takes is waited for by the handler of the next signal, for ever."""
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(number)
        try:
            assert process.wait(5) in (
                0,
                -number,
            )  # a signal may still come when Python is on its way out
            assert process.stdout.read() in ("told\n", "")
        finally:
            process.kill()
            process.stdout.close()
