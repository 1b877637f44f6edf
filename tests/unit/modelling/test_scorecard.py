"""The scorecard: its graph is its table, bit for bit; its bins keep directions; its points add up to the score."""

from collections.abc import Callable
from dataclasses import replace

import ndonnx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from creditrisk_assets.modelling.decision_graph import build_graphs
from creditrisk_assets.modelling.scorecard import PARAMETERS, Scorecard
from creditrisk_assets.modelling.selection import Candidate
from creditrisk_assets.modelling.training import Fit, TrainingRows, fit, predict
from creditrisk_assets.portfolio.contract import Feature
from creditrisk_assets.scoring.bundle import Scaling, open_session
from creditrisk_assets.scoring.float32 import float32_floor
from tests.support.examples import FloatMatrix, logistic, plain_portfolio

WIDTH = 5
PORTFOLIO = replace(
    plain_portfolio(WIDTH),
    features=(
        Feature("rises", +1),
        Feature("falls", -1),
        Feature("free"),
        Feature("sparse", +1),
        Feature("noise"),
    ),
)
Scorer = Callable[[FloatMatrix], NDArray[np.float64]]
SCORECARD = Candidate("scorecard", Scorecard.fit)


def rows(count: int, seed: int) -> TrainingRows:
    """The first three columns tell something, the fourth is mostly missing, and missing is bad; the fifth is noise."""
    rng = np.random.default_rng(seed)
    raw = np.round(rng.gamma(2.0, 100.0, (count, WIDTH)), 1).astype(np.float32)
    known = rng.random(count) < 0.4
    raw[:, 3] = np.where(known, raw[:, 3], np.nan)
    free = np.abs(raw[:, 2] - 150) / 100
    log_odds = raw[:, 0] / 150 - raw[:, 1] / 150 + free - 1.0 * known - 1.0
    target = (rng.random(count) < logistic(log_odds.astype(np.float64))).astype(np.int64)
    return TrainingRows(raw, raw, target, np.ones(count, dtype=np.int64))


@pytest.fixture(scope="module")
def learned() -> TrainingRows:
    return rows(3_000, 1)


@pytest.fixture(scope="module")
def fitted(learned: TrainingRows) -> Fit:
    return fit(PORTFOLIO, learned, (SCORECARD,))


@pytest.fixture(scope="module")
def scorecard(fitted: Fit) -> Scorecard:
    assert isinstance(fitted.model, Scorecard)
    return fitted.model


@pytest.fixture(scope="module")
def in_graph(scorecard: Scorecard) -> Scorer:
    features = ndonnx.argument(shape=("N", WIDTH), dtype=ndonnx.float32)
    graph = ndonnx.build({"features": features}, {"log_odds": scorecard.in_graph(features)})
    session = open_session(graph.SerializeToString())
    return lambda features: session.run(["log_odds"], {"features": features})[0]


anything = st.one_of(
    st.floats(0, 1_000, width=32),
    st.sampled_from(
        [
            np.nan,
            np.inf,
            -np.inf,
            0.0,
            -0.0,
            float(np.finfo(np.float32).max),
            float(np.finfo(np.float32).tiny),
        ]
    ),
)


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 20), st.just(WIDTH)), elements=anything))
def test_the_graph_gives_the_same_bits_as_the_table_for_any_values(
    in_graph: Scorer, scorecard: Scorecard, features: FloatMatrix
) -> None:
    expected = scorecard.log_odds(features)
    assert np.array_equal(in_graph(features), expected)
    assert np.isfinite(expected).all()


def test_a_value_on_an_edge_and_its_neighbours_fall_into_the_same_bin_in_both(
    in_graph: Scorer, scorecard: Scorecard
) -> None:
    """In float64 an edge lies between two values; held as float32 it may become one of them."""
    cases = []
    for one in scorecard.features:
        for edge in one.edges:
            for value in (
                np.nextafter(edge, np.float32(-np.inf)),
                edge,
                np.nextafter(edge, np.float32(np.inf)),
            ):
                row = np.full(WIDTH, 100, dtype=np.float32)
                row[one.position] = value
                cases.append(row)
    features = np.stack(cases)
    expected = scorecard.log_odds(features)
    assert np.array_equal(in_graph(features), expected)
    assert (expected[1::3] == expected[0::3]).all()  # an edge belongs to the bin below it
    assert (expected[2::3] != expected[1::3]).any()


def test_a_row_has_the_same_bits_whatever_is_scored_beside_it(
    in_graph: Scorer, learned: TrainingRows
) -> None:
    together = in_graph(learned.features[:200])
    alone = np.concatenate([in_graph(learned.features[row : row + 1]) for row in range(10)])
    assert np.array_equal(together[:10], alone)


def test_the_decision_graph_of_a_scorecard_gives_its_pd(fitted: Fit, learned: TrainingRows) -> None:
    session = open_session(
        build_graphs(PORTFOLIO, fitted.model, fitted.calibration, Scaling()).decision
    )
    probability = session.run(["default_probability"], {"raw": learned.raw})[0]
    assert np.abs(probability - predict(fitted, learned.features)).max() < 1e-12
    assert np.ptp(probability) > 0.5


