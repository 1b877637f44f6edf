"""Reader of one CSV or Parquet file as a stream of record batches, in memory that does not depend
on the file's length.

A CSV file is read as text, so one bad cell costs one row and not the file; Parquet has its own
types. The contract of the cells belongs in `validation`.

CSV follows RFC 4180: a quoted cell may hold separators, quotes and line ends. The file is cut into
pieces of whole records before it is parsed, and each record stores its first line, so line numbers
always match those of an editor. An open quote, or a quote that no record of the header's width
closes, costs its own line and not the following ones.
"""

import codecs
import csv
import errno
import gzip
import os
import re
import string
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import IO, Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from creditrisk_assets.landing.file_kinds import (
    HEAD_BYTES,
    is_text,
    not_a_csv,
    not_a_table,
)
from creditrisk_assets.portfolio.contract import Portfolio, canonical_names
from creditrisk_assets.storage import StoredPath, is_local, store_errors

BATCH_ROWS = 65_536
BLOCK_BYTES = 1 << 20
LINE_LIMIT = 1 << 20
"""Bytes of the longest valid line; a customer's record has a few hundred."""
RECORD_LIMIT = 1 << 16
"""Bytes of the longest record with a line end in it; the search for the end of an open quote stops
here.
"""
PIECE_LIMIT = 32 << 20
"""Bytes parsed at a time."""
COLUMNS_LIMIT = 4_096
REMOTE_BLOCK_BYTES = 8 << 20
DELIMITERS = ",;\t|"
HEADER_LINES = 5
"""Lines in which the header is searched: exports put a title, or a second row of names, above
it.
"""

NUMERIC = re.compile(r"[+-]?\d+([.,]\d*)?")

NO_ROWS = "the file has a header and no rows; valid: at least one row"
NOT_TEXT = "not a text file: {}; valid: UTF-8 CSV"
OPEN_QUOTE = (
    "a quote is left open; valid: a quote at the end of the cell too, a quote within quotes "
    "written twice"
)

FileKind = Literal["csv", "csv.gz", "parquet", "arrow"]
Malformed = tuple[int, str, str]
"""Line that is not a row: number, reason, text."""


class UnreadableFile(ValueError):
    """A landed file is not a readable table; the message says why."""


@dataclass(frozen=True)
class RawBatch:
    """Batch of rows of one file before validation.

    Attributes:
        file: the file's name.
        cells: canonical column names, the file's own values (text for CSV).
        lines: each row's line in the file, from 1; its row number, from 1, for Parquet.
        malformed: lines among them that are not rows.
    """

    file: str
    cells: pa.RecordBatch
    lines: NDArray[np.int64]
    malformed: list[Malformed]

    @property
    def count(self) -> int:
        """Number of rows that arrived, readable or not."""
        return len(self.lines) + len(self.malformed)


