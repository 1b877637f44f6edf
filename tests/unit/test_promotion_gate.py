"""Whether a challenger replaces the champion: nothing is promoted without evidence."""

import numpy as np
import pytest

from creditrisk_assets.governance.promotion_gate import GateLimits, HeldOutRows, Verdict, judge
from creditrisk_assets.modelling.metrics import ranking_and_calibration
from creditrisk_assets.scoring.bundle import Bundle
from tests.unit.helpers import bundle_of_column, logistic

LIMITS = GateLimits(minimum_bads=50, minimum_gain=0.0, alpha=0.05)
TRUE, NOISY, VERY_NOISY = 0, 1, 2


@pytest.fixture(scope="module")
def bundles() -> dict[int, Bundle]:
    """Bundles whose PD is the truth, the truth with some noise, and with much."""
    return {column: bundle_of_column(column, 3) for column in (TRUE, NOISY, VERY_NOISY)}


def held_out(rows: int, seed: int) -> HeldOutRows:
    """Rows of three columns: the true log-odds of the outcome, and two noisy views of them."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1.3, 1.2, rows)
    raw = np.column_stack([truth, truth + rng.normal(0, 0.5, rows), truth + rng.normal(0, 1.5, rows)]).astype(np.float32)
    return HeldOutRows(raw, (rng.random(rows) < logistic(truth)).astype(np.int64), "rows made for this test")


def test_a_challenger_that_ranks_better_beyond_chance_is_promoted_with_the_figures_of_both(bundles: dict[int, Bundle]) -> None:
    rows = held_out(4_000, 1)
    verdict = judge(bundles[TRUE], bundles[NOISY], rows, LIMITS)
    assert verdict.verdict == "promoted"
    for figures, column in ((verdict.challenger, TRUE), (verdict.champion, NOISY)):
        probability = bundles[column].score(rows.raw).default_probability
        assert figures == ranking_and_calibration(rows.target, probability)
    assert np.array_equal(verdict.probabilities["challenger"], bundles[TRUE].score(rows.raw).default_probability)
    assert np.array_equal(verdict.probabilities["champion"], bundles[NOISY].score(rows.raw).default_probability)
    gain = verdict.challenger["roc_auc"] - verdict.champion["roc_auc"]
    for told in (f"({gain:+.4f}, p ", f"AUC {verdict.challenger['roc_auc']:.4f} against", "on rows made for this test"):
        assert told in verdict.reason


def test_the_first_model_is_first_and_says_how_good_it_is(bundles: dict[int, Bundle]) -> None:
    verdict = judge(bundles[TRUE], None, held_out(1_000, 1), LIMITS)
    assert verdict.verdict == "first"
    assert verdict.champion == {}
    assert f"AUC {verdict.challenger['roc_auc']:.4f}" in verdict.reason


@pytest.mark.parametrize("champion", [None, NOISY])
@pytest.mark.parametrize(("bads", "goods"), [(49, 500), (500, 49), (0, 500), (500, 0), (0, 0)])
def test_too_few_held_out_bads_or_goods_promote_nobody(
    bundles: dict[int, Bundle], champion: int | None, bads: int, goods: int
) -> None:
    """The gate fails closed: seen elsewhere, "missing; continuing without check". That holds for the first model too."""
    target = np.repeat([1, 0], [bads, goods])
    rows = HeldOutRows(np.zeros((bads + goods, 3), dtype=np.float32), target, "few rows")
    verdict = judge(bundles[TRUE], None if champion is None else bundles[champion], rows, LIMITS)
    assert verdict.verdict == "kept"
    assert verdict.reason == f"no evidence: {bads} bads and {goods} goods held out (few rows); 50 of each needed to judge"
    assert (verdict.champion, verdict.challenger, verdict.probabilities) == ({}, {}, {})


def test_as_many_bads_as_needed_are_enough(bundles: dict[int, Bundle]) -> None:
    target = np.repeat([1, 0], [50, 50])
    rows = HeldOutRows(np.random.default_rng(1).normal(size=(100, 3)).astype(np.float32), target, "just enough")
    assert judge(bundles[TRUE], None, rows, LIMITS).verdict == "first"


def test_a_challenger_that_ranks_worse_is_not_promoted(bundles: dict[int, Bundle]) -> None:
    verdict = judge(bundles[VERY_NOISY], bundles[TRUE], held_out(4_000, 1), LIMITS)
    assert verdict.verdict == "kept"
    assert verdict.reason.startswith("AUC gain not above 0.0: ")


def test_the_same_model_again_is_not_promoted(bundles: dict[int, Bundle]) -> None:
    """A retrain that finds nothing new must not move the alias, and a standard error of zero must not become certainty."""
    for limits in (LIMITS, GateLimits(50, -0.1, 0.05)):
        assert judge(bundles[TRUE], bundles[TRUE], held_out(4_000, 1), limits).verdict == "kept"


def test_a_gain_that_may_be_chance_is_not_promoted_and_says_so(bundles: dict[int, Bundle]) -> None:
    """The same pair of models that more rows tell apart."""
    few = judge(bundles[TRUE], bundles[NOISY], held_out(250, 3), LIMITS)
    assert few.challenger["roc_auc"] > few.champion["roc_auc"]
    assert few.verdict == "kept"
    assert few.reason.startswith("AUC gain may be chance, p not below 0.05: ")


def test_a_certain_gain_below_the_minimum_is_not_promoted(bundles: dict[int, Bundle]) -> None:
    rows = held_out(4_000, 1)
    gain = judge(bundles[TRUE], bundles[NOISY], rows, LIMITS)
    difference = gain.challenger["roc_auc"] - gain.champion["roc_auc"]
    verdicts = [
        judge(bundles[TRUE], bundles[NOISY], rows, GateLimits(50, minimum, 0.05)).verdict
        for minimum in (difference - 1e-6, difference + 1e-6)
    ]
    assert verdicts == ["promoted", "kept"]


def test_a_stricter_alpha_keeps_what_a_looser_one_promotes(bundles: dict[int, Bundle]) -> None:
    rows = held_out(600, 4)
    verdicts = [judge(bundles[TRUE], bundles[NOISY], rows, GateLimits(50, 0.0, alpha)) for alpha in (0.49, 1e-9)]
    assert [verdict.verdict for verdict in verdicts] == ["promoted", "kept"]


def test_a_challenger_that_ranks_better_with_a_wrong_level_is_not_promoted() -> None:
    """Ranking decides who is declined; the level decides what they are charged and held against."""
    rows = held_out(4_000, 1)
    verdict = judge(bundle_of_column(TRUE, 3, shift=2.5), bundle_of_column(NOISY, 3), rows, LIMITS)
    assert verdict.verdict == "kept"
    assert verdict.reason.startswith("ranks better but Brier is worse: ")
    assert verdict.challenger["roc_auc"] > verdict.champion["roc_auc"]
    assert verdict.challenger["brier"] > verdict.champion["brier"]


def test_a_verdict_with_pds_that_are_no_numbers_is_never_a_promotion() -> None:
    """NaN compares false with everything; a gate written the other way round would let it through."""
    rows = held_out(1_000, 1)
    raw = rows.raw.copy()
    raw[0, 0] = np.nan
    verdict: Verdict | None = None
    with pytest.raises(ValueError, match="NaN"):
        verdict = judge(bundle_of_column(TRUE, 3), bundle_of_column(NOISY, 3), HeldOutRows(raw, rows.target, "NaN"), LIMITS)
    assert verdict is None
