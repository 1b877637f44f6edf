"""The rule by segment: p-values that hold, Holm's correction, and floors."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from creditrisk_assets.monitoring.segment_rule import (
    OutcomeSums,
    approval_tests,
    holm,
    level_tests,
    middle_p_value,
    ranking_tests,
    stability_tests,
)
from creditrisk_assets.policy import DriftLimits, SegmentLimits

LIMITS, DRIFT = SegmentLimits(), DriftLimits()


def sums(rows: float, bads: float, mean_pd: float, auc: float = 0.75, error: float = 0.02) -> Any:
    """One segment whose customers have the same PD."""
    weight = bads * (rows - bads) / rows
    values = (
        *(rows, bads, rows * mean_pd, rows * mean_pd * (1 - mean_pd)),
        *(weight, weight * auc, (weight * error) ** 2),
    )
    return OutcomeSums(*(np.array([value]) for value in values))


def test_holm_multiplies_the_smallest_by_all_tests_and_the_next_by_one_fewer() -> None:
    corrected = holm([0.03, np.nan, 0.01, 0.04])
    assert np.allclose(corrected, [0.06, np.nan, 0.03, 0.06], equal_nan=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_never_makes_a_p_value_smaller_and_keeps_their_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert (corrected >= np.array(p_values)).all()
    assert (corrected <= 1).all()
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(corrected[order]) >= 0).all()


@pytest.mark.parametrize("shares", [[0.1] * 10, [0.95, 0.05], [0.9, 0.06, 0.03, 0.01]])
@pytest.mark.parametrize("rows", [30, 75, 300])
def test_the_middle_is_no_alarm_by_chance_more_often_than_its_p_value(
    shares: list[float], rows: int
) -> None:
    """A normal tail fails ten times too often where one bin has nearly all rows."""
    rng = np.random.default_rng(rows)
    expected = rng.multinomial(3_000, shares, 20_000).astype(np.float64)
    actual = rng.multinomial(rows, shares, 20_000).astype(np.float64)
    p_values = middle_p_value(expected, actual)
    for level in (0.01, 0.001):
        by_chance = stats.binom.isf(1e-6, len(p_values), level)
        assert (p_values < level).sum() <= by_chance


def test_the_middle_of_two_bins_agrees_with_the_test_of_two_shares() -> None:
    expected, actual = np.array([[600.0, 400.0]]), np.array([[150.0, 150.0]])
    table = np.array([[600, 400], [150, 150]])
    chi2 = stats.chi2_contingency(table, correction=False).pvalue
    assert middle_p_value(expected, actual)[0] == pytest.approx(chi2, rel=0.2)


def test_a_segment_of_few_rows_is_not_tested_and_a_shift_below_the_floor_does_not_matter() -> None:
    expected = np.full((1, 1, 10), 1_000.0)
    few = stability_tests(expected, np.array([[[29, *[0] * 9]]]), LIMITS, DRIFT)
    assert np.isnan(few.p_value).all()
    large = np.array([[[10_600, 9_400, *[10_000] * 8]]])
    many = stability_tests(expected * 1_000, large, LIMITS, DRIFT)
    assert many.p_value[0, 0] < 0.05
    assert not many.matters[0, 0]


def test_without_a_reference_nothing_is_tested() -> None:
    found = stability_tests(np.zeros((1, 1, 3)), np.array([[[50, 40, 10]]]), LIMITS, DRIFT)
    assert np.isnan(found.p_value).all()
    assert np.isnan(approval_tests(50, 100, np.nan, 0, LIMITS).p_value)


def test_an_approval_rate_is_tested_against_training() -> None:
    same = approval_tests(70, 100, 0.7, 1_000, LIMITS)
    assert same.p_value == pytest.approx(1)
    lower = approval_tests(400, 1_000, 0.7, 1_000, LIMITS)
    assert lower.p_value < 1e-6
    assert lower.matters
    assert approval_tests(0, 100, 1.0, 1_000, LIMITS).p_value < 1e-6


def test_a_gap_within_the_spread_of_a_sound_fit_is_no_alarm_on_any_number_of_rows() -> None:
    huge = level_tests(sums(10_000_000, 2_200_000, 0.2), 0.0, LIMITS)
    assert huge.p_value[0] == pytest.approx(2 * stats.norm.sf(0.02 / LIMITS.level_spread), rel=0.1)
    assert level_tests(sums(10_000, 3_000, 0.2), 0.03, LIMITS).p_value[0] < 1e-9


@pytest.mark.parametrize("mean_pd", [0.02, 0.1, 0.3])
def test_a_level_by_chance_is_no_alarm_more_often_than_its_p_value(mean_pd: float) -> None:
    rng = np.random.default_rng(3)
    rows = 200.0
    bads = rng.binomial(int(rows), mean_pd, 200_000).astype(np.float64)
    full, none = np.full(len(bads), rows), np.zeros(len(bads))
    found = level_tests(
        OutcomeSums(full, bads, full * mean_pd, full * mean_pd * (1 - mean_pd), none, none, none),
        0.0,
        SegmentLimits(level_spread=0.0),
    )
    for level in (0.001, 0.0001):
        assert (found.p_value < level).sum() <= 2 * level * len(bads)


def test_an_auc_is_tested_against_that_of_the_held_out_rows_of_the_segment() -> None:
    fallen = ranking_tests(sums(500, 100, 0.2, auc=0.6), [0.75], [0.02], 0.03)
    assert fallen.p_value[0] == pytest.approx(stats.norm.sf(0.15 / np.hypot(0.02, 0.02)))
    assert fallen.matters[0]
    few = ranking_tests(sums(500, 9, 0.2, auc=0.6), [0.75], [0.02], 0.03)
    assert np.isnan(few.p_value[0])
    assert np.isnan(ranking_tests(sums(500, 100, 0.2), [np.nan], [np.nan], 0.03).p_value[0])
