"""Shadow scores: stored decisions, scored by a challenger, and the gate's test of them."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from creditrisk_assets.decisions.archive import decision_table
from creditrisk_assets.decisions.log import SegmentHeader
from creditrisk_assets.decisions.sets import DecisionSet, store_set
from creditrisk_assets.decisions.shadow import ShadowScores, shadow_scores
from creditrisk_assets.governance.gate_tests import NO_SHADOW, shadow_agrees
from creditrisk_assets.governance.promotion_gate import judge
from creditrisk_assets.policy import GateLimits
from creditrisk_assets.scoring.bundle import Bundle
from tests.support.examples import HANDMADE, WrittenBundle, champion_of, held_out, written_bundle

LIMITS = GateLimits()
DAY, EARLIER = "2026-03-01", "2026-02-27"
ROWS: list[dict[str, Any]] = [
    {str(name): value for name, value in row.items()}
    for row in held_out(400, 3)[HANDMADE.field_names].to_dict("records")
]


@pytest.fixture
def champion(tmp_path: Path) -> WrittenBundle:
    return written_bundle(tmp_path / "champion", 1, held_out(2_000), version="1")


@pytest.fixture
def challenger(tmp_path: Path) -> WrittenBundle:
    return written_bundle(tmp_path / "challenger", 0, held_out(2_000), version="2")


@pytest.fixture
def decisions(tmp_path: Path) -> Path:
    return tmp_path / "decisions"


def probabilities(bundle: WrittenBundle) -> list[float]:
    loaded = bundle.load()
    return [float(pd_) for pd_ in loaded.score(loaded.encoder(ROWS)).default_probability]


def decide(decisions: Path, champion: WrittenBundle, day: str, segment: str | None) -> Path:
    """Store the champion's decisions on all rows, by the API or, without a segment, of a file."""
    record = champion_of(champion.load(), champion.version)
    name = segment or "f" * 16
    header = SegmentHeader(
        name=name, day=day, portfolio=HANDMADE.name, champion=record, degraded=False, keyed=True
    )
    answer = (
        b'{"default_probability":%b,"score":600.0,"prediction":0,"reasons":[],"cut_off":0.3,'
        b'"model_version":"1","bundle_sha256":"b","degraded":false}'
    )
    lines = [
        b'{"answer":%b,"customer":%b}'
        % (answer % repr(pd_).encode(), pd.Series(row).to_json(double_precision=15).encode())
        for pd_, row in zip(probabilities(champion), ROWS, strict=True)
    ]
    staged = decisions.with_name("staged.parquet")
    pq.write_table(decision_table(HANDMADE, header, lines), staged)
    digest = hashlib.sha256(staged.read_bytes()).hexdigest()
    decided = DecisionSet(
        day=day,
        batch_sha256=digest,
        champion=record,
        rows=len(ROWS),
        file_sha256=digest,
        segment=segment,
    )
    return Path(str(decisions), day, f"{store_set(decisions, staged, decided).name}.parquet")


def test_a_challenger_scores_the_champion_s_stored_decisions_by_the_api_to_the_bit(
    decisions: Path, champion: WrittenBundle, challenger: WrittenBundle
) -> None:
    assert shadow_scores(decisions, 30, challenger.load(), "1").rows == 0
    decide(decisions, champion, DAY, "0" * 16)
    decide(decisions, champion, EARLIER, "1" * 16)
    decide(decisions, champion, DAY, None)  # a file's decisions are no live traffic
    scores = shadow_scores(decisions, 30, challenger.load(), "1")
    assert (scores.days, scores.rows, scores.failed) == ((EARLIER, DAY), 800, 0)
    assert scores.champion.tolist() == probabilities(champion) * 2
    assert scores.challenger.tolist() == probabilities(challenger) * 2
    test = shadow_agrees(scores, LIMITS)
    assert (test.passed, test.n) == (True, 800)
    assert shadow_scores(decisions, 1, challenger.load(), "1").days == (DAY,)
    assert shadow_scores(decisions, 30, challenger.load(), "7").rows == 0


