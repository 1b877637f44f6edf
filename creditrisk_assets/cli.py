"""The command `creditrisk`. Each command gathers its arguments, calls one function, and prints.

Exit codes: 0 it worked, 1 it failed (the message says why), 2 wrong usage.
"""

import dataclasses
import datetime
import json
import math
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table

from creditrisk_assets.cli_decisions import decisions_app
from creditrisk_assets.cli_keys import keys_app

app = typer.Typer(help="Run a credit-default model for real.", no_args_is_help=True, pretty_exceptions_enable=False)
champion_app = typer.Typer(help="The model in force.", no_args_is_help=True)
app.add_typer(champion_app, name="champion")
simulator_app = typer.Typer(help="The simulator of card customers.", no_args_is_help=True)
app.add_typer(simulator_app, name="simulator")
portfolio_app = typer.Typer(help="The book of customers.", no_args_is_help=True)
app.add_typer(portfolio_app, name="portfolio")
app.add_typer(keys_app, name="keys")
app.add_typer(decisions_app, name="decisions")

console = Console()
errors = Console(stderr=True)

JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WHY = Annotated[str, typer.Option(help="For the ledger.")]
STRENGTH = Annotated[float, typer.Option(min=0, help="0 is no disturbance, 1 a practical one.")]
SEED = Annotated[int, typer.Option(min=0, help="The same seed lands the same files.")]
FROM = Annotated[
    Path | None, typer.Option("--from", help="Customers of this CSV or Parquet file with outcomes, instead of simulated ones.")
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
)
EVENTS_SHOWN = 5
PROTOCOL_NAMES = ("3x3", "limitiq", "skorecard", "seeds")
"""Here too, so that `--help` needs no import; a test holds both lists together."""


def main() -> None:
    """Entry point."""
    sys.path.insert(0, str(Path.cwd()))  # CREDITRISK_PORTFOLIO may name a module of the working directory
    # Each names one preview feature that the project uses on purpose (see docs/decisions); all other warnings show.
    for feature in ("Specifying a partitions_def on an AssetCheckSpec", "Parameter `data_version` of initializer `Output"):
        warnings.filterwarnings("ignore", message=feature)
    app()


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="A CSV or Parquet file with the portfolio's columns; default: simulated.")
    ] = None,
) -> None:
    """Show the whole loop with real processes: train, score, drift, retrain, promote, while a client keeps asking."""
    from creditrisk_assets.demo import DemoFailed, run_demo
    from creditrisk_assets.portfolio.history import NoHistory
    from creditrisk_assets.processes import ProcessFailed
    from creditrisk_assets.site import SiteInUse

    start = time.monotonic()
    _stop_on_signals()
    try:
        run_demo(console, Path.cwd(), data.resolve() if data else None)
    except (DemoFailed, ProcessFailed, NoHistory, SiteInUse, FileNotFoundError) as error:
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

    settings = _settings()
    _stop_on_signals()
    try:
        for port, name in ((dagster_port, "Dagster UI"), (api_port, "API"), (mlflow_port, "MLflow UI")):
            processes.require_free(port, name)
        instance = status.open_instance(_home())
        for run_id in end_orphaned_runs(instance):
            console.print(f"run {run_id} was cut off when everything stopped; it is started once more")
        Registry(settings.tracking_uri, settings.mlflow_dir).prepare()
        ports = processes.Ports(processes.free_ports(1)[0], dagster_port, api_port, mlflow_port)
        workspace = settings.local_dir / "dagster" / "workspace.yaml"
        processes.write_workspace(workspace, ports.code_server)
        since = time.time()
        wanted = processes.services(ports, workspace, settings.tracking_uri, lambda: status.daemon_is_up(instance, since))
        environment = {
            "DAGSTER_HOME": str(_home()),
            "CREDITRISK_API_URL": ports.api_url,
            "CREDITRISK_DAGSTER_URL": ports.dagster_url,
            "CREDITRISK_MLFLOW_URL": ports.mlflow_url,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes for evaluating language models
        }
        logs = settings.local_dir / "logs"
        with processes.running(wanted, _home(), environment, logs, lambda name: console.print(f"  {name}")) as up:
            console.print(f"Dagster UI {ports.dagster_url}, API and its page {ports.api_url}, MLflow UI {ports.mlflow_url}")
            console.print(f"logs in {logs}; Ctrl-C stops everything")
            if status.champion_in_force(instance) is None:
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
    workers: Annotated[int | None, typer.Option(help="Processes that answer [CREDITRISK_WORKERS, default 1].")] = None,
) -> None:
    """Serve the champion over HTTP; every decision is on the disk before it is told."""
    from creditrisk_assets.api_keys import KeysError, OpenBeyondLoopback
    from creditrisk_assets.settings import ServingSettings
    from serving import server
    from serving.sources import IN_DAGSTER

    for name, value in (("HOST", host), ("PORT", port), ("WORKERS", workers)):
        if value is not None:
            os.environ[f"CREDITRISK_{name}"] = str(value)  # each worker reads them for itself
    serving = ServingSettings()
    if serving.champion_source == IN_DAGSTER:
        os.environ["DAGSTER_HOME"] = str(_home())
    try:
        server.run(serving, _settings())
    except (KeysError, OpenBeyondLoopback) as error:
        _fail(error)


