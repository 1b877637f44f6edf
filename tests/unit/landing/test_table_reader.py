"""Reading a file as a stream of batches: every dialect, exact line numbers, bounded memory, and files that are not tables."""

import csv
import gzip
import io
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from creditrisk_assets.landing import table_reader
from creditrisk_assets.landing.table_reader import (
    COLUMNS_LIMIT,
    LINE_LIMIT,
    OPEN_QUOTE,
    Malformed,
    UnreadableFile,
    read_batches,
)
from tests.support.examples import TINY, write_lines

Cells = dict[str, list[object]]


def read_all(
    path: Path, batch_rows: int = table_reader.BATCH_ROWS
) -> tuple[Cells, list[int], list[Malformed]]:
    """All batches of a file together: cells, lines, malformed lines."""
    cells: Cells = {}
    lines: list[int] = []
    malformed: list[Malformed] = []
    for batch in read_batches(path, batch_rows):
        assert batch.cells.num_rows == len(batch.lines) <= batch_rows
        for name, values in batch.cells.to_pydict().items():
            cells.setdefault(name, []).extend(values)
        lines += batch.lines.tolist()
        malformed += batch.malformed
    return cells, lines, malformed


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_csv_is_read_the_same_in_every_dialect(
    tmp_path: Path, delimiter: str, mark: bytes, ending: str
) -> None:
    """Excel writes semicolons, a byte-order mark and carriage returns."""
    lines = ["ID,Pay.0,note", '1,"2","a b"', "2,3,"]
    text = ending.join(lines).replace(",", delimiter) + ending
    path = tmp_path / "in.csv"
    path.write_bytes(mark + text.encode())
    assert read_all(path) == (
        {"id": ["1", "2"], "pay_0": ["2", "3"], "note": ["a b", ""]},
        [2, 3],
        [],
    )
    with read_batches(path) as stream:
        assert (stream.file, stream.headers, stream.names) == (
            "in.csv",
            ["ID", "Pay.0", "note"],
            ["id", "pay_0", "note"],
        )


def test_rows_keep_their_line_numbers_past_empty_and_malformed_lines(tmp_path: Path) -> None:
    """The line in a quarantine entry is what a person looks up in the file."""
    path = write_lines(
        tmp_path / "in.csv",
        ["id,x", "1,a", "", "2,b,extra", "3,c", "4", " ", ",", " , ", ",,,", "5,d"],
    )
    cells, lines, malformed = read_all(path)
    assert cells["id"] == ["1", "3", "5"]
    assert lines == [2, 5, 11]
    assert malformed == [
        (4, "3 cells where the header has 2", "2,b,extra"),
        (6, "1 cells where the header has 2", "4"),
    ]


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 4, 5, 100])
def test_line_numbers_do_not_depend_on_where_the_file_is_cut(
    tmp_path: Path, batch_rows: int
) -> None:
    path = write_lines(
        tmp_path / "in.csv", ["id,x", "1,a", "", "2,b,extra", "3,c", '4,"', "", "5,d"]
    )
    cells, lines, malformed = read_all(path, batch_rows)
    assert (cells["id"], lines) == (["1", "3", "5"], [2, 5, 8])
    assert [line for line, *_ in malformed] == [4, 6]


def test_malformed_lines_are_found_beyond_the_first_block_of_a_large_file(tmp_path: Path) -> None:
    """The reader works in blocks of a megabyte; a line number counted within its block would point elsewhere."""
    text = [f"{number},{'x' * 40}" for number in range(2, 120_002)]
    text[99_999] += ",9"  # line 100,001
    cells, lines, malformed = read_all(write_lines(tmp_path / "in.csv", ["id,x", *text]))
    assert [line for line, *_ in malformed] == [100_001]
    assert cells["id"] == [str(line) for line in lines]
    assert len(lines) == 119_999


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """No batch has more rows than asked for, and long lines make batches of fewer rows."""
    path = write_lines(
        tmp_path / "long.csv", ["id,x", *(f"{number},{'x' * 900_000}" for number in range(80))]
    )
    sizes = [batch.cells.nbytes for batch in read_batches(path)]
    assert sum(sizes) > 70e6
    assert max(sizes) <= 34 << 20


