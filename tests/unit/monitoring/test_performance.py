"""Matured days against validation: as many false alarms as alpha says, and a real fall is found."""

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from creditrisk_assets.modelling.metrics import (
    auc_gain,
    auc_standard_error,
    ranking_and_calibration,
)
from creditrisk_assets.monitoring.performance import (
    PerformanceTest,
    day_figures,
    decisive_span,
    estimate_accuracy,
    estimate_errors,
    join_outcomes,
    level_test,
    level_tests,
    pool_days,
    ranking_test,
    ranking_tests,
    realised_performance,
    spans_of,
)
from tests.support.examples import logistic

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def drawn(
    rng: np.random.Generator, rows: int, tells: float = 1.0, worse: float = 0.0
) -> tuple[IntArray, FloatArray]:
    """Outcomes and PDs; `tells` is how much the PD knows of the outcome, `worse` the log-odds that it misses."""
    log_odds = rng.normal(-1.4, 1.2, rows)
    truth = tells * log_odds - (1 - tells) * 1.4 + worse
    return (rng.random(rows) < logistic(truth)).astype(np.int64), logistic(log_odds)


def ranking(target: IntArray, probability: FloatArray) -> dict[str, float]:
    """The two figures that the test of ranking reads, without the others."""
    auc = 0.5 + auc_gain(target, probability, np.zeros(len(target)))[0]
    return {"roc_auc": auc, "roc_auc_standard_error": auc_standard_error(target, probability)}


def judged_level(
    target: IntArray, probability: FloatArray, alpha: float = 0.05, floor: float = 0.0
) -> PerformanceTest:
    return level_test(day_figures(target, probability), alpha, floor)


# Joining


def test_outcomes_are_joined_by_customer_whatever_their_order() -> None:
    scores = pd.DataFrame({"id": ["1", "2", "3"], "default_probability": [0.1, 0.2, 0.3]})
    outcomes = pd.DataFrame(
        {"id": ["9", "3", "1", "3", "8"], "bad": [1, 0, 0, 1, 0], "version": [1, 1, 1, 2, 1]}
    )
    day = join_outcomes(scores, outcomes, "id")
    assert day.set_index("id")[["default_probability", "bad"]].to_dict("index") == {
        "1": {"default_probability": 0.1, "bad": 0},
        "3": {"default_probability": 0.3, "bad": 1},
    }


def test_a_day_without_outcomes_is_all_pending() -> None:
    scores = pd.DataFrame({"id": ["1", "2"], "default_probability": [0.1, 0.2]})
    nothing = pd.DataFrame({"id": ["1"], "bad": [0], "version": [1]}).iloc[:0]
    day = join_outcomes(scores, nothing, "id")
    assert len(day) == 0
    figures = realised_performance(
        day["bad"].to_numpy(np.int64), day["default_probability"].to_numpy()
    )
    assert (figures["rows"], figures["bads"]) == (0, 0)
    assert "roc_auc" not in figures


def test_of_two_versions_of_an_outcome_the_later_counts() -> None:
    scores = pd.DataFrame({"id": ["1"], "default_probability": [0.1]})
    day = join_outcomes(
        scores, pd.DataFrame({"id": ["1", "1"], "bad": [1, 0], "version": [2, 1]}), "id"
    )
    assert day["bad"].tolist() == [1]


def test_realised_figures_are_those_of_the_matured_rows() -> None:
    target, probability = drawn(np.random.default_rng(1), 200)
    assert realised_performance(target, probability) == ranking_and_calibration(target, probability)


# Ranking


def test_a_day_like_validation_fails_the_test_of_ranking_as_often_as_alpha_says() -> None:
    """Validation is itself only a sample: ignoring its error would give 12 % here at an alpha of 5 %."""
    rng = np.random.default_rng(2)
    failures = 0
    for _ in range(500):
        validation, day = ranking(*drawn(rng, 300)), ranking(*drawn(rng, 300))
        failures += not ranking_test(day, validation, 0.05, 0.0).passed
    assert 0.025 < failures / 500 < 0.08


