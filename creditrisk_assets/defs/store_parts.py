"""The parts of a store, the place of each, and whether they belong together."""

from collections.abc import Callable
from typing import NamedTuple

import dagster as dg
import sqlalchemy as sa

from creditrisk_assets import database
from creditrisk_assets.backup.copies import shape_of
from creditrisk_assets.defs.champion_records import registry_of
from creditrisk_assets.defs.store_mark import mark_of
from creditrisk_assets.governance.ledger import Ledger, LedgerError
from creditrisk_assets.monitoring.receivers import RoutesError, receivers_of
from creditrisk_assets.settings import Settings
from creditrisk_assets.store import Identity, StoreMismatch, mark_of_folder, read_identity


class Part(NamedTuple):
    """A part of a store: its name, its place, its state in words, and whether that is right."""

    name: str
    place: str
    state: str
    holds: bool


def parts_of(settings: Settings, open_instance: Callable[[], dg.DagsterInstance]) -> list[Part]:
    """The parts of the settings' store. Their records are not changed.

    Args:
        settings: of the store.
        open_instance: opens its Dagster instance.
    """
    place = str(settings.data_dir)
    try:
        identity = read_identity(settings)
    except (StoreMismatch, OSError) as error:
        return [Part("data folder", place, str(error), False)]
    if identity is None:
        return [Part("data folder", place, "no store yet; `creditrisk init` makes one", False)]
    about = f"store {identity.id} of portfolio {identity.portfolio}, {shape_of(settings)} shape"
    parts = [Part("data folder", place, about, True), _ledger(settings)]
    if settings.database_url is not None:
        parts.append(_database(settings.database_url.get_secret_value()))
    parts += [_dagster(identity, open_instance), _mlflow(settings, identity)]
    folder = settings.api_folder
    parts.append(_marked("API", str(folder), mark_of_folder(folder), identity))
    return [*parts, _alerts(settings)]


def _ledger(settings: Settings) -> Part:
    place = str(settings.ledger)
    try:
        entries = Ledger(settings.ledger).entries()
    except (LedgerError, OSError) as error:
        return Part("ledger", place, str(error), False)
    if not entries:
        return Part("ledger", place, "no champion yet", True)
    version = entries[-1].after.model_version
    return Part("ledger", place, f"{len(entries)} entries, version {version} in force", True)


def _database(url: str) -> Part:
    place = sa.make_url(url).render_as_string()
    try:
        problem = database.migration_problem(url)
    except database.DatabaseError as error:
        return Part("database", place, str(error), False)
    return Part("database", place, problem or "tables of this release", problem is None)


def _dagster(identity: Identity, open_instance: Callable[[], dg.DagsterInstance]) -> Part:
    try:
        with open_instance() as instance:
            kind = type(instance.run_storage).__name__.removesuffix("RunStorage")
            place = f"{instance.root_directory}, {kind}"
            return _marked("Dagster", place, mark_of(instance), identity)
    except (sa.exc.SQLAlchemyError, OSError) as error:
        return Part("Dagster", "", f"cannot be read: {error!s:.200}", False)


def _mlflow(settings: Settings, identity: Identity) -> Part:
    from creditrisk_assets.registry import RegistryError

    place = settings.tracking_uri
    try:
        return _marked("MLflow", place, registry_of(settings).store_mark(), identity)
    except RegistryError as error:
        return Part("MLflow", place, str(error), False)


def _alerts(settings: Settings) -> Part:
    """The receivers of alerts; `creditrisk alerts test` tries to reach them."""
    place = str(settings.alert_routes or "")
    try:
        receivers = receivers_of(settings)
    except RoutesError as error:
        return Part("alerts", place, str(error), False)
    names = ", ".join(f"{one.name} ({one.kind})" for one in receivers)
    return Part("alerts", place, names or "no receiver", True)


def _marked(name: str, place: str, mark: str | None, identity: Identity) -> Part:
    if mark is None:
        return Part(name, place, "not used by this store yet", True)
    if mark != identity.id:
        return Part(name, place, f"belongs to store {mark}; valid: {identity.id}", False)
    return Part(name, place, "belongs to this store", True)
