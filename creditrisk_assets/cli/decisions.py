"""Commands on the decisions that the API has made."""

import signal
import sqlite3
from typing import Annotated

import structlog
import typer
from upath import UPath

from creditrisk_assets.cli.common import fail, settings_here
from creditrisk_assets.stop_signal import SIGNALS, StopSignal

KEEP_SECONDS = 2.0

log = structlog.get_logger()

decisions_app = typer.Typer(no_args_is_help=True, help="The decisions of the API.")


@decisions_app.callback()
def decisions() -> None:
    """The decisions of the API."""


@decisions_app.command()
def keep(
    now: Annotated[
        bool, typer.Option(help="Land finished segments of a day that is not over, too.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(help="Go on until told to stop; `creditrisk serve` runs this beside the API."),
    ] = False,
) -> None:
    """Keep finished segments of the decision log for replay, and land the customers of days that
    are over; keep what challengers would have answered.
    """
    from creditrisk_assets.decisions.archive import LiveDecisions, keep_finished
    from creditrisk_assets.decisions.idempotency import IdempotencyIndex
    from creditrisk_assets.decisions.shadow import keep_shadows
    from creditrisk_assets.settings import today
    from creditrisk_assets.store import StoreMismatch, claim_folder, open_store

    settings = settings_here()
    live, hours = LiveDecisions.of(settings), settings_here(serving=True).idempotency_hours
    index: IdempotencyIndex | None = None
    stop = StopSignal()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # who started this may have held them back
    while True:
        last = (
            stop.told or not watch
        )  # told to stop, it looks once more: who told so has finished its segments
        try:
            claim_folder(UPath(settings.api_folder), open_store(settings))
            index = index or live.index(settings.idempotency_file)
            kept = keep_finished(live, index, today(), now)
            for name in kept.sealed:
                log.info("segment_sealed", segment=name)
            for name in kept.landed:
                log.info("segment_landed", segment=name)
            for name in keep_shadows(
                settings.shadow_segments,
                settings.shadow,
                settings.decision_log_codec,
                settings.scratch,
            ):
                log.info("shadow_kept", segment=name)
            index.forget(hours * 3600)
            failed = bool(kept.problems)
        except StoreMismatch as error:
            fail(error)
        except (
            OSError,
            sqlite3.Error,
        ) as error:  # such as a full disk: what is there stays there until there is space
            log.error("decisions_not_kept", problem=str(error))
            failed = True
        if last:
            break
        stop.wait(KEEP_SECONDS)
    if index is not None:
        index.close()
    if failed:
        raise typer.Exit(1)
