"""A trial: what the champion says, and what it would say if its reasons were put right."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Bundle, DecisionRule
from serving.http.schemas import Alternative, WhatIfResponse
from serving.inference.champion_holder import LoadedChampion
from serving.pages.what_if import Value, what_if
from tests.support.examples import (
    HANDMADE,
    FloatMatrix,
    written_bundle,
)
from tests.support.holders import loaded

GROUPS = {reason.code: reason.fields for reason in PORTFOLIO.reasons}


@pytest.fixture(scope="module")
def champion(bundle: Bundle) -> LoadedChampion:
    return loaded(bundle)


def customer_of(row: FloatMatrix) -> dict[str, Value]:
    return {
        name: int(value) for name, value in zip(PORTFOLIO.field_names, row.tolist(), strict=True)
    }


def decided(champion: LoadedChampion, customer: dict[str, Value]) -> tuple[float, float, int]:
    """As `/predict` does it."""
    raw = champion.bundle.raw({name: [value] for name, value in customer.items()})
    one = champion.bundle.decide(raw, champion.record.rule)
    return float(one.default_probability[0]), float(one.score[0]), int(one.prediction[0])


def tried(champion: LoadedChampion, customer: dict[str, Value]) -> WhatIfResponse:
    return what_if(champion, customer, PORTFOLIO)


def helps(name: str, given: Value, instead: Value) -> bool:
    """Whether a change is one that a customer may be told to aim at: a larger payment or limit, a smaller bill, less delay."""
    assert isinstance(given, int | float)
    assert isinstance(instead, int | float)
    return instead > given if name.startswith(("pay_amt", "limit")) else instead < given


def numbers(alternative: Alternative) -> tuple[float, float, int]:
    return alternative.default_probability, alternative.score, alternative.prediction


@given(row=st.integers(0, 1_499))
def test_each_alternative_is_the_bundle_s_answer_on_the_changed_record_to_the_bit(
    champion: LoadedChampion, raw: FloatMatrix, row: int
) -> None:
    """A what-if that is not what the model says is worse than none."""
    customer = customer_of(raw[row])
    trial = tried(champion, customer)
    assert (trial.default_probability, trial.score, trial.prediction) == decided(champion, customer)
    reference = dict(zip(PORTFOLIO.field_names, champion.record.rule.reference, strict=True))
    put_right = [
        (one.instead, list(GROUPS[one.code])) for one in trial.reasons if one.instead is not None
    ]
    if trial.together is not None:
        put_right.append((trial.together, [name for _, names in put_right for name in names]))
    for alternative, names in put_right:
        changed = {change.field: change.instead for change in alternative.changes}
        assert changed == {
            name: reference[name] for name in names if helps(name, customer[name], reference[name])
        }
        assert {change.field: change.given for change in alternative.changes} == {
            name: customer[name] for name in changed
        }
        assert numbers(alternative) == decided(champion, {**customer, **changed})


def test_nobody_is_told_to_pay_less_or_to_owe_more(
    champion: LoadedChampion, raw: FloatMatrix
) -> None:
    """The reference profile is a customer, who has paid less in some month than the one who asks."""
    trials = [tried(champion, customer_of(row)) for row in raw[:300]]
    instead = [one.instead for trial in trials for one in trial.reasons] + [
        trial.together for trial in trials
    ]
    changes = [change for one in instead if one is not None for change in one.changes]
    assert len(changes) > 1_000
    assert all(helps(change.field, change.given, change.instead) for change in changes)


def test_what_is_proposed_for_a_reason_lowers_the_pd_and_otherwise_nothing_is(
    champion: LoadedChampion, raw: FloatMatrix
) -> None:
    trials = [tried(champion, customer_of(row)) for row in raw[:300]]
    proposed = [
        (trial, one.instead) for trial in trials for one in trial.reasons if one.instead is not None
    ]
    assert len(proposed) > 200
    assert all(
        instead.default_probability < trial.default_probability for trial, instead in proposed
    )
    assert all(instead.score > trial.score for trial, instead in proposed)
    assert all(instead.changes for _, instead in proposed)


def test_all_together_is_said_where_there_are_several_reasons(
    champion: LoadedChampion, raw: FloatMatrix
) -> None:
    trials = [tried(champion, customer_of(row)) for row in raw[:300]]
    several = [sum(one.instead is not None for one in trial.reasons) > 1 for trial in trials]
    assert {*several} == {True, False}
    assert all(
        (trial.together is not None) == more for trial, more in zip(trials, several, strict=True)
    )


def test_reasons_and_alternatives_are_those_of_the_rule_in_force(
    bundle: Bundle, raw: FloatMatrix
) -> None:
    """With another cut-off the customer just under it is another one."""
    reference: list[float | None] = [float(value) for value in raw[0]]
    other = loaded(bundle, DecisionRule(cut_off=0.01, reference=reference))
    assert tried(other, customer_of(raw[0])).reasons == ()
    (trial, *_) = [
        one for one in (tried(other, customer_of(row)) for row in raw[1:50]) if one.reasons
    ]
    assert trial.prediction == 1
    wanted = dict(zip(PORTFOLIO.field_names, reference, strict=True))
    assert all(
        change.instead == wanted[change.field]
        for one in trial.reasons
        if one.instead
        for change in one.instead.changes
    )


def test_a_customer_without_a_reason_has_no_alternative(tmp_path: Path) -> None:
    columns = ["column_0", "column_1", "column_2", "group", "bad"]
    bundle = written_bundle(
        tmp_path / "bundle", 0, pd.DataFrame(np.zeros((1, 5)), columns=columns)
    ).load()
    champion = loaded(bundle)
    trial = what_if(
        champion, {"column_0": -1.0, "column_1": 0.0, "column_2": 0.0, "group": 1}, HANDMADE
    )
    assert (trial.reasons, trial.together) == ((), None)
    risky = what_if(
        champion, {"column_0": 1.25, "column_1": 0.0, "column_2": 0.0, "group": 1}, HANDMADE
    )
    ((change,),) = [reason.instead.changes for reason in risky.reasons if reason.instead]
    assert (change.field, change.given, change.instead) == ("column_0", 1.25, 0.0)
    assert risky.together is None
