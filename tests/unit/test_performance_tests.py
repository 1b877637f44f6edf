"""Matured days against validation: as many false alarms as alpha says, and a real fall is found."""

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from creditrisk_assets.modelling.metrics import auc_gain, auc_standard_error, ranking_and_calibration
from creditrisk_assets.monitoring.performance import (
    MaturedDay,
    PerformanceTest,
    join_outcomes,
    level_held,
    night_figures,
    ranking_held,
    realised_performance,
)
from tests.unit.helpers import logistic

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def drawn(rng: np.random.Generator, rows: int, tells: float = 1.0, worse: float = 0.0) -> tuple[IntArray, FloatArray]:
    """Outcomes and PDs; `tells` is how much the PD knows of the outcome, `worse` the log-odds that it misses."""
    log_odds = rng.normal(-1.4, 1.2, rows)
    truth = tells * log_odds - (1 - tells) * 1.4 + worse
    return (rng.random(rows) < logistic(truth)).astype(np.int64), logistic(log_odds)


def ranking(target: IntArray, probability: FloatArray) -> dict[str, float]:
    """The two figures that the test of ranking reads, without the others."""
    auc = 0.5 + auc_gain(target, probability, np.zeros(len(target)))[0]
    return {"roc_auc": auc, "roc_auc_standard_error": auc_standard_error(target, probability)}


def judged_level(target: IntArray, probability: FloatArray, alpha: float = 0.05, floor: float = 0.0) -> PerformanceTest:
    return level_held(night_figures(target, probability), alpha, floor)


# Joining


def test_outcomes_are_joined_by_customer_whatever_their_order() -> None:
    scores = pd.DataFrame({"id": ["1", "2", "3"], "default_probability": [0.1, 0.2, 0.3]})
    outcomes = pd.DataFrame({"id": ["9", "3", "1", "3", "8"], "bad": [1, 0, 0, 1, 0], "version": [1, 1, 1, 2, 1]})
    day = join_outcomes(scores, outcomes, "id")
    assert day.rows.set_index("id")[["default_probability", "bad"]].to_dict("index") == {
        "1": {"default_probability": 0.1, "bad": 0},
        "3": {"default_probability": 0.3, "bad": 1},
    }
    assert day.decisions == 3


def test_a_day_without_outcomes_is_all_pending() -> None:
    scores = pd.DataFrame({"id": ["1", "2"], "default_probability": [0.1, 0.2]})
    nothing = pd.DataFrame({"id": ["1"], "bad": [0], "version": [1]}).iloc[:0]
    day = join_outcomes(scores, nothing, "id")
    assert (len(day.rows), day.decisions) == (0, 2)
    figures = realised_performance(day, "bad")
    assert (figures["rows"], figures["bads"]) == (0, 0)
    assert "roc_auc" not in figures


def test_of_two_versions_of_an_outcome_the_later_counts() -> None:
    scores = pd.DataFrame({"id": ["1"], "default_probability": [0.1]})
    day = join_outcomes(scores, pd.DataFrame({"id": ["1", "1"], "bad": [1, 0], "version": [2, 1]}), "id")
    assert day.rows["bad"].tolist() == [1]


def test_realised_figures_are_those_of_the_matured_rows() -> None:
    target, probability = drawn(np.random.default_rng(1), 200)
    rows = pd.DataFrame({"default_probability": probability, "bad": target})
    assert realised_performance(MaturedDay(rows, 300), "bad") == ranking_and_calibration(target, probability)


# Ranking


def test_a_day_like_validation_fails_the_test_of_ranking_as_often_as_alpha_says() -> None:
    """Validation is itself only a sample: ignoring its error would give 12 % here at an alpha of 5 %."""
    rng = np.random.default_rng(2)
    failures = 0
    for _ in range(500):
        validation, day = ranking(*drawn(rng, 300)), ranking(*drawn(rng, 300))
        failures += not ranking_held(day, validation, 0.05, 0.0).passed
    assert 0.025 < failures / 500 < 0.08


def test_a_day_on_which_the_pd_tells_much_less_fails_the_test_of_ranking() -> None:
    rng = np.random.default_rng(3)
    validation = ranking(*drawn(rng, 2_000))
    held = [ranking_held(ranking(*drawn(rng, 500, tells=0.3)), validation, 0.01, 0.02) for _ in range(100)]
    assert sum(not one.passed for one in held) > 90


def test_a_day_that_ranks_better_than_validation_never_fails() -> None:
    validation = {"roc_auc": 0.7, "roc_auc_standard_error": 0.001}
    result = ranking_held({"roc_auc": 0.9, "roc_auc_standard_error": 0.001}, validation, 0.05, 0.0)
    assert result.passed
    assert result.p_value > 0.999


def test_a_certain_fall_within_the_floor_passes_and_beyond_it_fails() -> None:
    validation = {"roc_auc": 0.78, "roc_auc_standard_error": 0.0005}
    results = [
        ranking_held({"roc_auc": auc, "roc_auc_standard_error": 0.0005}, validation, 0.001, 0.03) for auc in (0.751, 0.749)
    ]
    assert [one.passed for one in results] == [True, False]
    assert all(one.p_value < 0.001 for one in results)
    assert [one.limit for one in results] == pytest.approx([0.75, 0.75])


@pytest.mark.parametrize("floor", [0.0, 0.06])
def test_the_limit_of_ranking_is_where_passing_ends(floor: float) -> None:
    """The chart draws the limit; a day above the line must not be reported as failed."""
    validation = {"roc_auc": 0.78, "roc_auc_standard_error": 0.01}
    results = [
        ranking_held({"roc_auc": auc, "roc_auc_standard_error": 0.015}, validation, 0.05, floor)
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
    results = [judged_level(*drawn(rng, 1_000, worse=worse), alpha=0.01, floor=0.01) for _ in range(100)]
    assert sum(not one.passed for one in results) > 90
    assert all(np.sign(one.observed) == np.sign(worse) for one in results)


def test_a_certain_gap_within_the_floor_passes_and_beyond_it_fails() -> None:
    figures = {"rows": 1e6, "mean_pd": 0.20, "pd_variance": 0.14}
    results = [level_held({**figures, "bad_rate": rate}, 0.001, 0.03) for rate in (0.229, 0.231, 0.171, 0.169)]
    assert [one.passed for one in results] == [True, False, True, False]
    assert all(one.p_value < 0.001 for one in results)


@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_the_limit_of_level_is_where_passing_ends(floor: float) -> None:
    results = [
        level_held({"rows": 400.0, "mean_pd": 0.2, "pd_variance": 0.14, "bad_rate": 0.2 + gap}, 0.05, floor)
        for gap in np.linspace(-0.1003, 0.0997, 41).tolist()
    ]
    assert [one.passed for one in results] == [abs(one.observed) <= one.limit for one in results]
    assert 5 < sum(one.passed for one in results) < 36


def test_a_single_outcome_proves_nothing() -> None:
    rows = pd.DataFrame({"default_probability": [0.2], "bad": [1]})
    figures = realised_performance(MaturedDay(rows, 1), "bad")
    assert ranking_held(figures, {"roc_auc": 0.8, "roc_auc_standard_error": 0.01}, 0.05, 0.0).passed


def test_a_large_day_without_a_single_bad_fails_the_test_of_level() -> None:
    """500 customers at a PD of 20 % and not one bad: a feed that sends zeros, and no chance in the world."""
    for outcome in (0, 1):
        figures = night_figures(np.full(500, outcome), np.full(500, 0.2))
        assert not level_held(figures, 0.001, 0.02).passed
