"""Threads with many rows stay away while something that has come is answered, and get on all the same."""

import asyncio
import io
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.server import ServerState

from creditrisk_assets.decisions.codec import PLAIN
from creditrisk_assets.decisions.idempotency import IdempotencyIndex
from creditrisk_assets.decisions.writer import DecisionLog
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Bundle
from serving.http import batch, protocol
from serving.http.batch_formats import PIECE_BYTES, json_records
from serving.inference import batch_yield, decider
from serving.inference.batch_yield import BatchYield
from serving.inference.champion_holder import ChampionHolder
from tests.support.holders import Holding, loaded

ROW_SECONDS = 0.0005


class Counting(BatchYield):
    """Counts how often somebody gave way, and how often something came."""

    gave_way = 0
    have_come = 0

    def wait(self) -> None:
        self.gave_way += 1

    def request_arrived(self) -> None:
        self.have_come += 1


def test_whatever_comes_on_a_connection_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting()
    monkeypatch.setattr(protocol, "BATCH_YIELD", counting)

    async def two_pieces() -> None:
        loop = asyncio.get_running_loop()
        config = Config(app=lambda *_: None, http=protocol.GuardedProtocol, ws="none")
        config.load()
        server = await loop.create_server(
            lambda: protocol.GuardedProtocol(config, ServerState(), {}, loop), "127.0.0.1", 0
        )
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for piece in (b"GET / HTT", b"P/1.1\r\n"):
            before = counting.have_come
            writer.write(piece)
            while counting.have_come == before:
                await asyncio.sleep(0.01)
        writer.close()
        server.close()

    asyncio.run(asyncio.wait_for(two_pieces(), 20))
    assert counting.have_come == 2


@pytest.mark.parametrize("rows", [1, 5])
def test_a_thread_that_decides_on_many_gives_way_between_them_and_the_event_loop_never(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    counting = Counting()
    monkeypatch.setattr(decider, "BATCH_YIELD", counting)
    logs = [
        DecisionLog(tmp_path / "open", PORTFOLIO.name, PLAIN, 1 << 20, 3_600, keyed=keyed)
        for keyed in (False, True)
    ]
    holder = cast(ChampionHolder, Holding(loaded(bundle)))
    index = IdempotencyIndex(tmp_path / "keys.db", tmp_path / "open", PLAIN)
    deciding = decider.Decider(holder, logs[0], logs[1], index)

    async def ask() -> None:
        deciding.start()
        await deciding.decide(
            decider.DecisionRequest([dict(PORTFOLIO.example)] * rows, "bank", "1", 0.0)
        )
        deciding.stop()

    asyncio.run(ask())
    assert counting.gave_way == (2 * rows if rows > 1 else 0)


def test_a_batch_gives_way_at_each_piece_that_is_read_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counting = Counting()
    monkeypatch.setattr(batch, "BATCH_YIELD", counting)
    nested = b"[" + b"[],".join([b""] * 9_000) + b"[]]"
    assert len(list(json_records(batch.yielding(io.BytesIO(nested)), PORTFOLIO))) == 9_000
    assert counting.gave_way >= len(nested) / PIECE_BYTES


class Clock:
    """Stands for the module `time` in a thread that works and sleeps, while something comes each `every` seconds, or nothing."""

    def __init__(self, every: float | None = None) -> None:
        self.now = 1_000.0
        self.slept = 0.0
        self._every = every
        self._next = self.now
        self.one: BatchYield | None = None

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
            self.one.request_arrived()
            self._next += self._every
        self.now = end


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(batch_yield, "time", made)
    return made


def test_who_has_nobody_to_wait_for_does_not_wait(clock: Clock) -> None:
    assert list(BatchYield().between(range(1_000))) == list(range(1_000))
    assert clock.slept == 0


def test_after_something_has_come_the_next_row_waits_until_it_is_answered(clock: Clock) -> None:
    one = BatchYield(answer_seconds=0.004, patience_seconds=0.01)
    one.request_arrived()
    clock.passes(0.001)
    one.wait()
    assert clock.slept == pytest.approx(0.003)


def test_patience_has_an_end_and_then_there_is_a_turn_as_long_as_the_wait(clock: Clock) -> None:
    one = BatchYield(answer_seconds=60, patience_seconds=0.01)
    one.request_arrived()
    one.wait()
    assert clock.slept == pytest.approx(0.01)
    clock.passes(0.009)
    one.wait()
    assert clock.slept == pytest.approx(0.01)
    clock.passes(0.002)
    one.wait()
    assert clock.slept == pytest.approx(0.02)


@given(
    every=st.floats(0.0001, 0.05), answer=st.floats(0.0005, 0.02), patience=st.floats(0.001, 0.05)
)
def test_however_much_comes_a_thread_has_half_of_the_time_and_nobody_waits_longer_than_a_turn(
    every: float, answer: float, patience: float
) -> None:
    """Callers who keep the API busy must not stop a batch for ever, nor a batch them."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(every)
        patch.setattr(batch_yield, "time", clock)
        clock.one = BatchYield(answer, patience)
        worked, longest, before = 0.0, 0.0, 0.0
        while clock.now < 1_000.5:
            clock.one.wait()
            longest, before = max(longest, clock.slept - before), clock.slept
            clock.passes(ROW_SECONDS)
            worked += ROW_SECONDS
        assert longest <= patience + 1e-6
        assert worked >= clock.slept - patience - 2 * ROW_SECONDS
