"""Figures by which a PD is judged, against brute force, other implementations and simulation."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss

from creditrisk_assets.modelling.metrics import (
    auc_gain,
    auc_standard_error,
    average_precision,
    calibration_bins,
    calibration_slope,
    expected_calibration_error,
    kolmogorov_smirnov,
    ranking_and_calibration,
)
from tests.support.examples import logistic

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def pairwise(target: IntArray, probability: FloatArray) -> FloatArray:
    """Row for each bad, column for each good: 1 where the bad has the higher PD, a half for a tie."""
    bad, good = probability[target == 1], probability[target == 0]
    return np.asarray((bad[:, None] > good[None, :]) + 0.5 * (bad[:, None] == good[None, :]))


def delong_covariance(target: IntArray, first: FloatArray, second: FloatArray) -> float:
    """Covariance of two AUCs from all pairs (DeLong et al. 1988, equations 5 and 6)."""
    a, b = pairwise(target, first), pairwise(target, second)
    over_bads = np.cov(a.mean(axis=1), b.mean(axis=1))[0, 1] / a.shape[0]
    over_goods = np.cov(a.mean(axis=0), b.mean(axis=0))[0, 1] / a.shape[1]
    return float(over_bads + over_goods)


@st.composite
def judged(draw: st.DrawFn) -> tuple[IntArray, FloatArray, FloatArray]:
    """Outcomes with at least two of each class, and two sets of PDs with many ties."""
    rows = draw(st.integers(4, 30))
    target = draw(hnp.arrays(np.int64, rows, elements=st.integers(0, 1)))
    assume(2 <= target.sum() <= rows - 2)
    tied = hnp.arrays(np.int64, rows, elements=st.integers(0, 6))
    return target, draw(tied) / 7, draw(tied) / 7


@given(judged())
def test_the_standard_error_of_the_auc_is_delongs(
    case: tuple[IntArray, FloatArray, FloatArray],
) -> None:
    target, probability, _ = case
    expected = delong_covariance(target, probability, probability) ** 0.5
    assert auc_standard_error(target, probability) == pytest.approx(expected, abs=1e-9)


@given(judged())
def test_the_gain_and_its_error_are_delongs_for_paired_rows(
    case: tuple[IntArray, FloatArray, FloatArray],
) -> None:
    """var(A - B) = var A + var B - 2 cov: without the pairing a small true gain could never be shown."""
    target, challenger, champion = case
    gain, error = auc_gain(target, challenger, champion)
    assert gain == pytest.approx(
        pairwise(target, challenger).mean() - pairwise(target, champion).mean(), abs=1e-9
    )
    variance = (
        delong_covariance(target, challenger, challenger)
        + delong_covariance(target, champion, champion)
        - 2 * delong_covariance(target, challenger, champion)
    )
    assert error**2 == pytest.approx(variance, abs=1e-9)


def test_the_standard_error_agrees_with_a_bootstrap() -> None:
    rng = np.random.default_rng(1)
    target = (rng.random(400) < 0.25).astype(np.int64)
    probability = logistic(rng.normal(target * 0.8, 1.0))
    aucs = []
    for _ in range(1_000):
        rows = rng.integers(0, 400, 400)
        aucs.append(pairwise(target[rows], probability[rows]).mean())
    assert auc_standard_error(target, probability) == pytest.approx(np.std(aucs), rel=0.1)


def test_of_two_equally_good_models_one_is_called_better_as_often_as_the_test_says() -> None:
    """A paired test at 5 % that fired in 15 % would promote challengers by luck."""
    rng = np.random.default_rng(2)
    draws, false_alarms = 600, 0
    for _ in range(draws):
        target = (rng.random(300) < 0.25).astype(np.int64)
        truth = rng.normal(target * 0.8, 1.0)
        gain, error = auc_gain(
            target, truth + rng.normal(0, 0.5, 300), truth + rng.normal(0, 0.5, 300)
        )
        false_alarms += stats.norm.sf(gain / error) < 0.05
    assert 0.03 < false_alarms / draws < 0.075


def test_the_same_pds_gain_nothing() -> None:
    target, probability = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.5, 0.9])
    assert auc_gain(target, probability, probability) == (0.0, 0.0)


@pytest.mark.parametrize("target", [[1, 0, 0, 0, 0], [0, 1, 1, 1, 1]])
def test_a_single_bad_or_good_proves_nothing(target: list[int]) -> None:
    """Its variance cannot be estimated; zero would make any gain look certain."""
    probability = np.linspace(0.1, 0.9, 5)
    assert auc_standard_error(np.array(target), probability) == 0.5
    assert auc_gain(np.array(target), probability, -probability)[1] == 0.5


@given(judged())
def test_figures_of_ranking_do_not_change_when_every_pd_is_stretched_alike(
    case: tuple[IntArray, FloatArray, FloatArray],
) -> None:
    target, probability, _ = case
    before, after = (
        ranking_and_calibration(target, probability),
        ranking_and_calibration(target, probability**2 / 2 + 0.1),
    )
    ranking = [
        f"{name}{end}"
        for name in ("roc_auc", "gini", "ks", "average_precision")
        for end in ("", "_low", "_high")
    ]
    for name in ("roc_auc_standard_error", *ranking):
        assert after[name] == pytest.approx(before[name], abs=1e-12)
    assert before["roc_auc"] == pytest.approx(pairwise(target, probability).mean(), abs=1e-12)
    assert before["gini"] == pytest.approx(2 * before["roc_auc"] - 1, abs=1e-12)
    assert 0 <= before["roc_auc_low"] <= before["roc_auc"] <= before["roc_auc_high"] <= 1


def test_figures_of_four_customers_are_what_a_person_works_out() -> None:
    figures = ranking_and_calibration(np.array([0, 1, 0, 1]), np.array([0.2, 0.4, 0.6, 0.8]))
    assert figures["rows"] == 4
    assert figures["bads"] == 2
    assert figures["roc_auc"] == 0.75
    assert figures["gini"] == 0.5
    assert figures["ks"] == 0.5
    assert figures["brier"] == pytest.approx((0.04 + 0.36 + 0.36 + 0.04) / 4)
    assert figures["log_loss"] == pytest.approx(-np.log([0.8, 0.4, 0.4, 0.8]).mean())
    assert figures["ece"] == pytest.approx((0.2 + 0.6 + 0.6 + 0.2) / 4)
    assert figures["calibration_in_the_large"] == pytest.approx(0.0)
    assert figures["mean_pd"] == pytest.approx(0.5)
    assert figures["bad_rate"] == 0.5
    errors = np.array([0.04, 0.36, 0.36, 0.04])
    assert figures["brier_high"] - figures["brier"] == pytest.approx(
        1.959964 * errors.std(ddof=1) / 2
    )
    assert figures["calibration_in_the_large_low"] == pytest.approx(
        -figures["calibration_in_the_large_high"]
    )


@pytest.mark.parametrize("target", [[0, 0, 0], [1, 1, 1], []])
def test_outcomes_of_one_class_are_refused_with_their_number(target: list[int]) -> None:
    """An AUC of one class does not exist and must not become 0 or 0.5."""
    with pytest.raises(
        ValueError,
        match=f"{sum(target)} bads in {len(target)} rows; valid: at least one good and one bad",
    ):
        ranking_and_calibration(np.array(target, dtype=np.int64), np.full(len(target), 0.3))


def test_ks_is_the_distance_between_the_classes_and_is_reached_at_its_pd() -> None:
    rng = np.random.default_rng(3)
    target = (rng.random(500) < 0.3).astype(np.int64)
    probability = logistic(rng.normal(target * 1.0, 1.0))
    value, at = kolmogorov_smirnov(target, probability)
    bad, good = probability[target == 1], probability[target == 0]
    assert value == pytest.approx(stats.ks_2samp(bad, good).statistic)
    assert (bad >= at).mean() - (good >= at).mean() == pytest.approx(value)


def test_pds_that_are_right_have_a_small_calibration_error_and_shifted_ones_their_shift() -> None:
    rng = np.random.default_rng(4)
    truth = rng.uniform(0.1, 0.6, 20_000)
    target = (rng.random(20_000) < truth).astype(np.int64)
    assert expected_calibration_error(target, truth) < 0.02
    assert expected_calibration_error(target, truth + 0.3) == pytest.approx(0.3, abs=0.02)
    crossed = 0.7 - truth  # the level is right on average, every single PD is wrong
    assert ranking_and_calibration(target, crossed)["calibration_in_the_large"] == pytest.approx(
        0.0, abs=0.02
    )
    assert expected_calibration_error(target, crossed) > 0.2


@given(judged())
def test_every_row_is_in_one_calibration_bin(case: tuple[IntArray, FloatArray, FloatArray]) -> None:
    target, probability, _ = case
    bins = calibration_bins(target, probability)
    assert sum(len(outcomes) for outcomes, _ in bins) == len(target)
    assert len(bins) == min(10, len(target))
    assert np.array_equal(np.concatenate([pds for _, pds in bins]), np.sort(probability))
    assert sum(int(outcomes.sum()) for outcomes, _ in bins) == int(target.sum())


# Intervals


@given(judged())
def test_every_interval_holds_its_figure_and_only_values_that_it_can_have(
    case: tuple[IntArray, FloatArray, FloatArray],
) -> None:
    target, probability, _ = case
    figures = ranking_and_calibration(target, probability)
    named = [name.removesuffix("_low") for name in figures if name.endswith("_low")]
    least = {"gini": -1.0, "calibration_in_the_large": -1.0, "calibration_slope": -np.inf}
    for name in named:
        low, value, high = (figures[f"{name}{end}"] for end in ("_low", "", "_high"))
        assert least.get(name, 0.0) <= low <= value <= high, name
        assert high <= 1.0 or name in ("log_loss", "calibration_slope"), name
    wanted = {
        "roc_auc",
        "gini",
        "ks",
        "average_precision",
        "brier",
        "log_loss",
        "ece",
        "calibration_in_the_large",
    }
    assert wanted <= set(named)
    assert np.isfinite(list(figures.values())).all()


@given(judged())
def test_figures_agree_with_scikit_learn(case: tuple[IntArray, FloatArray, FloatArray]) -> None:
    target, probability, _ = case
    figures = ranking_and_calibration(target, probability)
    assert figures["average_precision"] == pytest.approx(
        average_precision_score(target, probability)
    )
    assert figures["brier"] == pytest.approx(brier_score_loss(target, probability))
    inside = np.clip(probability, 0.01, 0.99)
    assert ranking_and_calibration(target, inside)["log_loss"] == pytest.approx(
        log_loss(target, inside)
    )


def test_the_error_of_the_average_precision_agrees_with_a_bootstrap() -> None:
    """Ties included: PDs of grades have many."""
    rng = np.random.default_rng(6)
    target = (rng.random(600) < 0.25).astype(np.int64)
    probability = np.round(logistic(rng.normal(target * 1.2, 1.0)), 1)
    drawn = []
    for _ in range(400):
        rows = rng.integers(0, 600, 600)
        drawn.append(average_precision_score(target[rows], probability[rows]))
    estimate = average_precision(target, probability)
    assert (estimate.high - estimate.low) / (2 * 1.96) == pytest.approx(np.std(drawn), rel=0.1)


def truly(log_odds: FloatArray, bend: float) -> FloatArray:
    """True probability of customers whose PD is the logistic of their log-odds: right where `bend` is 1."""
    return logistic(-1.3 + bend * (log_odds + 1.3))


@pytest.mark.parametrize("bend", [1.0, 0.7])
def test_intervals_hold_the_true_figure_as_often_as_they_say(bend: float) -> None:
    """200 samples of 800 customers, seed 11; the truth is that of 400,000. With PDs that are right (1.0) and too bold (0.7).
    docs/evidence/model.md has the shares of a longer run.
    """
    rng = np.random.default_rng(11)

    def drawn(rows: int) -> tuple[IntArray, FloatArray]:
        log_odds = rng.normal(-1.3, 1.3, rows)
        return (rng.random(rows) < truly(log_odds, bend)).astype(np.int64), logistic(log_odds)

    truth = ranking_and_calibration(*drawn(400_000))
    if bend == 1.0:
        truth |= {"ece": 0.0, "calibration_in_the_large": 0.0, "calibration_slope": 1.0}
    names = [name.removesuffix("_low") for name in truth if name.endswith("_low")]
    held = dict.fromkeys(names, 0)
    for _ in range(200):
        figures = ranking_and_calibration(*drawn(800))
        for name in names:
            held[name] += figures[f"{name}_low"] <= truth[name] <= figures[f"{name}_high"]
    shares = {name: count / 200 for name, count in held.items()}
    assert all(
        0.90 <= share <= 0.99 for name, share in shares.items() if name not in ("ks", "ece")
    ), shares
    assert all(shares[name] >= 0.86 for name in ("ks", "ece")), shares


def test_the_calibration_slope_is_that_of_a_logistic_regression() -> None:
    rng = np.random.default_rng(8)
    log_odds = rng.normal(-1.0, 1.5, 3_000)
    target = (rng.random(3_000) < logistic(0.6 * log_odds - 0.5)).astype(np.int64)
    estimate = calibration_slope(target, logistic(log_odds))
    expected = LogisticRegression(C=np.inf, tol=1e-10).fit(log_odds[:, None], target).coef_[0, 0]
    assert estimate is not None
    assert estimate.value == pytest.approx(expected, abs=1e-4)
    assert estimate.low < 0.6 < estimate.high


@pytest.mark.parametrize(
    "probability", [[0.1, 0.2, 0.3, 0.4], [0.3, 0.3, 0.3, 0.3], [0.0, 0.0, 1.0, 1.0]]
)
def test_there_is_no_calibration_slope_of_classes_that_the_pd_separates_or_of_pds_all_alike(
    probability: list[float],
) -> None:
    """It would be infinite, or anything; JSON can hold neither and nobody could read it."""
    target = np.array([0, 0, 1, 1])
    assert calibration_slope(target, np.array(probability)) is None
    figures = ranking_and_calibration(target, np.array(probability))
    assert "calibration_slope" not in figures
    assert np.isfinite(list(figures.values())).all()
