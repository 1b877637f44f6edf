"""Forms in which requests arrive at the API, and what each is answered.

`test_doors_requests` compares the table with `docs/evidence/doors.md`; `python -m tests.support.doors_requests` writes the
section anew.
"""

import contextlib
import csv
import gzip
import http.client
import io
import json
import re
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.parquet as pq
from structlog.testing import capture_logs
from upath import UPath

from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.settings import ServingSettings, Settings
from creditrisk_assets.simulation.card_customers import simulate
from creditrisk_assets.simulation.stepped_loop import SteppedLoop
from serving.app import api
from serving.http.batch_formats import (
    ARROW,
    CSV,
    JSON,
    NDJSON,
    PARQUET,
    problem_text,
)
from serving.http.gateway import Gateway
from tests.support.champion_file import published
from tests.support.champions import name_champion
from tests.support.doors import PAGE
from tests.support.examples import champion_of, written_bundle
from tests.support.policies import policy_of
from tests.support.servers import served
from tests.support.waiting import until

SECTION = "## Requests"
PREDICT, TRIAL, ELEMENT, LINE, ROW = "predict", "what-if", "element", "line", "row"
EXAMPLE = dict(PORTFOLIO.example)
SHOWN_LENGTH = 300
NO_VALUE = object()
"""In a table: what no cell can hold."""


