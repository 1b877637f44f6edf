"""What `/predict/batch` takes and gives: the same customers and answers as JSON, as lines of JSON,
as CSV, as Parquet, as an Arrow stream.

A reader gives one thing after the other from a file, so that a batch is never held whole: a record
of JSON that is still to be judged, a row of a table that has been, or why what stands there is
neither. A writer turns results into bytes, some rows at a time.

Tables are read and judged as landed files are, by `portfolio.reading` and `portfolio.validation`.
"""

import csv
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
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
"""Of a body, at once: two or three rows, or a thousand brackets, half a millisecond's work."""

RECORD_BYTES_LIMIT = 1 << 16
"""A record, or a line, is some hundred bytes; longer ones are refused instead of being held."""

TABLE_ROWS = 256
"""Of a table, judged at once: some milliseconds' work."""

TABLE_BYTES = 1 << 14
"""Of a table that is text, at once."""

ROW_GROUP_ROWS = 16_384
TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\],]', re.DOTALL)
"""What divides a JSON text: a whole text, or one sign. A quote alone begins a text that has not
ended yet.
"""


class Unreadable(ValueError):
    """Why the body cannot be read on from here."""


class NoRecord(ValueError):
    """Why what stands in one place of a batch is no record; the next one may be."""


@dataclass(frozen=True)
class CellFault:
    """What is wrong with a cell of a table: its column, the value as text (None if it is missing),
    why, and what is valid.
    """

    field: str
    value: str | None
    problem: str
    valid: str


@dataclass(frozen=True)
class TableRow:
    """A row of a table, judged.

    Attributes:
        values: by field in the contract's order, and the identifier where there is one; empty if
            the row breaks the contract.
        identifier: of the customer, if it has one.
        faults: what is wrong with it.
    """

    values: dict[str, Any]
    identifier: str | None
    faults: tuple[CellFault, ...] = ()


Record = dict[str, Any] | TableRow | NoRecord


@dataclass(frozen=True)
class Result:
    """What came of one row of a batch: an answer as JSON, or what is wrong with the row."""

    row: int
    identifier: str | None
    answer: bytes | None
    problems: Sequence[dict[str, Any]] = ()


class Writer(Protocol):
    """Turns results into the bytes of a response."""

    def rows(self, results: Sequence[Result]) -> bytes:
        """The bytes of some more rows; there may be none yet."""

    def end(self) -> bytes:
        """The bytes that are left."""


@dataclass(frozen=True)
class Format:
    """One way to write a batch.

    Attributes:
        media_type: its name.
        records: reads a body; raises `Unreadable` where it cannot go on.
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
    """A record of each line that is not empty."""
    while line := file.readline(RECORD_BYTES_LIMIT + 1):
        if len(line) > RECORD_BYTES_LIMIT:
            raise Unreadable(f"a line is longer than {RECORD_BYTES_LIMIT:,} bytes")
        if line.strip():
            yield _record(line)


def json_elements(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The elements of a JSON array, cut out of its text without holding it.

    Only texts, brackets and commas are looked at; what an element is worth is its parser's matter.

    Raises:
        Unreadable: if the text is no array, or ends before the array does.
    """
    buffer, place, depth, elements, ended = bytearray(), 0, 0, 0, False
    for piece in pieces:
        buffer += piece
        while found := TOKEN.search(buffer, place):
            token, at = found[0], found.start()
            if token == b'"':
                break  # a text whose end is still to come
            place = found.end()
            if depth == 0:
                if token != b"[" or buffer[:at].strip() or ended:
                    raise Unreadable("the body is no JSON array")
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
                    raise Unreadable(
                        "an element of the JSON array is missing between two commas, or after the "
                        "last one"
                    )
            elif depth == 1 and token == b"}":
                raise Unreadable("a bracket of the JSON array is closed that was not opened")
        if len(buffer) > RECORD_BYTES_LIMIT + PIECE_BYTES:
            raise Unreadable(
                f"an element of the JSON array is longer than {RECORD_BYTES_LIMIT:,} bytes"
            )
    if not ended:
        raise Unreadable("the JSON array has no end" if depth else "the body is no JSON array")
    if buffer.strip():
        raise Unreadable("something follows the JSON array")


def table_records(kind: "FileKind") -> Callable[[IO[bytes], Portfolio], Iterator[Record]]:
    """Reads the rows of a table.

    Args:
        kind: of the table.
    """

    def records(file: IO[bytes], portfolio: Portfolio) -> Iterator[Record]:
        from creditrisk_assets.landing.table_reader import UnreadableFile, read_body
        from creditrisk_assets.landing.validation import RefusedColumns, RowCheck, require_columns

        try:
            with read_body(file, kind, TABLE_ROWS, TABLE_BYTES, portfolio) as stream:
                require_columns(stream.schema, portfolio.field_names, [portfolio.identifier])
                check = RowCheck(portfolio.fields, portfolio.identifier)
                for batch in stream:
                    yield from _table_rows(batch, check)
        except (UnreadableFile, RefusedColumns) as error:
            raise Unreadable(str(error)) from error

    return records


class JsonWriter:
    """A JSON array: each element an answer, or the row with its problems."""

    def __init__(self, _: Portfolio) -> None:
        self._between = b"["

    def rows(self, results: Sequence[Result]) -> bytes:
        """Some more elements."""
        if not results:
            return b""
        text = self._between + b",".join(_document(result) for result in results)
        self._between = b","
        return text

    def end(self) -> bytes:
        """The end of the array."""
        return b"]" if self._between == b"," else b"[]"


