"""Policy over a PD: rules, grades with the Jeffreys test, expected loss and the trade-off of each cut-off."""

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from creditrisk_assets.governance.policy import (
    ScoredEvidence,
    rule_of,
    score_held_out,
    trade_off_table,
)
from creditrisk_assets.modelling.grades import grade_table, grades_of
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import REFERENCE, Bundle
from tests.support.examples import TINY

BOUNDS = (0.1, 0.2, 0.4)


def test_without_a_policy_the_rule_is_the_models_own(bundle: Bundle) -> None:
    assert rule_of(bundle, None) == bundle.manifest.rule


def test_a_policys_cut_off_comes_with_the_profile_of_its_own_marginal_customer(
    bundle: Bundle,
) -> None:
    """A stricter cut-off compares with better customers."""
    strict, loose = rule_of(bundle, 0.08), rule_of(bundle, 0.6)
    assert (strict.cut_off, loose.cut_off) == (0.08, 0.6)
    profiles = np.array([strict.reference, loose.reference], dtype=np.float32)
    better, worse = bundle.score(profiles).default_probability
    assert better < worse < 0.6
    assert better < 0.08


def test_the_models_own_cut_off_as_a_policy_gives_nearly_the_models_own_rule(
    bundle: Bundle,
) -> None:
    """The reference rows in the bundle are all training rows here, only in another order."""
    reference = pd.read_parquet(io.BytesIO(bundle.document(REFERENCE)))
    assert len(reference) == bundle.manifest.training.rows
    assert rule_of(bundle, bundle.manifest.cut_off) == bundle.manifest.rule


def test_a_cut_off_that_approves_nobody_is_refused(bundle: Bundle) -> None:
    with pytest.raises(
        ValueError, match=r"cut-off 1e-09: none of .* is under it; valid: above 0\."
    ):
        rule_of(bundle, 1e-9)


def test_a_pd_at_a_bound_is_in_the_worse_grade() -> None:
    assert grades_of(np.array([0.0, 0.0999, 0.1, 0.2, 0.39, 0.4, 1.0]), BOUNDS).tolist() == [
        0,
        0,
        1,
        2,
        2,
        3,
        3,
    ]


def test_the_grade_table_has_the_jeffreys_posterior_of_each_grade() -> None:
    probability = np.array([0.05] * 200 + [0.15] * 100 + [0.5] * 50)
    target = np.array([1] * 25 + [0] * 175 + [1] * 15 + [0] * 85 + [1] * 25 + [0] * 25)
    table = grade_table(probability, target, BOUNDS)
    assert table["grade"].tolist() == ["A", "B", "C", "D"]
    assert table["customers"].tolist() == [200, 100, 0, 50]
    assert table["bads"].tolist() == [25, 15, 0, 25]
    p_value, low, high = (table[name].to_numpy(dtype=float) for name in ("p_value", "low", "high"))
    assert p_value[0] == pytest.approx(stats.beta(25.5, 175.5).cdf(0.05))
    assert p_value[0] < 0.001  # twelve in a hundred where five were said
    assert 0.3 < p_value[1] < 0.7
    assert low[1] < 0.15 < high[1]
    assert np.isnan([p_value[2], low[2], high[2]]).all()
    assert np.isnan(table["bad_rate"].to_numpy(dtype=float)[2])


def test_the_jeffreys_test_of_a_true_pd_fails_as_often_as_it_says() -> None:
    """500 grades of 400 customers with a PD that is true, seed 1: at 5 %, between 2.5 and 7.5 % fail."""
    rng = np.random.default_rng(1)
    failed = 0
    for _ in range(500):
        target = (rng.random(400) < 0.15).astype(np.int64)
        failed += (
            float(
                grade_table(np.full(400, 0.15), target, BOUNDS)["p_value"].to_numpy(dtype=float)[1]
            )
            < 0.05
        )
    assert 0.025 < failed / 500 < 0.075


@given(
    probability=st.lists(st.floats(0.001, 0.999), min_size=1, max_size=60),
    bads=st.lists(st.booleans(), min_size=60, max_size=60),
    cut_off=st.floats(0.01, 0.99),
)
def test_each_cut_off_of_the_trade_off_approves_exactly_who_is_under_it(
    probability: list[float], bads: list[bool], cut_off: float
) -> None:
    pds, target = np.array(probability), np.array(bads[: len(probability)], dtype=np.int64)
    table = trade_off_table(ScoredEvidence(pds, target, pds * 100), [cut_off])
    assert table["cut_off"].is_monotonic_increasing
    assert (table["approval_rate"].diff().dropna() >= 0).all()
    assert table["approval_rate"].iloc[-1] == 1
    assert cut_off in set(table["cut_off"])
    for row in table.to_dict("records"):
        approved = pds < row["cut_off"]
        assert row["approval_rate"] == approved.mean()
        if approved.any():
            assert row["bad_rate"] == target[approved].mean()
            assert row["expected_loss"] == pytest.approx((pds[approved] * 100).mean())
        else:
            assert np.isnan(row["bad_rate"])


def test_the_approval_rates_of_the_table_are_reached_where_pds_differ() -> None:
    pds = np.arange(1, 1_001) / 1_001
    table = trade_off_table(ScoredEvidence(pds, (pds > 0.5).astype(np.int64), None), [])
    assert table["approval_rate"].tolist() == pytest.approx(
        [step / 100 for step in range(5, 101, 5)]
    )
    assert table["expected_loss"].isna().all()


def test_expected_loss_is_pd_times_lgd_times_ead(bundle: Bundle) -> None:
    judged = score_held_out(
        bundle, dataclasses.replace(PORTFOLIO, loss_given_default=0.5, exposure_share=0.4)
    )
    assert judged.expected_loss is not None
    evidence = pd.read_parquet(io.BytesIO(bundle.document("extra_files/held_out.parquet")))
    assert np.allclose(
        judged.expected_loss,
        judged.probability * 0.5 * 0.4 * evidence["limit_bal"].to_numpy(dtype=float),
    )
    assert np.array_equal(judged.target, evidence[PORTFOLIO.target])
    assert TINY.exposure is None
