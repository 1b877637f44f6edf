"""One CSV or Parquet file as a stream of record batches, in memory that does not depend on the file's length.

A CSV file is read as text, so that one bad cell costs one row and not the file; Parquet comes with its own types. What the
cells must hold is `validation`'s matter.

In CSV one physical line is one record. The file is cut into pieces of whole lines before it is parsed, so a line number is
always the one that an editor shows, and a quote that is left open costs its own line and not those behind it.
"""

import codecs
import csv
import errno
import os
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from creditrisk_assets.portfolio.contract import canonical_names
from creditrisk_assets.portfolio.storage import StoredPath, is_local, store_errors

BATCH_ROWS = 65_536
BLOCK_BYTES = 1 << 20
LONGEST_LINE = 1 << 20
"""Bytes of the longest line that is read; a customer's record has some hundred."""
LARGEST_PIECE = 32 << 20
"""Bytes that are parsed at a time."""
MOST_COLUMNS = 4_096
REMOTE_BLOCK_BYTES = 8 << 20

NO_ROWS = "the file has a header and no rows; valid: at least one row"
NOT_TEXT = "not a text file: {}; valid: UTF-8 CSV"
OPEN_QUOTE = "a quote is left open; valid: one record on one line, a quote within quotes written twice"

Malformed = tuple[int, str, str]
"""A line that is no row: its number, what is wrong, its text."""


class UnreadableFile(ValueError):
    """A landed file that cannot be read as a table at all; the message says why."""


@dataclass(frozen=True)
class RawBatch:
    """Some rows of one file before validation.

    Attributes:
        file: the file's name.
        cells: canonical column names, the file's own values (text for CSV).
        lines: each row's line in the file, from 1; its row number, from 1, for Parquet.
        malformed: lines among them that are no rows.
    """

    file: str
    cells: pa.RecordBatch
    lines: NDArray[np.int64]
    malformed: list[Malformed]

    @property
    def count(self) -> int:
        """How many rows arrived, readable or not."""
        return len(self.lines) + len(self.malformed)


class TableStream:
    """A file that is being read. Iterate over it once, within `with` or to its end.

    Iterating raises `UnreadableFile` as soon as the file turns out not to be a table; what came before must be given up then.

    Attributes:
        file: the file's name.
        headers: the file's own column names.
        names: their canonical spelling.
    """

    def __init__(self, file: str, headers: Sequence[str], batches: Iterator[RawBatch], source: "_Source") -> None:
        self.file = file
        self.headers = list(headers)
        self.names = _column_names(headers)
        self._batches = batches
        self._source = source

    @property
    def share_read(self) -> float:
        """How much of the file has been read, 0 to 1."""
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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._source.close()


def read_batches(path: StoredPath, batch_rows: int = BATCH_ROWS) -> TableStream:
    """Read one CSV or Parquet file without judging its cells.

    CSV is UTF-8 with or without a byte-order mark, separated by commas or semicolons. Blank lines, and lines of nothing but
    separators and white space, are no rows.

    Args:
        path: the file; Parquet if it is called `.parquet`.
        batch_rows: the most rows of a batch.

    Raises:
        UnreadableFile: if it is empty, not text, not Parquet, or names a column twice.
        OSError: if it cannot be opened or its store fails.
    """
    source = _Source(path)
    try:
        if source.size == 0:
            raise UnreadableFile("the file is empty; valid: a header line and at least one row")
        if path.name.lower().endswith(".parquet"):
            return _parquet_stream(path.name, source, batch_rows)
        return _csv_stream(path.name, source, batch_rows)
    except BaseException:
        source.close()
        raise


