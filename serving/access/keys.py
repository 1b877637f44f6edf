"""API keys: who may ask the API, for what. One file holds them all; this module makes, checks and
revokes them.

The file has no secret in it, only the SHA-256 of each key. A plain SHA-256 is right here: a key is
256 random bits, which no dictionary holds and nobody can go through, so a slow, salted hash would
cost time at each request and add nothing.
"""

import datetime
import fcntl
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

log = structlog.get_logger()

Scope = Literal["predict", "read", "admin"]
SCOPES: tuple[Scope, ...] = ("predict", "read", "admin")
"""`predict` asks for decisions, `read` looks at decisions, reports and metrics, `admin` does
everything.
"""

LIVE_KEYS_LIMIT = 2
"""Keys of one caller that work at a time: one in use, one that is being rotated in."""

LOOK_SECONDS = 1.0
"""How often a running API looks whether the file has changed; so long may a revoked key go on
working.
"""

KEY = re.compile(r"cr_([0-9a-f]{12})_[0-9a-f]{64}", re.ASCII)
NAME = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"
ANONYMOUS_NAME = "anonymous"
NO_KEY = bytes(32)
"""What an unknown key is compared with, so that it takes as long as a known one. No text is known
to have this SHA-256.
"""


class KeysError(RuntimeError):
    """Keys that cannot be read, or a change of them that is refused. The message says what to
    do.
    """


class OpenBeyondLoopback(RuntimeError):
    """An API that would listen beyond this machine and ask nobody for a key."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Key(_Document):
    """One key, without its secret. Times are UTC."""

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    created: datetime.datetime
    expires: datetime.datetime | None = None

    def is_live(self, now: datetime.datetime) -> bool:
        """Whether it works at this moment."""
        return self.expires is None or now < self.expires


class Holder(_Document):
    """A caller's scopes and keys."""

    scopes: Annotated[list[Scope], Field(min_length=1)]
    keys: Annotated[list[Key], Field(min_length=1, max_length=LIVE_KEYS_LIMIT)]


class KeyFile(_Document):
    """The whole file: callers by name."""

    format: Literal[1] = 1
    callers: dict[Annotated[str, StringConstraints(pattern=NAME)], Holder] = {}


@dataclass(frozen=True)
class Caller:
    """Who asks: a name, what they may do (with what follows from it), and by which key; None where
    none was asked for.
    """

    name: str
    scopes: frozenset[str]
    key_id: str | None = None


ANONYMOUS = Caller(ANONYMOUS_NAME, frozenset(SCOPES))
"""Whoever asks an API without keys, which listens on loopback only."""


def implied(scopes: Sequence[str]) -> frozenset[str]:
    """The scopes and what follows from them: `admin` may do everything."""
    return frozenset(SCOPES) if "admin" in scopes else frozenset(scopes)


