"""The champion on this machine's disk: `champion.json`, and a copy of its bundle.

The publisher, a process beside the workers, reads the source of the champion and writes the file;
the workers read it. So a worker needs neither Dagster nor its database, a source that hangs delays
no answer, and all workers see the same champion. The file survives restarts: with it and the copy
of the bundle the API starts without the orchestrator and the artifact store.

The ledger must confirm a champion before it enters the file. The file carries a hash of its
content, and a bundle's hash is checked at each load.
"""

import contextlib
import datetime
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json

from creditrisk_assets.scoring.bundle import BundleError, ChampionRecord, deciding_files
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import Settings
from creditrisk_assets.storage import replacing, sync_folder
from serving.inference.champion_source import PastChampion, Source, SourceError

log = structlog.get_logger()

FILE = "champion.json"
LOCK = ".lock"

STALE_SECONDS = 10.0
"""A file that was not written for this long is stale."""

START_SECONDS = 15.0
"""Time that a worker waits for the publisher, which starts together with it."""

LOOK_SECONDS = 0.02


class _Entry(BaseModel):
    """A champion of the history: the time, UTC, and the values of its record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: datetime.datetime
    champion: dict[str, Any]


class _Document(BaseModel):
    """The file.

    Attributes:
        problem: the reason for a failed read of the source, or None.
        history: champions that the ledger confirmed, newest first.
        sha256: over both.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    problem: str | None
    history: list[_Entry]
    sha256: str

    @classmethod
    def of(cls, problem: str | None, history: list[PastChampion]) -> "_Document":
        entries = [_Entry(at=past.at, champion=_values(past.record)) for past in history]
        return cls(problem=problem, history=entries, sha256=_digest(problem, entries))

    def champions(self) -> list[PastChampion]:
        """The history.

        Raises:
            ValueError: if the content does not have the file's hash, or is no record.
        """
        digest = _digest(self.problem, self.history)
        if digest != self.sha256:
            raise ValueError(f"its SHA-256 is {digest}; valid: {self.sha256}")
        return [
            PastChampion(entry.at, ChampionRecord.from_values(entry.champion))
            for entry in self.history
        ]