def test_a_day_on_which_the_pd_tells_much_less_fails_the_test_of_ranking() -> None:
    rng = np.random.default_rng(3)
    validation = ranking(*drawn(rng, 2_000))
    held = [
        ranking_test(ranking(*drawn(rng, 500, tells=0.3)), validation, 0.01, 0.02)
        for _ in range(100)
    ]
    assert sum(not one.passed for one in held) > 90


def test_a_day_that_ranks_better_than_validation_never_fails() -> None:
    validation = {"roc_auc": 0.7, "roc_auc_standard_error": 0.001}
    result = ranking_test({"roc_auc": 0.9, "roc_auc_standard_error": 0.001}, validation, 0.05, 0.0)
    assert result.passed
    assert result.p_value > 0.999


def test_a_certain_fall_within_the_floor_passes_and_beyond_it_fails() -> None:
    validation = {"roc_auc": 0.78, "roc_auc_standard_error": 0.0005}
    results = [
        ranking_test({"roc_auc": auc, "roc_auc_standard_error": 0.0005}, validation, 0.001, 0.03)
        for auc in (0.751, 0.749)
    ]
    assert [one.passed for one in results] == [True, False]
    assert all(one.p_value < 0.001 for one in results)
    assert [one.limit for one in results] == pytest.approx([0.75, 0.75])


@pytest.mark.parametrize("floor", [0.0, 0.06])
def test_the_limit_of_ranking_is_where_passing_ends(floor: float) -> None:
    """The chart draws the limit; a day above the line must not be reported as failed."""
    validation = {"roc_auc": 0.78, "roc_auc_standard_error": 0.01}
    results = [
        ranking_test({"roc_auc": auc, "roc_auc_standard_error": 0.015}, validation, 0.05, floor)
        for auc in np.linspace(0.6003, 0.8003, 41).tolist()
    ]
    assert [one.passed for one in results] == [one.observed >= one.limit for one in results]
    assert 5 < sum(one.passed for one in results) < 36


# Level


def test_pds_that_are_right_fail_the_test_of_level_as_often_as_alpha_says() -> None:
    rng = np.random.default_rng(4)
    failures = sum(not judged_level(*drawn(rng, 300)).passed for _ in range(2_000))
    assert 0.035 < failures / 2_000 < 0.065


@pytest.mark.parametrize("worse", [0.5, -0.5])
def test_more_or_fewer_bads_than_the_pds_say_fail_the_test_of_level(worse: float) -> None:
    rng = np.random.default_rng(5)
    results = [
        judged_level(*drawn(rng, 1_000, worse=worse), alpha=0.01, floor=0.01) for _ in range(100)
    ]
    assert sum(not one.passed for one in results) > 90
    assert all(np.sign(one.observed) == np.sign(worse) for one in results)


def test_a_certain_gap_within_the_floor_passes_and_beyond_it_fails() -> None:
    figures = {"rows": 1e6, "mean_pd": 0.20, "pd_variance": 0.14}
    results = [
        level_test({**figures, "bad_rate": rate}, 0.001, 0.03)
        for rate in (0.229, 0.231, 0.171, 0.169)
    ]
    assert [one.passed for one in results] == [True, False, True, False]
    assert all(one.p_value < 0.001 for one in results)


@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_the_limit_of_level_is_where_passing_ends(floor: float) -> None:
    results = [
        level_test(
            {"rows": 400.0, "mean_pd": 0.2, "pd_variance": 0.14, "bad_rate": 0.2 + gap}, 0.05, floor
        )
        for gap in np.linspace(-0.1003, 0.0997, 41).tolist()
    ]
    assert [one.passed for one in results] == [abs(one.observed) <= one.limit for one in results]
    assert 5 < sum(one.passed for one in results) < 36


