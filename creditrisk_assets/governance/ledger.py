"""The promotion ledger: every move of the champion with actor, time, reason and evidence.

Each entry is a file that is created once and never written again. It holds its own SHA-256 and that
of the entry before it, so a changed, removed or inserted entry breaks the chain. Of two concurrent
appends one succeeds; the other raises `LedgerMoved`.
"""

import datetime
import fcntl
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from creditrisk_assets.scoring.bundle import ChampionRecord, DecisionRule, ModelRef
from creditrisk_assets.storage import StoredPath, create_file

Action = Literal["first", "promoted", "rejected", "rolled_back", "cut_off", "policy"]

LEAVES_IN_FORCE = ("rejected", "policy")
"""Actions that change neither version nor cut-off."""

BEFORE_THE_FIRST = "0" * 64
"""The predecessor's SHA-256 in the first entry."""

FILE_NAME = re.compile(r"(\d{6})\.json")


class LedgerError(RuntimeError):
    """The chain is broken; the message names the entry."""


class LedgerMoved(LedgerError):
    """Another process appended first."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InForce(ModelRef):
    """A deciding model: its version, its decision rule, and the origin of the cut-off."""

    rule: DecisionRule
    cut_off_by: Literal["model", "policy"]


class Move(_Document):
    """The content of an entry.

    Attributes:
        action: the change; `rejected` if the challenger failed the gate, `policy` if
            a limit of the policy changed.
        actor: person or run behind it.
        day: the latest day of data, None before the first.
        before: the champion before; None before the first.
        after: the champion from now on.
        challenger: the judged version, None if there was none.
        why: reason in words.
        evidence_sha256: digest of the verdict, None if a person decided.
        policy_sha256: hash of the policy then; the policy is stored below `policies`.
    """

    action: Action
    actor: str
    day: str | None
    before: InForce | None
    after: InForce
    challenger: str | None
    why: str
    evidence_sha256: str | None
    policy_sha256: str


class Entry(Move):
    """A move as a link of the chain. `at` is UTC."""

    number: int
    at: datetime.datetime
    previous_sha256: str
    sha256: str

    def content(self) -> bytes:
        """The bytes of its file."""
        return (self.model_dump_json(indent=2) + "\n").encode()

    def digest(self) -> str:
        """SHA-256 over all fields except `sha256`."""
        content = json.dumps(
            self.model_dump(mode="json", exclude={"sha256"}), sort_keys=True, separators=(",", ":")
        )
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class Ledger:
    """The entries in a folder or an object store."""

    folder: StoredPath

    def entries(self) -> list[Entry]:
        """Read all entries, the first first.

        Raises:
            LedgerError: if an entry is missing, unreadable, or does not match its predecessor.
        """
        numbers = self._numbers()
        if numbers != list(range(1, len(numbers) + 1)):
            missing = min(set(range(1, len(numbers) + 1)) - set(numbers))
            raise LedgerError(
                f"{self.folder}: entry {missing} is missing; valid: every number from 1 to "
                f"{numbers[-1]}"
            )
        entries = [self._read(number) for number in numbers]
        previous = BEFORE_THE_FIRST
        for entry in entries:
            if entry.previous_sha256 != previous:
                raise LedgerError(
                    f"{self._path(entry.number)}: previous_sha256 is {entry.previous_sha256}; "
                    f"valid: {previous}, that of the entry before it"
                )
            previous = entry.sha256
        return entries

    def head(self) -> Entry | None:
        """The last entry, or None before the first.

        Raises:
            LedgerError: if it cannot be read.
        """
        numbers = self._numbers()
        return self._read(numbers[-1]) if numbers else None

    def require_recorded(self, champion: ChampionRecord) -> None:
        """Check a champion against the entry that its record names.

        Raises:
            LedgerError: if that entry is missing or unreadable, or has another bundle or rule.
        """
        number = champion.ledger_entry
        if number is None:
            raise LedgerError(
                f"the record of version {champion.model_version} names no entry of the ledger "
                f"{self.folder}"
            )
        entry = self._read(number)
        same = all(
            getattr(champion, name) == getattr(entry.after, name)
            for name in ("model_version", "bundle_sha256", "rule")
        )
        if not same or champion.ledger_sha256 != entry.sha256:
            raise LedgerError(
                f"version {champion.model_version} with bundle {champion.bundle_sha256} is not "
                f"the champion of {self._path(number)}, which has version "
                f"{entry.after.model_version} with bundle {entry.after.bundle_sha256} in force: "
                "it is the champion of another store"
            )

    def append(self, move: Move, head: Entry | None) -> Entry:
        """Write an entry after `head`.

        Args:
            move: content of the entry.
            head: the last entry at the time of the decision.

        Raises:
            LedgerMoved: if there is a later entry; nothing is written.
        """
        number = head.number + 1 if head else 1
        unsigned = Entry(
            **dict(move),
            number=number,
            at=datetime.datetime.now(datetime.UTC),
            previous_sha256=head.sha256 if head else BEFORE_THE_FIRST,
            sha256="",
        )
        entry = unsigned.model_copy(update={"sha256": unsigned.digest()})
        try:
            create_file(self._path(number), entry.content())
        except FileExistsError as error:
            raise LedgerMoved(
                f"{self._path(number)} exists: the champion was moved meanwhile; decide again"
            ) from error
        return entry

    def _numbers(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        names = [FILE_NAME.fullmatch(path.name) for path in self.folder.iterdir()]
        return sorted(int(name[1]) for name in names if name)

    def _path(self, number: int) -> StoredPath:
        return self.folder / f"{number:06d}.json"

    def _read(self, number: int) -> Entry:
        path = self._path(number)
        try:
            content = path.read_bytes()
            entry = Entry.model_validate_json(content)
        except (ValidationError, OSError) as error:
            raise LedgerError(f"{path} cannot be read: {error}") from error
        if entry.number != number or entry.sha256 != entry.digest():
            raise LedgerError(
                f"{path} was changed: its SHA-256 is {entry.digest()}; valid: {entry.sha256}, "
                "which it carries"
            )
        if content != entry.content():
            raise LedgerError(
                f"{path} was changed: its values are the same in other bytes than were written"
            )
        return entry


def in_force_at(entries: Sequence[Entry], moment: datetime.datetime) -> Entry | None:
    """The entry that put the champion of a moment into force, or None before the first."""
    until = [entry for entry in entries if entry.at <= moment]
    return last_move(until) if until else None


def version_before(entries: Sequence[Entry]) -> InForce | None:
    """The champion before the current version, or None if there was no other."""
    now = entries[-1].after.model_version
    return next(
        (entry.after for entry in reversed(entries) if entry.after.model_version != now), None
    )


def last_move(entries: Sequence[Entry]) -> Entry:
    """The entry that put the current version and cut-off in force."""
    return next(entry for entry in reversed(entries) if entry.action not in LEAVES_IN_FORCE)


def rollback_of(entries: Sequence[Entry], version: str) -> Entry | None:
    """The entry of a version's rollback, or None."""
    return next(
        (
            entry
            for entry in reversed(entries)
            if entry.action == "rolled_back"
            and entry.before is not None
            and entry.before.model_version == version
        ),
        None,
    )


@contextmanager
def lock_champion(lock: Path) -> Iterator[None]:
    """Hold the lock for moves of the champion on this machine; wait for it first."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
