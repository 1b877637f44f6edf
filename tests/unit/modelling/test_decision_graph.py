"""The graph that decides: it is scikit-learn's model, no more and no less, and it keeps the promises about directions."""

import numpy as np
import pytest
import skops.io
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier

from creditrisk_assets.modelling.bundling import PARITY_TOLERANCE
from creditrisk_assets.modelling.calibration import calibrated_pd
from creditrisk_assets.modelling.decision_graph import build_graphs, feature_matrix
from creditrisk_assets.modelling.training import TrainingRows, fit, predict
from creditrisk_assets.portfolio.uci_card import BILL, PAID, PAY, PORTFOLIO, compute_features
from creditrisk_assets.scoring.bundle import CLASSIFIER, Bundle, Scaling, open_session
from tests.support.examples import FloatMatrix, plain_portfolio

EXAMPLE_CUSTOMER = dict(PORTFOLIO.example)


@pytest.fixture(scope="module")
def classifier(bundle: Bundle) -> HistGradientBoostingClassifier:
    """The scikit-learn model of the bundle, as stored for audit."""
    content = bundle.document(CLASSIFIER)
    return skops.io.loads(
        content, trusted=["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]
    )


def column(name: str) -> int:
    return PORTFOLIO.field_names.index(name)


def test_the_graph_gives_scikit_learns_pd_on_customers_never_seen(
    bundle: Bundle, classifier: HistGradientBoostingClassifier, raw: FloatMatrix
) -> None:
    """A conversion can go wrong silently: seen, 99 % of rows off by up to 0.36."""
    log_odds = classifier.decision_function(feature_matrix(PORTFOLIO, raw))
    expected = calibrated_pd(bundle.manifest.calibration, log_odds)
    assert np.abs(bundle.score(raw).default_probability - expected).max() < PARITY_TOLERANCE
    assert np.ptp(expected) > 0.3


def test_the_graph_gives_scikit_learns_pd_where_values_are_neighbours_in_float32() -> None:
    """Splits lie halfway between two values, in float64; rounded to the nearest float32 they become the larger of two
    neighbours, and the graph sends it the other way (seen: a PD off by 0.0058).
    """
    rng = np.random.default_rng(1)
    low = rng.uniform(0.1, 1.0, 8).astype(np.float32)
    high = np.nextafter(low, np.float32(2))
    upper = rng.random((600, 8)) < 0.5
    raw = np.where(upper, high, low)
    target = (rng.random(600) < 0.1 + 0.1 * upper.sum(axis=1)).astype(np.int64)
    portfolio = plain_portfolio(8)
    fitted = fit(portfolio, TrainingRows(raw, raw, target, np.ones(600, dtype=np.int64)))
    session = open_session(
        build_graphs(portfolio, fitted.model, fitted.calibration, Scaling()).decision
    )
    probability = session.run(["default_probability"], {"raw": raw})[0]
    expected = predict(fitted, raw)
    assert np.abs(probability - expected).max() < PARITY_TOLERANCE
    one_higher = np.where(np.eye(8, dtype=bool), high, low)
    assert (
        predict(fitted, one_higher) > predict(fitted, low[None])
    ).all()  # the model splits every pair of neighbours


def test_the_same_model_gives_the_same_bytes_of_graph() -> None:
    rng = np.random.default_rng(1)
    raw = rng.integers(0, 1_000, (300, 2)).astype(np.float32)
    target = (rng.random(300) * 1_000 < raw[:, 0]).astype(np.int64)
    portfolio = plain_portfolio(2)
    fitted = fit(portfolio, TrainingRows(raw, raw, target, np.ones(300, dtype=np.int64)))
    graphs = {
        build_graphs(portfolio, fitted.model, fitted.calibration, Scaling()) for _ in range(3)
    }
    assert len(graphs) == 1


def test_features_are_those_of_the_portfolios_function_and_do_not_depend_on_neighbouring_rows(
    raw: FloatMatrix,
) -> None:
    together = feature_matrix(PORTFOLIO, raw)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, compute_features(raw), rtol=1e-5, atol=1e-5)
    alone = np.concatenate([feature_matrix(PORTFOLIO, raw[row : row + 1]) for row in range(100)])
    assert np.array_equal(alone, together[:100])


def test_no_protected_field_moves_the_pd_by_a_bit(bundle: Bundle, raw: FloatMatrix) -> None:
    before = bundle.score(raw)
    fields = {field.name: field for field in PORTFOLIO.fields}
    for name in PORTFOLIO.protected:
        for value in (fields[name].minimum, fields[name].maximum):
            other = raw.copy()
            other[:, column(name)] = value
            after = bundle.score(other)
            assert np.array_equal(after.default_probability, before.default_probability)
            assert np.array_equal(after.score, before.score)


def test_every_other_field_can_move_the_pd(bundle: Bundle, raw: FloatMatrix) -> None:
    """The counterpart: a graph that ignored its input, or read other columns, would pass the test above."""
    before = bundle.score(raw).default_probability
    for name in PORTFOLIO.field_names:
        if name not in PORTFOLIO.protected:
            other = raw.copy()
            other[:, column(name)] = np.roll(other[:, column(name)], 1)
            assert not np.array_equal(bundle.score(other).default_probability, before), name


