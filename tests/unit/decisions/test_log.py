"""The decision log: what was acknowledged is there after any crash; what was torn is cut; what was damaged is told."""

import errno
import multiprocessing
import os
import signal
import zlib
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from creditrisk_assets.decisions.codec import PLAIN
from creditrisk_assets.decisions.log import (
    AHEAD_BYTES,
    DecisionLogError,
    SegmentWriter,
    cut_torn_tail,
    find_record,
    make_frame,
    new_name,
    read_segment,
    sealing_lock,
    segments_in,
)
from tests.support.segments import CHAMPION, DAY, header

Groups = list[list[bytes]]
lines = st.lists(
    st.dictionaries(st.text(max_size=20), st.text(max_size=40)).map(to_json), min_size=1, max_size=4
)
groups = st.lists(lines, min_size=1, max_size=5)


def written(folder: Path, decisions: Groups) -> tuple[Path, list[int]]:
    """A finished segment, and its size after the header and after each group."""
    writer = SegmentWriter(folder, header(), PLAIN)
    sizes = [writer.size]
    for group in decisions:
        writer.append(group)
        sizes.append(writer.size)
    writer.close()
    return writer.path, sizes


@given(decisions=groups)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, decisions: Groups
) -> None:
    path, sizes = written(tmp_path_factory.mktemp("log"), decisions)
    segment = read_segment(path, PLAIN)
    assert segment is not None
    assert list(segment.lines()) == [line for group in decisions for line in group]
    assert (segment.good_bytes, segment.torn_bytes) == (sizes[-1], 0)
    assert segment.header.champion == CHAMPION


@given(decisions=groups, data=st.data())
def test_a_torn_tail_is_cut_and_never_an_acknowledged_record(
    tmp_path_factory: pytest.TempPathFactory, decisions: Groups, data: st.DataObject
) -> None:
    """A crash leaves any part of the last frame, or zeros where the file system had not come to the bytes."""
    path, sizes = written(tmp_path_factory.mktemp("log"), decisions)
    content = path.read_bytes()
    length = data.draw(st.integers(sizes[-2], sizes[-1] - 1))
    zeros = data.draw(st.integers(0, 50))
    path.write_bytes(content[:length] + bytes(zeros))
    segment = read_segment(path, PLAIN)
    assert segment is not None
    assert list(segment.lines()) == [line for group in decisions[:-1] for line in group]
    assert segment.good_bytes == sizes[-2]
    assert segment.torn_bytes == length + zeros - sizes[-2]
    cut_torn_tail(segment)
    assert path.read_bytes() == content[: sizes[-2]]


@given(decisions=st.lists(lines, min_size=2, max_size=5), data=st.data())
def test_a_changed_byte_before_whole_frames_is_damage_and_nothing_is_cut(
    tmp_path_factory: pytest.TempPathFactory, decisions: Groups, data: st.DataObject
) -> None:
    """Taken for a torn tail, everything behind it would be thrown away."""
    path, sizes = written(tmp_path_factory.mktemp("log"), decisions)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, sizes[-2] - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(DecisionLogError, match="was damaged at byte"):
        read_segment(path, PLAIN)


def test_a_segment_of_which_not_even_the_header_came_to_the_disk_is_none(tmp_path: Path) -> None:
    path = tmp_path / f"{DAY}-{new_name()}.log"
    for content in (b"", bytes(100), b"@0000", make_frame(b"{}")[:-1]):
        path.write_bytes(content)
        assert read_segment(path, PLAIN) is None


def test_a_segment_under_another_name_is_refused(tmp_path: Path) -> None:
    path, _ = written(tmp_path, [[b"{}"]])
    other = path.rename(tmp_path / f"{DAY}-{new_name()}.log")
    with pytest.raises(DecisionLogError, match="valid: its own name"):
        read_segment(other, PLAIN)


def test_while_a_segment_is_written_to_nobody_else_takes_it(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, header(), PLAIN)
    with sealing_lock(writer.path) as mine:
        assert not mine
    writer.close()
    with sealing_lock(writer.path) as mine:
        assert mine
        with sealing_lock(writer.path) as another:
            assert not another
    with sealing_lock(tmp_path / "gone.log") as mine:
        assert not mine


def _write_for_ever(folder: Path, acknowledged: "multiprocessing.connection.Connection") -> None:
    writer = SegmentWriter(folder, header(), PLAIN)
    count = 0
    while True:
        writer.append([b'{"n":%d}' % (count + place) for place in range(3)])
        count += 3
        acknowledged.send(count)


@pytest.mark.starts_processes
@pytest.mark.parametrize("_", range(5))
def test_the_lock_of_a_killed_process_is_gone_and_what_it_acknowledged_is_there(
    tmp_path: Path, _: int
) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_write_for_ever, args=(tmp_path, theirs), daemon=True)
    process.start()
    last = 0
    while last < 60:
        last = ours.recv()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while ours.poll():
        last = ours.recv()
    (path,) = segments_in(tmp_path)
    with sealing_lock(path) as mine:
        assert mine
        segment = read_segment(path, PLAIN)
        assert segment is not None
        assert [record["n"] for record in segment.records()][:last] == list(range(last))
        assert segment.rows in (last, last + 3)


@pytest.mark.starts_processes
def test_who_reads_while_another_writes_sees_all_that_was_acknowledged_and_takes_nothing_for_damage(
    tmp_path: Path,
) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_write_for_ever, args=(tmp_path, theirs), daemon=True)
    process.start()
    seen = ours.recv()
    (path,) = segments_in(tmp_path)
    looks = 0
    while looks < 50 or seen < 3_000:
        while ours.poll():
            seen = ours.recv()
        segment = read_segment(path, PLAIN)
        assert segment is not None
        assert segment.rows >= seen
        assert segment.good_bytes <= path.stat().st_size
        assert len(list(segment.lines())) == segment.rows
        looks += 1
    process.kill()
    process.join()


