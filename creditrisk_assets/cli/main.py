"""The command `creditrisk`. Each command gathers its arguments, calls one function, and prints.

Exit codes: 0 success, 1 failure with a message, 2 wrong usage.
"""

import dataclasses
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table

from creditrisk_assets.cli.alerts import alerts_app
from creditrisk_assets.cli.champion import champion_app
from creditrisk_assets.cli.common import (
    FROM,
    JSON,
    ONSET,
    SCENARIO_NAMES,
    SEED,
    STRENGTH,
    console,
    errors,
    fail,
    home_folder,
    is_installed,
    plan_of,
    print_json,
    settings_here,
    stop_on_signals,
)
from creditrisk_assets.cli.decisions import decisions_app
from creditrisk_assets.cli.jobs import retrain, train
from creditrisk_assets.cli.keys import keys_app
from creditrisk_assets.cli.model import (
    evaluate,
    fairness,
    portfolio_app,
    score,
    simulate,
    simulator_app,
)
from creditrisk_assets.cli.operations import (
    replay,
    report,
    status,
    watch,
)
from creditrisk_assets.cli.services import code_server, init, mlflow_server
from creditrisk_assets.cli.store import backup, restore, store_app
from creditrisk_assets.internal_http import exempt_from_proxies

SERVING_LIBRARIES = (
    "fastapi",
    "fastapi_offline",
    "httptools",
    "prometheus_client",
    "uvicorn",
    "uvloop",
)
"""Libraries of the extra `serving`; the extra `dagster` has all others."""

app = typer.Typer(
    help="Run a credit-default model for real.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _name, _group in (
    ("champion", champion_app),
    ("simulator", simulator_app),
    ("portfolio", portfolio_app),
    ("keys", keys_app),
    ("decisions", decisions_app),
    ("store", store_app),
    ("alerts", alerts_app),
):
    app.add_typer(_group, name=_name)


app.command()(init)
app.command()(code_server)
app.command()(mlflow_server)
app.command()(backup)
app.command()(restore)


def main() -> None:
    """Entry point."""
    exempt_from_proxies()
    # Preview features that the project uses on purpose (see docs/decisions).
    for feature in (
        "Specifying a partitions_def on an AssetCheckSpec",
        "Parameter `data_version` of initializer `Output",
    ):
        warnings.filterwarnings("ignore", message=feature)
    try:
        app()
    except Exception as error:
        if not _is_operator_error(error):
            raise
        message = _missing_extra(error) or str(error)
        errors.print(f"[red]error:[/red] {escape(message)}", soft_wrap=True, highlight=False)
        sys.exit(1)


def _is_operator_error(error: Exception) -> bool:
    """True for an error about files, places, input or the installation; any other is a bug and is
    shown with its traceback.
    """
    return (
        isinstance(error, OSError)
        or type(error).__module__.split(".")[0] in ("creditrisk_assets", "serving")
        or _missing_extra(error) is not None
    )


def _missing_extra(error: Exception) -> str | None:
    """The extra that must be installed, if a library of an extra is missing."""
    if not isinstance(error, ModuleNotFoundError) or is_installed("dagster"):
        return None
    extra = "serving" if error.name in SERVING_LIBRARIES else "dagster"
    return (
        f"{error.name} is not installed; this command needs the extra {extra}: "
        f"pip install 'creditrisk[{extra}]'"
    )


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            help="A CSV or Parquet file with the portfolio's columns; default: simulated."
        ),
    ] = None,
) -> None:
    """Show the whole loop with real processes: train, score, drift, retrain, promote, while a
    client sends requests.
    """
    from creditrisk_assets.simulation.demo import run_demo

    start = time.monotonic()
    stop_on_signals()
    try:
        run_demo(console, home_folder(), data.resolve() if data else None)
    except KeyboardInterrupt:
        fail("stopped")
    console.print(f"[green]all of it happened[/green], in {time.monotonic() - start:.0f} s")


