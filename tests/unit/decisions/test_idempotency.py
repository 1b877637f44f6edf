"""Idempotency keys: one decision for a key, whoever is asked and whatever has died meanwhile."""

import multiprocessing
import threading
import tracemalloc
from pathlib import Path

import pytest
from pydantic_core import to_json

from creditrisk_assets.decisions.codec import PLAIN
from creditrisk_assets.decisions.idempotency import IdempotencyIndex, StoredAnswer
from creditrisk_assets.decisions.log import SegmentWriter, segments_in
from tests.support.segments import header

ANSWER = {"prediction": 1, "default_probability": 0.1 + 0.2}


def index_in(folder: Path) -> IdempotencyIndex:
    return IdempotencyIndex(folder / "keys.db", folder / "open", PLAIN)


def line(key: str, caller: str = "bank") -> bytes:
    return to_json(
        {
            "at": "now",
            "caller": caller,
            "idempotency": {"key": key, "digest": "d"},
            "answer": ANSWER,
            "customer": {"id": key},
        }
    )


def find(index: IdempotencyIndex, key: str, caller: str = "bank") -> StoredAnswer | None:
    with index.exclusive():
        return index.find(caller, key)


def test_a_key_belongs_to_its_caller(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    with index.exclusive():
        index.add("bank", "k", "d", b"answer")
    assert find(index, "k") == StoredAnswer("d", b"answer")
    assert find(index, "k", "fintech") is None
    assert find(index_in(tmp_path), "k") == StoredAnswer("d", b"answer")


def test_what_was_entered_before_a_failure_does_not_count(tmp_path: Path) -> None:
    index = index_in(tmp_path)

    def fail() -> None:
        with index.exclusive():
            index.add("bank", "k", "d", b"answer")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fail()
    assert find(index, "k") is None


def test_a_key_that_a_dead_process_wrote_but_did_not_enter_is_known_with_the_same_answer(
    tmp_path: Path,
) -> None:
    """Between the disk and the index the process was killed: a retry would decide a second time."""
    index = index_in(tmp_path)
    writer = SegmentWriter(tmp_path / "open", header(), PLAIN)
    writer.append([line("lost"), line("other")])
    assert find(index, "lost") is None  # it is alive: it will enter the key itself
    writer.close()
    assert find(index, "lost") == StoredAnswer("d", to_json(ANSWER))
    assert find(index, "other") == StoredAnswer("d", to_json(ANSWER))
    assert find(index, "never") is None


def test_a_customer_who_writes_like_the_log_enters_no_key(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    writer = SegmentWriter(tmp_path / "open", header(), PLAIN)
    forged = {
        "caller": "bank",
        "answer": ANSWER,
        "customer": {"id": '"idempotency":{"key":"forged","digest":"d"}'},
    }
    writer.append([to_json(forged)])
    writer.close()
    assert find(index, "forged") is None


def test_sealing_enters_the_keys_and_moves_the_segment(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    writer = SegmentWriter(tmp_path / "open", header(), PLAIN)
    writer.append([line("k")])
    assert index.seal(writer.path, tmp_path / "sealed") is None  # somebody writes to it
    writer.close()
    with writer.path.open("ab") as file:
        file.write(b"@torn")
    sealed = index.seal(writer.path, tmp_path / "sealed")
    assert sealed is not None
    assert sealed.path.parent.name == "sealed"
    assert not sealed.path.read_bytes().endswith(b"@torn")
    assert segments_in(tmp_path / "open") == []
    assert find(index, "k") == StoredAnswer("d", to_json(ANSWER))


def test_old_keys_are_forgotten(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    with index.exclusive():
        index.add("bank", "k", "d", b"answer")
    assert index.forget(3_600) == 0
    assert index.forget(-1) == 1
    assert find(index, "k") is None


def _decide_once(folder: Path, keys: list[str], made: "multiprocessing.Queue[str]") -> None:
    index = index_in(folder)
    for key in keys:
        with index.exclusive():
            if index.find("bank", key) is None:
                made.put(key)
                index.add("bank", key, "d", b"answer")


@pytest.mark.starts_processes
def test_of_several_processes_one_decides(tmp_path: Path) -> None:
    index_in(tmp_path).close()
    context = multiprocessing.get_context("spawn")
    made: multiprocessing.Queue[str] = context.Queue()
    keys = [f"key {number}" for number in range(50)]
    processes = [
        context.Process(target=_decide_once, args=(tmp_path, keys, made)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    found = sorted(made.get(timeout=60) for _ in keys)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert found == sorted(keys)
    assert made.empty()


def test_a_damaged_segment_does_not_stop_those_who_ask_for_other_keys(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    writer = SegmentWriter(tmp_path / "open", header(), PLAIN)
    writer.append([line("a")])
    writer.append([line("b")])
    writer.close()
    content = bytearray(writer.path.read_bytes())
    content[30] ^= 1
    writer.path.write_bytes(content)
    assert find(index, "c") is None
    assert writer.path.exists()


def test_threads_wait_for_each_other(tmp_path: Path) -> None:
    one, two = index_in(tmp_path), index_in(tmp_path)
    entered = threading.Event()

    def late() -> None:
        with one.exclusive():
            entered.set()
            one.add("bank", "k", "d", b"answer")

    thread = threading.Thread(target=late)
    with two.exclusive():
        thread.start()
        assert not entered.wait(0.2)
    thread.join()
    assert find(two, "k") == StoredAnswer("d", b"answer")


@pytest.mark.parametrize("keyed", [True, False])
def test_a_large_segment_of_a_dead_process_is_never_held_whole(tmp_path: Path, keyed: bool) -> None:
    """A worker looks through it in the middle of a request."""
    index = index_in(tmp_path)
    writer = SegmentWriter(tmp_path / "open", header().model_copy(update={"keyed": keyed}), PLAIN)
    for number in range(200):
        writer.append([line(f"{number}-{'x' * 40_000}")])
    writer.close()
    assert writer.path.stat().st_size > 10_000_000
    tracemalloc.start()
    assert find(index, "new") is None
    segment = index.seal(writer.path, tmp_path / "sealed")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert segment is not None
    assert segment.rows == 200
    assert most < 1_000_000
    assert (find(index, f"0-{'x' * 40_000}") is not None) is keyed
