"""The commands that look at what the loop did: status, report, watch, replay."""

import dataclasses
import datetime
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from creditrisk_assets.cli.common import (
    JSON,
    console,
    errors,
    fail,
    home_folder,
    open_instance_here,
    print_json,
    settings_here,
    shown,
    stop_on_signals,
)

if TYPE_CHECKING:
    from creditrisk_assets.monitoring.loop_status import LoopStatus

EVENTS_SHOWN = 5
DAYS_NAMED = 10


def status(
    as_json: JSON = False,
    days: Annotated[int, typer.Option(min=1, help="How many of the latest days.")] = 14,
) -> None:
    """What the loop has done: champion, days, alarms, retrains and verdicts, whether a retrain is
    due and why, runs, sensors.
    """
    from creditrisk_assets.defs.status import loop_status

    seen = loop_status(open_instance_here(), settings_here(), days)
    if as_json:
        print_json(seen.model_dump(mode="json"))
    else:
        show_status(seen)


def show_status(seen: "LoopStatus") -> None:
    """Print a status for people."""
    if seen.champion is None:
        console.print("champion: none yet; run make train")
    else:
        since = datetime.datetime.fromtimestamp(seen.champion_since or 0, datetime.UTC)
        console.print(
            f"champion: v{seen.champion.model_version} since {since:%Y-%m-%d %H:%M} UTC, "
            f"{escape(seen.champion_because or '')}"
        )
        console.print(f"cut-off: {seen.cut_off}", soft_wrap=True, highlight=False)
    console.print(f"retraining: {seen.retraining}", soft_wrap=True)
    table = Table(
        "day",
        "rows",
        "rejected",
        "version",
        "PSI",
        "drifted",
        "matured / pending / missing",
        "AUC\nest.",
        "AUC",
        "bad rate",
    )
    table.columns[0].no_wrap = True
    for day in seen.days:
        counts = (day.matured, day.pending, day.missing)
        waiting = "/".join(shown(count) for count in counts) if day.matured is not None else ""
        figures = (
            day.rows,
            day.rejected,
            day.model_version,
            day.score_psi,
            day.drifted_columns,
            waiting,
        )
        rates = (day.estimated_roc_auc, day.roc_auc, day.bad_rate)
        table.add_row(day.day, *(shown(value) for value in (*figures, *rates)))
    if seen.days:
        console.print(table)
    elif not seen.waiting_days:
        console.print("days: none landed yet")
    if seen.waiting_days:
        console.print(f"landed and not scored yet: {_listed(seen.waiting_days)}", soft_wrap=True)
    for at, alarm in reversed(seen.open_alarms):
        when = f" on {at}" if at else ""
        console.print(
            f"alarm{when} ({alarm.tier}): {escape(f'{alarm.summary} [{alarm.check}]')}",
            soft_wrap=True,
            highlight=False,
        )
    if seen.former_alarms:
        former = sorted({str(at) for at, _ in seen.former_alarms})
        console.print(
            f"{len(seen.former_alarms)} alarms about days of former champions: {_listed(former)}",
            soft_wrap=True,
        )
    if not seen.open_alarms:
        console.print(f"no open alarm; {seen.checks_run} of {seen.checks} checks have run")
    for event in seen.events[:EVENTS_SHOWN]:
        what = f"{event.action}, {event.kind}" if event.action else event.kind
        console.print(
            f"{event.day or 'before the first day'}: {what}: {escape(event.text)}", soft_wrap=True
        )
    for run in seen.runs_in_flight:
        console.print(f"in flight: {run.job} {run.day or ''} {run.run_id} ({run.status})")
    for run in seen.failed_runs:
        console.print(f"[red]failed[/red]: {run.job} {run.day or ''} {run.run_id}")
    for problem in seen.landing_problems:
        console.print(f"[yellow]not read[/yellow]: {escape(problem)}", soft_wrap=True)
    for sensor in seen.sensors:
        console.print(f"sensor {sensor.name}: {sensor.status}; {sensor.message}", soft_wrap=True)


def _listed(days: Sequence[str]) -> str:
    """Some days by name, and how many there are."""
    more = f" and {len(days) - DAYS_NAMED} more" if len(days) > DAYS_NAMED else ""
    return (
        f"{len(days)} {'day' if len(days) == 1 else 'days'}: {', '.join(days[:DAYS_NAMED])}{more}"
    )


