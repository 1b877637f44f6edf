"""The API's processes: workers that answer; beside them who reads which champion is in force, and
who keeps what was decided.
"""

import multiprocessing
import os
import resource
import signal
import sys

import structlog
from upath import UPath

from creditrisk_assets.settings import ServingSettings, Settings
from creditrisk_assets.store import claim_folder, open_store
from serving.access.keys import KeyRing, require_keys_beyond_loopback
from serving.ops.logs import configure_logs
from serving.ops.sidecars import beside, companion, end_with_parent

log = structlog.get_logger()

GRACEFUL_SECONDS = 20


def run(serving: ServingSettings, settings: Settings) -> None:
    """Serve until told to stop; then what is in flight is finished, kept, and everything ends.

    Args:
        serving: address, port, number of workers.
        settings: where keys and decisions are.

    Raises:
        KeysError: if the file of keys cannot be read.
        OpenBeyondLoopback: if there are no keys and others than this machine could ask.
        StoreMismatch: if the API's folder, or the portfolio, is another store's.
    """
    ring = KeyRing(settings.api_keys)
    require_keys_beyond_loopback(
        serving.host, ring, open_beyond_loopback=serving.open_beyond_loopback
    )
    configure_logs(serving.log_format)
    _require_one_store(settings)
    settings.published_champion.unlink(missing_ok=True)  # what an earlier run has left
    signal.signal(
        signal.SIGTERM, _end
    )  # uvicorn passes the signal on when it is done; the companions are to be waited for
    with beside(companion("serving.ops.reader")), beside(companion("serving.ops.keeper")):
        _answer(serving, settings)


def _require_one_store(settings: Settings) -> None:
    """Compare the API's folder with the store. A store that does not answer now is no reason not to
    start: the last known champion answers, and no other one does that the ledger does not have.
    """
    try:
        claim_folder(UPath(settings.api_folder), open_store(settings))
    except OSError as error:
        log.warning("store_not_compared", problem=str(error))


def _answer(serving: ServingSettings, settings: Settings) -> None:
    # Imported while the process that reads who is champion does the same: whoever is last is waited
    # for.
    import uvicorn

    from serving.ops.metrics import empty_metrics

    empty_metrics(settings.metrics_dir)
    _allow_many_connections()
    uvicorn.run(
        "serving.app:app_from_environment",
        factory=True,
        host=serving.host,
        port=serving.port,
        workers=serving.workers,
        loop="uvloop" if sys.platform != "win32" else "auto",
        http="serving.http.protocol:GuardedProtocol",
        access_log=False,
        log_config=None,  # ours
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )


def end_with_supervisor() -> None:
    """A worker must not go on answering when whoever watches over it was killed, nor begin when
    that has happened already. A single one is nobody's worker: it goes on when the shell that
    started it ends.
    """
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        end_with_parent()
        if os.getppid() != supervisor.pid:
            raise SystemExit(0)


def _end(*_: object) -> None:
    raise SystemExit(0)


def _allow_many_connections() -> None:
    """As many descriptors as the system lets this process have; each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
