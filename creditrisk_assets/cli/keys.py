"""The commands `creditrisk keys`: the callers of the API and their keys."""

import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.table import Table

from creditrisk_assets.cli.common import JSON, console, errors, fail, print_json, settings_here

keys_app = typer.Typer(help="The callers of the API and their keys.", no_args_is_help=True)

Result = TypeVar("Result")
NAME = Annotated[
    str, typer.Argument(help="Name of the caller, which the log and each decision record.")
]
EXPIRES = Annotated[
    int | None, typer.Option(min=1, help="Days that the key works; default: until it is revoked.")
]


@keys_app.command("create")
def create(
    name: NAME,
    scope: Annotated[
        list[str], typer.Option(help="predict, read, acknowledge or admin; may be repeated.")
    ],
    expires_days: EXPIRES = None,
) -> None:
    """Make the first key of a new caller, and print it. It is not stored, so it is shown once."""
    from serving.access.keys import SCOPES, create_key

    unknown = [name for name in scope if name not in SCOPES]
    if unknown:
        raise typer.BadParameter(f"scope {unknown[0]!r}; valid: {', '.join(SCOPES)}")
    scopes = [name for name in SCOPES if name in scope]
    _print_key(_result_of(lambda file: create_key(file, name, scopes, _expiry(expires_days))), name)


@keys_app.command("rotate")
def rotate(name: NAME, expires_days: EXPIRES = None) -> None:
    """Add a second key to a caller, and print it. Revoke the first when it is no longer used."""
    from serving.access.keys import rotate_key

    _print_key(_result_of(lambda file: rotate_key(file, name, _expiry(expires_days))), name)


@keys_app.command("revoke")
def revoke(
    name: NAME,
    key: Annotated[
        str | None, typer.Option(help="Id of one key, as `list` shows it; default: all.")
    ] = None,
) -> None:
    """Revoke a caller's keys, or one of them. A running API notices within about a second."""
    from serving.access.keys import read_keys, revoke_keys

    ended = _result_of(lambda file: revoke_keys(file, name, key))
    console.print(f"{name}: {', '.join(ended)} revoked", highlight=False)
    if not _result_of(read_keys).callers:
        errors.print(
            "[yellow]no keys are left:[/yellow] a running API refuses every caller; an API that "
            "starts now needs no key and listens on loopback only",
            soft_wrap=True,
        )


@keys_app.command("list")
def list_keys(as_json: JSON = False) -> None:
    """List callers, their scopes and their keys, without the secrets."""
    from serving.access.keys import read_keys

    callers = _result_of(read_keys).callers
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
        print_json({"callers": document})
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
            f"no keys in {_place()}: the API needs none and listens on loopback only",
            soft_wrap=True,
        )


def _print_key(text: str, name: str) -> None:
    """Print the key alone on stdout, for scripts."""
    errors.print(f"the key of {name}; it is shown this once:", highlight=False)
    sys.stdout.write(f"{text}\n")


def _expiry(days: int | None) -> datetime.datetime | None:
    if days is None:
        return None
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(
        days=days
    )


def _place() -> str:
    """The place of the keys, in words."""
    from serving.access.shared_keys_file import is_shared

    settings = settings_here()
    return "the database" if is_shared(settings) else str(settings.api_keys)


def _result_of(action: Callable[[Path], Result]) -> Result:
    """The result of an action on the file of keys; a KeysError ends the command."""
    from serving.access.keys import KeysError
    from serving.access.shared_keys_file import keys_file

    try:
        with keys_file(settings_here()) as file:
            return action(file)
    except KeysError as error:
        fail(error)