class LineWriter:
    """A line of JSON for each row."""

    def __init__(self, _: Portfolio) -> None:
        return

    def rows(self, results: Sequence[Result]) -> bytes:
        """Some more lines."""
        return b"".join(_document(result) + b"\n" for result in results)

    def end(self) -> bytes:
        """Nothing."""
        return b""


class TableTextWriter:
    """CSV: the columns of `ANSWER_COLUMNS` after row and identifier."""

    def __init__(self, portfolio: Portfolio) -> None:
        self._text = io.StringIO()
        self._csv = csv.writer(self._text, lineterminator="\n")
        self._csv.writerow(["row", portfolio.identifier, *ANSWER_COLUMNS])

    def rows(self, results: Sequence[Result]) -> bytes:
        """Some more lines."""
        for result in results:
            self._csv.writerow([result.row, result.identifier, *_answer_cells(result)])
        return self._taken()

    def end(self) -> bytes:
        """Nothing, or the header of a table without rows."""
        return self._taken()

    def _taken(self) -> bytes:
        text = self._text.getvalue().encode()
        self._text.seek(0)
        self._text.truncate()
        return text


class ArrowWriter:
    """The same table as an Arrow stream, or as a Parquet file."""

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
        self._sink = _Taken()
        self._writer = (
            pq.ParquetWriter(self._sink, self._schema)
            if as_parquet
            else pa.ipc.new_stream(self._sink, self._schema)
        )
        self._group_rows = ROW_GROUP_ROWS if as_parquet else 1
        self._waiting: list[tuple[Any, ...]] = []

    def rows(self, results: Sequence[Result]) -> bytes:
        """Some more batches."""
        self._waiting += [
            (result.row, result.identifier, *_answer_cells(result)) for result in results
        ]
        if len(self._waiting) >= self._group_rows:
            self._write()
        return self._sink.taken()

    def end(self) -> bytes:
        """What is left, and the end of the file."""
        if self._waiting:
            self._write()
        self._writer.close()
        return self._sink.taken()

    def _write(self) -> None:
        import pyarrow as pa

        columns = zip(*self._waiting, strict=True)
        arrays = [
            pa.array(list(values), field.type)
            for values, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._waiting = []


FORMATS = {
    one.media_type: one
    for one in (
        Format(JSON, json_records, JsonWriter),
        Format(NDJSON, line_records, LineWriter),
        Format(CSV, table_records("csv"), TableTextWriter),
        Format(
            PARQUET,
            table_records("parquet"),
            lambda portfolio: ArrowWriter(portfolio, as_parquet=True),
        ),
        Format(
            ARROW,
            table_records("arrow"),
            lambda portfolio: ArrowWriter(portfolio, as_parquet=False),
        ),
    )
}


class _Taken(io.RawIOBase):
    """A file that is written to at one end and taken from at the other."""

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

    def taken(self) -> bytes:
        taken = bytes(self._buffer)
        self._buffer.clear()
        return taken


def _record(text: bytes) -> Record:
    if len(text) > RECORD_BYTES_LIMIT:
        return NoRecord(f"longer than {RECORD_BYTES_LIMIT:,} bytes")
    try:
        value = parse(text)
    except NotStrictJson as error:
        return NoRecord(str(error))
    return value if isinstance(value, dict) else NoRecord("no JSON object")


def _table_rows(batch: "RawBatch", check: "RowCheck") -> Iterator[Record]:
    """The rows of a batch in the order of their lines, and the lines among them that are no
    rows.
    """
    from creditrisk_assets.landing.validation import accepted_arrays

    checked = check(batch.cells)
    names = [field.name for field in check.fields]
    good = zip(
        *(array.to_pylist() for array in accepted_arrays(checked, check.fields, checked.good)),
        strict=True,
    )
    broken = _broken_rows(batch, checked, check)
    malformed = iter([*batch.malformed, (sys.maxsize, "", "")])
    line, why, _ = next(malformed)
    for row, (place, identifier) in enumerate(
        zip(batch.lines.tolist(), checked.identifiers.to_pylist(), strict=True)
    ):
        while line < place:
            yield NoRecord(f"line {line}: {why}")
            line, why, _ = next(malformed)
        if row in broken:
            yield TableRow({}, identifier or None, tuple(broken[row]))
            continue
        values = dict(zip(names, next(good), strict=True))
        if identifier:
            values[check.identifier] = identifier
        yield TableRow(values, identifier or None)
    while line < sys.maxsize:
        yield NoRecord(f"line {line}: {why}")
        line, why, _ = next(malformed)


def _broken_rows(
    batch: "RawBatch", checked: "CheckedBatch", check: "RowCheck"
) -> dict[int, list[CellFault]]:
    from creditrisk_assets.landing.validation import (
        MISSING,
        plain_text,
        python_value,
        reason,
    )

    broken: dict[int, list[CellFault]] = {}
    for row, kind in zip(checked.faults.rows.tolist(), checked.faults.kinds.tolist(), strict=True):
        name, rule = checked.faults.table[kind]
        value = python_value(batch.cells.column(name)[row])
        given, why = (
            (None, MISSING) if rule == MISSING else (plain_text(value), reason(value, rule))
        )
        broken.setdefault(row, []).append(CellFault(name, given, why, check.valid(name)))
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
    """One problem as a person reads it."""
    given = f" {problem['value']!r}" if problem.get("value") is not None else ""
    valid = f"; valid: {problem['valid']}" if problem.get("valid") else ""
    return f"{problem['field']}{given}: {problem['problem']}{valid}"
