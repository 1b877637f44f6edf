"""Backup of a store while it is in use, and its restoration at another place, in either shape.

What refers to other records is copied before what it refers to, and records are never changed once
written, so a backup holds everything that it names: a ledger entry's bundle, a decision's set, an
event's frame. Tables are files of rows, the same from SQLite and from PostgreSQL; each database is
read in one transaction. The manifest with the hash of each file is written last: without it there
is no backup.
"""

import datetime
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from creditrisk_assets.backup import embedded, mlflow_records, served
from creditrisk_assets.backup.served import DAGSTER, MLFLOW
from creditrisk_assets.database import OWN_SCHEMA
from creditrisk_assets.settings import Settings
from creditrisk_assets.storage import StoredPath, files_below, put_file, store_errors
from creditrisk_assets.store import IDENTITY, UNFINISHED, Identity, read_identity

MANIFEST = "backup.json"
FORMAT = 2
TABLES = "tables"
"""Folder of the tables' rows in a backup."""

LOG_PARTS = ("api/log/open", "api/log/sealed")
"""Segments of the decision log move from the first to the second, and from there into `decisions`;
the index of idempotency keys is read after them.
"""

PARTS = (
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
    "episodes",
)
"""The other folders of a store, in the order in which they are copied."""

LOCAL_PARTS = ("api", "dagster", "alerts", "mlflow")
"""Those that always lie on a disk of this machine."""

ARTIFACTS = "mlflow/artifacts"
"""MLflow's artifacts in a backup, also those of a server."""

LEFT_OUT = (UNFINISHED, "api/run/", "api/champion/", "dagster/logs/", "dagster/workspace.yaml")
"""Places that processes make again."""

