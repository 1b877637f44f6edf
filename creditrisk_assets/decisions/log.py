r"""The decision log: decisions of the API, synced to the disk before they are answered.

A segment is one append-only file of one process, one day and one champion. It is a sequence of
frames. Each `append` writes one frame and waits for the disk, so that after a crash only the last
frame can be torn:

    @<CRC-32 of the payload, 8 hex> <length of the payload, 10 digits>\n<payload>\n

The first payload is the header, a JSON document; each later payload has a line of JSON for each
decision. A process locks the segment that it writes. The lock ends with the process, even when it
crashes; then another process may seal the segment: cut the torn tail and treat it as finished. A
valid frame after an invalid one means damage, not a torn tail, and is never cut.

The last frame of an open segment is followed by zeros, up to a multiple of `AHEAD_BYTES`: a write
into allocated space is synced without the file's length and block map, in two thirds of the time.
After a crash the zeros are a torn tail like any other.
"""

import fcntl
import os
import re
import secrets
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError
from pydantic_core import from_json

from creditrisk_assets.decisions.codec import Codec
from creditrisk_assets.scoring.bundle import ChampionRecord, Document
from creditrisk_assets.storage import sync_folder

SUFFIX = ".log"
SEGMENT = re.compile(r"(\d{4}-\d{2}-\d{2})-([0-9a-f]{16})" + re.escape(SUFFIX))
HEAD = re.compile(rb"@([0-9a-f]{8}) (\d{10})\n")
HEAD_BYTES = 21

AHEAD_BYTES = 1 << 18
"""Some hundred decisions; the first frame of each such part also writes its zeros."""

ZEROS = memoryview(bytes(AHEAD_BYTES))


class DecisionLogError(RuntimeError):
    """A segment cannot be written or read; the message names it and the cause."""


class SegmentHeader(Document):
    """The header of a segment.

    Attributes:
        name: 16 hexadecimal digits; the middle part of its decisions' ids.
        day: of its decisions, UTC.
        portfolio: name of the records' portfolio.
        champion: the model that decided, and its rule.
        degraded: True if the fallback scorecard decided.
        keyed: True if its decisions may have idempotency keys.
    """

    format: int = 1
    name: str
    day: str
    portfolio: str
    champion: ChampionRecord
    degraded: bool
    keyed: bool

    def decision_id(self, row: int) -> str:
        """The id of one of its decisions."""
        return f"{self.day}-{self.name}-{row}"


def new_name() -> str:
    """A unique name of a segment."""
    return secrets.token_hex(8)


class SegmentWriter:
    """An open segment; its process holds the lock.

    Args:
        folder: of the open segments.
        header: its header.
        codec: encodes payloads.

    Raises:
        OSError: if it cannot be created; then nothing of it remains.
    """

    def __init__(self, folder: Path, header: SegmentHeader, codec: Codec) -> None:
        self.header = header
        self.rows = 0
        self.broken = False
        self._codec = codec
        self.size = 0
        self._length = 0
        self.path = folder / f"{header.day}-{header.name}{SUFFIX}"
        folder.mkdir(parents=True, exist_ok=True)
        unnamed = self.path.with_suffix(".new")
        self._file = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o640)
        try:
            # Locked before it has its name, so that no process treats it as finished.
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._write(header.model_dump_json().encode())
            os.link(unnamed, self.path)  # a rename could replace another segment
            sync_folder(folder)
        except BaseException:
            os.close(self._file)
            raise
        finally:
            unnamed.unlink(missing_ok=True)

    def append(self, lines: Sequence[bytes]) -> None:
        """Write decisions and sync them to the disk.

        Args:
            lines: JSON documents without line ends, one for each decision, in the order of their
                rows.

        Raises:
            OSError: if they cannot be written; then none of them counts. If a partial write cannot
                be undone, the segment is `broken` and a new one must be started.
        """
        self._write(b"\n".join(lines))
        self.rows += len(lines)

    def close(self) -> None:
        """Close the file, so that any process may seal it."""
        if self._length > self.size and not self.broken:
            with suppress(OSError):  # sealing cuts the zeros, too
                self._cut()
        os.close(self._file)

    def _write(self, payload: bytes) -> None:
        frame = make_frame(self._codec.encode(payload))
        end = self.size + len(frame)
        try:
            self._put(frame, self.size)
            if end > self._length:
                self._preallocate(end)
            os.fdatasync(self._file)
        except OSError:
            self._undo_write()
            raise
        self.size = end

    def _preallocate(self, end: int) -> None:
        """Write zeros after the last frame, if there is space for them."""
        ahead = -end % AHEAD_BYTES
        try:
            self._put(ZEROS[:ahead], end)
        except OSError:
            os.ftruncate(self._file, end)
            ahead = 0
        self._length = end + ahead

    def _put(self, content: bytes | memoryview, place: int) -> None:
        done = 0
        while done < len(content):
            done += os.pwrite(self._file, memoryview(content)[done:], place + done)

    def _cut(self) -> None:
        os.ftruncate(self._file, self.size)
        self._length = self.size
        os.fsync(self._file)

    def _undo_write(self) -> None:
        try:
            self._cut()
        except OSError:
            # The disk's content after the last whole frame is unknown; readers check it.
            self.broken = True


