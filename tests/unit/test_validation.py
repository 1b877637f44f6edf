"""Rows against the contract: whatever lands is accepted or in quarantine with its reason, and the two add up."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from creditrisk_assets.portfolio.simulator import simulate
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.portfolio.validation import REJECTED_COLUMNS, ValidatedRows, target_field, validate_files
from tests.unit.helpers import TINY, write_lines

HEADER = "id,amount,code"


def validated(*paths: Path) -> ValidatedRows:
    return validate_files(paths, TINY, TINY.fields)


def one_file(folder: Path, *rows: str, name: str = "in.csv") -> ValidatedRows:
    return validated(write_lines(folder / name, [HEADER, *rows]))


def only_rejection(rows: ValidatedRows) -> dict[str, object]:
    (entry,) = rows.rejected.to_dict("records")
    return {str(name): value for name, value in entry.items()}


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
        ("12\0", "not a number"),
        ("1.5", "not a whole number"),
        ("1001", "out of range"),
        ("-1", "out of range"),
        ("inf", "out of range"),
        ("-inf", "out of range"),
        ("1e400", "out of range"),
        ("9" * 40, "out of range"),
    ],
)
def test_a_cell_that_breaks_the_contract_is_rejected_by_its_rule(tmp_path: Path, cell: str, rule: str) -> None:
    entry = only_rejection(one_file(tmp_path, f"1,{cell},1"))
    assert (entry["field"], entry["rule"]) == ("amount", rule)
    assert str(entry["message"]).endswith("; valid: a whole number from 0 to 1000 (NT$)")


@pytest.mark.parametrize(("cell", "number"), [("31", 31), (" 31 ", 31), ("31.0", 31), ("3.1e1", 31), ("+31", 31), ("-0", 0)])
def test_a_whole_number_is_accepted_however_it_is_written(tmp_path: Path, cell: str, number: int) -> None:
    rows = one_file(tmp_path, f"1,{cell},1")
    assert rows.accepted["amount"].tolist() == [number]
    assert rows.accepted["amount"].dtype == np.int64


def test_a_code_that_the_contract_does_not_know_is_rejected_with_the_codes_it_knows(tmp_path: Path) -> None:
    entry = only_rejection(one_file(tmp_path, "1,10,3"))
    assert entry["message"] == "code: '3' is not a known code; valid: one of 1, 2"


def test_a_row_with_several_faults_is_one_rejected_row_and_an_entry_for_each(tmp_path: Path) -> None:
    rows = one_file(tmp_path, ",ten,9")
    assert sorted(rows.rejected["field"]) == ["amount", "code", "id"]
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
    rows = validate_files([path], TINY, [target_field(TINY)])
    assert rows.accepted.to_dict("list") == {"id": ["1", "2"], "bad": [0, 1]}
    assert rows.rejected["value"].tolist() == ["2", "0.5", "yes"]


def test_columns_that_the_contract_does_not_know_are_named_and_not_carried_on(tmp_path: Path) -> None:
    rows = validated(write_lines(tmp_path / "in.csv", [HEADER + ",Branch,ZIP code", "1,10,1,x,y"]))
    assert rows.ignored_columns == ("branch", "zip_code")
    assert rows.accepted.columns.tolist() == ["id", "amount", "code"]


# One file


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def named(parameter: object) -> str:
    """Only the file's name becomes part of the test's."""
    return parameter if isinstance(parameter, str) and "." in parameter else ""


GOOD = pd.DataFrame({"id": ["1", "2"], "amount": [10, 20], "code": [1, 2]})
CSV = GOOD.to_csv(index=False).encode()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.csv", b"", "the file is empty"),
        ("empty.parquet", b"", "the file is empty"),
        ("header.csv", b"id,amount,code\n", "no rows"),
        ("header-without-newline.csv", b"id,amount,code", "no rows"),
        ("header-and-blank-lines.csv", b"id,amount,code\n\n\n", "no rows"),
        ("no-rows.parquet", parquet(GOOD.iloc[:0]), "no rows"),
        ("binary.csv", bytes(range(256)) * 4, "not a text file"),
        ("gzip.csv", b"\x1f\x8b\x08\x00" + CSV, "not a text file"),
        ("zeros.csv", bytes(1_000), "not a text file"),
        ("latin-1.csv", CSV + "3,Müller,1\n".encode("latin-1"), "byte 0xfc near position 32; valid: UTF-8"),
        ("utf-16.csv", CSV.decode().encode("utf-16"), "not a text file"),
        ("cut-in-a-character.csv", CSV + "3,10,ü".encode()[:-1], "not a text file"),
        ("cut-in-a-malformed-line.csv", CSV + "3,10,1,ü".encode()[:-1], "not a text file"),
        ("page.csv", b"<html><body>404 not found</body></html>\n", "is no header"),
        ("one-column.csv", b"id\n1\n", "is no header"),
        ("twice.csv", b"id,amount,AMOUNT,code\n1,2,3,1\n", "names a column twice: amount"),
        ("twice.parquet", parquet(GOOD.assign(AMOUNT=1)), "names a column twice: amount"),
        ("binary.parquet", bytes(range(256)) * 4, "not a readable Parquet file"),
        ("text.parquet", CSV, "not a readable Parquet file"),
        ("truncated.parquet", parquet(GOOD)[:-20], "not a readable Parquet file"),
    ],
    ids=named,
)
def test_a_file_that_is_no_table_is_one_named_entry_and_never_an_exception(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    """An exception would fail the run and keep the day's good files from being scored."""
    broken, good = tmp_path / name, tmp_path / "zz-good.csv"
    broken.write_bytes(content)
    good.write_bytes(CSV)
    rows = validated(broken, good)
    entry = only_rejection(rows)
    assert (entry["file"], entry["line"], entry["rule"]) == (name, 0, "unreadable file")
    assert said in str(entry["message"])
    assert len(rows.accepted) == 2
    assert all(file.holds for file in rows.files)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("old-mac.csv", CSV.replace(b"\n", b"\r")),
        ("one-long-line.csv", b"A" * 200_000),
        ("one-long-cell-in-the-header.csv", b"A" * 200_000 + b",b\n1,2\n"),
        ("lone-quote.csv", b'"'),
        ("lone-comma.csv", b","),
        ("commas.csv", b",,,\n,,,\n"),
        ("only-blank-lines.csv", b"\n\n\n"),
        ("json.csv", b'{"id": 1, "amount": 2}\n'),
        ("open-quote.csv", CSV + b'"3,10,1\n4,10,1\n'),
        ("open-quote-in-header.csv", b'"id,amount,code\n1,2,1\n'),
        ("zero-byte-in-a-row.csv", CSV + b"3\x00,1\x000,1\n"),
        ("lists.parquet", parquet(GOOD.assign(amount=pd.Series([[1], [2]], dtype="object")))),
        ("structs.parquet", parquet(GOOD.assign(id=pd.Series([{"a": 1}, {"a": 2}], dtype="object")))),
        ("bytes.parquet", parquet(GOOD.assign(amount=[b"\xff", b"10"]))),
        ("days.parquet", parquet(GOOD.assign(amount=pd.Timestamp("2026-02-01")))),
        ("nothing.parquet", parquet(GOOD.assign(amount=pd.Series([None, None], dtype="object")))),
    ],
    ids=named,
)
def test_a_strange_file_never_stops_the_day_and_its_rows_add_up(tmp_path: Path, name: str, content: bytes) -> None:
    """Seen: `csv.Error` from a file with old line endings or a very long first line."""
    strange, good = tmp_path / name, tmp_path / "zz-good.csv"
    strange.write_bytes(content)
    good.write_bytes(CSV.replace(b"\n1,", b"\n101,").replace(b"\n2,", b"\n102,"))
    rows = validated(strange, good)
    assert {"101", "102"} <= set(rows.accepted["id"])
    assert all(file.holds for file in rows.files)
    assert name in set(rows.rejected["file"]) or rows.files[0].accepted + rows.files[0].duplicates > 0


