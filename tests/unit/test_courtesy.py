"""Threads with many rows stay away while something that has come is answered, and get on all the same."""

import threading
import time

from serving.courtesy import Courtesy


def rows_done(courtesy: Courtesy, seconds: float, coming: float | None) -> int:
    """How many rows of half a millisecond a thread gets done while something comes each `coming` seconds, or nothing."""
    done, over = 0, threading.Event()

    def work() -> None:
        nonlocal done
        while not over.is_set():
            courtesy.give_way()
            end = time.perf_counter() + 0.0005
            while time.perf_counter() < end:
                pass
            done += 1

    thread = threading.Thread(target=work)
    thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if coming is not None:
            courtesy.came()
        time.sleep(coming or seconds)
    over.set()
    thread.join()
    return done


def test_who_has_waited_for_nobody_does_not_wait() -> None:
    start = time.perf_counter()
    assert list(Courtesy(answer_seconds=5).between(range(1_000))) == list(range(1_000))
    assert time.perf_counter() - start < 1


def test_after_something_has_come_the_next_row_waits_until_it_is_answered() -> None:
    courtesy = Courtesy(answer_seconds=0.05, patience_seconds=5)
    courtesy.came()
    start = time.perf_counter()
    courtesy.give_way()
    assert 0.03 < time.perf_counter() - start < 1


def test_where_requests_never_cease_work_goes_on_for_as_long_as_it_has_waited() -> None:
    """Callers who keep the API busy must not stop a batch for ever, nor the other way round."""
    free, pressed = (rows_done(Courtesy(0.02, 0.02), 1.5, coming) for coming in (None, 0.001))
    assert 0.2 * free < pressed < 0.8 * free


def test_patience_has_an_end() -> None:
    courtesy = Courtesy(answer_seconds=60, patience_seconds=0.05)
    courtesy.came()
    start = time.perf_counter()
    courtesy.give_way()
    waited = time.perf_counter() - start
    courtesy.give_way()  # at once: it has a turn as long as what it has waited for
    assert 0.03 < waited < 1
    assert time.perf_counter() - start < waited + 0.04