def test_how_much_has_been_read_is_known_while_reading(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": range(50_000), "x": 1.5})
    frame.to_csv(tmp_path / "in.csv", index=False)
    frame.to_parquet(tmp_path / "in.parquet")
    for name in ("in.csv", "in.parquet"):
        stream = read_batches(tmp_path / name, 10_000)
        shares = [stream.share_read for _ in stream]
        assert shares == sorted(shares)
        assert len(shares) == 5
        assert shares[-1] == pytest.approx(1.0)


# Quotes


@pytest.mark.parametrize(
    "broken",
    [
        '3,"30,1',  # left open
        '3,a"b,"c',  # the first quote is part of a cell and hides that the second opens one
        '"3,30,1',
        '3,30,"5 pipe\n"6"x',  # what closes it is followed by neither a separator nor a line end
        '3,"30\n4",1,2',  # a cell of two lines in a record that the header does not have
    ],
)
def test_a_quote_that_is_left_open_costs_its_own_line_and_not_the_lines_behind_it(
    tmp_path: Path, broken: str
) -> None:
    """Seen: a reader that takes everything up to the next quote, or to the end of the file, for one cell."""
    good = [f"{number},20,1" for number in range(4, 40)]
    path = write_lines(tmp_path / "in.csv", ["id,amount,code", "1,10,1", broken, "2,20,1", *good])
    cells, lines, malformed = read_all(path)
    assert cells["id"] == [str(number) for number in (1, 2, *range(4, 40))]
    assert lines[0] == 2
    broken_lines = broken.split("\n")
    assert malformed[0] == (3, OPEN_QUOTE, broken_lines[0])
    assert [(line, text) for line, _, text in malformed] == list(enumerate(broken_lines, start=3))
    assert lines[1] == 3 + len(broken_lines)


def test_quotes_within_quotes_and_separators_within_quotes_are_read(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "in.csv", ["id,note", '1,"a ""b"" c"', '2,"x,y;z"', '3,""', '"4",""""']
    )
    assert read_all(path) == (
        {"id": ["1", "2", "3", "4"], "note": ['a "b" c', "x,y;z", "", '"']},
        [2, 3, 4, 5],
        [],
    )


LINES = st.lists(st.text(alphabet='1a,;"é ', max_size=12), min_size=1, max_size=30)


@given(LINES, st.sampled_from(["\n", "\r\n", "\r"]), st.integers(1, 9), st.booleans())
@example(['a"b,"c', "1,2,3"], "\n", 4, True)
@example(['"', '"'], "\r\n", 1, True)
def test_every_line_is_a_row_a_malformed_line_or_blank_wherever_the_file_is_cut(
    tmp_path_factory: pytest.TempPathFactory,
    text: list[str],
    ending: str,
    size: int,
    last_ends: bool,
) -> None:
    """The same rows and lines with blocks of a few bytes, which cut through quotes, characters and line ends; and Python's own
    reader finds the same cells in the lines of each row.
    """
    path = tmp_path_factory.mktemp("lines") / "in.csv"
    path.write_bytes(
        ending.join(["a,b,c", *text]).encode() + (ending.encode() if last_ends else b"")
    )
    try:
        whole = read_all(path)
    except UnreadableFile as error:
        assert all(  # noqa: PT017
            not line.strip(", ") or not "".join(*csv.reader([line])).strip() for line in text
        ), error
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_reader, "BLOCK_BYTES", size)
        assert read_all(path, size) == whole

    cells, lines, malformed = whole
    rows = dict(zip(lines, zip(*cells.values(), strict=True), strict=True))
    aside = {line: original for line, _, original in malformed}
    assert not set(rows) & set(aside)
    within = 0  # the last line of the row above
    for number, line in enumerate(text, start=2):
        if number in aside:
            assert aside[number] == line
        elif number in rows:
            within = number + "".join(map(str, rows[number])).count("\n")
            try:
                expected = next(
                    csv.reader(
                        [f"{one}\n" for one in text[number - 2 : within - 1]],
                        strict=within > number,
                    )
                )
            except csv.Error as error:
                raise AssertionError(rows[number]) from error
            assert list(rows[number]) == expected
        elif number > within:
            assert not "".join(*csv.reader([line])).strip() or not line.strip(", ")


CELLS = st.text(alphabet='1a,;"é\n ', max_size=8)


