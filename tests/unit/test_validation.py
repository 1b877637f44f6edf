"""A row against the contract: what each cell is, which rule it breaks, and what the message says."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.portfolio.contract import Feature, Field, Portfolio, Reason
from creditrisk_assets.portfolio.ingestion import ValidatedRows, validate_files
from creditrisk_assets.portfolio.validation import to_numbers
from tests.unit.helpers import HEADER, TINY, one_file, only_rejection, validated, write_lines

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
        Field("region", "where", codes={"north": "the north", "south": "the south"}, required=False),
    ),
    protected=(),
    features=(Feature("rate_again"),),
    compute_features=lambda raw: raw,
    performance_window_days=31,
    reasons=(Reason("R01", "any", ("rate", "purpose", "years", "grade", "share", "region")),),
)

# One cell


def test_a_row_with_text_in_a_number_is_rejected_with_the_field_the_value_and_what_is_valid(tmp_path: Path) -> None:
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
def test_a_cell_that_breaks_the_contract_is_rejected_by_its_rule(tmp_path: Path, cell: str, rule: str) -> None:
    entry = only_rejection(one_file(tmp_path, f"1,{cell},1"))
    assert (entry["field"], entry["rule"]) == ("amount", rule)
    assert str(entry["message"]).endswith("; valid: a whole number from 0 to 1000 (NT$)")


@pytest.mark.parametrize(
    ("cell", "number"), [("31", 31), (" 31 ", 31), ("31.0", 31), ("3.1e1", 31), ("+31", 31), ("-0", 0), ("31.", 31)]
)
def test_a_whole_number_is_accepted_however_it_is_written(tmp_path: Path, cell: str, number: int) -> None:
    rows = one_file(tmp_path, f"1,{cell},1")
    assert rows.accepted["amount"].tolist() == [number]
    assert rows.accepted["amount"].dtype == np.int64


def test_a_code_that_the_contract_does_not_know_is_rejected_with_the_codes_it_knows(tmp_path: Path) -> None:
    entry = only_rejection(one_file(tmp_path, "1,10,3"))
    assert entry["message"] == "code: '3' is not a known code; valid: one of 1, 2"


def test_a_row_with_several_faults_is_one_rejected_row_and_an_entry_for_each(tmp_path: Path) -> None:
    rows = one_file(tmp_path, ",ten,9")
    assert rows.rejected["field"].tolist() == ["id", "amount", "code"]
    assert rows.rejected["record"].tolist() == ['{"id": "", "amount": "ten", "code": "9"}', "", ""]
    assert rows.rejected_rows == 1
    assert rows.files[0].holds


@pytest.mark.parametrize("cell", ["", "   "])
def test_a_row_without_an_identifier_is_rejected(tmp_path: Path, cell: str) -> None:
    """Its outcome could never be joined."""
    assert only_rejection(one_file(tmp_path, f"{cell},10,1"))["message"] == "id: missing; valid: a customer identifier"


def test_a_very_long_cell_is_shortened_in_the_message_and_whole_in_the_record(tmp_path: Path) -> None:
    entry = only_rejection(one_file(tmp_path, f"1,{'x' * 5_000},1"))
    assert len(str(entry["message"])) < 200
    assert json.loads(str(entry["record"]))["amount"] == "x" * 5_000


def test_an_outcome_is_zero_or_one_and_nothing_else(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "out.csv", ["id,bad", "1,0", "2,1", "3,2", "4,0.5", "5,yes"])
    rows = validate_files([path], TINY, [TINY.target_field])
    assert rows.accepted.to_dict("list") == {"id": ["1", "2"], "bad": [0, 1]}
    assert rows.rejected["value"].tolist() == ["2", "0.5", "yes"]


def test_columns_that_the_contract_does_not_know_are_named_and_not_carried_on(tmp_path: Path) -> None:
    rows = validated(write_lines(tmp_path / "in.csv", [HEADER + ",Branch,ZIP code", "1,10,1,x,y"]))
    assert rows.ignored_columns == ("branch", "zip_code")
    assert rows.accepted.columns.tolist() == ["id", "amount", "code"]


# Every kind of field


def mixed(folder: Path, *rows: str) -> ValidatedRows:
    header = "id,rate,purpose,years,grade,share,region"
    return validate_files([write_lines(folder / "in.csv", [header, *rows])], MIXED, MIXED.fields)


def test_every_kind_of_field_is_accepted_as_what_it_is(tmp_path: Path) -> None:
    accepted = mixed(tmp_path, "1,4.25,car,3,1,-0.5,north", "2,99.5, NA ,0,5,1e-3,south").accepted
    expected = {"id": ["1", "2"], "rate": [4.25, 99.5], "purpose": ["car", "NA"], "years": [3, 0], "grade": [1, 5]}
    assert accepted.to_dict("list") == {**expected, "share": [-0.5, 0.001], "region": ["north", "south"]}
    types = {"id": "str", "rate": "float64", "purpose": "str", "years": "int64", "grade": "int64", "share": "float64"}
    assert accepted.dtypes.astype("str").to_dict() == {**types, "region": "str"}


@pytest.mark.parametrize("nothing", ["", "  ", "NA", "NaN", "null", "None", " nan "])
def test_what_is_not_required_may_be_missing(tmp_path: Path, nothing: str) -> None:
    rows = mixed(tmp_path, f"1,4,car,{nothing},{nothing},{nothing},{nothing}", "2,4,car,3,1,0,north")
    assert rows.rejected.empty
    assert rows.accepted[["years", "grade", "share", "region"]].isna().to_numpy().tolist() == [[True] * 4, [False] * 4]
    assert rows.accepted["years"].dtype == np.float64


def test_what_is_required_may_not_be_missing_unless_that_is_a_code_of_its_own(tmp_path: Path) -> None:
    rows = mixed(tmp_path, "1,,NA,3,1,0,north", "2,4,null,3,1,0,north")
    assert rows.rejected["message"].tolist() == [
        "rate: missing; valid: a number from 0 to 99.5 (% a year)",
        "purpose: missing; valid: one of car, home, NA",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x,car,3,1,0,north", "rate: 'x' is not a number; valid: a number from 0 to 99.5 (% a year)"),
        ("inf,car,3,1,0,north", "rate: 'inf' is out of range; valid: a number from 0 to 99.5 (% a year)"),
        ("4,Car,3,1,0,north", "purpose: 'Car' is not a known code; valid: one of car, home, NA"),
        ("4,na,3,1,0,north", "purpose: missing; valid: one of car, home, NA"),
        ("4,0,3,1,0,north", "purpose: '0' is not a known code; valid: one of car, home, NA"),
        ("4,car,3.5,1,0,north", "years: '3.5' is not a whole number; valid: a whole number from 0 to 60 (years), or nothing"),
        ("4,car,-,1,0,north", "years: '-' is not a number; valid: a whole number from 0 to 60 (years), or nothing"),
        ("4,car,3,2,0,north", "grade: '2' is not a known code; valid: one of 1, 5, or nothing"),
        ("4,car,3,1.5,0,north", "grade: '1.5' is not a known code; valid: one of 1, 5, or nothing"),
        ("4,car,3,one,0,north", "grade: 'one' is not a number; valid: one of 1, 5, or nothing"),
        ("4,car,3,1,-1.001,north", "share: '-1.001' is out of range; valid: a number from -1 to 1, or nothing"),
        ("4,car,3,1,0,east", "region: 'east' is not a known code; valid: one of north, south, or nothing"),
    ],
    ids=range(12),
)
def test_every_kind_of_field_says_what_it_would_accept(tmp_path: Path, row: str, message: str) -> None:
    assert only_rejection(mixed(tmp_path, f"1,{row}"))["message"] == message


# What Parquet holds


def of_parquet(folder: Path, **columns: pa.Array) -> ValidatedRows:
    path = folder / "in.parquet"
    rows = len(next(iter(columns.values())))
    others = {"id": [str(number) for number in range(rows)], "amount": [10] * rows, "code": [1] * rows}
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
    ],
    ids=lambda values: str(values.type).replace("<", "-").replace(">", "").split(",")[0],
)
def test_a_number_is_accepted_in_every_type_that_holds_numbers(tmp_path: Path, values: pa.Array) -> None:
    accepted = of_parquet(tmp_path, amount=values).accepted
    assert accepted["amount"].tolist() == [5, 7]
    assert accepted["amount"].dtype == np.int64


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        (pa.array([True, False]), "not a number"),
        (pa.array([1, 2], pa.date32()), "not a number"),
        (pa.array([1, 2], pa.timestamp("ns", "UTC")), "not a number"),
        (pa.array([1, 2], pa.duration("s")), "not a number"),
        (pa.array([b"10", b"\xff"]), "not a number"),
        (pa.array([[1], [2]]), "not a number"),
        (pa.array([{"a": 1}, {"a": 2}]), "not a number"),
        (pa.array([2**62, 2**53 + 1]), "out of range"),
        (pa.array([2**64 - 1, 2**63], pa.uint64()), "out of range"),
        (pa.array([float("inf"), -float("inf")]), "out of range"),
        (pa.array([float("nan"), None]), "missing"),
        (pa.nulls(2), "missing"),
    ],
    ids=range(12),
)
def test_what_holds_no_number_of_the_range_is_rejected_whatever_its_type(tmp_path: Path, values: pa.Array, rule: str) -> None:
    """True is 1 to Python, and a day is a number of days to pandas; neither is what the contract means."""
    rows = of_parquet(tmp_path, amount=values)
    assert rows.rejected["rule"].tolist() == [rule, rule]
    assert rows.rejected["field"].tolist() == ["amount", "amount"]
    assert rows.files[0].holds


def test_a_day_after_the_year_9999_is_rejected_and_shown(tmp_path: Path) -> None:
    """Python has no such day: reading it raises, which would lose the file."""
    rows = of_parquet(tmp_path, amount=pa.array([2**60, 1], pa.timestamp("ms")))
    assert rows.rejected["rule"].tolist() == ["not a number", "not a number"]
    rows = of_parquet(tmp_path, id=pa.array([2**60, 1], pa.timestamp("ms")))
    assert len(rows.accepted) == 2


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
    good = [str(place) for place, value in enumerate(number) if value == value and value % 1 == 0 and 0 <= value <= 1_000]
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