@app.command()
def simulate(
    scenario: Annotated[str, typer.Option(help="What happens; `creditrisk drill --help` lists them.")] = "stable",
    days: Annotated[int, typer.Option(min=1, help="How many days.")] = 1,
    rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="Customers a day.")] = 1_000,
    start: Annotated[
        datetime.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day; default: so that the last is today.")
    ] = None,
    onset: Annotated[int | None, typer.Option(min=0, help="The day, from 0, on which it begins; default: after a third.")] = None,
    strength: STRENGTH = 1.0,
    data: FROM = None,
    outcomes: Annotated[bool, typer.Option(help="Land the outcomes too.")] = True,
    seed: SEED = 1,
) -> None:
    """Land days of customers and their outcomes, all at once: simulated ones, or those of a file."""
    from creditrisk_assets.portfolio import scenarios
    from creditrisk_assets.portfolio.landing import land
    from creditrisk_assets.settings import today

    settings = _settings()
    first = start.date() if start else today() - datetime.timedelta(days=days - 1)
    portfolio = settings.portfolio
    plan = _plan(scenario, first, days, rows, strength, seed, onset, portfolio.performance_window_days)
    try:
        draw = scenarios.simulated_customers(portfolio) if data is None else scenarios.customers_of(_customers(data, portfolio))
        for _, files in scenarios.arrivals(plan, portfolio, draw):
            for file in files:
                zone = settings.landing_production if file.zone == "production" else settings.landing_outcomes
                if outcomes or file.zone == "production":
                    console.print(str(land(zone / file.day, file.name, file.rows)), soft_wrap=True)
    except ValueError as error:
        _fail(error)


@app.command()
def drill(
    scenario: Annotated[str, typer.Argument(help=f"{', '.join(SCENARIO_NAMES)}, or `all`.")],
    days: Annotated[int, typer.Option(min=2, help="Days of customers; outcomes follow after them.")] = 60,
    rows: Annotated[int, typer.Option(min=100, help="Customers a day.")] = 500,
    onset: Annotated[int | None, typer.Option(min=0, help="The day, from 0, on which it begins; default: after a third.")] = None,
    strength: STRENGTH = 1.0,
    data: FROM = None,
    seed: SEED = 1,
    daemon: Annotated[bool, typer.Option(help="With the real daemon and processes; some 15 s a day.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the table to this Markdown file.")] = None,
    as_json: JSON = False,
) -> None:
    """Run the loop through a scenario in a store of its own, and report what it did. Exit code 1 if a decision was lost."""
    from creditrisk_assets import drill as drills
    from creditrisk_assets.portfolio.history import NoHistory
    from creditrisk_assets.processes import ProcessFailed
    from creditrisk_assets.site import SiteInUse

    names = SCENARIO_NAMES if scenario == "all" else (scenario,)
    project, source, target = Path.cwd(), data.resolve() if data else None, output.resolve() if output else None
    window = _settings().portfolio.performance_window_days
    reports = []
    _stop_on_signals()
    try:
        for name in names:
            plan = _plan(name, drills.START, days, rows, strength, seed, onset, window)
            with Progress(console=errors) as progress:
                bar = progress.add_task(name, total=None)

                def told(done: int, total: int, news: str, progress: Progress = progress, bar: TaskID = bar) -> None:
                    progress.update(bar, completed=done, total=total)
                    if news:
                        progress.console.print(f"  day {done}: {news}", soft_wrap=True)

                reports.append(drills.run_drill(project, plan, source, daemon, told))
    except (drills.DrillFailed, NoHistory, ProcessFailed, SiteInUse, ValueError) as error:
        _fail(error)
    except KeyboardInterrupt:
        _fail("stopped")
    if as_json:
        _print_json({"drills": [dataclasses.asdict(report) for report in reports]})
    else:
        for report in reports:
            table = Table(show_header=False)
            for name, value in zip(drills.TABLE_HEADER, drills.table_row(report), strict=True):
                table.add_row(name, value)
            console.print(table)
        console.print(f"{reports[0].source}; {sum(report.seconds for report in reports):.0f} s in all")
    if target:
        target.write_text(drills.markdown(reports))
    if any(report.lost for report in reports):
        _fail("decisions were lost")


