"""Forms in which real tables of card customers arrive, and what becomes of each at every door that takes files.

`test_doors` compares the table with `docs/evidence/doors.md`; `python -m tests.support.doors` writes the section anew.
"""

import csv
import gzip
import io
import re
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

from creditrisk_assets.landing.arrivals import find_arrivals
from creditrisk_assets.landing.ingestion import ingest, read_rejected
from creditrisk_assets.landing.listing import list_day
from creditrisk_assets.landing.table_reader import kind_of
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.runtime import Runtime
from creditrisk_assets.scoring.score_file import score_file
from creditrisk_assets.scoring.scorers import (
    ANSWER_COLUMNS,
    Answers,
    LocalScorer,
    Scorer,
    ScoringError,
)
from creditrisk_assets.simulation.card_customers import simulate
from creditrisk_assets.storage import StoredPath
from serving.http.batch_formats import (
    ARROW,
    CSV,
    FORMATS,
    PARQUET,
    NoRecord,
    TableRow,
    UnreadableBody,
)
from tests.support.examples import champion_of, written_bundle

PAGE = Path(__file__).parents[2] / "docs" / "evidence" / "doors.md"
SECTION = "## Files"
DAY = "2026-03-01"
ROWS = 12
TARGET = "default.payment.next.month"

CUSTOMERS = simulate(ROWS, 7).rename(
    columns=lambda name: TARGET if name == PORTFOLIO.target else name.upper()
)
CUSTOMERS = CUSTOMERS.astype({"ID": "int64"})
NAMES = list(CUSTOMERS.columns)
NUMBERED = {
    name: "ID" if name == "ID" else "Y" if name == TARGET else f"X{place}"
    for place, name in enumerate(NAMES)
}
UUIDS = [str(uuid.uuid5(uuid.NAMESPACE_OID, str(number))) for number in range(ROWS)]
TABLE = pa.Table.from_pandas(CUSTOMERS, preserve_index=False)

LANDED, SCORE, BATCH, BATCH_ARROW, HISTORY = "landed", "score", "batch", "batch (Arrow)", "history"


@dataclass(frozen=True)
class Verdict:
    """What a door made of a file.

    Attributes:
        records: what was accepted: the values of the fields, in order.
        problems: what was said about rows, in order.
        refusal: what was said about the file as a whole, if it was refused.
    """

    records: tuple[tuple[object, ...], ...] = ()
    problems: tuple[str, ...] = ()
    refusal: str | None = None

    @property
    def text(self) -> str:
        """For the page."""
        if self.refusal is not None:
            return f"refused: {self.refusal}"
        said = f"{len(self.records)} rows read"
        if not self.problems:
            return said
        more = f", and {len(self.problems) - 1} more" if len(self.problems) > 1 else ""
        return f"{said}; refused: {self.problems[0]}{more}"


def text_of(frame: pd.DataFrame = CUSTOMERS, **options: object) -> bytes:
    """A frame as CSV."""
    return frame.to_csv(**{"index": False, **options}).encode()  # type: ignore[call-overload,no-any-return]


def changed(**columns: Any) -> pd.DataFrame:
    """The customers with some columns otherwise."""
    return CUSTOMERS.assign(
        **{TARGET if name == "TARGET" else name: values for name, values in columns.items()}
    )


def each(column: str, change: Callable[[Any], Any]) -> pd.DataFrame:
    """The customers with each value of a column changed."""
    return CUSTOMERS.assign(**{column: [change(value) for value in CUSTOMERS[column].tolist()]})


def one(column: str, value: Any) -> pd.DataFrame:
    """The customers with the first value of a column changed."""
    frame = CUSTOMERS.astype({column: "object"})
    frame.loc[0, column] = value
    return frame


def parquet(table: pa.Table, **options: object) -> bytes:
    """A table as Parquet."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def with_columns(**columns: pa.Array) -> bytes:
    """The customers as Parquet with columns of other types."""
    table = TABLE
    for name, values in columns.items():
        name = TARGET if name == "TARGET" else name
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return parquet(table)


def cast(**types: pa.DataType) -> bytes:
    """The customers as Parquet with columns cast."""
    return with_columns(
        **{
            name: TABLE[TARGET if name == "TARGET" else name].cast(kind)
            for name, kind in types.items()
        }
    )


def frame_parquet(frame: pd.DataFrame) -> bytes:
    """A frame as pandas writes it."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def zipped(**members: bytes) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(
                name.replace("__", "/").replace("TYPES", "[Content_Types].xml"), content
            )
    return buffer.getvalue()