@given(
    months=st.lists(st.integers(0, 8), min_size=6, max_size=6).filter(
        lambda months: sum(months[1:]) % 5 == 0
    ),
    amounts=st.lists(st.integers(0, 500_000), min_size=13, max_size=13),
)
def test_being_a_month_later_in_every_month_never_lowers_the_pd(
    bundle: Bundle, months: list[int], amounts: list[int]
) -> None:
    """For customers without a quiet month this moves only features that claim to raise the risk; the trend stays exactly
    what it was where the five older months sum to a multiple of five.
    """
    customer = (
        EXAMPLE_CUSTOMER
        | dict(zip(PAY, months, strict=True))
        | dict(zip((*BILL, *PAID), amounts[1:], strict=True))
    )
    customer["limit_bal"] = amounts[0] + 1
    later = customer | {name: months + 1 for name, months in zip(PAY, months, strict=True)}
    raw = np.array(
        [[one[name] for name in PORTFOLIO.field_names] for one in (customer, later)],
        dtype=np.float32,
    )
    moved = np.flatnonzero(np.diff(feature_matrix(PORTFOLIO, raw), axis=0)[0])
    assert all(PORTFOLIO.features[position].monotone == 1 for position in moved)
    before, after = bundle.score(raw).default_probability
    assert after >= before


def test_every_month_late_counts_somewhere_on_the_way_from_paid_to_nine_months_late(
    bundle: Bundle,
) -> None:
    """The counterpart: a constant PD would be monotone too."""
    raw = np.array(
        [
            [
                (EXAMPLE_CUSTOMER | dict.fromkeys(PAY, months))[name]
                for name in PORTFOLIO.field_names
            ]
            for months in range(10)
        ],
        dtype=np.float32,
    )
    probability = bundle.score(raw).default_probability
    assert (np.diff(probability) >= 0).all()
    assert probability[-1] > probability[0] + 0.2


@given(st.lists(st.integers(1, 2_000_000), min_size=2, max_size=8, unique=True).map(sorted))
def test_a_higher_limit_never_raises_the_pd_of_a_customer_without_balance_or_payment(
    bundle: Bundle, limits: list[int]
) -> None:
    """Without balance and payment the limit moves no feature but itself, and that claims to lower the risk."""
    empty = EXAMPLE_CUSTOMER | dict.fromkeys((*BILL, *PAID), 0)
    raw = np.array(
        [
            [(empty | {"limit_bal": limit})[name] for name in PORTFOLIO.field_names]
            for limit in limits
        ],
        dtype=np.float32,
    )
    assert (np.diff(bundle.score(raw).default_probability) <= 0).all()


def test_each_feature_that_claims_a_direction_moves_the_model_only_that_way(
    classifier: HistGradientBoostingClassifier, raw: FloatMatrix
) -> None:
    """The reasons stated to a customer depend on this."""
    features = feature_matrix(PORTFOLIO, raw[:150])
    claims = [
        (position, feature)
        for position, feature in enumerate(PORTFOLIO.features)
        if feature.monotone
    ]
    grids = [np.quantile(features[:, position], np.linspace(0, 1, 6)) for position, _ in claims]
    steps = []
    for (position, feature), grid in zip(claims, grids, strict=True):
        moved = np.repeat(features[None], len(grid), axis=0)
        moved[:, :, position] = grid[:, None]
        steps.append(
            feature.monotone
            * np.diff(np.stack([classifier.decision_function(one) for one in moved]), axis=0)
        )
    assert min(step.min() for step in steps) >= 0
    assert sum(step.max() > 0 for step in steps) > len(steps) / 2


def test_points_are_the_scaled_log_odds(bundle: Bundle, raw: FloatMatrix) -> None:
    """The score is offset - factor * ln(bad:good odds): the PD in other words, never a second opinion."""
    scores = bundle.score(raw)
    scaling = bundle.manifest.scaling
    log_odds = np.log(scores.default_probability) - np.log1p(-scores.default_probability)
    np.testing.assert_allclose(
        scores.score, scaling.offset - scaling.factor * log_odds, rtol=0, atol=1e-9
    )


def test_a_higher_pd_never_has_more_points(bundle: Bundle, raw: FloatMatrix) -> None:
    scores = bundle.score(raw)
    order = np.argsort(scores.default_probability, kind="stable")
    assert (np.diff(scores.score[order]) <= 0).all()


def test_six_hundred_points_are_odds_of_fifty_to_one_and_twenty_more_double_them() -> None:
    scaling = Scaling()
    points = [scaling.offset - scaling.factor * np.log(1 / odds) for odds in (50, 100, 200)]
    assert points == pytest.approx([600, 620, 640])
    other = Scaling(base_score=500, base_odds=10, points_to_double_odds=40)
    assert [other.offset + other.factor * np.log(odds) for odds in (10, 20)] == pytest.approx(
        [500, 540]
    )


def test_a_scaling_reaches_the_graph() -> None:
    rng = np.random.default_rng(2)
    plain = rng.integers(0, 1_000, (300, 2)).astype(np.float32)
    target = (rng.random(300) * 1_000 < plain[:, 0]).astype(np.int64)
    portfolio = plain_portfolio(2)
    fitted = fit(portfolio, TrainingRows(plain, plain, target, np.ones(300, dtype=np.int64)))
    scaling = Scaling(base_score=500, base_odds=1, points_to_double_odds=40)
    session = open_session(
        build_graphs(portfolio, fitted.model, fitted.calibration, scaling).decision
    )
    probability, score = session.run(["default_probability", "score"], {"raw": plain})
    np.testing.assert_allclose(
        score, 500 - 40 * np.log2(probability / (1 - probability)), atol=1e-9
    )