def test_a_single_outcome_proves_nothing() -> None:
    figures = realised_performance(np.array([1]), np.array([0.2]))
    assert ranking_test(figures, {"roc_auc": 0.8, "roc_auc_standard_error": 0.01}, 0.05, 0.0).passed


def test_a_large_day_without_a_single_bad_fails_the_test_of_level() -> None:
    """500 customers at a PD of 20 % and not one bad: a feed that sends zeros, and no chance in the world."""
    for outcome in (0, 1):
        figures = day_figures(np.full(500, outcome), np.full(500, 0.2))
        assert not level_test(figures, 0.001, 0.02).passed


def test_of_few_outcomes_the_level_is_tested_by_binomial_tails() -> None:
    """A single bad among 20 customers at a PD of 1 % is six times the expected rate and happens every fifth day."""
    figures = {"rows": 20.0, "mean_pd": 0.01, "pd_variance": 0.0099}
    one, all_bad = ({**figures, "bads": bads, "bad_rate": bads / 20} for bads in (1.0, 20.0))
    assert level_test(one, 0.001, 0.03).passed
    assert level_test(one, 0.001, 0.03).p_value == pytest.approx(2 * (1 - 0.99**20))
    assert not level_test(all_bad, 0.001, 0.03).passed
    rng = np.random.default_rng(6)
    pds = rng.uniform(0.001, 0.05, 60)
    failures = sum(
        not level_test(day_figures((rng.random(60) < pds).astype(np.int64), pds), 0.05, 0.0).passed
        for _ in range(2_000)
    )
    assert failures / 2_000 < 0.06


# Days together


def test_days_put_together_are_one_day_of_all_their_rows() -> None:
    rng = np.random.default_rng(20)
    days = [drawn(rng, rows) for rows in (50, 200, 120)]
    every = day_figures(*(np.concatenate(parts) for parts in zip(*days, strict=True)))
    pooled = pool_days([day_figures(*day) for day in days])
    assert set(pooled) == set(every)
    for name in ("rows", "bads", "mean_pd", "bad_rate", "pd_variance"):
        assert pooled[name] == pytest.approx(every[name])
    for name in ("roc_auc", "expected_roc_auc"):
        assert pooled[name] == pytest.approx(every[name], abs=0.02)
        assert pooled[f"{name}_standard_error"] == pytest.approx(
            every[f"{name}_standard_error"], rel=0.2
        )


def test_a_day_together_with_nothing_is_itself() -> None:
    day = day_figures(*drawn(np.random.default_rng(21), 100))
    nothing = day_figures(np.zeros(0, dtype=np.int64), np.zeros(0))
    assert nothing == {"rows": 0.0, "bads": 0.0}
    assert pool_days([nothing, day]) == pytest.approx(day)
    assert pool_days([nothing]) == nothing


def test_a_day_of_one_class_counts_for_the_level_only() -> None:
    rng = np.random.default_rng(22)
    day = day_figures(*drawn(rng, 200))
    goods = day_figures(np.zeros(40, dtype=np.int64), np.full(40, 0.1))
    assert "roc_auc" not in goods
    pooled = pool_days([day, goods])
    assert pooled["roc_auc"] == day["roc_auc"]
    assert pooled["rows"] == 240


def test_the_error_of_days_together_is_how_far_their_auc_lies_apart() -> None:
    rng = np.random.default_rng(23)
    pooled = [pool_days([day_figures(*drawn(rng, 60)) for _ in range(7)]) for _ in range(400)]
    spread = np.std([one["roc_auc"] for one in pooled])
    assert np.mean([one["roc_auc_standard_error"] for one in pooled]) == pytest.approx(
        spread, rel=0.12
    )


def test_days_that_differ_in_level_are_ranked_each_by_itself() -> None:
    """A good day and a bad day, told apart by no PD: their customers are not compared with each other."""
    rng = np.random.default_rng(24)
    days = [drawn(rng, 20_000, worse=worse) for worse in (-1.0, 1.0)]
    within = pool_days([day_figures(*day) for day in days])
    aucs = [day_figures(*day)["roc_auc"] for day in days]
    assert min(aucs) < within["roc_auc"] < max(aucs)


