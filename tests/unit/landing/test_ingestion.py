"""The files of a day together: each row is accepted, rejected with its reason or a duplicate; the same files give the same."""

import dataclasses
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

from creditrisk_assets.landing import duplicates, ingestion, table_reader
from creditrisk_assets.landing.ingestion import (
    REJECTED_COLUMNS,
    IngestResult,
    ingest,
    read_rejected,
    validate_files,
)
from creditrisk_assets.portfolio.contract import Field, Reason
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.examples import (
    HEADER,
    TINY,
    one_file,
    only_rejection,
    validated,
    write_lines,
)

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
    ("name", "content", "expected"),
    [
        ("empty.csv", b"", "the file is empty"),
        ("empty.parquet", b"", "the file is empty"),
        ("header.csv", b"id,amount,code\n", "no rows"),
        ("header-without-newline.csv", b"id,amount,code", "no rows"),
        ("header-and-blank-lines.csv", b"id,amount,code\n\n\n", "no rows"),
        ("no-rows.parquet", parquet(GOOD.iloc[:0]), "no rows"),
        ("binary.csv", bytes(range(256)) * 4, "not a text file"),
        (
            "gzip.csv",
            b"\x1f\x8b\x08\x00" + CSV,
            "compressed by gzip; valid: a name that ends in .csv.gz",
        ),
        ("zeros.csv", bytes(1_000), "not a text file"),
        (
            "latin-1.csv",
            CSV + "3,Müller,1\n".encode("latin-1"),
            "byte 0xfc near position 32; valid: UTF-8",
        ),
        ("utf-16.csv", CSV.decode().encode("utf-16"), "UTF-16 text; valid: CSV in UTF-8"),
        ("cut-in-a-character.csv", CSV + "3,10,ü".encode()[:-1], "not a text file"),
        ("cut-in-a-malformed-line.csv", CSV + "3,10,1,ü".encode()[:-1], "not a text file"),
        (
            "page.csv",
            b"<html><body>404 not found</body></html>\n",
            "the file is HTML or XML; valid: the table as CSV or Parquet",
        ),
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
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    """An exception would fail the run and keep the day's good files from being scored."""
    broken, good = tmp_path / name, tmp_path / "zz-good.csv"
    broken.write_bytes(content)
    good.write_bytes(CSV)
    rows = validated(broken, good)
    entry = only_rejection(rows)
    assert (entry["file"], entry["line"], entry["rule"]) == (name, 0, "unreadable file")
    assert expected in str(entry["message"])
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
        (
            "structs.parquet",
            parquet(GOOD.assign(id=pd.Series([{"a": 1}, {"a": 2}], dtype="object"))),
        ),
        ("bytes.parquet", parquet(GOOD.assign(amount=[b"\xff", b"10"]))),
        ("days.parquet", parquet(GOOD.assign(amount=pd.Timestamp("2026-02-01")))),
        ("nothing.parquet", parquet(GOOD.assign(amount=pd.Series([None, None], dtype="object")))),
    ],
    ids=named,
)
def test_a_strange_file_never_stops_the_day_and_its_rows_add_up(
    tmp_path: Path, name: str, content: bytes
) -> None:
    """Seen: `csv.Error` from a file with old line endings or a very long first line."""
    strange, good = tmp_path / name, tmp_path / "zz-good.csv"
    strange.write_bytes(content)
    good.write_bytes(CSV.replace(b"\n1,", b"\n101,").replace(b"\n2,", b"\n102,"))
    rows = validated(strange, good)
    assert {"101", "102"} <= set(rows.accepted["id"])
    assert all(file.holds for file in rows.files)
    assert (
        name in set(rows.rejected["file"]) or rows.files[0].accepted + rows.files[0].duplicates > 0
    )


@pytest.mark.parametrize("name", ["in.csv", "in.parquet"])
def test_a_file_without_a_wanted_column_is_rejected_as_a_whole_and_every_row_counted(
    tmp_path: Path, name: str
) -> None:
    frame, path = GOOD.drop(columns=["amount", "code"]).assign(other=1), tmp_path / name
    path.write_bytes(
        parquet(frame) if path.suffix == ".parquet" else frame.to_csv(index=False).encode()
    )
    rows = validated(path)
    entry = only_rejection(rows)
    assert entry["rule"] == "missing column"
    assert (
        entry["message"]
        == "missing columns amount, code; the file's other columns: other; valid: id, amount, code"
    )
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
    assert text.rejected[["field", "rule", "message"]].equals(
        table.rejected[["field", "rule", "message"]]
    )


