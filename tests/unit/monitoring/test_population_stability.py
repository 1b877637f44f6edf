"""PSI: silent when nothing has moved, as often as its alpha says, and loud when something has."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats

from creditrisk_assets.monitoring.population_stability import (
    Stability,
    benjamini_hochberg,
    divergence,
    population_stability,
)
from creditrisk_assets.scoring.reference_profile import BINS, bin_edges

FloatArray = NDArray[np.float64]

VALUES = st.one_of(
    hnp.arrays(np.float64, st.integers(1, 60), elements=st.integers(-3, 3)),
    hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6)),
)


def psi(
    reference: FloatArray, current: FloatArray, alpha: float = 0.05, floor: float = 0.0
) -> Stability:
    return population_stability("column", reference, current, alpha, floor)


@given(VALUES, VALUES)
def test_psi_is_finite_and_never_negative(reference: FloatArray, current: FloatArray) -> None:
    """An empty bin must not give infinity or NaN, which no threshold would ever catch."""
    value = psi(reference, current).value
    assert np.isfinite(value)
    assert value >= 0


@given(VALUES)
def test_a_population_is_stable_against_itself(values: FloatArray) -> None:
    result = psi(values, values)
    assert result.value == pytest.approx(0, abs=1e-12)
    assert not result.drifted


@given(VALUES)
def test_every_reference_value_has_a_bin_and_every_bin_a_reference_value(
    reference: FloatArray,
) -> None:
    assume(len(np.unique(reference)) > 1)
    edges = bin_edges(reference)
    counts = np.bincount(np.searchsorted(edges, reference, side="left"), minlength=len(edges) + 1)
    assert len(counts) <= BINS
    assert (counts > 0).all()
    assert (np.diff(edges) > 0).all()


def test_bins_of_a_continuous_column_hold_a_tenth_each() -> None:
    values = np.random.default_rng(1).normal(size=10_000)
    counts = np.bincount(np.searchsorted(bin_edges(values), values, side="left"))
    assert len(counts) == BINS
    assert np.abs(counts - 1_000).max() <= 1


def test_psi_of_two_halves_is_what_a_person_works_out() -> None:
    """Reference half zeros and half ones, 20 of each; current 30 zeros and 10 ones; half a count added to each bin."""
    reference, current = np.repeat([0.0, 1.0], [20, 20]), np.repeat([0.0, 1.0], [30, 10])
    result = psi(reference, current, alpha=0.05)
    shares = np.array([30.5, 10.5]) / 41
    assert result.value == pytest.approx(float(np.sum((shares - 0.5) * np.log(shares / 0.5))))
    assert result.critical == pytest.approx(stats.chi2.ppf(0.95, 1) * (1 / 40 + 1 / 40))
    assert (result.bins, result.rows, result.reference_rows) == (2, 40, 40)


def continuous(rng: np.random.Generator, rows: int) -> FloatArray:
    return rng.normal(size=rows)


def codes(rng: np.random.Generator, rows: int) -> FloatArray:
    """Like a payment status: few values, one of them half of all."""
    return rng.choice([-2.0, -1.0, 0.0, 1.0, 2.0], p=[0.1, 0.2, 0.5, 0.08, 0.12], size=rows)


def skewed(rng: np.random.Generator, rows: int) -> FloatArray:
    """Like an amount paid: a fifth zeros and a long tail."""
    return np.where(rng.random(rows) < 0.2, 0.0, np.round(rng.lognormal(8, 1.5, rows)))


@pytest.mark.parametrize("draw", [continuous, codes, skewed])
@pytest.mark.parametrize("reference_rows", [2_000, 10_000])
def test_false_alarms_come_as_often_as_alpha_says(draw: object, reference_rows: int) -> None:
    """With PSI > 0.1 as the rule a day of 500 alarms for ever or never; here alpha is the rate, also for a small reference."""
    assert callable(draw)
    rng = np.random.default_rng(1)
    draws = 600
    alarms = sum(psi(draw(rng, reference_rows), draw(rng, 500)).drifted for _ in range(draws))
    assert 0.02 < alarms / draws < 0.08


def test_a_day_that_has_moved_is_an_alarm_and_a_larger_shift_a_larger_value() -> None:
    rng = np.random.default_rng(1)
    reference = rng.normal(size=10_000)
    day = rng.normal(size=500)
    values = [psi(reference, day + shift, alpha=0.001) for shift in (0.0, 0.3, 0.6, 1.2, -1.2)]
    assert [one.drifted for one in values] == [False, True, True, True, True]
    assert values[1].value < values[2].value < values[3].value


def test_payment_statuses_of_a_third_a_month_worse_are_an_alarm() -> None:
    """The usual line of 0.1 misses this in one day of five."""
    rng = np.random.default_rng(2)
    reference = codes(rng, 10_000)
    for _ in range(50):
        day = codes(rng, 500)
        day[rng.random(500) < 0.33] += 1
        assert psi(reference, day, alpha=0.001).drifted


def test_a_shift_below_the_floor_is_no_alarm_however_certain() -> None:
    """A day of a million rows shows differences that nobody need act on."""
    rng = np.random.default_rng(3)
    reference, day = rng.normal(size=200_000), rng.normal(0.05, 1, size=200_000)
    certain = psi(reference, day, alpha=0.001, floor=0.0)
    floored = psi(reference, day, alpha=0.001, floor=0.02)
    assert certain.drifted
    assert not floored.drifted
    assert floored.threshold == pytest.approx(0.02 + 9 * 2 / 200_000)
    assert floored.critical == certain.critical == certain.threshold


def test_the_floor_is_on_top_of_what_chance_gives() -> None:
    """At 500 rows PSI is 0.02 on average when nothing has moved; a floor that ignores this is no floor."""
    rng = np.random.default_rng(5)
    reference = rng.normal(size=15_000)
    excess = []
    for _ in range(300):
        found = divergence(
            *(
                np.bincount(np.searchsorted(bin_edges(reference), side))
                for side in (reference, rng.normal(size=500))
            )
        )
        excess.append(found.value - found.by_chance)
    assert abs(float(np.mean(excess))) < 0.0015
    assert float(found.by_chance) == pytest.approx(9 * (1 / 500 + 1 / 15_000))


COUNTS = hnp.arrays(np.int64, 6, elements=st.integers(0, 50))


@given(COUNTS, COUNTS, st.permutations(range(6)))
def test_psi_of_counts_is_symmetric_in_bins_and_sides(
    first: FloatArray, second: FloatArray, order: list[int]
) -> None:
    assume(first.sum() and second.sum())
    found = divergence(first, second)
    assert divergence(second, first).value == pytest.approx(float(found.value))
    assert divergence(first[order], second[order]).value == pytest.approx(float(found.value))
    assert divergence(np.append(first, 0), np.append(second, 0)).value == pytest.approx(
        float(found.value)
    )
    assert 0 <= float(found.p_value) <= 1
    assert (found.value > found.critical(0.01)) == (found.p_value < 0.01)


@given(COUNTS, st.lists(COUNTS, min_size=1, max_size=4))
def test_many_days_at_once_are_each_day_alone(
    reference: FloatArray, days: list[FloatArray]
) -> None:
    assume(reference.sum() and all(day.sum() for day in days))
    together = divergence(reference, np.stack(days))
    for place, day in enumerate(days):
        alone = divergence(reference, day)
        assert (together.value[place], together.bins[place]) == (alone.value, alone.bins)


P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(P_VALUES, st.floats(0.001, 0.2))
def test_benjamini_and_hochberg_as_their_paper_has_it(p_values: list[float], alpha: float) -> None:
    """The largest k with p(k) <= k alpha / F; the k smallest are alarms."""
    ordered = sorted(p_values)
    alarms = max(
        (k for k, p in enumerate(ordered, start=1) if p <= alpha * k / len(p_values)), default=0
    )
    level = float(benjamini_hochberg(p_values, alpha))
    assert sum(p <= level for p in p_values) == max(
        alarms, sum(p <= alpha / len(p_values) for p in p_values)
    )
    assert alpha / len(p_values) <= level <= alpha * (1 + 1e-12)


def test_where_nothing_is_true_benjamini_and_hochberg_alarm_as_often_as_alpha() -> None:
    """23 columns at 5 % each would alarm on two days of three."""
    p_values = np.random.default_rng(6).random((20_000, 23))
    alarms = (p_values <= benjamini_hochberg(p_values, 0.05)[:, None]).any(axis=1)
    assert 0.045 < alarms.mean() < 0.055


def test_a_column_that_never_moved_and_does_now_is_an_alarm() -> None:
    """A column that was 0 for everybody and is 5 for everybody has moved as far as a column can; so has one that left its
    usual value, when that was the largest there was.
    """
    assert psi(np.zeros(10_000), np.full(500, 5.0), alpha=0.001).drifted
    usual = np.repeat([-1.0, 0.0], [500, 9_500])
    assert psi(usual, np.full(500, -1.0), alpha=0.001).drifted


@pytest.mark.parametrize(("reference", "current"), [(0, 5), (5, 0), (0, 0)])
def test_an_empty_side_is_refused_with_the_columns_name(reference: int, current: int) -> None:
    """No rows are not "no drift"."""
    with pytest.raises(
        ValueError, match=f"column: {reference} reference and {current} current values"
    ):
        psi(np.zeros(reference), np.zeros(current))


def test_missing_values_are_a_bin_of_their_own() -> None:
    """A feed that stops filling a column moves no value that is there."""
    rng = np.random.default_rng(8)
    reference, current = rng.normal(size=5_000), rng.normal(size=2_000)
    assert not population_stability("income", reference, current, 0.001, 0.1).drifted
    emptied = np.where(rng.random(2_000) < 0.3, np.nan, current)
    found = population_stability("income", reference, emptied, 0.001, 0.1)
    assert (found.drifted, found.bins) == (True, 11)
    half = np.where(rng.random(5_000) < 0.3, np.nan, reference)
    assert not population_stability("income", half, emptied, 0.001, 0.1).drifted
    assert not population_stability(
        "income", half * np.nan, emptied[:100] * np.nan, 0.001, 0.1
    ).drifted
