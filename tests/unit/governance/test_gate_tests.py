"""The gate's tests one by one: what each lets through, what it stops, and that what is no number never passes."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from creditrisk_assets.decisions.shadow import ShadowScores
from creditrisk_assets.governance import gate_tests
from creditrisk_assets.governance.gate_tests import (
    COMPARISONS,
    NOT_FOR_A_RECALIBRATION,
    RECALIBRATION_COMPARISONS,
    Comparison,
    compare,
    shadow_agrees,
)
from creditrisk_assets.governance.verdict import GateTest
from creditrisk_assets.modelling.fairness import Grouping
from creditrisk_assets.modelling.metrics import SMALLEST_PD, row_log_loss
from creditrisk_assets.policy import GateLimits
from creditrisk_assets.scoring.bundle import Scores
from tests.support.examples import logistic

LIMITS = GateLimits()
FloatArray = NDArray[np.float64]


def answers(log_odds: FloatArray, cut_off: float = 0.3) -> Scores:
    probability = logistic(log_odds)
    return Scores(probability, -log_odds, (probability >= cut_off).astype(np.int8))


def comparison(
    challenger_noise: float, champion_noise: float, rows: int = 4_000, seed: int = 1
) -> Comparison:
    """Two noisy views of the true log-odds of the outcomes, as good as their noise is small; two groups by a coin."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1.3, 1.2, rows)
    target = (rng.random(rows) < logistic(truth)).astype(np.int64)
    new, old = (
        truth + noise * rng.normal(size=rows) for noise in (challenger_noise, champion_noise)
    )
    return Comparison(
        target,
        answers(new),
        answers(old),
        {"group": Grouping(("left", "right"), rng.integers(0, 2, rows))},
    )


def result(name: str, on: Comparison, limits: GateLimits = LIMITS) -> GateTest:
    return COMPARISONS[name](on, limits)


def failed(on: Comparison, limits: GateLimits = LIMITS) -> list[str]:
    return [test.name for test in compare(on, limits) if not test.passed]


def test_a_better_challenger_passes_every_test() -> None:
    assert failed(comparison(0.0, 1.0)) == []


def test_a_model_against_itself_fails_only_by_not_being_better() -> None:
    """A retrain that finds nothing new must not move the alias; a standard error of zero must not become certainty."""
    same = comparison(0.5, 0.5)
    assert failed(dataclasses.replace(same, champion=same.challenger)) == ["ranks_better"]


def test_a_worse_challenger_is_told_from_one_that_is_merely_not_better() -> None:
    assert {"ranks_no_worse", "ranks_better"} <= set(failed(comparison(1.5, 0.0)))
    assert failed(comparison(0.02, 0.0, rows=20_000)) == ["ranks_better"]


@given(st.integers(0, 10_000), st.floats(0, 2), st.floats(0, 2), st.integers(150, 600))
def test_who_ranks_better_passes_only_with_a_gain_that_is_large_enough_and_beyond_chance(
    seed: int, new: float, old: float, rows: int
) -> None:
    """Swapping the sides turns the gain round, so both can never pass; and what is better is never told to be worse."""
    one = comparison(new, old, rows, seed)
    other = dataclasses.replace(one, challenger=one.champion, champion=one.challenger)
    better, worse = result("ranks_better", one), result("ranks_better", other)
    assert better.observed == pytest.approx(-(worse.observed or 0.0), abs=1e-12)
    assert not (better.passed and worse.passed)
    assert result("ranks_no_worse", one).passed or not better.passed
    assert not better.passed or (better.observed or 0) > LIMITS.minimum_gain


def test_a_gain_that_may_be_chance_does_not_pass() -> None:
    """The same pair of models that more rows tell apart."""
    few, many = (result("ranks_better", comparison(0.0, 0.6, rows, 2)) for rows in (250, 20_000))
    assert (few.observed or 0) > LIMITS.minimum_gain
    assert not few.passed
    assert many.passed
    assert "which chance exceeds in 2.5%" in few.sentence


