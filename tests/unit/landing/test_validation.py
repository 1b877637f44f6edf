"""A row against the contract: what each cell is, which rule it breaks, and what the message says."""

import dataclasses
import json
import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.landing.ingestion import ValidatedRows, validate_files
from creditrisk_assets.landing.validation import (
    RowCheck,
    accepted_arrays,
    identifier_texts,
    to_numbers,
)
from creditrisk_assets.portfolio.columns import encoded_columns
from creditrisk_assets.portfolio.contract import Feature, Field, Portfolio, Reason
from creditrisk_assets.portfolio.encoding import raw_matrix
from creditrisk_assets.portfolio.identifiers import VALID_IDENTIFIER, identifier_of
from tests.support.examples import (
    HEADER,
    TINY,
    one_file,
    only_rejection,
    validated,
    write_lines,
)

MIXED = Portfolio(
    name="mixed",
    title="Fields of every kind",
    identifier="id",
    target="bad",
    target_description="went bad",
    fields=(
        Field("rate", "interest", "% a year", 0, 99.5, decimal=True),
        Field("purpose", "what for", codes={"car": "a car", "home": "the home", "NA": "not asked"}),
        Field("years", "in the job", "years", 0, 60, required=False),
        Field("grade", "bureau grade", codes={1: "good", 5: "bad"}, required=False),
        Field("share", "of the limit", "", -1, 1, decimal=True, required=False),
        Field(
            "region", "where", codes={"north": "the north", "south": "the south"}, required=False
        ),
    ),
    protected=(),
    features=(Feature("rate_again"),),
    compute_features=lambda raw: raw,
    performance_window_days=31,
    reasons=(Reason("R01", "any", ("rate", "purpose", "years", "grade", "share", "region")),),
)

# One cell


def test_a_row_with_text_in_a_number_is_rejected_with_the_field_the_value_and_what_is_valid(
    tmp_path: Path,
) -> None:
    rows = one_file(tmp_path, "1,10,1", "2,ten,1", "3,30,2")
    assert only_rejection(rows) == {
        "file": "in.csv",
        "line": 3,
        "field": "amount",
        "value": "ten",
        "rule": "not a number",
        "message": "amount: 'ten' is not a number; valid: a whole number from 0 to 1000 (NT$)",
        "rows": 1,
        "record": '{"id": "2", "amount": "ten", "code": "1"}',
    }
    assert rows.accepted.to_dict("list") == {"id": ["1", "3"], "amount": [10, 30], "code": [1, 2]}


@pytest.mark.parametrize(
    ("cell", "rule"),
    [
        ("", "missing"),
        ("  ", "missing"),
        ("NaN", "missing"),
        ("null", "missing"),
        ("1_000", "not a number"),
        ("0x10", "not a number"),
        ("True", "not a number"),
        ("1;5", "not a number"),
        ("1.5", "not a whole number"),
        ("1001", "out of range"),
        ("-1", "out of range"),
        ("nan(1)", "not a number"),
        ("-nan", "not a number"),
        ("١٢", "not a number"),
        ("inf", "out of range"),
        ("-inf", "out of range"),
        ("1e400", "out of range"),
        ("9" * 40, "out of range"),
        ("9007199254740993", "out of range"),
    ],
)
def test_a_cell_that_breaks_the_contract_is_rejected_by_its_rule(
    tmp_path: Path, cell: str, rule: str
) -> None:
    entry = only_rejection(one_file(tmp_path, f"1,{cell},1"))
    assert (entry["field"], entry["rule"]) == ("amount", rule)
    assert str(entry["message"]).endswith("; valid: a whole number from 0 to 1000 (NT$)")


@pytest.mark.parametrize(
    ("cell", "number"),
    [("31", 31), (" 31 ", 31), ("31.0", 31), ("3.1e1", 31), ("+31", 31), ("-0", 0), ("31.", 31)],
)
def test_a_whole_number_is_accepted_however_it_is_written(
    tmp_path: Path, cell: str, number: int
) -> None:
    rows = one_file(tmp_path, f"1,{cell},1")
    assert rows.accepted["amount"].tolist() == [number]
    assert rows.accepted["amount"].dtype == np.int64


def test_a_code_that_the_contract_does_not_know_is_rejected_with_the_codes_it_knows(
    tmp_path: Path,
) -> None:
    entry = only_rejection(one_file(tmp_path, "1,10,3"))
    assert entry["message"] == "code: '3' is not a known code; valid: one of 1, 2"


