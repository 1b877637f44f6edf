"""The commands that inspect the loop: status, report, watch, replay."""

import dataclasses
import datetime
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from creditrisk_assets.cli.common import (
    JSON,
    console,
    errors,
    fail,
    format_cell,
    home_folder,
    open_instance_here,
    print_json,
    progress_bar,
    settings_here,
    stop_on_signals,
)
from creditrisk_assets.cli.services import require_routes

if TYPE_CHECKING:
    from creditrisk_assets.monitoring.loop_status import LoopStatus

EVENTS_SHOWN = 5
DAYS_NAMED = 10


def status(
    as_json: JSON = False,
    days: Annotated[int, typer.Option(min=1, help="Number of latest days.")] = 14,
) -> None:
    """Show the state of the loop: champion, days, alarms, retrains and verdicts, the next retrain
    and its cause, runs, sensors.
    """
    from creditrisk_assets.defs.status import loop_status
    from creditrisk_assets.monitoring.loop_state import state_of

    settings = settings_here()
    loop = loop_status(open_instance_here(), settings, days)
    if as_json:
        print_json(loop.model_dump(mode="json"))
        return
    state = state_of(loop, 1 + len(settings.portfolio.fields), loop.written)
    console.print(f"[bold]{state.state}[/bold]: {escape(state.sentence)}", soft_wrap=True)
    show_status(loop)


def show_status(loop: "LoopStatus") -> None:
    """Print a status for people."""
    if loop.champion is None:
        console.print("champion: none yet; run make train")
    else:
        since = datetime.datetime.fromtimestamp(loop.champion_since or 0, datetime.UTC)
        console.print(
            f"champion: v{loop.champion.model_version} since {since:%Y-%m-%d %H:%M} UTC, "
            f"{escape(loop.champion_because or '')}"
        )
        console.print(f"cut-off: {loop.cut_off}", soft_wrap=True, highlight=False)
    console.print(f"retraining: {loop.retraining}", soft_wrap=True)
    drift = ("day", "rows", "rejected", "version", "PSI", "drifted")
    table = Table(*drift, "matured / pending / missing", "AUC\nest.", "AUC", "bad rate")
    table.columns[0].no_wrap = True
    for day in loop.days:
        counts = (day.matured, day.pending, day.missing)
        maturity = "" if day.matured is None else "/".join(map(format_cell, counts))
        figures = (day.rows, day.rejected, day.model_version, day.score_psi, day.drifted_columns)
        rates = (day.estimated_roc_auc, day.roc_auc, day.bad_rate)
        table.add_row(day.day, *map(format_cell, (*figures, maturity, *rates)))
    if loop.days:
        console.print(table)
    elif not loop.waiting_days:
        console.print("days: none landed yet")
    if loop.waiting_days:
        console.print(f"landed and not scored yet: {_listed(loop.waiting_days)}", soft_wrap=True)
    for at, alarm in reversed(loop.open_alarms):
        when = f" on {at}" if at else ""
        console.print(
            f"alarm{when} ({alarm.tier}): {escape(f'{alarm.summary} [{alarm.check}]')}",
            soft_wrap=True,
            highlight=False,
        )
    if loop.former_alarms:
        former = sorted({str(at) for at, _ in loop.former_alarms})
        console.print(
            f"{len(loop.former_alarms)} alarms about days of former champions: {_listed(former)}",
            soft_wrap=True,
        )
    if not loop.open_alarms:
        console.print(f"no open alarm; {loop.checks_run} of {loop.checks} checks have run")
    for event in loop.events[:EVENTS_SHOWN]:
        kind = f"{event.action}, {event.kind}" if event.action else event.kind
        console.print(
            f"{event.day or 'before the first day'}: {kind}: {escape(event.text)}", soft_wrap=True
        )
    for run in loop.runs_in_flight:
        console.print(f"in flight: {run.job} {run.day or ''} {run.run_id} ({run.status})")
    for run in loop.failed_runs:
        console.print(f"[red]failed[/red]: {run.job} {run.day or ''} {run.run_id}")
    for problem in loop.landing_problems:
        console.print(f"[yellow]not read[/yellow]: {escape(problem)}", soft_wrap=True)
    for sensor in loop.sensors:
        console.print(f"sensor {sensor.name}: {sensor.status}; {sensor.message}", soft_wrap=True)


def _listed(days: Sequence[str]) -> str:
    """The number of days, and the first of them."""
    more = f" and {len(days) - DAYS_NAMED} more" if len(days) > DAYS_NAMED else ""
    return (
        f"{len(days)} {'day' if len(days) == 1 else 'days'}: {', '.join(days[:DAYS_NAMED])}{more}"
    )


