r"""The decision log: decisions of the API as they were made, on the disk before anybody is told.

A segment is one append-only file of one process, one day and one champion. It is a sequence of
frames; a frame is what one `append` wrote, followed by one wait for the disk, so that after a crash
only the last frame can be torn:

    @<CRC-32 of the payload, 8 hex> <length of the payload, 10 digits>\n<payload>\n

The first payload is the header, a JSON document; each other one is a line of JSON for each
decision. A process holds a lock on the segment that it writes; the lock ends with the process,
however that ends, and then others may seal the segment: cut the torn tail and treat it as finished.
A valid frame behind an invalid one is no torn tail, but damage, and is never cut.

Behind the last frame of an open segment stand zeros, up to a whole number of `AHEAD_BYTES`: a write
into a place that the file has already is brought to the disk without its length and its map of
blocks, in two thirds of the time. After a crash they are a torn tail like any other.
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

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from creditrisk_assets.decisions.codec import Codec
from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.storage import sync_folder

SUFFIX = ".log"
SEGMENT = re.compile(r"(\d{4}-\d{2}-\d{2})-([0-9a-f]{16})" + re.escape(SUFFIX))
HEAD = re.compile(rb"@([0-9a-f]{8}) (\d{10})\n")
HEAD_BYTES = 21

AHEAD_BYTES = 1 << 18
"""Some hundred decisions; the frame that begins another such part brings its zeros to the disk,
too.
"""

ZEROS = memoryview(bytes(AHEAD_BYTES))


class DecisionLogError(RuntimeError):
    """A segment cannot be written or read; the message says which and why."""


class SegmentHeader(BaseModel):
    """What a segment says of itself.

    Attributes:
        name: 16 hexadecimal digits; the middle part of its decisions' ids.
        day: of its decisions, UTC.
        portfolio: whose records they are about.
        champion: who decided, by which rule.
        degraded: whether that was the fallback scorecard.
        keyed: whether any of its decisions may have been asked for with an idempotency key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    """A name that no other segment has."""
    return secrets.token_hex(8)


class SegmentWriter:
    """An open segment; its process holds the lock.

    Args:
        folder: of the open segments.
        header: what it says of itself.
        codec: encodes payloads.

    Raises:
        OSError: if it cannot be made; then nothing is left of it.
    """

    def __init__(self, folder: Path, header: SegmentHeader, codec: Codec) -> None:
        self.header = header
        self.rows = 0
        self.broken = False
        self._codec = codec
        self._size = 0
        self._length = 0
        self.path = folder / f"{header.day}-{header.name}{SUFFIX}"
        folder.mkdir(parents=True, exist_ok=True)
        unnamed = self.path.with_suffix(".new")
        self._file = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(
                self._file, fcntl.LOCK_EX
            )  # before it has its name, so that nobody takes it for finished
            self._write(header.model_dump_json().encode())
            os.link(unnamed, self.path)  # which fails where a rename would replace another segment
            sync_folder(folder)
        except BaseException:
            os.close(self._file)
            raise
        finally:
            unnamed.unlink(missing_ok=True)

    def append(self, lines: Sequence[bytes]) -> None:
        """Write decisions; they are on the disk when this returns.

        Args:
            lines: JSON documents without line ends, one for each decision, in the order of their
                rows.

        Raises:
            OSError: if they could not be brought to the disk. Then none of them counts. The segment
                goes on if what was written of them could be taken back, else it is `broken`:
                another one must be begun.
        """
        self._write(b"\n".join(lines))
        self.rows += len(lines)

    @property
    def size(self) -> int:
        """Bytes of its frames."""
        return self._size

    def close(self) -> None:
        """Let go of it: others may seal it."""
        if self._length > self._size and not self.broken:
            with suppress(OSError):  # whoever seals it cuts the zeros, too
                self._cut()
        os.close(self._file)

    def _write(self, payload: bytes) -> None:
        frame = framed(self._codec.encode(payload))
        end = self._size + len(frame)
        try:
            self._put(frame, self._size)
            if end > self._length:
                self._go_ahead(end)
            os.fdatasync(self._file)
        except OSError:
            self._take_back()
            raise
        self._size = end

    def _go_ahead(self, end: int) -> None:
        """Put zeros behind the last frame; where there is no room for them, none."""
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
        os.ftruncate(self._file, self._size)
        self._length = self._size
        os.fsync(self._file)

    def _take_back(self) -> None:
        try:
            self._cut()
        except OSError:
            # What the disk holds behind the last good frame nobody knows; readers will find out.
            self.broken = True