def test_a_certain_gain_below_the_minimum_does_not_pass() -> None:
    on = comparison(0.0, 1.0)
    gain = result("ranks_better", on).observed or 0.0
    passed = [
        result("ranks_better", on, LIMITS.model_copy(update={"minimum_gain": gain + by})).passed
        for by in (-1e-6, 1e-6)
    ]
    assert passed == [True, False]


def test_a_stricter_alpha_stops_what_a_looser_one_lets_through() -> None:
    on = comparison(0.0, 0.6, 600, 4)
    limits = [LIMITS.model_copy(update={"alpha": alpha}) for alpha in (0.49, 1e-9)]
    assert [result("ranks_better", on, one).passed for one in limits] == [True, False]


@pytest.mark.parametrize("name", ["brier_is_no_worse", "log_loss_is_no_worse"])
def test_a_challenger_that_ranks_alike_and_is_overconfident_has_worse_losses(name: str) -> None:
    one = comparison(0.0, 0.0)
    assert result(name, one).passed
    sharper = dataclasses.replace(
        one, challenger=answers(2.0 * np.log(1 / one.champion.default_probability - 1) * -1)
    )
    assert result("ranks_no_worse", sharper).passed
    assert not result(name, sharper).passed


def test_losses_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import brier_score_loss, log_loss

    on = comparison(0.3, 0.3)
    probability = on.challenger.default_probability
    assert gate_tests.brier_losses(on.target, probability).mean() == pytest.approx(
        brier_score_loss(on.target, probability)
    )
    assert row_log_loss(on.target, probability).mean() == pytest.approx(
        log_loss(on.target, probability)
    )
    assert np.isfinite(row_log_loss(np.array([1, 0]), np.array([0.0, 1.0]))).all()


def test_a_wrong_level_fails_unless_the_champion_s_is_worse_still() -> None:
    """Ranking decides who is declined; the level decides what they are held against."""
    one = comparison(0.0, 0.0)
    shifted = {
        by: answers(
            np.log(one.champion.default_probability / (1 - one.champion.default_probability)) + by
        )
        for by in (0.5, 1)
    }
    for side, champion, passes in ((0.5, None, False), (0.5, 1, True), (1, 0.5, False)):
        judged = dataclasses.replace(
            one,
            challenger=shifted[side],
            champion=one.champion if champion is None else shifted[champion],
        )
        assert result("level_is_right", judged).passed is passes


def test_on_few_rows_a_gap_that_chance_gives_does_not_fail() -> None:
    level = result("level_is_right", comparison(0.0, 0.0, 200, 7))
    assert level.passed
    assert (level.limit or 0) > LIMITS.level_floor


def test_scores_that_are_all_different_fail_and_somewhat_different_ones_ask_for_a_look() -> None:
    one = comparison(0.0, 0.0)
    look, stop = (
        dataclasses.replace(one, challenger=answers(one.champion.score * -1 + by))
        for by in (0.7, 1.5)
    )
    seen = result("judges_alike", look)
    assert (seen.passed, seen.warning) == (True, True)
    assert "worth a look" in seen.sentence
    assert not result("judges_alike", stop).passed


def test_an_approval_rate_that_swings_either_way_fails() -> None:
    one = comparison(0.0, 0.0)
    for cut_off in (0.12, 0.9):
        swung = result(
            "approval_rate_holds",
            dataclasses.replace(one, challenger=answers(-one.champion.score, cut_off)),
        )
        assert not swung.passed
        assert (swung.observed or 0) > LIMITS.swing_limit
    assert result("approval_rate_holds", one).passed


def biased(on: Comparison, by: float) -> Scores:
    return answers(-on.champion.score + np.where(on.groups["group"].place == 0, by, 0.0))


