"""Names and writes files on a disk or in an object store, so that a file is whole or absent.

Every function takes local paths and those of any store that fsspec supports. The contents of the
files belong in other modules.
"""

import hashlib
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeGuard

from upath import UPath

StoredPath = UPath | Path
"""A local path, or one in a store."""

ABANDONED_SECONDS = 24 * 3600
"""Longer than any run."""

STORE_LIBRARIES = ("aiobotocore", "aiohttp", "botocore")
"""Their errors are no `OSError`, but mean the same: the store did not answer, or refused."""


def zone_path(place: str | os.PathLike[str] | UPath) -> UPath:
    """A place by its path or URI. Its listings are not cached, so that landed files appear at once.

    Args:
        place: a local path, a `file://` URI, or a URI such as `s3://bucket/prefix`.

    Raises:
        ValueError: if no library supports the URI's protocol.
    """
    path = UPath(place)
    if path.protocol in ("", "file", "local"):
        return UPath(path.path)
    return UPath(path, use_listings_cache=False)


def is_local(path: StoredPath) -> TypeGuard[Path]:
    """True if a path is in this machine's file system."""
    return isinstance(path, Path)


@contextmanager
def store_errors(place: StoredPath) -> Iterator[None]:
    """Turn the errors of a store's library into an `OSError` that names the place."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.split(".")[0] not in STORE_LIBRARIES:
            raise
        raise OSError(f"{place}: {type(error).__name__}: {error}") from error


def file_sha256(path: StoredPath) -> str:
    """SHA-256 of a file, which is read piece by piece.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # stores' files have readinto


@contextmanager
def replacing(path: StoredPath) -> Iterator[IO[bytes]]:
    """Write a file so that it appears whole or not at all.

    A local file is synced to the disk before it gets its name. A file in a store is sent in one
    request when it is complete.
    """
    if is_local(path):
        with _replacing_local(path) as file:
            yield file
        return
    with tempfile.TemporaryDirectory(prefix="creditrisk-") as folder:
        whole = Path(folder) / "whole"
        with whole.open("wb") as file:
            yield file
        put_file(whole, path)


def put_file(local: Path, path: StoredPath) -> None:
    """Move a finished local file to its place, where it appears whole or not at all.

    Raises:
        OSError: if the place cannot be written.
    """
    if not is_local(path):
        with store_errors(path):
            path.fs.put_file(str(local), path.path)  # type: ignore[union-attr]  # a local path has no store
        local.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if local.stat().st_dev != path.parent.stat().st_dev:
        with local.open("rb") as source, _replacing_local(path) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        local.unlink()
        return
    with local.open("rb") as file:
        os.fchmod(file.fileno(), _mode_of_new_files(path.parent))
        os.fsync(file.fileno())
    local.replace(path)


def create_file(path: StoredPath, content: bytes) -> None:
    """Write a new file, whole or not at all; of several concurrent writers one succeeds.

    Raises:
        FileExistsError: if it is there already.
        OSError: if the place cannot be written.
    """
    if not is_local(path):
        _create_in_store(path, content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = _new_file(path, 0o444)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink()


def _create_in_store(path: StoredPath, content: bytes) -> None:
    try:
        with store_errors(path):
            path.fs.pipe_file(path.path, content, mode="create")  # type: ignore[union-attr]  # a local path has no store
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        # Servers name a failed condition differently. The present content tells who wrote first:
        # it is this one if the store's library repeated a request whose answer was lost.
        if not path.exists():
            raise
        if path.read_bytes() != content:
            raise FileExistsError(f"{path} exists") from error


def files_below(folder: StoredPath) -> dict[str, StoredPath]:
    """All files below a folder by their path in it, in order."""
    start = len(folder.as_posix().rstrip("/")) + 1
    found = {path.as_posix()[start:]: path for path in folder.rglob("*") if path.is_file()}
    return dict(sorted(found.items()))


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder, removed afterwards together with those that killed processes left more
    than a day ago.

    Args:
        parent: folder on a disk with room for a day's files, best the disk of their final place;
            created if missing.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.iterdir():
        if leftover.is_dir() and time.time() - leftover.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


@contextmanager
def _replacing_local(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = _new_file(path, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _new_file(path: Path, mode: int) -> tuple[int, Path]:
    """Create an empty file with a random name in a path's folder: its descriptor and its path.

    The system applies the umask to the mode, so permissions are never wider than the operator
    allows; `tempfile` would fix the mode at 0600.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    return os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, mode), temporary


def _mode_of_new_files(folder: Path) -> int:
    """The mode of a new file under this process's umask. Reading the umask itself would change it
    for a moment.
    """
    descriptor, probe = _new_file(folder / "mode", 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        probe.unlink()


def sync_folder(folder: Path) -> None:
    """Sync a folder to the disk: a new name is not durable before its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
