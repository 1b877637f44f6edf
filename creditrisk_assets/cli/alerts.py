"""The commands `creditrisk alerts`: the episodes of alarms, their acknowledgement and snooze, and a
test of the receivers.
"""

import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from creditrisk_assets.cli.common import JSON, console, fail, print_json, settings_here

if TYPE_CHECKING:
    from creditrisk_assets.monitoring.episodes import Acknowledgement, EpisodeRecord, Snooze

alerts_app = typer.Typer(help="The episodes of alarms, and the receivers of alerts.")

EPISODE = Annotated[
    str, typer.Argument(help="Id of an episode, or its first characters, as `list` shows them.")
]
BY = Annotated[str, typer.Option(help="Name of the person.")]
REASON = Annotated[str, typer.Option(help="The reason, as one line of text.")]
ID_SHOWN = 8
CLOSED_SHOWN = 20


@alerts_app.callback(invoke_without_command=True)
def alerts(context: typer.Context, as_json: JSON = False) -> None:
    """List the episodes of alarms: the open ones, and the last closed ones."""
    if context.invoked_subcommand is None:
        _list(as_json)


@alerts_app.command("list")
def list_alerts(as_json: JSON = False) -> None:
    """List the episodes of alarms: the open ones, and the last closed ones."""
    _list(as_json)


@alerts_app.command()
def acknowledge(episode: EPISODE, by: BY, reason: REASON, as_json: JSON = False) -> None:
    """Acknowledge an open episode: it sends no reminders any more. It still sends an alert when it
    becomes more urgent, and when it ends.
    """
    from creditrisk_assets.monitoring.episodes import Acknowledgement

    _react(episode, by, Acknowledgement, {"reason": reason}, as_json)


@alerts_app.command()
def snooze(
    episode: EPISODE,
    days: Annotated[float, typer.Option(help="Days from now, at most 30.")],
    by: BY,
    reason: REASON,
    as_json: JSON = False,
) -> None:
    """Snooze an open episode: it sends no reminders for some days."""
    from creditrisk_assets.monitoring.episodes import Snooze

    _react(episode, by, Snooze, {"reason": reason, "days": days}, as_json)


@alerts_app.command("test")
def send_test(
    receiver: Annotated[
        str | None, typer.Option(help="Name of one receiver; default: all.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Send the beginning and the end of a test alarm to each receiver of the settings. Exit code 1
    if one did not take them.
    """
    from creditrisk_assets.monitoring.receiver_trial import send_test_alarm
    from creditrisk_assets.monitoring.receivers import RoutesError, receivers_of

    settings = settings_here()
    try:
        receivers = receivers_of(settings)
    except RoutesError as error:
        fail(escape(str(error)))
    if not receivers:
        fail(
            "there is no receiver of alerts; valid: CREDITRISK_ALERT_WEBHOOK, or receivers in the "
            "file of CREDITRISK_ALERT_ROUTES"
        )
    chosen = [one for one in receivers if receiver in (None, one.name)]
    if not chosen:
        names = ", ".join(one.name for one in receivers)
        fail(escape(f"no receiver {receiver!r}; valid: {names}"))
    results = send_test_alarm(chosen, settings.api_url)
    if as_json:
        print_json({"receivers": [one._asdict() for one in results]})
    else:
        for one in results:
            state = f"[green]{one.state}[/green]" if one.arrived else f"[red]{one.state}[/red]"
            problem = f": {escape(one.problem)}" if one.problem else ""
            console.print(
                f"{one.name} ({one.kind}, {escape(one.place)}): {state}{problem}",
                soft_wrap=True,
                highlight=False,
            )
    if not all(one.arrived for one in results):
        raise typer.Exit(1)


def _list(as_json: bool) -> None:
    episodes = _episodes()
    if as_json:
        print_json({"episodes": [one.model_dump(mode="json") for one in episodes]})
        return
    if not episodes:
        console.print("no alarm yet")
        return
    table = Table("episode", "opened", "urgency", "what is wrong", "state")
    closed = 0
    for one in episodes:
        closed += one.state == "closed"
        if closed <= CLOSED_SHOWN:
            table.add_row(
                one.id[:ID_SHOWN],
                one.opened_day,
                one.tier,
                escape(f"{one.failure} [{one.check}]"),
                escape(_state(one)),
            )
    console.print(table)


def _state(one: "EpisodeRecord") -> str:
    """The state of an episode, in words."""
    if one.closed_at is not None:
        return f"closed {_time(one.closed_at)}: {one.closed_by}"
    parts = ["open" if one.failures == 1 else f"open, {one.failures} failures"]
    if one.acknowledged_at is not None:
        who = f"{one.acknowledged_by} {_time(one.acknowledged_at)}"
        parts.append(f"acknowledged by {who}: {one.acknowledged_reason}")
    if one.snoozed_until is not None:
        parts.append(f"snoozed until {_time(one.snoozed_until)}")
    return "; ".join(parts)


def _time(at: float) -> str:
    return f"{datetime.datetime.fromtimestamp(at, datetime.UTC):%Y-%m-%d %H:%M} UTC"


def _episodes() -> "tuple[EpisodeRecord, ...]":
    from pydantic import ValidationError

    from creditrisk_assets.monitoring.episodes import EPISODES_FILE, read_episodes

    settings = settings_here()
    try:
        return read_episodes(settings.episodes)
    except ValidationError as error:
        fail(escape(f"{settings.episodes / EPISODES_FILE} cannot be read: {error}"))


def _react(
    text: str,
    by: str,
    kind: "type[Acknowledgement | Snooze]",
    values: dict[str, object],
    as_json: bool,
) -> None:
    from pydantic import TypeAdapter, ValidationError

    from creditrisk_assets.monitoring.episodes import (
        EpisodeError,
        PersonName,
        Reaction,
        first_problem,
        matching_episode,
        react,
    )

    episodes = _episodes()
    try:
        person = TypeAdapter(dict[str, PersonName]).validate_python({"by": by})["by"]
        reaction = Reaction.of(kind.model_validate(values), person, "command")
        identity = matching_episode(episodes, text)
        record = react(settings_here().episodes, identity, reaction)
    except ValidationError as error:
        raise typer.BadParameter(first_problem(error)) from error
    except EpisodeError as error:
        fail(escape(str(error)))
    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        console.print(
            f"{identity}: {escape(record.failure)}: {escape(_state(record))}",
            soft_wrap=True,
            highlight=False,
        )
