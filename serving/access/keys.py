"""Makes, checks and revokes API keys, all in one file.

The file holds no secret, only the SHA-256 of each key. A plain SHA-256 is enough: a key has 256
random bits, which no dictionary and no search can find, so a slow, salted hash would only cost time
at each request.
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

Scope = Literal["predict", "read", "acknowledge", "admin"]
SCOPES: tuple[Scope, ...] = ("predict", "read", "acknowledge", "admin")
"""`predict` allows decisions, `read` past decisions, reports and metrics, `acknowledge` the
acknowledgement and snooze of alerts, `admin` everything.
"""

LIVE_KEYS_LIMIT = 2
"""Live keys of a caller: one in use, and its successor."""

LOOK_SECONDS = 1.0
"""Time between two checks of the file by a running API; a revoked key may work for this long."""

KEY = re.compile(r"cr_([0-9a-f]{12})_[0-9a-f]{64}", re.ASCII)
NAME = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"
ANONYMOUS_NAME = "anonymous"
NO_KEY = bytes(32)
"""Compared with unknown keys, so that they take as long as known ones. No text with this SHA-256 is
known.
"""


class KeysError(RuntimeError):
    """The keys cannot be read, or a change of them is refused. The message has advice."""


class OpenBeyondLoopback(RuntimeError):
    """The API would listen beyond this machine without keys."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Key(_Document):
    """A key, without its secret. Times are UTC."""

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    created: datetime.datetime
    expires: datetime.datetime | None = None

    def is_live(self, now: datetime.datetime) -> bool:
        """True if the key has not expired."""
        return self.expires is None or now < self.expires


class KeyOwner(_Document):
    """A caller's scopes and keys."""

    scopes: Annotated[list[Scope], Field(min_length=1)]
    keys: Annotated[list[Key], Field(min_length=1, max_length=LIVE_KEYS_LIMIT)]


class KeyFile(_Document):
    """The whole file: callers by name."""

    format: Literal[1] = 1
    callers: dict[Annotated[str, StringConstraints(pattern=NAME)], KeyOwner] = {}


@dataclass(frozen=True)
class Caller:
    """The sender of a request: name, effective scopes, and the key's id (None without a key)."""

    name: str
    scopes: frozenset[str]
    key_id: str | None = None


ANONYMOUS = Caller(ANONYMOUS_NAME, frozenset(SCOPES))
"""The caller of an API without keys, which listens on loopback only."""


def effective_scopes(scopes: Sequence[str]) -> frozenset[str]:
    """The scopes and those that they imply: `admin` implies all."""
    return frozenset(SCOPES) if "admin" in scopes else frozenset(scopes)


def read_keys(path: Path) -> KeyFile:
    """The file's callers; none if it is missing or empty.

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
        first = error.errors(include_input=False)[0]  # the input may be a key
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise KeysError(
            f"{path} is no file of keys: {place}: {first['msg']}; valid: what `creditrisk keys` "
            "writes"
        ) from None


def create_key(
    path: Path, name: str, scopes: Sequence[Scope], expires: datetime.datetime | None = None
) -> str:
    """Make the first key of a new caller. The key itself is not stored.

    Raises:
        KeysError: if the name is in use or invalid, or a scope is invalid or none is named.
    """
    if not re.fullmatch(NAME, name) or name == ANONYMOUS_NAME:
        raise KeysError(
            f"name {name!r}; valid: up to 64 letters, digits and . _ @ -, not {ANONYMOUS_NAME!r}"
        )
    if not scopes or not {*scopes} <= {*SCOPES}:
        raise KeysError(f"scopes {list(scopes)}; valid: at least one of {', '.join(SCOPES)}")
    with _edit_callers(path) as callers:
        if name in callers:
            raise KeysError(
                f"{name} has keys; `creditrisk keys rotate {name}` adds one, or take another name"
            )
        text, key = _new_key(expires)
        callers[name] = KeyOwner(scopes=sorted({*scopes}, key=SCOPES.index), keys=[key])
    return text


def rotate_key(path: Path, name: str, expires: datetime.datetime | None = None) -> str:
    """Make a second key of a caller, so that the first can be revoked later. Expired keys are
    removed.

    Raises:
        KeysError: if there is no such caller, or it has two live keys.
    """
    with _edit_callers(path) as callers:
        owner = _owner_of(callers, name)
        live = [key for key in owner.keys if key.is_live(_now())]
        if len(live) >= LIVE_KEYS_LIMIT:
            ids = " or ".join(f"`creditrisk keys revoke {name} --key {key.id}`" for key in live)
            raise KeysError(f"{name} has {len(live)} keys that work; first {ids}")
        text, key = _new_key(expires)
        callers[name] = KeyOwner(scopes=owner.scopes, keys=[*live, key])
    return text


def revoke_keys(path: Path, name: str, key_id: str | None = None) -> list[str]:
    """Revoke one key of a caller, or all. A caller without keys is removed.

    Returns:
        Ids of the revoked keys.

    Raises:
        KeysError: if there is no such caller, or no such key.
    """
    with _edit_callers(path) as callers:
        owner = _owner_of(callers, name)
        remaining = [key for key in owner.keys if key_id is not None and key.id != key_id]
        if len(remaining) == len(owner.keys):
            known = ", ".join(key.id for key in owner.keys)
            raise KeysError(f"{name} has no key {key_id!r}; valid: {known}")
        if remaining:
            callers[name] = KeyOwner(scopes=owner.scopes, keys=remaining)
        else:
            del callers[name]
    return [key.id for key in owner.keys if key not in remaining]


class KeyRing:
    """The keys of a running API, which follow the file within about a second.

    While the file has never had a key since the start, every caller is anonymous. After the first
    key every caller needs one, and an emptied or removed file refuses all. If the file cannot be
    read any more, the last keys stay in force and `problem` has the reason.

    Args:
        path: the file.

    Raises:
        KeysError: if the file cannot be read at the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._known = _by_id(read_keys(path))
        self._requires_keys = bool(self._known)
        self.problem: str | None = None  # of the last read

    @property
    def requires_keys(self) -> bool:
        """True if a caller needs a key."""
        self._follow()
        return self._requires_keys

    def caller(self, text: bytes) -> Caller | None:
        """The owner of a key; None if it is unknown, revoked or expired."""
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
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._known = _by_id(read_keys(self._path))
        except KeysError as error:
            self.problem = str(error)
            log.error("keys_not_read", problem=self.problem, in_force="the keys read before")
            return
        self.problem = None
        if self._requires_keys and not self._known:
            log.error(
                "no_keys_left",
                file=str(self._path),
                effect="every caller is refused until there is a key",
            )
        else:
            log.info("keys_read", keys=len(self._known))
        self._requires_keys = self._requires_keys or bool(self._known)