@pytest.mark.parametrize("name", ["in.csv", "in.parquet"])
def test_a_file_without_a_wanted_column_is_rejected_as_a_whole_and_every_row_counted(tmp_path: Path, name: str) -> None:
    frame, path = GOOD.drop(columns=["amount", "code"]).assign(other=1), tmp_path / name
    path.write_bytes(parquet(frame) if path.suffix == ".parquet" else frame.to_csv(index=False).encode())
    rows = validated(path)
    entry = only_rejection(rows)
    assert entry["rule"] == "missing column"
    assert entry["message"] == "missing columns amount, code; valid: id, amount, code"
    assert (entry["rows"], rows.files[0].rejected, rows.files[0].holds) == (2, 2, True)
    assert rows.rejected_share == 1.0


def test_a_malformed_line_is_in_quarantine_with_its_text(tmp_path: Path) -> None:
    rows = one_file(tmp_path, "1,10,1", "2,20", "3,30,1,9")
    assert rows.rejected[["line", "rule", "message", "record"]].to_numpy().tolist() == [
        [3, "malformed line", "2 cells where the header has 3", "2,20"],
        [4, "malformed line", "4 cells where the header has 3", "3,30,1,9"],
    ]
    assert (rows.rows_in, len(rows.accepted), rows.rejected_rows) == (3, 1, 2)


