"""The order in which a decision is made, kept, told and watched."""

import asyncio
import time
from pathlib import Path
from typing import cast

import pytest
from starlette.requests import Request
from starlette.types import Message

from creditrisk_assets.decisions.codec import PLAIN
from creditrisk_assets.decisions.idempotency import IdempotencyIndex
from creditrisk_assets.decisions.log import segments_in
from creditrisk_assets.decisions.writer import DecisionLog, LogUnwritable
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Bundle
from serving.http.batch import BatchHandler
from serving.http.schemas import RecordReader, request_model
from serving.inference.champion_holder import ChampionHolder
from serving.inference.decider import Decider, DecisionRequest, Group
from tests.support.holders import Holding, loaded


class Watching:
    """Notes when it is told."""

    def __init__(self, order: list[str]) -> None:
        self._order = order

    def on_decided(self, group: Group) -> None:
        """Of a group."""
        self._order.append(f"{len(group.decisions.prediction)} watched")

    def on_not_written(self) -> None:
        """Of a group, or a batch's body, that was not written."""
        self._order.append("not written")


def decider_of(
    bundle: Bundle, folder: Path, order: list[str], segment_seconds: float = 3_600
) -> Decider:
    """A decider with its logs in a folder, and what it tells."""
    logs = [
        DecisionLog(folder / "open", PORTFOLIO.name, PLAIN, 1 << 20, segment_seconds, keyed=keyed)
        for keyed in (False, True)
    ]
    holder = cast(ChampionHolder, Holding(loaded(bundle)))
    index = IdempotencyIndex(folder / "keys.db", folder / "open", PLAIN)
    return Decider(holder, logs[0], logs[1], index, [Watching(order)])


@pytest.mark.parametrize("together", [1, 3])
def test_answers_leave_before_anybody_watches(
    bundle: Bundle, tmp_path: Path, together: int
) -> None:
    """Who counts and who shadows must not keep those waiting who asked."""
    order: list[str] = []
    decider = decider_of(bundle, tmp_path, order)

    async def ask() -> None:
        await decider.decide(
            DecisionRequest([dict(PORTFOLIO.example)], "bank", "1", time.perf_counter())
        )
        order.append("told")

    async def all_ask() -> None:
        decider.start()
        await asyncio.gather(*(ask() for _ in range(together)))
        await asyncio.sleep(0)
        decider.stop()

    asyncio.run(all_ask())
    assert order == [*["told"] * together, f"{together} watched"]


def test_a_batch_whose_body_cannot_be_written_counts_as_not_written(
    bundle: Bundle, tmp_path: Path
) -> None:
    """On a full disk batches end before they reach the log. An API that is only asked for batches
    then raised the alert of any failure, not that of the log.
    """
    order: list[str] = []
    (tmp_path / "file").touch()
    read = RecordReader(PORTFOLIO, request_model(PORTFOLIO))
    handler = BatchHandler(
        decider_of(bundle, tmp_path, order), PORTFOLIO, read, 10, tmp_path / "file" / "run"
    )

    async def body() -> Message:
        return {"type": "http.request", "body": b"[]", "more_body": False}

    head = [(b"content-type", b"application/json")]
    request = Request({"type": "http", "method": "POST", "headers": head}, body)
    with pytest.raises(LogUnwritable, match="Not a directory"):
        asyncio.run(handler.answer(request, None))
    assert order == ["not written"]


@pytest.mark.parametrize("key", [None, "key"])
def test_segments_are_finished_by_their_age_while_requests_never_cease(
    bundle: Bundle, tmp_path: Path, key: str | None
) -> None:
    """Their age was looked at only after a second without a request: a busy API kept its decisions
    on its own disk until a segment was full.
    """
    decider = decider_of(bundle, tmp_path, [], segment_seconds=0.1)

    async def ask() -> None:
        decider.start()
        ends, number = time.monotonic() + 4, 0
        while time.monotonic() < ends:
            number += 1
            own = None if key is None else f"{key}-{number}"
            customer = dict(PORTFOLIO.example)
            await decider.decide(DecisionRequest([customer], "bank", "1", time.perf_counter(), own))
            await asyncio.sleep(0.02)
        decider.stop()

    asyncio.run(ask())
    assert len(segments_in(tmp_path / "open")) > 1
