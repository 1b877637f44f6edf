"""Whether a challenger replaces the champion: real bundles in folders, nothing promoted without evidence."""

import dataclasses
import datetime
import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest

from creditrisk_assets.governance.gate_tests import (
    NO_SHADOW,
    NOT_FOR_A_RECALIBRATION,
    RECALIBRATION_COMPARISONS,
)
from creditrisk_assets.governance.promotion_gate import held_out_evidence, judge
from creditrisk_assets.governance.verdict import Verdict
from creditrisk_assets.governance.verdict_page import Occasion, verdict_page, verdict_plots
from creditrisk_assets.modelling.metrics import ranking_and_calibration
from creditrisk_assets.policy import GateLimits
from creditrisk_assets.scoring.bundle import (
    GRAPH,
    HELD_OUT,
    INTERCEPT,
    MANIFEST,
    RECALIBRATION,
    SLOPE,
    Bundle,
    InputField,
    load_bundle,
)
from tests.support.examples import (
    HANDMADE,
    WrittenBundle,
    held_out,
    logistic,
    written_bundle,
)

OCCASION = Occasion(datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC), "drift on 3 days")
LIMITS = GateLimits()
TRUE, NOISY, VERY_NOISY = 0, 1, 2

Make = Callable[..., WrittenBundle]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes bundles, each into a folder of its own."""
    folders = (tmp_path / str(number) for number in itertools.count())

    def write(column: int, rows: pd.DataFrame | None = None, **how: Any) -> WrittenBundle:
        return written_bundle(next(folders), column, held_out() if rows is None else rows, **how)

    return write


def verdict_on(
    challenger: WrittenBundle, champion: WrittenBundle | None, limits: GateLimits = LIMITS
) -> Verdict:
    return judge(challenger, champion, HANDMADE, limits).verdict


def failed(verdict: Verdict) -> list[str]:
    return [test.name for test in verdict.tests if not test.passed]


def test_a_better_challenger_is_promoted_with_the_figures_of_both(make: Make) -> None:
    challenger, champion = make(TRUE, version="2"), make(NOISY)
    judgement = judge(challenger, champion, HANDMADE, LIMITS)
    verdict, rows = judgement.verdict, held_out()
    assert (verdict.verdict, failed(verdict)) == ("promoted", [])
    target = rows["bad"].to_numpy()
    for side, bundle, name in (
        (verdict.challenger, challenger, "challenger"),
        (verdict.champion, champion, "champion"),
    ):
        probability = (
            bundle.load()
            .score(rows[HANDMADE.field_names].to_numpy(dtype=np.float32))
            .default_probability
        )
        assert side is not None
        assert (side.version, side.bundle_sha256) == (bundle.version, bundle.bundle_sha256)
        assert side.figures == ranking_and_calibration(target, probability)
        assert [group.group for field in side.fairness for group in field.groups] == [
            "left",
            "right",
        ]
        assert np.array_equal(judgement.probabilities[name], probability)
    assert "on 4,000 held-out rows of the history" in verdict.reason
    assert f"AUC {verdict.challenger.figures['roc_auc']:.4f} against" in verdict.reason


def test_a_worse_challenger_is_kept_out_and_every_failed_test_is_in_the_reason(make: Make) -> None:
    verdict = verdict_on(make(VERY_NOISY), make(TRUE))
    assert verdict.verdict == "rejected"
    assert {"ranks_no_worse", "ranks_better", "brier_is_no_worse"} <= set(failed(verdict))
    assert all(test.sentence in verdict.reason for test in verdict.tests if not test.passed)


def test_ranking_better_does_not_outweigh_a_wrong_level(make: Make) -> None:
    verdict = verdict_on(make(TRUE, shift=2.5), make(NOISY))
    assert verdict.verdict == "rejected"
    assert "ranks_better" not in failed(verdict)
    assert {"level_is_right", "brier_is_no_worse", "approval_rate_holds"} <= set(failed(verdict))


def test_the_champion_s_own_bundle_is_kept_at_once(make: Make) -> None:
    same = make(TRUE)
    verdict = verdict_on(same, same)
    assert verdict.verdict == "rejected"
    assert verdict.reason == f"the challenger is the champion: both are bundle {same.bundle_sha256}"
    assert (
        failed(verdict) == [test.name for test in verdict.tests] == ["challenger_is_another_model"]
    )


def test_the_first_model_needs_a_valid_bundle_and_evidence_only(make: Make) -> None:
    verdict = verdict_on(make(VERY_NOISY), None)
    assert (verdict.verdict, verdict.champion) == ("first", None)
    assert f"AUC {verdict.challenger.figures['roc_auc']:.4f}" in verdict.reason
    assert [test.name for test in verdict.tests] == [
        "challenger_bundle_is_valid",
        "evidence_is_enough",
        "challenger_scores_every_row",
    ]


@pytest.mark.parametrize("with_champion", [False, True])
@pytest.mark.parametrize(("bads", "goods"), [(49, 500), (500, 49), (0, 500), (0, 0)])
def test_too_few_held_out_bads_or_goods_promote_nobody(
    make: Make, with_champion: bool, bads: int, goods: int
) -> None:
    rows = held_out(bads + goods).assign(bad=np.repeat([1, 0], [bads, goods]))
    verdict = verdict_on(make(TRUE, rows), make(NOISY) if with_champion else None)
    assert verdict.verdict == "rejected"
    assert verdict.reason.startswith(f"{bads} bads and {goods} goods held out (")
    assert verdict.reason.endswith("50 of each needed to judge")
    assert verdict.challenger.figures == {}


def test_as_many_bads_as_needed_are_enough(make: Make) -> None:
    rows = held_out(100).assign(bad=np.repeat([1, 0], 50))
    assert verdict_on(make(TRUE, rows), None).verdict == "first"


@pytest.mark.parametrize("outcome", [None, 2.0])
def test_a_missing_or_strange_outcome_promotes_nobody_and_is_named(
    make: Make, outcome: float | None
) -> None:
    rows = held_out().astype({"bad": "float64"})
    rows.loc[3, "bad"] = outcome
    verdict = verdict_on(make(TRUE, rows), make(NOISY))
    assert (verdict.verdict, failed(verdict)) == ("rejected", ["evidence_is_enough"])
    assert "bad: 1 held-out rows have no outcome" in verdict.reason
    assert "valid: 0 or 1" in verdict.reason


def test_each_side_gets_the_rows_in_its_own_order_and_only_with_its_own_codes(make: Make) -> None:
    """A champion of an older contract would silently be judged on the wrong columns."""
    bundle = make(TRUE).load()
    evidence = held_out_evidence(bundle, HANDMADE)

    def with_inputs(inputs: list[InputField]) -> Bundle:
        return dataclasses.replace(
            bundle, manifest=bundle.manifest.model_copy(update={"inputs": inputs})
        )

    inputs = bundle.manifest.inputs
    assert np.array_equal(evidence.raw_for(with_inputs(inputs[::-1])), evidence.raw[:, ::-1])
    with pytest.raises(ValueError, match="the held-out rows lack income; valid: column_0"):
        evidence.raw_for(with_inputs([*inputs, inputs[0].model_copy(update={"name": "income"})]))
    south, north = (
        inputs[3].model_copy(update={"codes": codes}) for codes in (["s", "n"], ["n", "s"])
    )
    with pytest.raises(ValueError, match=r"group: codes .* are numbered differently"):
        dataclasses.replace(evidence, inputs=[*inputs[:3], north]).raw_for(with_inputs([south]))
    assert dataclasses.replace(evidence, inputs=[*inputs[:3], north]).raw_for(
        with_inputs([north])
    ).shape == (4_000, 1)


def test_evidence_that_is_gone_promotes_nobody(make: Make) -> None:
    challenger = make(TRUE)
    (challenger.location / HELD_OUT).unlink()
    verdict = verdict_on(challenger, make(NOISY))
    assert (verdict.verdict, failed(verdict)) == ("rejected", ["evidence_is_enough"])
    assert "FileNotFoundError" in verdict.reason


def test_a_row_without_a_pd_promotes_nobody(make: Make) -> None:
    """NaN compares false with everything; a gate written the other way round would let it through."""
    rows = held_out()
    rows.loc[7, "column_0"] = np.nan
    verdict = verdict_on(make(TRUE, rows), make(NOISY))
    assert (verdict.verdict, failed(verdict)) == ("rejected", ["challenger_scores_every_row"])
    assert "3,999 of 4,000 rows have a PD between 0 and 1" in verdict.reason


@pytest.mark.parametrize("side", ["challenger", "champion"])
def test_one_changed_byte_of_a_bundle_promotes_nobody(make: Make, side: str) -> None:
    bundles = {"challenger": make(TRUE), "champion": make(NOISY)}
    path = bundles[side].location / MANIFEST
    path.write_text(path.read_text().replace('"cut_off":0.3', '"cut_off":0.4'))
    verdict = verdict_on(bundles["challenger"], bundles["champion"])
    assert (verdict.verdict, failed(verdict)) == ("rejected", [f"{side}_bundle_is_valid"])
    assert "BundleError" in verdict.reason
    assert bundles[side].bundle_sha256 in verdict.reason


def test_a_bundle_whose_graph_is_not_scikit_learn_s_model_is_not_valid(make: Make) -> None:
    verdict = verdict_on(make(TRUE, parity=1e-3), None)
    assert (verdict.verdict, failed(verdict)) == ("rejected", ["challenger_bundle_is_valid"])
    assert "graph and scikit-learn differ by 1.0e-03, at most 1e-05" in verdict.reason


def test_a_broken_graph_is_a_verdict_and_not_a_crash(make: Make) -> None:
    challenger = make(TRUE)
    (challenger.location / GRAPH).write_bytes(b"no graph")
    assert verdict_on(challenger, None).verdict == "rejected"


def test_a_champion_that_followed_production_is_not_judged_by_the_days_before(make: Make) -> None:
    """The job train, run again after a promotion, brings the history's rows; on those the history's model may look better."""
    days = ["2026-05-01", "2026-05-02"]
    champion = make(NOISY, production_days=days)
    for older in ([], days[:1]):
        verdict = verdict_on(make(TRUE, production_days=older), champion)
        assert (verdict.verdict, failed(verdict)) == ("rejected", ["evidence_is_current"])
        assert "the champion has learned up to 2026-05-02" in verdict.reason
    assert verdict_on(make(TRUE, production_days=days), champion).verdict == "promoted"


def test_an_answer_that_takes_too_long_stops_a_challenger_and_its_time_is_not_in_the_document(
    make: Make,
) -> None:
    challenger, champion = make(TRUE), make(NOISY)
    slow = judge(challenger, champion, HANDMADE, LIMITS.model_copy(update={"latency_ms": 1e-6}))
    assert (slow.verdict.verdict, failed(slow.verdict)) == ("rejected", ["answers_in_time"])
    fast = judge(challenger, champion, HANDMADE, LIMITS)
    assert fast.latency_ms is not None
    assert 0 < fast.latency_ms < LIMITS.latency_ms
    assert str(fast.latency_ms) not in fast.verdict.text


def test_the_same_inputs_give_the_same_document_and_any_other_another(make: Make) -> None:
    challenger, champion, other = make(TRUE), make(NOISY), make(TRUE, held_out(4_000, 2))
    first, again = (verdict_on(challenger, champion) for _ in range(2))
    assert first.text == again.text
    assert first.digest == hashlib.sha256(first.text.encode()).hexdigest()
    assert Verdict.model_validate_json(first.text).text == first.text
    others = [
        verdict_on(other, champion),
        verdict_on(challenger, None),
        verdict_on(challenger, champion, LIMITS.model_copy(update={"alpha": 0.01})),
    ]
    assert len({first.digest, *(one.digest for one in others)}) == 4


def test_the_page_shows_every_test_and_the_figures_and_fetches_nothing(make: Make) -> None:
    judgement = judge(make(TRUE, version="<2>"), make(NOISY), HANDMADE, LIMITS)
    plots = verdict_plots(judgement)
    assert set(plots) == {"roc", "calibration", "agreement"}
    page = verdict_page(judgement, plots, HANDMADE.words, OCCASION)
    assert judgement.verdict.digest in page
    assert "2026-06-01 12:00 UTC" in page
    assert "drift on 3 days" in page
    assert f"of {len(judgement.verdict.tests)} tests passed" in page
    assert all(test.name.replace("_", " ") in page for test in judgement.verdict.tests)
    assert page.count("data:image/png;base64,") == 3
    assert "<2>" not in page
    assert "http" not in page


def test_a_verdict_without_a_comparison_has_a_page_too(make: Make) -> None:
    judgement = judge(make(TRUE, held_out(20)), make(NOISY), HANDMADE, LIMITS)
    page = verdict_page(judgement, verdict_plots(judgement), HANDMADE.words, OCCASION)
    assert ">\nrejected</span>" in page
    assert "50 of each needed to judge" in page


def test_the_document_is_json_without_nan(make: Make) -> None:
    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is not JSON")

    json.loads(verdict_on(make(VERY_NOISY), make(TRUE)).text, parse_constant=refuse)


def shifted_customers(shift: float, rows: int = 4_000, seed: int = 5) -> pd.DataFrame:
    """Customers whose outcomes follow the first column plus a shift."""
    frame = held_out(rows, seed)
    chance = logistic(frame["column_0"].to_numpy(dtype=np.float64) + shift)
    return frame.assign(bad=(np.random.default_rng(seed).random(rows) < chance).astype(np.int64))


RECALIBRATED: dict[str, Any] = {
    "kind": RECALIBRATION,
    "shift": 0.7,
    "cut_off": 0.3 / (0.3 + 0.7 * np.exp(-0.7)) - 1e-12,
}


def test_a_better_calibrated_champion_is_promoted_by_the_tests_of_its_kind(make: Make) -> None:
    challenger, champion = (
        make(TRUE, shifted_customers(0.7), version="2", **RECALIBRATED),
        make(TRUE),
    )
    judgement = judge(challenger, champion, HANDMADE, LIMITS)
    verdict = judgement.verdict
    assert (verdict.verdict, failed(verdict), verdict.kind) == ("promoted", [], RECALIBRATION)
    assert verdict.champion is not None
    assert verdict.challenger.figures["roc_auc"] == verdict.champion.figures["roc_auc"]
    assert verdict.reason.startswith("challenger is the champion, better calibrated: mean PD 0.")
    assert [test.name for test in verdict.tests] == [
        "challenger_is_another_model",
        "challenger_bundle_is_valid",
        "evidence_is_enough",
        "challenger_scores_every_row",
        "champion_bundle_is_valid",
        "graph_is_the_champions",
        "evidence_is_current",
        "champion_scores_every_row",
        *RECALIBRATION_COMPARISONS,
        "answers_in_time",
    ]
    assert verdict.not_applied == {
        "shadow_agrees": NO_SHADOW,
        **NOT_FOR_A_RECALIBRATION,
    }
    assert Verdict.model_validate_json(verdict.text) == verdict
    page = verdict_page(judgement, verdict_plots(judgement), HANDMADE.words, OCCASION)
    assert "or if\nanother test is stricter for a recalibration" in page
    rows = [
        f"<td>{name.replace('_', ' ')}</td><td>not applicable</td>" for name in verdict.not_applied
    ]
    assert all(row in page for row in rows)


def test_without_live_traffic_agreement_on_it_is_not_applicable_and_has_not_passed(
    make: Make,
) -> None:
    """It used to say "passed: nothing was shadowed", although what cannot be tested has failed."""
    judgement = judge(make(TRUE, version="2"), make(NOISY), HANDMADE, LIMITS)
    assert judgement.verdict.not_applied == {"shadow_agrees": NO_SHADOW}
    assert "shadow_agrees" not in [test.name for test in judgement.verdict.tests]
    page = verdict_page(judgement, {}, HANDMADE.words, OCCASION)
    assert "<td>shadow agrees</td><td>not applicable</td>" in page
    assert "A test is not applicable if its subject does not exist" in page


def test_a_promotion_says_what_becomes_of_the_cut_off_and_of_the_approval_rate_on_the_same_rows(
    make: Make,
) -> None:
    challenger, champion = make(TRUE, version="2", cut_off=0.25), make(NOISY, cut_off=0.3)
    judgement = judge(challenger, champion, HANDMADE, LIMITS)
    rows = held_out()[HANDMADE.field_names].to_numpy(dtype=np.float32)
    rates = [
        float((one.load().score(rows).prediction == 0).mean()) for one in (champion, challenger)
    ]
    move = judgement.verdict.cut_off
    assert move is not None
    assert (move.by, move.before, move.after) == ("model", 0.3, 0.25)
    assert [move.approval_rate_before, move.approval_rate_after] == rates
    told = "the cut-off moves with the model from PD 0.3000 to 0.2500, and the share not flagged on the same rows goes from "
    assert judgement.verdict.reason.endswith(f"{told}{rates[0]:.1%} to {rates[1]:.1%}")
    page = verdict_page(judgement, {}, HANDMADE.words, OCCASION)
    assert told in page
    assert "creditrisk champion cut-off --pin" in page
    pinned = judge(challenger, champion, HANDMADE, LIMITS, 0.3).verdict
    assert "the cut-off stays at PD 0.3000, by policy" in pinned.reason


def test_a_figure_is_shown_with_the_digits_that_tell_it_from_its_limit(make: Make) -> None:
    judgement = judge(make(TRUE, version="2"), make(NOISY), HANDMADE, LIMITS)
    (swing,) = [test for test in judgement.verdict.tests if test.name == "approval_rate_holds"]
    near = dataclasses.replace(
        judgement,
        verdict=judgement.verdict.model_copy(
            update={"tests": [swing.model_copy(update={"observed": 0.15000001, "limit": 0.15})]}
        ),
    )
    assert '<td class="number">0.15000001</td><td class="number">0.15000000</td>' in verdict_page(
        near, {}, HANDMADE.words, OCCASION
    )


def test_a_right_calibration_is_kept(make: Make) -> None:
    verdict = verdict_on(make(TRUE, shifted_customers(0.0), **RECALIBRATED), make(TRUE))
    assert verdict.verdict == "rejected"
    assert {"likelihood_is_greater", "level_holds"} <= set(failed(verdict))
    same = verdict_on(make(TRUE, shifted_customers(0.0), kind=RECALIBRATION), make(TRUE))
    assert (same.verdict, failed(same)) == (
        "rejected",
        ["champion_is_miscalibrated", "likelihood_is_greater"],
    )


@pytest.mark.parametrize(
    "otherwise",
    [
        {"column": NOISY},
        {"column": TRUE, "slope": -1.0},
        {"column": TRUE, "cut_off": 0.9},
        {"column": VERY_NOISY},
    ],
)
def test_what_says_that_it_is_a_recalibration_and_is_more_is_kept_out(
    make: Make, otherwise: dict[str, Any]
) -> None:
    """The kind decides which tests apply, so a lie about it must not open the gate."""
    how = RECALIBRATED | otherwise
    verdict = verdict_on(make(how.pop("column"), shifted_customers(0.7), **how), make(TRUE))
    assert verdict.verdict == "rejected"
    assert failed(verdict)[0] == (
        "approval_rate_holds" if "cut_off" in otherwise else "graph_is_the_champions"
    )


def test_a_better_model_that_calls_itself_a_recalibration_is_kept_out(make: Make) -> None:
    verdict = verdict_on(make(TRUE, kind=RECALIBRATION), make(NOISY))
    assert (verdict.verdict, failed(verdict)) == ("rejected", ["graph_is_the_champions"])
    assert (
        "model.onnx differs from the champion's in more than slope and intercept" in verdict.reason
    )


def test_a_recalibration_of_nothing_is_no_first_champion(make: Make) -> None:
    verdict = verdict_on(make(TRUE, **RECALIBRATED), None)
    assert (verdict.verdict, failed(verdict)) == ("rejected", ["graph_is_the_champions"])


@pytest.mark.parametrize("side", ["challenger", "champion"])
def test_a_graph_without_named_numbers_cannot_be_compared_and_is_kept_out(
    make: Make, side: str
) -> None:
    bundles = {
        "challenger": make(TRUE, shifted_customers(0.7), **RECALIBRATED),
        "champion": make(TRUE),
    }
    path = bundles[side].location / GRAPH
    model = onnx.load(path)
    for one in model.graph.initializer:
        one.name = f"other_{one.name}"
    for node in model.graph.node:
        node.input[:] = [
            f"other_{name}" if name in (SLOPE, INTERCEPT) else name for name in node.input
        ]
    path.write_bytes(model.SerializeToString(deterministic=True))
    bundles[side] = dataclasses.replace(
        bundles[side], bundle_sha256=load_bundle(str(bundles[side].location)).sha256
    )
    verdict = verdict_on(bundles["challenger"], bundles["champion"])
    assert (verdict.verdict, failed(verdict)) == ("rejected", ["graph_is_the_champions"])
    assert "KeyError" in verdict.reason


def test_a_recalibration_on_too_few_bads_or_old_days_is_kept_out(make: Make) -> None:
    few = shifted_customers(0.7, 400).sort_values("bad").iloc[: 400 - 150].reset_index(drop=True)
    assert failed(verdict_on(make(TRUE, few, **RECALIBRATED), make(TRUE))) == ["evidence_is_enough"]
    newer = make(TRUE, production_days=["2026-05-02"])
    old = make(TRUE, shifted_customers(0.7), production_days=["2026-05-01"], **RECALIBRATED)
    assert failed(verdict_on(old, newer)) == ["evidence_is_current"]