def report(
    days: Annotated[
        int,
        typer.Option(min=1, max=366, help="How many days back from the last, that one included."),
    ] = 7,
    until: Annotated[
        datetime.datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"], help="The last day; default: the latest that was scored."
        ),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Write the Evidently report of the last days together, and say which columns have moved."""
    from creditrisk_assets.defs.window_reports import NothingToReport, write_window_report
    from creditrisk_assets.number_format import format_with_limit

    try:
        written = write_window_report(
            open_instance_here(), settings_here(), days, f"{until:%Y-%m-%d}" if until else None
        )
    except NothingToReport as error:
        fail(str(error))
    lines = written.stability.sort_values("pooled_value", ascending=False)
    shown = lines[["column", "pooled_value", "threshold", "p_value", "drifted"]].to_dict("records")
    if as_json:
        print_json(
            {
                **{name: value for name, value in vars(written).items() if name != "stability"},
                "columns": shown,
            }
        )
        return
    console.print(
        f"{written.rows:,} rows of {len(written.used)} days until {written.until}, scored by "
        f"version {written.model_version}",
        soft_wrap=True,
    )
    table = Table("column", "PSI / CSI", "alarm line", "")
    for line in shown[:10]:
        table.add_row(
            line["column"],
            *format_with_limit(line["pooled_value"], line["threshold"], ".4f"),
            "moved" if line["drifted"] else "",
        )
    console.print(table)
    console.print(f"{written.html}\n{written.url}", soft_wrap=True)


def watch(
    loop: Annotated[
        float | None, typer.Option(min=1, help="Look again every so many seconds, until Ctrl-C.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Look from outside whether sensors, runs, API and data are alive, and deliver alerts: a dead
    daemon cannot watch itself.

    Exit code 1 if something is wrong, or an alert could not be delivered.
    """
    from creditrisk_assets.defs.external_watch import look
    from creditrisk_assets.monitoring.check_catalogue import BY_CHECK

    settings, home = settings_here(), home_folder()
    stop_on_signals()
    try:
        while True:
            seen = look(home, settings)
            if as_json:
                print_json(dataclasses.asdict(seen) | {"well": seen.well})
            else:
                for one in seen.findings:
                    what = (
                        f"[green]well[/green]: {one.check}"
                        if one.passed
                        else f"[red]wrong[/red]: {BY_CHECK[one.check].failure}"
                    )
                    console.print(f"{what}: {escape(one.summary)}", soft_wrap=True, highlight=False)
                console.print(f"alerts: {escape(seen.alerts)}", soft_wrap=True, highlight=False)
            if loop is None:
                break
            sys.stdout.flush()
            time.sleep(loop)
    except KeyboardInterrupt:
        return
    if not seen.well:
        raise typer.Exit(1)


def replay(
    decision_id: Annotated[str | None, typer.Argument(help="As the scores have it.")] = None,
    date: Annotated[
        datetime.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Every decision of this day instead."),
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
    with Progress(console=errors) as progress:
        bar = progress.add_task(day, total=sum(one.rows for one in sets))
        replayed = [
            replay_set(folder, bundles, one, lambda rows: progress.advance(bar, rows))
            for one in sets
        ]
    if as_json:
        print_json(
            {
                "sets": [
                    {**dataclasses.asdict(one), "decisions": one.decisions.model_dump()}
                    for one in replayed
                ]
            }
        )
    else:
        for one in replayed:
            place, version = _place(one.decisions.number), one.decisions.champion.model_version
            console.print(
                f"set {one.decisions.name}{place}: {one.rows:,} decisions by version {version} "
                f"made again, {one.different:,} differ",
                soft_wrap=True,
            )
    for one in replayed:
        for what in (one.problem, *one.differences):
            if what:
                errors.print(what, soft_wrap=True, highlight=False)
    if not all(one.exact for one in replayed):
        fail(f"decisions of {day} do not come out again")


def _place(number: int | None) -> str:
    """Which scoring of the day a set is; only the first decision on a record was acted on."""
    return (
        ""
        if number is None
        else " (first scoring)"
        if number == 1
        else f" (scoring {number}, beside the record)"
    )