def require_keys_beyond_loopback(
    host: str, ring: KeyRing, *, open_beyond_loopback: bool = False
) -> None:
    """Refuse to listen beyond this machine without keys.

    Args:
        host: the address, or name, to listen on.
        ring: the keys.
        open_beyond_loopback: allows it, as for a container whose port is published on loopback
            only.

    Raises:
        OpenBeyondLoopback: with the command to run.
    """
    if ring.requires_keys or is_loopback(host):
        return
    if not open_beyond_loopback:
        raise OpenBeyondLoopback(
            f"{host or 'every address'} can be reached from other machines, and there are no API "
            "keys: any caller could send any request. Make a key with `creditrisk keys create NAME "
            "--scope predict`, or listen on 127.0.0.1. If the address is protected by other means "
            "(a container's port that is published on loopback only), set "
            "CREDITRISK_OPEN_BEYOND_LOOPBACK=true."
        )
    log.warning(
        "open_beyond_loopback",
        host=host,
        effect="any caller that reaches this address may send any request: there are no keys",
    )


def is_loopback(host: str) -> bool:
    """True if only this machine can reach an address; a name must resolve to such addresses
    alone.
    """
    try:
        return _is_own(host)
    except ValueError:
        pass
    if not host:
        return False  # every interface
    try:
        entries = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return False
    return all(_is_own(str(entry[4][0]).partition("%")[0]) for entry in entries)


def _is_own(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    # Before Python 3.13 an IPv4 address in the form of IPv6 is no loopback address.
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _new_key(expires: datetime.datetime | None) -> tuple[str, Key]:
    key_id = secrets.token_hex(6)
    text = f"cr_{key_id}_{secrets.token_hex(32)}"
    return text, Key(
        id=key_id, sha256=hashlib.sha256(text.encode()).hexdigest(), created=_now(), expires=expires
    )


def _owner_of(callers: dict[str, KeyOwner], name: str) -> KeyOwner:
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
            Caller(name, effective_scopes(owner.scopes), key.id),
            bytes.fromhex(key.sha256),
            None if key.expires is None else key.expires.timestamp(),
        )
        for name, owner in keys.callers.items()
        for key in owner.keys
    }


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


@contextmanager
def _edit_callers(path: Path) -> Iterator[dict[str, KeyOwner]]:
    """The callers, to change in place; written if the block ends without an error. A lock lets one
    process at a time change them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        callers = dict(read_keys(path).callers)
        yield callers
        replace_keys_file(
            path, KeyFile(callers=callers).model_dump_json(indent=2, exclude_none=True) + "\n"
        )


def replace_keys_file(path: Path, text: str) -> None:
    """Write the file, whole or not at all, readable by its owner only."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
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
