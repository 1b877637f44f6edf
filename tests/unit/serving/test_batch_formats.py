"""Batches in five formats: the same records out of each, whatever the pieces they come in; what is broken is told, by row."""

import io
import json
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from creditrisk_assets.landing.table_reader import OPEN_QUOTE
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.card_customers import simulate
from serving.http.batch_formats import (
    ANSWER_COLUMNS,
    ARROW,
    CSV,
    FORMATS,
    JSON,
    NDJSON,
    PARQUET,
    RECORD_BYTES_LIMIT,
    NoRecord,
    Record,
    Result,
    TableRow,
    UnreadableBody,
    json_elements,
)

values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    elements=st.lists(values, max_size=6),
    size=st.integers(1, 9),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_an_array_comes_apart_into_its_elements_whatever_the_pieces(
    elements: list[Any], size: int, indent: int | None, ascii_only: bool
) -> None:
    """A text may hold brackets, quotes and commas, and a piece may end between a backslash and what it escapes."""
    text = json.dumps(elements, indent=indent, ensure_ascii=ascii_only).encode()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert [json.loads(element) for element in json_elements(pieces)] == elements


@given(elements=st.lists(values, min_size=1, max_size=3), data=st.data())
def test_an_array_that_breaks_off_is_told_after_its_whole_elements(
    elements: list[Any], data: st.DataObject
) -> None:
    text = json.dumps(elements).encode()
    cut = data.draw(st.integers(0, len(text) - 1))
    found: list[Any] = []
    with pytest.raises(UnreadableBody):
        found.extend(json.loads(element) for element in json_elements([text[:cut]]))
    assert found == elements[: len(found)]


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"1", b"[1] 2", b"[1]]", b"[1,]", b"[,1]", b"[1,,2]", b"[}", b"x[1]", b'["a'],
)
def test_what_is_no_array_is_refused(text: bytes) -> None:
    with pytest.raises(UnreadableBody):
        list(json_elements([text]))


def test_an_element_without_end_is_not_held_for_ever() -> None:
    """One request could fill the memory."""
    pieces = (b'["' if number == 0 else b"x" * 65_536 for number in range(10_000))
    with pytest.raises(UnreadableBody, match="longer than"):
        list(json_elements(pieces))
    assert next(pieces, None) is not None


CUSTOMERS = simulate(50, 5).drop(columns=PORTFOLIO.target).astype({"id": "str"})
RECORDS = CUSTOMERS.to_dict("records")


def as_parquet() -> bytes:
    buffer = io.BytesIO()
    CUSTOMERS.to_parquet(buffer, index=False)
    return buffer.getvalue()


def as_arrow() -> bytes:
    buffer = io.BytesIO()
    table = pa.Table.from_pandas(CUSTOMERS, preserve_index=False)
    with pa.ipc.new_stream(buffer, table.schema) as stream:
        stream.write_table(table, max_chunksize=7)
    return buffer.getvalue()


def records(media_type: str, body: bytes) -> list[Record]:
    return list(FORMATS[media_type].records(io.BytesIO(body), PORTFOLIO))


def values_of(record: Record) -> object:
    """What would be decided on, or what is wrong."""
    return (record.values or record.faults) if isinstance(record, TableRow) else record


BODIES = {
    JSON: json.dumps(RECORDS).encode(),
    NDJSON: b"\n".join(to_json(record) for record in RECORDS) + b"\n\n",
    CSV: ("\ufeff" + CUSTOMERS.rename(columns=str.upper).to_csv(index=False, sep=";")).encode(),
    PARQUET: as_parquet(),
    ARROW: as_arrow(),
}


@pytest.mark.parametrize("media_type", FORMATS)
def test_every_format_holds_the_same_records(media_type: str) -> None:
    assert [values_of(one) for one in records(media_type, BODIES[media_type])] == RECORDS


@pytest.mark.parametrize("media_type", [JSON, NDJSON, CSV, PARQUET, ARROW])
@pytest.mark.parametrize("rest", [0, 10, 700])
def test_what_is_cut_off_is_unreadable_or_ends_in_no_record(media_type: str, rest: int) -> None:
    """Never a customer with half of their fields."""
    body, found = BODIES[media_type][:rest], []
    try:
        found = records(media_type, body)
    except UnreadableBody:
        return
    assert all(isinstance(record, NoRecord) or values_of(record) in RECORDS for record in found)


def test_a_line_that_is_no_record_does_not_end_the_others() -> None:
    lines = [
        to_json(RECORDS[0]),
        b"nonsense",
        b'{"a": 1, "a": 2}',
        b"[1]",
        b"NaN",
        to_json(RECORDS[1]),
    ]
    found = list(FORMATS[NDJSON].records(io.BytesIO(b"\n".join(lines)), PORTFOLIO))
    assert [isinstance(record, NoRecord) for record in found] == [
        False,
        True,
        True,
        True,
        True,
        False,
    ]
    with pytest.raises(UnreadableBody, match="a line is longer"):
        list(FORMATS[NDJSON].records(io.BytesIO(b'"' + b"x" * RECORD_BYTES_LIMIT), PORTFOLIO))