@app.command()
def score(
    source: Annotated[Path, typer.Argument(help="A CSV or Parquet file with the contract's columns.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the scored file goes, .csv or .parquet.")],
    url: Annotated[str | None, typer.Option(help="Score through the API at this address instead of in this process.")] = None,
) -> None:
    """Score a file with the champion; rows that break the contract keep their place and say why."""
    import httpx

    from creditrisk_assets.scoring.bundle import BundleError, load_bundle
    from creditrisk_assets.scoring.files import ScoringError, api_scorer, local_scorer, score_file

    portfolio = _settings().portfolio
    try:
        with httpx.Client(base_url=url or "", timeout=60) as client, Progress(console=errors) as progress:
            if url:
                scorer = api_scorer(client, portfolio)
            else:
                in_force = _champion()
                scorer = local_scorer(load_bundle(in_force.artifact_uri, in_force.bundle_sha256), in_force)
            bar = progress.add_task("scoring", total=None)
            result = score_file(
                source, output, portfolio, scorer, lambda done, total: progress.update(bar, completed=done, total=total)
            )
    except (ScoringError, BundleError) as error:
        _fail(error)
    console.print(f"{output}: {result.scored:,} rows scored", soft_wrap=True)
    for line, why, _ in result.malformed:
        errors.print(f"{source}, line {line}: {why}; the line is not in the output", soft_wrap=True)
    if result.rejected or result.malformed_lines:
        _fail(f"{result.rejected + result.malformed_lines:,} rows could not be scored; the column error says why")


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="A CSV or Parquet file with the portfolio's columns and the outcome.")],
    protocol: Annotated[str, typer.Option(help=f"How rows are split: {', '.join(PROTOCOL_NAMES)}.")] = "3x3",
    as_json: JSON = False,
) -> None:
    """How well the training recipe does beside its rivals on the same folds; every choice of ours is made inside the folds."""
    from creditrisk_assets.modelling import evaluation
    from creditrisk_assets.modelling.training import TrainingError

    if protocol not in PROTOCOL_NAMES:
        raise typer.BadParameter(f"protocol {protocol!r}; valid: {', '.join(PROTOCOL_NAMES)}")
    plan = evaluation.PROTOCOLS[protocol]
    portfolio = _settings().portfolio
    history = _history(data, portfolio)
    compared = evaluation.contenders(protocol)
    _stop_on_signals()
    try:
        with Progress(console=errors) as progress:
            bar = progress.add_task("fitting", total=None)

            def told(name: str, done: int, total: int) -> None:
                progress.update(bar, description=name, completed=done, total=total)

            results = evaluation.evaluate(history.rows.accepted, portfolio, plan.splits, compared, told)
    except (TrainingError, ValueError) as error:
        _fail(error)
    except KeyboardInterrupt:
        _fail("stopped")
    published = evaluation.published(protocol, history.sha256)
    if as_json:
        measured = [dataclasses.asdict(one) for one in results]
        _print_json({"sha256": history.sha256, "protocol": protocol, "results": measured, "published_roc_auc": published})
        return
    table = Table(title=plan.description, caption=evaluation.interval_note(results))
    for heading in ("model", "AUC", "KS", "Brier", "log loss", "ECE", "AUC - ours", "Brier - ours", "published AUC"):
        table.add_column(heading, no_wrap=heading != "model")
    for one in results:
        table.add_row(*evaluation.table_row(one, published.pop(one.name, None)), style="bold" if one is results[0] else "")
    for name, auc in published.items():
        table.add_row(name, *[""] * 7, f"{auc:.4f}", style="dim")
    console.print(table)
    console.print(
        f"{len(history.rows.accepted):,} rows, SHA-256 {history.sha256}; ours does not use {', '.join(portfolio.protected)}"
    )
    if published:
        console.print("dim lines: published figures of models that were not run here")


