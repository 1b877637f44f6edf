"""The command `creditrisk`. Each command gathers its arguments, calls one function, and prints.

Exit codes: 0 it worked, 1 it failed (the message says why), 2 wrong usage.
"""

import dataclasses
import datetime
import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

app = typer.Typer(help="Run a credit-default model for real.", no_args_is_help=True, pretty_exceptions_enable=False)
champion_app = typer.Typer(help="The model in force.", no_args_is_help=True)
app.add_typer(champion_app, name="champion")

console = Console()
errors = Console(stderr=True)

JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Entry point."""
    # Each names one preview feature that the project uses on purpose (see docs/decisions); all other warnings show.
    for feature in ("Specifying a partitions_def on an AssetCheckSpec", "Parameter `data_version` of initializer `Output"):
        warnings.filterwarnings("ignore", message=feature)
    app()


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="A CSV or Parquet file with the UCI columns; default: simulated.")] = None,
) -> None:
    """Show the whole loop with real processes: train, score, drift, retrain, promote, while a client keeps asking."""
    from creditrisk_assets.demo import DemoFailed, run_demo
    from creditrisk_assets.portfolio.history import NoHistory
    from creditrisk_assets.processes import ProcessFailed

    start = time.monotonic()
    _stop_on_signals()
    try:
        run_demo(console, Path.cwd(), data.resolve() if data else None)
    except (DemoFailed, ProcessFailed, NoHistory, FileNotFoundError) as error:
        _fail(error)
    except KeyboardInterrupt:
        _fail("stopped")
    console.print(f"[green]all of it happened[/green], in {time.monotonic() - start:.0f} s")


@app.command()
def dev(
    dagster_port: Annotated[int, typer.Option(help="Dagster UI.")] = 3000,
    api_port: Annotated[int, typer.Option(help="API.")] = 8000,
    mlflow_port: Annotated[int, typer.Option(help="MLflow UI.")] = 5000,
) -> None:
    """Run everything on this folder's store until Ctrl-C: Dagster UI and daemon with its sensors, API, MLflow UI."""
    from creditrisk_assets import processes
    from creditrisk_assets.defs import status
    from creditrisk_assets.defs.recovery import end_orphaned_runs
    from creditrisk_assets.registry import Registry
    from creditrisk_assets.settings import Settings

    settings = Settings()
    _stop_on_signals()
    try:
        for port, name in ((dagster_port, "Dagster UI"), (api_port, "API"), (mlflow_port, "MLflow UI")):
            processes.require_free(port, name)
        instance = status.open_instance(_home())
        for run_id in end_orphaned_runs(instance):
            console.print(f"run {run_id} was cut off when everything stopped; it is started once more")
        Registry(settings.tracking_uri, settings.mlflow_dir).prepare()
        ports = processes.Ports(processes.free_ports(1)[0], dagster_port, api_port, mlflow_port)
        workspace = settings.data_dir / "dagster" / "workspace.yaml"
        processes.write_workspace(workspace, ports.code_server)
        since = time.time()
        wanted = processes.services(ports, workspace, settings.tracking_uri, lambda: status.daemon_is_up(instance, since))
        environment = {
            "DAGSTER_HOME": str(_home()),
            "CREDITRISK_API_URL": ports.api_url,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes for evaluating language models
        }
        logs = settings.data_dir / "logs"
        with processes.running(wanted, _home(), environment, logs, lambda name: console.print(f"  {name}")) as up:
            console.print(f"Dagster UI {ports.dagster_url}, API {ports.api_url}/docs, MLflow UI {ports.mlflow_url}")
            console.print(f"logs in {logs}; Ctrl-C stops everything")
            if status.loop_status(instance).champion is None:
                console.print("no champion yet: launch the job train in the Dagster UI, or run make train")
            while True:
                up.check()
                time.sleep(1)
    except (processes.ProcessFailed, FileNotFoundError) as error:
        _fail(error)
    except KeyboardInterrupt:
        console.print("stopped")


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [CREDITRISK_HOST, default 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on [CREDITRISK_PORT, default 8000].")] = None,
) -> None:
    """Serve the champion over HTTP."""
    import uvicorn

    from creditrisk_assets.settings import ServingSettings

    os.environ["DAGSTER_HOME"] = str(_home())
    settings = ServingSettings()
    uvicorn.run(
        "serving.app:app_from_environment",
        factory=True,
        host=host or settings.host,
        port=settings.port if port is None else port,
        log_level="info",
    )


