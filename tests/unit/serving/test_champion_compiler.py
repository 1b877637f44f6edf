"""The code of a champion: compiled in the background when it is worth it, and refused when wrong."""

import asyncio
import time
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from creditrisk_assets.decisions.codec import PLAIN
from creditrisk_assets.decisions.idempotency import IdempotencyIndex
from creditrisk_assets.decisions.writer import DecisionLog
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Bundle, DecisionRule
from creditrisk_assets.scoring.compiled.kernel import ExplainedDecisions, Kernel, Rows
from creditrisk_assets.scoring.runtime import Runtime
from serving.inference.champion_compiler import WORTH_CUSTOMERS, ChampionCompiler
from serving.inference.champion_file import ChampionFile
from serving.inference.champion_holder import ChampionHolder, LoadedChampion
from serving.inference.decider import Decider, DecisionRequest, Group
from tests.support.examples import FloatMatrix
from tests.support.holders import loaded
from tests.support.waiting import until


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache") / "objects"


@pytest.fixture(scope="module")
def compiled(bundle: Bundle, cache: Path) -> Runtime:
    return Runtime.compiled(bundle, bundle.manifest.rule, cache)


class Heard:
    """Notes the runtimes of which a holder tells."""

    def __init__(self) -> None:
        self.runtimes: list[str] = []

    def on_champion(self, champion: LoadedChampion) -> None: ...

    def on_refresh(self, problem: str | None) -> None: ...

    def on_refused(self) -> None: ...

    def on_runtime(self, runtime: Runtime) -> None:
        self.runtimes.append(runtime.name)


def holder_of(champion: LoadedChampion, heard: Heard) -> ChampionHolder:
    holder = ChampionHolder(cast(ChampionFile, None), PORTFOLIO, 1.0, [heard])
    holder.current = champion
    return holder


def group_of(champion: LoadedChampion, raw: FloatMatrix, customers: int) -> Group:
    decisions = champion.bundle.decide(
        np.resize(raw, (customers, raw.shape[1])), champion.record.rule
    )
    return Group(champion, decisions, 0.0, 0.0)


def test_a_champion_of_many_customers_is_compiled_and_one_of_few_is_not(
    bundle: Bundle, raw: FloatMatrix, cache: Path
) -> None:
    heard, champion = Heard(), loaded(bundle)
    holder = holder_of(champion, heard)
    compiler = ChampionCompiler(holder, cache)
    compiler.start()
    try:
        compiler.on_decided(group_of(champion, raw, WORTH_CUSTOMERS - 1))
        time.sleep(0.1)
        assert holder.current is champion
        compiler.on_decided(group_of(champion, raw, 1))
        until(lambda: heard.runtimes == ["compiled"], 60)
    finally:
        compiler.stop()
    current = holder.current
    assert current is not None
    assert (current.record, str(current.runtime)) == (champion.record, "compiled code")
    expected = bundle.decide(raw, champion.record.rule)
    assert np.array_equal(
        current.runtime.decide(raw).default_probability, expected.default_probability
    )


def test_code_of_a_champion_that_was_replaced_meanwhile_is_not_used(
    bundle: Bundle, compiled: Runtime
) -> None:
    heard, champion = Heard(), loaded(bundle)
    holder = holder_of(champion, heard)
    holder.switch_runtime(loaded(bundle).runtime, compiled)
    assert holder.current is champion
    assert heard.runtimes == []


def test_another_cut_off_keeps_the_code_and_another_reference_profile_does_not(
    compiled: Runtime, raw: FloatMatrix
) -> None:
    rule = compiled.rule
    moved = compiled.under(rule.model_copy(update={"cut_off": 0.9}))
    assert (moved.kernel, moved.decide(raw).prediction.tolist()) == (
        compiled.kernel,
        (compiled.decide(raw).default_probability >= 0.9).astype(int).tolist(),
    )
    elsewhere = compiled.under(DecisionRule(cut_off=rule.cut_off, reference=raw[0].tolist()))
    assert (elsewhere.kernel, elsewhere.may_be_compiled) == (None, True)


class Wrong(Kernel):
    """Code with an error in the last bit."""

    def decide(self, rows: Rows, rule: DecisionRule) -> ExplainedDecisions:
        found = super().decide(rows, rule)
        found.default_probability[:] = np.nextafter(found.default_probability, 1)
        return found


def test_a_wrong_decision_of_code_is_made_by_the_graphs_before_it_is_answered(
    bundle: Bundle, compiled: Runtime, tmp_path: Path
) -> None:
    """The first decision of a runtime is compared. The answer, and all after it, are the graphs'; the log says which decided."""
    assert compiled.kernel is not None
    heard, graphs = Heard(), loaded(bundle)
    wrong = Runtime(bundle, compiled.rule, Wrong(**vars(compiled.kernel)))
    holder = holder_of(LoadedChampion(graphs.record, wrong), heard)
    logs = [
        DecisionLog(tmp_path / "open", PORTFOLIO.name, PLAIN, 1 << 20, 3_600, keyed=keyed)
        for keyed in (False, True)
    ]
    index = IdempotencyIndex(tmp_path / "keys.db", tmp_path / "open", PLAIN)
    compiler = ChampionCompiler(holder, tmp_path / "cache")
    decider = Decider(holder, logs[0], logs[1], index, [compiler])

    async def ask() -> list[bytes]:
        decider.start()
        request = DecisionRequest([dict(PORTFOLIO.example)], "bank", "1", time.perf_counter())
        answers = await decider.decide(request) + await decider.decide(request)
        decider.stop()
        return answers

    answers = asyncio.run(ask())
    raw = bundle.encoder([dict(PORTFOLIO.example)])
    probability = bundle.decide(raw, compiled.rule).default_probability[0]
    assert all(
        b'"default_probability":%b,' % repr(float(probability)).encode() in one for one in answers
    )
    assert heard.runtimes == ["onnxruntime"]
    assert holder.current is not None
    assert not holder.current.runtime.may_be_compiled
    assert "differ in default_probability" in str(holder.current.runtime)
    (segment,) = (tmp_path / "open").glob("*.log")
    assert segment.read_bytes().count(b'"runtime":"onnxruntime"') == 2
