"""Backup of a store while it is in use, and its restoration at another place.

What refers to other records is copied before what it refers to, and records are never changed once
written, so a backup holds everything that it names: a ledger entry's bundle, a decision's set, an
event's frame. SQLite files are copied by SQLite itself, and the tables of a database in one
transaction. The manifest with the hash of each file is written last: without it there is no backup.
"""

import datetime
import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from creditrisk_assets import database
from creditrisk_assets.settings import Settings
from creditrisk_assets.storage import StoredPath, files_below, is_local, put_file, store_errors
from creditrisk_assets.store import IDENTITY, Identity, read_identity

MANIFEST = "backup.json"
FORMAT = 1
TABLES = "database"
"""Folder of the database's tables in a backup."""

PARTS = (
    "api/log/open",
    "api/log/sealed",
    "api",
    "dagster",
    "alerts",
    "mlflow",
    "ledger",
    "decisions",
    "storage",
    "reports",
    "quarantine",
    "policies",
    "models",
    "bundles",
    "landing",
)
"""Folders of a store in the order in which they are copied. Segments of the decision log move from
the first to the second, and from there into `decisions`.
"""

LEFT_OUT = ("api/run/", "api/champion/", "dagster/logs/", "dagster/workspace.yaml")
"""Places that processes make again."""

TEMPORARY = ("-wal", "-shm", "-journal", ".lock", ".crc")
KEYS_FILE = "api-keys.json"
SECRET_MODE = 0o600
BLOCK = 1 << 20

Shape = Literal["embedded", "served"]


class BackupError(RuntimeError):
    """The backup cannot be made or restored; the message has the place and what is valid."""


class StoredFile(BaseModel):
    """A file of a backup."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    bytes: int


class Manifest(BaseModel):
    """The content of a backup.

    Attributes:
        format: of the backup.
        release: version of this package.
        at: when it was finished, UTC.
        store: identity of the store.
        shape: `embedded` or `served`.
        files: by their path in the backup.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    release: str
    at: datetime.datetime
    store: Identity
    shape: Shape
    files: dict[str, StoredFile]


def shape_of(settings: Settings) -> Shape:
    """`served` if the store's records lie in a database, otherwise `embedded`."""
    return "embedded" if settings.database_url is None else "served"