def test_a_row_with_several_faults_is_one_rejected_row_and_an_entry_for_each(
    tmp_path: Path,
) -> None:
    rows = one_file(tmp_path, ",ten,9")
    assert rows.rejected["field"].tolist() == ["id", "amount", "code"]
    assert rows.rejected["record"].tolist() == ['{"id": "", "amount": "ten", "code": "9"}', "", ""]
    assert rows.rejected_rows == 1
    assert rows.files[0].holds


@pytest.mark.parametrize("cell", ["", "   "])
def test_a_row_without_an_identifier_is_rejected(tmp_path: Path, cell: str) -> None:
    """Its outcome could never be joined."""
    assert (
        only_rejection(one_file(tmp_path, f"{cell},10,1"))["message"]
        == f"id: missing; valid: {VALID_IDENTIFIER}"
    )


def test_a_very_long_cell_is_shortened_in_the_message_and_whole_in_the_record(
    tmp_path: Path,
) -> None:
    entry = only_rejection(one_file(tmp_path, f"1,{'x' * 5_000},1"))
    assert len(str(entry["message"])) < 200
    assert json.loads(str(entry["record"]))["amount"] == "x" * 5_000


def test_an_outcome_is_zero_or_one_and_nothing_else(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "out.csv", ["id,bad", "1,0", "2,1", "3,2", "4,0.5", "5,yes"])
    rows = validate_files([path], TINY, [TINY.target_field])
    assert rows.accepted.to_dict("list") == {"id": ["1", "2"], "bad": [0, 1]}
    assert rows.rejected["value"].tolist() == ["2", "0.5", "yes"]


def test_columns_that_the_contract_does_not_know_are_named_and_not_carried_on(
    tmp_path: Path,
) -> None:
    rows = validated(write_lines(tmp_path / "in.csv", [HEADER + ",Branch,ZIP code", "1,10,1,x,y"]))
    assert rows.ignored_columns == ("branch", "zip_code")
    assert rows.accepted.columns.tolist() == ["id", "amount", "code"]


# Every kind of field


def mixed(folder: Path, *rows: str) -> ValidatedRows:
    header = "id,rate,purpose,years,grade,share,region"
    return validate_files([write_lines(folder / "in.csv", [header, *rows])], MIXED, MIXED.fields)


def test_every_kind_of_field_is_accepted_as_what_it_is(tmp_path: Path) -> None:
    accepted = mixed(tmp_path, "1,4.25,car,3,1,-0.5,north", "2,99.5, NA ,0,5,1e-3,south").accepted
    expected = {
        "id": ["1", "2"],
        "rate": [4.25, 99.5],
        "purpose": ["car", "NA"],
        "years": [3, 0],
        "grade": [1, 5],
    }
    assert accepted.to_dict("list") == {
        **expected,
        "share": [-0.5, 0.001],
        "region": ["north", "south"],
    }
    types = {
        "id": "str",
        "rate": "float64",
        "purpose": "str",
        "years": "int64",
        "grade": "int64",
        "share": "float64",
    }
    assert accepted.dtypes.astype("str").to_dict() == {**types, "region": "str"}


@pytest.mark.parametrize("nothing", ["", "  ", "NA", "NaN", "null", "None", " nan "])
def test_what_is_not_required_may_be_missing(tmp_path: Path, nothing: str) -> None:
    rows = mixed(
        tmp_path, f"1,4,car,{nothing},{nothing},{nothing},{nothing}", "2,4,car,3,1,0,north"
    )
    assert rows.rejected.empty
    assert rows.accepted[["years", "grade", "share", "region"]].isna().to_numpy().tolist() == [
        [True] * 4,
        [False] * 4,
    ]
    assert rows.accepted["years"].dtype == np.float64