@app.command()
def fairness(
    data: Annotated[Path, typer.Option(help="A CSV or Parquet file with the portfolio's columns and the outcome.")],
    as_json: JSON = False,
) -> None:
    """Fairness monitoring of the champion on a file's held-out customers, and how well the features predict each protected field.

    Figures to watch; they prove no compliance with any rule.
    """
    from creditrisk_assets.governance.pages import FAIRNESS_NOTE
    from creditrisk_assets.modelling.fairness_report import fairness_report
    from creditrisk_assets.scoring.bundle import BundleError, load_bundle

    portfolio = _settings().portfolio
    in_force = _champion()
    customers = _customers(data, portfolio)
    with Progress(console=errors) as progress:
        bar = progress.add_task("proxies", total=len(portfolio.protected))
        try:
            bundle = load_bundle(in_force.artifact_uri, in_force.bundle_sha256)
            report = fairness_report(bundle, customers, portfolio, lambda _: progress.advance(bar))
        except BundleError as error:
            _fail(error)
    if as_json:
        _print_json({"model_version": in_force.model_version, **dataclasses.asdict(report)})
        return
    console.print(_fairness_shown(report.fields))
    console.print(
        f"version {in_force.model_version} on {report.rows:,} held-out customers, {report.bads:,} bads; "
        f"cut-off {report.cut_off:.4f}. {FAIRNESS_NOTE}"
    )
    table = Table("field", "group", "rows", "AUC of the features (95 %)")
    for proxy in report.proxies:
        auc = "too few rows to judge" if proxy.auc is None else f"{proxy.auc:.3f} ({proxy.low:.3f} to {proxy.high:.3f})"
        table.add_row(proxy.field, proxy.group, f"{proxy.n:,}", auc)
    console.print(table)
    console.print(f"each group against the rest on {report.proxy_rows:,} customers, three folds; 0.5 is no proxy")


@portfolio_app.command("describe")
def portfolio_describe(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this Markdown file.")] = None,
) -> None:
    """The data dictionary of the portfolio: fields, codes, features, reasons."""
    from creditrisk_assets.portfolio.dictionary import data_dictionary

    text = data_dictionary(_settings().portfolio)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text)


@simulator_app.command("fit")
def simulator_fit(
    data: Annotated[Path, typer.Option(help="The UCI data as CSV or Parquet.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the table of parameters goes, .toml.")],
) -> None:
    """Fit the parameters of the card simulator to real customers; on the UCI data this gives the table that is in the package."""
    from creditrisk_assets.portfolio.history import NoHistory, read_history
    from creditrisk_assets.portfolio.simulator_fit import fit_parameters
    from creditrisk_assets.portfolio.simulator_parameters import to_toml
    from creditrisk_assets.portfolio.storage import replacing
    from creditrisk_assets.portfolio.uci_card import PORTFOLIO

    try:
        history = read_history(str(data), PORTFOLIO)
        text = to_toml(fit_parameters(history.rows.accepted, history.source, history.sha256))
    except (NoHistory, ValueError) as error:
        _fail(error)
    with replacing(output) as file:
        file.write(text.encode())
    console.print(str(output))


@simulator_app.command("quality")
def simulator_quality(
    data: Annotated[Path, typer.Option(help="The UCI data as CSV or Parquet.")],
    rows: Annotated[int, typer.Option(min=5_000, help="Simulated customers.")] = 30_000,
    seed: SEED = 1,
    as_json: JSON = False,
) -> None:
    """How much like real customers the simulated ones are. Exit code 1 if a bar is missed."""
    from creditrisk_assets.monitoring import simulator_quality as quality
    from creditrisk_assets.portfolio.uci_card import PORTFOLIO

    customers = _customers(data, PORTFOLIO)
    with Progress(console=errors) as progress:
        bar = progress.add_task("training", total=3)
        report = quality.simulator_quality(customers, PORTFOLIO, rows, seed, lambda: progress.advance(bar))
    if as_json:
        _print_json(dataclasses.asdict(report))
    else:
        table = Table("parameters fitted to", "compared with", "AUC on real rows", "worst CSI", "mean difference of correlations")
        for one in (report.refitted, report.committed):
            worst = f"{one.csi[one.worst_field]:.4f} ({one.worst_field})"
            table.add_row(one.parameters, one.reference, f"{one.auc:.4f}", worst, f"{one.correlation_difference:.4f}")
        bars = (f"≥ {quality.LOWEST_AUC}", f"< {quality.HIGHEST_CSI}", f"< {quality.HIGHEST_CORRELATION_DIFFERENCE}")
        table.add_row("wanted", "", *bars, style="dim")
        console.print(table)
        console.print(
            f"trained on {report.training_rows:,} real rows, the same {report.test_rows:,} real rows score AUC "
            f"{report.auc_trained_on_real:.4f}; seed {seed}, {report.simulated_rows:,} simulated customers"
        )
    if not (report.refitted.reached and report.committed.reached):
        _fail("the simulated customers are not like the real ones")


