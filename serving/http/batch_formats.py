"""The formats of `/predict/batch`: JSON, lines of JSON, CSV, Parquet, Arrow streams.

A reader yields the rows of a file one by one, so that a batch is never held whole: a JSON record
before its validation, a row of a table after it, or a problem. A writer turns results into bytes,
in chunks.

Tables are read and validated like landed files, by `landing.table_reader` and `landing.validation`.
"""

import csv
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Protocol

from pydantic_core import from_json, to_json

from creditrisk_assets.portfolio.contract import Portfolio
from serving.http.json import NotStrictJson, parse

if TYPE_CHECKING:
    from creditrisk_assets.landing.table_reader import FileKind, RawBatch
    from creditrisk_assets.landing.validation import CheckedBatch, RowCheck

JSON = "application/json"
NDJSON = "application/x-ndjson"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.stream"

PIECE_BYTES = 1 << 10
"""Bytes of a body that are read at once: two or three rows, or a thousand brackets, half a
millisecond of work.
"""

RECORD_BYTES_LIMIT = 1 << 16
"""Largest record or line; they have some hundred bytes."""

TABLE_ROWS = 256
"""Rows of a table that are validated at once: some milliseconds of work."""

TABLE_BYTES = 1 << 14
"""Bytes of a text table that are read at once."""

ROW_GROUP_ROWS = 16_384
TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\],]', re.DOTALL)
"""Tokens that divide a JSON document: a string, or one sign. A lone quote starts an unfinished
string.
"""


class UnreadableBody(ValueError):
    """The rest of the body cannot be read."""


class NoRecord(ValueError):
    """An element of a batch is no record; the next one may be."""


@dataclass(frozen=True)
class CellFault:
    """A fault of a table's cell: column, value as text (None if missing), problem, and valid
    values.
    """

    field: str
    value: str | None
    problem: str
    valid: str


@dataclass(frozen=True)
class TableRow:
    """A validated row of a table.

    Attributes:
        values: by field in the contract's order, and the identifier if there is one; empty if the
            row breaks the contract.
        identifier: of the customer, or None.
        faults: its faulty cells.
    """

    values: dict[str, Any]
    identifier: str | None
    faults: tuple[CellFault, ...] = ()


Record = dict[str, Any] | TableRow | NoRecord


@dataclass(frozen=True)
class Result:
    """The result of a row of a batch: an answer as JSON, or problems."""

    row: int
    identifier: str | None
    answer: bytes | None
    problems: Sequence[dict[str, Any]] = ()


class Writer(Protocol):
    """Turns results into the bytes of a response."""

    def rows(self, results: Sequence[Result]) -> bytes:
        """The bytes of more rows, possibly none yet."""

    def end(self) -> bytes:
        """The remaining bytes."""


@dataclass(frozen=True)
class Format:
    """A format of a batch.

    Attributes:
        media_type: its name.
        records: reads a body; raises `UnreadableBody` if the rest cannot be read.
        writer: makes a writer of answers.
    """

    media_type: str
    records: Callable[[IO[bytes], Portfolio], Iterator[Record]]
    writer: Callable[[Portfolio], Writer]


def json_records(file: IO[bytes], _: Portfolio) -> Iterator[Record]:
    """The elements of a JSON array."""
    for element in json_elements(iter(lambda: file.read(PIECE_BYTES), b"")):
        yield _record(element)


def line_records(file: IO[bytes], _: Portfolio) -> Iterator[Record]:
    """The records of all lines that are not empty."""
    while line := file.readline(RECORD_BYTES_LIMIT + 1):
        if len(line) > RECORD_BYTES_LIMIT:
            raise UnreadableBody(f"a line is longer than {RECORD_BYTES_LIMIT:,} bytes")
        if line.strip():
            yield _record(line)


