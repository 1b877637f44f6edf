"""The promotion ledger: who or what moved the champion, when, from what to what, why, and on which
evidence.

One file for each entry, created once and never written again. Each carries its own SHA-256 and that
of the entry before it, so that a changed, removed or inserted entry breaks the chain. Of two who
append at once, one does; the other finds the ledger moved.
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

from creditrisk_assets.scoring.bundle import BundlePlace, ChampionRecord, DecisionRule
from creditrisk_assets.storage import StoredPath, create_file

Action = Literal["first", "promoted", "rejected", "rolled_back", "cut_off"]

BEFORE_THE_FIRST = "0" * 64
"""What the first entry names as the one before it."""

FILE_NAME = re.compile(r"(\d{6})\.json")


class LedgerError(RuntimeError):
    """The ledger is not a whole chain; the message names the entry."""


class LedgerMoved(LedgerError):
    """Somebody else appended first."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InForce(_Document):
    """What decides: a version, where its bundle is and its hash, the rule, whether its cut-off is
    the model's or policy's, and the scorecard to fall back on.
    """

    model_version: str
    mlflow_uri: str
    artifact_uri: str
    bundle_sha256: str
    rule: DecisionRule
    cut_off_by: Literal["model", "policy"]
    fallback: BundlePlace | None = None


class Move(_Document):
    """What is to be written down.

    Attributes:
        action: what happened to the champion; `rejected` where the challenger failed the gate.
        actor: who or what did it.
        day: the latest day of data then, None before the first.
        before: in force before; None before the first.
        after: in force from now on.
        challenger: version that was judged, None where none was.
        why: in words.
        evidence_sha256: digest of the document that the decision rests on, None where a person
            decided.
    """

    action: Action
    actor: str
    day: str | None
    before: InForce | None
    after: InForce
    challenger: str | None
    why: str
    evidence_sha256: str | None


class Entry(Move):
    """A move in its place in the chain. `at` is UTC, ISO 8601."""

    number: int
    at: datetime.datetime
    previous_sha256: str
    sha256: str

    def content(self) -> bytes:
        """The file of it."""
        return (self.model_dump_json(indent=2) + "\n").encode()

    def digest(self) -> str:
        """SHA-256 over everything but itself."""
        content = json.dumps(
            self.model_dump(mode="json", exclude={"sha256"}), sort_keys=True, separators=(",", ":")
        )
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class Ledger:
    """The entries in a folder or an object store."""

    folder: StoredPath

    def entries(self) -> list[Entry]:
        """Every entry from the first on.

        Raises:
            LedgerError: if one is missing, cannot be read, or does not fit the one before it.
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
        """Find a champion in the ledger, in the entry that its record names.

        Raises:
            LedgerError: if that entry is not there, cannot be read, or has put another bundle or
                rule in force.
        """
        number = champion.ledger_entry
        if number is None:
            raise LedgerError(
                f"the record of version {champion.model_version} names no entry of the ledger "
                f"{self.folder}"
            )
        entry = self._read(number)
        of_record = (
            champion.ledger_sha256,
            champion.model_version,
            champion.bundle_sha256,
            champion.rule,
        )
        if of_record != (
            entry.sha256,
            entry.after.model_version,
            entry.after.bundle_sha256,
            entry.after.rule,
        ):
            raise LedgerError(
                f"version {champion.model_version} with bundle {champion.bundle_sha256} is not "
                f"the champion of {self._path(number)}, which has version "
                f"{entry.after.model_version} with bundle {entry.after.bundle_sha256} in force: "
                "it is the champion of another store"
            )

    def append(self, move: Move, head: Entry | None) -> Entry:
        """Write an entry after the one that was the last when it was decided.

        Args:
            move: what happened.
            head: the last entry that whoever decided has seen.

        Raises:
            LedgerMoved: if there is another one by now; nothing is written.
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
                f"{self._path(number)} is there already: the champion was moved meanwhile; decide "
                "again"
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
                f"{path} was changed: it says the same in other bytes than were written"
            )
        return entry


def in_force_at(entries: Sequence[Entry], moment: datetime.datetime) -> Entry | None:
    """The entry by which the champion of a moment had come into force, or None before the first."""
    until = [entry for entry in entries if entry.at <= moment]
    return last_move(until) if until else None


def version_before(entries: Sequence[Entry]) -> InForce | None:
    """What was in force before the version that is now, or None if there was no other."""
    now = entries[-1].after.model_version
    return next(
        (entry.after for entry in reversed(entries) if entry.after.model_version != now), None
    )


def last_move(entries: Sequence[Entry]) -> Entry:
    """The entry by which what is in force came into force; a rejected challenger moves nothing."""
    return next(entry for entry in reversed(entries) if entry.action != "rejected")


def rolled_back_from(entries: Sequence[Entry], version: str) -> Entry | None:
    """The entry by which a person took a version out of force, or None."""
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
def held(lock: Path) -> Iterator[None]:
    """Wait until nobody else on this machine moves the champion, and keep others from it
    meanwhile.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