def test_whole_number_identifiers_stay_what_they_are_when_one_of_them_is_missing(
    tmp_path: Path,
) -> None:
    """A single empty cell turns a Parquet column into floats: two customers become one, and the outcomes name neither."""
    identifiers = [2**60 + 1, 2**60 + 2, None, 10**16]
    table = pa.table(
        {"id": pa.array(identifiers, pa.int64()), "amount": [10, 20, 30, 40], "code": [1, 1, 1, 1]}
    )
    pq.write_table(table, tmp_path / "in.parquet")
    rows = validated(tmp_path / "in.parquet")
    assert rows.accepted["id"].tolist() == [str(one) for one in identifiers if one is not None]
    assert rows.rejected["rule"].tolist() == ["missing"]


def test_no_files_are_no_rows() -> None:
    rows = validated()
    assert (rows.rows_in, len(rows.accepted), len(rows.rejected), rows.rejected_share) == (
        0,
        0,
        0,
        0.0,
    )
    assert rows.accepted.dtypes.astype("str").to_dict() == {
        "id": "str",
        "amount": "int64",
        "code": "int64",
    }


def test_a_day_whose_only_file_cannot_be_read_counts_as_rejected_in_full(tmp_path: Path) -> None:
    """Otherwise nothing of nothing rejected would look like a clean day."""
    (tmp_path / "in.csv").write_bytes(b"")
    assert validated(tmp_path / "in.csv").rejected_share == 1.0


# One customer in several rows


def test_a_row_that_stands_twice_is_accepted_once_and_counted_as_a_duplicate(
    tmp_path: Path,
) -> None:
    rows = one_file(tmp_path, "1,10,1", "2,20,1", "1,10,1")
    assert sorted(rows.accepted["id"]) == ["1", "2"]
    assert (rows.files[0].duplicates, len(rows.rejected)) == (1, 0)


def test_rows_are_alike_if_their_values_are_however_they_are_written(tmp_path: Path) -> None:
    """Nothing is nothing, zero is zero: 0, -0 and 0.0; an empty cell, NaN and null; text and Parquet."""
    loans = dataclasses.replace(
        TINY,
        fields=(
            Field("rate", "", "", -1, 1, decimal=True),
            Field("age", "", "", 0, 99, required=False),
        ),
        reasons=(Reason("R01", "any", ("rate", "age")),),
    )
    csv = write_lines(
        tmp_path / "a.csv", ["id,rate,age", "1,0,", "1,-0.0,nan", "1,0e5, NULL ", "1,-0,NaN"]
    )
    nan = np.array([-np.nan, np.nan])
    pd.DataFrame({"id": 1, "rate": [-0.0, 0.0], "age": nan}).to_parquet(tmp_path / "b.parquet")
    rows = validate_files([csv, tmp_path / "b.parquet"], loans, loans.fields)
    assert len(rows.accepted) == 1
    assert [file.duplicates for file in rows.files] == [4, 1]