def back_up(settings: Settings, target: StoredPath, on_file: Callable[[str], None]) -> Manifest:
    """Copy a store. Its processes may go on.

    Args:
        settings: of the store.
        target: new or empty folder, local or in an object store, outside the store.
        on_file: called with each file that was copied.

    Raises:
        BackupError: if the target is not empty, or there is no store.
        DatabaseError: if the database cannot be read.
        OSError: if a place cannot be read or written.
    """
    identity = read_identity(settings)
    if identity is None:
        raise BackupError(f"{settings.data_dir} is no store; valid: a CREDITRISK_DATA_DIR in use")
    if settings.database_url is None and not (settings.dagster_dir / "storage").is_dir():
        raise BackupError(
            f"{settings.dagster_dir} has no records of Dagster; valid: a dagster.yaml whose "
            "storage is that of the project"
        )
    own = [settings.data_dir, *(_place(settings, part) for part in PARTS)]
    at = _whole(target)
    if at == _whole(own[0]) or any(at.startswith(f"{_whole(folder)}/") for folder in own[1:]):
        raise BackupError(f"{target} is a part of the store; valid: a folder outside its own")
    if target.is_dir() and any(target.iterdir()):
        raise BackupError(f"{target} is not empty; valid: a new folder for each backup")
    files: dict[str, StoredFile] = {}
    with tempfile.TemporaryDirectory(prefix="creditrisk-") as scratch:
        if settings.database_url is not None:
            folder = Path(scratch) / TABLES
            database.export_tables(settings.database_url.get_secret_value(), folder)
            for name, table in files_below(folder).items():
                files[f"{TABLES}/{name}"] = _copy(table, target / TABLES / name)
        for name, source in _files(settings):
            try:
                files[name] = _copy(source, target / name, Path(scratch))
            except FileNotFoundError:
                continue  # a segment that was archived, or a file that was replaced, meanwhile
            on_file(name)
    manifest = Manifest(
        format=FORMAT,
        release=version("creditrisk"),
        at=datetime.datetime.now(datetime.UTC),
        store=identity,
        shape=shape_of(settings),
        files=files,
    )
    _write(target / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
    return manifest


def read_manifest(source: StoredPath) -> Manifest:
    """The manifest of a backup.

    Raises:
        BackupError: if there is none, or this release cannot read it.
    """
    try:
        with store_errors(source):
            manifest = Manifest.model_validate_json((source / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise BackupError(
            f"{source} has no {MANIFEST}: it is no backup, or one that was not finished"
        ) from error
    except ValidationError as error:
        raise BackupError(f"{source / MANIFEST} cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise BackupError(
            f"{source} has format {manifest.format}; valid for this release: {FORMAT}"
        )
    return manifest


def restore(settings: Settings, source: StoredPath, on_file: Callable[[str], None]) -> Manifest:
    """Make a store of a backup, under any path and in any bucket and database.

    The identity is written last, so what is restored in part is no store.

    Args:
        settings: of the new store; its data folder has no store, its database no tables in use.
        source: folder of the backup.
        on_file: called with each file that was restored.

    Raises:
        BackupError: if a file is missing or was changed, the place has a store, or the settings
            name a store of the other shape.
        DatabaseError: if the database cannot be written.
        OSError: if a place cannot be read or written.
    """
    manifest = read_manifest(source)
    _require_fits(settings, manifest)
    tables = {name for name in manifest.files if name.startswith(f"{TABLES}/")}
    names = sorted(manifest.files.keys() - tables, key=lambda name: (name == IDENTITY, name))
    with tempfile.TemporaryDirectory(prefix="creditrisk-") as scratch:
        for name in tables:
            _fetch(source, name, manifest.files[name], Path(scratch) / name)
        if settings.database_url is not None:
            url = settings.database_url.get_secret_value()
            database.import_tables(url, Path(scratch) / TABLES)
        for name in names:
            local = Path(scratch) / "file"
            _fetch(source, name, manifest.files[name], local)
            put_file(local, _place(settings, name))
            on_file(name)
    if KEYS_FILE in manifest.files:
        settings.api_keys.chmod(SECRET_MODE)
    return manifest


def _require_fits(settings: Settings, manifest: Manifest) -> None:
    shape = shape_of(settings)
    if manifest.shape != shape:
        raise BackupError(
            f"the backup is of a store in {manifest.shape} shape, and the settings name one in "
            f"{shape} shape; valid: the same shape, which CREDITRISK_DATABASE_URL decides"
        )
    if (settings.data_dir / IDENTITY).exists():
        raise BackupError(f"{settings.data_dir} has a store; valid: a new CREDITRISK_DATA_DIR")
    if manifest.store.portfolio != settings.portfolio.name:
        raise BackupError(
            f"the backup is of portfolio {manifest.store.portfolio!r}, and CREDITRISK_PORTFOLIO is "
            f"{settings.portfolio.name!r}; valid: the portfolio of the backup"
        )


def _files(settings: Settings) -> Iterator[tuple[str, StoredPath]]:
    """The files of a store with their path in a backup, in the order of their copies."""
    seen: set[str] = set()
    for part in PARTS:
        folder = _place(settings, part)
        if not folder.is_dir():
            continue
        for name, file in files_below(folder).items():
            path = f"{part}/{name}"
            if path not in seen and not _is_left_out(path):
                seen.add(path)
                yield path, file
    for file in settings.data_dir.iterdir():
        if file.is_file() and not _is_left_out(file.name):
            yield file.name, file


def _place(settings: Settings, name: str) -> StoredPath:
    """Where a file of a store lies: in the data folder, or on a disk of this machine."""
    first, _, rest = name.partition("/")
    local = {
        "api": settings.api_folder,
        "dagster": settings.dagster_dir,
        "alerts": settings.alerts,
        "mlflow": settings.mlflow_dir,
        KEYS_FILE: settings.api_keys,
    }
    place: StoredPath = local.get(first, settings.data_dir / first)
    return place / rest if rest else place


def _whole(place: StoredPath) -> str:
    """A place without links and relative parts, to compare it."""
    return str(place.resolve()).rstrip("/")


def _is_left_out(path: str) -> bool:
    name = path.rpartition("/")[2]
    return path.startswith(LEFT_OUT) or name.startswith(".") or name.endswith(TEMPORARY)


def _copy(source: StoredPath, target: StoredPath, scratch: Path | None = None) -> StoredFile:
    """Copy a file; a SQLite database as it is at one moment."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        whole = Path(folder) / "whole"
        if is_local(source) and source.suffix == ".db":
            with (
                closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as live,
                closing(sqlite3.connect(whole)) as copy,
            ):
                live.backup(copy)
            found = _stored_file(whole)
        else:
            with store_errors(source), source.open("rb") as read, whole.open("wb") as written:
                found = _transfer(read, written)
        put_file(whole, target)
    return found


def _fetch(source: StoredPath, name: str, expected: StoredFile, target: Path) -> None:
    """Copy a file of a backup, and compare it with the manifest."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with store_errors(source), (source / name).open("rb") as read, target.open("wb") as written:
            found = _transfer(read, written)
    except FileNotFoundError as error:
        raise BackupError(f"{source / name} is missing; the manifest names it") from error
    if found != expected:
        raise BackupError(
            f"{source / name} has SHA-256 {found.sha256}; valid: {expected.sha256}, that of the "
            "manifest"
        )


def _stored_file(path: Path) -> StoredFile:
    with path.open("rb") as file, Path(os.devnull).open("wb") as nowhere:
        return _transfer(file, nowhere)


def _transfer(source: IO[bytes], target: IO[bytes]) -> StoredFile:
    digest, size = hashlib.sha256(), 0
    while block := source.read(BLOCK):
        digest.update(block)
        target.write(block)
        size += len(block)
    return StoredFile(sha256=digest.hexdigest(), bytes=size)


def _write(path: StoredPath, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.write_bytes(content)
        put_file(file, path)
