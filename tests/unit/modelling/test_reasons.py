"""Reasons: exact group Shapley values on the log-odds scale, given only for what truly raises the risk."""

import itertools
import math
from dataclasses import replace

import ndonnx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from creditrisk_assets.modelling.decision_graph import build_graphs
from creditrisk_assets.modelling.reasons import NO_REASON, reference_profile
from creditrisk_assets.portfolio.contract import Field, Portfolio, Reason
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import (
    Bundle,
    Calibration,
    DecisionRule,
    Scaling,
    open_session,
)
from tests.support.examples import FloatMatrix, plain_portfolio

NAN = float("nan")


def groups_of(count: int, width: int) -> Portfolio:
    """Fields in some groups, field k in group k modulo their number."""
    plain = plain_portfolio(width)
    reasons = tuple(
        Reason(f"R{group}", f"group {group}", tuple(plain.field_names[group::count]))
        for group in range(count)
    )
    return replace(plain, reasons=reasons)


class Products:
    """Log-odds with interactions of every order: the product of all 1 + x / 10, in float64; what is missing counts as 3."""

    def in_graph(self, features: ndonnx.Array) -> ndonnx.Array:
        known = ndonnx.where(
            ndonnx.isnan(features), ndonnx.asarray(3.0, dtype=ndonnx.float32), features
        )
        result = 1.0 + ndonnx.astype(known[:, 0], ndonnx.float64) / 10.0
        for column in range(1, int(features.shape[1] or 0)):
            result = result * (1.0 + ndonnx.astype(known[:, column], ndonnx.float64) / 10.0)
        return result


def products(row: np.ndarray) -> float:
    return float(np.prod(1 + np.where(np.isnan(row), 3.0, row).astype(np.float64) / 10))


def shapley(portfolio: Portfolio, row: np.ndarray, reference: np.ndarray) -> list[float]:
    """By its definition: the mean gain over all orders in which the groups are put in."""
    groups = [
        [portfolio.field_names.index(name) for name in reason.fields]
        for reason in portfolio.reasons
    ]
    gains = [0.0] * len(groups)
    for order in itertools.permutations(range(len(groups))):
        mixed = reference.copy()
        for group in order:
            before = products(mixed)
            mixed[groups[group]] = row[groups[group]]
            gains[group] += products(mixed) - before
    return [gain / math.factorial(len(groups)) for gain in gains]


cell = st.one_of(st.integers(-8, 8).map(float), st.just(NAN))


@settings(max_examples=10)  # each builds a graph
@given(groups=st.integers(1, 5), data=st.data())
def test_contributions_are_the_shapley_values_of_the_definition_and_reasons_follow_from_them(
    groups: int, data: st.DataObject
) -> None:
    width = groups + 2
    portfolio = groups_of(groups, width)
    rows = np.array(
        data.draw(st.lists(st.lists(cell, min_size=width, max_size=width), min_size=1, max_size=4)),
        dtype=np.float32,
    )
    reference = np.array(
        [data.draw(st.lists(cell, min_size=width, max_size=width))], dtype=np.float32
    )
    session = open_session(
        build_graphs(portfolio, Products(), Calibration(slope=1, intercept=0), Scaling()).reasons
    )
    contributions, reasons = session.run(
        ["contributions", "reasons"], {"raw": rows, "reference": reference}
    )
    for row, given_values, given_reasons in zip(rows, contributions, reasons, strict=True):
        expected = shapley(portfolio, row, reference[0])
        assert given_values == pytest.approx(expected, abs=1e-9)
        assert sum(given_values) == pytest.approx(products(row) - products(reference[0]), abs=1e-9)
        named = [place for place in given_reasons.tolist() if place != NO_REASON]
        assert named == sorted(named, key=lambda place: -given_values[place])
        assert given_reasons.tolist() == named + [NO_REASON] * (min(groups, 4) - len(named))
        for place in named:
            columns = [
                portfolio.field_names.index(name) for name in portfolio.reasons[place].fields
            ]
            back = row.copy()
            back[columns] = reference[0][columns]
            assert given_values[place] > 0
            assert products(back) < products(row)


def test_a_group_that_raises_the_risk_only_with_others_is_no_reason() -> None:
    """Told that, a customer who puts it right would be none the better."""
    portfolio = groups_of(2, 2)
    session = open_session(
        build_graphs(portfolio, Products(), Calibration(slope=1, intercept=0), Scaling()).reasons
    )
    # (1 + a)(1 + b): a = 0.5 with b = -1 changes nothing by itself, in the mean over both orders it raises the product.
    row, reference = np.array([[5, -10]], dtype=np.float32), np.array([[0, 0]], dtype=np.float32)
    contributions, reasons = session.run(
        ["contributions", "reasons"], {"raw": row, "reference": reference}
    )
    assert contributions[0, 0] > 0
    assert reasons[0].tolist() == [NO_REASON, NO_REASON]


