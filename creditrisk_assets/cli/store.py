"""The commands about a store as a whole: `creditrisk backup`, `creditrisk restore` and `creditrisk
store check`.
"""

import secrets
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from creditrisk_assets.cli.common import (
    JSON,
    console,
    fail,
    open_instance_here,
    print_json,
    settings_here,
)

store_app = typer.Typer(help="The store as a whole.", no_args_is_help=True)

PLACE = Annotated[str, typer.Argument(help="Folder, or address such as `s3://bucket/backups/1`.")]


def backup(target: PLACE) -> None:
    """Copy the store to a new folder, while its processes run."""
    from creditrisk_assets.backup import BackupError, back_up
    from creditrisk_assets.database import DatabaseError
    from creditrisk_assets.storage import zone_path

    settings = settings_here()
    with console.status("copying") as shown:
        try:
            manifest = back_up(
                settings, zone_path(target), lambda name: shown.update(escape(f"copied {name}"))
            )
        except (BackupError, DatabaseError) as error:
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
    from creditrisk_assets import backup as backups
    from creditrisk_assets.database import DatabaseError
    from creditrisk_assets.decisions.replay import replay_sample
    from creditrisk_assets.defs import champion_commands, champion_records
    from creditrisk_assets.registry import Registry
    from creditrisk_assets.scoring.bundle_store import BundleStore
    from creditrisk_assets.storage import zone_path

    settings = settings_here()
    with console.status("copying") as shown:
        try:
            manifest = backups.restore(
                settings, zone_path(source), lambda name: shown.update(escape(f"restored {name}"))
            )
        except (backups.BackupError, DatabaseError) as error:
            fail(error)
        except OSError as error:
            fail(f"{source} could not be restored: {error}")
    console.print(f"store {manifest.store.id} of {manifest.at:%Y-%m-%d %H:%M:%S} UTC is restored")
    Registry(settings).prepare()
    with open_instance_here() as instance:
        if not any(name.startswith("ledger/") for name in manifest.files):
            console.print("it had no champion yet")
            return
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
    if not all(one.holds for one in findings) or not all(one.exact for one in replayed):
        raise typer.Exit(1)


@store_app.command("check")
def check(as_json: JSON = False) -> None:
    """Say what shape the store has, where its parts lie, and whether they belong together."""
    from creditrisk_assets.cli.common import home_folder
    from creditrisk_assets.defs.status import open_instance
    from creditrisk_assets.defs.store_parts import parts_of

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