def make_frame(payload: bytes) -> bytes:
    """The frame of a payload."""
    return b"@%08x %010d\n%b\n" % (zlib.crc32(payload), len(payload), payload)


@dataclass(frozen=True)
class Segment:
    """A segment that was read. Its decisions, up to a hundred thousand, stay on the disk.

    Attributes:
        path: the file.
        header: its header.
        codec: decodes its payloads.
        rows: number of decisions.
        good_bytes: the end of the last whole frame.
        torn_bytes: bytes after it.
    """

    path: Path
    header: SegmentHeader
    codec: Codec
    rows: int
    good_bytes: int
    torn_bytes: int

    def lines(self) -> Iterator[bytes]:
        """JSON documents, one for each decision, in order."""
        with self.path.open("rb") as file:
            for payload, end in islice(whole_frames(file), 1, None):
                if end > self.good_bytes:  # written later
                    return
                yield from lines_of(self.codec.decode(payload))

    def records(self) -> Iterator[dict[str, Any]]:
        return (from_json(line) for line in self.lines())


def read_segment(path: Path, codec: Codec) -> Segment | None:
    """Read a segment, finished or not, up to its last whole frame.

    Returns:
        The segment; None if a crash left no whole header.

    Raises:
        DecisionLogError: if it was damaged: whole frames follow an invalid one, or a payload was
            changed.
        OSError: if it cannot be read.
    """
    header, rows, good = None, 0, 0
    with path.open("rb") as file:
        for payload, end in _frames_or_damage(path, file):
            content, good = _decoded(path, codec, payload), end
            if header is None:
                header = _header(path, content)
            else:
                rows += len(lines_of(content))
        size = os.fstat(file.fileno()).st_size
    return None if header is None else Segment(path, header, codec, rows, good, size - good)