def feather() -> bytes:
    """An Arrow file."""
    buffer = io.BytesIO()
    pyarrow.feather.write_feather(TABLE, buffer)
    return buffer.getvalue()


def lines_of(content: bytes) -> list[str]:
    """Lines without their ends."""
    return content.decode().splitlines()


def joined(lines: list[str], end: str = "\n") -> bytes:
    """Lines as text."""
    return "".join(f"{line}{end}" for line in lines).encode()


BASE = lines_of(text_of())
XLSX = zipped(TYPES=b"<Types/>", _rels__rels=b"", xl__workbook=b"")
MULTI = CUSTOMERS.copy()
MULTI.columns = pd.MultiIndex.from_tuples(list(zip(NUMBERED.values(), NAMES, strict=True)))
NULLABLE = CUSTOMERS.astype("Int64")
NULLABLE.loc[0, "AGE"] = pd.NA

FORMS: Mapping[str, tuple[str, bytes]] = {
    "as published, comma-separated": ("a.csv", text_of()),
    "header in quotes": ("a.csv", text_of(quoting=csv.QUOTE_NONNUMERIC)),
    "every cell in quotes": ("a.csv", text_of(CUSTOMERS.astype(str), quoting=csv.QUOTE_ALL)),
    "two header rows, X1 to X23 above the names": (
        "a.csv",
        joined([",".join(["", *list(NUMBERED.values())[1:]]), *BASE]),
    ),
    "two header rows, the target written with spaces": (
        "a.csv",
        joined(
            [",".join(["", *list(NUMBERED.values())[1:]]), BASE[0].replace(".", " "), *BASE[1:]]
        ),
    ),
    "X1 to X23 and Y with ID": ("a.csv", text_of(CUSTOMERS.rename(columns=NUMBERED))),
    "X1 to X23 and Y without ID": (
        "a.csv",
        text_of(CUSTOMERS.rename(columns=NUMBERED).drop(columns="ID")),
    ),
    "x1 to x23 and y in small letters": (
        "a.csv",
        text_of(CUSTOMERS.rename(columns=NUMBERED).rename(columns=str.lower)),
    ),
    "X1 to X23 as Parquet": ("a.parquet", parquet(TABLE.rename_columns(list(NUMBERED.values())))),
    "X1 to X22 only": ("a.csv", text_of(CUSTOMERS.rename(columns=NUMBERED).drop(columns="X23"))),
    "names in small letters": ("a.csv", text_of(CUSTOMERS.rename(columns=str.lower))),
    "names with spaces around them": (
        "a.csv",
        text_of(CUSTOMERS.rename(columns=lambda name: f" {name} ")),
    ),
    "names with spaces for underscores": (
        "a.csv",
        text_of(CUSTOMERS.rename(columns=lambda name: name.replace("_", " "))),
    ),
    "camel case without underscores": (
        "a.csv",
        text_of(CUSTOMERS.rename(columns=lambda name: name.title().replace("_", ""))),
    ),
    "PAY_1 for PAY_0": ("a.csv", text_of(CUSTOMERS.rename(columns={"PAY_0": "PAY_1"}))),
    "LIMIT for LIMIT_BAL": ("a.csv", text_of(CUSTOMERS.rename(columns={"LIMIT_BAL": "LIMIT"}))),
    "customer_id for ID": ("a.csv", text_of(CUSTOMERS.rename(columns={"ID": "customer_id"}))),
    "a column twice": ("a.csv", text_of(pd.concat([CUSTOMERS, CUSTOMERS[["AGE"]]], axis=1))),
    "columns in another order": ("a.csv", text_of(CUSTOMERS[NAMES[::-1]])),
    "a column of row numbers before the others": ("a.csv", text_of(index=True)),
    "a comment above the header": (
        "a.csv",
        joined(["# exported 2026-03-01 by core banking", *BASE]),
    ),
    "a title and an empty line above the header": ("a.csv", joined(["Card customers", "", *BASE])),
    "the header again in the middle": ("a.csv", joined([*BASE[:5], BASE[0], *BASE[5:]])),
    "a line of totals below": ("a.csv", joined([*BASE, "TOTAL,1000000" + "," * 23])),
    "a line of totals with fewer cells": ("a.csv", joined([*BASE, "TOTAL,1000000"])),
    "a line of separators below": ("a.csv", joined([*BASE, "," * 24])),
    "empty lines between": ("a.csv", joined([*BASE[:3], "", *BASE[3:], "", ""])),
    "a separator at the end of each row": (
        "a.csv",
        joined([BASE[0], *(f"{line}," for line in BASE[1:])]),
    ),
    "a separator at the end of each line": ("a.csv", joined([f"{line}," for line in BASE])),
    "each line in quotes as a whole": ("a.csv", joined([f'"{line}"' for line in BASE])),
    "semicolons": ("a.csv", text_of(sep=";")),
    "tabs": ("a.csv", text_of(sep="\t")),
    "bars": ("a.csv", text_of(sep="|")),
    "byte-order mark and CRLF": ("a.csv", b"\xef\xbb\xbf" + joined(BASE, "\r\n")),
    "line ends of old Macs": ("a.csv", joined(BASE, "\r")),
    "no line end behind the last row": ("a.csv", joined(BASE)[:-1]),
    "UTF-16 with a mark": ("a.csv", joined(BASE).decode().encode("utf-16")),
    "UTF-16 without a mark": ("a.csv", joined(BASE).decode().encode("utf-16-le")),
    "UTF-32": ("a.csv", joined(BASE).decode().encode("utf-32")),
    "Windows-1252 with an umlaut": (
        "a.csv",
        text_of(changed(NAME="M\u00fcller")).decode().encode("cp1252"),
    ),
    "UTF-8 with an umlaut": ("a.csv", text_of(changed(NAME="M\u00fcller"))),
    "a remark of two lines, passed over": (
        "a.csv",
        text_of(changed(REMARK=["first\nsecond", *["ok"] * (ROWS - 1)])),
    ),
    "remarks of many lines with quotes and separators": (
        "a.csv",
        text_of(changed(REMARK='said "no",\r\n\r\nand; left')),
    ),
    'a quote amid a cell (5" pipe)': (
        "a.csv",
        joined([f"{BASE[0]},REMARK", *(f'{line},5" pipe' for line in BASE[1:])]),
    ),
    "a quote that is left open": (
        "a.csv",
        joined([f"{BASE[0]},REMARK", f'{BASE[1]},"open', *(f"{line},x" for line in BASE[2:])]),
    ),
    "a zero byte in a row": ("a.csv", joined(BASE[:3]) + b"\0" + joined(BASE[3:])),
    "floats everywhere (2.0)": ("a.csv", text_of(CUSTOMERS.astype(float))),
    "decimal commas, semicolons": ("a.csv", text_of(CUSTOMERS.astype(float), sep=";", decimal=",")),
    "thousands with a comma, quoted": ("a.csv", text_of(each("LIMIT_BAL", lambda v: f"{v:,}"))),
    "thousands with a point, semicolons": (
        "a.csv",
        text_of(each("LIMIT_BAL", lambda v: f"{v:,}".replace(",", ".")), sep=";"),
    ),
    "thousands with a space": (
        "a.csv",
        text_of(each("LIMIT_BAL", lambda v: f"{v:,}".replace(",", " "))),
    ),
    "thousands with a narrow space": (
        "a.csv",
        text_of(each("LIMIT_BAL", lambda v: f"{v:,}".replace(",", "\u202f"))),
    ),
    "thousands with an apostrophe": (
        "a.csv",
        text_of(each("LIMIT_BAL", lambda v: f"{v:,}".replace(",", "'"))),
    ),
    "one limit of 20.000": ("a.csv", text_of(one("LIMIT_BAL", "20.000"))),
    "one limit of 20,000": ("a.csv", text_of(one("LIMIT_BAL", "20,000"))),
    "one limit of 1.000.000": ("a.csv", text_of(one("LIMIT_BAL", "1.000.000"))),
    "one limit of 20.000,50": ("a.csv", text_of(one("LIMIT_BAL", "20.000,50"))),
    "one limit of 20000.50": ("a.csv", text_of(one("LIMIT_BAL", "20000.50"))),
    "three decimals everywhere (2.000)": (
        "a.csv",
        text_of(CUSTOMERS.astype(float), float_format="%.3f"),
    ),
    "a currency before the amount": ("a.csv", text_of(each("LIMIT_BAL", lambda v: f"NT${v}"))),
    "scientific notation of a limit (2.0E+04)": ("a.csv", text_of(one("LIMIT_BAL", "2.0E+04"))),
    "a protected space behind the amount": (
        "a.csv",
        text_of(each("LIMIT_BAL", lambda v: f"{v}\u00a0")),
    ),
    "a typographical minus": ("a.csv", text_of(one("PAY_0", "\u22121"))),
    "a minus behind the digits": ("a.csv", text_of(one("PAY_0", "1-"))),
    "an amount in brackets": ("a.csv", text_of(one("BILL_AMT1", "(100)"))),
    "NULL for an age": ("a.csv", text_of(one("AGE", "NULL"))),
    "\\N for an age": ("a.csv", text_of(one("AGE", "\\N"))),
    "an empty age": ("a.csv", text_of(one("AGE", ""))),
    "a question mark for an age": ("a.csv", text_of(one("AGE", "?"))),
    "words for sex": ("a.csv", text_of(each("SEX", lambda v: "male" if v == 1 else "female"))),
    "true for a number": ("a.csv", text_of(one("SEX", "true"))),
    "a code that does not exist": ("a.csv", text_of(one("SEX", 3))),
    "an age of 5": ("a.csv", text_of(one("AGE", 5))),
    "identifiers with leading zeros": ("a.csv", text_of(each("ID", lambda v: f"{v:08d}"))),
    "identifiers as floats (7.0)": ("a.csv", text_of(each("ID", lambda v: f"{v}.0"))),
    "identifiers rounded by a spreadsheet": ("a.csv", text_of(one("ID", "4.00000E+15"))),
    "identifiers as formulas": ("a.csv", text_of(each("ID", lambda v: f'="{v:06d}"'))),
    "one identifier of 7.000": ("a.csv", text_of(one("ID", "7.000"))),
    "one empty identifier": ("a.csv", text_of(one("ID", ""))),
    "identifiers of 120 characters": ("a.csv", text_of(each("ID", lambda v: f"{v:0120d}"))),
    "UUIDs as text": ("a.csv", text_of(changed(ID=UUIDS))),
    "outcomes in words (yes, no)": ("a.csv", text_of(each(TARGET, lambda v: "yes" if v else "no"))),
    "an empty file": ("a.csv", b""),
    "a header and no rows": ("a.csv", joined(BASE[:1])),
    "no header": ("a.csv", joined(BASE[1:])),
    "one column": ("a.csv", text_of(CUSTOMERS[["ID"]])),
    "an error page (HTML)": ("a.csv", b"<!DOCTYPE html><html><body>404, not found</body></html>\n"),
    "JSON records called .csv": ("a.csv", CUSTOMERS.to_json(orient="records").encode()),
    "JSON lines called .csv": ("a.csv", CUSTOMERS.to_json(orient="records", lines=True).encode()),
    "gzip called .csv.gz": ("a.csv.gz", gzip.compress(joined(BASE), mtime=0)),
    "gzip of two parts": (
        "a.csv.gz",
        gzip.compress(joined(BASE[:4]), mtime=0) + gzip.compress(joined(BASE[4:]), mtime=0),
    ),
    "gzip called .csv": ("a.csv", gzip.compress(joined(BASE), mtime=0)),
    "gzip that breaks off": ("a.csv.gz", gzip.compress(joined(BASE), mtime=0)[:-20]),
    "plain text called .csv.gz": ("a.csv.gz", joined(BASE)),
    "zip called .csv": ("a.csv", zipped(data=joined(BASE))),
    "zip called .csv.zip": ("a.csv.zip", zipped(data=joined(BASE))),
    "Excel called .csv": ("a.csv", XLSX),
    "Excel called .xlsx": ("a.xlsx", XLSX),
    "old Excel called .csv": ("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)),
    "upper-case name .CSV": ("A.CSV", joined(BASE)),
    "CSV called .txt": ("a.txt", joined(BASE)),
    "tabs called .tsv": ("a.tsv", text_of(sep="\t")),
    "Feather called .csv": ("a.csv", feather()),
    "Feather called .parquet": ("a.parquet", feather()),
    "Feather called .feather": ("a.feather", feather()),
    "Parquet called .csv": ("a.csv", parquet(TABLE)),
    "CSV called .parquet": ("a.parquet", joined(BASE)),
    "Parquet that breaks off": ("a.parquet", parquet(TABLE)[:-30]),
    "a pickle called .parquet": ("a.parquet", b"\x80\x04\x95" + bytes(100)),
    "Parquet by pandas": ("a.parquet", frame_parquet(CUSTOMERS)),
    "Parquet by pandas, ID as index": (
        "a.parquet",
        frame_parquet(CUSTOMERS.iloc[[1, 0, *range(2, ROWS)]].set_index("ID")),
    ),
    "Parquet by pandas, ID as a range, which is in no column": (
        "a.parquet",
        frame_parquet(CUSTOMERS.set_index("ID")),
    ),
    "Parquet by pandas, filtered": (
        "a.parquet",
        frame_parquet(CUSTOMERS[CUSTOMERS["AGE"] > 0].iloc[1:]),
    ),
    "Parquet by pandas, nullable, one age missing": ("a.parquet", frame_parquet(NULLABLE)),
    "Parquet by pandas, two levels of column names": ("a.parquet", frame_parquet(MULTI)),
    "Parquet, zstd, version 2.6": (
        "a.parquet",
        parquet(TABLE, compression="zstd", version="2.6", data_page_version="2.0"),
    ),
    "Parquet, brotli": ("a.parquet", parquet(TABLE, compression="brotli")),
    "Parquet without rows": ("a.parquet", parquet(TABLE.slice(0, 0))),
    "Parquet, whole numbers as doubles": (
        "a.parquet",
        cast(**{name: pa.float64() for name in NAMES[1:-1]}),
    ),
    "Parquet, small and unsigned integers": (
        "a.parquet",
        cast(AGE=pa.uint8(), SEX=pa.int8(), LIMIT_BAL=pa.uint32()),
    ),
    "Parquet, half-precision ages": ("a.parquet", cast(AGE=pa.float16())),
    "Parquet, decimals (38, 10)": ("a.parquet", cast(LIMIT_BAL=pa.decimal128(38, 10))),
    "Parquet, a decimal that is not whole": (
        "a.parquet",
        with_columns(
            LIMIT_BAL=pa.array([1.5, *[20_000.0] * (ROWS - 1)]).cast(pa.decimal128(12, 2))
        ),
    ),
    "Parquet, numbers as text": ("a.parquet", cast(**{name: pa.string() for name in NAMES[:-1]})),
    "Parquet, numbers as large text": (
        "a.parquet",
        cast(LIMIT_BAL=pa.large_string(), AGE=pa.large_string()),
    ),
    "Parquet, text in views": (
        "a.parquet",
        with_columns(ID=TABLE["ID"].cast(pa.string()).cast(pa.string_view())),
    ),
    "Parquet, codes in dictionaries": (
        "a.parquet",
        with_columns(
            SEX=TABLE["SEX"].cast(pa.string()).dictionary_encode(),
            PAY_0=TABLE["PAY_0"].dictionary_encode(),
        ),
    ),
    "Parquet, text as BINARY": (
        "a.parquet",
        with_columns(
            **{
                name: TABLE[name].cast(pa.string()).cast(pa.binary())
                for name in ("ID", "LIMIT_BAL", "SEX")
            }
        ),
    ),
    "Parquet, identifiers as BINARY that is no text": (
        "a.parquet",
        with_columns(ID=pa.array([b"\x15\xff" + bytes([number]) for number in range(ROWS)])),
    ),
    "Parquet, identifiers as FIXED_SIZE_BINARY text": (
        "a.parquet",
        with_columns(
            ID=pa.array([f"{number:06d}".encode() for number in range(ROWS)], pa.binary(6))
        ),
    ),
    "Parquet, UUIDs as UUID": (
        "a.parquet",
        with_columns(ID=pa.array([uuid.UUID(one).bytes for one in UUIDS], pa.uuid())),
    ),
    "Parquet, UUIDs as bare 16 bytes": (
        "a.parquet",
        with_columns(ID=pa.array([uuid.UUID(one).bytes for one in UUIDS], pa.binary(16))),
    ),
    "Parquet, numbers as 16 bytes": (
        "a.parquet",
        with_columns(
            ID=pa.array(
                [number.to_bytes(16, "big") for number in range(1, ROWS + 1)], pa.binary(16)
            )
        ),
    ),
    "Parquet, identifiers as doubles": ("a.parquet", cast(ID=pa.float64())),
    "Parquet, identifiers as doubles beyond 2**53": (
        "a.parquet",
        with_columns(ID=pa.array([2.0**60 + n for n in range(ROWS)])),
    ),
    "Parquet, identifiers as decimals (24, 3)": ("a.parquet", cast(ID=pa.decimal128(24, 3))),
    "Parquet, identifiers of 64 bits": (
        "a.parquet",
        with_columns(ID=pa.array([2**60 + n for n in range(ROWS)])),
    ),
    "Parquet, identifiers as timestamps": ("a.parquet", cast(ID=pa.timestamp("us"))),
    "Parquet, identifiers as dates": (
        "a.parquet",
        with_columns(ID=pa.array(range(ROWS), pa.date32())),
    ),
    "Parquet, identifiers as lists": (
        "a.parquet",
        with_columns(ID=pa.array([[number] for number in range(ROWS)])),
    ),
    "Parquet, identifiers as structs": (
        "a.parquet",
        with_columns(ID=pa.array([{"a": number} for number in range(ROWS)])),
    ),
    "Parquet, identifiers as truth values": ("a.parquet", with_columns(ID=pa.array([True] * ROWS))),
    "Parquet, an age as a duration": (
        "a.parquet",
        with_columns(AGE=pa.array(range(ROWS), pa.duration("s"))),
    ),
    "Parquet, sex as truth values": ("a.parquet", with_columns(SEX=pa.array([True] * ROWS))),
    "Parquet, outcomes as truth values": ("a.parquet", cast(TARGET=pa.bool_())),
    "Parquet, a column without any value": ("a.parquet", with_columns(AGE=pa.nulls(ROWS))),
    "Parquet, infinite and NaN amounts": (
        "a.parquet",
        with_columns(LIMIT_BAL=pa.array([float("inf"), float("nan"), *[20_000.0] * (ROWS - 2)])),
    ),
    "Parquet, unread columns of nested types": (
        "a.parquet",
        parquet(TABLE.append_column("extra", pa.array([[{"a": 1}]] * ROWS))),
    ),
}
"""What each form is called, the file's name, and its bytes."""


def verdicts(name: str, content: bytes, scorer: Scorer, folder: Path) -> dict[str, Verdict]:
    """What each door makes of a file."""
    day = folder / DAY
    day.mkdir(parents=True)
    path = day / name
    path.write_bytes(content)
    found = {
        LANDED: _landed(day),
        SCORE: _scored(path, scorer, folder),
        HISTORY: _history(path, folder),
    }
    if kind_of(name) == "parquet":
        found[BATCH] = _batch(PARQUET, content)
        try:
            table = pq.read_table(io.BytesIO(content), partitioning=None)
        except (pa.ArrowException, OSError):
            return found
        buffer = io.BytesIO()
        with pa.ipc.new_stream(buffer, table.schema) as stream:
            stream.write_table(table)
        found[BATCH_ARROW] = _batch(ARROW, buffer.getvalue())
    elif name.lower().endswith(".csv"):
        found[BATCH] = _batch(CSV, content)
    return found


def _landed(day: Path) -> Verdict:
    listing = list_day(day)
    if not listing.files:
        (problem,) = find_arrivals([listing], [], {}, DAY, DAY, 0.0, 0.0).problems
        return Verdict(refusal=problem.removeprefix(f"{DAY}: "))
    return _ingested(
        [file.path for file in listing.files], day.parent / "landed", with_target=False
    )


def _history(path: Path, folder: Path) -> Verdict:
    return _ingested([path], folder / "history", with_target=True)


def _ingested(paths: Sequence[StoredPath], out: Path, with_target: bool) -> Verdict:
    fields = [*PORTFOLIO.fields, PORTFOLIO.target_field] if with_target else PORTFOLIO.fields
    result = ingest(paths, PORTFOLIO, fields, out, may_lack_identifier=with_target)
    accepted = pq.read_table(result.accepted_file).select(PORTFOLIO.field_names)
    records = tuple(zip(*(column.to_pylist() for column in accepted.columns), strict=True))
    if result.rejected_file is None:
        return Verdict(records)
    rejected = read_rejected(result.rejected_file)
    if (rejected["line"] == 0).any():
        (message,) = rejected["message"]
        return Verdict(refusal=str(message))
    return Verdict(records, tuple(rejected["message"]))


class Seen:
    """A scorer that remembers the records."""

    columns = ANSWER_COLUMNS
    decided_by = "a test"
    threads = 1

    def __init__(self, scorer: Scorer) -> None:
        self.rows = scorer.rows
        self.batches: list[pa.RecordBatch] = []
        self._scorer = scorer

    def __call__(self, records: pa.RecordBatch) -> Answers:
        self.batches.append(records)
        return self._scorer(records)


def _scored(path: Path, scorer: Scorer, folder: Path) -> Verdict:
    seen = Seen(scorer)
    try:
        result = score_file(
            path, folder / "scored.parquet", PORTFOLIO, seen, lambda _done, _of: None
        )
    except ScoringError as error:
        return Verdict(refusal=str(error).removeprefix(f"{path}: "))
    records = tuple(
        tuple(record.values()) for batch in seen.batches for record in batch.to_pylist()
    )
    errors = [
        error for error in pq.read_table(folder / "scored.parquet")["error"].to_pylist() if error
    ]
    return Verdict(records, (*errors, *(why for _, why, _ in result.malformed)))


def _batch(media_type: str, content: bytes) -> Verdict:
    try:
        rows = list(FORMATS[media_type].records(io.BytesIO(content), PORTFOLIO))
    except UnreadableBody as error:
        return Verdict(refusal=str(error))
    records, problems, malformed = [], [], []
    for row in rows:
        if isinstance(row, NoRecord):
            malformed.append(re.sub(r"^line \d+: ", "", str(row)))
        elif isinstance(row, TableRow) and row.faults:
            said = [
                f"{fault.field}: {'' if fault.value is None else f'{fault.value[:60]!r} '}{fault.problem}; valid: {fault.valid}"
                for fault in row.faults
            ]
            problems.append("; ".join(said))
        elif isinstance(row, TableRow):
            records.append(tuple(row.values[name] for name in PORTFOLIO.field_names))
    return Verdict(tuple(records), (*problems, *malformed))


def a_scorer(folder: Path) -> Scorer:
    """Decisions by a small bundle of the portfolio."""
    bundle = written_bundle(
        folder / "bundle", 0, pd.DataFrame({"x": np.zeros(1)}), portfolio=PORTFOLIO
    ).load()
    champion = champion_of(bundle, "1")
    return LocalScorer(Runtime(bundle, champion.rule), champion)


def table_of(found: Mapping[str, Mapping[str, Verdict]]) -> str:
    """The section of the page: for each form, what happens, at the doors where it does."""
    lines = [
        SECTION,
        "",
        "Written by `python -m tests.support.doors`; `tests/unit/landing/test_doors.py` compares it. Each form is one file of "
        f"{ROWS} customers. Doors: *landed* a file of a day, *score* `creditrisk score`, *batch* a table sent to "
        "`/predict/batch` (CSV or Parquet, and the same as an Arrow stream), *history* the file that the first "
        "model learns from.",
        "",
        "| Form | File | Doors | What happens |",
        "|---|---|---|---|",
    ]
    for form, doors in found.items():
        by_text: dict[str, list[str]] = {}
        for door, verdict in doors.items():
            by_text.setdefault(verdict.text, []).append(door)
        for place, (text, names) in enumerate(by_text.items()):
            cells = (
                form if place == 0 else "",
                f"`{FORMS[form][0]}`" if place == 0 else "",
                ", ".join(names),
                _cell(text),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text in a cell of a table."""
    shown = text.replace("valid: " + ", ".join(PORTFOLIO.field_names), "valid: …").replace(
        ", ".join(PORTFOLIO.field_names), "…"
    )
    shown = shown if len(shown) <= 300 else f"{shown[:300]} …"
    return re.sub(r"([|<>*_`\\])", r"\\\1", shown)


def section_of(page: str) -> str:
    """The section as a page has it; "" if it has none."""
    found = re.search(rf"^{SECTION}\n.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return f"{found[0].rstrip()}\n" if found else ""


def measured(folder: Path) -> dict[str, dict[str, Verdict]]:
    """Every form at every door."""
    scorer = a_scorer(folder)
    return {
        form: verdicts(*FORMS[form], scorer, folder / f"{place}")
        for place, form in enumerate(FORMS)
    }


def main() -> None:
    """Write the section of the page anew."""
    with tempfile.TemporaryDirectory() as folder:
        table = table_of(measured(Path(folder)))
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else "# What becomes of what arrives\n"
    before = section_of(page)
    PAGE.write_text(
        page.replace(before.rstrip(), table.rstrip()) if before else f"{page.rstrip()}\n\n{table}",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