@app.command()
def dev(
    dagster_port: Annotated[int, typer.Option(min=1, max=65_535, help="Dagster UI.")] = 3000,
    api_port: Annotated[int, typer.Option(min=1, max=65_535, help="API.")] = 8000,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65_535, help="MLflow UI.")] = 5000,
) -> None:
    """Run everything on this folder's store until Ctrl-C: Dagster UI and daemon with its sensors,
    API, and an MLflow UI unless MLFLOW_TRACKING_URI names a server.
    """
    from creditrisk_assets.defs import status
    from creditrisk_assets.simulation import processes

    settings = settings_here()
    own_mlflow = None if settings.has_mlflow_server else mlflow_port
    stop_on_signals()
    try:
        for port, name in (
            (dagster_port, "Dagster UI"),
            (api_port, "API"),
            (own_mlflow, "MLflow UI"),
        ):
            if port is not None:
                processes.require_free(port, name)
        init()
        ports = processes.Ports(processes.reserved_ports(1)[0], dagster_port, api_port, own_mlflow)
        with processes.loop_processes(
            home_folder(), settings, ports, lambda name: console.print(f"  {name}")
        ) as services_up:
            console.print(
                f"Dagster UI {ports.dagster_url}, API and its page {ports.api_url}, MLflow UI "
                f"{ports.mlflow_url or settings.tracking_uri}"
            )
            console.print(f"logs in {services_up.logs}; Ctrl-C stops everything")
            if status.champion_in_force(status.open_instance(home_folder())) is None:
                console.print(
                    "no champion yet: launch the job train in the Dagster UI, or run make train"
                )
            while True:
                services_up.check()
                time.sleep(1)
    except (processes.ProcessFailed, FileNotFoundError) as error:
        fail(error)
    except KeyboardInterrupt:
        console.print("stopped")


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on [CREDITRISK_HOST, default 127.0.0.1].")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on [CREDITRISK_PORT, default 8000].")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that answer [CREDITRISK_WORKERS, default 1].")
    ] = None,
) -> None:
    """Serve the champion over HTTP; every decision is on the disk before its answer is sent."""
    from creditrisk_assets.settings import IN_DAGSTER
    from creditrisk_assets.store import StoreMismatch
    from serving import server
    from serving.access.keys import KeysError, OpenBeyondLoopback

    for name, value in (("HOST", host), ("PORT", port), ("WORKERS", workers)):
        if value is not None:
            os.environ[f"CREDITRISK_{name}"] = str(value)  # each worker reads the environment
    serving = settings_here(serving=True)
    if serving.champion_source == IN_DAGSTER:
        if not is_installed("dagster"):
            fail(
                "CREDITRISK_CHAMPION_SOURCE is dagster, which needs the extra dagster: pip install "
                "'creditrisk\\[dagster]'; also valid: the URL of a Dagster webserver"
            )
        os.environ["DAGSTER_HOME"] = str(home_folder())
    try:
        server.run(serving, settings_here())
    except (KeysError, OpenBeyondLoopback, StoreMismatch) as error:
        fail(error)


@app.command()
def drill(
    scenario: Annotated[str, typer.Argument(help=f"{', '.join(SCENARIO_NAMES)}, or `all`.")],
    days: Annotated[
        int, typer.Option(min=2, help="Days of customers; their outcomes follow later.")
    ] = 60,
    rows: Annotated[int, typer.Option(min=100, help="Customers a day.")] = 500,
    onset: ONSET = None,
    strength: STRENGTH = 1.0,
    data: FROM = None,
    seed: SEED = 1,
    daemon: Annotated[
        bool, typer.Option(help="Use the real daemon and processes; about 15 s a day.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Write the table to this Markdown file.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Run the loop through a scenario in a store of its own, and report its reactions. Exit code 1
    if a decision was lost.
    """
    from creditrisk_assets.simulation import drill as drills

    names = SCENARIO_NAMES if scenario == "all" else (scenario,)
    project, source, target = (
        home_folder(),
        data.resolve() if data else None,
        output.resolve() if output else None,
    )
    window = settings_here().portfolio.performance_window_days
    reports = []
    stop_on_signals()
    try:
        for name in names:
            plan = plan_of(name, drills.START, days, rows, strength, seed, onset, window)
            with Progress(console=errors) as progress:
                bar = progress.add_task(name, total=None)

                def on_progress(
                    done: int,
                    total: int,
                    message: str,
                    progress: Progress = progress,
                    bar: TaskID = bar,
                ) -> None:
                    progress.update(bar, completed=done, total=total)
                    if message:
                        progress.console.print(f"  day {done}: {message}", soft_wrap=True)

                reports.append(drills.run_drill(project, plan, source, daemon, on_progress))
    except ValueError as error:
        fail(error)
    except KeyboardInterrupt:
        fail("stopped")
    if as_json:
        print_json({"drills": [dataclasses.asdict(report) for report in reports]})
    else:
        for report in reports:
            table = Table(show_header=False)
            for name, value in drills.cells(report).items():
                table.add_row(name, value)
            console.print(table)
        console.print(
            f"{reports[0].source}; {sum(report.seconds for report in reports):.0f} s in all"
        )
    if target:
        target.write_text(drills.markdown(reports))
    if any(report.lost for report in reports):
        fail("decisions were lost")


for _command in (
    train,
    retrain,
    simulate,
    score,
    evaluate,
    fairness,
    replay,
    status,
    report,
    watch,
):
    app.command()(_command)


if __name__ == "__main__":
    main()
