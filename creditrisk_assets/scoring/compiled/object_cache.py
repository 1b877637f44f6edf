"""Cache of machine code in a folder that only its owner may write.

An object file is code that runs in this process, so it is not fetched from any store, and a file
or folder that another user could have written is refused. Code from the cache passes the same
proof as new code.
"""

import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from creditrisk_assets.scoring.compiled.errors import UnsafeCacheError
from creditrisk_assets.storage import replacing

DIGEST_BYTES = hashlib.sha256().digest_size


def cached(folder: Path | None, key: bytes, make: Callable[[], bytes]) -> bytes:
    """Take an object file from the cache, or make it and put it there.

    Args:
        folder: made with mode 0700 if missing; None for no cache.
        key: everything on which the object file depends; its SHA-256 is the file's name.
        make: makes the object file. A damaged file is made again. Of processes that want the same
            file at once, one makes it.

    Raises:
        UnsafeCacheError: if the folder or the file belongs to another user, is a link, or has
            permissions for others.
        OSError: if the folder cannot be read or written.
    """
    if folder is None:
        return make()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_own(folder, os.lstat(folder), stat.S_ISDIR)
    path = folder / f"{hashlib.sha256(key).hexdigest()}.o"
    stored = _read(path)
    if stored is not None:
        return stored
    with _locked(folder):
        stored = _read(path)
        if stored is not None:
            return stored
        content = make()
        with replacing(path) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(hashlib.sha256(content).digest() + content)
        return content


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes | None:
    """Content of a file; None if there is none, or it is damaged."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if path.is_symlink():
            raise UnsafeCacheError(f"{path} is a link; valid: a file") from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        _require_own(path, os.fstat(descriptor), stat.S_ISREG)
        stored = file.read()
    digest, content = stored[:DIGEST_BYTES], stored[DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def _require_own(path: Path, status: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not is_kind(status.st_mode) or status.st_uid != os.geteuid() or mode & 0o077:
        raise UnsafeCacheError(
            f"{path} is {stat.filemode(status.st_mode)} of user {status.st_uid}; valid: of user "
            f"{os.geteuid()} alone, without permissions for others"
        )