def test_a_file_of_malformed_lines_only_is_rejected_line_by_line(tmp_path: Path) -> None:
    rows = one_file(tmp_path, "1", "2,20")
    assert (rows.rows_in, len(rows.accepted), rows.rejected_rows) == (2, 0, 2)
    assert rows.accepted.columns.tolist() == ["id", "amount", "code"]


def test_parquet_numbers_are_validated_as_csv_text_is(tmp_path: Path) -> None:
    """The same customers must be the same rows whichever way they come."""
    frame = pd.DataFrame({"id": [1, 2, 3], "amount": [10.0, 20.5, np.nan], "code": ["1", "2", "2"]})
    frame.to_csv(tmp_path / "in.csv", index=False)
    frame.to_parquet(tmp_path / "in.parquet")
    text, table = validated(tmp_path / "in.csv"), validated(tmp_path / "in.parquet")
    pd.testing.assert_frame_equal(text.accepted, table.accepted)
    assert text.rejected[["field", "rule", "message"]].equals(table.rejected[["field", "rule", "message"]])


def test_whole_number_identifiers_stay_what_they_are_when_one_of_them_is_missing(tmp_path: Path) -> None:
    """One empty cell turns a Parquet column into floats: two customers become one, and the outcomes name neither."""
    identifiers = [2**60 + 1, 2**60 + 2, None, 10**16]
    table = pa.table({"id": pa.array(identifiers, pa.int64()), "amount": [10, 20, 30, 40], "code": [1, 1, 1, 1]})
    pq.write_table(table, tmp_path / "in.parquet")
    rows = validated(tmp_path / "in.parquet")
    assert rows.accepted["id"].tolist() == [str(one) for one in identifiers if one is not None]
    assert rows.rejected["rule"].tolist() == ["missing"]


def test_no_files_are_no_rows() -> None:
    rows = validated()
    assert (rows.rows_in, len(rows.accepted), len(rows.rejected), rows.rejected_share) == (0, 0, 0, 0.0)
    assert rows.accepted.dtypes.to_dict() == {"id": np.dtype("object"), "amount": np.dtype("int64"), "code": np.dtype("int64")}


def test_a_day_whose_only_file_cannot_be_read_counts_as_rejected_in_full(tmp_path: Path) -> None:
    """Otherwise nothing of nothing rejected would look like a clean day."""
    (tmp_path / "in.csv").write_bytes(b"")
    assert validated(tmp_path / "in.csv").rejected_share == 1.0


# One customer in several rows


def test_a_row_that_stands_twice_is_accepted_once_and_counted_as_a_duplicate(tmp_path: Path) -> None:
    rows = one_file(tmp_path, "1,10,1", "2,20,1", "1,10,1")
    assert sorted(rows.accepted["id"]) == ["1", "2"]
    assert (rows.files[0].duplicates, len(rows.rejected)) == (1, 0)