def test_fairness_stops_a_fall_below_the_line_and_not_what_was_below_before() -> None:
    one = comparison(0.0, 0.0)
    fallen = result("fairness_holds", dataclasses.replace(one, challenger=biased(one, 1.5)))
    assert not fallen.passed
    assert "group must not fall below 0.8" in fallen.sentence
    assert (fallen.observed or 1) < 0.8
    before = result(
        "fairness_holds",
        dataclasses.replace(one, challenger=biased(one, 1.5), champion=biased(one, 1.6)),
    )
    assert (before.passed, before.warning) == (True, True)
    assert result("fairness_holds", one).passed


def test_groups_that_are_too_small_are_not_compared() -> None:
    one = comparison(0.0, 0.0)
    few = Grouping(("left", "right"), np.where(np.arange(len(one.target)) < 20, 0, 1))
    assert result("fairness_holds", dataclasses.replace(one, groups={"group": few})).sentence == (
        "no two groups are large enough to compare"
    )


def test_a_test_that_crashes_has_failed_with_the_error_s_words() -> None:
    """Seen elsewhere: "missing; continuing without check"."""
    on = dataclasses.replace(
        comparison(0.0, 1.0), groups={"group": Grouping(("left", "right"), np.arange(400) % 2)}
    )
    results = {test.name: test for test in compare(on, LIMITS)}
    assert not results["fairness_holds"].passed
    assert results["fairness_holds"].sentence.startswith(
        "fairness_holds could not be tested: ValueError: "
    )
    assert results["ranks_better"].passed


@pytest.mark.parametrize(
    "name",
    [
        "ranks_better",
        "ranks_no_worse",
        "brier_is_no_worse",
        "log_loss_is_no_worse",
        "level_is_right",
    ],
)
def test_pds_that_are_no_numbers_pass_no_test_of_quality(name: str) -> None:
    one = comparison(0.0, 1.0)
    spoiled = one.challenger.default_probability.copy()
    spoiled[5] = np.nan
    on = dataclasses.replace(
        one, challenger=dataclasses.replace(one.challenger, default_probability=spoiled)
    )
    assert name in failed(on)


def recalibrations(
    true_shift: float,
    true_slope: float,
    shift: float,
    slope: float = 1.0,
    rows: int = 4_000,
    seed: int = 1,
) -> Comparison:
    """The champion's log-odds, outcomes on one line of them, a challenger on another with its cut-off at the champion's place."""
    rng = np.random.default_rng(seed)
    old = rng.normal(-1.3, 1.2, rows)
    target = (rng.random(rows) < logistic(true_shift + true_slope * old)).astype(np.int64)
    moved = float(logistic(np.array([shift + slope * np.log(0.3 / 0.7)]))[0])
    groups = {"group": Grouping(("left", "right"), rng.integers(0, 2, rows))}
    return Comparison(target, answers(shift + slope * old, moved - 1e-12), answers(old), groups)


def failed_recalibration(on: Comparison, limits: GateLimits = LIMITS) -> list[str]:
    return [test.name for test in compare(on, limits, recalibration=True) if not test.passed]


def test_a_recalibration_is_put_to_its_own_tests_and_every_other_one_has_a_reason() -> None:
    assert set(NOT_FOR_A_RECALIBRATION) == set(COMPARISONS) - set(RECALIBRATION_COMPARISONS)
    assert [
        test.name for test in compare(recalibrations(0.7, 1, 0.7), LIMITS, recalibration=True)
    ] == [*RECALIBRATION_COMPARISONS]


@pytest.mark.parametrize(("shift", "slope"), [(0.7, 1.0), (-0.7, 1.0), (-0.4, 0.6)])
def test_the_right_line_passes_where_the_champion_s_is_wrong(shift: float, slope: float) -> None:
    assert failed_recalibration(recalibrations(shift, slope, shift, slope)) == []


def test_a_right_champion_is_not_replaced_by_itself_nor_by_a_line_that_was_fitted_to_noise() -> (
    None
):
    assert failed_recalibration(recalibrations(0, 1, 0)) == [
        "champion_is_miscalibrated",
        "likelihood_is_greater",
    ]
    assert {"champion_is_miscalibrated", "likelihood_is_greater"} <= set(
        failed_recalibration(recalibrations(0, 1, 0.15))
    )