@app.command()
def simulate(
    days: Annotated[int, typer.Option(min=1, help="How many days.")] = 1,
    rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="Customers a day.")] = 1_000,
    start: Annotated[
        datetime.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day; default: so that the last is today.")
    ] = None,
    drift: Annotated[float, typer.Option(min=0, help="Strength of injected drift; 1 is what the demo injects.")] = 0.0,
    outcomes: Annotated[bool, typer.Option(help="Land the outcomes too.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="The same seed lands the same customers.")] = 1,
) -> None:
    """Land days of simulated customers."""
    from creditrisk_assets.portfolio.landing import land
    from creditrisk_assets.portfolio.simulator import inject_drift
    from creditrisk_assets.portfolio.simulator import simulate as simulated
    from creditrisk_assets.portfolio.uci_card import PORTFOLIO
    from creditrisk_assets.settings import Settings, today

    settings = Settings()
    first = start.date() if start else today() - datetime.timedelta(days=days - 1)
    for offset in range(days):
        day = first + datetime.timedelta(days=offset)
        customers = simulated(rows, seed * 1_000_003 + day.toordinal(), first_identifier=day.toordinal() * 1_000_000)
        if drift > 0:
            customers = inject_drift(customers, seed + day.toordinal(), drift)
        fields = customers.drop(columns=PORTFOLIO.target)
        console.print(land(settings.landing_production / day.isoformat(), "customers.csv", fields), soft_wrap=True)
        if outcomes:
            labels = customers[[PORTFOLIO.identifier, PORTFOLIO.target]]
            console.print(land(settings.landing_outcomes / day.isoformat(), "outcomes.csv", labels), soft_wrap=True)


@app.command()
def score(
    source: Annotated[Path, typer.Argument(help="A CSV or Parquet file with the contract's columns.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the scored file goes, .csv or .parquet.")],
    url: Annotated[str | None, typer.Option(help="Score through the API at this address instead of in this process.")] = None,
) -> None:
    """Score a file with the champion; rows that break the contract keep their place and say why."""
    import httpx

    from creditrisk_assets.portfolio.uci_card import PORTFOLIO
    from creditrisk_assets.scoring.bundle import BundleError, load_bundle
    from creditrisk_assets.scoring.files import ScoringError, api_scorer, local_scorer, score_file

    try:
        with httpx.Client(base_url=url or "", timeout=60) as client, Progress(console=errors) as progress:
            if url:
                scorer = api_scorer(client, PORTFOLIO)
            else:
                in_force = _champion()
                scorer = local_scorer(load_bundle(in_force.artifact_uri, in_force.bundle_sha256), in_force.model_version)
            bar = progress.add_task("scoring", total=None)
            result = score_file(
                source, output, PORTFOLIO, scorer, lambda done, total: progress.update(bar, completed=done, total=total)
            )
    except (ScoringError, BundleError) as error:
        _fail(error)
    console.print(f"{output}: {result.scored:,} rows scored", soft_wrap=True)
    for line, why, _ in result.malformed:
        errors.print(f"{source}, line {line}: {why}; the line is not in the output", soft_wrap=True)
    if result.rejected or result.malformed:
        _fail(f"{result.rejected + len(result.malformed):,} rows could not be scored; the column error says why")


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="A CSV or Parquet file with the UCI columns and the outcome.")],
    as_json: JSON = False,
) -> None:
    """How well the training recipe does: three times three-fold cross-validation, seed 0, every choice inside the folds."""
    from creditrisk_assets.modelling.evaluation import three_by_three
    from creditrisk_assets.portfolio.history import NoHistory, read_history
    from creditrisk_assets.portfolio.uci_card import PORTFOLIO

    try:
        history = read_history(str(data), PORTFOLIO)
    except NoHistory as error:
        _fail(error)
    with Progress(console=errors) as progress:
        bar = progress.add_task("folds", total=9)
        folds = three_by_three(history.rows.accepted, PORTFOLIO, lambda: progress.advance(bar))
    means = folds.mean(numeric_only=True)
    if as_json:
        _print_json({"sha256": history.sha256, "mean": means.to_dict(), "folds": folds.to_dict("records")})
        return
    table = Table("fold", *folds.columns)
    for name, row in folds.iterrows():
        table.add_row(str(name), *(f"{value:.4f}" for value in row))
    table.add_row("mean", *(f"{means[column]:.4f}" for column in folds.columns), style="bold")
    table.add_row("sd", *(f"{folds[column].std():.4f}" for column in folds.columns))
    console.print(table)
    console.print(f"{len(history.rows.accepted):,} rows, SHA-256 {history.sha256}; not used: {', '.join(PORTFOLIO.protected)}")


