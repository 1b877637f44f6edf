"""Threads with many rows stay away while something that has come is answered, and get on all the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import courtesy
from serving.courtesy import Courtesy

ROW_SECONDS = 0.0005


class Clock:
    """Stands for the module `time` in a thread that works and sleeps, while something comes each `every` seconds, or nothing."""

    def __init__(self, every: float | None = None) -> None:
        self.now = 1_000.0
        self.slept = 0.0
        self._every = every
        self._next = self.now
        self.one: Courtesy | None = None

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept += seconds
        self.passes(seconds)

    def passes(self, seconds: float) -> None:
        """Time goes on, and what comes meanwhile comes at its own time."""
        end = self.now + seconds
        while self._every is not None and self.one is not None and self._next <= end:
            self.now = self._next
            self.one.came()
            self._next += self._every
        self.now = end


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(courtesy, "time", made)
    return made


def test_who_has_nobody_to_wait_for_does_not_wait(clock: Clock) -> None:
    assert list(Courtesy().between(range(1_000))) == list(range(1_000))
    assert clock.slept == 0


def test_after_something_has_come_the_next_row_waits_until_it_is_answered(clock: Clock) -> None:
    one = Courtesy(answer_seconds=0.004, patience_seconds=0.01)
    one.came()
    clock.passes(0.001)
    one.give_way()
    assert clock.slept == pytest.approx(0.003)


def test_patience_has_an_end_and_then_there_is_a_turn_as_long_as_the_wait(clock: Clock) -> None:
    one = Courtesy(answer_seconds=60, patience_seconds=0.01)
    one.came()
    one.give_way()
    assert clock.slept == pytest.approx(0.01)
    clock.passes(0.009)
    one.give_way()
    assert clock.slept == pytest.approx(0.01)
    clock.passes(0.002)
    one.give_way()
    assert clock.slept == pytest.approx(0.02)


@given(every=st.floats(0.0001, 0.05), answer=st.floats(0.0005, 0.02), patience=st.floats(0.001, 0.05))
def test_however_much_comes_a_thread_has_half_of_the_time_and_nobody_waits_longer_than_a_turn(
    every: float, answer: float, patience: float
) -> None:
    """Callers who keep the API busy must not stop a batch for ever, nor a batch them."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(every)
        patch.setattr(courtesy, "time", clock)
        clock.one = Courtesy(answer, patience)
        worked, longest, before = 0.0, 0.0, 0.0
        while clock.now < 1_000.5:
            clock.one.give_way()
            longest, before = max(longest, clock.slept - before), clock.slept
            clock.passes(ROW_SECONDS)
            worked += ROW_SECONDS
        assert longest <= patience + 1e-6
        assert worked >= clock.slept - patience - 2 * ROW_SECONDS
