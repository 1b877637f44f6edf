"""Idempotency keys: the same key of the same caller gives the same answer and one decision, across
processes and restarts.

An SQLite index holds the answer of each key. The decision log is the truth: a key is entered after
its decision is on the disk, and the keys that a dead process did not enter are read from its
segments before a key counts as new. A process holds the index exclusively while it looks keys up,
decides and enters them.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from pydantic_core import from_json, to_json

from creditrisk_assets.decisions.codec import Codec
from creditrisk_assets.decisions.log import (
    DecisionLogError,
    Segment,
    cut_torn_tail,
    read_header,
    read_segment,
    sealing_lock,
    segments_in,
)

log = structlog.get_logger()

WAIT_SECONDS = 10.0
MARK = b'"idempotency":{'
"""Part of the line of every decision with a key. In other lines it can only be in the customer's
values.
"""


NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_WRITE)
"""SQLite's errors without disk space: for a page, for shared memory, for the rest of a write."""


def is_full(error: sqlite3.Error) -> bool:
    """True if an error of SQLite means that the disk is full."""
    return getattr(error, "sqlite_errorcode", None) in NO_ROOM


class KeysUnavailable(RuntimeError):
    """The replicas' shared keys cannot be read, or one is claimed by a replica that has not
    answered.
    """


class StoredAnswer(NamedTuple):
    """The answer of a key, and the SHA-256 of its request."""

    digest: str
    answer: bytes


class IdempotencyIndex:
    """The index of one log folder. Each thread opens its own.

    Args:
        file: SQLite file.
        segments: folder of the open segments.
        codec: decodes their payloads.

    Raises:
        sqlite3.Error: if it cannot be opened.
    """

    def __init__(self, file: Path, segments: Path, codec: Codec) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._segments = segments
        self._codec = codec
        self._connection = sqlite3.connect(
            file, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        with self.exclusive():
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS keys (caller TEXT, key TEXT, digest TEXT, answer "
                "BLOB, at REAL, PRIMARY KEY (caller, key)) WITHOUT ROWID"
            )
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS read_segments (name TEXT PRIMARY KEY, size INT) "
                "WITHOUT ROWID"
            )

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the index exclusively; new entries are committed unless an error ends the block.

        Raises:
            sqlite3.OperationalError: if another process holds it for ten seconds.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite may have ended the transaction already, as it does on a full disk.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def find(self, caller: str, key: str) -> StoredAnswer | None:
        """The answer of a key, or None if the key is new. Call it within `exclusive`."""
        found = self._stored_answer(caller, key)
        if found is None and self._enter_abandoned_segments():
            found = self._stored_answer(caller, key)
        return found

    def add(self, caller: str, key: str, digest: str, answer: bytes) -> None:
        """Enter an answer whose decision is on the disk. Call it within `exclusive`."""
        row = (caller, key, digest, answer, time.time())
        self._connection.execute("INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?, ?)", row)

    def seal(self, path: Path, destination: Path) -> Segment | None:
        """Finish a segment without a writer: enter its keys, cut a torn tail, move it.

        Args:
            path: the segment.
            destination: folder of sealed segments, on the same disk.

        Returns:
            The sealed segment; None if it has a writer, or only a torn header: then it is removed.

        Raises:
            DecisionLogError: if it was damaged; it is not moved.
        """
        with self.exclusive(), sealing_lock(path) as locked:
            if not locked:
                return None
            segment = read_segment(path, self._codec)
            if segment is None:
                path.unlink()
                return None
            self._enter_keys(segment)
            cut_torn_tail(segment)
            self._connection.execute("DELETE FROM read_segments WHERE name = ?", (path.name,))
        with closing(self._connection.execute("PRAGMA wal_checkpoint(FULL)")) as checkpoint:
            # The keys must be on the disk before the segment leaves the folder of open segments.
            checkpoint.fetchall()
        destination.mkdir(parents=True, exist_ok=True)
        try:
            sealed = path.rename(destination / path.name)
        except FileNotFoundError:  # another process has sealed it meanwhile
            return None
        return replace(segment, path=sealed, torn_bytes=0)

    def forget(self, older_than_seconds: float) -> int:
        """Remove old keys.

        Returns:
            The number of removed keys.
        """
        with self.exclusive():
            return self._connection.execute(
                "DELETE FROM keys WHERE at < ?", (time.time() - older_than_seconds,)
            ).rowcount

    def close(self) -> None:
        self._connection.close()

    def _stored_answer(self, caller: str, key: str) -> StoredAnswer | None:
        row = self._connection.execute(
            "SELECT digest, answer FROM keys WHERE caller = ? AND key = ?", (caller, key)
        ).fetchone()
        return None if row is None else StoredAnswer(*row)

    def _enter_abandoned_segments(self) -> bool:
        """Enter the keys of unsealed segments without a writer.

        Returns:
            True if there was such a segment.
        """
        known = dict(self._connection.execute("SELECT name, size FROM read_segments").fetchall())
        found = False
        for path in segments_in(self._segments):
            try:
                if known.get(path.name) == path.stat().st_size:
                    continue
            except FileNotFoundError:
                continue
            with sealing_lock(path) as locked:
                if locked:
                    found = True
                    self._read(path)
        return found

    def _read(self, path: Path) -> None:
        try:
            header = read_header(path, self._codec)
            segment = (
                read_segment(path, self._codec) if header is not None and header.keyed else None
            )
            if segment is not None:
                self._enter_keys(segment)
        except DecisionLogError as error:  # sealing it will report the same error
            log.error("segment_damaged", problem=str(error))
        row = (path.name, path.stat().st_size)
        self._connection.execute("INSERT OR REPLACE INTO read_segments VALUES (?, ?)", row)

    def _enter_keys(self, segment: Segment) -> None:
        if not segment.header.keyed:
            return
        for line in segment.lines():
            if MARK in line:
                record: dict[str, Any] = from_json(line)
                if request := record.get("idempotency"):
                    self.add(
                        record["caller"],
                        request["key"],
                        request["digest"],
                        to_json(record["answer"]),
                    )