def test_the_same_customer_is_known_in_every_spelling_of_the_identifier(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{HEADER}\n7,10,1\n 7 ,10,1\n7.0,10,1\n07,10,1\n")
    pd.DataFrame({"id": [7.0, np.nan], "amount": 10, "code": 1}).to_parquet(tmp_path / "b.parquet")
    rows = validated(tmp_path / "a.csv", tmp_path / "b.parquet")
    assert sorted(rows.accepted["id"]) == ["07", "7"]
    assert sum(file.duplicates for file in rows.files) == 3


def test_of_a_customer_with_different_values_the_later_row_wins_and_the_earlier_is_rejected(
    tmp_path: Path,
) -> None:
    first = write_lines(tmp_path / "a.csv", [HEADER, "1,10,1", "2,20,1"])
    second = write_lines(tmp_path / "b.csv", [HEADER, "1,99,1"])
    rows = validated(first, second)
    assert dict(zip(rows.accepted["id"], rows.accepted["amount"], strict=True)) == {
        "1": 99,
        "2": 20,
    }
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


def test_a_superseded_row_is_listed_behind_the_other_rejected_rows_by_file_and_line(
    tmp_path: Path,
) -> None:
    first = write_lines(tmp_path / "a.csv", [HEADER, "1,10,1", "2,ten,1", "3,10,1"])
    second = write_lines(tmp_path / "b.csv", [HEADER, "3,20,1", "x,ten,1", "1,99,1", "3,30,1"])
    listed = validated(first, second).rejected[["file", "line", "rule"]].to_numpy().tolist()
    assert listed == [
        ["a.csv", 3, "not a number"],
        ["b.csv", 3, "not a number"],
        ["a.csv", 2, "superseded"],
        ["a.csv", 4, "superseded"],
        ["b.csv", 2, "superseded"],
    ]


# Every version of a customer (outcomes)


def versions(folder: Path, *rows: str) -> tuple[list[list[object]], IngestResult]:
    path = write_lines(folder / "in.csv", ["id,bad", *rows])
    result = ingest([path], TINY, [TINY.target_field], folder / "out", duplicate_rule="versions")
    return pd.read_parquet(result.accepted_file).to_numpy().tolist(), result


def test_every_version_of_an_outcome_stays_and_is_numbered_in_order(tmp_path: Path) -> None:
    """A bank must be able to say what it knew when; a correction does not erase what was known before."""
    accepted, result = versions(tmp_path, "1,0", "2,1", "1,1", "1,0", "3,0")
    assert accepted == [["1", 0, 1], ["2", 1, 1], ["1", 1, 2], ["1", 0, 3], ["3", 0, 1]]
    assert (result.rows, result.rejected_file, result.duplicates) == (5, None, 0)


def test_an_outcome_that_is_only_said_again_is_no_new_version(tmp_path: Path) -> None:
    accepted, result = versions(tmp_path, "1,0", "1,0", "1,1", "2,1", "1,1", "1,0", "1,0")
    assert accepted == [["1", 0, 1], ["1", 1, 2], ["2", 1, 1], ["1", 0, 3]]
    assert (result.duplicates, result.files[0].holds) == (3, True)


def test_without_repeats_every_row_is_the_first_version(tmp_path: Path) -> None:
    accepted, _ = versions(tmp_path, "1,0", "2,1")
    assert accepted == [["1", 0, 1], ["2", 1, 1]]


# Customers that must be known


def test_an_outcome_of_a_customer_that_was_never_decided_on_is_rejected(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.csv", ["id,bad", "1,0", "9,1", "007,yes", ",1"])
    known = pd.Index(["1", "2", "2"])
    result = ingest(
        [path],
        TINY,
        [TINY.target_field],
        tmp_path / "out",
        duplicate_rule="versions",
        known_customers=known,
    )
    assert result.rejected_file is not None
    assert read_rejected(result.rejected_file)[
        ["line", "field", "value", "rule"]
    ].to_numpy().tolist() == [
        [3, "id", "9", "unknown customer"],
        [4, "id", "007", "unknown customer"],
        [4, "bad", "yes", "not a number"],
        [5, "id", "", "missing"],
    ]
    assert (result.rows, result.rejected_rows) == (1, 3)


@pytest.mark.parametrize(
    ("known", "reported", "expected"),
    [
        (
            "00000012",
            "12",
            "'12' is no known customer: it looks like '00000012' without its leading zeros; valid: one who was",
        ),
        (
            "12",
            "00000012",
            "'00000012' is no known customer: it looks like '12' with leading zeros; valid: one who was",
        ),
        ("00000012", "13", "'13' is no known customer; valid: one who was"),
        ("7", "0", "'0' is no known customer; valid: one who was"),
    ],
)
def test_identifiers_that_lost_their_leading_zeros_are_called_that(
    tmp_path: Path, known: str, reported: str, expected: str
) -> None:
    """A spreadsheet opens the outcomes and saves them again."""
    path = write_lines(tmp_path / "in.csv", ["id,bad", f"{reported},1"])
    result = ingest(
        [path],
        TINY,
        [TINY.target_field],
        tmp_path / "out",
        duplicate_rule="versions",
        known_customers=pd.Index([known]),
    )
    (message,) = result.first_rejected["message"]
    assert message.startswith(f"id: {expected}")


def test_where_nobody_is_known_every_customer_is_rejected(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.csv", ["id,bad", "1,0"])
    result = ingest(
        [path],
        TINY,
        [TINY.target_field],
        tmp_path / "out",
        known_customers=pd.Index([], dtype="object"),
    )
    assert (result.rows, result.rejected_rows, result.rejected_share) == (0, 1, 1.0)


# What is written


def test_a_file_that_turns_out_unreadable_late_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its first rows had been judged and written by then; half of a file must never be scored as a whole one."""
    broken, good = (
        tmp_path / "a.csv",
        write_lines(tmp_path / "b.csv", [HEADER, "1,99,1", "3,30,1", "4,x,1"]),
    )
    lines = [
        HEADER,
        *(f"{number},{'ten' if number % 100 == 0 else 10},1" for number in range(1, 200_000)),
    ]
    broken.write_bytes("\n".join(lines).encode() + b"\n1,\xfc,1\n")
    result = ingest([broken, good], TINY, TINY.fields, tmp_path / "out")
    assert pd.read_parquet(result.accepted_file)["id"].tolist() == ["1", "3"]
    assert result.rejected_file is not None
    rejected = read_rejected(result.rejected_file)
    assert rejected[["file", "line", "rule"]].to_numpy().tolist() == [
        ["a.csv", 0, "unreadable file"],
        ["b.csv", 4, "not a number"],
    ]
    pd.testing.assert_frame_equal(result.first_rejected, rejected, check_dtype=False)
    assert (result.unreadable_files, result.files[0].rows_in, result.rows) == (("a.csv",), 0, 2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "accepted.parquet",
        "rejected.csv",
    ]


def test_where_nothing_is_rejected_no_rejected_file_is_written(tmp_path: Path) -> None:
    result = ingest(
        [write_lines(tmp_path / "in.csv", [HEADER, "1,10,1"])], TINY, TINY.fields, tmp_path / "out"
    )
    assert (result.rejected_file, len(result.first_rejected)) == (None, 0)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["accepted.parquet"]


def test_the_columns_of_the_accepted_file_have_the_contracts_types_also_without_rows(
    tmp_path: Path,
) -> None:
    empty = pq.read_schema(ingest([], TINY, TINY.fields, tmp_path / "a").accepted_file)
    assert empty == pa.schema([("id", pa.string()), ("amount", pa.int64()), ("code", pa.int64())])
    path = write_lines(tmp_path / "in.csv", [HEADER, "1,10,1"])
    assert pq.read_schema(ingest([path], TINY, TINY.fields, tmp_path / "b").accepted_file) == empty
    accepted = ingest(
        [path], TINY, TINY.fields, tmp_path / "c", duplicate_rule="versions"
    ).accepted_file
    assert pq.read_schema(accepted) == empty.append(pa.field("version", pa.int64()))


def test_a_rejected_row_is_read_back_from_quarantine_as_it_was_written(tmp_path: Path) -> None:
    """Separators, quotes, line ends and control characters in a cell must not break the list of what is wrong."""
    odd = 'a,"b"\r\nc\0d\x85\u2028'
    pd.DataFrame({"id": ["1", "2"], "amount": [odd, "x"], "code": 1}).to_parquet(
        tmp_path / "in.parquet"
    )
    rejected = validated(tmp_path / "in.parquet").rejected
    assert rejected["value"].tolist() == ['a,"b"\\r\\nc\\x00d\x85\u2028', "x"]
    assert rejected["line"].tolist() == [1, 2]


def test_at_most_twenty_rejected_rows_are_kept_at_hand(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.csv", [HEADER, *["1,ten,1"] * 10_000])
    result = ingest([path], TINY, TINY.fields, tmp_path / "out")
    assert result.first_rejected["line"].tolist() == list(range(2, 22))
    assert result.rejected_file is not None
    assert read_rejected(result.rejected_file)["line"].tolist() == list(range(2, 10_002))


def test_entries_of_bad_rows_and_malformed_lines_stand_in_the_order_of_their_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingestion, "ENTRIES_CHUNK_ROWS", 2)
    rows = [
        "1",
        "1,ten,9",
        "1,2",
        "2,ten,1",
        "3,10,1",
        "3,ten,1",
        "1",
        "4,ten,1",
        "5,ten,1",
        "1,2,3,4",
    ]
    rejected = one_file(tmp_path, *rows).rejected
    assert rejected["line"].tolist() == [2, 3, 3, 4, 5, 7, 8, 9, 10, 11]


# Any mixture

GOOD_ROW = st.builds(
    lambda who, amount: ("good", f"{who},{amount},1"), st.integers(1, 3), st.integers(10, 11)
)
BAD_ROW = st.sampled_from(["1,ten,1", "2,10,9", ",10,1", "3,10.5,1", "4,-1,x", "5,1e9,1"]).map(
    lambda text: ("bad", text)
)
MALFORMED = st.sampled_from(["1", "1,2", "1,2,1,4", '1,"2,1', '1,2,"']).map(
    lambda text: ("malformed", text)
)
BLANK = st.sampled_from(["", " ", ",,", ",", " , , "]).map(lambda text: ("blank", text))
Rows = list[tuple[str, str]]
FILES = st.lists(
    st.lists(st.one_of(GOOD_ROW, BAD_ROW, MALFORMED, BLANK), max_size=12), min_size=1, max_size=3
)
BATCHES = st.sampled_from([1, 2, 3, 5, 100])


def written(folder: Path, files: list[Rows]) -> list[Path]:
    """The files of a day."""
    return [
        write_lines(folder / f"{number}.csv", [HEADER, *(text for _, text in rows)])
        for number, rows in enumerate(files)
    ]


def in_batches(
    paths: list[Path],
    folder: Path,
    rows: int,
    duplicate_rule: duplicates.DuplicateRule = "last_wins",
) -> IngestResult:
    """IngestResult in batches of so many rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingestion, "BATCH_ROWS", rows)
        patch.setattr(ingestion, "ENTRIES_CHUNK_ROWS", rows)
        patch.setattr(table_reader, "BLOCK_BYTES", 8 * rows)
        patch.setattr(duplicates, "CHUNK_ROWS", rows)
        patch.setattr(duplicates, "PART_ROWS", 2 * rows)
        return ingest(paths, TINY, TINY.fields, folder, duplicate_rule=duplicate_rule)


def rejected_of(result: IngestResult) -> pd.DataFrame:
    return (
        result.first_rejected
        if result.rejected_file is None
        else read_rejected(result.rejected_file)
    )


@given(FILES, BATCHES)
@example([[]], 1)
@example([[("good", "1,10,1"), ("good", "1,10,1")], [("good", "1,11,1")]], 1)
@example(
    [
        [("good", "1,10,1"), ("good", "1,11,1")],
        [("good", "1,10,1"), ("malformed", "1")],
        [("blank", "")],
    ],
    2,
)
def test_every_row_that_arrives_is_accepted_rejected_or_a_duplicate(
    tmp_path_factory: pytest.TempPathFactory, files: list[Rows], batch_rows: int
) -> None:
    """Rows in = accepted + rejected + duplicates, for each file; each rejected row has its own entry in quarantine; and of each
    customer the last good row counts: earlier ones like it are duplicates, others superseded.
    """
    folder = tmp_path_factory.mktemp("day")
    result = in_batches(written(folder, files), folder / "out", batch_rows)

    kinds = [Counter(kind for kind, _ in rows) for rows in files]
    good = [text for rows in files for kind, text in rows if kind == "good"]
    last = {text.split(",")[0]: text for text in good}
    repeats = Counter(last[text.split(",")[0]] == text for text in good)
    assert all(file.holds for file in result.files)
    assert [file.rows_in for file in result.files] == [
        rows["good"] + rows["bad"] + rows["malformed"] for rows in kinds
    ]
    accepted = [
        f"{row['id']},{row['amount']},{row['code']}"
        for row in pd.read_parquet(result.accepted_file).to_dict("records")
    ]
    assert sorted(accepted) == sorted(last.values())
    assert sum(file.accepted for file in result.files) == result.rows == len(last)
    assert result.duplicates == repeats[True] - len(last)
    assert (
        result.rejected_rows
        == sum(rows["bad"] + rows["malformed"] for rows in kinds) + repeats[False]
    )

    rejected = rejected_of(result)
    assert rejected.columns.tolist() == REJECTED_COLUMNS
    by_line = rejected[rejected["line"] > 0]
    assert len(set(zip(by_line["file"], by_line["line"], strict=True))) == result.rejected_rows
    without_rows = {
        f"{number}.csv" for number, rows in enumerate(kinds) if rows["blank"] == rows.total()
    }
    assert (
        set(rejected.loc[rejected["line"] == 0, "file"])
        == without_rows
        == set(result.unreadable_files)
    )
    for entry in by_line.to_dict("records"):  # the line is the one that an editor shows
        kind, text = files[int(entry["file"].split(".")[0])][entry["line"] - 2]
        assert kind == {"malformed line": "malformed", "superseded": "good"}.get(
            entry["rule"], "bad"
        )
        assert kind != "malformed" or entry["record"] == text


@given(FILES, BATCHES)
def test_of_a_customers_versions_none_is_lost_and_none_is_said_twice(
    tmp_path_factory: pytest.TempPathFactory, files: list[Rows], batch_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("day")
    result = in_batches(written(folder, files), folder / "out", batch_rows, "versions")
    expected: list[tuple[object, ...]] = []
    story: dict[str, list[str]] = {}
    for text in (text for rows in files for kind, text in rows if kind == "good"):
        who, amount, code = text.split(",")
        if story.setdefault(who, [])[-1:] != [text]:
            story[who].append(text)
            expected.append((who, int(amount), int(code), len(story[who])))
    assert [
        tuple(row) for row in pd.read_parquet(result.accepted_file).to_numpy().tolist()
    ] == expected
    assert all(file.holds for file in result.files)
    assert "superseded" not in set(rejected_of(result)["rule"])


@given(FILES, BATCHES, st.sampled_from(["last_wins", "versions"]))
def test_the_same_files_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[Rows],
    batch_rows: int,
    duplicate_rule: duplicates.DuplicateRule,
) -> None:
    """A run that is repeated must not look like a change to anybody downstream."""
    folder = tmp_path_factory.mktemp("day")
    paths = written(folder, files)
    one, two = (
        in_batches(paths, folder / name, batch_rows, duplicate_rule) for name in ("one", "two")
    )
    assert one.accepted_file.read_bytes() == two.accepted_file.read_bytes()
    assert (one.rejected_file is None) == (two.rejected_file is None)
    if one.rejected_file is not None and two.rejected_file is not None:
        assert one.rejected_file.read_bytes() == two.rejected_file.read_bytes()
    assert one.files == two.files
    other = in_batches(paths, folder / "other", 1_000, duplicate_rule)
    pd.testing.assert_frame_equal(
        pd.read_parquet(other.accepted_file), pd.read_parquet(one.accepted_file)
    )
    pd.testing.assert_frame_equal(rejected_of(other), rejected_of(one))


@given(FILES, FILES)
def test_a_file_that_comes_later_never_loses_a_row_of_the_files_before(
    tmp_path_factory: pytest.TempPathFactory, before: list[Rows], later: list[Rows]
) -> None:
    """A customer who was accepted stays, with the same or with later values, and every row of before is still accounted for."""
    folder = tmp_path_factory.mktemp("day")
    paths = written(folder, [*before, *later])
    less = ingest(paths[: len(before)], TINY, TINY.fields, folder / "less")
    more = ingest(paths, TINY, TINY.fields, folder / "more")
    customers = [set(pd.read_parquet(one.accepted_file)["id"]) for one in (less, more)]
    assert customers[0] <= customers[1]
    for was, now in zip(less.files, more.files, strict=False):
        assert (now.file, now.rows_in, now.holds) == (was.file, was.rows_in, True)
        assert now.accepted <= was.accepted
    entries = [
        set(zip(one["file"], one["line"], one["rule"], strict=True))
        for one in (rejected_of(less), rejected_of(more))
    ]
    assert {entry for entry in entries[0] if entry[2] != "superseded"} <= entries[1]


@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(alphabet='id,;"\n\r\0é0123456789. -', max_size=60).map(str.encode),
        st.text(alphabet='1,;"\n\r\0é .-', max_size=60).map(
            lambda text: (HEADER + "\n" + text).encode()
        ),
        st.binary(max_size=40).map(lambda tail: HEADER.encode() + b"\n1,10,1\n" + tail),
    ),
    st.sampled_from([".csv", ".parquet"]),
)
def test_no_bytes_whatever_make_validation_raise(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"in{suffix}"
    path.write_bytes(content)
    result = validated(path)
    assert result.files[0].holds
    assert len(result.accepted) or len(result.rejected)


def test_simulated_customers_satisfy_the_whole_contract_from_both_kinds_of_file(
    tmp_path: Path,
) -> None:
    customers = simulate(300, 5)
    customers.to_csv(tmp_path / "a.csv", index=False)
    customers.to_parquet(tmp_path / "b.parquet", index=False)
    wanted = [*PORTFOLIO.fields, PORTFOLIO.target_field]
    for name in ("a.csv", "b.parquet"):
        rows = validate_files([tmp_path / name], PORTFOLIO, wanted)
        assert rows.rejected.empty
        pd.testing.assert_frame_equal(rows.accepted, customers)