def read_header(path: Path, codec: Codec) -> SegmentHeader | None:
    """The header of a segment; None if a crash left no whole header.

    Raises:
        DecisionLogError: if it was changed.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        first = next(whole_frames(file), None)
    return None if first is None else _header(path, _decoded(path, codec, first[0]))


def whole_frames(file: IO[bytes], start: int = 0) -> Iterator[tuple[bytes, int]]:
    """The payloads of a segment's frames up to the first torn one, each with the end of its frame.
    They are read one by one, because segments are large and several readers may run.

    Args:
        file: open for reading.
        start: offset of a frame.
    """
    file.seek(start)
    end = start
    while (head := HEAD.fullmatch(file.read(HEAD_BYTES))) is not None:
        length = int(head[2])
        if end + length > os.fstat(file.fileno()).st_size:
            return
        rest = file.read(length + 1)
        payload = rest[:length]
        if rest[length:] != b"\n" or zlib.crc32(payload) != int(head[1], 16):
            return
        end += HEAD_BYTES + length + 1
        yield payload, end


def lines_of(content: bytes) -> list[bytes]:
    """The JSON documents of a payload."""
    return [line for line in content.split(b"\n") if line]


def find_record(
    folders: Sequence[Path], codec: Codec, day: str, name: str, row: int
) -> tuple[SegmentHeader, bytes] | None:
    """The segment's header and the line of a decision in the log; None if it is in none of the
    folders.

    Args:
        folders: of segments, in the order in which a segment moves through them.
        codec: decodes their payloads.
        day: first part of the decision's id.
        name: of the segment.
        row: the last part.

    Raises:
        DecisionLogError: if the segment was damaged.
    """
    for folder in folders:
        path = folder / f"{day}-{name}{SUFFIX}"
        try:
            found = _line_of(path, codec, row)
        except FileNotFoundError:
            continue
        if found is not None:
            return found
    return None


def segments_in(folder: Path) -> list[Path]:
    """The segments in a folder, by name."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if SEGMENT.fullmatch(path.name))


@contextmanager
def sealing_lock(path: Path) -> Iterator[bool]:
    """Lock a segment for sealing. Yields False if another process writes or seals it, or it is
    gone.
    """
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield _is_same_file(path, file)


def cut_torn_tail(segment: Segment) -> None:
    """Cut the torn tail of a locked segment; it never holds an acknowledged decision."""
    if segment.torn_bytes:
        with segment.path.open("r+b") as file:
            file.truncate(segment.good_bytes)
            os.fsync(file.fileno())


def _line_of(path: Path, codec: Codec, row: int) -> tuple[SegmentHeader, bytes] | None:
    """The header and a line of a segment; None if no whole frame has that line."""
    header: SegmentHeader | None = None
    first = 0
    with path.open("rb") as file:
        for payload, _ in _frames_or_damage(path, file):
            content = _decoded(path, codec, payload)
            if header is None:
                header = _header(path, content)
                continue
            lines = lines_of(content)
            if row < first + len(lines):
                return header, lines[row - first]
            first += len(lines)
    return None


def _frames_or_damage(path: Path, file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """All whole frames of a segment.

    Raises:
        DecisionLogError: if there are other bytes between them.
    """
    good = 0
    while True:
        for payload, end in whole_frames(file, good):
            yield payload, end
            good = end
        file.seek(good)
        if _is_blank(file) or not _holds_frame(file, good):
            return
        # A frame that is whole by now was being written.
        if next(whole_frames(file, good), None) is None:
            problem = "whole frames follow a torn one; nothing is cut there"
            raise DecisionLogError(f"{path} was damaged at byte {good}: {problem}")


def _decoded(path: Path, codec: Codec, payload: bytes) -> bytes:
    try:
        return codec.decode(payload)
    except Exception as error:  # a user's codec may raise anything
        raise DecisionLogError(
            f"{path} cannot be decoded: {type(error).__name__}: {error}"
        ) from error


def _header(path: Path, content: bytes) -> SegmentHeader:
    try:
        header = SegmentHeader.model_validate_json(content)
    except ValidationError as error:
        raise DecisionLogError(f"{path} has a header that cannot be read: {error}") from error
    if path.name != f"{header.day}-{header.name}{SUFFIX}":
        raise DecisionLogError(
            f"{path} is the segment {header.day}-{header.name}; valid: its own name"
        )
    return header


def _is_blank(rest: IO[bytes]) -> bool:
    """True if the rest of the file is zeros."""
    while text := rest.read(AHEAD_BYTES):
        if text.strip(b"\0"):
            return False
    return True


def _holds_frame(file: IO[bytes], place: int) -> bool:
    """True if a whole frame begins after a place: the segment is damaged there, not torn."""
    file.seek(place)
    tail = file.read()
    return any(
        next(whole_frames(file, place + head.start()), None) is not None
        for head in HEAD.finditer(tail, 1)
    )


def _is_same_file(path: Path, file: IO[bytes]) -> bool:
    """True if the path still names the open file."""
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
