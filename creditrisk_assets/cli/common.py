"""Shared parts of the commands: options, output, and access to the store. Errors end a command with
exit code 1.
"""

import contextlib
import datetime
import functools
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeRemainingColumn

console = Console()
errors = Console(stderr=True)

JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ONSET = Annotated[
    int | None,
    typer.Option(min=0, help="The day, from 0, on which it begins; default: after a third."),
]
STRENGTH = Annotated[float, typer.Option(min=0, help="0 is no disturbance, 1 a practical one.")]
SEED = Annotated[int, typer.Option(min=0, help="The same seed lands the same files.")]
FROM = Annotated[
    Path | None, typer.Option("--from", help="Customers of this CSV or Parquet file with outcomes.")
]
SCENARIO_NAMES = (
    "stable",
    "covariate-shift",
    "prior-shift",
    "concept-drift",
    "seasonal",
    "schema-break",
    "late-outcomes",
    "outage",
    "burst",
    "campaign",
)
"""A copy, so that `--help` needs no import; a test compares both lists."""


def stop_on_signals() -> None:
    """Turn INT and TERM into KeyboardInterrupt, also when a shell started this process in the
    background with INT ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def format_cell(value: float | int | str | None) -> str:
    """A value as the text of a table's cell; empty for None."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def settings_here(*, serving: bool = False) -> Any:
    """The environment's settings, or those of the API. An invalid variable ends the command with
    its name; so does a store of another portfolio or format.
    """
    from pydantic import ValidationError

    from creditrisk_assets.settings import ServingSettings, Settings
    from creditrisk_assets.store import StoreMismatch, read_identity

    try:
        if serving:
            return ServingSettings()
        settings = Settings()
        with contextlib.suppress(OSError):  # the command itself reports an unreachable store
            read_identity(settings)
        return settings
    except StoreMismatch as error:
        fail(error)
    except ValidationError as error:
        problems = "; ".join(
            f"CREDITRISK_{'.'.join(map(str, problem['loc'])).upper()}: {problem['input']!r:.80}: "
            f"{problem['msg']}"
            for problem in error.errors()
        )
        fail(problems)


def is_installed(library: str) -> bool:
    """True if a library can be imported; an installation for the API alone lacks many."""
    try:
        return importlib.util.find_spec(library) is not None
    except ModuleNotFoundError:  # an import hook refuses it
        return False


def home_folder() -> Path:
    """Dagster's home: the environment's, or the working directory."""
    return Path(os.environ.get("DAGSTER_HOME", Path.cwd())).resolve()


def open_instance_here() -> Any:
    """The Dagster instance of the home. Without one, or with that of another store, the command
    fails.
    """
    from creditrisk_assets.defs.status import open_instance
    from creditrisk_assets.defs.store_mark import claim_instance
    from creditrisk_assets.store import StoreMismatch, read_identity

    settings = settings_here()
    try:
        instance = open_instance(home_folder())
        identity = read_identity(settings)
        if identity is not None:
            claim_instance(instance, identity)
    except (FileNotFoundError, StoreMismatch) as error:
        fail(error)
    return instance


def champion_in_force(settings: Any) -> Any:
    """The ledger's champion in force; before the first one the command fails with advice."""
    return ledger_here(settings, lambda ledger: ledger.head()).after


def ledger_here(settings: Any, read: Callable[[Any], Any]) -> Any:
    """The ledger's entry or entries; before the first champion the command fails with advice."""
    from creditrisk_assets.governance.ledger import Ledger, LedgerError

    try:
        found = read(Ledger(settings.ledger))
    except LedgerError as error:
        fail(error)
    if not found:
        fail("there is no champion yet; run make train, or launch the job train in the Dagster UI")
    return found


@contextlib.contextmanager
def progress_bar(name: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show a progress bar on stderr; yields the function that updates it."""
    with Progress(console=errors) as progress:
        yield functools.partial(progress.update, progress.add_task(name, total=total))


@contextlib.contextmanager
def rows_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show progress over rows on stderr, with their rate and the time left; yields the function
    that takes the rows done and their total, None if unknown.
    """
    columns = (
        *Progress.get_default_columns()[:3],
        TimeRemainingColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    begun = time.monotonic()
    with Progress(*columns, console=errors) as progress:
        task = progress.add_task(name, total=None, rate="")

        def update(done: int, total: int | None) -> None:
            rate = done / max(time.monotonic() - begun, 1e-3)
            progress.update(task, completed=done, total=total, rate=f"{rate:,.0f} rows/s")

        yield update


def bundle_of(champion: Any, settings: Any) -> Any:
    """The bundle of a champion; one that is gone or was changed ends the command."""
    from creditrisk_assets.scoring.bundle import BundleError
    from creditrisk_assets.scoring.bundle_store import BundleStore

    try:
        return BundleStore(settings.data_dir).load(champion.bundle_sha256)
    except BundleError as error:
        fail(error)


def json_rows(frame: Any) -> Any:
    """Rows for JSON, with null for missing numbers."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def print_json(document: dict[str, Any]) -> None:
    """Print a result for programs."""
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def fail(error: object) -> NoReturn:
    """End the command with exit code 1 and an error message."""
    errors.print(f"[red]error:[/red] {error}", soft_wrap=True, highlight=False)
    raise typer.Exit(1)


def plan_of(
    scenario: str,
    start: datetime.date,
    days: int,
    rows: int,
    strength: float,
    seed: int,
    onset: int | None,
    window: int,
) -> Any:
    """The plan of a scenario, from the options.

    Raises:
        typer.BadParameter: if there is no such scenario.
    """
    from creditrisk_assets.simulation.scenarios import Plan

    if scenario not in SCENARIO_NAMES:
        raise typer.BadParameter(f"scenario {scenario!r}; valid: {', '.join(SCENARIO_NAMES)}")
    return Plan(
        scenario, start, days, rows, strength, seed, days // 3 if onset is None else onset, window
    )


def customers_of(data: Path, portfolio: Any) -> Any:
    """All customers of a file; an invalid row ends the command."""
    return history_of(data, portfolio).rows.accepted


def history_of(data: Path | str, portfolio: Any) -> Any:
    """The customers of a file with their outcomes; an invalid row ends the command."""
    from creditrisk_assets.landing.history import InvalidHistory, NoHistory, read_valid_history

    try:
        return read_valid_history(str(data), portfolio)
    except (NoHistory, InvalidHistory) as error:
        fail(error)
