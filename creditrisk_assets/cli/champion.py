"""The commands `creditrisk champion`: show the model in force and its history, and move it."""

import dataclasses
import datetime
import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from creditrisk_assets.cli.common import (
    JSON,
    bundle_of,
    champion_in_force,
    console,
    fail,
    json_rows,
    ledger_here,
    open_instance_here,
    print_json,
    settings_here,
)

champion_app = typer.Typer(help="The model in force.", no_args_is_help=True)
WHY = Annotated[str, typer.Option(help="The reason, for the ledger.")]


@champion_app.command("show")
def champion_show(
    at: Annotated[
        datetime.datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
            help="The moment (UTC; a date means its end); default: now.",
        ),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Show the champion: version, bundle, cut-off, the reason for it, and its held-out figures."""
    from creditrisk_assets.governance.ledger import in_force_at

    settings = settings_here()
    entries = ledger_here(settings, lambda ledger: ledger.entries())
    entry = in_force_at(entries, _moment(at))
    if entry is None:
        fail(
            f"no champion was in force at {at}; the first came at "
            f"{entries[0].at:%Y-%m-%d %H:%M:%S} UTC"
        )
    in_force = entry.after
    manifest = bundle_of(in_force, settings).manifest
    if as_json:
        print_json(
            {
                **in_force.model_dump(),
                "entry": entry.model_dump(mode="json"),
                "manifest": manifest.model_dump(),
            }
        )
        return
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name in ("model_version", "mlflow_uri", "artifact_uri", "bundle_sha256"):
        table.add_row(name, str(getattr(in_force, name)))
    table.add_row(
        "since",
        f"{entry.at:%Y-%m-%d %H:%M:%S} UTC, entry {entry.number} of the ledger: {entry.action} by "
        f"{entry.actor}",
    )
    table.add_row("why", escape(entry.why))
    table.add_row("cut-off", f"{in_force.rule.cut_off:.4f}, set by {in_force.cut_off_by}")
    table.add_row(
        "trained on",
        f"{manifest.training.rows:,} rows, {manifest.training.bads:,} bads "
        f"({manifest.training.kind})",
    )
    if manifest.training.recalibration is not None:
        table.add_row(
            "recalibration of",
            f"{manifest.training.recalibration.parent_sha256} "
            f"({manifest.training.recalibration.update})",
        )
    auc = ("roc_auc", "roc_auc_low", "roc_auc_high")
    for name in (*auc, "ks", "brier", "calibration_in_the_large"):
        table.add_row(f"held-out {name}", f"{manifest.metrics[name]:.4f}")
    console.print(table)


@champion_app.command("history")
def champion_history(as_json: JSON = False) -> None:
    """List the moves of the champion with actor, time and reason, and rejected challengers."""
    entries = ledger_here(settings_here(), lambda ledger: ledger.entries())
    if as_json:
        print_json({"entries": [entry.model_dump(mode="json") for entry in entries]})
        return
    for entry in entries:
        before = entry.before.model_version if entry.before else "none"
        moved = (
            f"version {before} to {entry.after.model_version}, cut-off "
            f"{entry.after.rule.cut_off:.4f}"
        )
        day = f", data up to {entry.day}" if entry.day else ""
        console.print(
            f"[bold]{entry.number} {entry.action}[/bold] {entry.at:%Y-%m-%d %H:%M:%S} UTC{day}: "
            f"{moved}",
            highlight=False,
        )
        console.print(
            f"  by {escape(entry.actor)}: {escape(entry.why)}", soft_wrap=True, highlight=False
        )


@champion_app.command("verify")
def champion_verify(as_json: JSON = False) -> None:
    """Check that the ledger is an unbroken chain, and that it, MLflow's alias, Dagster's asset and
    every champion's bundle agree.
    """
    from creditrisk_assets.defs import champion_records

    findings = champion_records.verify(open_instance_here(), settings_here(), every_version=True)
    if as_json:
        print_json({"findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            mark = "[green]holds[/green]" if finding.holds else "[red]does not hold[/red]"
            console.print(
                f"{mark}: {finding.claim}: {escape(finding.observed)}",
                soft_wrap=True,
                highlight=False,
            )
    if not all(finding.holds for finding in findings):
        fail("the records of the champion do not agree")


@champion_app.command("rollback")
def champion_rollback(
    version: Annotated[
        str | None, typer.Argument(help="A former champion; default: the previous one.")
    ] = None,
    why: WHY = ...,  # type: ignore[assignment]  # typer's way to say that an option is required
) -> None:
    """Put a former champion in force again, at once; the API follows within seconds."""
    from creditrisk_assets.defs import champion_commands
    from creditrisk_assets.governance.ledger import LedgerError

    try:
        entry = champion_commands.rollback(open_instance_here(), settings_here(), version, why)
    except (champion_commands.MoveRefused, LedgerError) as error:
        fail(error)
    cut_offs = " to ".join(
        f"{side.rule.cut_off:.4f}" for side in (entry.before or entry.after, entry.after)
    )
    console.print(
        f"version {entry.after.model_version} is in force again, entry {entry.number} of the "
        f"ledger; cut-off {cut_offs}, set by {entry.after.cut_off_by}",
        soft_wrap=True,
    )


@champion_app.command("cut-off")
def champion_cut_off(
    cut_off: Annotated[
        float | None,
        typer.Argument(
            min=0, max=1, help="PD from which the prediction is 1; default: the model's own."
        ),
    ] = None,
    pin: Annotated[
        bool, typer.Option(help="Pin the cut-off in force: promotions no longer move it.")
    ] = False,
    why: WHY = ...,  # type: ignore[assignment]
) -> None:
    """Set the cut-off of the model in force; it stays when the model changes.

    Without an argument the model's own cut-off applies again, which moves with every promotion.
    """
    if pin and cut_off is not None:
        raise typer.BadParameter(f"cut-off {cut_off} with --pin; valid: one of them")
    from creditrisk_assets.defs import champion_commands
    from creditrisk_assets.governance.ledger import LedgerError

    try:
        instance, settings = open_instance_here(), settings_here()
        entry = champion_commands.set_cut_off(instance, settings, cut_off, why, pin=pin)
    except (champion_commands.MoveRefused, LedgerError) as error:
        fail(error)
    rule = entry.after.rule
    stays = (
        "it stays when the model changes"
        if entry.after.cut_off_by == "policy"
        else "it moves with the model"
    )
    console.print(
        f"cut-off {rule.cut_off:.4f} is in force, entry {entry.number} of the ledger; {stays}",
        soft_wrap=True,
    )


@champion_app.command("policy")
def champion_policy(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write trade_off.csv, trade_off.png and grades.csv into this folder.",
        ),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Show the trade-off of each cut-off, and the grades, on the champion's held-out rows."""
    from creditrisk_assets.governance.policy import policy_view
    from creditrisk_assets.modelling.plots import trade_off_plot

    settings = settings_here()
    in_force, words = champion_in_force(settings), settings.portfolio.words
    bundle = bundle_of(in_force, settings)
    view = policy_view(bundle, in_force.rule, settings.portfolio)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        view.trade_off.to_csv(output / "trade_off.csv", index=False)
        view.grades.to_csv(output / "grades.csv", index=False)
        rates = (
            view.trade_off["approval_rate"].to_numpy(dtype=float),
            view.trade_off["bad_rate"].to_numpy(dtype=float),
        )
        (output / "trade_off.png").write_bytes(
            trade_off_plot(*rates, view.in_force, in_force.rule.cut_off, words)
        )
    if as_json:
        print_json({"trade_off": json_rows(view.trade_off), "grades": json_rows(view.grades)})
        return
    console.print(_trade_off_table(view, words), _grades_table(view))
    assumed = (
        f"LGD {settings.portfolio.loss_given_default}, EAD {settings.portfolio.exposure_share} of "
        f"{settings.portfolio.exposure}"
    )
    console.print(
        f"bold: in force; expected loss for each customer {words.below} assumes {assumed}",
        soft_wrap=True,
    )


def _trade_off_table(view: Any, words: Any) -> Table:
    headings = (
        "cut-off",
        words.below,
        "bad rate",
        f"of {words.above}",
        f"bads {words.below}",
        "expected loss",
    )
    table = Table(*headings, title=f"trade-off, {view.customers:,} held-out customers")
    for place, row in enumerate(view.trade_off.itertuples(index=False)):
        rates = (row.approval_rate, row.bad_rate, row.bad_rate_refused, row.bads_approved_share)
        cells = ("" if math.isnan(rate) else f"{rate:.1%}" for rate in rates)
        loss = "" if math.isnan(row.expected_loss) else f"{row.expected_loss:,.0f}"
        table.add_row(
            f"{row.cut_off:.4f}", *cells, loss, style="bold" if place == view.in_force else None
        )
    return table


def _grades_table(view: Any) -> Table:
    headings = ("grade", "PD", "rows", "bads", "mean PD", "bad rate (95 %)", "Jeffreys p")
    table = Table(*headings, title="grades, the same customers")
    for row in view.grades.itertuples(index=False):
        rate = f"{row.bad_rate:.3f} [{row.low:.2f}, {row.high:.2f}]"
        figures = (
            (f"{row.mean_pd:.3f}", escape(rate), f"{row.p_value:.3f}")
            if row.customers
            else ("", "", "")
        )
        table.add_row(
            row.grade,
            f"{row.pd_from:g} to {row.pd_to:g}",
            f"{row.customers:,}",
            str(row.bads),
            *figures,
        )
    return table


def _moment(at: datetime.datetime | None) -> datetime.datetime:
    """A moment in UTC; a date means its end."""
    if at is None:
        return datetime.datetime.now(datetime.UTC)
    end = datetime.timedelta(days=1) if at.time() == datetime.time() else datetime.timedelta()
    return at.replace(tzinfo=datetime.UTC) + end