class ChampionFile:
    """The champion's file of one API.

    Args:
        folder: local folder of the file and the copies of bundles.
        bundles: the bundles of the store.
        start_seconds: time to wait for the first publication.
    """

    def __init__(
        self, folder: Path, bundles: BundleStore, start_seconds: float = START_SECONDS
    ) -> None:
        self.path = folder / FILE
        self.bundles = bundles
        self._folder = folder
        self._wait_until = time.monotonic() + start_seconds

    @classmethod
    def of(cls, settings: Settings) -> "ChampionFile":
        """The file of the API that the settings name."""
        return cls(settings.champion_folder, BundleStore(settings.data_dir))

    def in_force(self) -> ChampionRecord | None:
        """The champion in force; None before the first.

        Raises:
            SourceError: if the source could not be read, or the file is stale.
        """
        while (document := self._fresh()) is None and time.monotonic() < self._wait_until:
            time.sleep(LOOK_SECONDS)
        self._wait_until = 0.0
        if document is None:
            raise SourceError(
                f"the champion in force was not read for {STALE_SECONDS:g} s; `creditrisk serve` "
                "runs the process that reads it"
            )
        try:
            champions = document.champions()
        except ValueError as error:
            raise SourceError(f"{self.path} cannot be read: {error}") from error
        if document.problem is not None:
            raise SourceError(document.problem)
        return champions[0].record if champions else None

    def history(self) -> list[PastChampion]:
        """The champions so far, newest first, also from a stale file; none if it is damaged."""
        try:
            return self._read().champions()
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            log.error("champion_file_not_read", file=str(self.path), problem=str(error))
            return []

    def copy_of(self, bundle_sha256: str) -> Path | None:
        """The copy of a bundle, or None. Its hash is checked at its load."""
        copy = self._folder / bundle_sha256
        return copy if copy.is_dir() else None

    def store_copy(self, bundle_sha256: str) -> None:
        """Copy a bundle of the store, and remove all other copies.

        Raises:
            BundleError: if the bundle cannot be read.
            OSError: if it cannot be written.
        """
        copy = self._folder / bundle_sha256
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                deciding_files(str(copy), bundle_sha256)
            except BundleError:
                self._write_copy(copy, self.bundles.deciding_files(bundle_sha256))
            for other in self._folder.iterdir():
                if other.is_dir() and other != copy:
                    shutil.rmtree(other)

    def write(self, problem: str | None, history: list[PastChampion]) -> None:
        """Write the file, or mark it as fresh.

        Raises:
            OSError: if it cannot be written.
        """
        content = to_json(_Document.of(problem, history))
        if self.path.exists() and self.path.read_bytes() == content:
            now = time.time()  # the clock that `_fresh` reads
            os.utime(self.path, (now, now))
            return
        with replacing(self.path) as file:
            file.write(content)
        sync_folder(self._folder)

    def expire(self) -> None:
        """Mark the file as stale, so that new workers wait for the publisher."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path, (0, 0))

    def _read(self) -> _Document:
        return _Document.model_validate_json(self.path.read_bytes())

    def _fresh(self) -> _Document | None:
        try:
            seconds_since = time.time() - self.path.stat().st_mtime
            # A time far in the future means that the clock was set back; it is stale, too.
            return self._read() if abs(seconds_since) < STALE_SECONDS else None
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise SourceError(f"{self.path} cannot be read: {error}") from error

    def _write_copy(self, copy: Path, files: dict[str, bytes]) -> None:
        """Write a copy that appears whole or not at all."""
        with tempfile.TemporaryDirectory(dir=self._folder) as unnamed:
            whole = Path(unnamed) / "bundle"
            for name, content in files.items():
                with replacing(whole / name) as file:
                    file.write(content)
            if copy.exists():
                shutil.rmtree(copy)  # it was damaged
            whole.rename(copy)
        sync_folder(self._folder)


class Publisher:
    """Reads the source and publishes the champions that the ledger confirms.

    Args:
        source: of the champion.
        require_recorded: raises if the ledger does not have a champion.
        file: the file to write.
    """

    def __init__(
        self,
        source: Source,
        require_recorded: Callable[[ChampionRecord], None],
        file: ChampionFile,
    ) -> None:
        self._source = source
        self._require_recorded = require_recorded
        self._file = file
        self._history = file.history()
        self._confirmed = [past.record for past in self._history]
        self._logged_problem: str | None = None

    def publish(self) -> None:
        """Read the source once. Its failure is published with the champions known so far; a file
        that cannot be written becomes stale.
        """
        try:
            self._history, problem = self._read(), None
        except Exception as error:  # no error of a source or ledger may end the process
            problem = error_text(error)
        try:
            self._file.write(problem, self._history)
        except OSError as error:
            problem = f"it cannot be published: {error}"
        if problem is not None and problem != self._logged_problem:
            log.error("champion_not_published", problem=problem)
        self._logged_problem = problem

    def _read(self) -> list[PastChampion]:
        """The source's history.

        Raises:
            SourceError: if it cannot be read, or has lost its champions.
            LedgerError: if the ledger does not have the newest.
            ValidationError: if the newest is no champion's record.
        """
        found = self._source.materializations()
        if not found and self._history:
            raise SourceError(
                "it names no champion, although there was one; valid: the store that the champion "
                "is recorded in"
            )
        history: list[PastChampion] = []
        for materialization in found:
            try:
                past = PastChampion.of(materialization)
                if past.record not in self._confirmed:
                    self._require_recorded(past.record)
                    self._confirmed.append(past.record)
            except Exception:  # an older champion is left out; the newest must be valid
                if not history:
                    raise
                continue
            history.append(past)
        self._confirmed = [past.record for past in history]
        return _without_overtaken(history)


def _without_overtaken(history: list[PastChampion]) -> list[PastChampion]:
    """The history without champions that were recorded after a later entry of the ledger: their
    machine was slow, and another had moved the champion already.
    """
    highest, in_order = 0, list[PastChampion]()
    for past in reversed(history):
        entry = past.record.ledger_entry or 0
        if entry >= highest:
            highest = entry
            in_order.append(past)
    return in_order[::-1]


def error_text(error: Exception) -> str:
    """The text of an error for `problem`."""
    return str(error) if isinstance(error, SourceError) else f"{type(error).__name__}: {error}"


def _values(record: ChampionRecord) -> dict[str, Any]:
    """All values of a record, also those that its dump excludes."""
    fields = ChampionRecord.model_fields.items()
    excluded = {name: getattr(record, name) for name, field in fields if field.exclude}
    return {**record.model_dump(mode="json"), **excluded}


def _digest(problem: str | None, history: list[_Entry]) -> str:
    return hashlib.sha256(to_json([problem, history])).hexdigest()
