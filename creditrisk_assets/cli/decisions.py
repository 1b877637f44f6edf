"""The commands `creditrisk decisions`, which move the API's decisions from the log to the store."""

import signal
import sqlite3
import time
from typing import TYPE_CHECKING, Annotated

import structlog
import typer
from upath import UPath

from creditrisk_assets.cli.common import fail, settings_here
from creditrisk_assets.stop_signal import SIGNALS, StopSignal

if TYPE_CHECKING:
    from creditrisk_assets.settings import Settings

ARCHIVE_SECONDS = 2.0

FINISH_SECONDS = 30.0
"""Longest wait for the API's processes, which look every second for a request to finish."""

log = structlog.get_logger()

decisions_app = typer.Typer(no_args_is_help=True, help="The decisions of the API.")


@decisions_app.callback()
def decisions() -> None:
    """The decisions of the API."""


def _forget_shared_keys(settings: "Settings", seconds: float) -> None:
    """Remove old idempotency keys from the database that the replicas share, if there is one."""
    if settings.database_url is None:
        return
    from creditrisk_assets.decisions.shared_keys import SharedKeys

    shared = SharedKeys(settings.database_url.get_secret_value(), replica="")
    try:
        shared.forget(seconds)
    finally:
        shared.close()


@decisions_app.command()
def archive(
    now: Annotated[
        bool, typer.Option(help="Also land finished segments of a day that is not over.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(help="Run until stopped; `creditrisk serve` runs this beside the API."),
    ] = False,
    finish: Annotated[
        bool,
        typer.Option(
            help="First ask the API on this machine to finish its segments, so that all its "
            "decisions are archived: before a backup of several replicas, on each of them."
        ),
    ] = False,
) -> None:
    """Archive finished segments of the decision log for replay, and land the customers of days that
    are over.
    """
    from creditrisk_assets.decisions.archive import ApiDecisions, archive_finished
    from creditrisk_assets.decisions.idempotency import IdempotencyIndex, KeysUnavailable
    from creditrisk_assets.decisions.log import segments_in
    from creditrisk_assets.decisions.writer import request_finish
    from creditrisk_assets.settings import today
    from creditrisk_assets.store import StoreMismatch, claim_folder, open_store

    if finish and watch:
        raise typer.BadParameter("--finish is given with --watch; valid: one of them")
    settings = settings_here()
    api, hours = ApiDecisions.of(settings), settings_here(serving=True).limits.idempotency_hours
    index: IdempotencyIndex | None = None
    stop = StopSignal()
    # The parent process may have blocked them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    unfinished = {path.name for path in segments_in(api.open_segments)} if finish else set()
    deadline = time.monotonic() + FINISH_SECONDS
    if unfinished:
        try:
            request_finish(api.open_segments)
        except OSError as error:
            fail(f"the API cannot be asked to finish its segments: {error}")
    while True:
        # After a signal it archives once more: the API has finished its segments by then.
        last = stop.requested or not watch
        try:
            claim_folder(UPath(settings.api_folder), open_store(settings))
            index = index or api.index(settings.idempotency_file)
            archived = archive_finished(api, index, today(), now)
            for name in archived.sealed:
                log.info("segment_sealed", segment=name)
            for name in archived.landed:
                log.info("segment_landed", segment=name)
            index.forget(hours * 3600)
            _forget_shared_keys(settings, hours * 3600)
            failed = bool(archived.problems)
        except StoreMismatch as error:
            fail(error)
        # Such as a full disk; the segments wait.
        except (OSError, sqlite3.Error, KeysUnavailable) as error:
            log.error("decisions_not_archived", problem=str(error))
            failed = True
        unfinished &= {path.name for path in segments_in(api.open_segments)}
        if last and (not unfinished or stop.requested or time.monotonic() > deadline):
            break
        stop.wait(ARCHIVE_SECONDS)
    if index is not None:
        index.close()
    if unfinished:
        fail(f"the API goes on with {', '.join(sorted(unfinished))}; its log says why")
    if failed:
        raise typer.Exit(1)