@dataclass(frozen=True)
class Sent:
    """A request.

    Attributes:
        method: of HTTP.
        path: with the query.
        kind: the content type, if it has one.
        body: of the request; None: it has none.
        headers: more of them.
    """

    method: str
    path: str
    kind: str | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answered:
    """What came back: the body is what follows the head, whatever the method."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Verdict:
    """What became of a request.

    Attributes:
        status: of the answer.
        probability: of default, where a customer was decided on or tried.
        said: otherwise, one text for each thing that is wrong, or what the answer is.
    """

    status: int
    probability: float | None = None
    said: tuple[str, ...] = ()

    @property
    def outcome(self) -> tuple[float | None, tuple[str, ...]]:
        """What one record came to, whether alone or among others."""
        return self.probability, self.said

    @property
    def text(self) -> str:
        """For the page."""
        return "; ".join(self.said) if self.probability is None else f"PD {self.probability:.4f}"


@dataclass(frozen=True)
class Record:
    """A customer's record as JSON text: each value as it is written.

    Attributes:
        changes: by field, the JSON text of a value.
        without: fields that it does not have.
        renamed: fields by other names.
    """

    changes: Mapping[str, str] = field(default_factory=dict)
    without: Sequence[str] = ()
    renamed: Callable[[str], str] = str

    @property
    def members(self) -> dict[str, str]:
        """JSON text by name."""
        named = {
            self.renamed(name): json.dumps(value)
            for name, value in EXAMPLE.items()
            if name not in self.without
        }
        return {**named, **self.changes}

    @property
    def text(self) -> str:
        """The JSON object."""
        return (
            "{"
            + ", ".join(f"{json.dumps(name)}: {value}" for name, value in self.members.items())
            + "}"
        )

    @property
    def row(self) -> bytes | None:
        """The same as a CSV file of one row; None where a value cannot stand in a cell."""
        cells = [_cell_of(value) for value in self.members.values()]
        if not cells or NO_VALUE in cells:
            return None
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([list(self.members), cells])
        return text.getvalue().encode()


def _cell_of(literal: str) -> object:
    """The cell that says the same as a JSON value: a text without its quotes, nothing for null, a number as it is written."""
    value = json.loads(literal, parse_int=str)  # Python reads no more than 4,300 digits
    if literal.lstrip("-").isdigit():
        return literal
    if isinstance(value, dict | list):
        return NO_VALUE
    if isinstance(value, str):
        return (
            value
            if value.isascii() or value.encode(errors="ignore").decode() == value
            else NO_VALUE
        )
    return "" if value is None else literal


def having(**changes: str) -> Record:
    """The example with some values otherwise."""
    return Record(changes)


RECORDS: Mapping[str, Record] = {
    "the example": Record(),
    "names in upper case": Record(renamed=str.upper),
    "names with points (Limit.Bal)": Record(renamed=lambda name: name.title().replace("_", ".")),
    "names with spaces (Limit Bal)": Record(renamed=lambda name: name.title().replace("_", " ")),
    "one field in two spellings (limit_bal and LIMIT_BAL)": having(LIMIT_BAL="120000"),
    "an unknown field with a name that is near (pay_1)": having(pay_1="0"),
    "pay_1 for pay_0": Record({"pay_1": "-1"}, ["pay_0"]),
    "an unknown field with a name that is not near (branch)": having(branch='"north"'),
    "a field is missing (age)": Record(without=["age"]),
    "an empty object": Record(without=list(EXAMPLE)),
    "the target is there": having(**{PORTFOLIO.target: "0"}),
    'a number as text (limit_bal "20000")': having(limit_bal='"20000"'),
    'a number as text with thousands (limit_bal "20,000")': having(limit_bal='"20,000"'),
    'a number as text with a unit (limit_bal "NT$ 20000")': having(limit_bal='"NT$ 20000"'),
    'an empty text (limit_bal "")': having(limit_bal='""'),
    "true for 1 (sex true)": having(sex="true"),
    "true for a number (age true)": having(age="true"),
    "2.0 for a code (education 2.0)": having(education="2.0"),
    "2.5 for a code (education 2.5)": having(education="2.5"),
    "40.0 for a whole number (age 40.0)": having(age="40.0"),
    "2.5 for a whole number (age 40.5)": having(age="40.5"),
    "an exponent (limit_bal 1e5)": having(limit_bal="1e5"),
    "an exponent with a point (limit_bal 1.0E+5)": having(limit_bal="1.0E+5"),
    "an exponent beyond all floats (limit_bal 1e400)": having(limit_bal="1e400"),
    "a huge whole number (limit_bal, 400 digits)": having(limit_bal="9" * 400),
    "a whole number of 5,000 digits (limit_bal)": having(limit_bal="9" * 5_000),
    "a whole number beyond 64 bits (limit_bal 18446744073709551617)": having(
        limit_bal="18446744073709551617"
    ),
    "out of range (limit_bal -5)": having(limit_bal="-5"),
    "out of range by a little (age 17)": having(age="17"),
    "minus nought (bill_amt1 -0)": having(bill_amt1="-0"),
    "minus nought with a point (bill_amt1 -0.0)": having(bill_amt1="-0.0"),
    "NaN (bill_amt1 NaN)": having(bill_amt1="NaN"),
    "Infinity (bill_amt1 Infinity)": having(bill_amt1="Infinity"),
    "null (bill_amt1)": having(bill_amt1="null"),
    "an unknown code (education 9)": having(education="9"),
    'a text for a code (education "university")': having(education='"university"'),
    'an object for a number (limit_bal {"amount": 20000})': having(limit_bal='{"amount": 20000}'),
    "an array for a number (limit_bal [20000])": having(limit_bal="[20000]"),
    "several fields wrong (age 7, sex 3, pay_0 99)": having(age="7", sex="3", pay_0="99"),
    "identifier: a number (id 7)": having(id="7"),
    "identifier: a number with a fraction of nought (id 7.0)": having(id="7.0"),
    "identifier: a number with a fraction (id 7.5)": having(id="7.5"),
    "identifier: a number above 2^53 with a point (id 12345678901234567890.0)": having(
        id="12345678901234567890.0"
    ),
    'identifier: a text (id "C-0007")': having(id='"C-0007"'),
    'identifier: a text beyond ASCII (id "Zoë")': having(id='"Zoë"'),
    'identifier: a text with a space inside (id "C 7")': having(id='"C 7"'),
    'identifier: a text with spaces around it (id " 7 ")': having(id='" 7 "'),
    'identifier: an empty text (id "")': having(id='""'),
    "identifier: null": having(id="null"),
    "identifier: true": having(id="true"),
    'identifier: a control character (id "C\\u0007")': having(id='"C\\u0007"'),
    'identifier: half a surrogate pair (id "C\\ud800")': having(id='"C\\ud800"'),
    "identifier: too long (101 characters)": having(id=f'"{"7" * 101}"'),
    'identifier: in scientific notation (id "1.23E+05")': having(id='"1.23E+05"'),
    "identifier: an object": having(id='{"number": 7}'),
}
"""Each is sent to `/predict` and `/what-if`, as the one element of a JSON batch, as a line, and, if it can be, as CSV."""


def plain(text: str) -> bytes:
    """UTF-8."""
    return text.encode()


ONE = Record().text

BODIES: Mapping[str, tuple[str, Callable[[str], bytes]]] = {
    "an empty body": ("", plain),
    "white space alone": (" \n ", plain),
    "not JSON (limit_bal=20000)": ("limit_bal=20000", plain),
    "single quotes": (ONE.replace('"', "'"), plain),
    "cut off in the middle": (ONE[:100], plain),
    "a comma behind the last field": (f"{ONE[:-1]},}}", plain),
    "a comment": (f"{ONE[:-1]} /* new */}}", plain),
    "a key twice (age)": (f'{ONE[:-1]}, "age": 99}}', plain),
    "two documents": (f"{ONE} {ONE}", plain),
    "an array of one record": (f"[{ONE}]", plain),
    "null for a record": ("null", plain),
    "a text for a record": (json.dumps(ONE), plain),
    "nested a thousand deep": ('{"limit_bal": ' + "[" * 1_000 + "]" * 1_000 + "}", plain),
    "a byte order mark": (ONE, lambda text: b"\xef\xbb\xbf" + text.encode()),
    "UTF-16": (ONE, lambda text: text.encode("utf-16")),
    'not UTF-8 (id "Zoë" in Latin-1)': (
        having(id='"Zoë"').text,
        lambda text: text.encode("latin-1"),
    ),
}
"""What is no record, sent alike but not as CSV."""

TABLE = pa.table({name: [value] for name, value in EXAMPLE.items()})


def parquet() -> bytes:
    """The example as Parquet."""
    buffer = io.BytesIO()
    pq.write_table(TABLE, buffer)
    return buffer.getvalue()


def arrow() -> bytes:
    """The example as an Arrow stream."""
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, TABLE.schema) as stream:
        stream.write_table(TABLE)
    return buffer.getvalue()


MANY, LINES, ROWS, COLUMNS = (
    f"[{ONE}]".encode(),
    f"{ONE}\n".encode(),
    Record().row or b"",
    parquet(),
)
BYTES = "application/octet-stream"


def one(
    kind: str | None, body: bytes = ONE.encode(), path: str = "/predict", **headers: str
) -> Sent:
    """A POST with a record."""
    return Sent(
        "POST", path, kind, body, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def many(kind: str | None, body: bytes, **headers: str) -> Sent:
    """A POST with a batch."""
    return one(kind, body, "/predict/batch", **headers)


def named(file: str) -> dict[str, str]:
    """The header that names a file."""
    return {"Content_Disposition": f'attachment; filename="{file}"'}


REQUESTS: Mapping[str, Sent] = {
    "no content type": one(None),
    "text/plain": one("text/plain"),
    "text/json": one("text/json"),
    "application/json; charset=utf-8": one("application/json; charset=utf-8"),
    "Application/JSON; Charset=UTF-8": one('Application/JSON; Charset="UTF-8"'),
    "application/json; charset=latin-1": one("application/json; charset=latin-1"),
    "application/problem+json": one("application/problem+json"),
    "a form": one("application/x-www-form-urlencoded", urlencode(EXAMPLE).encode()),
    "a form to the trial": one(
        "application/x-www-form-urlencoded", urlencode(EXAMPLE).encode(), "/what-if"
    ),
    "gzip": one("application/json", gzip.compress(ONE.encode(), mtime=0), Content_Encoding="gzip"),
    "gzip without saying so": one("application/json", gzip.compress(ONE.encode(), mtime=0)),
    "Content-Encoding: identity": one("application/json", Content_Encoding="identity"),
    "an Idempotency-Key": one("application/json", Idempotency_Key="doors-1"),
    "an Idempotency-Key with a space": one("application/json", Idempotency_Key="doors 1"),
    "a body that is too large": one("application/json", b" " * 200_000),
    "batch: no content type": many(None, MANY),
    "batch: text/plain": many("text/plain", ROWS),
    "batch: application/json": many(JSON, MANY),
    "batch: text/json": many("text/json", MANY),
    "batch: an object": many(JSON, ONE.encode()),
    "batch: an empty array": many(JSON, b"[]"),
    "batch: an array without its end": many(JSON, MANY[:-1]),
    "batch: a comma behind the last element": many(JSON, MANY[:-1] + b",]"),
    "batch: application/x-ndjson": many(NDJSON, LINES),
    "batch: application/jsonlines": many("application/jsonlines", LINES),
    "batch: application/jsonl": many("application/jsonl", LINES),
    "batch: NDJSON called application/json": many(JSON, LINES),
    "batch: a JSON array called NDJSON": many(NDJSON, MANY),
    "batch: text/csv": many(CSV, ROWS),
    "batch: text/csv; charset=utf-8; header=present": many(
        "text/csv; charset=utf-8; header=present", ROWS
    ),
    "batch: text/csv; charset=windows-1252": many("text/csv; charset=windows-1252", ROWS),
    "batch: application/csv": many("application/csv", ROWS),
    "batch: application/vnd.ms-excel": many("application/vnd.ms-excel", ROWS),
    "batch: CSV with a header alone": many(CSV, ROWS.splitlines(keepends=True)[0]),
    "batch: an empty CSV": many(CSV, b""),
    "batch: Parquet called CSV": many(CSV, COLUMNS),
    "batch: application/vnd.apache.parquet": many(PARQUET, COLUMNS),
    "batch: application/x-parquet": many("application/x-parquet", COLUMNS),
    "batch: CSV called Parquet": many(PARQUET, ROWS),
    "batch: application/vnd.apache.arrow.stream": many(ARROW, arrow()),
    "batch: octet-stream with a file name of Parquet": many(
        BYTES, COLUMNS, **named("march.parquet")
    ),
    "batch: octet-stream with a file name of CSV": many(BYTES, ROWS, **named("march.CSV")),
    "batch: octet-stream with a file name of Excel": many(BYTES, ROWS, **named("march.xlsx")),
    "batch: octet-stream without a file name": many(BYTES, COLUMNS),
    "batch: gzip": many(CSV, gzip.compress(ROWS, mtime=0), Content_Encoding="gzip"),
    "batch: multipart/form-data": many("multipart/form-data; boundary=x", b"--x--"),
    "HEAD, alive": Sent("HEAD", "/health"),
    "HEAD, ready": Sent("HEAD", "/ready"),
    "HEAD, the page": Sent("HEAD", "/"),
    "HEAD, documentation": Sent("HEAD", "/docs"),
    "HEAD, the model": Sent("HEAD", "/model-info"),
    "HEAD, monitoring": Sent("HEAD", "/monitoring"),
    "HEAD, where only POST is answered": Sent("HEAD", "/predict"),
    "HEAD, an unknown path": Sent("HEAD", "/nothing"),
    "GET, alive": Sent("GET", "/health"),
    "GET, ready": Sent("GET", "/ready"),
    "GET, the page": Sent("GET", "/"),
    "GET, the OpenAPI document": Sent("GET", "/openapi.json"),
    "GET with a body": Sent("GET", "/health", "application/json", b"{}"),
    "GET, where only POST is answered": Sent("GET", "/predict"),
    "GET, a decision that was not made": Sent(
        "GET", "/decisions/20260301T000000000000Z-0000-000000"
    ),
    "GET, an unknown path": Sent("GET", "/nothing"),
    "GET, a slash at the end": Sent("GET", "/health/"),
    "POST, a slash at the end": one("application/json", path="/predict/"),
    "POST, a query": one("application/json", path="/predict?trace=1"),
    "POST, where only GET is answered": one("application/json", path="/health"),
    "PUT": Sent("PUT", "/predict", "application/json", ONE.encode()),
    "PATCH": Sent("PATCH", "/predict", "application/json", ONE.encode()),
    "DELETE": Sent("DELETE", "/"),
    "OPTIONS": Sent("OPTIONS", "/predict"),
    "OPTIONS, asked by another site's page": Sent(
        "OPTIONS",
        "/predict",
        headers={"Origin": "http://example.com", "Access-Control-Request-Method": "POST"},
    ),
    "a foreign Host": Sent("GET", "/ready", headers={"Host": "example.com"}),
    "POST from another site's page": one("application/json", Sec_Fetch_Site="cross-site"),
}
"""Content types, methods and paths."""

FORMS = (*RECORDS, *BODIES, *REQUESTS)


@dataclass(frozen=True)
class Door:
    """The API over a champion whose log-odds are one feature."""

    port: int
    app: Gateway

    def ask(self, sent: Sent) -> Answered:
        """Send a request on a connection of its own."""
        length = {} if sent.body is None else {"Content-Length": f"{len(sent.body)}"}
        kind = {} if sent.kind is None else {"Content-Type": sent.kind}
        headers = {
            "Host": f"127.0.0.1:{self.port}",
            "Connection": "close",
            **kind,
            **length,
            **sent.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(
                f"{sent.method} {sent.path} HTTP/1.1\r\n{head}\r\n".encode() + (sent.body or b"")
            )
            came = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        status, _, rest = came.partition(b"\r\n")
        head_came, _, body = rest.partition(b"\r\n\r\n")
        found = http.client.parse_headers(io.BytesIO(head_came + b"\r\n\r\n"))
        told = {name.lower(): value for name, value in found.items()}
        if told.get("transfer-encoding") == "chunked" and sent.method != "HEAD":
            body = _unchunked(body)
        return Answered(int(status.split()[1]), told, body)

    def verdict(self, sent: Sent) -> Verdict:
        """What becomes of a request."""
        return read_answer(self.ask(sent))

    def verdicts(self, form: str) -> dict[str, Verdict]:
        """What becomes of a form, by the way it is sent."""
        if form in REQUESTS:
            return {"": self.verdict(REQUESTS[form])}
        text, encoded = BODIES[form] if form in BODIES else (RECORDS[form].text, plain)
        asked = {
            PREDICT: one(JSON, encoded(text)),
            TRIAL: one(JSON, encoded(text), "/what-if"),
            ELEMENT: many(JSON, encoded(f"[{text}]")),
            LINE: many(NDJSON, encoded(f"{text}\n")),
        }
        row = RECORDS[form].row if form in RECORDS else None
        if row is not None:
            asked[ROW] = many(CSV, row)
        return {way: self.verdict(sent) for way, sent in asked.items()}


def _unchunked(body: bytes) -> bytes:
    whole, rest = b"", body
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return whole
        whole, rest = whole + rest[:length], rest[length + 2 :]


def read_answer(answered: Answered) -> Verdict:
    """What an answer says, in whichever format."""
    status, kind = answered.status, answered.headers.get("content-type", "").partition(";")[0]
    if not answered.body:
        heads = {
            name: answered.headers[name]
            for name in ("content-type", "allow", "location")
            if name in answered.headers
        }
        told = [f"{name}: {re.sub(r'^http://[^/]*', '', value)}" for name, value in heads.items()]
        return Verdict(status, said=(*told, "no body"))
    if kind == "application/problem+json":
        problem = json.loads(answered.body)
        return Verdict(
            status,
            said=tuple(map(said_of, problem["problems"]))
            if "problems" in problem
            else (problem["detail"],),
        )
    results: list[dict[str, Any]]
    if kind == CSV:
        results = list(csv.DictReader(io.StringIO(answered.body.decode())))
    elif kind == PARQUET:
        results = pq.read_table(io.BytesIO(answered.body)).to_pylist()
    elif kind == ARROW:
        results = pa.ipc.open_stream(answered.body).read_all().to_pylist()
    elif kind == NDJSON:
        results = [json.loads(line) for line in answered.body.splitlines()]
    elif kind == JSON:
        value = json.loads(answered.body)
        results = value if isinstance(value, list) else [value]
    else:
        results = []
    if not any({"default_probability", "problems", "error"} & result.keys() for result in results):
        return Verdict(status, said=(kind,))
    if len(results) > 1:
        return Verdict(
            status,
            said=tuple(
                f"row {row}: {read_result(status, one).text}" for row, one in enumerate(results)
            ),
        )
    return read_result(status, results[0])


def read_result(status: int, result: Mapping[str, Any]) -> Verdict:
    """What came of one row of a batch, or of one record."""
    if result.get("default_probability") not in (None, ""):
        return Verdict(status, float(result["default_probability"]))
    return Verdict(
        status,
        said=(result["error"],) if "error" in result else tuple(map(said_of, result["problems"])),
    )


def said_of(problem: dict[str, Any]) -> str:
    """One thing that is wrong; what is said of the body as a whole, as it is said where that is all."""
    if problem["field"] == "body" and problem["value"] is None and "valid" not in problem:
        return str(problem["problem"])
    return problem_text(problem)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Door]:
    """The API in this process over a champion of its own; nothing is trained."""
    column = PORTFOLIO.feature_names.index("late_sum")
    written = written_bundle(
        folder / "bundle", column, simulate(10, 1), shift=-3.0, portfolio=PORTFOLIO
    )
    bundle = written.load()
    loop = SteppedLoop.in_folder(
        folder / "home",
        Settings(data_dir=UPath(folder / "data"), settle_seconds=0, policy=policy_of({})),
    )
    name_champion(loop, champion_of(bundle, written.version), bundle)
    published(loop)
    app = api(ServingSettings(), loop.settings)
    try:
        with served(app, lifespan="on") as port:
            door = Door(port, app)
            until(lambda: door.ask(Sent("GET", "/ready")).status == 200, 30)
            yield door
    finally:
        loop.instance.dispose()


def measured(door: Door) -> dict[str, dict[str, Verdict]]:
    """Every form, by the way it is sent."""
    return {form: door.verdicts(form) for form in FORMS}


WAYS = {
    PREDICT: "`/predict`",
    TRIAL: "`/what-if`",
    ELEMENT: "JSON batch",
    LINE: "NDJSON batch",
    ROW: "CSV batch",
}


def table_of(found: Mapping[str, Mapping[str, Verdict]]) -> str:
    """The section of the page: for each form what is answered, once for the ways that are answered alike."""
    lines = [
        SECTION,
        "",
        "Written by `python -m tests.support.doors_requests`; `tests/integration/serving/test_doors_requests.py` compares it. A "
        "form of a record or of a body is sent to `/predict` and `/what-if` and, as the only one of a batch, to `/predict/batch` "
        "as JSON (an element of an array), NDJSON (a line) and, where each value can stand in a cell, CSV. A batch that can be "
        "read is answered with 200, and its row with the decision or with what is wrong. Without keys, as here, every caller may "
        "see what was given.",
        "",
        "| Form | Request | Status | What is said |",
        "|---|---|---|---|",
    ]
    for form, ways in found.items():
        alike: dict[tuple[int, str], list[str]] = {}
        for way, verdict in ways.items():
            alike.setdefault((verdict.status, verdict.text), []).append(
                WAYS[way] if way else _request(REQUESTS[form])
            )
        for place, ((status, text), requests) in enumerate(alike.items()):
            cells = (
                _cell(form) if place == 0 else "",
                ", ".join(requests),
                f"{status}",
                _cell(text),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _request(sent: Sent) -> str:
    return f"`{sent.method} {sent.path}`"


def _cell(text: str) -> str:
    """Text in a cell of a table."""
    shown = text.replace(", ".join(PORTFOLIO.field_names), "…")
    shown = shown if len(shown) <= SHOWN_LENGTH else f"{shown[:SHOWN_LENGTH]} …"
    shown = "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in shown
    )
    return re.sub(r"([|<>*_`\\])", r"\\\1", shown)


def section_of(page: str) -> str:
    """The section as a page has it; "" if it has none."""
    found = re.search(rf"^{SECTION}\n.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return f"{found[0].rstrip()}\n" if found else ""


def main() -> None:
    """Write the section of the page anew."""
    with capture_logs(), tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as door:
        table = table_of(measured(door))
    page = PAGE.read_text(encoding="utf-8")
    before = section_of(page)
    PAGE.write_text(
        page.replace(before.rstrip(), table.rstrip()) if before else f"{page.rstrip()}\n\n{table}",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
