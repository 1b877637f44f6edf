"""The form of a record: made from any contract, read as `/predict` reads it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.portfolio.contract import Feature, Field, Portfolio, Reason
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Bundle, DecisionRule, Scaling
from serving.http.schemas import request_model
from serving.pages import form
from serving.pages.scale import WIDTH, points_at, scale_of
from tests.support.examples import HANDMADE, TINY, written_bundle

LOANS = Portfolio(
    name="loans",
    title="Loans",
    identifier="contract",
    target="bad",
    target_description="bad",
    fields=(
        Field("purpose", "what the loan is for", codes={"car": "a car", "home": "the home"}),
        Field("income", "net income a month", "EUR", 0, 100_000, decimal=True, required=False),
        Field("arrears", "months in arrears (last twelve)", "months", 0, 12),
    ),
    protected=(),
    features=(Feature("purpose"),),
    compute_features=lambda raw: raw[:, :1],
    performance_window_days=31,
    reasons=(Reason("R01", "any", ("purpose", "income", "arrears")),),
)
"""A text code, a decimal that may be missing, and a whole number."""


def read(portfolio: Portfolio, **typed: str) -> tuple[dict[str, object] | None, dict[str, str]]:
    customer, problems = form.read(portfolio, request_model(portfolio), typed)
    return (form.values_of(portfolio, customer) if customer else None), problems


def test_what_is_typed_is_read_as_the_contract_has_it() -> None:
    assert read(LOANS, purpose=" car ", income="2150.5", arrears="2") == (
        {"purpose": "car", "income": 2150.5, "arrears": 2},
        {},
    )
    assert read(LOANS, purpose="car", income="", arrears="2.0", stranger="x") == (
        {"purpose": "car", "income": None, "arrears": 2},
        {},
    )
    assert read(TINY, amount="1,000", code="2") == ({"amount": 1_000, "code": 2}, {})


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("", "missing; valid: a whole number from 0 to 12 (months)"),
        ("two", "“two” is not valid; valid: a whole number from 0 to 12 (months)"),
        ("13", "“13” is not valid; valid: a whole number from 0 to 12 (months)"),
        ("1.5", "“1.5” is not valid; valid: a whole number from 0 to 12 (months)"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_valid(typed: str, problem: str) -> None:
    assert read(LOANS, purpose="car", arrears=typed) == (None, {"arrears": problem})


@pytest.mark.parametrize(
    "typed",
    ["nan", "inf", "1e3", "1_0", "٣", "1,5", "12,34", "0x10", "9" * 5_000, "1" + ",000" * 2_000],
)
def test_a_number_that_may_be_misread_is_refused(typed: str) -> None:
    """A decimal comma taken for a thousand would be another customer."""
    for field in ("income", "arrears"):
        customer, problems = read(LOANS, **{"purpose": "car", "arrears": "1", field: typed})
        assert customer is None
        assert set(problems) == {field}
        assert len(problems[field]) < 200


def test_a_comma_for_thousands_is_refused_in_a_decimal() -> None:
    assert set(read(LOANS, purpose="car", income="2,150", arrears="0")[1]) == {"income"}


@given(texts=st.fixed_dictionaries({name: st.text(max_size=20) for name in LOANS.field_names}))
def test_whatever_is_typed_there_is_a_customer_or_a_problem(texts: dict[str, str]) -> None:
    customer, problems = read(LOANS, **texts)
    assert (customer is None) == bool(problems)


def test_fields_of_a_reason_stand_together_and_the_protected_ones_last() -> None:
    made = form.groups(PORTFOLIO, {}, {})
    assert [group.title for group in made] == [
        "Payment status",
        "Credit limit, own and family",
        "Bill statement",
        "Amount paid",
        "Protected fields",
    ]
    assert [control.label for control in made[0].controls][:2] == ["September", "August"]
    assert [control.field.name for group in made for control in group.controls] == [
        *(name for reason in PORTFOLIO.reasons for name in reason.fields),
        *PORTFOLIO.protected,
    ]
    assert made[2].hint == "-16,777,216 to 16,777,216 NT$"
    assert [control.keyboard for control in (made[1].controls[0], made[2].controls[0])] == [
        "numeric",
        "text",
    ]
    assert "No feature of the model uses these fields" in made[-1].about


def test_a_group_without_shared_words_is_named_after_its_fields() -> None:
    (group,) = form.groups(LOANS, {"purpose": "car"}, {"income": "missing"})
    assert group.title == "What the loan is for; Net income a month; Months in arrears"
    assert [(one.label, one.typed, one.problem, one.hint) for one in group.controls] == [
        ("What the loan is for", "car", None, ""),
        ("Net income a month", "", "missing", "0 to 100,000 EUR"),
        ("Months in arrears", "", None, "Last twelve; 0 to 12 months"),
    ]


def test_examples_are_customers_of_the_bundle_that_can_be_sent_as_they_are(bundle: Bundle) -> None:
    rule = bundle.manifest.rule
    answers = {}
    for name in form.EXAMPLES:
        typed = form.example(name, bundle, rule)
        customer, problems = form.read(PORTFOLIO, request_model(PORTFOLIO), typed)
        assert customer is not None, problems
        raw = bundle.raw(
            {field: [value] for field, value in form.values_of(PORTFOLIO, customer).items()}
        )
        answers[name] = float(bundle.score(raw).default_probability[0])
    known = [one.default_probability for one in bundle.golden]
    assert (answers["good"], answers["bad"]) == (min(known), max(known))
    assert answers["borderline"] == min(known, key=lambda one: abs(one - rule.cut_off))


def test_examples_follow_the_cut_off_in_force(bundle: Bundle) -> None:
    strict = DecisionRule(cut_off=0.0, reference=bundle.manifest.rule.reference)
    assert form.example("borderline", bundle, strict) == form.example("good", bundle, strict)


def test_any_bundle_has_examples(tmp_path: Path) -> None:
    columns = ["column_0", "column_1", "column_2", "group", "bad"]
    bundle = written_bundle(
        tmp_path / "bundle", 0, pd.DataFrame(np.zeros((1, 5)), columns=columns)
    ).load()
    typed = form.example("borderline", bundle, bundle.manifest.rule)
    assert typed == {"column_0": "1", "column_1": "1", "column_2": "1", "group": "1"}
    assert form.read(HANDMADE, request_model(HANDMADE), typed)[0] is not None


def test_values_are_shown_with_meaning_and_unit() -> None:
    purpose, income, arrears = LOANS.fields
    assert form.format_value(purpose, "car") == "a car (car)"
    assert form.format_value(income, 2150.5) == "2,150.5 EUR"
    assert form.format_value(income, None) == "not stated"
    assert form.format_value(arrears, 3) == "3 months"


def test_the_score_of_the_cut_off_is_where_the_graph_would_put_it(bundle: Bundle) -> None:
    for one in bundle.golden:
        assert points_at(one.default_probability, bundle.manifest.scaling) == pytest.approx(
            one.score, abs=1e-6
        )
    assert points_at(0.0, Scaling()) is None
    assert points_at(1.0, Scaling()) is None


@given(
    score=st.floats(-5_000, 5_000),
    cut_off=st.floats(0, 1),
    others=st.lists(st.floats(-5_000, 5_000), max_size=3),
)
def test_everything_that_is_marked_lies_on_the_scale(
    score: float, cut_off: float, others: list[float]
) -> None:
    scale = scale_of(score, cut_off, Scaling(), others)
    marks = [scale.customer, *([scale.cut_off] if scale.cut_off else [])]
    assert all(scale.start <= mark.x <= scale.end for mark in marks)
    assert 0 < scale.start < scale.end < WIDTH
    assert 2 <= len(scale.ticks) <= 60
    assert scale.ticks[0].points <= score <= scale.ticks[-1].points