@champion_app.command("show")
def champion_show(
    at: Annotated[
        datetime.datetime | None,
        typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="In force then (UTC; a date: at its end); default: now."),
    ] = None,
    as_json: JSON = False,
) -> None:
    """The champion: version, bundle, cut-off, why it is champion, and what it showed on held-out rows."""
    from creditrisk_assets.governance.ledger import in_force_at
    from creditrisk_assets.scoring.bundle import BundleError, load_bundle

    entries = _ledger_entries()
    entry = in_force_at(entries, _moment(at))
    if entry is None:
        _fail(f"no champion was in force at {at}; the first came at {entries[0].at:%Y-%m-%d %H:%M:%S} UTC")
    in_force = entry.after
    try:
        manifest = load_bundle(in_force.artifact_uri, in_force.bundle_sha256).manifest
    except BundleError as error:
        _fail(error)
    if as_json:
        _print_json({**in_force.model_dump(), "entry": entry.model_dump(mode="json"), "manifest": manifest.model_dump()})
        return
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name in ("model_version", "mlflow_uri", "artifact_uri", "bundle_sha256"):
        table.add_row(name, str(getattr(in_force, name)))
    table.add_row(
        "since", f"{entry.at:%Y-%m-%d %H:%M:%S} UTC, entry {entry.number} of the ledger: {entry.action} by {entry.actor}"
    )
    table.add_row("why", escape(entry.why))
    table.add_row("cut-off", f"{in_force.rule.cut_off:.4f}, set by {in_force.cut_off_by}")
    table.add_row("trained on", f"{manifest.training.rows:,} rows, {manifest.training.bads:,} bads ({manifest.training.kind})")
    if manifest.training.recalibration is not None:
        table.add_row(
            "recalibration of", f"{manifest.training.recalibration.parent_sha256} ({manifest.training.recalibration.update})"
        )
    for name in ("roc_auc", "roc_auc_low", "roc_auc_high", "ks", "brier", "calibration_in_the_large"):
        table.add_row(f"held-out {name}", f"{manifest.metrics[name]:.4f}")
    console.print(table)


@champion_app.command("history")
def champion_history(as_json: JSON = False) -> None:
    """Who or what moved the champion, when, from what to what, and why; refused challengers too."""
    entries = _ledger_entries()
    if as_json:
        _print_json({"entries": [entry.model_dump(mode="json") for entry in entries]})
        return
    for entry in entries:
        before = entry.before.model_version if entry.before else "none"
        moved = f"version {before} to {entry.after.model_version}, cut-off {entry.after.rule.cut_off:.4f}"
        day = f", data up to {entry.day}" if entry.day else ""
        console.print(
            f"[bold]{entry.number} {entry.action}[/bold] {entry.at:%Y-%m-%d %H:%M:%S} UTC{day}: {moved}", highlight=False
        )
        console.print(f"  by {escape(entry.actor)}: {escape(entry.why)}", soft_wrap=True, highlight=False)