def test_what_is_written_after_a_segment_was_read_is_no_part_of_what_was_read(
    tmp_path: Path,
) -> None:
    writer = SegmentWriter(tmp_path, header(), PLAIN)
    empty = read_segment(writer.path, PLAIN)
    writer.append([b'{"n":1}'])
    one = read_segment(writer.path, PLAIN)
    writer.append([b'{"n":2}'])
    assert empty is not None
    assert one is not None
    assert (empty.rows, list(empty.lines())) == (0, [])
    assert (one.rows, list(one.lines())) == (1, [b'{"n":1}'])


def test_two_segments_never_have_one_name(tmp_path: Path) -> None:
    """A rename would replace the first one, decisions and all."""
    same = header()
    first = SegmentWriter(tmp_path, same, PLAIN)
    first.append([b"{}"])
    with pytest.raises(FileExistsError):
        SegmentWriter(tmp_path, same, PLAIN)
    first.close()
    segment = read_segment(first.path, PLAIN)
    assert segment is not None
    assert tuple(segment.lines()) == (b"{}",)
    assert [path.name for path in tmp_path.iterdir()] == [first.path.name]


@pytest.mark.starts_processes
def test_a_frame_that_does_not_fit_is_taken_back_and_the_segment_goes_on(tmp_path: Path) -> None:
    """The limit on file sizes stands for a full disk: a write comes back short, the next one fails."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_fill_up, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    (path,) = segments_in(tmp_path)
    segment = read_segment(path, PLAIN)
    assert segment is not None
    assert segment.torn_bytes == 0
    assert [record["n"] for record in segment.records()] == [*range(segment.rows - 1), "small"]


def _fill_up(folder: Path) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    writer = SegmentWriter(folder, header(), PLAIN)
    with pytest.raises(OSError, match="too large") as full:
        _append_until_it_fails(writer)
    assert full.value.errno == errno.EFBIG
    assert not writer.broken
    writer.append([to_json({"n": "small"})])


def _append_until_it_fails(writer: SegmentWriter) -> None:
    while True:
        writer.append([to_json({"n": writer.rows, "filler": "x" * 3_000})])


class Encrypted:
    """As a user would bring it."""

    def __init__(self) -> None:
        self._fernet = Fernet(Fernet.generate_key())

    def encode(self, payload: bytes) -> bytes:
        return self._fernet.encrypt(payload)

    def decode(self, payload: bytes) -> bytes:
        return self._fernet.decrypt(payload)


def test_an_encrypted_log_shows_nothing_and_is_read_with_its_key_only(tmp_path: Path) -> None:
    codec = Encrypted()
    writer = SegmentWriter(tmp_path, header(), codec)
    writer.append([b'{"customer":"4711"}', b'{"customer":"4712"}'])
    writer.close()
    assert b"4711" not in writer.path.read_bytes()
    segment = read_segment(writer.path, codec)
    assert segment is not None
    assert tuple(segment.lines()) == (b'{"customer":"4711"}', b'{"customer":"4712"}')
    with pytest.raises(DecisionLogError, match="cannot be decoded: InvalidToken"):
        read_segment(writer.path, Encrypted())


def test_the_zeros_ahead_of_a_killed_process_are_a_torn_tail_and_hide_nothing(
    tmp_path: Path,
) -> None:
    """They are on the disk before the frames that take their place; damage among them is still seen."""
    writer = SegmentWriter(tmp_path, header(), PLAIN)
    for number in range(3):
        writer.append([to_json({"n": number, "filler": "x" * 100_000})])
    content = writer.path.read_bytes()
    assert len(content) % AHEAD_BYTES == 0
    assert not any(content[writer.size :])
    name = writer.header.name
    for row, there in ((2, True), (3, False)):
        assert (find_record([tmp_path], PLAIN, DAY, name, row) is not None) is there
    read = read_segment(writer.path, PLAIN)
    assert read is not None
    assert (read.good_bytes, read.torn_bytes) == (writer.size, len(content) - writer.size)
    writer.close()
    assert writer.path.read_bytes() == content[: writer.size]

    writer.path.write_bytes(content)  # as a crash leaves it
    cut_torn_tail(read)
    assert writer.path.read_bytes() == content[: writer.size]
    writer.path.write_bytes(content + make_frame(b"{}"))
    with pytest.raises(DecisionLogError, match=f"was damaged at byte {writer.size}"):
        find_record([tmp_path], PLAIN, DAY, name, 3)


def test_a_decision_is_found_where_its_segment_is_by_now(tmp_path: Path) -> None:
    path, _ = written(tmp_path / "open", [[b'{"n":0}'], [b'{"n":1}', b'{"n":2}']])
    name = path.stem[11:]
    folders = (tmp_path / "open", tmp_path / "sealed")
    for _ in range(2):
        found = find_record(folders, PLAIN, DAY, name, 2)
        assert found is not None
        assert found[1] == b'{"n":2}'
        assert find_record(folders, PLAIN, DAY, name, 3) is None
        assert find_record(folders, PLAIN, DAY, new_name(), 0) is None
        (tmp_path / "sealed").mkdir(exist_ok=True)
        if path.exists():
            path.rename(tmp_path / "sealed" / path.name)


def test_the_frame_is_what_the_documentation_says() -> None:
    """Somebody may have to read a log without this program."""
    assert make_frame(b"abc") == b"@%08x 0000000003\nabc\n" % zlib.crc32(b"abc")
