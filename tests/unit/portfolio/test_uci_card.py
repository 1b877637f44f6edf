"""The UCI card portfolio: its features, worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from creditrisk_assets.modelling.decision_graph import feature_matrix
from creditrisk_assets.portfolio.uci_card import BILL, PAID, PAY, PORTFOLIO, compute_features
from tests.support.examples import FloatMatrix

Months = NDArray[np.float64]
EXAMPLE_CUSTOMER = dict(PORTFOLIO.example)


def features_of(customer: dict[str, int]) -> dict[str, float]:
    raw = np.array([[customer[name] for name in PORTFOLIO.field_names]], dtype=np.float32)
    return dict(zip(PORTFOLIO.feature_names, compute_features(raw)[0].tolist(), strict=True))


def test_the_features_of_one_customer_are_what_a_person_works_out() -> None:
    """Each column of the matrix must be the feature whose name, direction and reason text it carries."""
    months = range(6)
    status, bills, paid = (
        [3, 1, -1, -2, 0, 2],
        [500, 400, 300, 200, 100, 0],
        [0, 50, 600, 70, 0, 10],
    )
    customer = EXAMPLE_CUSTOMER | {"limit_bal": 1_000}
    customer |= {PAY[month]: status[month] for month in months}
    customer |= {BILL[month]: bills[month] for month in months}
    customer |= {PAID[month]: paid[month] for month in months}
    expected = {
        "limit": 1_000,
        **{f"late_{month + 1}": value for month, value in enumerate([3, 1, 0, 0, 0, 2])},
        "late_max": 3,
        "months_late": 3,
        "months_very_late": 2,
        "late_sum": 6,
        "late_recency": 3 * 6 + 1 * 5 + 2 * 1,
        "months_without_consumption": 1,
        "months_paid_in_full": 1,
        **{f"utilisation_{month + 1}": bills[month] / 1_000 for month in months},
        "utilisation_mean": 0.25,
        "utilisation_max": 0.5,
        "utilisation_min": 0.0,
        **{f"bill_{month + 1}": bills[month] for month in months},
        "bill_mean": 250,
        "available": 1_000 - 500,
        "bill_movement": 100,
        "utilisation_movement": 0.1,
        "spending_of_limit": (500 - 0 + 720) / 5 / 1_000,
        **{f"paid_{month + 1}": paid[month] for month in months},
        "paid_mean": 730 / 6,
        "paid_min": 0,
        "paid_max": 600,
        "months_unpaid": 2,
        "paid_of_bill_1": 0 / 400,
        "paid_of_bill_2": 50 / 300,
        "paid_of_bill_3": 2.0,  # 600 / 200, capped
        "paid_of_bill_4": 70 / 100,
        "paid_of_bill_5": 0.0,  # nothing was due
        "paid_of_bills": 720 / 1_000,
        "paid_of_limit": 730 / 6 / 1_000,
        "balance_after_payments": (500 - 730) / 1_000,
        "utilisation_trend": 0.5 - 0.0,
        "late_trend": 3 - (1 + 2) / 5,
    }
    assert features_of(customer) == pytest.approx(expected, rel=1e-6)


def formulas(limit: float, status: Months, bill: Months, paid: Months) -> dict[str, float]:
    """Each feature in float64, one customer at a time; months from the latest to the oldest."""
    late = np.maximum(status, 0)
    bills_before, payments = bill[1:], paid[:-1]
    movement = np.abs(np.diff(bill)).mean()
    by_month = {
        "late": late,
        "utilisation": bill / limit,
        "bill": bill,
        "paid": paid,
        "paid_of_bill": np.minimum(payments / np.maximum(bills_before, 1), 2),
    }
    return {
        **{
            f"{name}_{month}": value
            for name, values in by_month.items()
            for month, value in enumerate(values, start=1)
        },
        "limit": limit,
        "late_max": late.max(),
        "months_late": (status > 0).sum(),
        "months_very_late": (status > 1).sum(),
        "late_sum": late.sum(),
        "late_recency": late @ [6, 5, 4, 3, 2, 1],
        "months_without_consumption": (status == -2).sum(),
        "months_paid_in_full": (status == -1).sum(),
        "utilisation_mean": bill.mean() / limit,
        "utilisation_max": bill.max() / limit,
        "utilisation_min": bill.min() / limit,
        "bill_mean": bill.mean(),
        "available": limit - bill[0],
        "bill_movement": movement,
        "utilisation_movement": movement / limit,
        "spending_of_limit": (bill[0] - bill[5] + payments.sum()) / 5 / limit,
        "paid_mean": paid.mean(),
        "paid_min": paid.min(),
        "paid_max": paid.max(),
        "months_unpaid": (paid == 0).sum(),
        "paid_of_bills": min(payments.sum() / np.maximum(bills_before.sum(), 1), 2),
        "paid_of_limit": paid.mean() / limit,
        "balance_after_payments": (bill[0] - paid.sum()) / limit,
        "utilisation_trend": (bill[0] - bill[5]) / limit,
        "late_trend": late[0] - late[1:].mean(),
    }


def six(values: st.SearchStrategy[float]) -> st.SearchStrategy[list[float]]:
    missing = st.just(float("nan"))
    return st.lists(values, min_size=6, max_size=6) | st.lists(
        values | missing, min_size=6, max_size=6
    )


AMOUNTS = st.integers(0, 2_500_000).map(float)
"""Six of them have a sum below 2^24, which float32 holds exactly."""

STATUS_CODES = st.integers(-3, 12).map(float)
"""The codes of the contract, -2 to 9, and numbers that are none."""


@given(
    limit=st.integers(1, 2**24).map(float),
    status=six(STATUS_CODES),
    bill=six(AMOUNTS | AMOUNTS.map(lambda amount: -amount)),
    paid=six(AMOUNTS | st.just(0.0)),
)
def test_every_feature_is_its_formula_in_numpy_and_in_the_graph(
    limit: float, status: list[float], bill: list[float], paid: list[float]
) -> None:
    protected = [0.0] * len(PORTFOLIO.protected)
    raw = np.array([[limit, *protected, *status, *bill, *paid]], dtype=np.float32)
    by_name = formulas(limit, np.array(status), np.array(bill), np.array(paid))
    assert sorted(by_name) == sorted(PORTFOLIO.feature_names)
    expected = np.array([[by_name[name] for name in PORTFOLIO.feature_names]])
    for features in (compute_features(raw), feature_matrix(PORTFOLIO, raw)):
        np.testing.assert_allclose(features, expected, rtol=1e-6, atol=1e-6)


def test_a_customer_who_owes_and_pays_nothing_has_only_finite_features() -> None:
    nothing = EXAMPLE_CUSTOMER | dict.fromkeys((*PAY, *BILL, *PAID), 0)
    assert np.isfinite(list(features_of(nothing).values())).all()
    in_credit = nothing | dict.fromkeys(BILL, -5_000)
    assert np.isfinite(list(features_of(in_credit).values())).all()


def test_no_feature_is_made_of_a_protected_field(raw: FloatMatrix) -> None:
    columns = [PORTFOLIO.field_names.index(name) for name in PORTFOLIO.protected]
    other = raw.copy()
    other[:, columns] = other[::-1, columns] + 1
    assert not np.array_equal(other, raw)
    assert np.array_equal(compute_features(other), compute_features(raw))


def test_every_feature_that_claims_a_direction_has_a_field_that_moves_it_that_way() -> None:
    """A payment status one month worse may only raise the features that claim to raise the risk; a larger payment may only lower them."""
    claims = {feature.name: feature.monotone for feature in PORTFOLIO.features}
    customer = (
        EXAMPLE_CUSTOMER
        | dict.fromkeys(PAY, 1)
        | dict.fromkeys(BILL, 5_000)
        | dict.fromkeys(PAID, 0)
    )
    before = features_of(customer)
    for name in PAY:
        moved = {
            key: value - before[key] for key, value in features_of(customer | {name: 3}).items()
        }
        assert all(change * claims[key] >= 0 for key, change in moved.items())
        assert any(change * claims[key] > 0 for key, change in moved.items())
    for name in PAID:
        moved = {
            key: value - before[key] for key, value in features_of(customer | {name: 900}).items()
        }
        assert all(change * claims[key] <= 0 for key, change in moved.items())
        assert any(change * claims[key] < 0 for key, change in moved.items())


def test_the_example_customer_is_one_that_the_contract_accepts() -> None:
    for field in PORTFOLIO.fields:
        value = EXAMPLE_CUSTOMER[field.name]
        if field.codes is not None:
            assert value in field.codes
        else:
            assert (field.minimum or 0) <= value <= (field.maximum or 0)


def test_protected_fields_stay_in_the_record_for_fairness_monitoring() -> None:
    assert set(PORTFOLIO.protected) == {"sex", "education", "marriage", "age"}
    assert set(PORTFOLIO.protected) <= set(PORTFOLIO.field_names)


def test_fields_become_the_input_columns_in_the_published_order() -> None:
    """The graph knows columns only by place: a changed order would score every customer on another's fields."""
    assert PORTFOLIO.field_names == [
        "limit_bal",
        "sex",
        "education",
        "marriage",
        "age",
        *("pay_0", "pay_2", "pay_3", "pay_4", "pay_5", "pay_6"),
        *(f"bill_amt{month}" for month in range(1, 7)),
        *(f"pay_amt{month}" for month in range(1, 7)),
    ]
