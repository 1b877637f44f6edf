"""Idempotency keys: the same key of the same caller gives the same answer and one decision, across
processes and restarts.

An index in SQLite tells which answer a key has had. The decision log is the truth: a key is entered
after its decision is on the disk, and whatever a dead process did not enter is read from its
segments before a key is taken for new. Who looks keys up, decides and enters them holds the index
for himself meanwhile.
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
    cut,
    open_segments,
    read_header,
    read_segment,
    taken,
)

log = structlog.get_logger()

WAIT_SECONDS = 10.0
MARK = b'"idempotency":{'
"""Stands in the line of every decision that was asked for with a key, and in no other before the
customer's own words.
"""


NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_WRITE)
"""How SQLite says that there is no space: for a page, for the memory that processes share, and
where a write was cut short.
"""


def is_full(error: sqlite3.Error) -> bool:
    """Whether an error of SQLite says that the disk is full."""
    return getattr(error, "sqlite_errorcode", None) in NO_ROOM


class Kept(NamedTuple):
    """What a key has had: SHA-256 of the request, and the answer."""

    digest: str
    answer: bytes


class IdempotencyIndex:
    """The index of one log folder. Each thread has its own.

    Args:
        file: SQLite file.
        segments: folder of the open segments.
        codec: what their payloads pass through.

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
        """Within it, nobody else looks keys up or enters them; what was entered counts if it is
        left without an error.

        Raises:
            sqlite3.OperationalError: if somebody holds it for ten seconds.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if (
                self._connection.in_transaction
            ):  # SQLite may have ended it, as it does on a full disk
                self._connection.execute("ROLLBACK")
            raise

    def find(self, caller: str, key: str) -> Kept | None:
        """What a key has had, or None if it is new. Call it within `exclusive`."""
        found = self._kept(caller, key)
        if found is None and self._read_the_dead():
            found = self._kept(caller, key)
        return found

    def add(self, caller: str, key: str, digest: str, answer: bytes) -> None:
        """Remember an answer whose decision is on the disk. Call it within `exclusive`."""
        row = (caller, key, digest, answer, time.time())
        self._connection.execute("INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?, ?)", row)

    def seal(self, path: Path, destination: Path) -> Segment | None:
        """Finish a segment that nobody writes to any more: enter its keys, cut a torn tail, move
        it.

        Args:
            path: the segment.
            destination: folder of sealed segments, on the same disk.

        Returns:
            The sealed segment; None if somebody writes to it, or nothing but a torn header was in
            it: then it is removed.

        Raises:
            DecisionLogError: if it was damaged; it stays where it is.
        """
        with self.exclusive(), taken(path) as mine:
            if not mine:
                return None
            segment = read_segment(path, self._codec)
            if segment is None:
                path.unlink()
                return None
            self._enter_keys(segment)
            cut(segment)
            self._connection.execute("DELETE FROM read_segments WHERE name = ?", (path.name,))
        with closing(self._connection.execute("PRAGMA wal_checkpoint(FULL)")) as checkpoint:
            # On the disk before the segment leaves the folder in which keys are looked for.
            checkpoint.fetchall()
        destination.mkdir(parents=True, exist_ok=True)
        try:
            sealed = path.rename(destination / path.name)
        except FileNotFoundError:  # another process has sealed it meanwhile
            return None
        return replace(segment, path=sealed, torn_bytes=0)

    def forget(self, older_than_seconds: float) -> int:
        """Remove keys that nobody will send again; how many."""
        with self.exclusive():
            return self._connection.execute(
                "DELETE FROM keys WHERE at < ?", (time.time() - older_than_seconds,)
            ).rowcount

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _kept(self, caller: str, key: str) -> Kept | None:
        row = self._connection.execute(
            "SELECT digest, answer FROM keys WHERE caller = ? AND key = ?", (caller, key)
        ).fetchone()
        return None if row is None else Kept(*row)

    def _read_the_dead(self) -> bool:
        """Enter the keys of segments that nobody writes to and nobody has sealed yet; whether there
        was one.
        """
        known = dict(self._connection.execute("SELECT name, size FROM read_segments").fetchall())
        found = False
        for path in open_segments(self._segments):
            try:
                if known.get(path.name) == path.stat().st_size:
                    continue
            except FileNotFoundError:
                continue
            with taken(path) as mine:
                if mine:
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
        except (
            DecisionLogError
        ) as error:  # it stays where it is, and whoever seals it says so again
            log.error("segment_damaged", problem=str(error))
        row = (path.name, path.stat().st_size)
        self._connection.execute("INSERT OR REPLACE INTO read_segments VALUES (?, ?)", row)

    def _enter_keys(self, segment: Segment) -> None:
        if not segment.header.keyed:
            return
        for line in segment.lines():
            if MARK in line:
                record: dict[str, Any] = from_json(line)
                if asked := record.get("idempotency"):
                    self.add(
                        record["caller"], asked["key"], asked["digest"], to_json(record["answer"])
                    )