def report(
    days: Annotated[
        int,
        typer.Option(min=1, max=366, help="Number of days up to and including the last."),
    ] = 7,
    until: Annotated[
        datetime.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The last day; default: the latest scored day."),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Write the Evidently report of several days together, and list the columns that moved."""
    from creditrisk_assets.defs.window_reports import NothingToReport, write_window_report
    from creditrisk_assets.number_format import format_with_limit

    try:
        window = write_window_report(
            open_instance_here(), settings_here(), days, f"{until:%Y-%m-%d}" if until else None
        )
    except NothingToReport as error:
        fail(str(error))
    lines = window.stability.sort_values("pooled_value", ascending=False)
    rows = lines[["column", "pooled_value", "threshold", "p_value", "drifted"]].to_dict("records")
    if as_json:
        print_json(
            {
                **{name: value for name, value in vars(window).items() if name != "stability"},
                "columns": rows,
            }
        )
        return
    console.print(
        f"{window.rows:,} rows of {len(window.used)} days until {window.until}, scored by "
        f"version {window.model_version}",
        soft_wrap=True,
    )
    table = Table("column", "PSI / CSI", "alarm line", "")
    for line in rows[:10]:
        table.add_row(
            line["column"],
            *format_with_limit(line["pooled_value"], line["threshold"], ".4f"),
            "moved" if line["drifted"] else "",
        )
    console.print(table)
    console.print(f"{window.html}\n{window.url}", soft_wrap=True)


def watch(
    loop: Annotated[
        float | None, typer.Option(min=1, help="Repeat after this many seconds, until Ctrl-C.")
    ] = None,
    heartbeat: Annotated[
        Path | None, typer.Option(help="Touch this file after each time, for a health check.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Check sensors, runs, API and data from outside the daemon, and deliver alerts: a dead daemon
    cannot report itself.

    Exit code 1 if a check fails, or an alert could not be delivered.
    """
    from creditrisk_assets.defs.external_watch import watch_once
    from creditrisk_assets.monitoring.check_catalogue import BY_CHECK

    settings, home = settings_here(), home_folder()
    require_routes(settings)
    stop_on_signals()
    try:
        while True:
            health = watch_once(home, settings)
            if as_json:
                print_json(dataclasses.asdict(health) | {"well": health.well})
            else:
                for finding in health.findings:
                    result = (
                        f"[green]well[/green]: {finding.check}"
                        if finding.passed
                        else f"[red]wrong[/red]: {BY_CHECK[finding.check].failure}"
                    )
                    console.print(
                        f"{result}: {escape(finding.summary)}", soft_wrap=True, highlight=False
                    )
                for name in health.released:
                    console.print(f"{name} waited for a time in the future, and may tick again")
                console.print(f"alerts: {escape(health.alerts)}", soft_wrap=True, highlight=False)
            if heartbeat is not None:
                heartbeat.touch()
                now = time.time()  # the clock that the probe reads; a file server has its own
                os.utime(heartbeat, (now, now))
            if loop is None:
                break
            sys.stdout.flush()
            time.sleep(loop)
    except KeyboardInterrupt:
        return
    if not health.well:
        raise typer.Exit(1)


def replay(
    decision_id: Annotated[str | None, typer.Argument(help="Id from an answer or score.")] = None,
    date: Annotated[
        datetime.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Instead, every decision of this day."),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Replay decisions with their own bundles; exit code 1 if a bit differs."""
    if (decision_id is None) == (date is None):
        raise typer.BadParameter("valid: either a decision id or --date")
    if decision_id is not None:
        _replay_one(decision_id, as_json)
    elif date is not None:
        _replay_day(f"{date:%Y-%m-%d}", as_json)


def _replay_one(decision_id: str, as_json: bool) -> None:
    from creditrisk_assets.decisions.archive import ApiDecisions, find_decision
    from creditrisk_assets.decisions.replay import replay_decision
    from creditrisk_assets.decisions.sets import DecisionsError
    from creditrisk_assets.scoring.bundle import BundleError
    from creditrisk_assets.scoring.bundle_store import BundleStore

    settings = settings_here()
    try:
        found = find_decision(ApiDecisions.of(settings), decision_id)
        replayed = replay_decision(BundleStore(settings.data_dir), *found)
    except (DecisionsError, BundleError) as error:
        fail(error)
    champion = replayed.champion
    if as_json:
        print_json(
            {
                "exact": replayed.exact,
                "stored": replayed.stored,
                "now": replayed.now,
                "reasons": dict(replayed.reasons),
                "champion": champion.model_dump(),
            }
        )
    else:
        table = Table("", "stored", "comes out now")
        for name, now in replayed.now.items():
            table.add_row(name, str(replayed.stored[name]), str(now))
        console.print(table)
        for code, text in replayed.reasons:
            console.print(f"{code}: {text}")
        console.print(
            f"by version {champion.model_version}, bundle {champion.bundle_sha256}, cut-off "
            f"{champion.rule.cut_off}",
            soft_wrap=True,
        )
    if not replayed.exact:
        fail(f"decision {decision_id} does not come out again")


def _replay_day(day: str, as_json: bool) -> None:
    from creditrisk_assets.decisions.replay import replay_set
    from creditrisk_assets.decisions.sets import DecisionsError, sets_of
    from creditrisk_assets.scoring.bundle_store import BundleStore

    settings = settings_here()
    folder, bundles = settings.decisions, BundleStore(settings.data_dir)
    try:
        sets = sets_of(folder, day)
    except DecisionsError as error:
        fail(error)
    if not sets:
        fail(f"no decisions of {day} in {folder}; valid: a day that was scored")
    with progress_bar(day, sum(decisions.rows for decisions in sets)) as update:
        replays = [
            replay_set(
                folder,
                bundles,
                decisions,
                lambda rows: update(advance=rows),
                compiled_code=settings.compiled_code,
            )
            for decisions in sets
        ]
    if as_json:
        print_json(
            {
                "sets": [
                    {**dataclasses.asdict(replay), "decisions": replay.decisions.model_dump()}
                    for replay in replays
                ]
            }
        )
    else:
        for replay in replays:
            place = _place(replay.decisions.number)
            version = replay.decisions.champion.model_version
            console.print(
                f"set {replay.decisions.name}{place}: {replay.rows:,} decisions by version "
                f"{version} made again, {replay.different:,} differ",
                soft_wrap=True,
            )
    for replay in replays:
        for message in (replay.problem, *replay.differences):
            if message:
                errors.print(message, soft_wrap=True, highlight=False)
    if not all(replay.exact for replay in replays):
        fail(f"decisions of {day} do not come out again")


def _place(number: int | None) -> str:
    """The number of a set's scoring, in words; only the first decision on a record was acted on."""
    return (
        ""
        if number is None
        else " (first scoring)"
        if number == 1
        else f" (scoring {number}, beside the record)"
    )