def test_what_is_required_may_not_be_missing_unless_that_is_a_code_of_its_own(
    tmp_path: Path,
) -> None:
    rows = mixed(tmp_path, "1,,NA,3,1,0,north", "2,4,null,3,1,0,north")
    assert rows.rejected["message"].tolist() == [
        "rate: missing; valid: a number from 0 to 99.5 (% a year)",
        "purpose: missing; valid: one of car, home, NA",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "x,car,3,1,0,north",
            "rate: 'x' is not a number; valid: a number from 0 to 99.5 (% a year)",
        ),
        (
            "inf,car,3,1,0,north",
            "rate: 'inf' is out of range; valid: a number from 0 to 99.5 (% a year)",
        ),
        ("4,Car,3,1,0,north", "purpose: 'Car' is not a known code; valid: one of car, home, NA"),
        ("4,na,3,1,0,north", "purpose: missing; valid: one of car, home, NA"),
        ("4,0,3,1,0,north", "purpose: '0' is not a known code; valid: one of car, home, NA"),
        (
            "4,car,3.5,1,0,north",
            "years: '3.5' is not a whole number; valid: a whole number from 0 to 60 (years), or nothing",
        ),
        (
            "4,car,-,1,0,north",
            "years: '-' is not a number; valid: a whole number from 0 to 60 (years), or nothing",
        ),
        ("4,car,3,2,0,north", "grade: '2' is not a known code; valid: one of 1, 5, or nothing"),
        ("4,car,3,1.5,0,north", "grade: '1.5' is not a known code; valid: one of 1, 5, or nothing"),
        ("4,car,3,one,0,north", "grade: 'one' is not a number; valid: one of 1, 5, or nothing"),
        (
            "4,car,3,1,-1.001,north",
            "share: '-1.001' is out of range; valid: a number from -1 to 1, or nothing",
        ),
        (
            "4,car,3,1,0,east",
            "region: 'east' is not a known code; valid: one of north, south, or nothing",
        ),
    ],
    ids=range(12),
)
def test_every_kind_of_field_says_what_it_would_accept(
    tmp_path: Path, row: str, message: str
) -> None:
    assert only_rejection(mixed(tmp_path, f"1,{row}"))["message"] == message


# What Parquet holds


def of_parquet(folder: Path, **columns: pa.Array) -> ValidatedRows:
    path = folder / "in.parquet"
    rows = len(next(iter(columns.values())))
    others = {
        "id": [str(number) for number in range(rows)],
        "amount": [10] * rows,
        "code": [1] * rows,
    }
    pq.write_table(pa.table(others | columns), path)
    return validate_files([path], TINY, TINY.fields)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([5, 7], pa.uint8()),
        pa.array([5, 7], pa.float32()),
        pa.array(["5", " 7.0 "], pa.large_string()),
        pa.array(["5", "7"]).dictionary_encode(),
        pa.array([5, 7]).dictionary_encode(),
        pa.array([5, 7], pa.decimal128(10, 2)),
        pa.array([5, 7], pa.float16()),
        pa.array([b"5", b" 7.0"]),
        pa.array([b"5", b"7"], pa.binary(1)),
    ],
    ids=lambda values: str(values.type).replace("<", "-").replace(">", "").split(",")[0],
)
def test_a_number_is_accepted_in_every_type_that_holds_numbers(
    tmp_path: Path, values: pa.Array
) -> None:
    accepted = of_parquet(tmp_path, amount=values).accepted
    assert accepted["amount"].tolist() == [5, 7]
    assert accepted["amount"].dtype == np.int64


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        (pa.array([b"ten", b"\xff"]), "not a number"),
        (pa.array([2**62, 2**53 + 1]), "out of range"),
        (pa.array([2**64 - 1, 2**63], pa.uint64()), "out of range"),
        (pa.array([float("inf"), -float("inf")]), "out of range"),
        (pa.array([float("nan"), None]), "missing"),
        (pa.nulls(2), "missing"),
    ],
    ids=range(6),
)
def test_what_holds_no_number_of_the_range_is_rejected_whatever_its_type(
    tmp_path: Path, values: pa.Array, rule: str
) -> None:
    rows = of_parquet(tmp_path, amount=values)
    assert rows.rejected["rule"].tolist() == [rule, rule]
    assert rows.rejected["field"].tolist() == ["amount", "amount"]
    assert rows.files[0].holds


NO_CELLS = [
    pa.array([True, False]),
    pa.array([1, 2], pa.date32()),
    pa.array([1, 2], pa.timestamp("ns", "UTC")),
    pa.array([2**60, 1], pa.timestamp("ms")),  # after the year 9999: Python has no such day
    pa.array([1, 2], pa.duration("s")),
    pa.array([1, 2], pa.time32("s")),
    pa.array([[1], [2]]),
    pa.array([{"a": 1}, {"a": 2}]),
    pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
    pa.array([True, False]).dictionary_encode(),
    pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8())),
]


