"""The champion that this API answered by last, kept on a disk of its own: with it the API starts
without the orchestrator and without the artifact store.

The copy cannot lie by accident: the bundle's hash is proven again whenever it is read, and the
    record carries one of its own.
"""

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json

from creditrisk_assets.scoring.bundle import BundleError, ChampionRecord, deciding_files
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.storage import replacing, sync_folder

log = structlog.get_logger()

RECORD = "champion.json"
LOCK = ".lock"


class _Document(BaseModel):
    """The record as it is kept; `sha256` is over its values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    champion: dict[str, Any]
    sha256: str


class LastKnown:
    """The last known champion of one API: its record, and the files of its bundle that decide. Its
    processes share it.

    Args:
        folder: on a disk of this machine.
        bundles: where the bundles of the store are.
    """

    def __init__(self, folder: Path, bundles: BundleStore) -> None:
        self._folder = folder
        self._bundles = bundles

    def record(self) -> ChampionRecord | None:
        """The last known champion; None if none is known, or what is kept of it was damaged."""
        document = self._folder / RECORD
        try:
            kept = _Document.model_validate_json(document.read_bytes())
            if kept.sha256 != _digest(kept.champion):
                raise ValueError(f"it has SHA-256 {_digest(kept.champion)}; valid: {kept.sha256}")
            return ChampionRecord.from_values(kept.champion)
        except FileNotFoundError:
            return None
        except (OSError, ValidationError, ValueError) as error:
            log.error("last_known_not_read", file=str(document), problem=str(error))
            return None

    def location(self, bundle_sha256: str) -> str | None:
        """Where the copy of a bundle is; None if there is none. Whoever loads it proves its
        hash.
        """
        copy = self._folder / bundle_sha256
        return str(copy) if copy.is_dir() else None

    def keep(self, record: ChampionRecord) -> None:
        """Keep a champion that has been proven, in place of the one before; a crash leaves the one
        or the other.

        Raises:
            BundleError: if its bundle cannot be read any more.
            OSError: if the disk does not take it.
        """
        undumped = {
            name: getattr(record, name)
            for name, field in ChampionRecord.model_fields.items()
            if field.exclude
        }
        values = {**record.model_dump(mode="json"), **undumped}
        content = to_json(_Document(champion=values, sha256=_digest(values)))
        document, copy = self._folder / RECORD, self._folder / record.bundle_sha256
        with self._alone():
            if not _is_whole(copy, record.bundle_sha256):
                self._put(copy, self._bundles.deciding_files(record.bundle_sha256))
            if not document.exists() or document.read_bytes() != content:
                with replacing(document) as file:
                    file.write(content)
                sync_folder(self._folder)
            for other in self._folder.iterdir():
                if other.is_dir() and other != copy:
                    shutil.rmtree(other)

    def _put(self, copy: Path, files: dict[str, bytes]) -> None:
        """A copy that is whole before it has its name."""
        with tempfile.TemporaryDirectory(dir=self._folder) as unnamed:
            whole = Path(unnamed) / "bundle"
            for name, content in files.items():
                with replacing(whole / name) as file:
                    file.write(content)
            if copy.exists():
                shutil.rmtree(copy)  # it was damaged
            whole.rename(copy)
        sync_folder(self._folder)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of several processes that keep a champion, one after the other does."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _is_whole(copy: Path, bundle_sha256: str) -> bool:
    try:
        deciding_files(str(copy), bundle_sha256)
    except BundleError:
        return False
    return True


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(to_json(values)).hexdigest()