TEMPORARY = ("-wal", "-shm", "-journal", ".lock", ".crc", ".db")
"""Ends of the names of files that are not copied; the rows of databases are."""

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
        shape: that it had, `embedded` or `served`.
        has_mlflow: True if MLflow's records are in it; those of a server with a database of its own
            are not.
        files: by their path in the backup.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    release: str
    at: datetime.datetime
    store: Identity
    shape: Shape
    has_mlflow: bool
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
        MlflowUnavailable: if the MLflow server does not answer.
        OSError: if a place cannot be read or written.
    """
    identity = read_identity(settings)
    if identity is None:
        raise BackupError(f"{settings.data_dir} is no store; valid: a CREDITRISK_DATA_DIR in use")
    if settings.database_url is None and not _dagster_databases(settings).is_dir():
        raise BackupError(
            f"{settings.dagster_dir} has no records of Dagster; valid: a dagster.yaml whose "
            "storage is that of the project"
        )
    own = [settings.data_dir, *(_place(settings, part) for part in (*LOG_PARTS, *PARTS))]
    at = _whole(target)
    if at == _whole(own[0]) or any(at.startswith(f"{_whole(folder)}/") for folder in own[1:]):
        raise BackupError(f"{target} is a part of the store; valid: a folder outside its own")
    if target.is_dir() and any(target.iterdir()):
        raise BackupError(f"{target} is not empty; valid: a new folder for each backup")
    files: dict[str, StoredFile] = {}

    def copy(found: Iterator[tuple[str, StoredPath]], scratch: Path) -> None:
        for name, source in found:
            try:
                files[name] = _copy(source, target / name, scratch)
            except FileNotFoundError:
                continue  # a segment that was archived, or a file that was replaced, meanwhile
            on_file(name)

    with tempfile.TemporaryDirectory(prefix="creditrisk-") as folder:
        scratch = Path(folder)
        copy(_files(settings, LOG_PARTS), scratch)
        has_mlflow = _export(settings, scratch / "records")
        copy(iter(files_below(scratch / "records").items()), scratch)
        copy(_files(settings, PARTS), scratch)
        copy(_files_at_root(settings), scratch)
    manifest = Manifest(
        format=FORMAT,
        release=version("creditrisk"),
        at=datetime.datetime.now(datetime.UTC),
        store=identity,
        shape=shape_of(settings),
        has_mlflow=has_mlflow,
        files=files,
    )
    _write(target / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
    return manifest


def _export(settings: Settings, folder: Path) -> bool:
    """Write the tables' rows, the API keys of a database and the artifacts of an MLflow server,
    with their paths in a backup: True if MLflow's are among them.
    """
    tables, keys = folder / TABLES, None
    own_server = mlflow_records.has_own_schema(settings)
    if settings.database_url is None:
        embedded.export_own(settings.alerts, settings.idempotency_file, tables)
        embedded.export_dagster(_dagster_databases(settings), tables)
    else:
        url = settings.database_url.get_secret_value()
        schemas = [OWN_SCHEMA, DAGSTER, *([MLFLOW] if own_server else [])]
        served.export_tables(url, schemas, tables)
        keys = served.export_keys(url) if settings.api_keys_file is None else None
    if keys is not None:
        (folder / KEYS_FILE).write_text(keys)
    if own_server:
        mlflow_records.fetch_artifacts(settings.tracking_uri, folder / ARTIFACTS)
        return True
    file = mlflow_records.database_file(settings)
    if not mlflow_records.is_embedded(settings) or not file.is_file():
        return False
    neutral = mlflow_records.neutral_addresses(mlflow_records.stored_root(file))
    embedded.export_mlflow(file, tables, neutral)
    return True


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
    """Make a store of a backup, under any path, in any bucket and database, and in either shape.

    A mark of the unfinished restoration is written first and the identity last, so what is restored
    in part is no store.

    Args:
        settings: of the new store; nothing is there yet.
        source: folder of the backup.
        on_file: called with each file that was restored.

    Raises:
        BackupError: if a file is missing or was changed, or the place is not empty.
        DatabaseError: if the database is not empty or cannot be written.
        MlflowUnavailable: if the MLflow server does not answer.
        OSError: if a place cannot be read or written.
    """
    manifest = read_manifest(source)
    if manifest.store.portfolio != settings.portfolio.name:
        raise BackupError(
            f"the backup is of portfolio {manifest.store.portfolio!r}, and CREDITRISK_PORTFOLIO is "
            f"{settings.portfolio.name!r}; valid: the portfolio of the backup"
        )
    require_empty(settings, with_mlflow=manifest.has_mlflow)
    of_server = manifest.has_mlflow and not mlflow_records.is_embedded(settings)
    is_shared = settings.database_url is not None and settings.api_keys_file is None
    apart = {
        name
        for name in manifest.files
        if name.startswith(f"{TABLES}/")
        or (of_server and name.startswith(f"{ARTIFACTS}/"))
        or (is_shared and name == KEYS_FILE)
    }
    names = sorted(manifest.files.keys() - apart - {IDENTITY})
    for name in names:
        if (place := _place(settings, name)).exists():
            raise BackupError(f"{place} exists; valid: a place for it of the new store's own")
    _write(settings.data_dir / UNFINISHED, (manifest.store.model_dump_json() + "\n").encode())
    with tempfile.TemporaryDirectory(prefix="creditrisk-") as folder:
        scratch = Path(folder)
        for name in apart:
            _fetch(source, name, manifest.files[name], scratch / name)
        for name in names:
            _fetch(source, name, manifest.files[name], scratch / "file")
            put_file(scratch / "file", _place(settings, name))
            on_file(name)
        _import(settings, scratch, has_mlflow=manifest.has_mlflow)
        if KEYS_FILE in names:
            settings.api_keys.chmod(SECRET_MODE)
        _fetch(source, IDENTITY, manifest.files[IDENTITY], scratch / "file")
        put_file(scratch / "file", settings.data_dir / IDENTITY)
    (settings.data_dir / UNFINISHED).unlink()
    return manifest


def require_empty(settings: Settings, *, with_mlflow: bool = True) -> None:
    """Refuse a place that holds a store, or parts of one. The tables of a database are created.

    Args:
        settings: of the place.
        with_mlflow: True if MLflow's records come too.

    Raises:
        BackupError: with what is there.
        DatabaseError: if the database is not empty, or does not answer.
        MlflowUnavailable: if the MLflow server does not answer.
        OSError: if the data folder cannot be read.
    """
    place = settings.data_dir
    with store_errors(place):
        if (place / IDENTITY).exists():
            raise BackupError(f"{place} has a store; valid: a new CREDITRISK_DATA_DIR")
        local = LOCAL_PARTS if settings.database_url is None else ()
        found = [
            part
            for part in PARTS
            if (part in local or part not in LOCAL_PARTS) and _has_files(_place(settings, part))
        ]
        if (place / UNFINISHED).exists():
            raise BackupError(
                f"{place} has {', '.join([UNFINISHED, *found])} of a restoration that did not end; "
                "valid: a new place; remove what is there and run the command again"
            )
    if found:
        raise BackupError(f"{place} has {', '.join(found)}; valid: an empty CREDITRISK_DATA_DIR")
    if settings.database_url is not None:
        schemas = [OWN_SCHEMA, DAGSTER]
        if with_mlflow and not mlflow_records.is_embedded(settings):
            schemas.append(MLFLOW)
        served.require_empty(settings.database_url.get_secret_value(), schemas)
    if (
        with_mlflow
        and not mlflow_records.is_embedded(settings)
        and not mlflow_records.has_own_schema(settings)
    ):
        raise BackupError(
            f"the MLflow server {settings.tracking_uri} has its records elsewhere; valid: a server "
            f"whose --backend-store-uri is the schema {MLFLOW} of CREDITRISK_DATABASE_URL, or no "
            "MLFLOW_TRACKING_URI for an embedded store"
        )


def _has_files(folder: StoredPath) -> bool:
    return folder.is_dir() and any(True for _ in files_below(folder))


def _import(settings: Settings, scratch: Path, *, has_mlflow: bool) -> None:
    """Make the databases of rows, and send the artifacts of an MLflow server."""
    tables, made = scratch / TABLES, scratch / "made"
    schemas = [OWN_SCHEMA, DAGSTER]
    change = mlflow_records.placed_addresses(mlflow_records.PROXIED)
    if has_mlflow and mlflow_records.is_embedded(settings):
        file = made / "mlflow.db"
        made.mkdir()
        mlflow_records.make_database(file)
        root = mlflow_records.embedded_root(settings)
        embedded.import_mlflow(tables, file, mlflow_records.placed_addresses(root))
        put_file(file, mlflow_records.database_file(settings))
    elif has_mlflow:
        schemas.append(MLFLOW)
        if (scratch / ARTIFACTS).is_dir():
            mlflow_records.send_artifacts(settings.tracking_uri, scratch / ARTIFACTS)
    if settings.database_url is not None:
        keys = scratch / KEYS_FILE
        text = keys.read_text() if keys.is_file() else None
        url = settings.database_url.get_secret_value()
        served.import_tables(url, schemas, tables, text, change)
        return
    embedded.import_own(tables, made / "alerts", made / "idempotency.db")
    put_file(made / "idempotency.db", settings.idempotency_file)
    embedded.import_dagster(tables, made / "dagster")
    for folder, place in (
        (made / "alerts", settings.alerts),
        (made / "dagster", _dagster_databases(settings)),
    ):
        for name, one in files_below(folder).items():
            put_file(Path(str(one)), place / name)
    shutil.rmtree(made)


def _dagster_databases(settings: Settings) -> Path:
    return settings.dagster_dir / "storage"


def _files(settings: Settings, parts: tuple[str, ...]) -> Iterator[tuple[str, StoredPath]]:
    """The files of a store's folders with their path in a backup, in the order of their copies."""
    for part in parts:
        folder = _place(settings, part)
        if not folder.is_dir():
            continue
        for name, file in files_below(folder).items():
            path = f"{part}/{name}"
            if not _is_left_out(path) and (parts == LOG_PARTS or not path.startswith(LOG_PARTS)):
                yield path, file


def _files_at_root(settings: Settings) -> Iterator[tuple[str, StoredPath]]:
    """Files of the data folder itself, and the file of API keys unless a database has them."""
    for file in settings.data_dir.iterdir():
        if file.is_file() and not _is_left_out(file.name) and file.name != KEYS_FILE:
            yield file.name, file
    if (settings.database_url is None or settings.api_keys_file) and settings.api_keys.is_file():
        yield KEYS_FILE, settings.api_keys


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


def _copy(source: StoredPath, target: StoredPath, scratch: Path) -> StoredFile:
    whole = scratch / "whole"
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
