"""The figures of a day's decisions, whatever the batches that it is read in."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from creditrisk_assets.modelling.fairness import impact_by_group, protected_groups
from creditrisk_assets.monitoring.day_decisions import PD, PREDICTION, DecisionCounter, migration_of
from creditrisk_assets.portfolio.encoding import raw_matrix
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.card_customers import simulate

CUSTOMERS = simulate(700, 5)
CUSTOMERS[PD] = np.random.default_rng(5).beta(1, 4, len(CUSTOMERS))
CUSTOMERS[PREDICTION] = (CUSTOMERS[PD] >= 0.2).astype(np.int8)
BOUNDS = (0.1, 0.3)


@given(st.lists(st.integers(1, 699), unique=True, max_size=6))
@settings(max_examples=20, deadline=None)
def test_the_figures_do_not_depend_on_the_batches_and_are_those_of_the_rows(
    cuts: list[int],
) -> None:
    counter = DecisionCounter(PORTFOLIO)
    edges = [0, *sorted(cuts), len(CUSTOMERS)]
    for start, end in pairwise(edges):
        rows = CUSTOMERS[counter.columns].iloc[start:end]
        counter.add(pa.RecordBatch.from_pandas(rows, preserve_index=False))
    found = counter.document("2026-06-01", None, "3", None)
    approved = CUSTOMERS[PREDICTION] == 0
    loss = CUSTOMERS[PD] * CUSTOMERS["limit_bal"] * 0.75
    assert (found.rows, found.approved) == (700, int(approved.sum()))
    assert found.mean_pd == pytest.approx(CUSTOMERS[PD].mean())
    assert found.expected_loss == pytest.approx(loss.sum())
    assert found.approved_expected_loss == pytest.approx(loss[approved].sum())
    assert found.currency == "NT$"
    assert sum(grade.customers for grade in found.grades) == 700
    for grade in found.grades:
        inside = CUSTOMERS[(CUSTOMERS[PD] >= grade.pd_from) & (CUSTOMERS[PD] < grade.pd_to)]
        assert grade.customers == len(inside)
        assert grade.mean_pd == (pytest.approx(inside[PD].mean()) if len(inside) else None)
    protected = [one for one in PORTFOLIO.fields if one.name in PORTFOLIO.protected]
    numbers = dict(zip(PORTFOLIO.protected, raw_matrix(CUSTOMERS, protected).T, strict=True))
    of_rows = {
        (PORTFOLIO.fields[PORTFOLIO.field_names.index(one.field)].label, one.group): one
        for one in impact_by_group(approved.to_numpy(), protected_groups(PORTFOLIO, numbers))
    }
    judged = {(one.field, one.group): one for one in found.groups if one.ratio is not None}
    assert judged.keys() == of_rows.keys()
    for key, one in judged.items():
        assert one.ratio == pytest.approx(of_rows[key].ratio)
        assert one.rows == of_rows[key].n
    for field in {one.field for one in found.groups}:
        assert sum(one.rows for one in found.groups if one.field == field) == 700


def test_a_day_without_decisions_has_no_document() -> None:
    with pytest.raises(ValueError, match="no decisions; valid: at least one"):
        DecisionCounter(PORTFOLIO).document("2026-06-01", None, "3", None)


def decided(**probability: float) -> pa.Table:
    return pa.Table.from_pandas(
        pd.DataFrame({"customer": list(probability), PD: list(probability.values())})
    )


def test_a_customer_migrates_from_the_grade_of_the_latest_earlier_day() -> None:
    today = decided(ana=0.05, ben=0.2, cem=0.5, new=0.05)
    yesterday = decided(ana=0.2, other=0.9)
    before = decided(ana=0.9, ben=0.2, cem=0.05)
    found = migration_of(today, [yesterday, before], "customer", BOUNDS, "2026-05-01")
    assert found is not None
    assert found.grades == ("A", "B", "C")
    # ana: B to A; ben: B to B; cem: A to C.
    assert found.customers == ((0, 0, 1), (1, 1, 0), (0, 0, 0))


def test_without_a_customer_of_an_earlier_day_there_is_no_migration() -> None:
    assert migration_of(decided(ana=0.1), [decided(ben=0.1)], "customer", BOUNDS, "x") is None
    assert migration_of(decided(ana=0.1), [], "customer", BOUNDS, "x") is None