def test_the_spans_share_the_false_alarms() -> None:
    rng = np.random.default_rng(25)
    failures = {"ranking": 0, "level": 0}
    validation = ranking(*drawn(rng, 100_000))
    for _ in range(1_000):
        recent = [day_figures(*drawn(rng, 200)) for _ in range(4)]
        spans = spans_of(recent, 4)
        failures["ranking"] += not all(
            one.passed for one in ranking_tests(spans, validation, 0.05, 0.0).values()
        )
        failures["level"] += not all(one.passed for one in level_tests(spans, 0.05, 0.0).values())
    assert set(spans) == {1, 2, 4}
    assert 0.02 < failures["level"] / 1_000 < 0.065
    assert 0.02 < failures["ranking"] / 1_000 < 0.08


@pytest.mark.parametrize(
    ("most", "there", "wanted"),
    [
        (14, 20, [1, 3, 7, 14]),
        (14, 5, [1, 3, 5]),
        (14, 1, [1]),
        (1, 9, [1]),
        (2, 9, [1, 2]),
        (7, 7, [1, 3, 7]),
    ],
)
def test_spans_are_the_last_days_by_halves(most: int, there: int, wanted: list[int]) -> None:
    rng = np.random.default_rng(27)
    recent = [day_figures(*drawn(rng, 40)) for _ in range(there)]
    spans = spans_of(recent, most)
    assert list(spans) == wanted
    assert spans == {number: pytest.approx(pool_days(recent[-number:])) for number in wanted}


def test_what_is_told_is_the_span_that_failed() -> None:
    def test(passed: bool, p_value: float) -> PerformanceTest:
        return PerformanceTest(passed, 0.7, 0.75, p_value, "")

    assert decisive_span({1: test(True, 0.2), 14: test(False, 0.0001)}) == 14
    assert decisive_span({1: test(True, 0.0001), 14: test(False, 0.001)}) == 14
    assert decisive_span({1: test(True, 0.2), 14: test(True, 0.2)}) == 1


def test_the_ranking_of_a_day_with_few_bads_is_not_tested() -> None:
    figures = {"rows": 200.0, "bads": 9.0, "roc_auc": 0.2, "roc_auc_standard_error": 0.02}
    (test,) = ranking_tests(
        {1: figures}, {"roc_auc": 0.8, "roc_auc_standard_error": 0.01}, 0.05, 0.0
    ).values()
    assert test.passed
    assert test.explanation == "9 rows of the rarer class have matured; tested from 10"


# How good estimates were


def test_past_estimates_are_held_against_what_came() -> None:
    rng = np.random.default_rng(26)
    right = estimate_accuracy(estimate_errors([day_figures(*drawn(rng, 300)) for _ in range(300)]))
    wrong = estimate_accuracy(
        estimate_errors([day_figures(*drawn(rng, 300, worse=1.0)) for _ in range(300)])
    )
    assert (right["estimated_roc_auc_days"], right["estimated_bad_rate_days"]) == (300, 300)
    assert 0.92 < right["estimated_roc_auc_coverage"] < 0.98
    assert 0.92 < right["estimated_bad_rate_coverage"] < 0.98
    assert wrong["estimated_bad_rate_coverage"] < 0.1
    assert (
        wrong["estimated_bad_rate_mean_absolute_error"]
        > 5 * right["estimated_bad_rate_mean_absolute_error"]
    )


def test_days_without_a_figure_are_not_tracked() -> None:
    nothing = day_figures(np.zeros(0, dtype=np.int64), np.zeros(0))
    certain = day_figures(np.array([0, 0]), np.array([0.0, 0.0]))
    misses = estimate_errors([nothing, certain])
    assert misses["roc_auc_z"].isna().all()
    assert estimate_accuracy(misses) == {
        "estimated_roc_auc_days": 0,
        "estimated_bad_rate_days": 0,
    }
