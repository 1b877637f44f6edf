"""Performance without outcomes: the expectation over all outcomes, its errors, and what it cannot see."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from creditrisk_assets.modelling.metrics import auc_with_error, row_log_loss
from creditrisk_assets.monitoring.estimated_performance import (
    Expected,
    expected_auc,
    expected_performance,
)
from creditrisk_assets.monitoring.performance import estimate_test
from tests.support.examples import logistic

FloatArray = NDArray[np.float64]

PDS = st.lists(
    st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.31, 0.5, 0.8, 0.97, 1.0]), min_size=2, max_size=7
).map(np.array)
INSIDE = st.lists(st.floats(0.01, 0.99), min_size=2, max_size=60).map(np.array)


def over_all_outcomes(probability: FloatArray) -> dict[str, FloatArray]:
    """Every outcome that n customers can have: its probability, the pairs of a bad and a good in it, those ranked rightly, and
    the figures.
    """
    told: dict[str, list[float]] = {
        name: [] for name in ("chance", "pairs", "right", "bad_rate", "brier", "log_loss")
    }
    above = (probability[:, None] > probability) + 0.5 * (probability[:, None] == probability)
    for outcome in itertools.product([0, 1], repeat=len(probability)):
        y = np.array(outcome)
        chance = float(np.prod(np.where(y == 1, probability, 1 - probability)))
        if chance == 0:
            continue
        of_bads = np.outer(y, 1 - y)
        figures = (y.mean(), ((probability - y) ** 2).mean(), row_log_loss(y, probability).mean())
        for name, value in zip(
            told, (chance, of_bads.sum(), (of_bads * above).sum(), *figures), strict=True
        ):
            told[name].append(float(value))
    return {name: np.array(values) for name, values in told.items()}


def day(rng: np.random.Generator, rows: int) -> FloatArray:
    return logistic(rng.normal(-1.6, 1.2, rows))


@given(PDS)
def test_the_estimate_is_the_expectation_over_all_outcomes(probability: FloatArray) -> None:
    every = over_all_outcomes(probability)
    pairs = every["chance"] @ every["pairs"]
    expected = expected_auc(probability)
    if pairs == 0:
        assert expected is None
    else:
        assert expected is not None
        assert expected.value == pytest.approx(every["chance"] @ every["right"] / pairs)


@given(PDS)
def test_means_and_their_errors_are_those_over_all_outcomes(probability: FloatArray) -> None:
    every = over_all_outcomes(probability)
    for name, expected in expected_performance(probability).items():
        if name == "roc_auc":
            continue
        mean = every["chance"] @ every[name]
        assert expected.value == pytest.approx(mean, abs=1e-12)
        assert expected.standard_error**2 == pytest.approx(
            every["chance"] @ (every[name] - mean) ** 2, abs=1e-12
        )


@given(INSIDE, st.randoms(use_true_random=False))
def test_the_order_of_customers_does_not_matter(probability: FloatArray, random: object) -> None:
    shuffled = np.array(random.sample(probability.tolist(), len(probability)))  # type: ignore[attr-defined]
    for name, one in expected_performance(shuffled).items():
        other = expected_performance(probability)[name]
        assert one.value == pytest.approx(other.value)
        assert one.standard_error == pytest.approx(other.standard_error)
        assert one.sampling_error == pytest.approx(other.sampling_error)


@given(INSIDE)
def test_goods_and_bads_may_change_places(probability: FloatArray) -> None:
    """1 - PD of being good ranks as the PD of being bad does."""
    one, other = expected_performance(probability), expected_performance(1 - probability)
    for name in ("roc_auc", "brier", "log_loss"):
        assert one[name].value == pytest.approx(other[name].value)
        assert one[name].standard_error == pytest.approx(other[name].standard_error)
        assert one[name].sampling_error == pytest.approx(other[name].sampling_error)


@given(INSIDE)
def test_calibrated_pds_never_promise_less_than_chance(probability: FloatArray) -> None:
    expected = expected_auc(probability)
    assert expected is not None
    assert 0.5 - 1e-12 <= expected.value <= 1


@pytest.mark.parametrize("pd", [0.01, 0.5])
def test_pds_that_are_all_alike_promise_no_ranking(pd: float) -> None:
    expected = expected_auc(np.full(50, pd))
    assert expected is not None
    figures = [expected.value, expected.standard_error, expected.sampling_error]
    assert figures == pytest.approx([0.5, 0.0, 0.0], abs=1e-12)


def test_certain_pds_promise_a_perfect_ranking_without_error() -> None:
    expected = expected_performance(np.array([0.0, 0.0, 1.0]))
    assert (expected["roc_auc"].value, expected["roc_auc"].standard_error) == (1.0, 0.0)
    assert expected["brier"].value == 0.0
    assert expected["log_loss"].value == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("probability", [[], [0.3], [0.0, 0.0], [1.0, 1.0, 1.0]])
def test_where_no_pair_can_come_no_auc_is_expected(probability: list[float]) -> None:
    assert "roc_auc" not in expected_performance(np.array(probability))


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.1])
def test_what_is_no_pd_is_refused_by_its_value(wrong: float) -> None:
    with pytest.raises(ValueError, match=rf"default_probability {wrong}; valid: from 0 to 1"):
        expected_performance(np.array([0.2, wrong]))


@pytest.mark.parametrize("rows", [200, 2_000])
def test_the_interval_holds_what_is_realised_on_the_same_rows(rows: int) -> None:
    rng = np.random.default_rng(rows)
    held = dict.fromkeys(("roc_auc", "bad_rate", "brier", "log_loss"), 0)
    for _ in range(600):
        probability = day(rng, rows)
        target = (rng.random(rows) < probability).astype(np.int64)
        realised = {
            "roc_auc": auc_with_error(target, probability)[0],
            "bad_rate": float(target.mean()),
            "brier": float(((probability - target) ** 2).mean()),
            "log_loss": float(row_log_loss(target, probability).mean()),
        }
        for name, expected in expected_performance(probability).items():
            held[name] += expected.interval.low <= realised[name] <= expected.interval.high
    assert all(0.925 < count / 600 < 0.98 for count in held.values()), held


def test_the_sampling_error_is_how_far_estimates_of_one_population_lie_apart() -> None:
    rng = np.random.default_rng(8)
    expected = [expected_performance(day(rng, 500)) for _ in range(500)]
    for name in ("roc_auc", "bad_rate", "brier", "log_loss"):
        spread = np.std([one[name].value for one in expected])
        assert np.mean([one[name].sampling_error for one in expected]) == pytest.approx(
            spread, rel=0.12
        )


def test_both_errors_together_are_delongs() -> None:
    """The realised AUC differs from the population's by chance in the sample and in the outcomes."""
    rng = np.random.default_rng(9)
    probability = day(rng, 20_000)
    target = (rng.random(20_000) < probability).astype(np.int64)
    expected = expected_auc(probability)
    assert expected is not None
    both = float(np.hypot(expected.standard_error, expected.sampling_error))
    assert both == pytest.approx(auc_with_error(target, probability)[1], rel=0.03)