class _Source:
    """A stored file that is open for reading; it knows how far it was read, and with what its store failed."""

    def __init__(self, path: StoredPath) -> None:
        self._path = path
        self._sequential = not path.name.lower().endswith(".parquet")
        self.failure: Exception | None = None
        self.share_read = 0.0
        with store_errors(path):
            self._file = self._open()
            self.size = self._file.seek(0, 2)
            self._file.seek(0)
        self._looked = self._look()

    def require_unchanged(self) -> None:
        """Whether the file is still the one that was opened.

        Raises:
            OSError: if somebody wrote into it meanwhile, what was read is then a mixture. (A store refuses to go on by itself.)
        """
        if self._look() != self._looked:
            raise OSError(errno.EBUSY, "the file changed while it was read", str(self._path))

    def _look(self) -> tuple[int, int] | None:
        if not is_local(self._path):
            return None
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def _open(self) -> IO[bytes]:
        if is_local(self._path):
            return self._path.open("rb")
        cache = "readahead" if self._sequential else "none"  # pyarrow asks for whole pieces of a column, here and there
        return self._path.open("rb", block_size=REMOTE_BLOCK_BYTES, cache_type=cache)  # type: ignore[call-overload]

    def read(self, size: int = -1) -> bytes:
        try:
            with store_errors(self._path):
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
        """Nothing is written."""

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        self._file.close()


def _column_names(headers: Sequence[str]) -> list[str]:
    if len(headers) > MOST_COLUMNS:
        raise UnreadableFile(f"the header names {len(headers):,} columns; valid: at most {MOST_COLUMNS:,}")
    try:
        return canonical_names(headers)
    except ValueError as error:
        raise UnreadableFile(str(error)) from error


# Parquet