@pytest.mark.parametrize("column", ["id", "amount"])
@pytest.mark.parametrize(
    "values", NO_CELLS, ids=lambda values: re.sub("[^a-z0-9]+", "-", str(values.type))
)
def test_a_column_of_a_type_that_is_neither_text_nor_number_is_refused_on_arrival(
    tmp_path: Path, column: str, values: pa.Array
) -> None:
    """True is 1 to Python, and a day is a number of days to pandas; neither is what the contract means. An identifier of such a
    type became its Python text, by which no outcome was ever found.
    """
    rows = of_parquet(tmp_path, **{column: values})
    entry = only_rejection(rows)
    assert (entry["rule"], entry["field"], entry["rows"]) == ("wrong type", column, 2)
    assert str(entry["message"]).startswith(f"{column} is of type ")
    assert str(entry["message"]).endswith("; valid: text or numbers, and UUIDs for identifiers")
    assert rows.accepted.empty
    assert rows.files[0].holds


# Identifiers

UUIDS = [uuid.UUID(int=one << 64 | 7) for one in (1, 2)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([b"a7", "ü".encode()]), ["a7", "ü"]),
        (pa.array([b"a7", b"b8"], pa.binary(2)), ["a7", "b8"]),
        (pa.array([b"a7", b"7.0"], pa.large_binary()), ["a7", "7"]),
        (pa.array([b"a7", b"b8"], pa.binary_view()), ["a7", "b8"]),
        (pa.array([b"a7", b"b8"]).dictionary_encode(), ["a7", "b8"]),
        (pa.array([one.bytes for one in UUIDS], pa.uuid()), [f"{one}" for one in UUIDS]),
        (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
        (pa.array([7, 8], pa.decimal128(12, 3)), ["7", "8"]),
        (pa.array([7, 8], pa.float16()), ["7", "8"]),
        (pa.array([7, 2**64 - 1], pa.uint64()), ["7", "18446744073709551615"]),
        (pa.array(["007", " 7 "]), ["007", "7"]),
    ],
    ids=range(11),
)
def test_an_identifier_is_the_same_text_in_every_type(
    tmp_path: Path, values: pa.Array, expected: list[str]
) -> None:
    """Seen: Python's text of some bytes as the customer, and each outcome unknown weeks later."""
    assert of_parquet(tmp_path, id=values).accepted["id"].tolist() == expected


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (pa.array([b"a", b"\xff\x00"]), "'0xff00' is bytes that are no UTF-8 text"),
        (pa.array([b"a\0", b"b"], pa.binary()), "has characters that cannot be printed"),
        (
            pa.array([(1).to_bytes(16, "big"), None], pa.binary(16)),
            "has characters that cannot be printed",
        ),
        (pa.array([7.5, 1.0]), "'7.5' is not a whole number"),
        (pa.array([2.0**60, 1.0]), "is a float too large to tell neighbouring whole numbers apart"),
        (
            pa.array(["4.00000E+15", "1"]),
            "'4.00000E+15' is in scientific notation, as spreadsheets round long numbers",
        ),
        (pa.array(["1E+09", "1"]), "is in scientific notation"),
        (pa.array(["20.000", "1"]), "is ambiguous: 20, or 20000 with a point between thousands"),
        (
            pa.array(['="000012"', "1"]),
            "is a spreadsheet formula; export the column as text: 000012",
        ),
        (pa.array(["x" * 101, "1"]), "has 101 characters"),
    ],
    ids=range(10),
)
def test_an_identifier_that_names_nobody_for_sure_is_rejected_with_the_reason(
    tmp_path: Path, values: pa.Array, why: str
) -> None:
    rows = of_parquet(tmp_path, id=values)
    (message, *_) = rows.rejected.loc[rows.rejected["rule"] == "not an identifier", "message"]
    assert why in message
    assert message.endswith(f"; valid: {VALID_IDENTIFIER}")


@given(
    st.lists(
        st.one_of(
            st.text(max_size=8), st.text(alphabet='0123456789.eE+-="', max_size=9), st.none()
        ),
        min_size=1,
    )
)
def test_columns_of_identifiers_follow_the_rule_for_one(values: list[str | None]) -> None:
    """Columns ask the rule only about cells that it might refuse; JSON asks it about each."""
    texts, nameless = identifier_texts(pa.array(values, pa.string()))
    for value, text, refused in zip(values, texts.to_pylist(), nameless.tolist(), strict=True):
        try:
            assert text == identifier_of(value)
            assert not refused
        except ValueError:
            assert refused