def test_the_same_customer_is_known_in_every_spelling_of_the_identifier(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{HEADER}\n7,10,1\n 7 ,10,1\n7.0,10,1\n07,10,1\n")
    pd.DataFrame({"id": [7.0, np.nan], "amount": 10, "code": 1}).to_parquet(tmp_path / "b.parquet")
    rows = validated(tmp_path / "a.csv", tmp_path / "b.parquet")
    assert sorted(rows.accepted["id"]) == ["07", "7"]
    assert sum(file.duplicates for file in rows.files) == 3


def test_of_a_customer_with_different_values_the_later_row_wins_and_the_earlier_is_rejected(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "a.csv", [HEADER, "1,10,1", "2,20,1"])
    second = write_lines(tmp_path / "b.csv", [HEADER, "1,99,1"])
    rows = validated(first, second)
    assert dict(zip(rows.accepted["id"], rows.accepted["amount"], strict=True)) == {"1": 99, "2": 20}
    entry = only_rejection(rows)
    assert (entry["file"], entry["line"], entry["rule"]) == ("a.csv", 2, "superseded")
    assert json.loads(str(entry["record"])) == {"id": "1", "amount": "10", "code": "1"}
    assert [(file.accepted, file.rejected) for file in rows.files] == [(1, 1), (1, 0)]


def test_a_correction_that_is_taken_back_ends_with_the_last_row(tmp_path: Path) -> None:
    """10, then 99, then 10 again: the last word on the customer is 10, although that row repeats an earlier one."""
    rows = one_file(tmp_path, "1,10,1", "1,99,1", "1,10,1")
    assert rows.accepted["amount"].tolist() == [10]
    assert rows.files[0].holds


def test_a_rejected_row_does_not_supersede_a_good_one(tmp_path: Path) -> None:
    rows = one_file(tmp_path, "1,10,1", "1,ten,1")
    assert rows.accepted["amount"].tolist() == [10]


# Any mixture

GOOD_ROW = st.builds(lambda who, amount: ("good", f"{who},{amount},1"), st.integers(1, 3), st.integers(10, 11))
BAD_ROW = st.sampled_from(["1,ten,1", "2,10,9", ",10,1", "3,10.5,1", "4,-1,x", "5,1e9,1"]).map(lambda text: ("bad", text))
MALFORMED = st.sampled_from(["1", "1,2", "1,2,1,4"]).map(lambda text: ("malformed", text))
BLANK = st.just(("blank", ""))
FILES = st.lists(st.lists(st.one_of(GOOD_ROW, BAD_ROW, MALFORMED, BLANK), max_size=12), min_size=1, max_size=3)


@given(FILES)
@example([[]])
@example([[("good", "1,10,1"), ("good", "1,10,1")], [("good", "1,11,1")]])
@example([[("good", "1,10,1"), ("good", "1,11,1")], [("good", "1,10,1"), ("malformed", "1")], [("blank", "")]])
def test_every_row_that_arrives_is_accepted_rejected_or_a_duplicate(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[tuple[str, str]]]
) -> None:
    """Rows in = accepted + rejected + duplicates, for each file; each rejected row has its own entry in quarantine; and of each
    customer the last good row counts: earlier ones like it are duplicates, others superseded.
    """
    folder = tmp_path_factory.mktemp("day")
    paths = [write_lines(folder / f"{number}.csv", [HEADER, *(text for _, text in rows)]) for number, rows in enumerate(files)]
    result = validated(*paths)

    kinds = [Counter(kind for kind, _ in rows) for rows in files]
    good = [text for rows in files for kind, text in rows if kind == "good"]
    last = {text.split(",")[0]: text for text in good}
    repeats = Counter(last[text.split(",")[0]] == text for text in good)
    assert all(file.holds for file in result.files)
    assert [file.rows_in for file in result.files] == [rows["good"] + rows["bad"] + rows["malformed"] for rows in kinds]
    accepted = [f"{row['id']},{row['amount']},{row['code']}" for row in result.accepted.to_dict("records")]
    assert sorted(accepted) == sorted(last.values())
    assert sum(file.accepted for file in result.files) == len(last)
    assert sum(file.duplicates for file in result.files) == repeats[True] - len(last)
    assert result.rejected_rows == sum(rows["bad"] + rows["malformed"] for rows in kinds) + repeats[False]

    by_line = result.rejected[result.rejected["line"] > 0]
    assert len(set(zip(by_line["file"], by_line["line"], strict=True))) == result.rejected_rows
    without_rows = {f"{number}.csv" for number, rows in enumerate(kinds) if rows["blank"] == rows.total()}
    assert set(result.rejected.loc[result.rejected["line"] == 0, "file"]) == without_rows

    again = validated(*paths)
    pd.testing.assert_frame_equal(again.accepted, result.accepted)
    pd.testing.assert_frame_equal(again.rejected, result.rejected)
    assert again.files == result.files
    assert result.rejected.columns.tolist() == REJECTED_COLUMNS


@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(alphabet='id,;"\n\r\0é0123456789. -', max_size=60).map(str.encode),
        st.text(alphabet='1,;"\n\r\0é .-', max_size=60).map(lambda text: (HEADER + "\n" + text).encode()),
        st.binary(max_size=40).map(lambda tail: HEADER.encode() + b"\n1,10,1\n" + tail),
    ),
    st.sampled_from([".csv", ".parquet"]),
)
def test_no_bytes_whatever_make_validation_raise(tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"in{suffix}"
    path.write_bytes(content)
    result = validated(path)
    assert result.files[0].holds
    assert len(result.accepted) or len(result.rejected)


def test_simulated_customers_satisfy_the_whole_contract_from_both_kinds_of_file(tmp_path: Path) -> None:
    customers = simulate(300, 5)
    customers.to_csv(tmp_path / "a.csv", index=False)
    customers.to_parquet(tmp_path / "b.parquet", index=False)
    wanted = [*PORTFOLIO.fields, target_field(PORTFOLIO)]
    for name in ("a.csv", "b.parquet"):
        rows = validate_files([tmp_path / name], PORTFOLIO, wanted)
        assert rows.rejected.empty
        pd.testing.assert_frame_equal(rows.accepted, customers.astype({"id": "object"}), check_column_type=False)