@given(
    rows=st.lists(st.tuples(st.sampled_from(["1", "2"]), CELLS, CELLS), min_size=1, max_size=20),
    ending=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    size=st.integers(1, 40),
)
def test_what_a_writer_of_csv_quotes_is_read_as_it_was_with_the_lines_that_an_editor_shows(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    ending: str,
    quoting: Any,
    size: int,
) -> None:
    """RFC 4180. Seen: a remark of two lines made two rejected rows of one customer."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n", quoting=quoting)
    writer.writerow(("a", "b", "c"))
    lines = []
    for row in rows:
        lines.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    path = tmp_path_factory.mktemp("written") / "in.csv"
    path.write_bytes(text.getvalue().replace("\n", ending).encode())
    expected = [[row[place] for row in rows] for place in range(3)]
    assert read_all(path) == (dict(zip("abc", expected, strict=True)), lines, [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_reader, "BLOCK_BYTES", size)
        assert read_all(path, size) == (dict(zip("abc", expected, strict=True)), lines, [])


def test_a_line_end_in_a_column_that_nobody_reads_is_within_one_row(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "in.csv", ["id,note", '1,"one\n\ntwo ""three"""', "2,x", '3,5" pipe', "4"]
    )
    cells, lines, malformed = read_all(path)
    assert cells == {"id": ["1", "2", "3"], "note": ['one\n\ntwo "three"', "x", '5" pipe']}
    assert (lines, malformed) == ([2, 5, 6], [(7, "1 cells where the header has 2", "4")])


def test_an_open_quote_is_followed_so_far_and_no_further(tmp_path: Path) -> None:
    """Otherwise one stray quote would take the rest of a long file into memory."""
    many = [f"{number},{'x' * 60}" for number in range(5_000)]
    path = write_lines(tmp_path / "in.csv", ["id,note", '1,"open', *many, '9,"'])
    cells, _, malformed = read_all(path)
    assert cells["id"] == [str(number) for number in range(5_000)]
    assert malformed == [(2, OPEN_QUOTE, '1,"open'), (5_003, OPEN_QUOTE, '9,"')]


# Headers and kinds


@pytest.mark.parametrize("delimiter", ["\t", "|"])
def test_tabs_and_bars_separate_too(tmp_path: Path, delimiter: str) -> None:
    path = write_lines(
        tmp_path / "in.csv", [delimiter.join(one) for one in (("id", '"a,b,c"'), ("1", "2"))]
    )
    assert read_all(path)[0] == {"id": ["1"], "a_b_c": ["2"]}


@pytest.mark.parametrize(
    "above",
    [
        [",X1,X2"],
        ["# exported 2026-03-01"],
        ["Customers", "", "as of,2026-03-01"],
        ['"a title\nof two lines"'],
    ],
)
def test_the_header_is_found_below_the_lines_that_exports_put_above_it(
    tmp_path: Path, above: list[str]
) -> None:
    path = write_lines(tmp_path / "in.csv", [*above, '"ID",Amount,"the\ncode"', "1,10,1", "2,20,x"])
    plain = write_lines(tmp_path / "plain.csv", [*above, "ID,Amount,Code", "1,10,1", "2,20,x"])
    with read_batches(plain, portfolio=TINY) as stream:
        (batch,) = stream
    above_lines = sum(one.count("\n") + 1 for one in above)
    assert stream.names == ["id", "amount", "code"]
    assert batch.cells.to_pydict() == {"id": ["1", "2"], "amount": ["10", "20"], "code": ["1", "x"]}
    assert batch.lines.tolist() == [above_lines + 2, above_lines + 3]
    with pytest.raises(UnreadableFile) if len(above) != 1 or "," not in above[0] else nullcontext():
        list(
            read_batches(path, portfolio=TINY)
        )  # no line names each field: the first is the header, or none is


