"""Runs the API's processes: workers, the publisher of the champion, the archiver of decisions."""

import resource
import signal
import sys

import structlog
from upath import UPath

from creditrisk_assets.settings import ServingSettings, Settings
from creditrisk_assets.store import claim_folder, open_store
from serving.access.keys import KeyRing, KeysError, require_keys_beyond_loopback
from serving.access.shared_keys_file import copy_shared_keys
from serving.inference.champion_file import ChampionFile
from serving.ops.logs import configure_logs
from serving.ops.sidecars import ARCHIVER, PUBLISHER, running, sidecar

log = structlog.get_logger()

GRACEFUL_SECONDS = 20


def run(serving: ServingSettings, settings: Settings) -> None:
    """Serve until a signal arrives; then finish and archive the requests in flight.

    Args:
        serving: address, port, number of workers.
        settings: the places of keys and decisions.

    Raises:
        KeysError: if the file of keys cannot be read.
        OpenBeyondLoopback: if there are no keys and other machines can reach the API.
        StoreMismatch: if the API's folder or the portfolio belongs to another store.
    """
    try:
        copy_shared_keys(settings)
    except KeysError as error:
        if not settings.api_keys.exists():
            raise
        log.warning("keys_not_copied", problem=str(error), in_force="the keys copied before")
    ring = KeyRing(settings.api_keys)
    require_keys_beyond_loopback(
        serving.host, ring, open_beyond_loopback=serving.open_beyond_loopback
    )
    configure_logs(serving.log_format)
    try:
        claim_folder(UPath(settings.api_folder), open_store(settings))
    except OSError as error:
        # An unreachable store does not prevent a start: the newest stored champion answers, and the
        # ledger must confirm each new one.
        log.warning("store_not_compared", problem=str(error))
    ChampionFile.of(settings).expire()
    # uvicorn raises the signal again when it is done; the sidecars must still end.
    signal.signal(signal.SIGTERM, _end)
    with running(sidecar(PUBLISHER)), running(sidecar(ARCHIVER)):
        _answer(serving, settings)


def _answer(serving: ServingSettings, settings: Settings) -> None:
    # Imported while the sidecars start.
    import uvicorn

    from serving.ops.metrics import empty_metrics

    empty_metrics(settings.metrics_dir)
    # Each connection takes a descriptor.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvicorn.run(
        "serving.app:app_from_environment",
        factory=True,
        host=serving.host,
        port=serving.port,
        workers=serving.workers,
        loop="uvloop" if sys.platform != "win32" else "auto",
        http="serving.http.protocol:GuardedProtocol",
        access_log=False,
        log_config=None,  # set by configure_logs
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )


def _end(*_: object) -> None:
    raise SystemExit(0)
