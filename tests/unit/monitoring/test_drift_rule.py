"""The drift rule: rare false alarms, early detection, and no alarm below the floor."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from creditrisk_assets.monitoring.drift_rule import (
    quality_verdicts,
    stability_verdicts,
)
from creditrisk_assets.monitoring.drift_table import (
    day_counts,
    drift_table,
    pool_counts,
    window_stability,
)
from creditrisk_assets.policy import DriftLimits
from creditrisk_assets.scoring.reference_profile import (
    SCORE,
    ColumnCounts,
    ReferenceProfile,
    bin_counts,
)

LIMITS = DriftLimits()
NAMES = [SCORE, "amount", "status"]


def values(
    rng: np.random.Generator, rows: int, shift: float = 0.0, later: float = 0.0
) -> dict[str, NDArray[np.float64]]:
    """Customers: a score, an amount that may have moved, and a status that is a step later for some."""
    status = rng.choice([-1.0, 0.0, 1.0, 2.0], p=[0.25, 0.5, 0.15, 0.1], size=rows)
    status[rng.random(rows) < later] += 1
    return {
        SCORE: rng.normal(550, 30, rows),
        "amount": rng.normal(shift, 1, rows),
        "status": status,
    }


@pytest.fixture(scope="module")
def profile() -> ReferenceProfile:
    return ReferenceProfile.of(
        values(np.random.default_rng(1), 15_000), np.ones(15_000, dtype=np.int64), ["status"]
    )


def day(
    profile: ReferenceProfile,
    columns: dict[str, Any],
    batch: tuple[int, int] | None = None,
    **bad: int,
) -> pd.DataFrame:
    counts = {}
    for column in profile.columns:
        found = columns[column.name]
        codes = column.codes
        new = 0 if codes is None else int((~np.isin(found, codes)).sum())
        counts[column.name] = ColumnCounts(
            bin_counts(np.array(column.edges), found), bad.get(column.name, 0), new
        )
    rows = len(columns[SCORE])
    return day_counts(counts, *(batch or (rows, 0)))


def verdict(profile: ReferenceProfile, batches: list[pd.DataFrame], **limits: Any) -> pd.DataFrame:
    """Of the last of some days."""
    return drift_table(
        profile, batches[-1], batches[-2::-1], LIMITS.model_copy(update={**limits})
    ).set_index("column")


def test_a_year_of_nothing_is_a_year_of_silence(profile: ReferenceProfile) -> None:
    rng = np.random.default_rng(2)
    days = [day(profile, values(rng, 300)) for _ in range(120)]
    alarms = [verdict(profile, days[start : start + 3]) for start in range(118)]
    assert sum(bool(one["drifted"].any() or one["broken"].any()) for one in alarms) <= 1


def test_a_large_shift_is_seen_on_its_first_day_and_a_small_one_when_it_has_stayed(
    profile: ReferenceProfile,
) -> None:
    rng = np.random.default_rng(3)
    quiet = [day(profile, values(rng, 500)) for _ in range(2)]
    large = verdict(profile, [*quiet, day(profile, values(rng, 500, shift=0.6))])
    assert large["drifted"].tolist() == [False, True, False]
    small = [day(profile, values(rng, 500, shift=0.17)) for _ in range(3)]
    assert not verdict(profile, [*quiet, small[0]])["drifted"].any()
    found = verdict(profile, small).loc["amount"]
    assert (found["drifted"], found["days"], found["pooled_rows"], found["rows"]) == (
        True,
        3,
        1_500,
        500,
    )


def test_one_freak_day_among_large_quiet_ones_is_told_by_its_own_figures(
    profile: ReferenceProfile,
) -> None:
    """Pooled with the days before it would be under the line."""
    rng = np.random.default_rng(4)
    quiet = [day(profile, values(rng, 5_000)) for _ in range(2)]
    found = verdict(profile, [*quiet, day(profile, values(rng, 500, shift=0.6))]).loc["amount"]
    assert (found["drifted"], found["days"], found["pooled_rows"]) == (True, 1, 500)
    assert found["value"] == found["pooled_value"] > found["threshold"] >= found["critical"]


def test_more_rows_never_make_a_shift_matter_that_is_under_the_floor(
    profile: ReferenceProfile,
) -> None:
    rng = np.random.default_rng(5)
    found = verdict(profile, [day(profile, values(rng, 200_000, shift=0.1)) for _ in range(3)]).loc[
        "amount"
    ]
    assert found["p_value"] < 1e-12
    assert not found["drifted"]
    assert found["threshold"] == pytest.approx(LIMITS.floor + 9 * (1 / 600_000 + 1 / 15_000))


def test_too_few_rows_are_no_evidence(profile: ReferenceProfile) -> None:
    rng = np.random.default_rng(6)
    few = [day(profile, values(rng, 45, shift=3.0)) for _ in range(3)]
    assert not verdict(profile, few[:2])["drifted"].any()
    assert verdict(profile, few)["drifted"].tolist() == [False, True, False]
    assert not verdict(profile, few, minimum_rows=200)["drifted"].any()


def test_one_day_is_judged_by_the_whole_of_alpha(profile: ReferenceProfile) -> None:
    today = day(profile, values(np.random.default_rng(7), 500))
    alone, among = verdict(profile, [today], days=1), verdict(profile, [today])
    divided = verdict(profile, [today], days=1, alpha=LIMITS.alpha / 2)
    assert (alone["critical"] < among["critical"]).all()
    pd.testing.assert_frame_equal(among, divided)


def test_rows_of_several_days_are_the_days_rows(profile: ReferenceProfile) -> None:
    rng = np.random.default_rng(8)
    parts = [values(rng, 300) for _ in range(3)]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in NAMES}
    joined = pool_counts([day(profile, part, (310, 10), amount=2) for part in parts])
    pd.testing.assert_frame_equal(
        joined, day(profile, whole, (930, 30), amount=6), check_dtype=False
    )
    window = window_stability(profile, [day(profile, part) for part in parts], LIMITS)
    assert (
        window["pooled_value"].tolist()
        == verdict(profile, [day(profile, part) for part in parts])["pooled_value"].tolist()
    )


@given(st.integers(0, 40), st.integers(1, 40), st.integers(0, 20), st.integers(60, 400))
def test_the_test_of_shares_is_fishers(bad: int, good: int, before: int, training: int) -> None:
    limits = LIMITS.model_copy(update={"minimum_rows": 1, "quality_floor": 0.0})
    found = quality_verdicts(
        np.array([bad]), np.array([bad + good]), np.array([before]), float(training), limits
    )
    if found.share[0] <= before / training:
        assert (found.p_value[0], found.failed[0]) == (1.0, False)
        return
    table = np.array([[bad, good], [before, training - before]])
    assert found.p_value[0] == pytest.approx(
        stats.fisher_exact(table, alternative="greater").pvalue, rel=1e-6
    )
    assert found.failed[0] == (found.p_value[0] <= LIMITS.alpha)


def test_values_beyond_both_ends_of_training_come_as_often_as_the_test_says() -> None:
    """The ends are the sample's own extremes, so some rows lie beyond them although nothing has moved."""
    rng = np.random.default_rng(9)
    training, rows, draws = 400, 200, 4_000
    old, new = rng.random((draws, training)), rng.random((draws, rows))
    beyond = ((new < old.min(axis=1)[:, None]) | (new > old.max(axis=1)[:, None])).sum(axis=1)
    limits = LIMITS.model_copy(update={"minimum_rows": 1, "quality_floor": -1.0})
    found = quality_verdicts(
        beyond[:, None], np.full((draws, 1), rows), np.ones((draws, 1)), float(training), limits
    )
    for level in (0.2, 0.05, 0.01):
        assert (found.p_value <= level).mean() <= level * 1.2
    assert (found.p_value <= 0.05).mean() > 0.015