def test_a_header_may_have_a_line_end_in_a_name(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.csv", ['id,"limit\nbalance"', "1,10"])
    assert read_all(path) == ({"id": ["1"], "limit_balance": ["10"]}, [3], [])


def test_compressed_csv_is_read_as_csv(tmp_path: Path) -> None:
    text = "id,x\n" + "".join(f"{number},{number}\n" for number in range(50_000))
    path = tmp_path / "in.csv.gz"
    path.write_bytes(gzip.compress(text[:200].encode()) + gzip.compress(text[200:].encode()))
    cells, lines, _ = read_all(path, 1_000)
    assert cells["id"] == [str(number) for number in range(50_000)]
    assert lines[-1] == 50_001
    for content in (
        gzip.compress(text.encode())[:-9],
        b"id,x\n1,2\n",
        gzip.compress(text.encode())[:60] + b"x" * 60,
    ):
        path.write_bytes(content)
        with pytest.raises(UnreadableFile, match="not a readable gzip file"):
            read_all(path)


# Types and whole files


def test_a_cell_is_kept_as_its_own_text(tmp_path: Path) -> None:
    """Leading zeros of an identifier, "NA" and "1e3" are for validation to judge, not for the reader to change."""
    path = write_lines(tmp_path / "in.csv", ["id,x", "007,NA", "1e3, 5 ", "null,nan"])
    assert read_all(path)[0] == {"id": ["007", "1e3", "null"], "x": ["NA", " 5 ", "nan"]}


def test_parquet_is_read_whatever_index_pandas_stored_in_it(tmp_path: Path) -> None:
    """A frame hides columns that were an index; a filtered frame carries its old row numbers."""
    frame = pd.DataFrame({"ID": ["1", "2", "3"], "x": [5, 6, 7]})
    for number, stored in enumerate(
        (frame, frame.set_index("ID"), frame.iloc[1:], frame[frame["x"] != 6])
    ):
        path = tmp_path / f"{number}.parquet"
        stored.to_parquet(path)
        cells, lines, _ = read_all(path, 2)
        wanted = stored.reset_index() if stored.index.name else stored
        assert cells["id"] == wanted["ID"].tolist()
        assert cells["x"] == wanted["x"].tolist()
        assert lines == list(range(1, len(wanted) + 1))


def test_parquet_is_read_with_its_own_types_from_any_number_of_row_groups(tmp_path: Path) -> None:
    table = pa.table(
        {
            "ID": pa.array([2**60 + 1, None, 3], pa.int64()),
            "When": pa.array([1, 2, 3], pa.timestamp("ms")),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=1)
    batches = list(read_batches(tmp_path / "in.parquet"))
    assert pa.Table.from_batches([batch.cells for batch in batches]).equals(
        table.rename_columns(["id", "when"])
    )
    assert np.concatenate([batch.lines for batch in batches]).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"id,x\n", "no rows"),
        (b"id,x\n\n , \n", "no rows"),
        (b"\xef\xbb\xbf", "is no header"),
        (b'id,"x\n1,2\n', "is no header: a quote is left open"),
        (b"id,x\n1,2\n3,4\x00\n", "a zero byte near position 12"),
        (
            b"id,x\n" + b"1,2\n" * 400_000 + b"3,\xfc\n",
            "byte 0xfc near position 1600007; valid: UTF-8 CSV",
        ),
        (b"id,x\n" + b"1,2\n" * 400_000 + b"3,\xc3", "it ends within a character"),
        (b"id,x\n1,2\n3," + b"4" * LINE_LIMIT + b"\n", "line 3 is longer than 1,048,576 bytes"),
        (b"id," + b"x" * LINE_LIMIT, "line 1 is longer than 1,048,576 bytes"),
        (
            ",".join(f"c{number}" for number in range(COLUMNS_LIMIT + 1)).encode() + b"\n1\n",
            "4,097 columns; valid: at most 4,096",
        ),
        (b"id,x,X\n1,2,3\n", "names a column twice: x"),
    ],
    ids=range(12),
)
def test_what_is_no_table_says_why_however_late_it_turns_out(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    """A byte that cannot be read in the last line: earlier rows may be as wrong, so no row of the file is accepted."""
    path = tmp_path / "in.csv"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=expected):
        read_all(path)


def test_a_long_line_within_the_limit_is_read(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.csv", ["id,x", "1,2", "3," + "4" * (LINE_LIMIT - 2), "5,6"])
    cells, lines, _ = read_all(path)
    assert (cells["id"], lines) == (["1", "3", "5"], [2, 3, 4])


def test_a_file_that_cannot_be_opened_is_no_unreadable_file(tmp_path: Path) -> None:
    """A disk that fails, or a file that is gone, is not what somebody delivered: the run must fail and be tried again."""
    for name in ("in.csv", "in.parquet"):
        with pytest.raises(FileNotFoundError):
            read_batches(tmp_path / name)


@pytest.mark.parametrize("name", ["in.csv", "in.parquet"])
def test_a_file_that_somebody_writes_into_while_it_is_read_is_given_up(
    tmp_path: Path, name: str
) -> None:
    """The first half of one file and the second half of another, both with the same header, would look like one."""
    frame = pd.DataFrame({"id": range(10), "x": 1.5})
    path = tmp_path / name
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    batches = iter(read_batches(path, 5))
    next(batches)
    with path.open("ab") as file:
        file.write(b"11,1.5\n")
    with pytest.raises(OSError, match="changed while it was read"):
        list(batches)


class FailingFile(io.BytesIO):
    """A file on a disk that fails after the file was opened."""

    def read(self, _: int | None = -1) -> bytes:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("name", ["in.csv", "in.parquet"])
def test_a_disk_that_fails_while_reading_is_no_unreadable_file(tmp_path: Path, name: str) -> None:
    """Broken Parquet makes pyarrow raise `OSError` too; the two must not be taken for each other."""
    frame = pd.DataFrame({"id": range(500_000), "x": 1.5})
    path = tmp_path / name
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    with read_batches(path) as stream:
        stream._source._file.close()
        stream._source._file = FailingFile()
        with pytest.raises(OSError, match="Input/output error"):
            list(stream)