def read_keys(path: Path) -> KeyFile:
    """The file's callers; none where it does not exist or is empty.

    Raises:
        KeysError: if it cannot be read, or is no file of keys.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return KeyFile()
    except OSError as error:
        raise KeysError(f"the keys in {path} cannot be read: {error.strerror}") from error
    if not text.strip():
        return KeyFile()
    try:
        return KeyFile.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]  # without what is there: it may be a key
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise KeysError(
            f"{path} is no file of keys: {place}: {first['msg']}; valid: what `creditrisk keys` "
            "writes"
        ) from None


def create_key(
    path: Path, name: str, scopes: Sequence[Scope], expires: datetime.datetime | None = None
) -> str:
    """The first key of a new caller. It is told this once and kept nowhere.

    Raises:
        KeysError: if the name is taken or no name, or the scopes are none.
    """
    if not re.fullmatch(NAME, name) or name == ANONYMOUS_NAME:
        raise KeysError(
            f"name {name!r}; valid: up to 64 letters, digits and . _ @ -, not {ANONYMOUS_NAME!r}"
        )
    if not scopes or not {*scopes} <= {*SCOPES}:
        raise KeysError(f"scopes {list(scopes)}; valid: at least one of {', '.join(SCOPES)}")
    with _changing(path) as callers:
        if name in callers:
            raise KeysError(
                f"{name} has keys; `creditrisk keys rotate {name}` adds one, or take another name"
            )
        text, key = _new_key(expires)
        callers[name] = Holder(scopes=sorted({*scopes}, key=SCOPES.index), keys=[key])
    return text


def rotate_key(path: Path, name: str, expires: datetime.datetime | None = None) -> str:
    """A second key for a caller, so that the first can be revoked when nobody uses it any more.
    Expired ones go.

    Raises:
        KeysError: if there is no such caller, or two keys work already.
    """
    with _changing(path) as callers:
        holder = _holder(callers, name)
        live = [key for key in holder.keys if key.is_live(_now())]
        if len(live) >= LIVE_KEYS_LIMIT:
            ids = " or ".join(f"`creditrisk keys revoke {name} --key {key.id}`" for key in live)
            raise KeysError(f"{name} has {len(live)} keys that work; first {ids}")
        text, key = _new_key(expires)
        callers[name] = Holder(scopes=holder.scopes, keys=[*live, key])
    return text


def revoke_keys(path: Path, name: str, key_id: str | None = None) -> list[str]:
    """End one key of a caller, or all. A caller without keys is forgotten.

    Returns:
        Ids of the keys that have ended.

    Raises:
        KeysError: if there is no such caller, or no such key.
    """
    with _changing(path) as callers:
        holder = _holder(callers, name)
        kept = [key for key in holder.keys if key_id is not None and key.id != key_id]
        if len(kept) == len(holder.keys):
            known = ", ".join(key.id for key in holder.keys)
            raise KeysError(f"{name} has no key {key_id!r}; valid: {known}")
        if kept:
            callers[name] = Holder(scopes=holder.scopes, keys=kept)
        else:
            del callers[name]
    return [key.id for key in holder.keys if key not in kept]


class KeyRing:
    """The keys of a running API. It follows the file: a key that was made or revoked counts within
    about a second.

    Whether the API asks for keys at all is decided once, at its start: with no keys in the file
    everybody is anonymous until the first key appears; from then on, or from the start, a file that
    is emptied or taken away lets nobody in. A file that can no longer be read leaves the last keys
    in force, and `problem` says so.

    Args:
        path: the file.

    Raises:
        KeysError: if the file cannot be read at the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _stamp(path)
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._known = _by_id(read_keys(path))
        self._asks = bool(self._known)
        self._problem: str | None = None

    @property
    def asks_for_keys(self) -> bool:
        """Whether a caller needs a key."""
        self._follow()
        return self._asks

    @property
    def problem(self) -> str | None:
        """Why the file could not be read again, or None."""
        return self._problem

    def caller(self, text: bytes) -> Caller | None:
        """Whose key this is; None for one that is unknown, revoked or expired."""
        self._follow()
        known = self._known.get(text[3:15])
        digest = hashlib.sha256(text).digest()
        if known is None:
            hmac.compare_digest(digest, NO_KEY)
            return None
        caller, expected, expires = known
        if not hmac.compare_digest(digest, expected) or (
            expires is not None and time.time() >= expires
        ):
            return None
        return caller

    def _follow(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._known = _by_id(read_keys(self._path))
        except KeysError as error:
            self._problem = str(error)
            log.error("keys_not_read", problem=self._problem, in_force="the keys read before")
            return
        self._problem = None
        if self._asks and not self._known:
            log.error(
                "no_keys_left",
                file=str(self._path),
                effect="every caller is refused until there is a key",
            )
        else:
            log.info("keys_read", keys=len(self._known))
        self._asks = self._asks or bool(self._known)


def require_keys_beyond_loopback(
    host: str, ring: KeyRing, *, open_beyond_loopback: bool = False
) -> None:
    """Refuse to listen beyond this machine while nobody is asked for a key.

    Args:
        host: the address, or name, to listen on.
        ring: the keys.
        open_beyond_loopback: it is wanted all the same, as in a container whose port is published
            on loopback only.

    Raises:
        OpenBeyondLoopback: says what to run.
    """
    if ring.asks_for_keys or is_loopback(host):
        return
    if not open_beyond_loopback:
        raise OpenBeyondLoopback(
            f"{host or 'every address'} can be reached from other machines, and there are no API "
            "keys: everybody could ask anything. Make a key with `creditrisk keys create NAME "
            "--scope predict`, or listen on 127.0.0.1. Where something else keeps strangers out "
            "(a container's port that is published on loopback only), set "
            "CREDITRISK_OPEN_BEYOND_LOOPBACK=true."
        )
    log.warning(
        "open_beyond_loopback",
        host=host,
        effect="whoever reaches this address may ask anything: there are no keys",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; a name must resolve to such addresses
    alone.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    if not host:
        return False  # every interface
    try:
        found = {str(one[4][0]).partition("%")[0] for one in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(address).is_loopback for address in found)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _new_key(expires: datetime.datetime | None) -> tuple[str, Key]:
    key_id = secrets.token_hex(6)
    text = f"cr_{key_id}_{secrets.token_hex(32)}"
    return text, Key(
        id=key_id, sha256=hashlib.sha256(text.encode()).hexdigest(), created=_now(), expires=expires
    )


def _holder(callers: dict[str, Holder], name: str) -> Holder:
    try:
        return callers[name]
    except KeyError:
        known = (
            ", ".join(sorted(callers))
            or "none; `creditrisk keys create NAME --scope predict` makes the first"
        )
        raise KeysError(f"no caller {name!r}; known: {known}") from None


def _by_id(keys: KeyFile) -> dict[bytes, tuple[Caller, bytes, float | None]]:
    return {
        key.id.encode(): (
            Caller(name, implied(holder.scopes), key.id),
            bytes.fromhex(key.sha256),
            None if key.expires is None else key.expires.timestamp(),
        )
        for name, holder in keys.callers.items()
        for key in holder.keys
    }


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


@contextmanager
def _changing(path: Path) -> Iterator[dict[str, Holder]]:
    """The callers, to be changed in place; written when the block ends well. Two who change them
    wait for each other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        callers = dict(read_keys(path).callers)
        yield callers
        _replace(path, KeyFile(callers=callers).model_dump_json(indent=2, exclude_none=True) + "\n")


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}."
    )  # readable by its owner only
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