def _parquet_stream(name: str, source: _Source, batch_rows: int) -> TableStream:
    try:
        file = pq.ParquetFile(
            pa.PythonFile(source, mode="r"), buffer_size=BLOCK_BYTES, pre_buffer=False, page_checksum_verification=True
        )
        headers = list(file.schema_arrow.names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _no_parquet(source, error) from error
    return TableStream(name, headers, _parquet_batches(name, file, source, _column_names(headers), batch_rows), source)


def _parquet_batches(name: str, file: pq.ParquetFile, source: _Source, names: list[str], batch_rows: int) -> Iterator[RawBatch]:
    rows, told = 0, file.metadata.num_rows
    batches = file.iter_batches(batch_size=batch_rows, use_threads=False)
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                break
            batch.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _no_parquet(source, error) from error
        lines = np.arange(rows + 1, rows + 1 + batch.num_rows, dtype=np.int64)
        rows += batch.num_rows
        source.share_read = min(1.0, rows / told) if told > 0 else 1.0
        yield RawBatch(name, batch.rename_columns(names), lines, [])
    if rows != told:
        raise UnreadableFile(f"not a readable Parquet file: {rows:,} rows where its footer says {told:,}")


def _no_parquet(source: _Source, error: Exception) -> Exception:
    """What to raise for an error while reading Parquet: the store's own failure is not the file's fault."""
    return source.failure or UnreadableFile(f"not a readable Parquet file: {error}")


# CSV


def _csv_stream(name: str, source: _Source, batch_rows: int) -> TableStream:
    whole_lines = _whole_lines(_text_blocks(source))
    first, _, rest = next(whole_lines, b"\n").partition(b"\n")
    headers, delimiter = _header(first.decode())
    dialect = _Dialect(_column_names(headers), delimiter)

    def batches() -> Iterator[RawBatch]:
        line = 2
        for piece in _pieces(rest, whole_lines, batch_rows):
            lines = np.arange(line, line + _line_count(piece), dtype=np.int64)
            line += len(lines)
            yield dialect.batch(name, piece, lines)

    return TableStream(name, headers, batches(), source)


def _header(text: str) -> tuple[list[str], str]:
    delimiter = ";" if text.count(";") > text.count(",") else ","
    if text.count('"') % 2:
        raise UnreadableFile(f"the first line {text[:60]!r} is no header: {OPEN_QUOTE}")
    try:
        cells = next(csv.reader([text], delimiter=delimiter), [])
    except csv.Error as error:
        raise UnreadableFile(f"the first line {text[:60]!r} is no header: {error}") from error
    if len(cells) < 2:
        raise UnreadableFile(f"the first line {text.strip()[:60]!r} is no header; valid: column names separated by , or ;")
    return [cell.strip() for cell in cells], delimiter


def _text_blocks(source: _Source) -> Iterator[bytes]:
    """The file in blocks: proven to be UTF-8 without zero bytes, without a byte-order mark, every line end a newline."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    read, pending, held = 0, 0, b""
    while block := source.read(BLOCK_BYTES):
        if (zero := block.find(b"\0")) >= 0:
            raise UnreadableFile(NOT_TEXT.format(f"a zero byte near position {read + zero}"))
        if pending or not block.isascii():
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                place, byte = read - pending + error.start, error.object[error.start]
                raise UnreadableFile(NOT_TEXT.format(f"byte {byte:#04x} near position {place}")) from error
            pending = len(decoder.getstate()[0])
        if read == 0:
            block = block.removeprefix(codecs.BOM_UTF8)
        read += len(block)
        if held or b"\r" in block:
            block = held + block
            held = b"\r" if block.endswith(b"\r") else b""  # its newline may come with the next block
            block = block.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield block
    if pending:
        raise UnreadableFile(NOT_TEXT.format("it ends within a character"))
    if held:
        yield b"\n"


def _whole_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same text in pieces that end at line ends; the last line gets its newline if it has none."""
    begun, lines = b"", 0
    for block in blocks:
        first = block.find(b"\n")
        if len(begun) + (len(block) if first < 0 else first) > LONGEST_LINE:
            raise UnreadableFile(f"line {lines + 1} is longer than {LONGEST_LINE:,} bytes; valid: a shorter line for each record")
        if first < 0:
            begun += block
            continue
        end = block.rfind(b"\n") + 1
        yield begun + block[:end]
        begun = block[end:]
        lines += _line_count(block)
    if begun:
        yield begun + b"\n"


def _pieces(rest: bytes, whole_lines: Iterator[bytes], batch_rows: int) -> Iterator[bytes]:
    """The text in pieces of `batch_rows` lines, or of fewer where lines are long."""
    parts: list[bytes] = []
    size = lines = 0
    text: bytes | None = rest
    while text is not None:
        count = _line_count(text)
        if lines + count >= batch_rows:
            ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n")) + 1
            cuts = ends[batch_rows - lines - 1 :: batch_rows].tolist()
            for start, end in zip([0, *cuts], cuts, strict=False):
                yield b"".join([*parts, text[start:end]])
                parts, size, lines = [], 0, 0
            text = text[cuts[-1] :]
            count = _line_count(text)
        elif size + len(text) > LARGEST_PIECE and parts:
            yield b"".join(parts)
            parts, size, lines = [], 0, 0
        if text:
            parts.append(text)
            size += len(text)
            lines += count
        text = next(whole_lines, None)
    if parts:
        yield b"".join(parts)


@dataclass(frozen=True)
class _Dialect:
    """How a CSV file's lines become cells."""

    names: list[str]
    delimiter: str

    def batch(self, file: str, piece: bytes, lines: NDArray[np.int64]) -> RawBatch:
        """The rows of some whole lines; `lines` are their numbers."""
        malformed: list[Malformed] = []
        if b'"' in piece:
            piece, lines, malformed = _set_aside(piece, lines, _odd_quotes(piece))
        cells, skipped = self._parse(piece)
        if cells.num_rows + len(skipped) != len(lines):  # a quote in the midst of a cell hides one that opens another
            piece, lines, more = _set_aside(piece, lines, self._open_quotes(piece))
            malformed += more
            cells, skipped = self._parse(piece)
        if cells.num_rows + len(skipped) != len(lines):
            raise UnreadableFile(f"not a readable CSV file: the lines {lines[0]} to {lines[-1]} give other rows than lines")
        malformed += [(int(lines[place]), why, text) for place, why, text in skipped]
        kept = np.ones(len(lines), dtype=bool)
        kept[[place for place, *_ in skipped]] = False
        lines = lines[kept]
        blank = _blank_rows(cells)
        if blank.any():
            cells, lines = cells.filter(pa.array(~blank)), lines[~blank]
        nothing = self.delimiter + string.whitespace
        return RawBatch(file, cells, lines, sorted(one for one in malformed if one[2].strip(nothing)))

    def _parse(self, piece: bytes) -> tuple[pa.RecordBatch, list[tuple[int, str, str]]]:
        """Rows, and lines with another number of cells by their place in the piece."""
        schema = pa.schema([(name, pa.string()) for name in self.names])
        if not piece:
            return pa.RecordBatch.from_pylist([], schema), []
        skipped: list[tuple[int, str, str]] = []

        def set_aside(row: Any) -> str:
            why = f"{row.actual_columns} cells where the header has {row.expected_columns}"
            skipped.append((row.number - 1, why, row.text))
            return "skip"

        try:
            table = pyarrow.csv.read_csv(
                pa.BufferReader(piece),
                read_options=pyarrow.csv.ReadOptions(column_names=self.names, use_threads=False, block_size=len(piece) + 1),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=self.delimiter, ignore_empty_lines=False, invalid_row_handler=set_aside
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=schema,
                    strings_can_be_null=False,
                    check_utf8=False,  # it has been checked
                ),
            )
        except pa.ArrowException as error:
            raise UnreadableFile(f"not a readable CSV file: {error}") from error
        batches = table.combine_chunks().to_batches()
        return (batches[0] if batches else pa.RecordBatch.from_pylist([], schema)), skipped

    def _open_quotes(self, piece: bytes) -> NDArray[np.bool_]:
        """For each line, whether a quoted cell is open at its end, as the parser sees it."""
        return np.array([self._ends_open(line) for line in piece[:-1].split(b"\n")], dtype=bool)

    def _ends_open(self, line: bytes) -> bool:
        if b'"' not in line:
            return False
        delimiter, place = self.delimiter.encode(), 0
        while True:
            if line[place : place + 1] == b'"':  # only a cell's first character can open quotes
                place += 1
                while True:
                    end = line.find(b'"', place)
                    if end < 0:
                        return True
                    place = end + 1
                    if line[place : place + 1] != b'"':
                        break
                    place += 1
            place = line.find(delimiter, place)
            if place < 0:
                return False
            place += 1