@champion_app.command("verify")
def champion_verify(as_json: JSON = False) -> None:
    """Whether the ledger is a whole chain, and it, MLflow's alias, Dagster's asset and every champion's bundle agree."""
    from creditrisk_assets.defs import moves

    findings = moves.verify(_instance(), _settings(), every_version=True)
    if as_json:
        _print_json({"findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            mark = "[green]holds[/green]" if finding.holds else "[red]does not hold[/red]"
            console.print(f"{mark}: {finding.what}: {escape(finding.seen)}", soft_wrap=True, highlight=False)
    if not all(finding.holds for finding in findings):
        _fail("the records of the champion do not agree")


@champion_app.command("rollback")
def champion_rollback(
    version: Annotated[str | None, typer.Argument(help="A former champion; default: the one before the present.")] = None,
    why: WHY = ...,  # type: ignore[assignment]  # typer's way to say that an option is required
) -> None:
    """Put a former champion in force again, at once; the API follows within seconds."""
    from creditrisk_assets.defs import moves
    from creditrisk_assets.governance.ledger import LedgerError

    try:
        entry = moves.rollback(_instance(), _settings(), version, why)
    except (moves.MoveRefused, LedgerError) as error:
        _fail(error)
    console.print(f"version {entry.after.model_version} is in force again, entry {entry.number} of the ledger", soft_wrap=True)


@champion_app.command("cut-off")
def champion_cut_off(
    cut_off: Annotated[
        float | None, typer.Argument(min=0, max=1, help="PD from which a customer is refused; default: the model's own.")
    ] = None,
    why: WHY = ...,  # type: ignore[assignment]
) -> None:
    """Decide by another cut-off from now on, with the same model; it stays when the model changes."""
    from creditrisk_assets.defs import moves
    from creditrisk_assets.governance.ledger import LedgerError

    try:
        entry = moves.set_cut_off(_instance(), _settings(), cut_off, why)
    except (moves.MoveRefused, LedgerError) as error:
        _fail(error)
    rule = entry.after.rule
    console.print(f"cut-off {rule.cut_off:.4f} is in force, entry {entry.number} of the ledger", soft_wrap=True)


@champion_app.command("policy")
def champion_policy(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write trade_off.csv, trade_off.png and grades.csv into this folder.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """What each cut-off would bring, and how the grades turn out, on the held-out rows that came with the champion."""
    from creditrisk_assets.governance.policy import LossAssumptions, policy_view
    from creditrisk_assets.modelling.plots import trade_off_plot
    from creditrisk_assets.scoring.bundle import BundleError, load_bundle

    settings, in_force = _settings(), _champion()
    try:
        bundle = load_bundle(in_force.artifact_uri, in_force.bundle_sha256)
    except BundleError as error:
        _fail(error)
    assumptions = LossAssumptions(settings.loss_given_default, settings.exposure_share)
    view = policy_view(bundle, in_force.rule, settings.portfolio, assumptions, settings.grade_bounds)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        view.trade_off.to_csv(output / "trade_off.csv", index=False)
        view.grades.to_csv(output / "grades.csv", index=False)
        rates = (view.trade_off["approval_rate"].to_numpy(dtype=float), view.trade_off["bad_rate"].to_numpy(dtype=float))
        (output / "trade_off.png").write_bytes(trade_off_plot(*rates, view.in_force, in_force.rule.cut_off))
    if as_json:
        _print_json({"trade_off": _records(view.trade_off), "grades": _records(view.grades)})
        return
    console.print(_trade_off_shown(view), _grades_shown(view))
    assumed = f"LGD {assumptions.loss_given_default}, EAD {assumptions.exposure_share} of {settings.portfolio.exposure}"
    console.print(f"bold: in force; expected_loss for each approved customer assumes {assumed}", soft_wrap=True)


@app.command()
def replay(
    decision_id: Annotated[str | None, typer.Argument(help="As the scores have it.")] = None,
    date: Annotated[
        datetime.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Every decision of this day instead.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Make decisions again with the bundles that made them; exit code 1 if a bit differs."""
    if (decision_id is None) == (date is None):
        raise typer.BadParameter("valid: either a decision id or --date")
    if decision_id is not None:
        _replay_one(decision_id, as_json)
    elif date is not None:
        _replay_day(f"{date:%Y-%m-%d}", as_json)


@app.command()
def status(as_json: JSON = False, days: Annotated[int, typer.Option(min=1, help="How many of the latest days.")] = 14) -> None:
    """What the loop has done: champion, days, alarms, retrains and verdicts, whether a retrain is due and why, runs, sensors."""
    from creditrisk_assets.defs.status import loop_status

    seen = loop_status(_instance(), _settings(), days)
    if as_json:
        _print_json(seen.model_dump(mode="json"))
        return
    if seen.champion is None:
        console.print("champion: none yet; run make train")
    else:
        since = datetime.datetime.fromtimestamp(seen.champion_since or 0, datetime.UTC)
        console.print(f"champion: v{seen.champion.model_version} since {since:%Y-%m-%d %H:%M} UTC, {seen.champion.reason}")
    console.print(f"retraining: {seen.retraining}", soft_wrap=True)
    table = Table(
        "day", "rows", "rejected", "version", "PSI", "drifted", "matured / pending / missing", "AUC\nest.", "AUC", "bad rate"
    )
    table.columns[0].no_wrap = True
    for day in seen.days:
        counts = (day.matured, day.pending, day.missing)
        waiting = "/".join(_shown(count) for count in counts) if day.matured is not None else ""
        figures = (day.rows, day.rejected, day.model_version, day.score_psi, day.drifted_columns, waiting)
        rates = (day.estimated_roc_auc, day.roc_auc, day.bad_rate)
        table.add_row(day.day, *(_shown(value) for value in (*figures, *rates)))
    console.print(table if seen.days else "days: none landed yet")
    for day in seen.days:
        for alarm in day.alarms:
            console.print(f"alarm on {day.day} ({alarm.tier}): {alarm.check}: {escape(alarm.summary)}", soft_wrap=True)
    for event in seen.events[:EVENTS_SHOWN]:
        what = f"{event.action}, {event.kind}" if event.action else event.kind
        console.print(f"{event.day or 'before the first day'}: {what}: {escape(event.text)}", soft_wrap=True)
    for run in seen.runs_in_flight:
        console.print(f"in flight: {run.job} {run.day or ''} {run.run_id} ({run.status})")
    for run in seen.failed_runs:
        console.print(f"[red]failed[/red]: {run.job} {run.day or ''} {run.run_id}")
    for problem in seen.landing_problems:
        console.print(f"[yellow]not read[/yellow]: {escape(problem)}", soft_wrap=True)
    for sensor in seen.sensors:
        console.print(f"sensor {sensor.name}: {sensor.status}; {sensor.message}", soft_wrap=True)


@app.command()
def report(
    days: Annotated[int, typer.Option(min=1, max=366, help="How many days back from the last, that one included.")] = 7,
    until: Annotated[
        datetime.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The last day; default: the latest that was scored.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Write the Evidently report of the last days together, and say which columns have moved."""
    from creditrisk_assets.defs.windows import NothingToReport, write_window_report

    try:
        written = write_window_report(_instance(), _settings(), days, f"{until:%Y-%m-%d}" if until else None)
    except NothingToReport as error:
        _fail(str(error))
    lines = written.stability.sort_values("pooled_value", ascending=False)
    shown = lines[["column", "pooled_value", "threshold", "p_value", "drifted"]].to_dict("records")
    if as_json:
        _print_json({**{name: value for name, value in vars(written).items() if name != "stability"}, "columns": shown})
        return
    console.print(
        f"{written.rows:,} rows of {len(written.used)} days until {written.until}, scored by version {written.model_version}",
        soft_wrap=True,
    )
    table = Table("column", "PSI / CSI", "alarm line", "")
    for line in shown[:10]:
        table.add_row(
            line["column"], f"{line['pooled_value']:.4f}", f"{line['threshold']:.4f}", "moved" if line["drifted"] else ""
        )
    console.print(table)
    console.print(f"{written.html}\n{written.url}", soft_wrap=True)


def _fairness_shown(fields: Any) -> Table:
    """What fits a terminal; `--json` and the model card have every figure."""
    headings = ("group", "rows", "appr.", "impact ratio\n(95 %)", "goods\nappr.", "mean\nPD", "bad\nrate")
    shown = Table(*headings, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in shown.columns:
        column.no_wrap = True
    for figures in fields:
        shown.add_row(figures.field, style="bold")
        for group in figures.groups:
            name, rows = f"  {group.group}", f"{group.n:,}"
            if not group.judged:
                shown.add_row(name, rows, "", "too few to judge", style="dim")
                continue
            ratio = f"{group.impact_ratio:.2f} [{group.impact_ratio_low:.2f}, {group.impact_ratio_high:.2f}]"
            told = "reference" if group.group == figures.reference else escape(ratio)
            goods = "" if group.equal_opportunity is None else f"{group.equal_opportunity:.2f}"
            rates = (goods, f"{group.mean_pd:.2f}", f"{group.bad_rate:.2f}")
            shown.add_row(name, rows, f"{group.approval_rate:.2f}", told, *rates)
    return shown


def _trade_off_shown(view: Any) -> Table:
    headings = ("cut-off", "approved", "bad rate", "of refused", "bads let in", "expected loss")
    shown = Table(*headings, title=f"trade-off, {view.customers:,} held-out customers")
    for place, row in enumerate(view.trade_off.itertuples(index=False)):
        rates = (row.approval_rate, row.bad_rate, row.bad_rate_refused, row.bads_approved_share)
        told = ("" if math.isnan(rate) else f"{rate:.1%}" for rate in rates)
        loss = "" if math.isnan(row.expected_loss) else f"{row.expected_loss:,.0f}"
        shown.add_row(f"{row.cut_off:.4f}", *told, loss, style="bold" if place == view.in_force else None)
    return shown


def _grades_shown(view: Any) -> Table:
    headings = ("grade", "PD", "rows", "bads", "mean PD", "bad rate (95 %)", "Jeffreys p")
    shown = Table(*headings, title="grades, the same customers")
    for row in view.grades.itertuples(index=False):
        rate = f"{row.bad_rate:.3f} [{row.low:.2f}, {row.high:.2f}]"
        known = (f"{row.mean_pd:.3f}", escape(rate), f"{row.p_value:.3f}") if row.customers else ("", "", "")
        shown.add_row(row.grade, f"{row.pd_from:g} to {row.pd_to:g}", f"{row.customers:,}", str(row.bads), *known)
    return shown


def _replay_one(decision_id: str, as_json: bool) -> None:
    from creditrisk_assets.governance.replay import replay_decision
    from creditrisk_assets.scoring.bundle import BundleError
    from creditrisk_assets.scoring.decisions import DecisionsError
    from creditrisk_assets.scoring.live import LiveDecisions, decision_found

    try:
        replayed = replay_decision(*decision_found(LiveDecisions.of(_settings()), decision_id))
    except (DecisionsError, BundleError) as error:
        _fail(error)
    champion = replayed.champion
    if as_json:
        _print_json(
            {
                "exact": replayed.exact,
                "kept": replayed.kept,
                "now": replayed.now,
                "reasons": dict(replayed.reasons),
                "champion": champion.model_dump(),
            }
        )
    else:
        table = Table("", "kept", "comes out now")
        for name, now in replayed.now.items():
            table.add_row(name, str(replayed.kept[name]), str(now))
        console.print(table)
        for code, text in replayed.reasons:
            console.print(f"{code}: {text}")
        console.print(
            f"by version {champion.model_version}, bundle {champion.bundle_sha256}, cut-off {champion.rule.cut_off}",
            soft_wrap=True,
        )
    if not replayed.exact:
        _fail(f"decision {decision_id} does not come out again")


def _replay_day(day: str, as_json: bool) -> None:
    from creditrisk_assets.governance.replay import replay_set
    from creditrisk_assets.scoring.decisions import DecisionsError, sets_of

    folder = _settings().decisions
    try:
        sets = sets_of(folder, day)
    except DecisionsError as error:
        _fail(error)
    if not sets:
        _fail(f"no decisions of {day} in {folder}; valid: a day that was scored")
    with Progress(console=errors) as progress:
        bar = progress.add_task(day, total=sum(one.rows for one in sets))
        replayed = [replay_set(folder, one, lambda rows: progress.advance(bar, rows)) for one in sets]
    if as_json:
        _print_json({"sets": [{**dataclasses.asdict(one), "decisions": one.decisions.model_dump()} for one in replayed]})
    else:
        for one in replayed:
            console.print(
                f"set {one.decisions.name}: {one.rows:,} decisions by version {one.decisions.champion.model_version} made again, "
                f"{one.different:,} differ",
                soft_wrap=True,
            )
    for one in replayed:
        for what in (one.problem, *one.differences):
            if what:
                errors.print(what, soft_wrap=True, highlight=False)
    if not all(one.exact for one in replayed):
        _fail(f"decisions of {day} do not come out again")


def _ledger_entries() -> Any:
    from creditrisk_assets.governance.ledger import Ledger, LedgerError

    try:
        entries = Ledger(_settings().ledger).entries()
    except LedgerError as error:
        _fail(error)
    if not entries:
        _fail("there is no champion yet; run make train, or launch the job train in the Dagster UI")
    return entries


def _moment(at: datetime.datetime | None) -> datetime.datetime:
    """A moment in UTC; a date means its end."""
    if at is None:
        return datetime.datetime.now(datetime.UTC)
    end = datetime.timedelta(days=1) if at.time() == datetime.time() else datetime.timedelta()
    return at.replace(tzinfo=datetime.UTC) + end


def _plan(
    scenario: str, start: datetime.date, days: int, rows: int, strength: float, seed: int, onset: int | None, window: int
) -> Any:
    from creditrisk_assets.portfolio.scenarios import Plan

    if scenario not in SCENARIO_NAMES:
        raise typer.BadParameter(f"scenario {scenario!r}; valid: {', '.join(SCENARIO_NAMES)}")
    return Plan(scenario, start, days, rows, strength, seed, days // 3 if onset is None else onset, window)


def _customers(data: Path, portfolio: Any) -> Any:
    """All customers of a file, of which no row may be wrong."""
    return _history(data, portfolio).rows.accepted


def _history(data: Path, portfolio: Any) -> Any:
    """A file of customers with their outcomes, of which no row may be wrong."""
    from creditrisk_assets.portfolio.history import NoHistory, read_history

    try:
        history = read_history(str(data), portfolio)
    except NoHistory as error:
        _fail(error)
    rejected = history.rows.rejected
    if len(rejected):
        first = rejected.iloc[0]
        _fail(f"{data}, line {first['line']}: {first['message']} ({len(rejected)} problems in all)")
    return history


def _stop_on_signals() -> None:
    """Ctrl-C and TERM both end in KeyboardInterrupt, also where a shell started us in the background with INT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _shown(value: float | int | str | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _settings() -> Any:
    """The environment's settings; what is wrong with them ends the command with the variable's name."""
    from pydantic import ValidationError

    from creditrisk_assets.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"CREDITRISK_{'.'.join(map(str, one['loc'])).upper()}: {one['input']!r:.80}: {one['msg']}" for one in error.errors()
        )
        _fail(wrong)


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


def _records(frame: Any) -> Any:
    """Rows as JSON has them: null where there is no number."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def _fail(error: object) -> NoReturn:
    errors.print(f"[red]error:[/red] {error}", soft_wrap=True, highlight=False)
    raise typer.Exit(1)


if __name__ == "__main__":
    main()