@given(
    hnp.arrays(np.float32, WIDTH, elements=anything),
    st.floats(0, 3_000, width=32),
    st.floats(0, 3_000, width=32),
)
def test_a_feature_that_claims_a_direction_never_moves_the_pd_the_other_way(
    scorecard: Scorecard, row: FloatMatrix, first: float, second: float
) -> None:
    for place, feature in enumerate(PORTFOLIO.features):
        if feature.monotone:
            pair = np.stack([row, row])
            pair[:, place] = sorted((first, second))
            low, high = scorecard.log_odds(pair)
            assert feature.monotone * (high - low) >= 0


def test_it_finds_what_matters_and_leaves_noise_out(scorecard: Scorecard) -> None:
    selected = {PORTFOLIO.feature_names[one.position] for one in scorecard.features}
    assert {"rises", "falls", "free", "sparse"} <= selected
    strongest = max(scorecard.features, key=lambda one: float(np.ptp(one.log_odds)))
    noise = [one for one in scorecard.features if PORTFOLIO.feature_names[one.position] == "noise"]
    assert all(np.ptp(one.log_odds) < 0.1 * np.ptp(strongest.log_odds) for one in noise)
    assert all(one.coefficient > 0 for one in scorecard.features)


def test_missing_values_have_a_bin_of_their_own_that_counts(
    scorecard: Scorecard, learned: TrainingRows
) -> None:
    """The fourth field is missing for the worse customers: a median in its place would hide them."""
    (sparse,) = [one for one in scorecard.features if one.position == 3]
    missing = np.isnan(learned.features[:, 3])
    assert sparse.rows[-1] == missing.sum()
    assert sparse.bads[-1] == learned.target[missing].sum()
    assert sparse.log_odds[-1] > sparse.log_odds[:-1].max()


def test_a_value_that_was_never_missing_counts_as_average_when_it_is(scorecard: Scorecard) -> None:
    (rises,) = [one for one in scorecard.features if one.position == 0]
    assert rises.rows[-1] == 0
    assert rises.woe[-1] == pytest.approx(0.0, abs=1e-12)


def test_bins_hold_at_least_the_least_share_of_known_rows(scorecard: Scorecard) -> None:
    for one in scorecard.features:
        known = one.rows[:-1]
        assert known.min() >= max(
            PARAMETERS["smallest_bin_share"] * known.sum(), PARAMETERS["smallest_bin_rows"]
        )
        assert len(known) <= PARAMETERS["bins"]


def test_the_points_of_the_table_add_up_to_the_score_of_the_graph(
    fitted: Fit, scorecard: Scorecard, learned: TrainingRows
) -> None:
    """The table is what a bank's people check a decision against."""
    scaling = Scaling()
    table = scorecard.table(PORTFOLIO.feature_names, fitted.calibration, scaling)
    assert table.columns.tolist() == ["feature", "bin", "share", "bad_rate", "woe", "points"]
    session = open_session(
        build_graphs(PORTFOLIO, fitted.model, fitted.calibration, scaling).decision
    )
    some = learned.raw[:50]
    score = session.run(["score"], {"raw": some})[0]
    added = np.full(50, table["points"].iloc[0])
    for one in scorecard.features:
        lines = table[table["feature"] == PORTFOLIO.feature_names[one.position]]
        assert lines["share"].sum() == pytest.approx(1.0)
        assert lines["bin"].iloc[-1] == "missing"
        added = added + lines["points"].to_numpy()[one.bins(some)]
    np.testing.assert_allclose(added, score, rtol=0, atol=1e-9)


def test_the_table_tells_the_bad_rates_of_the_training_rows(
    fitted: Fit, scorecard: Scorecard, learned: TrainingRows
) -> None:
    table = scorecard.table(PORTFOLIO.feature_names, fitted.calibration, Scaling())
    first = scorecard.features[0]
    inside = learned.features[:, first.position] <= first.edges[0]
    line = table.iloc[1]
    assert line["bin"] == f"up to {first.edges[0]:.6g}"
    assert line["share"] == pytest.approx(inside.mean())
    assert line["bad_rate"] == pytest.approx(learned.target[inside].mean())
    assert line["points"] * first.woe[0] > 0  # a safer bin has more points


def test_the_same_rows_give_the_same_scorecard_and_weights_count_as_rows(
    learned: TrainingRows,
) -> None:
    some = slice(0, 600)
    weight = np.where(learned.features[some, 0] > 150, 3, 1)
    ones = np.ones(int(weight.sum()), dtype=np.int64)
    features, target = learned.features[some], learned.target[some]
    weighted, again = (Scorecard.fit(PORTFOLIO, features, target, weight, 1) for _ in range(2))
    assert weighted.log_odds(features).tobytes() == again.log_odds(features).tobytes()
    repeated = Scorecard.fit(
        PORTFOLIO, np.repeat(features, weight, axis=0), np.repeat(target, weight), ones, 1
    )
    np.testing.assert_allclose(weighted.log_odds(features), repeated.log_odds(features), atol=0.02)


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=10))
def test_a_threshold_in_float32_sends_every_float32_the_way_the_exact_one_does(
    exact: list[float],
) -> None:
    thresholds = np.array(exact)
    held = float32_floor(thresholds)
    near = held[:, None] + np.zeros(3, dtype=np.float32)
    near[:, 0] = np.nextafter(held, np.float32(-np.inf))
    near[:, 2] = np.nextafter(held, np.float32(np.inf))
    assert np.array_equal(near <= held[:, None], near.astype(np.float64) <= thresholds[:, None])
