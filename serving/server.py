"""The API's processes: workers that answer, and beside them the one that keeps what was decided."""

import ctypes
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn

from creditrisk_assets.api_keys import KeyRing, require_keys_beyond_loopback
from creditrisk_assets.settings import ServingSettings, Settings
from serving.logs import configure_logs
from serving.metrics import empty_metrics

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""

KEEPER_SECONDS = 20.0
KEEPER_NICENESS = 10
"""Whoever asks for a decision goes first."""

GRACEFUL_SECONDS = 20


def run(serving: ServingSettings, settings: Settings) -> None:
    """Serve until told to stop; then what is in flight is finished, kept, and everything ends.

    Args:
        serving: address, port, number of workers.
        settings: where keys and decisions are.

    Raises:
        KeysError: if the file of keys cannot be read.
        OpenBeyondLoopback: if there are no keys and others than this machine could ask.
    """
    ring = KeyRing(settings.api_keys)
    require_keys_beyond_loopback(serving.host, ring, open_beyond_loopback=serving.open_beyond_loopback)
    configure_logs(serving.log_format)
    empty_metrics(settings.metrics_dir)
    _allow_many_connections()
    signal.signal(signal.SIGTERM, _end)  # uvicorn passes the signal on when it is done; the keeper is to be waited for
    with _keeper():
        uvicorn.run(
            "serving.app:app_from_environment",
            factory=True,
            host=serving.host,
            port=serving.port,
            workers=serving.workers,
            loop="uvloop" if sys.platform != "win32" else "auto",
            http="serving.protocol:GuardedProtocol",
            access_log=False,
            log_config=None,  # ours
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACEFUL_SECONDS,
        )


def end_with_supervisor() -> None:
    """A worker must not go on answering when whoever watches over it was killed. A single one is nobody's worker: it goes on when
    the shell that started it ends.
    """
    if multiprocessing.parent_process() is not None:
        end_with_parent()


def end_with_parent() -> None:
    """Let this process end when the one that started it does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _keeper() -> Iterator[None]:
    """Runs `creditrisk decisions keep --watch` beside the workers; when they have ended, it looks once more and ends."""
    command = [sys.executable, "-m", "creditrisk_assets.cli", "decisions", "keep", "--watch"]
    begin = partial(_begin_keeper, os.getpid())
    keeper = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=begin)
    try:
        yield
    finally:
        keeper.terminate()
        try:
            keeper.wait(KEEPER_SECONDS)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()


def _end(*_: object) -> None:
    raise SystemExit(0)


def _begin_keeper(parent: int) -> None:
    end_with_parent()
    if os.getppid() != parent:  # it was killed before the line above
        os._exit(0)
    os.nice(KEEPER_NICENESS)


def _allow_many_connections() -> None:
    """As many descriptors as the system lets this process have; each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