def test_every_reason_put_back_alone_lowers_the_pd_and_no_bit_depends_on_the_batch(
    bundle: Bundle, raw: FloatMatrix
) -> None:
    rule = bundle.manifest.rule
    decisions = bundle.decide(raw, rule)
    codes = bundle.reason_codes(decisions)
    assert np.mean([len(one) for one in codes]) > 1
    for group, reason in enumerate(PORTFOLIO.reasons):
        with_reason = np.flatnonzero((decisions.reasons == group).any(axis=1))
        assert len(with_reason) > 20, reason.code
        back = raw[with_reason].copy()
        for name in reason.fields:
            place = PORTFOLIO.field_names.index(name)
            value = rule.reference[place]
            back[:, place] = NAN if value is None else value
        assert (
            bundle.score(back).default_probability < decisions.default_probability[with_reason]
        ).all(), reason.code
    inputs = {"reference": np.array([rule.reference], dtype=np.float32)}
    outputs = ["contributions", "default_probability"]
    together = bundle.reasons_session.run(outputs, {"raw": raw[:300], **inputs})
    alone = [
        bundle.reasons_session.run(outputs, {"raw": raw[row : row + 1], **inputs})
        for row in range(300)
    ]
    for place in range(2):
        assert np.array_equal(np.concatenate([one[place] for one in alone]), together[place])


def test_protected_fields_move_no_reason(bundle: Bundle, raw: FloatMatrix) -> None:
    before = bundle.decide(raw[:200], bundle.manifest.rule).reasons
    other = raw[:200].copy()
    for name in PORTFOLIO.protected:
        place = PORTFOLIO.field_names.index(name)
        other[:, place] = np.roll(other[:, place], 1)
    assert np.array_equal(bundle.decide(other, bundle.manifest.rule).reasons, before)


def test_the_reference_customer_has_no_reason(bundle: Bundle) -> None:
    rule = bundle.manifest.rule
    decisions = bundle.decide(np.array([rule.reference], dtype=np.float32), rule)
    assert bundle.reason_codes(decisions) == [[]]
    assert decisions.prediction.tolist() == [0]


def test_with_another_reference_other_things_raise_the_risk(
    bundle: Bundle, raw: FloatMatrix
) -> None:
    """The reference is an input, so that a new cut-off needs no new graph."""
    rule = bundle.manifest.rule
    other = DecisionRule(cut_off=rule.cut_off, reference=[float(value) for value in raw[0]])
    assert not np.array_equal(bundle.decide(raw, rule).reasons, bundle.decide(raw, other).reasons)
    assert bundle.reason_codes(bundle.decide(raw[:1], other)) == [[]]


def approving(raw: np.ndarray) -> np.ndarray:
    return np.zeros(len(raw))


def test_a_reference_that_would_be_refused_is_made_of_more_customers_and_at_last_of_the_nearest_one() -> (
    None
):
    """Compared with somebody who is refused himself, nobody would learn what to do."""
    raw = np.arange(2_000, dtype=np.float32)[:, None]
    probability = np.arange(2_000) / 2_000
    assert reference_profile(
        raw, probability, 0.75, lambda rows: np.where(rows[:, 0] > 1_000, 0.9, 0.1)
    ) == [999.0]
    assert reference_profile(raw, probability, 0.75, lambda rows: np.ones(len(rows))) == [1_499.0]


def test_the_reference_is_the_lower_median_of_the_customers_just_under_the_cut_off() -> None:
    rows = np.arange(2_000, dtype=np.float32)
    raw = np.column_stack(
        [rows, np.where(rows % 2 == 0, rows, NAN), np.where(rows % 3 == 0, rows, NAN)]
    )
    probability = rows.astype(np.float64) / 2_000
    reference = reference_profile(
        raw, probability, 0.75, approving
    )  # rows 1000 to 1499 are the nearest 500
    assert reference == [1_249.0, None, None]
    more = np.column_stack([rows, np.where(rows % 4 == 0, NAN, rows)])
    assert (
        reference_profile(more, probability, 0.75, approving)[1] == 1_250.0
    )  # of 375 values the one with 187 below it


def test_a_cut_off_under_every_pd_has_no_reference_and_says_what_is_valid() -> None:
    with pytest.raises(
        ValueError, match=r"cut-off 0\.1: none of 3 customers is under it; valid: above 0\.2"
    ):
        reference_profile(
            np.zeros((3, 1), dtype=np.float32), np.array([0.2, 0.3, 0.4]), 0.1, approving
        )


@pytest.mark.parametrize("count", [0, 7])
def test_a_portfolio_has_one_to_six_reasons(count: int) -> None:
    plain = plain_portfolio(8)
    reasons = (
        tuple(
            Reason(f"R{group}", "", tuple(plain.field_names[group::count]))
            for group in range(count)
        )
        if count
        else ()
    )
    with pytest.raises(ValueError, match=f"{count} reasons; valid: 1 to 6"):
        replace(plain, reasons=reasons)


@pytest.mark.parametrize("exposure", ["nothing", "sex"])
def test_the_exposure_is_an_amount_of_the_contract(exposure: str) -> None:
    with pytest.raises(ValueError, match=f"exposure '{exposure}'; valid: one of limit_bal"):
        replace(PORTFOLIO, exposure=exposure)
    assert isinstance(PORTFOLIO.fields[0], Field)