def framed(payload: bytes) -> bytes:
    """A payload as it stands in a segment."""
    return b"@%08x %010d\n%b\n" % (zlib.crc32(payload), len(payload), payload)


@dataclass(frozen=True)
class Segment:
    """A segment as it was read. Its decisions stay on the disk: there may be a hundred thousand of
    them.

    Attributes:
        path: the file.
        header: what it says of itself.
        codec: what its payloads pass through.
        rows: how many decisions it holds.
        good_bytes: where the last whole frame ends.
        torn_bytes: what lies behind it.
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
                if end > self.good_bytes:  # written since
                    return
                yield from lines_of(self.codec.decode(payload))

    def records(self) -> Iterator[dict[str, Any]]:
        """The decisions."""
        return (from_json(line) for line in self.lines())


def read_segment(path: Path, codec: Codec) -> Segment | None:
    """Read a segment, which may be still written to, up to its last whole frame.

    Returns:
        The segment; None where a crash has left not even a whole header.

    Raises:
        DecisionLogError: if it was damaged: a frame is invalid and others follow it, or a payload
            is not what was written.
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
    """What a segment says of itself; None where a crash has left not even that.

    Raises:
        DecisionLogError: if it is not what was written.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        first = next(whole_frames(file), None)
    return None if first is None else _header(path, _decoded(path, codec, first[0]))


def whole_frames(file: IO[bytes], start: int = 0) -> Iterator[tuple[bytes, int]]:
    """The payloads of a segment's frames up to the first that is not whole, each with the place
    where its frame ends. They are read one by one: a segment is large, and many may be looking.

    Args:
        file: open for reading.
        start: where a frame begins.
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
    """A decision that is still in the log: its segment's header, and its line; None if it is in
    none of the folders.

    Args:
        folders: of segments, in the order in which a segment goes through them.
        codec: what their payloads pass through.
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


def open_segments(folder: Path) -> list[Path]:
    """The segments in a folder, written to or not, by name."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if SEGMENT.fullmatch(path.name))


@contextmanager
def taken(path: Path) -> Iterator[bool]:
    """Within it, nobody else seals the segment. False if somebody writes to it or seals it, or it
    is gone.
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
        yield _is_still(path, file)


def cut(segment: Segment) -> None:
    """Cut the torn tail of a segment that was taken; what was acknowledged is never in it."""
    if segment.torn_bytes:
        with segment.path.open("r+b") as file:
            file.truncate(segment.good_bytes)
            os.fsync(file.fileno())


def _line_of(path: Path, codec: Codec, row: int) -> tuple[SegmentHeader, bytes] | None:
    """One line of a segment and its header; None if no whole frame has it."""
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
        DecisionLogError: if there is something between them.
    """
    good = 0
    while True:
        for payload, end in whole_frames(file, good):
            yield payload, end
            good = end
        file.seek(good)
        if _is_blank(file) or not _holds_frame(file, good):
            return
        if (
            next(whole_frames(file, good), None) is None
        ):  # else it was being written, and has been meanwhile
            problem = "whole frames follow one that is not; nothing is cut there"
            raise DecisionLogError(f"{path} was damaged at byte {good}: {problem}")


def _decoded(path: Path, codec: Codec, payload: bytes) -> bytes:
    try:
        return codec.decode(payload)
    except Exception as error:  # a codec of the user's own may raise anything
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
    """Whether nothing was written from here on: zeros, to the end of the file."""
    while text := rest.read(AHEAD_BYTES):
        if text.strip(b"\0"):
            return False
    return True


def _holds_frame(file: IO[bytes], place: int) -> bool:
    """Whether a whole frame begins anywhere behind a place. What is looked through is a torn tail,
    but for a damaged segment.
    """
    file.seek(place)
    tail = file.read()
    return any(
        next(whole_frames(file, place + head.start()), None) is not None
        for head in HEAD.finditer(tail, 1)
    )


def _is_still(path: Path, file: IO[bytes]) -> bool:
    """Whether the name still belongs to the open file."""
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