def test_cells_of_a_table_are_judged_as_those_of_a_landed_file() -> None:
    header = ",".join(CUSTOMERS.columns)
    row = CUSTOMERS.iloc[0].astype("str").to_dict()
    amounts = [" 20000 ", "2e4", "", "many", "20.000"]
    rows = [row | {"limit_bal": amount} for amount in amounts]
    text = "\n".join([header, *(",".join(one.values()) for one in rows), "1,2", "", '"a'])
    found = records(CSV, text.encode())
    assert [
        record.values.get("limit_bal") for record in found[:5] if isinstance(record, TableRow)
    ] == [
        20_000,
        20_000,
        None,
        None,
        None,
    ]
    faults = [record.faults[0] for record in found[2:5] if isinstance(record, TableRow)]
    assert [(fault.field, fault.value, fault.problem) for fault in faults] == [
        ("limit_bal", None, "missing"),
        ("limit_bal", "many", "is not a number"),
        ("limit_bal", "20.000", "is ambiguous: 20, or 20000 with a point between thousands"),
    ]
    assert [str(record) for record in found[5:]] == [
        "line 7: 2 cells where the header has 24",
        f"line 9: {OPEN_QUOTE}",
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b"a,b\n1,2\n",
            "missing columns limit_bal, sex, .*; the file's other columns: a, b; valid: limit_bal",
        ),
        (",".join([*CUSTOMERS.columns, "Limit.Bal"]).encode(), "names a column twice: limit_bal"),
        (b"\xff\xfe", "UTF-16 text; valid: CSV in UTF-8"),
    ],
)
def test_a_table_without_the_contract_s_columns_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(UnreadableBody, match=message):
        records(CSV, body)


ANSWER = {
    "prediction": 1,
    "default_probability": 0.1 + 0.2,
    "score": 512.25,
    "reasons": [{"code": "R01", "text": "any"}, {"code": "R03", "text": "any"}],
    "decision_id": "2026-03-01-0123456789abcdef-0",
    "model_version": "3",
    "bundle_sha256": "ab",
    "cut_off": 0.2,
    "degraded": False,
}
PROBLEM = {"field": "pay_0", "value": "99", "problem": "unknown", "valid": "one of 1, 2"}
RESULTS = [
    Result(0, "4711", to_json(ANSWER)),
    Result(1, None, None, (PROBLEM,)),
    Result(2, "4713", to_json(ANSWER)),
]


def written(media_type: str, parts: list[list[Result]]) -> bytes:
    writer = FORMATS[media_type].writer(PORTFOLIO)
    return b"".join([*(writer.rows(part) for part in parts), writer.end()])


@pytest.mark.parametrize("parts", [[RESULTS], [RESULTS[:1], [], RESULTS[1:]]])
def test_answers_are_written_in_kind(parts: list[list[Result]]) -> None:
    documents = [ANSWER, {"row": 1, "problems": [PROBLEM]}, ANSWER]
    assert json.loads(written(JSON, parts)) == documents
    assert [json.loads(line) for line in written(NDJSON, parts).splitlines()] == documents
    tables = [
        pd.read_csv(
            io.BytesIO(written(CSV, parts)), dtype={"id": "str"}, float_precision="round_trip"
        ),
        pq.read_table(io.BytesIO(written(PARQUET, parts))).to_pandas(),
        pa.ipc.open_stream(written(ARROW, parts)).read_all().to_pandas(),
    ]
    for table in tables:
        assert list(table.columns) == ["row", "id", *ANSWER_COLUMNS]
        assert table["row"].tolist() == [0, 1, 2]
        assert table["id"].fillna("none").tolist() == ["4711", "none", "4713"]
        assert table["default_probability"].tolist()[::2] == [0.1 + 0.2] * 2
        assert table["reasons"].tolist()[0] == "R01 R03"
        assert table["error"].tolist()[1] == "pay_0 '99': unknown; valid: one of 1, 2"
        assert table["error"].isna().tolist() == [True, False, True]


@pytest.mark.parametrize("media_type", [JSON, CSV, PARQUET, ARROW])
def test_no_rows_are_a_whole_answer_too(media_type: str) -> None:
    body = written(media_type, [])
    if media_type == JSON:
        assert json.loads(body) == []
    elif media_type == CSV:
        assert body.count(b"\n") == 1
    else:
        table = (
            pq.read_table(io.BytesIO(body))
            if media_type == PARQUET
            else pa.ipc.open_stream(body).read_all()
        )
        assert table.num_rows == 0
