"""The commands about a store as a whole: `creditrisk backup`, `creditrisk restore`, `creditrisk
store check` and `creditrisk store move`.
"""

import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from creditrisk_assets.cli.common import (
    JSON,
    console,
    fail,
    home_folder,
    open_instance_here,
    print_json,
    settings_here,
)

store_app = typer.Typer(help="The store as a whole.", no_args_is_help=True)

PLACE = Annotated[str, typer.Argument(help="Folder, or address such as `s3://bucket/backups/1`.")]


def backup(target: PLACE) -> None:
    """Copy the store to a new folder, while its processes run."""
    _back_up(settings_here(), target)


def _back_up(settings: Any, target: str) -> None:
    from creditrisk_assets.backup.copies import BackupError, back_up
    from creditrisk_assets.backup.mlflow_records import MlflowUnavailable
    from creditrisk_assets.database import DatabaseError
    from creditrisk_assets.storage import zone_path

    with console.status("copying") as shown:
        try:
            manifest = back_up(
                settings, zone_path(target), lambda name: shown.update(escape(f"copied {name}"))
            )
        except (BackupError, DatabaseError, MlflowUnavailable) as error:
            fail(error)
        except OSError as error:  # some libraries name no place
            fail(f"the store could not be copied to {target}: {error}")
    size = sum(file.bytes for file in manifest.files.values())
    console.print(
        f"store {manifest.store.id} ({manifest.shape}): {len(manifest.files):,} files, "
        f"{size / 1e6:,.1f} MB in {target}",
        soft_wrap=True,
    )


def restore(source: PLACE) -> None:
    """Make a new store of a backup, where the settings say, and verify it: the champion's records,
    and a sample of its decisions.
    """
    from creditrisk_assets.backup import copies
    from creditrisk_assets.backup.mlflow_records import MlflowUnavailable
    from creditrisk_assets.database import DatabaseError
    from creditrisk_assets.decisions.replay import replay_sample
    from creditrisk_assets.defs import champion_commands, champion_records
    from creditrisk_assets.registry import Registry
    from creditrisk_assets.scoring.bundle_store import BundleStore
    from creditrisk_assets.storage import zone_path

    settings = settings_here()
    with console.status("copying") as shown:
        try:
            manifest = copies.restore(
                settings, zone_path(source), lambda name: shown.update(escape(f"restored {name}"))
            )
        except (copies.BackupError, DatabaseError, MlflowUnavailable) as error:
            fail(error)
        except OSError as error:
            fail(f"{source} could not be restored: {error}")
    console.print(f"store {manifest.store.id} of {manifest.at:%Y-%m-%d %H:%M:%S} UTC is restored")
    Registry(settings).prepare()
    is_whole = _print_parts(settings)
    with open_instance_here() as instance:
        if not any(name.startswith("ledger/") for name in manifest.files):
            console.print("it had no champion yet")
            raise typer.Exit(0 if is_whole else 1)
        champion_commands.align(instance, settings)
        findings = champion_records.verify(instance, settings, every_version=True)
    bundles = BundleStore(settings.data_dir)
    replayed = replay_sample(settings.decisions, bundles, secrets.randbits(32))
    for one in findings:
        console.print(
            f"{'holds' if one.holds else 'does not hold'}: {one.claim}: {one.observed}",
            soft_wrap=True,
            highlight=False,
        )
    rows, different = sum(one.rows for one in replayed), sum(one.different for one in replayed)
    console.print(f"replay of a sample: {rows:,} decisions, {different} differ")
    if (
        not is_whole
        or not all(one.holds for one in findings)
        or not all(one.exact for one in replayed)
    ):
        raise typer.Exit(1)


def _print_parts(settings: Any) -> bool:
    """Print where the parts of a store are, a line each: True if they belong together."""
    from creditrisk_assets.defs.status import open_instance
    from creditrisk_assets.defs.store_parts import parts_of

    parts = parts_of(settings, lambda: open_instance(home_folder()))
    for part in parts:
        console.print(
            f"{'holds' if part.holds else 'does not hold'}: {part.name} {part.place}: {part.state}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    return all(part.holds for part in parts)


@store_app.command("check")
def check(
    as_json: JSON = False,
    is_empty: Annotated[
        bool,
        typer.Option("--empty", help="Say instead whether a backup could be restored here."),
    ] = False,
) -> None:
    """Say what shape the store has, where its parts lie, and whether they belong together."""
    from creditrisk_assets.defs.status import open_instance
    from creditrisk_assets.defs.store_parts import parts_of

    if is_empty:
        _require_empty()
        return
    parts = parts_of(settings_here(), lambda: open_instance(home_folder()))
    if as_json:
        print_json({"parts": [part._asdict() for part in parts]})
    else:
        table = Table("part", "place", "state")
        for part in parts:
            state = escape(part.state)
            table.add_row(
                part.name, escape(part.place), state if part.holds else f"[red]{state}[/red]"
            )
        console.print(table)
    if not all(part.holds for part in parts):
        raise typer.Exit(1)


def _require_empty() -> None:
    from creditrisk_assets.backup.copies import BackupError, require_empty
    from creditrisk_assets.backup.mlflow_records import MlflowUnavailable
    from creditrisk_assets.database import DatabaseError

    settings = settings_here()
    try:
        require_empty(settings)
    except (BackupError, DatabaseError, MlflowUnavailable) as error:
        fail(escape(str(error)))
    except OSError as error:
        fail(escape(f"{settings.data_dir} cannot be read: {error}"))


@store_app.command()
def move(
    to: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="File of the new place's settings, one NAME=value a line, as `.env` has them.",
        ),
    ],
) -> None:
    """Copy the store to a new place, which may have the other shape, and verify it there. The store
    of the present settings stays as it is.
    """
    from creditrisk_assets.defs.moving import environment_of, obstacles

    environment = environment_of(to, os.environ)
    settings = settings_here()
    with open_instance_here() as instance:
        found = obstacles(settings, instance)
    if found:
        fail(escape("; ".join(found)))
    if _run(environment, "store", "check", "--empty"):
        raise typer.Exit(1)
    with tempfile.TemporaryDirectory(prefix="creditrisk-move-") as folder:
        _back_up(settings, f"{folder}/backup")
        code = _run(environment, "restore", f"{folder}/backup")
    if code:
        fail(
            escape(
                f"the move did not succeed; the store in {settings.data_dir} is unchanged. Remove "
                f"what is at the new place, or name another one in {to}, and run it again"
            )
        )
    console.print(
        f"the store was moved; put the settings of {to} into .env, and remove those of "
        "CREDITRISK_DATA_DIR, CREDITRISK_DATABASE_URL and MLFLOW_TRACKING_URI that it does not "
        "have. Nothing may use the store at the old place any more",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _run(environment: dict[str, str], *arguments: str) -> int:
    """Run a command of this program with other settings: its exit code."""
    command = [sys.executable, "-m", "creditrisk_assets.cli.main", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode
