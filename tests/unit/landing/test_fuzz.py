"""Five hundred broken files: whatever lands, nothing crashes, and every file and every line is accounted for."""

import gzip
import io
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from creditrisk_assets.landing.ingestion import IngestResult, ingest, read_rejected
from creditrisk_assets.landing.listing import is_temporary, list_day
from tests.support.examples import TINY

FILES = 500
FILES_A_DAY = 10
LINE_END = re.compile(b"\r\n|\r|\n")

Mutation = Callable[[bytes, random.Random], bytes]


def customers(rng: random.Random) -> pd.DataFrame:
    """Some good customers, some bad, some twice."""
    rows = [
        (rng.randint(1, 60), rng.choice([0, 10, 500, 1_000, 1_001]), rng.choice([1, 2, 2, 2, 3]))
        for _ in range(40)
    ]
    return pd.DataFrame(rows, columns=["id", "amount", "code"])


def csv_bytes(rng: random.Random) -> bytes:
    """A file as somebody might deliver it."""
    frame = customers(rng).astype("str")
    frame["note"] = [
        rng.choice(["", "plain", "é", 'say "so"', "a, b; c"]) for _ in range(len(frame))
    ]
    text = frame.to_csv(
        index=False, sep=rng.choice([",", ";"]), lineterminator=rng.choice(["\n", "\r\n", "\r"])
    )
    return (b"\xef\xbb\xbf" if rng.random() < 0.3 else b"") + text.encode()


def parquet_bytes(rng: random.Random) -> bytes:
    """The same as Parquet, in one of the ways in which it can be written."""
    frame, buffer = customers(rng), io.BytesIO()
    frame["note"] = rng.choice(["", "é", None])
    table = pa.Table.from_pandas(
        frame.astype(rng.choice([{}, {"id": "str"}, {"amount": "float64"}, {"code": "category"}]))
    )
    pq.write_table(
        table,
        buffer,
        row_group_size=rng.choice([7, 100]),
        compression=rng.choice(["none", "snappy", "zstd", "gzip"]),
        use_dictionary=rng.random() < 0.5,
        write_page_checksum=rng.random() < 0.2,
    )
    return buffer.getvalue()


def inserted(piece: bytes, times: int = 3) -> Mutation:
    """Put something in at a few places."""

    def mutate(content: bytes, rng: random.Random) -> bytes:
        for _ in range(rng.randint(1, times)):
            place = rng.randint(0, len(content))
            content = content[:place] + piece + content[place:]
        return content

    return mutate


def flipped(content: bytes, rng: random.Random) -> bytes:
    """Change a few bytes, most often near the end, where a Parquet file says what it holds."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 5) if changed else 0):
        first = max(0, len(changed) - 300) if rng.random() < 0.5 else 0
        changed[rng.randrange(first, len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def moved(content: bytes, rng: random.Random) -> bytes:
    """Swap two pieces."""
    one, two, three = sorted(rng.randint(0, len(content)) for _ in range(3))
    return content[:one] + content[two:three] + content[one:two] + content[three:]


MUTATIONS: dict[str, Mutation] = {
    "nothing": lambda content, _: content,
    "bytes flipped": flipped,
    "cut off": lambda content, rng: content[: rng.randint(0, len(content))],
    "beginning lost": lambda content, rng: content[rng.randint(0, len(content)) :],
    "pieces swapped": moved,
    "quote inserted": inserted(b'"'),
    "newline inserted": inserted(b"\n"),
    "carriage return inserted": inserted(b"\r"),
    "zero byte inserted": inserted(b"\0", 1),
    "byte-order mark inserted": inserted(b"\xef\xbb\xbf"),
    "half a character inserted": inserted(b"\xc3", 1),
    "separators inserted": inserted(b",;,"),
    "blank lines inserted": inserted(b"\n  \n,,,\n;;;\n"),
    "separators swapped": lambda content, _: content.translate(bytes.maketrans(b",;", b";,")),
    "some separators swapped": lambda content, rng: content.replace(b",", b";", rng.randint(1, 20)),
    "header twice": lambda content, _: content[: content.find(b"\n") + 1] + content,
    "everything twice": lambda content, _: content + content,
    "no header": lambda content, _: content[content.find(b"\n") + 1 :],
    "header in capitals": lambda content, _: content[:30].upper() + content[30:],
    "column named twice": lambda content, _: content.replace(b"note", b"CODE", 1),
    "column renamed": lambda content, _: content.replace(b"amount", b"volume", 1),
    "spaces everywhere": lambda content, _: content.replace(b",", b" , "),
    "compressed": lambda content, _: gzip.compress(content, mtime=0),
    "in two-byte characters": lambda content, _: content.decode("latin-1").encode("utf-16"),
    "random bytes": lambda content, rng: rng.randbytes(len(content)),
    "huge numbers": lambda content, rng: content.replace(b"10", b"9" * rng.randint(17, 400)),
    "empty": lambda _, __: b"",
}
NAMES = [
    *["{}.csv"] * 14,
    *["{}.parquet"] * 8,
    "{}.CSV",
    ".{}.csv",
    "{}.csv.part",
    "{}.txt",
    "{}.csv.gz",
    "{} copy of (1) é.csv",
]


def mutated(number: int) -> tuple[str, str, bytes]:
    """The name of a file, what is the matter with it, and its bytes; the same for the same number."""
    rng = random.Random(number)  # noqa: S311
    name = rng.choice(NAMES).format(number)
    is_parquet = name.endswith(".parquet") != (
        rng.random() < 0.1
    )  # now and then it is called what it is not
    content = parquet_bytes(rng) if is_parquet else csv_bytes(rng)
    usual = (
        "bytes flipped" if is_parquet else "quote inserted"
    )  # what a reader survives most often, and so tells most about it
    kinds = [
        usual if rng.random() < 0.3 else rng.choice(list(MUTATIONS))
        for _ in range(rng.choice([1, 1, 2]))
    ]
    for kind in kinds:
        content = MUTATIONS[kind](content, rng)
    return name, " and ".join(kinds), content


def most_and_fewest_rows(content: bytes) -> tuple[int, int]:
    """Least and greatest number of rows in a CSV file's lines: a line of quotes and separators only may be blank or malformed, and a
    row whose cell has line ends in it takes several lines.
    """
    lines = [line.decode() for line in LINE_END.split(content.removeprefix(b"\xef\xbb\xbf"))[1:]]
    fewest, may_go_on = 0, False
    for line in lines:
        fewest += bool(line.strip().strip('",; \t')) and not may_go_on
        may_go_on = (
            '"' in line or may_go_on
        )  # from the first quote on, any line may belong to the row above it
    return sum(bool(line.strip()) for line in lines), fewest


@pytest.mark.parametrize("first", range(0, FILES, FILES_A_DAY))
def test_broken_files_never_stop_a_day_and_every_file_and_line_is_accounted_for(
    tmp_path: Path, first: int
) -> None:
    day = tmp_path / "2026-02-01"
    day.mkdir()
    landed = {}
    for number in range(first, first + FILES_A_DAY):
        name, what, content = mutated(number)
        (day / name).write_bytes(content)
        landed[name] = (what, content)
    (day / "zz-good.csv").write_text("id,amount,code\ngood-1,10,1\ngood-2,20,2\n")

    listing = list_day(day)
    assert listing.problem is None
    listed = {file.path.name for file in listing.files}
    assert listed | set(listing.ignored_names) | {
        name for name in landed if is_temporary(name)
    } == {
        *landed,
        "zz-good.csv",
    }

    result = ingest([file.path for file in listing.files], TINY, TINY.fields, tmp_path / "out")
    if first % 100 == 0:
        again = ingest([file.path for file in listing.files], TINY, TINY.fields, tmp_path / "again")
        assert again.accepted_file.read_bytes() == result.accepted_file.read_bytes()
    accepted = pd.read_parquet(result.accepted_file)
    assert accepted["id"].tolist()[-2:] == ["good-1", "good-2"]
    assert accepted["id"].is_unique
    assert accepted["amount"].between(0, 1_000).all()
    assert accepted["code"].isin([1, 2]).all()
    assert len(accepted) == result.rows == sum(file.accepted for file in result.files)
    assert [file.file for file in result.files] == sorted(listed)
    rejected = entries(result)
    for file in result.files:
        what, content = landed.get(file.file, ("good", b""))
        assert file.holds, what
        by_line, whole = rejected.get(file.file, (0, Counter[str]()))
        if whole["unreadable file"]:
            assert (file.rows_in, by_line) == (0, 0), what
            assert file.file in result.unreadable_files
        elif whole["missing column"] or whole["wrong type"]:
            assert (file.rejected, by_line) == (file.rows_in, 0), what
        else:
            assert file.rejected == by_line, what
        if file.file.lower().endswith(".csv") and not whole["unreadable file"] and content:
            most, fewest = most_and_fewest_rows(content)
            assert fewest <= file.rows_in <= most, what


def entries(result: IngestResult) -> dict[str, tuple[int, Counter[str]]]:
    """For each file: how many of its lines were rejected, and for what reasons the file as a whole was."""
    if result.rejected_file is None:
        return {}
    rejected = read_rejected(result.rejected_file)
    return {
        str(file): (
            rows.loc[rows["line"] > 0, "line"].nunique(),
            Counter(rows.loc[rows["line"] == 0, "rule"].tolist()),
        )
        for file, rows in rejected.groupby("file")
    }


def test_the_five_hundred_files_are_of_every_kind() -> None:
    """A fuzz test that only makes files that fail at their first byte would prove nothing."""
    files = [mutated(number) for number in range(FILES)]
    assert len({content for _, _, content in files}) > 400
    kinds = Counter(kind for _, what, _ in files for kind in what.split(" and "))
    assert set(kinds) == set(MUTATIONS)
    assert sum(name.endswith(".parquet") for name, *_ in files) > 50