@champion_app.command("show")
def champion_show(as_json: JSON = False) -> None:
    """The champion: version, bundle, why it is champion, and what it showed on held-out rows."""
    from creditrisk_assets.scoring.bundle import BundleError, load_bundle

    in_force = _champion()
    try:
        manifest = load_bundle(in_force.artifact_uri, in_force.bundle_sha256).manifest
    except BundleError as error:
        _fail(error)
    if as_json:
        _print_json({**in_force.model_dump(), "manifest": manifest.model_dump()})
        return
    table = Table(show_header=False)
    for name, value in in_force.model_dump().items():
        table.add_row(name, str(value))
    table.add_row("cut_off", f"{manifest.cut_off:.4f}")
    table.add_row("trained on", f"{manifest.training.rows:,} rows, {manifest.training.bads:,} bads ({manifest.training.kind})")
    for name in ("roc_auc", "roc_auc_low", "roc_auc_high", "ks", "brier", "calibration_in_the_large"):
        table.add_row(f"held-out {name}", f"{manifest.metrics[name]:.4f}")
    console.print(table)


@app.command()
def status(as_json: JSON = False, days: Annotated[int, typer.Option(min=1, help="How many of the latest days.")] = 14) -> None:
    """What the loop has done: champion, days, runs in flight and failed, what each sensor last said."""
    from creditrisk_assets.defs.status import loop_status

    seen = loop_status(_instance(), days)
    if as_json:
        document = dataclasses.asdict(seen)
        document["champion"] = seen.champion.model_dump() if seen.champion else None
        _print_json(document)
        return
    if seen.champion is None:
        console.print("champion: none yet; run make train")
    else:
        since = datetime.datetime.fromtimestamp(seen.champion_since or 0, datetime.UTC)
        console.print(f"champion: v{seen.champion.model_version} since {since:%Y-%m-%d %H:%M} UTC, {seen.champion.reason}")
    table = Table("day", "rows", "rejected", "version", "score PSI", "drifted columns", "matured", "AUC", "failed checks")
    for day in seen.days:
        table.add_row(
            day.day,
            *(_shown(value) for value in (day.rows, day.rejected, day.model_version, day.score_psi, day.drifted_columns)),
            *(_shown(value) for value in (day.matured, day.roc_auc)),
            ", ".join(day.failed_checks),
        )
    console.print(table if seen.days else "days: none landed yet")
    for run in seen.runs_in_flight:
        console.print(f"in flight: {run.job} {run.day or ''} {run.run_id} ({run.status})")
    for run in seen.failed_runs:
        console.print(f"[red]failed[/red]: {run.job} {run.day or ''} {run.run_id}")
    for sensor in seen.sensors:
        console.print(f"sensor {sensor.name}: {sensor.status}; {sensor.message}", soft_wrap=True)


def _stop_on_signals() -> None:
    """Ctrl-C and TERM both end in KeyboardInterrupt, also where a shell started us in the background with INT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _shown(value: float | int | str | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _home() -> Path:
    return Path(os.environ.get("DAGSTER_HOME", Path.cwd())).resolve()


def _instance() -> Any:
    from creditrisk_assets.defs.status import open_instance

    try:
        return open_instance(_home())
    except FileNotFoundError as error:
        _fail(error)


def _champion() -> Any:
    from creditrisk_assets.defs.events import champion_in_force

    in_force = champion_in_force(_instance())
    if in_force is None:
        _fail("there is no champion yet; run make train, or launch the job train in the Dagster UI")
    return in_force


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def _fail(error: object) -> NoReturn:
    errors.print(f"[red]error:[/red] {error}", soft_wrap=True, highlight=False)
    raise typer.Exit(1)


if __name__ == "__main__":
    main()