# Ambiguous spellings


@pytest.mark.parametrize(
    ("cell", "rule", "expected"),
    [
        (
            "20.000",
            "ambiguous",
            "'20.000' is ambiguous: 20, or 20000 with a point between thousands; valid: a whole number",
        ),
        (" 1.000 ", "ambiguous", "1, or 1000 with a point between thousands"),
        (
            '"20,000"',
            "not a number",
            "ambiguous: 20000 with a comma between thousands, or 20.000 with a decimal comma",
        ),
        (
            '"100000,0"',
            "not a number",
            "it has a decimal comma: write digits, with a decimal point",
        ),
        ('"1,000,000"', "not a number", "it has ',' between thousands"),
        ("1.000.000", "not a number", "it has '.' between thousands"),
        ('"1.234,50"', "not a number", "it has '.' between thousands"),
        ("1 000", "not a number", "it has ' ' between thousands"),
        ("1'000", "not a number", "between thousands"),
        ("\u2212" + "5", "not a number", "its minus sign is not a '-' before the digits"),
        ("5-", "not a number", "its minus sign is not a '-' before the digits"),
        ("(5)", "not a number", "its minus sign is not a '-' before the digits"),
        ("NT$20", "not a number", "it has a unit or another sign in it"),
        ("20 EUR", "not a number", "it has a unit or another sign in it"),
        ("5%", "not a number", "it has a unit or another sign in it"),
    ],
    ids=range(15),
)
def test_a_number_that_could_be_another_is_asked_about_and_never_read(
    tmp_path: Path, cell: str, rule: str, expected: str
) -> None:
    """Seen: 20.000 of a German export as a limit of 20."""
    entry = only_rejection(one_file(tmp_path, f"1,{cell},1"))
    assert (entry["field"], entry["rule"]) == ("amount", rule)
    assert expected in str(entry["message"])


@pytest.mark.parametrize(
    ("cell", "number"),
    [("0.000", 0), ("20.00", 20), ("20.0000", 20), ("0020.000", 20), ("\u00a031\u00a0", 31)],
)
def test_a_whole_number_with_zeros_behind_its_point_is_read_where_it_can_be_no_other(
    tmp_path: Path, cell: str, number: int
) -> None:
    assert one_file(tmp_path, f"1,{cell},1").accepted["amount"].tolist() == [number]


def test_three_decimals_of_a_decimal_field_are_decimals(tmp_path: Path) -> None:
    """The contract's decimal sign is the point, and rates have any number of decimals."""
    assert mixed(tmp_path, "1,12.345,car,3,1,0,north").accepted["rate"].tolist() == [12.345]


# Words for outcomes