def _line_count(text: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n")))


def _odd_quotes(piece: bytes) -> NDArray[np.bool_]:
    """For each line, whether the number of its quotes is odd."""
    data = np.frombuffer(piece, dtype=np.uint8)
    quotes, ends = np.flatnonzero(data == ord('"')), np.flatnonzero(data == ord("\n"))
    return np.asarray(np.diff(np.searchsorted(quotes, ends), prepend=0) % 2 == 1)


def _set_aside(
    piece: bytes, lines: NDArray[np.int64], aside: NDArray[np.bool_]
) -> tuple[bytes, NDArray[np.int64], list[Malformed]]:
    """Take lines with an open quote out of a piece."""
    if not aside.any():
        return piece, lines, []
    ends = np.flatnonzero(np.frombuffer(piece, dtype=np.uint8) == ord("\n")) + 1
    starts = np.concatenate([[0], ends[:-1]])
    malformed, parts, kept_from = [], [], 0
    for place in np.flatnonzero(aside).tolist():
        start, end = int(starts[place]), int(ends[place])
        malformed.append((int(lines[place]), OPEN_QUOTE, piece[start : end - 1].decode()))
        parts.append(piece[kept_from:start])
        kept_from = end
    parts.append(piece[kept_from:])
    return b"".join(parts), lines[~aside], malformed


def _blank_rows(cells: pa.RecordBatch) -> NDArray[np.bool_]:
    """Rows in which no cell holds anything but white space."""
    blank = np.ones(cells.num_rows, dtype=bool)
    for column in cells.columns:
        if not blank.any():
            break
        empty = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(column)), 0)
        blank &= empty.to_numpy(zero_copy_only=False)
    return blank
