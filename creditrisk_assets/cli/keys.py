"""The commands `creditrisk keys`: who may ask the API."""

import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table

keys_app = typer.Typer(help="Who may ask the API.", no_args_is_help=True)
console = Console()
errors = Console(stderr=True)

Result = TypeVar("Result")
NAME = Annotated[
    str, typer.Argument(help="Name of the caller; it stands in the log and beside each decision.")
]
EXPIRES = Annotated[
    int | None, typer.Option(min=1, help="Days that the key works; default: until it is revoked.")
]
JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@keys_app.command("create")
def create(
    name: NAME,
    scope: Annotated[list[str], typer.Option(help="predict, read or admin; may be repeated.")],
    expires_days: EXPIRES = None,
) -> None:
    """Make the first key of a new caller, and print it: this once, it is kept nowhere."""
    from serving.access.keys import SCOPES, create_key

    unknown = [one for one in scope if one not in SCOPES]
    if unknown:
        raise typer.BadParameter(f"scope {unknown[0]!r}; valid: {', '.join(SCOPES)}")
    scopes = [one for one in SCOPES if one in scope]
    _print_key(_done(lambda: create_key(_file(), name, scopes, _expiry(expires_days))), name)


@keys_app.command("rotate")
def rotate(name: NAME, expires_days: EXPIRES = None) -> None:
    """Add a second key to a caller, and print it. Revoke the first when nobody uses it any more."""
    from serving.access.keys import rotate_key

    _print_key(_done(lambda: rotate_key(_file(), name, _expiry(expires_days))), name)


@keys_app.command("revoke")
def revoke(
    name: NAME,
    key: Annotated[
        str | None, typer.Option(help="Id of one key, as `list` shows it; default: all.")
    ] = None,
) -> None:
    """End a caller's keys, or one of them. A running API knows within about a second."""
    from serving.access.keys import read_keys, revoke_keys

    ended = _done(lambda: revoke_keys(_file(), name, key))
    console.print(f"{name}: {', '.join(ended)} revoked", highlight=False)
    if not _done(lambda: read_keys(_file())).callers:
        errors.print(
            "[yellow]no keys are left:[/yellow] an API that runs refuses everybody; one that "
            "starts now asks nobody for a key, and listens on loopback only",
            soft_wrap=True,
        )


@keys_app.command("list")
def list_keys(as_json: JSON = False) -> None:
    """Callers, their scopes and their keys, without the secrets."""
    from serving.access.keys import read_keys

    callers = _done(lambda: read_keys(_file())).callers
    now = datetime.datetime.now(datetime.UTC)
    if as_json:
        document = {
            name: {
                "scopes": holder.scopes,
                "keys": [
                    key.model_dump(mode="json", exclude={"sha256"}) | {"live": key.is_live(now)}
                    for key in holder.keys
                ],
            }
            for name, holder in callers.items()
        }
        sys.stdout.write(json.dumps({"callers": document}, indent=2) + "\n")
        return
    table = Table("caller", "scopes", "key", "made", "works until")
    for name, holder in sorted(callers.items()):
        for key in holder.keys:
            until = "no end" if key.expires is None else f"{key.expires:%Y-%m-%d %H:%M}"
            table.add_row(
                name,
                ", ".join(holder.scopes),
                key.id,
                f"{key.created:%Y-%m-%d %H:%M}",
                until if key.is_live(now) else f"{until}, expired",
            )
    if callers:
        console.print(table)
    else:
        console.print(
            f"no keys in {_file()}: the API asks nobody for one, and listens on loopback only",
            soft_wrap=True,
        )


def _print_key(text: str, name: str) -> None:
    """The key alone on stdout, so that a script can take it."""
    errors.print(f"the key of {name}; it is shown this once:", highlight=False)
    sys.stdout.write(f"{text}\n")


def _expiry(days: int | None) -> datetime.datetime | None:
    if days is None:
        return None
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(
        days=days
    )


def _file() -> Path:
    from creditrisk_assets.settings import Settings

    return Settings().api_keys


def _done(what: Callable[[], Result]) -> Result:
    from serving.access.keys import KeysError

    try:
        return what()
    except KeysError as error:
        _fail(error)


def _fail(error: object) -> NoReturn:
    errors.print(f"[red]error:[/red] {error}", soft_wrap=True, highlight=False)
    raise typer.Exit(1)