def json_elements(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The elements of a JSON array, cut from its text without holding it.

    Only strings, brackets and commas are examined; validating an element belongs to its parser.

    Raises:
        UnreadableBody: if the text is no array, or ends before the array does.
    """
    buffer, place, depth, elements, ended = bytearray(), 0, 0, 0, False
    for piece in pieces:
        buffer += piece
        while found := TOKEN.search(buffer, place):
            token, at = found[0], found.start()
            if token == b'"':
                break  # an unfinished string
            place = found.end()
            if depth == 0:
                if token != b"[" or buffer[:at].strip() or ended:
                    raise UnreadableBody("the body is no JSON array")
                depth = 1
                del buffer[:place]
                place = 0
            elif token in (b"{", b"["):
                depth += 1
            elif token in (b"}", b"]") and depth > 1:
                depth -= 1
            elif depth == 1 and token in (b",", b"]"):
                element = bytes(buffer[:at]).strip()
                ended = token == b"]"
                depth = 0 if ended else 1
                del buffer[:place]
                place = 0
                if element:
                    elements += 1
                    yield element
                elif not ended or elements:
                    raise UnreadableBody(
                        "an element of the JSON array is missing between two commas, or after the "
                        "last one"
                    )
            elif depth == 1 and token == b"}":
                raise UnreadableBody("a bracket of the JSON array is closed that was not opened")
        if len(buffer) > RECORD_BYTES_LIMIT + PIECE_BYTES:
            raise UnreadableBody(
                f"an element of the JSON array is longer than {RECORD_BYTES_LIMIT:,} bytes"
            )
    if not ended:
        raise UnreadableBody("the JSON array has no end" if depth else "the body is no JSON array")
    if buffer.strip():
        raise UnreadableBody("something follows the JSON array")


def table_records(kind: "FileKind", file: IO[bytes], portfolio: Portfolio) -> Iterator[Record]:
    """The rows of a table of a kind."""
    from creditrisk_assets.landing.table_reader import UnreadableFile, read_body
    from creditrisk_assets.landing.validation import RefusedColumns, RowCheck, require_columns

    try:
        with read_body(file, kind, TABLE_ROWS, TABLE_BYTES, portfolio) as stream:
            require_columns(stream.schema, portfolio.field_names, [portfolio.identifier])
            check = RowCheck(portfolio.fields, portfolio.identifier)
            for batch in stream:
                yield from _table_rows(batch, check)
    except (UnreadableFile, RefusedColumns) as error:
        raise UnreadableBody(str(error)) from error


class JsonWriter:
    """A JSON array: each element an answer, or the row with its problems."""

    def __init__(self, _: Portfolio) -> None:
        self._separator = b"["

    def rows(self, results: Sequence[Result]) -> bytes:
        if not results:
            return b""
        text = self._separator + b",".join(_document(result) for result in results)
        self._separator = b","
        return text

    def end(self) -> bytes:
        return b"]" if self._separator == b"," else b"[]"


class LineWriter:
    """A line of JSON for each row."""

    def rows(self, results: Sequence[Result]) -> bytes:
        return b"".join(_document(result) + b"\n" for result in results)

    def end(self) -> bytes:
        return b""


class CsvWriter:
    """CSV: the columns of `ANSWER_COLUMNS` after row and identifier."""

    def __init__(self, portfolio: Portfolio) -> None:
        self._text = io.StringIO()
        self._csv = csv.writer(self._text, lineterminator="\n")
        self._csv.writerow(["row", portfolio.identifier, *ANSWER_COLUMNS])

    def rows(self, results: Sequence[Result]) -> bytes:
        for result in results:
            self._csv.writerow([result.row, result.identifier, *_answer_cells(result)])
        return self._drain()

    def end(self) -> bytes:
        """The header of a table without rows; otherwise nothing."""
        return self._drain()

    def _drain(self) -> bytes:
        text = self._text.getvalue().encode()
        self._text.seek(0)
        self._text.truncate()
        return text


class ArrowWriter:
    """The table of `CsvWriter` as an Arrow stream, or as a Parquet file."""

    def __init__(self, portfolio: Portfolio, as_parquet: bool) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        numbers = {
            "default_probability": pa.float64(),
            "score": pa.float64(),
            "cut_off": pa.float64(),
            "prediction": pa.int8(),
        }
        kinds = {**numbers, "degraded": pa.bool_()}
        self._schema = pa.schema(
            [
                ("row", pa.int64()),
                (portfolio.identifier, pa.string()),
                *((name, kinds.get(name, pa.string())) for name in ANSWER_COLUMNS),
            ]
        )
        self._sink = _Buffer()
        self._writer = (
            pq.ParquetWriter(self._sink, self._schema)
            if as_parquet
            else pa.ipc.new_stream(self._sink, self._schema)
        )
        self._group_rows = ROW_GROUP_ROWS if as_parquet else 1
        self._pending: list[tuple[Any, ...]] = []

    def rows(self, results: Sequence[Result]) -> bytes:
        self._pending += [
            (result.row, result.identifier, *_answer_cells(result)) for result in results
        ]
        if len(self._pending) >= self._group_rows:
            self._write()
        return self._sink.drain()

    def end(self) -> bytes:
        if self._pending:
            self._write()
        self._writer.close()
        return self._sink.drain()

    def _write(self) -> None:
        import pyarrow as pa

        columns = zip(*self._pending, strict=True)
        arrays = [
            pa.array(list(values), field.type)
            for values, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._pending = []


FORMATS = {
    kind.media_type: kind
    for kind in (
        Format(JSON, json_records, JsonWriter),
        Format(NDJSON, line_records, lambda _: LineWriter()),
        Format(CSV, partial(table_records, "csv"), CsvWriter),
        Format(PARQUET, partial(table_records, "parquet"), partial(ArrowWriter, as_parquet=True)),
        Format(ARROW, partial(table_records, "arrow"), partial(ArrowWriter, as_parquet=False)),
    )
}


class _Buffer(io.RawIOBase):
    """A write-only file whose content is drained into the response."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._place = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._buffer += memoryview(data)
        self._place += len(data)
        return len(data)

    def tell(self) -> int:
        return self._place

    def drain(self) -> bytes:
        content = bytes(self._buffer)
        self._buffer.clear()
        return content


def _record(text: bytes) -> Record:
    if len(text) > RECORD_BYTES_LIMIT:
        return NoRecord(f"longer than {RECORD_BYTES_LIMIT:,} bytes")
    try:
        value = parse(text)
    except NotStrictJson as error:
        return NoRecord(str(error))
    return value if isinstance(value, dict) else NoRecord("no JSON object")


def _table_rows(batch: "RawBatch", check: "RowCheck") -> Iterator[Record]:
    """The rows of a batch, and its malformed lines, in the order of their lines."""
    from creditrisk_assets.landing.validation import accepted_arrays

    checked = check(batch.cells)
    names = [field.name for field in check.fields]
    valid_rows = zip(
        *(array.to_pylist() for array in accepted_arrays(checked, check.fields, checked.good)),
        strict=True,
    )
    broken = _broken_rows(batch, checked, check)
    malformed = iter([*batch.malformed, (sys.maxsize, "", "")])
    line, problem, _ = next(malformed)
    for row, (place, identifier) in enumerate(
        zip(batch.lines.tolist(), checked.identifiers.to_pylist(), strict=True)
    ):
        while line < place:
            yield NoRecord(f"line {line}: {problem}")
            line, problem, _ = next(malformed)
        if row in broken:
            yield TableRow({}, identifier or None, tuple(broken[row]))
            continue
        values = dict(zip(names, next(valid_rows), strict=True))
        if identifier:
            values[check.identifier] = identifier
        yield TableRow(values, identifier or None)
    while line < sys.maxsize:
        yield NoRecord(f"line {line}: {problem}")
        line, problem, _ = next(malformed)


def _broken_rows(
    batch: "RawBatch", checked: "CheckedBatch", check: "RowCheck"
) -> dict[int, list[CellFault]]:
    from creditrisk_assets.landing.validation import MISSING, plain_text, python_value, reason

    broken: dict[int, list[CellFault]] = {}
    for row, kind in zip(checked.faults.rows.tolist(), checked.faults.kinds.tolist(), strict=True):
        name, rule = checked.faults.table[kind]
        value = python_value(batch.cells.column(name)[row])
        text, problem = (
            (None, MISSING) if rule == MISSING else (plain_text(value), reason(value, rule))
        )
        broken.setdefault(row, []).append(CellFault(name, text, problem, check.valid(name)))
    return broken


def _document(result: Result) -> bytes:
    return result.answer or to_json({"row": result.row, "problems": list(result.problems)})


ANSWER_COLUMNS = (
    "decision_id",
    "prediction",
    "default_probability",
    "score",
    "reasons",
    "model_version",
    "bundle_sha256",
    "cut_off",
    "degraded",
    "error",
)


def _answer_cells(result: Result) -> list[Any]:
    """The cells of `ANSWER_COLUMNS`."""
    if result.answer is None:
        return [
            *[None] * (len(ANSWER_COLUMNS) - 1),
            "; ".join(problem_text(problem) for problem in result.problems),
        ]
    answer = from_json(result.answer)
    answer["reasons"] = " ".join(reason["code"] for reason in answer["reasons"])
    return [*(answer[name] for name in ANSWER_COLUMNS[:-1]), None]


def problem_text(problem: dict[str, Any]) -> str:
    """A problem as text for people."""
    value = f" {problem['value']!r}" if problem.get("value") is not None else ""
    valid = f"; valid: {problem['valid']}" if problem.get("valid") else ""
    return f"{problem['field']}{value}: {problem['problem']}{valid}"
