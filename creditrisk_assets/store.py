"""The identity of a store: the data folder, Dagster instance, MLflow registry and API folder that
belong together.

`store.json` in the data folder holds the identity: an id, the portfolio, and the format's version.
Each other place with state of the store carries the id too. Every process compares the ids before
it reads or writes, so two stores are never mixed. `defs.store_mark` and `registry` set the marks in
Dagster and MLflow.
"""

import uuid

from pydantic import BaseModel, ConfigDict, ValidationError

from creditrisk_assets.settings import Settings
from creditrisk_assets.storage import StoredPath, create_file, is_local, store_errors

FORMAT = 1
"""Version of a store's layout and file formats. A release that changes it documents the
migration.
"""

IDENTITY = "store.json"
UNFINISHED = "restoring.json"
"""Mark of a data folder that is being restored; it goes when the identity is there."""

STORE_FOLDERS = ("ledger", "decisions", "storage")
"""Folders that only a store has: a data folder with one and without identity is a partial store."""


class StoreMismatch(RuntimeError):
    """The places belong to different stores, or this release or portfolio cannot use the store."""


class Identity(BaseModel):
    """The identity of a store.

    Attributes:
        id: random; it never changes.
        portfolio: name of the portfolio.
        format: of its files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    portfolio: str
    format: int


def open_store(settings: Settings) -> Identity:
    """The identity of the settings' store; a new data folder gets one.

    Raises:
        StoreMismatch: if the store is of another portfolio or format, or its parts belong to
            different stores.
        OSError: if the data folder cannot be read, or is new and cannot be written.
    """
    found = read_identity(settings)
    if found is None:
        _require_no_partial_store(settings.data_dir)
        new = Identity(id=uuid.uuid4().hex, portfolio=settings.portfolio.name, format=FORMAT)
        try:
            create_file(settings.data_dir / IDENTITY, _content(new))
        except FileExistsError:
            return open_store(settings)  # another process was first
        found = new
    if not is_local(settings.data_dir):
        claim_folder(settings.local_dir, found)
    return found


def read_identity(settings: Settings) -> Identity | None:
    """The identity of the settings' store; None while it is empty. Writes nothing.

    Raises:
        StoreMismatch: if the store is of another portfolio or format.
        OSError: if the data folder cannot be read.
    """
    found = _read(settings.data_dir / IDENTITY)
    if found is None:
        return None
    place = settings.data_dir
    if found.format != FORMAT:
        raise StoreMismatch(
            f"store {place} has format {found.format}; valid for this release: {FORMAT}"
        )
    if found.portfolio != settings.portfolio.name:
        raise StoreMismatch(
            f"store {place} is of portfolio {found.portfolio!r} and CREDITRISK_PORTFOLIO is "
            f"{settings.portfolio.name!r}; valid: the portfolio of the store, or another "
            f"CREDITRISK_DATA_DIR for {settings.portfolio.name!r}"
        )
    return found


def claim_folder(folder: StoredPath, identity: Identity) -> None:
    """Mark another folder of a store, or check its mark.

    Raises:
        StoreMismatch: if it belongs to another store.
    """
    marked = _read(folder / IDENTITY)
    if marked is None:
        try:
            create_file(folder / IDENTITY, _content(identity))
        except FileExistsError:
            return claim_folder(folder, identity)
        return None
    return require_same(f"folder {folder}", marked.id, identity)


def mark_of_folder(folder: StoredPath) -> str | None:
    """Id of the store that a folder belongs to, or None.

    Raises:
        StoreMismatch: if its mark cannot be read.
    """
    found = _read(folder / IDENTITY)
    return None if found is None else found.id


def require_same(place: str, marked: str, identity: Identity) -> None:
    """Compare the mark of a place with a store.

    Args:
        place: the place, in words.
        marked: the id that it carries.
        identity: of the store.

    Raises:
        StoreMismatch: if they differ.
    """
    if marked != identity.id:
        raise StoreMismatch(
            f"{place} belongs to store {marked}, and CREDITRISK_DATA_DIR names store "
            f"{identity.id}; valid: each store with a Dagster instance, an MLflow registry and "
            "folders of its own"
        )


def _require_no_partial_store(data_dir: StoredPath) -> None:
    with store_errors(data_dir):
        leftovers = [
            name
            for name in STORE_FOLDERS
            if (data_dir / name).is_dir() and any((data_dir / name).iterdir())
        ]
        if (data_dir / UNFINISHED).exists():
            leftovers.insert(0, UNFINISHED)
    if leftovers:
        raise StoreMismatch(
            f"{data_dir} holds {', '.join(leftovers)} and no {IDENTITY}; valid: a whole store of "
            f"format {FORMAT}, or a new folder"
        )


def _content(identity: Identity) -> bytes:
    return (identity.model_dump_json(indent=2) + "\n").encode()


def _read(path: StoredPath) -> Identity | None:
    try:
        with store_errors(path):
            return Identity.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise StoreMismatch(f"{path} is not the identity of a store: {error}") from error
