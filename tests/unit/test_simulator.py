"""Simulated customers and injected drift."""

import pandas as pd
import pytest

from creditrisk_assets.modelling.metrics import auc_gain
from creditrisk_assets.portfolio.contract import FLOAT32_EXACT_INTEGER, Field
from creditrisk_assets.portfolio.simulator import inject_drift, simulate
from creditrisk_assets.portfolio.uci_card import PAY, PORTFOLIO
from creditrisk_assets.portfolio.validation import target_field

FIELDS: tuple[Field, ...] = (*PORTFOLIO.fields, target_field(PORTFOLIO))


def outside(customers: pd.DataFrame) -> dict[str, int]:
    """How many values of each field the contract would refuse."""
    wrong = {}
    for field in FIELDS:
        values = customers[field.name]
        ok = values.isin(list(field.codes)) if field.codes is not None else values.between(field.minimum, field.maximum)
        wrong[field.name] = int((~ok).sum())
    return {name: count for name, count in wrong.items() if count}


def test_the_same_seed_gives_the_same_customers_and_another_seed_others() -> None:
    pd.testing.assert_frame_equal(simulate(200, 7), simulate(200, 7))
    assert not simulate(200, 7).equals(simulate(200, 8))


def test_customers_are_numbered_from_the_first_identifier_as_text() -> None:
    """Two days that share numbers would be the same customers."""
    assert simulate(3, 1, first_identifier=501)["id"].tolist() == ["501", "502", "503"]


def test_simulated_and_drifted_customers_satisfy_the_contract() -> None:
    customers = simulate(5_000, 3)
    assert outside(customers) == {}
    assert outside(inject_drift(customers, 4)) == {}
    assert outside(inject_drift(customers, 4, strength=3.0)) == {}


def test_about_a_fifth_defaults_and_late_payers_more_than_others() -> None:
    """The demo claims the shape of the UCI data: 22 % bad, and payment history that tells."""
    customers = simulate(20_000, 5)
    bad = customers[PORTFOLIO.target]
    assert 0.18 < bad.mean() < 0.26
    late = customers["pay_0"] >= 2
    assert bad[late].mean() > 2 * bad[~late].mean()


def test_drift_is_the_same_for_the_same_seed_and_leaves_its_input_alone() -> None:
    customers = simulate(300, 1)
    before = customers.copy()
    pd.testing.assert_frame_equal(inject_drift(customers, 9), inject_drift(customers, 9))
    pd.testing.assert_frame_equal(customers, before)


def test_drift_moves_limits_payment_statuses_and_what_makes_customers_default() -> None:
    customers = simulate(20_000, 5)
    drifted = inject_drift(customers, 6)
    assert drifted["limit_bal"].mean() == pytest.approx(1.5 * customers["limit_bal"].mean(), rel=0.02)
    assert (drifted["pay_0"] > customers["pay_0"]).mean() == pytest.approx(0.33, abs=0.02)
    rank = customers["pay_0"].to_numpy(dtype=float)
    told_before = auc_gain(customers[PORTFOLIO.target].to_numpy(), rank, 0 * rank)[0]
    told_after = auc_gain(drifted[PORTFOLIO.target].to_numpy(), rank, 0 * rank)[0]
    assert told_after < 0.8 * told_before
    untouched = ["id", "sex", "education", "marriage", "age", "bill_amt1", "pay_amt6"]
    pd.testing.assert_frame_equal(drifted[untouched], customers[untouched])


def test_drift_of_no_strength_leaves_everything_as_it_was() -> None:
    """Also for a limit as the UCI file has it: one customer of 30,000 has 327,680, no multiple of 10,000."""
    customers = simulate(300, 1)
    customers.loc[0, "limit_bal"] = 327_680
    pd.testing.assert_frame_equal(inject_drift(customers, 9, strength=0.0), customers)


def test_drift_never_improves_a_payment_status() -> None:
    """The contract knows nine months late; a customer there must not come back to eight."""
    customers = simulate(300, 1)
    customers.loc[:50, "pay_0"] = 9
    drifted = inject_drift(customers, 9)
    assert (drifted[list(PAY)] >= customers[list(PAY)]).all(axis=None)


def test_an_extreme_limit_stays_what_float32_can_hold() -> None:
    customers = simulate(10, 1)
    customers["limit_bal"] = FLOAT32_EXACT_INTEGER
    assert (inject_drift(customers, 9)["limit_bal"] == FLOAT32_EXACT_INTEGER).all()