def test_a_row_without_a_pd_stops_a_challenger(
    decisions: Path,
    champion: WrittenBundle,
    challenger: WrittenBundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decide(decisions, champion, DAY, "0" * 16)
    loaded, score = challenger.load(), Bundle.score

    def spoilt(self: Bundle, raw: Any) -> Any:
        scores = score(self, raw)
        scores.default_probability[8] = np.nan
        return scores

    monkeypatch.setattr(Bundle, "score", spoilt)
    scores = shadow_scores(decisions, 30, loaded, "1")
    assert (scores.rows, scores.failed, len(scores.champion)) == (400, 1, 399)
    test = shadow_agrees(scores, LIMITS)
    assert not test.passed
    assert "it failed on 1 of them, 0 are allowed" in test.sentence


def test_a_challenger_that_cannot_score_at_all_is_stopped(
    decisions: Path,
    champion: WrittenBundle,
    challenger: WrittenBundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decide(decisions, champion, DAY, "0" * 16)

    def broken(self: Bundle, raw: Any) -> Any:
        raise RuntimeError("no such code")

    loaded = challenger.load()
    monkeypatch.setattr(Bundle, "score", broken)
    scores = shadow_scores(decisions, 30, loaded, "1")
    assert (scores.rows, scores.failed) == (400, 400)
    assert not shadow_agrees(scores, LIMITS).passed


def test_records_of_another_contract_are_left_out_and_fields_in_another_order_are_not(
    decisions: Path, champion: WrittenBundle, challenger: WrittenBundle
) -> None:
    decide(decisions, champion, DAY, "0" * 16)
    loaded = challenger.load()
    turned = loaded.manifest.model_copy(update={"inputs": loaded.manifest.inputs[::-1]})
    scores = shadow_scores(decisions, 30, dataclasses.replace(loaded, manifest=turned), "1")
    encoded = np.ascontiguousarray(champion.load().encoder(ROWS)[:, ::-1])
    assert scores.challenger.tolist() == loaded.score(encoded).default_probability.tolist()
    new = loaded.manifest.inputs[0].model_copy(update={"name": "a_field_of_tomorrow"})
    wider = loaded.manifest.model_copy(update={"inputs": [*loaded.manifest.inputs, new]})
    other = dataclasses.replace(loaded, manifest=wider)
    assert shadow_scores(decisions, 30, other, "1").rows == 0


def test_a_challenger_that_judges_live_customers_quite_otherwise_is_stopped_and_chance_is_allowed() -> (
    None
):
    rng = np.random.default_rng(1)
    answered = rng.uniform(0, 1, 1_000)
    far = ShadowScores(days=(DAY,), rows=1_000, champion=answered, challenger=answered * 0.1)
    assert not shadow_agrees(far, LIMITS).passed
    near = dataclasses.replace(far, challenger=np.clip(answered + rng.normal(0, 0.01, 1_000), 0, 1))
    assert shadow_agrees(near, LIMITS).passed
    few = ShadowScores(days=(DAY,), rows=4, champion=answered[:4], challenger=rng.uniform(0, 1, 4))
    assert shadow_agrees(few, LIMITS).passed


def test_the_gate_has_failed_a_challenger_whose_shadow_cannot_be_computed(
    decisions: Path, champion: WrittenBundle, challenger: WrittenBundle
) -> None:
    """Here the stored decisions were changed; a verdict without them would be one without evidence."""

    def verdict() -> Any:
        return judge(
            challenger,
            champion,
            HANDMADE,
            LIMITS,
            None,
            lambda bundle, version: shadow_scores(decisions, 30, bundle, version),
        ).verdict

    assert verdict().not_applied["shadow_agrees"] == NO_SHADOW
    file = decide(decisions, champion, DAY, "0" * 16)
    (sound,) = [test for test in verdict().tests if test.name == "shadow_agrees"]
    assert (sound.passed, sound.n) == (True, len(ROWS))
    with file.open("ab") as changed:
        changed.write(b"x")
    (test,) = [test for test in verdict().tests if test.name == "shadow_agrees"]
    assert not test.passed
    assert "could not be tested: DecisionsError" in test.sentence
    assert verdict().verdict == "rejected"