@given(
    st.lists(st.floats(-6, 6), min_size=6, max_size=6),
    st.floats(-5, 5),
    st.floats(0.1, 5),
    st.floats(0.001, 0.499),
)
def test_the_likelihood_ratio_of_a_right_champion_is_expected_to_be_1_and_seldom_passes_whatever_the_line(
    log_odds: list[float], shift: float, slope: float, alpha: float
) -> None:
    """Exactly, over all outcomes that six customers may have: Markov's inequality needs no large numbers."""
    old = np.array(log_odds)
    challenger, champion = answers(shift + slope * old), answers(old)
    limits = LIMITS.model_copy(update={"alpha": alpha})
    expected, passing = 0.0, 0.0
    for outcomes in itertools.product((0, 1), repeat=len(old)):
        target = np.array(outcomes)
        chance = float(np.where(target == 1, logistic(old), logistic(-old)).prod())
        test = RECALIBRATION_COMPARISONS["likelihood_is_greater"](
            Comparison(target, challenger, champion, {}), limits
        )
        assert test.observed is not None
        expected += chance * float(np.exp(test.observed))
        passing += chance * test.passed
    assert expected == pytest.approx(1)
    assert passing <= alpha


def test_a_likelihood_has_to_be_greater_by_the_factor_and_not_only_greater() -> None:
    """Half the bads that the champion expects, on 50 rows of one PD and then on 400: the ratio by hand."""
    for rows, passes in ((50, False), (400, True)):
        target = np.repeat([1, 0], [rows // 10, rows - rows // 10])
        new, old = (answers(np.full(rows, np.log(odds))) for odds in (1 / 9, 1 / 4))
        test = RECALIBRATION_COMPARISONS["likelihood_is_greater"](
            Comparison(target, new, old, {}), LIMITS
        )
        by_hand = rows * (0.1 * np.log(0.1 / 0.2) + 0.9 * np.log(0.9 / 0.8))
        assert test.observed == pytest.approx(by_hand)
        assert test.passed is passes
        assert test.limit == pytest.approx(np.log(40))
        assert "a ratio of 40" in test.sentence
        assert by_hand > 0


def test_outcomes_that_the_champion_held_impossible_are_finite_and_speak_for_the_challenger() -> (
    None
):
    certain = Scores(np.array([0.0, 1.0, 0.5]), np.zeros(3), np.zeros(3, dtype=np.int8))
    doubting = Scores(np.array([0.01, 0.99, 0.5]), np.zeros(3), np.zeros(3, dtype=np.int8))
    target = np.array([1, 0, 1])
    for new, old, sign in ((doubting, certain, 1), (certain, doubting, -1)):
        test = RECALIBRATION_COMPARISONS["likelihood_is_greater"](
            Comparison(target, new, old, {}), LIMITS
        )
        assert test.observed == pytest.approx(sign * 2 * np.log(0.01 / SMALLEST_PD))
        assert test.passed is (sign > 0)


def test_a_line_that_goes_too_far_or_the_wrong_way_is_kept_out() -> None:
    assert {"likelihood_is_greater", "level_holds"} <= set(
        failed_recalibration(recalibrations(0.5, 1, 1.4))
    )
    assert {"likelihood_is_greater", "level_holds"} <= set(
        failed_recalibration(recalibrations(0.5, 1, -0.5))
    )


def test_a_level_that_is_still_wrong_is_not_excused_by_the_champion_s() -> None:
    """Half of a large gap is mended: the refit's test would let it through, a recalibration's does not."""
    half = recalibrations(1.4, 1, 0.7)
    assert result("level_is_right", half).passed
    assert failed_recalibration(half) == ["level_holds"]


def test_pds_that_are_too_bold_at_the_right_level_are_found() -> None:
    level = float(logistic(np.random.default_rng(1).normal(-1.3, 1.2, 200_000)).mean())
    shifts = np.linspace(-1, 1, 2_001)
    old = np.random.default_rng(2).normal(-1.3, 1.2, 20_000)
    shift = float(
        shifts[np.argmin([abs(logistic(by + 0.6 * old).mean() - level) for by in shifts])]
    )
    on = recalibrations(shift, 0.6, shift, 0.6)
    assert abs(on.champion.default_probability.mean() - on.target.mean()) < LIMITS.level_floor
    assert failed_recalibration(on) == []


@given(st.integers(0, 10_000), st.floats(-2, 2), st.floats(0.3, 3))
def test_any_rising_line_ranks_identically_and_one_exchange_does_not(
    seed: int, shift: float, slope: float
) -> None:
    on = recalibrations(0, 1, shift, slope, rows=300, seed=seed)
    ranks = RECALIBRATION_COMPARISONS["ranks_identically"]
    assert ranks(on, LIMITS).passed
    assert RECALIBRATION_COMPARISONS["approval_rate_holds"](on, LIMITS).observed == 0
    exchanged = on.challenger.default_probability.copy()
    exchanged[[0, 1]] = exchanged[[1, 0]]
    moved = ranks(
        dataclasses.replace(
            on, challenger=dataclasses.replace(on.challenger, default_probability=exchanged)
        ),
        LIMITS,
    )
    assert not moved.passed
    assert moved.observed == 2


def test_a_tie_that_the_champion_does_not_have_is_another_order() -> None:
    on = recalibrations(0.7, 1, 0.7)
    tied = on.challenger.default_probability.copy()
    order = np.argsort(tied)
    tied[order[10]] = tied[order[11]]
    spoiled = dataclasses.replace(
        on, challenger=dataclasses.replace(on.challenger, default_probability=tied)
    )
    assert failed_recalibration(spoiled) == ["ranks_identically"]


def test_a_stricter_alpha_stops_a_recalibration_that_a_looser_one_lets_through() -> None:
    on = recalibrations(0.25, 1, 0.25, rows=1_500)
    limits = [LIMITS.model_copy(update={"alpha": alpha}) for alpha in (0.4, 1e-12)]
    loose, strict = (failed_recalibration(on, one) for one in limits)
    assert "likelihood_is_greater" not in loose
    assert {"champion_is_miscalibrated", "likelihood_is_greater"} <= set(strict)


@pytest.mark.parametrize("side", ["challenger", "champion"])
def test_pds_that_are_no_numbers_pass_no_test_of_a_recalibration_s_quality(side: str) -> None:
    one = recalibrations(0.7, 1, 0.7)
    scores: Scores = getattr(one, side)
    spoiled = scores.default_probability.copy()
    spoiled[5] = np.nan
    odd = dataclasses.replace(scores, default_probability=spoiled)
    on = (
        dataclasses.replace(one, challenger=odd)
        if side == "challenger"
        else dataclasses.replace(one, champion=odd)
    )
    wanted = {
        "ranks_identically",
        "likelihood_is_greater",
        "level_holds" if side == "challenger" else "champion_is_miscalibrated",
    }
    assert wanted <= set(failed_recalibration(on))


def test_shadowed_customers_of_a_recalibration_must_be_in_the_champion_s_order_and_may_have_other_pds() -> (
    None
):
    old = np.random.default_rng(1).normal(-1.3, 1.0, 3_000)
    shifted, mixed = logistic(old + 2.5), logistic(old[::-1] + 0.1)
    days = ("2026-03-01",)
    for pds, as_refit, as_recalibration in ((shifted, False, True), (mixed, True, False)):
        shadow = ShadowScores(days=days, rows=3_000, champion=logistic(old), challenger=pds)
        assert shadow_agrees(shadow, LIMITS).passed is as_refit
        assert shadow_agrees(shadow, LIMITS, recalibration=True).passed is as_recalibration
    unsound = ShadowScores(days=days, rows=3_001, champion=logistic(old), challenger=shifted)
    assert not shadow_agrees(unsound, LIMITS, recalibration=True).passed