def test_each_kind_of_bad_value_is_an_alarm_that_names_its_column(
    profile: ReferenceProfile,
) -> None:
    rng = np.random.default_rng(10)
    columns = values(rng, 500)
    columns["amount"][:8] = np.nan
    columns["status"][:6] = 7.0
    found = verdict(profile, [day(profile, columns, (510, 10))])
    assert found["broken"].tolist() == [True, True, True]
    assert found["quality_problem"].tolist() == ["rejected rows", "missing values", "new codes"]
    assert found["quality_share"].tolist() == pytest.approx([10 / 510, 8 / 500, 6 / 500])
    outside = verdict(profile, [day(profile, values(rng, 500), amount=9)])
    assert outside["broken"].tolist() == [False, True, False]
    assert outside.loc["amount", "quality_problem"] == "values out of range"


def test_a_few_bad_values_in_a_large_day_are_under_the_floor(profile: ReferenceProfile) -> None:
    found = verdict(
        profile,
        [day(profile, values(np.random.default_rng(11), 20_000), (20_080, 80), amount=90)],
    )
    assert not found["broken"].any()


def test_a_year_at_once_is_judged_as_each_day_alone(profile: ReferenceProfile) -> None:
    """The benchmark of error rates judges thousands of days at once, production one."""
    rng = np.random.default_rng(12)
    days = [day(profile, values(rng, 400, shift=0.1 * place)) for place in range(6)]
    expected = [profile.effective_counts(column) for column in profile.columns]
    actual = [
        np.stack([np.array(one["counts"][place]) for one in days]) for place in range(len(NAMES))
    ]
    year = stability_verdicts(expected, actual, LIMITS)
    for place, one in enumerate(days):
        alone = verdict(profile, [one], days=1)
        assert alone["drifted"].tolist() == year.drifted[place].tolist()
        assert alone["threshold"].tolist() == pytest.approx(year.threshold[place].tolist())
