"""Triage of an alarm by outcomes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.monitoring.triage import Action, Triage, triage
from creditrisk_assets.policy import PerformanceLimits

LIMITS = PerformanceLimits(alpha=0.001, floor=0.03)
VALIDATION = {"roc_auc": 0.78, "roc_auc_standard_error": 0.004}


def day_figures(**changes: float) -> dict[str, float]:
    """Two thousand decisions that turned out as they should."""
    calm = {
        "rows": 2_000.0,
        "bads": 440.0,
        "mean_pd": 0.22,
        "pd_variance": 0.13,
        "roc_auc": 0.78,
        "roc_auc_standard_error": 0.012,
        "expected_roc_auc": 0.78,
        "expected_roc_auc_standard_error": 0.011,
    }
    figures = calm | changes
    return figures | {"bad_rate": figures["bads"] / figures["rows"]} if figures["rows"] else figures


def weighed(*days: dict[str, float], limits: PerformanceLimits = LIMITS) -> Triage:
    return triage(
        {f"2026-02-{number:02d}": one for number, one in enumerate(days, 10)}, VALIDATION, limits
    )


def test_what_turned_out_as_expected_asks_for_nothing() -> None:
    found = weighed(day_figures())
    assert found.action is Action.NOTHING
    assert found.level_p_value == pytest.approx(1.0)


def test_an_auc_that_fell_with_the_population_is_no_reason_to_refit() -> None:
    """Customers who are all alike are harder to rank for every model; the PDs say so themselves."""
    assert weighed(day_figures(roc_auc=0.70, expected_roc_auc=0.70)).action is Action.NOTHING


def test_an_expectation_that_a_wrong_level_has_raised_is_not_held_against_the_ranking() -> None:
    found = weighed(day_figures(roc_auc=0.78, expected_roc_auc=0.84, bads=640))
    assert found.action is Action.RECALIBRATE


def test_a_ranking_below_both_figures_asks_for_a_refit_whatever_the_level_is() -> None:
    for bads in (440, 640):
        found = weighed(day_figures(roc_auc=0.70, bads=bads))
        assert found.action is Action.REFIT
        assert (
            "ranking fell (AUC 0.7000, 0.7800 at validation, 0.7800 by the PDs, p "
            in found.sentence
        )


def test_a_level_that_is_off_to_either_side_asks_for_a_recalibration() -> None:
    for bads in (330, 550):
        assert weighed(day_figures(bads=bads)).action is Action.RECALIBRATE


def test_small_differences_are_no_reason_however_many_rows_prove_them() -> None:
    many = day_figures(rows=2_000_000, bads=480_000, roc_auc=0.76, roc_auc_standard_error=0.0004)
    assert weighed(many).action is Action.NOTHING


def test_days_are_pooled() -> None:
    """Ten days prove together more than any single day."""
    weak = day_figures(rows=200, bads=44, roc_auc=0.70, roc_auc_standard_error=0.04)
    assert weighed(weak).action is Action.NOTHING
    found = weighed(*[weak] * 10)
    assert found.action is Action.REFIT
    assert found.since == "2026-02-10"
    assert "2,000 matured decisions of 2026-02-10 to 2026-02-19" in found.sentence


def test_days_of_one_class_count_for_the_level_alone() -> None:
    one_class = {"rows": 40.0, "bads": 0.0, "mean_pd": 0.22, "pd_variance": 0.13, "bad_rate": 0.0}
    found = weighed(one_class)
    assert found.ranking_p_value == 1.0
    assert "ranking holds (no AUC)" in found.sentence
    assert found.action is Action.RECALIBRATE


def test_without_a_matured_row_there_is_nothing_to_weigh() -> None:
    for days in ([], [{"rows": 0.0, "bads": 0.0}]):
        with pytest.raises(ValueError, match="without a matured row; valid: at least one"):
            weighed(*days)


@given(st.permutations(range(6)), st.integers(0, 2**32 - 1))
def test_the_order_of_days_does_not_matter(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    days = [
        day_figures(bads=int(rng.integers(300, 600)), roc_auc=float(rng.uniform(0.65, 0.8)))
        for _ in range(6)
    ]
    found, shuffled = weighed(*days), weighed(*(days[place] for place in order))
    assert found.action is shuffled.action
    assert math.isclose(found.ranking_p_value, shuffled.ranking_p_value, rel_tol=1e-6)
    assert math.isclose(found.level_p_value, shuffled.level_p_value, rel_tol=1e-6)


def test_calm_evidence_seldom_asks_for_anything() -> None:
    """4,000 simulated fortnights of 200 decisions a day by right PDs, seed 5, without floors: either test speaks in 0.2 %."""
    rng = np.random.default_rng(5)
    limits = PerformanceLimits(alpha=0.001, floor=0.0)
    spoke = 0
    for _ in range(4_000):
        days = [
            day_figures(rows=200, bads=int(rng.binomial(200, 0.22)), pd_variance=0.22 * 0.78,
                  roc_auc=0.78 + 0.035 * float(rng.standard_normal()), roc_auc_standard_error=0.035)
            for _ in range(14)
        ]  # fmt: skip
        spoke += weighed(*days, limits=limits).action is not Action.NOTHING
    assert spoke <= 20