def test_outcomes_are_read_in_the_words_that_the_portfolio_declares(tmp_path: Path) -> None:
    spoken = dataclasses.replace(TINY, target_words={"good": 0, "bad": 1})
    path = write_lines(
        tmp_path / "out.csv", ["id,bad", "1,good", "2, BAD ", "3,1", "4,Yes", "5,0.0", "6,"]
    )
    rows = validate_files([path], spoken, [spoken.target_field])
    assert rows.accepted.to_dict("list") == {"id": ["1", "2", "3", "5"], "bad": [0, 1, 1, 0]}
    assert rows.rejected["message"].tolist() == [
        "bad: 'Yes' is not a number; valid: one of 0, 1, good, bad",
        "bad: missing; valid: one of 0, 1, good, bad",
    ]
    table = pa.table({"id": ["1", "2"], "bad": pa.array([b"good", b"bad"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "out.parquet")
    assert validate_files([tmp_path / "out.parquet"], spoken, [spoken.target_field]).accepted[
        "bad"
    ].tolist() == [0, 1]


# Huge and odd numbers

NUMBERS = st.one_of(
    st.integers(),
    st.integers(2**53 - 3, 2**53 + 3),
    st.floats(),
    st.integers(-2, 1_002),
    st.decimals(-1, 1_001, allow_nan=False).map(str),
)


@given(st.lists(NUMBERS, min_size=1, max_size=5))
def test_a_number_is_accepted_exactly_if_it_is_whole_and_within_the_range(
    tmp_path_factory: pytest.TempPathFactory, values: list[object]
) -> None:
    folder = tmp_path_factory.mktemp("numbers")
    rows = one_file(folder, *(f"{place},{value},1" for place, value in enumerate(values)))
    number = [float(str(value)) for value in values]
    good = [
        str(place)
        for place, value in enumerate(number)
        if value == value and value % 1 == 0 and 0 <= value <= 1_000
    ]
    assert rows.accepted["id"].tolist() == good
    assert len(rows.accepted) + rows.rejected_rows == len(values)


@given(st.lists(st.text(alphabet="0123456789+-.eEinfa_xN ", max_size=6), min_size=1, max_size=8))
def test_a_column_gives_the_same_numbers_with_and_without_odd_cells_in_it(texts: list[str]) -> None:
    """A clean column takes a shorter way than one with a cell that cannot be read; both must agree."""
    together, missing = to_numbers(pa.array([*texts, "?"]))
    for place, text in enumerate(texts):
        (number,), (none,) = to_numbers(pa.array([text]))
        np.testing.assert_equal(together[place], number)
        assert missing[place] == none


# At first sight

NUMBERS = st.one_of(
    st.none(),
    st.sampled_from([0, 1, 5, -1, 60, 61, 99, 2**24, 2**53 + 1, 0.0, -0.0, 0.5, 99.5, -1.5, 1e-45]),
    st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    st.floats(-2, 101),
)
TEXTS = st.sampled_from([None, "car", "home", "NA", "north", " car", "CAR", "", "none", "7", "1.5"])
IDENTIFIERS = st.sampled_from([None, "7", "a-1", "7.0", "1e5", '="7"', "ü", " 7", "x" * 101, "+7"])


def typed(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Values as a column of a type, null where it does not hold one."""
    if pa.types.is_integer(kind):
        whole = (None if v is None or v != v or abs(v) == np.inf else int(v) for v in values)
        return pa.array([v if v is None or -128 <= v < 128 else 1 for v in whole], kind)
    if pa.types.is_floating(kind):
        return pa.array(values, pa.float64()).cast(kind)
    return pa.array([None if v is None else str(v) for v in values], kind)


@given(st.data())
def test_a_row_that_is_surely_valid_is_valid_and_is_encoded_as_what_the_validator_read(
    data: st.DataObject,
) -> None:
    rows = data.draw(st.integers(0, 6), "rows")
    columns = {}
    for field in MIXED.fields:
        texts = [pa.string(), pa.large_string()]
        kinds = [pa.int8(), pa.int64(), pa.float32(), pa.float64(), pa.string()]
        kind = data.draw(st.sampled_from(texts if field.is_text else kinds), field.name)
        values = data.draw(
            st.lists(TEXTS if field.is_text else NUMBERS, min_size=rows, max_size=rows)
        )
        columns[field.name] = typed(values, kind)
    identifiers = data.draw(st.lists(IDENTIFIERS, min_size=rows, max_size=rows))
    columns["id"] = pa.array(
        identifiers, data.draw(st.sampled_from([pa.string(), pa.large_string()]))
    )
    start = data.draw(st.integers(0, rows))
    cells = pa.RecordBatch.from_pydict(columns).slice(start)
    check = RowCheck(MIXED.fields, MIXED.identifier)
    sure, checked = check.surely_valid(cells), check(cells)
    assert not (sure & ~checked.good).any()
    records = cells.filter(pa.array(sure))
    arrays = accepted_arrays(checked, MIXED.fields, sure)
    read = dict(zip(MIXED.field_names, (column.to_pandas() for column in arrays), strict=True))
    encoded = [column.astype(np.float32) for column in encoded_columns(records, MIXED.fields)]
    right = raw_matrix(read, MIXED.fields)
    assert np.array_equal(np.stack(encoded, axis=1), right, equal_nan=True)
    assert np.array_equal(np.signbit(np.stack(encoded, axis=1)), np.signbit(right))
    assert checked.identifiers.filter(pa.array(sure)).to_pylist() == [
        identifier or "" for identifier in records.column("id").to_pylist()
    ]


def test_plain_columns_of_a_valid_file_are_surely_valid() -> None:
    """Otherwise every row would go the slow way."""
    cells = pa.RecordBatch.from_pydict(
        {
            "id": ["a1", "a2"],
            "rate": [4.5, 0.0],
            "purpose": ["car", "NA"],
            "years": pa.array([7, None], pa.int64()),
            "grade": [1, 5],
            "share": [float("nan"), 0.25],
            "region": pa.array([None, "south"], pa.string()),
        }
    )
    assert RowCheck(MIXED.fields, MIXED.identifier).surely_valid(cells).all()