def test_a_million_pds_take_no_quadratic_time() -> None:
    expected = expected_auc(day(np.random.default_rng(10), 1_000_000))
    assert expected is not None
    assert expected.standard_error < 0.001


# Against validation


def test_an_estimate_falls_when_the_population_does_not_when_the_concept_drifts() -> None:
    """The PDs are all that is looked at: outcomes that came to mean something else change nothing."""
    rng = np.random.default_rng(11)
    validation = {"roc_auc": 0.79, "roc_auc_standard_error": 0.007}
    usual, narrow = day(rng, 500), logistic(rng.normal(-1.6, 0.6, 500))
    assert estimate_test(expected_auc(usual), validation, 0.001, 0.03).passed
    assert not estimate_test(expected_auc(narrow), validation, 0.001, 0.03).passed


def test_days_like_validation_fail_the_estimate_as_often_as_alpha_says() -> None:
    rng = np.random.default_rng(12)
    failures = 0
    for _ in range(1_000):
        seen = day(rng, 1_000)
        auc, error = auc_with_error((rng.random(1_000) < seen).astype(np.int64), seen)
        validation = {"roc_auc": auc, "roc_auc_standard_error": error}
        failures += not estimate_test(expected_auc(day(rng, 200)), validation, 0.05, 0.0).passed
    assert 0.03 < failures / 1_000 < 0.075


def test_without_an_estimate_nothing_is_tested() -> None:
    test = estimate_test(None, {"roc_auc": 0.8, "roc_auc_standard_error": 0.01}, 0.001, 0.03)
    assert test.passed
    assert np.isnan(test.observed)


def test_intervals_stay_where_figures_can_be() -> None:
    interval = Expected(0.99, 0.02, 0.01).interval
    assert interval.low == pytest.approx(0.9508, abs=1e-4)
    assert interval.high == 1.0
