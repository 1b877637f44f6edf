"""The order in which a decision is made, kept, told and watched."""

import asyncio
import time
from pathlib import Path
from typing import cast

import pytest

from creditrisk_assets.decisions.codec import PLAIN
from creditrisk_assets.decisions.idempotency import IdempotencyIndex
from creditrisk_assets.decisions.writer import DecisionLog
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Bundle
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
        """Of a group that was not written."""
        self._order.append("not written")


@pytest.mark.parametrize("together", [1, 3])
def test_answers_leave_before_anybody_watches(
    bundle: Bundle, tmp_path: Path, together: int
) -> None:
    """Who counts and who shadows must not keep those waiting who asked."""
    order: list[str] = []
    logs = [
        DecisionLog(tmp_path / "open", PORTFOLIO.name, PLAIN, 1 << 20, 3_600, keyed=keyed)
        for keyed in (False, True)
    ]
    holder = cast(ChampionHolder, Holding(loaded(bundle)))
    index = IdempotencyIndex(tmp_path / "keys.db", tmp_path / "open", PLAIN)
    decider = Decider(holder, logs[0], logs[1], index, [Watching(order)])

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