class TableStream:
    """Open file of rows. Iterate over it once, within `with` or to its end.

    Iteration raises `UnreadableFile` as soon as the file turns out not to be a table; the earlier
    batches must then be discarded.

    Attributes:
        file: the file's name.
        headers: the file's own column names.
        schema: names of the contract, or else in canonical spelling, with their types.
    """

    def __init__(
        self,
        file: str,
        headers: Sequence[str],
        schema: pa.Schema,
        batches: Iterator[RawBatch],
        source: "_Source",
    ) -> None:
        self.file = file
        self.headers = list(headers)
        self.schema = schema
        self._batches = batches
        self._source = source

    @property
    def names(self) -> list[str]:
        """Names of the columns, as in `schema`."""
        return list(self.schema.names)

    @property
    def has_published_names(self) -> bool:
        """Whether the file has the published column names."""
        return self.names != canonical_names(self.headers)

    @property
    def share_read(self) -> float:
        """Share of the file read so far, 0 to 1."""
        return self._source.share_read

    def __iter__(self) -> Iterator[RawBatch]:
        rows = 0
        with self:
            for batch in self._batches:
                rows += batch.count
                yield batch
            self._source.require_unchanged()
        if rows == 0:
            raise UnreadableFile(NO_ROWS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()


def kind_of(name: str) -> FileKind:
    """Format of a file by its name."""
    lowered = name.lower()
    if lowered.endswith(".parquet"):
        return "parquet"
    return "csv.gz" if lowered.endswith(".gz") else "csv"


def read_batches(
    path: StoredPath, batch_rows: int = BATCH_ROWS, portfolio: Portfolio | None = None
) -> TableStream:
    """Read one CSV or Parquet file without validating its cells.

    CSV is UTF-8 with or without a byte-order mark, separated by commas, semicolons, tabs or bars.
    Blank lines, and lines of only separators and white space, are not rows.

    Args:
        path: the file; Parquet if its name ends in `.parquet`, compressed CSV if in `.gz`.
        batch_rows: maximum rows of a batch.
        portfolio: contract by which a header below the first line is found and published names are
            translated.

    Raises:
        UnreadableFile: if it is empty, not text, not Parquet, or names a column twice.
        OSError: if it cannot be opened or its store fails.
    """
    kind = kind_of(path.name)
    return _stream(path.name, _Source.open(path, kind), kind, batch_rows, BLOCK_BYTES, portfolio)


def read_body(
    file: IO[bytes], kind: FileKind, batch_rows: int, block_bytes: int, portfolio: Portfolio
) -> TableStream:
    """Read a table from an open file, such as the body of a request, and leave it open.

    Args:
        file: seekable.
        kind: its format.
        batch_rows: maximum rows of a batch.
        block_bytes: bytes of text read at a time.
        portfolio: as for `read_batches`.

    Raises:
        UnreadableFile: as `read_batches` does.
    """
    return _stream("body", _Source(file, kind), kind, batch_rows, block_bytes, portfolio)


def _stream(
    name: str,
    source: "_Source",
    kind: FileKind,
    batch_rows: int,
    block_bytes: int,
    portfolio: Portfolio | None,
) -> TableStream:
    try:
        if source.size == 0:
            raise UnreadableFile("the file is empty; valid: a header line and at least one row")
        if kind in ("parquet", "arrow"):
            return _arrow_stream(name, source, kind, batch_rows, portfolio)
        read = source.read if kind == "csv" else _unzipped(source)
        return _csv_stream(name, source, read, portfolio, batch_rows, block_bytes)
    except BaseException:
        source.close()
        raise


def _column_names(headers: Sequence[str], portfolio: Portfolio | None) -> list[str]:
    """Names of the columns with these headers, translated by a portfolio if there is one.

    Raises:
        UnreadableFile: if two headers mean the same column, or there are too many.
    """
    if len(headers) > COLUMNS_LIMIT:
        raise UnreadableFile(
            f"the header names {len(headers):,} columns; valid: at most {COLUMNS_LIMIT:,}"
        )
    try:
        names = canonical_names(headers)
    except ValueError as error:
        raise UnreadableFile(str(error)) from error
    return names if portfolio is None else portfolio.contract_names(names)


class _Source:
    """File open for reading, with the share read so far and the last failure of its store."""

    def __init__(self, file: IO[bytes], kind: FileKind, path: StoredPath | None = None) -> None:
        self._file = file
        self._path = path
        self._sequential = kind != "parquet"
        self.failure: Exception | None = None
        self.share_read = 0.0
        with self._errors():
            self.size = file.seek(0, 2)
            file.seek(0)
        self._initial_state = self._state()

    @classmethod
    def open(cls, path: StoredPath, kind: FileKind) -> Self:
        """Open a stored file.

        Raises:
            OSError: if it cannot be opened.
        """
        with store_errors(path):
            if is_local(path):
                file: IO[bytes] = path.open("rb")
            else:  # pyarrow reads whole column chunks of Parquet, in no fixed order
                cache = "none" if kind == "parquet" else "readahead"
                file = path.open("rb", block_size=REMOTE_BLOCK_BYTES, cache_type=cache)  # type: ignore[call-overload]
        return cls(file, kind, path)

    def _errors(self) -> AbstractContextManager[None]:
        return nullcontext() if self._path is None else store_errors(self._path)

    def require_unchanged(self) -> None:
        """Check that the file has not changed since it was opened; object stores do so themselves.

        Raises:
            OSError: if it has; the rows read are then a mixture of two versions.
        """
        if self._state() != self._initial_state:
            raise OSError(errno.EBUSY, "the file changed while it was read", str(self._path))

    def _state(self) -> tuple[int, int] | None:
        if self._path is None or not is_local(self._path):
            return None
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def read(self, size: int = -1) -> bytes:
        try:
            with self._errors():
                content = self._file.read(size)
        except Exception as error:
            self.failure = error
            raise
        if self._sequential and self.size:
            self.share_read = min(1.0, self.share_read + len(content) / self.size)
        return content

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def flush(self) -> None:
        """Required by the file protocol; the source is read-only."""

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        if self._path is not None:  # the caller's file stays open
            self._file.close()


# Parquet and Arrow


def _arrow_stream(
    name: str, source: _Source, kind: FileKind, batch_rows: int, portfolio: Portfolio | None
) -> TableStream:
    footer_rows = None
    with _arrow_errors(source, kind):
        file = pa.PythonFile(source, mode="r")
        if kind == "parquet":
            parquet = pq.ParquetFile(
                file, buffer_size=BLOCK_BYTES, pre_buffer=False, page_checksum_verification=True
            )
            schema, footer_rows = parquet.schema_arrow, parquet.metadata.num_rows
            batches = parquet.iter_batches(batch_size=batch_rows, use_threads=False)
        else:
            batches = pa.ipc.open_stream(file)
            schema = batches.schema
    names = _column_names(schema.names, portfolio)
    fields = [field.with_name(name) for field, name in zip(schema, names, strict=True)]

    def rows() -> Iterator[RawBatch]:
        done = 0
        while True:
            with _arrow_errors(source, kind):
                batch = next(iter(batches), None)
                if batch is None:
                    break
                batch.validate(full=True)
            for start in range(0, batch.num_rows, batch_rows):
                part = batch.slice(start, batch_rows)
                lines = np.arange(done + 1, done + 1 + part.num_rows, dtype=np.int64)
                done += part.num_rows
                if footer_rows is not None:
                    source.share_read = min(1.0, done / footer_rows) if footer_rows > 0 else 1.0
                yield RawBatch(name, part.rename_columns(names), lines, [])
        if footer_rows not in (None, done):
            raise UnreadableFile(
                f"not a readable Parquet file: {done:,} rows where its footer says {footer_rows:,}"
            )

    return TableStream(name, schema.names, pa.schema(fields), rows(), source)


@contextmanager
def _arrow_errors(source: _Source, kind: FileKind) -> Iterator[None]:
    """Turn an error while reading Parquet or Arrow into the store's own failure, or else into an
    unreadable file.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        if source.failure is not None:
            raise source.failure from error
        if kind == "arrow":
            raise UnreadableFile(f"not a readable Arrow stream: {error}") from error
        source.seek(0)
        head = source.read(HEAD_BYTES)
        why: object = error
        if not head.startswith(b"PAR1"):
            why = not_a_table(head) or (
                "the file is text; valid: a name that ends in .csv" if is_text(head) else error
            )
        raise UnreadableFile(f"not a readable Parquet file: {why}") from error


# CSV


def _unzipped(source: _Source) -> Callable[[int], bytes]:
    """Reader of a gzip file's content."""
    file = gzip.GzipFile(fileobj=source, mode="rb")

    def read(size: int) -> bytes:
        try:
            return bytes(file.read(size))
        except (OSError, EOFError, zlib.error) as error:
            raise source.failure or UnreadableFile(f"not a readable gzip file: {error}") from error

    return read


def _csv_stream(
    name: str,
    source: _Source,
    read: Callable[[int], bytes],
    portfolio: Portfolio | None,
    batch_rows: int,
    block_bytes: int,
) -> TableStream:
    whole_lines = _whole_lines(_text_blocks(read, block_bytes))
    start = next(whole_lines, b"\n")
    while start.count(b"\n") < HEADER_LINES and (more := next(whole_lines, None)) is not None:
        start += more
    header = _find_header(start.decode(), portfolio)
    names = _column_names(header.cells, portfolio)
    rest = b"".join(start.splitlines(keepends=True)[header.last_line :])

    def batches() -> Iterator[RawBatch]:
        records = _records(
            chain([rest], whole_lines), header.last_line + 1, header.delimiter.encode(), len(names)
        )
        for piece in _pieces(records, batch_rows):
            yield _parsed(name, names, header.delimiter, piece)

    schema = pa.schema([(column, pa.string()) for column in names])
    return TableStream(name, header.cells, schema, batches(), source)


@dataclass(frozen=True)
class _Header:
    """Column names as spelt in the file, the delimiter, and the last line of the header, from 1."""

    cells: list[str]
    delimiter: str
    last_line: int


def _find_header(text: str, portfolio: Portfolio | None) -> _Header:
    """Find the header: the first line, unless a later one names every field and the first does not.

    Args:
        text: the file's first lines.
        portfolio: its contract recognises headers.
    """
    lines = text.split("\n")[:-1]
    found: list[_Header | UnreadableFile] = []
    for place in range(min(HEADER_LINES, len(lines))):
        try:
            header = _header(lines, place)
        except UnreadableFile as error:
            found.append(error)
            continue
        with suppress(ValueError):  # two headers mean the same column
            if portfolio is not None and portfolio.is_header(canonical_names(header.cells)):
                return header
        found.append(header)
    if isinstance(found[0], UnreadableFile):
        raise found[0]
    return found[0]


def _header(lines: Sequence[str], place: int) -> _Header:
    line = lines[place]
    bare = re.sub(r'"[^"]*"?', "", line)
    delimiter = max(DELIMITERS, key=bare.count)
    is_open = line.count('"') % 2 == 1
    reader = csv.reader(
        (f"{line}\n" for line in lines[place:]), delimiter=delimiter, strict=is_open
    )
    try:
        cells = next(reader, [])
    except csv.Error as error:
        why = OPEN_QUOTE if is_open else error
        raise UnreadableFile(f"the first line {line[:60]!r} is no header: {why}") from error
    if len(cells) == 1 and any(sign in cells[0] for sign in DELIMITERS):
        raise UnreadableFile(
            f"the first line {line[:60]!r} is no header: it is in quotes as a whole; valid: "
            "quotes around single cells, or none"
        )
    if len(cells) < 2:
        raise UnreadableFile(
            f"the first line {line.strip()[:60]!r} is no header; valid: column names separated by "
            ", or ; or tabs or |"
        )
    if sum(bool(NUMERIC.fullmatch(cell.strip())) for cell in cells) * 2 > len(cells):
        raise UnreadableFile(
            f"the first line {line.strip()[:60]!r} is no header: most of its cells are numbers; "
            "valid: column names"
        )
    return _Header([cell.strip() for cell in cells], delimiter, place + reader.line_num)


def _text_blocks(read: Callable[[int], bytes], block_bytes: int) -> Iterator[bytes]:
    """Blocks of a text: checked to be UTF-8 without zero bytes, without a byte-order mark, every
    line end a newline.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    done, pending, carriage_return = 0, 0, b""
    while block := read(block_bytes):
        if done == 0 and (why := not_a_csv(block[:HEAD_BYTES])) is not None:
            raise UnreadableFile(why)
        if (zero := block.find(b"\0")) >= 0:
            raise UnreadableFile(NOT_TEXT.format(f"a zero byte near position {done + zero}"))
        if pending or not block.isascii():
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                place, byte = done - pending + error.start, error.object[error.start]
                raise UnreadableFile(
                    NOT_TEXT.format(f"byte {byte:#04x} near position {place}")
                ) from error
            pending = len(decoder.getstate()[0])
        if done == 0:
            block = block.removeprefix(codecs.BOM_UTF8)
        done += len(block)
        if carriage_return or b"\r" in block:
            block = carriage_return + block
            # Its newline may come with the next block.
            carriage_return = b"\r" if block.endswith(b"\r") else b""
            block = (
                block.removesuffix(carriage_return).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            )
        yield block
    if pending:
        raise UnreadableFile(NOT_TEXT.format("it ends within a character"))
    if carriage_return:
        yield b"\n"


def _whole_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Regroup blocks to end at line ends; the last line gets a newline if it has none."""
    partial, lines = b"", 0
    for block in blocks:
        first = block.find(b"\n")
        if len(partial) + (len(block) if first < 0 else first) > LINE_LIMIT:
            raise UnreadableFile(
                f"line {lines + 1} is longer than {LINE_LIMIT:,} bytes; valid: a shorter line "
                "for each record"
            )
        if first < 0:
            partial += block
            continue
        end = block.rfind(b"\n") + 1
        yield partial + block[:end]
        partial = block[end:]
        lines += block.count(b"\n")
    if partial:
        yield partial + b"\n"


@dataclass(frozen=True)
class _Records:
    """Text of whole records.

    Attributes:
        text: the records, concatenated.
        ends: end of each record in the text.
        lines: first line of each record in the file.
        malformed: lines among them that are not records.
        several_lines: whether any record has a line end in it.
    """

    text: bytes
    ends: NDArray[np.int64]
    lines: NDArray[np.int64]
    malformed: list[Malformed]
    several_lines: bool

    @property
    def count(self) -> int:
        """Number of records and malformed lines."""
        return len(self.lines) + len(self.malformed)

    def split(self, count: int) -> "tuple[_Records, _Records | None]":
        """Split into the first records and, if there are any, the others."""
        if len(self.lines) <= count:
            return self, None
        end, line = int(self.ends[count - 1]), int(self.lines[count])
        before = [entry for entry in self.malformed if entry[0] < line]
        return (
            replace(
                self,
                text=self.text[:end],
                ends=self.ends[:count],
                lines=self.lines[:count],
                malformed=before,
            ),
            replace(
                self,
                text=self.text[end:],
                ends=self.ends[count:] - end,
                lines=self.lines[count:],
                malformed=self.malformed[len(before) :],
            ),
        )


def _records(texts: Iterator[bytes], line: int, delimiter: bytes, width: int) -> Iterator[_Records]:
    """Cut a text into records.

    Args:
        texts: whole lines.
        line: number of the first line.
        delimiter: between cells.
        width: number of cells in the header.
    """
    text, tail = next(texts), b""
    for following in texts:
        records, tail, line = _cut(tail + text, line, delimiter, width, is_last=False)
        yield records
        text = following
    yield _cut(tail + text, line, delimiter, width, is_last=True)[0]


def _cut(
    text: bytes, line: int, delimiter: bytes, width: int, is_last: bool
) -> tuple[_Records, bytes, int]:
    """Cut off the whole records of a text; returns them, the unfinished rest, and the number of the
    next line.
    """
    data = np.frombuffer(text, dtype=np.uint8)
    ends = np.flatnonzero(data == ord("\n")) + 1
    lines = np.arange(line, line + len(ends), dtype=np.int64)
    suspects = _suspect_lines(data, ends, delimiter) if b'"' in text else ends[:0]
    if not len(suspects):
        return _Records(text, ends, lines, [], several_lines=False), b"", line + len(ends)
    starts = np.concatenate([[0], ends[:-1]])
    closes = np.ones(len(ends), dtype=bool)  # whether a record ends with this line
    malformed_places: list[int] = []
    behind, torn, count = 0, 0, len(ends)
    for place in suspects.tolist():
        if place < behind:
            continue
        if place < torn:
            malformed_places.append(place)
            continue
        found = _record_end(text, int(starts[place]), int(ends[place]), delimiter, width)
        if found is None and not is_last and len(text) - int(starts[place]) <= RECORD_LIMIT:
            count = place
            break
        if not found or found < 0:
            malformed_places.append(place)
            # The line that seemed to close the quote is malformed, too.
            torn = max(torn, int(np.searchsorted(ends, -(found or 0))) + 1)
        else:
            behind = int(np.searchsorted(ends, found)) + 1
            closes[place : behind - 1] = False
    last = np.flatnonzero(closes[:count])  # last line of each record
    first = np.concatenate([[0], last[:-1] + 1])[: len(last)]
    well_formed = ~np.isin(last, malformed_places)
    malformed = [
        (int(lines[place]), OPEN_QUOTE, text[starts[place] : ends[place] - 1].decode())
        for place in malformed_places
    ]
    record_text = text[: int(starts[count])] if count < len(starts) else text
    if malformed_places:
        record_text = b"".join(
            text[start:end]
            for start, end in zip(starts[first][well_formed], ends[last][well_formed], strict=True)
        )
    lengths = ends[last] - starts[first]
    records = _Records(
        record_text,
        np.cumsum(lengths[well_formed]),
        lines[first][well_formed],
        malformed,
        several_lines=not closes[:count].all(),
    )
    tail = text[int(starts[count]) :] if count < len(starts) else b""
    return records, tail, line + count


def _suspect_lines(
    data: NDArray[np.uint8], ends: NDArray[np.int64], delimiter: bytes
) -> NDArray[np.int64]:
    """Lines with a quote that neither opens nor closes a cell and is not doubled within one."""
    quotes = np.flatnonzero(data == ord('"'))
    line = np.searchsorted(ends, quotes, side="right")
    # The place of each line's first quote.
    first = np.searchsorted(quotes, np.concatenate([[0], ends[:-1]]))
    counts = np.diff(np.append(first, len(quotes)))
    opens = (np.arange(len(quotes)) - first[line]) % 2 == 0
    around = (ord(delimiter), ord("\n"), ord('"'))
    before = np.where(quotes > 0, data[quotes - 1], ord("\n"))
    fine = np.isin(np.where(opens, before, data[quotes + 1]), around)
    suspect = counts % 2 == 1
    suspect[line[~fine]] = True
    return np.flatnonzero(suspect)


def _record_end(text: bytes, start: int, line_end: int, delimiter: bytes, width: int) -> int | None:
    """Find the end of a record.

    Args:
        text: whole lines.
        start: beginning of the record.
        line_end: end of its first line.
        delimiter: between cells.
        width: number of cells that a record of several lines must have.

    Returns:
        The end of its last line; negative if the record has several lines and not as many cells as
        the header; 0 if its quotes are malformed; None if that needs more text to decide.
    """
    place, cells, end = start, 0, line_end
    limit = max(start + RECORD_LIMIT, line_end)
    while True:
        cells += 1
        if text[place : place + 1] == b'"':  # only a cell's first character can open quotes
            place += 1
            while True:
                quote = text.find(b'"', place, limit)
                if quote < 0:
                    return None if limit > len(text) else 0
                place = quote + 1
                if text[place : place + 1] != b'"':
                    break
                place += 1
            if quote >= end:
                end = text.index(b"\n", place) + 1
                if text[place : place + 1] not in (delimiter, b"\n"):
                    return 0
        place = text.find(delimiter, place, end)
        if place < 0:
            return end if end == line_end or cells == width else -end
        place += 1


def _pieces(records: Iterator[_Records], batch_rows: int) -> Iterator[_Records]:
    """Regroup records into pieces of `batch_rows`, or fewer where they are long."""
    parts: list[_Records] = []
    size = rows = 0
    for group in records:
        left: _Records | None = group
        while left is not None:
            part, left = left.split(max(1, batch_rows - rows))
            if parts and (size + len(part.text) > PIECE_LIMIT or rows >= batch_rows):
                yield _joined(parts)
                parts, size, rows = [], 0, 0
            parts.append(part)
            size += len(part.text)
            rows += part.count
            if rows >= batch_rows:
                yield _joined(parts)
                parts, size, rows = [], 0, 0
    if parts:
        yield _joined(parts)


def _joined(parts: Sequence[_Records]) -> _Records:
    return _Records(
        b"".join(part.text for part in parts),
        np.empty(0, dtype=np.int64),  # the ends are not needed any more
        np.concatenate([part.lines for part in parts]),
        [entry for part in parts for entry in part.malformed],
        any(part.several_lines for part in parts),
    )


def _parsed(file: str, names: list[str], delimiter: str, piece: _Records) -> RawBatch:
    """Parse a piece of a CSV file into rows."""
    cells, skipped = _parse(names, delimiter, piece)
    lines = piece.lines
    if cells.num_rows + len(skipped) != len(lines):
        raise UnreadableFile(
            f"not a readable CSV file: the lines {lines[0]} to {lines[-1]} give other rows than "
            "records"
        )
    malformed = [
        *piece.malformed,
        *((int(lines[place]), why, text) for place, why, text in skipped),
    ]
    lines = np.delete(lines, [place for place, *_ in skipped])
    blank = _blank_rows(cells)
    if blank.any():
        cells, lines = cells.filter(pa.array(~blank)), lines[~blank]
    blank_characters = delimiter + string.whitespace
    malformed = sorted(entry for entry in malformed if entry[2].strip(blank_characters))
    return RawBatch(file, cells, lines, malformed)


def _parse(
    names: list[str], delimiter: str, piece: _Records
) -> tuple[pa.RecordBatch, list[tuple[int, str, str]]]:
    """Rows, and the skipped records: place in the piece, reason and text."""
    schema = pa.schema([(name, pa.string()) for name in names])
    skipped: list[tuple[int, str, str]] = []

    def skip(row: Any) -> str:
        why = f"{row.actual_columns} cells where the header has {row.expected_columns}"
        skipped.append((row.number - 1, why, row.text))
        return "skip"

    if not piece.text:
        return pa.RecordBatch.from_pylist([], schema), skipped
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(piece.text),
            read_options=pyarrow.csv.ReadOptions(
                column_names=names, use_threads=False, block_size=len(piece.text) + 1
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter,
                ignore_empty_lines=False,
                invalid_row_handler=skip,
                newlines_in_values=piece.several_lines,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=schema,
                strings_can_be_null=False,
                check_utf8=False,  # checked in `_text_blocks`
            ),
        )
    except pa.ArrowException as error:
        raise UnreadableFile(f"not a readable CSV file: {error}") from error
    batches = table.combine_chunks().to_batches()
    return (batches[0] if batches else pa.RecordBatch.from_pylist([], schema)), skipped


def _blank_rows(cells: pa.RecordBatch) -> NDArray[np.bool_]:
    """Mask of the rows whose cells hold only white space."""
    blank = np.ones(cells.num_rows, dtype=bool)
    for column in cells.columns:
        if not blank.any():
            break
        empty = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(column)), 0)
        blank &= empty.to_numpy(zero_copy_only=False)
    return blank
