"""The contract's plain values: fields, their ranges, and the spelling of column names."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from creditrisk_assets.portfolio.contract import (
    FLOAT32_EXACT_INTEGER,
    Feature,
    Field,
    Reason,
    canonical_name,
    canonical_names,
    missing_columns,
)
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from tests.support.examples import TINY


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("PAY_0", "pay_0"),
        ("default.payment.next.month", "default_payment_next_month"),
        ("default payment next month", "default_payment_next_month"),
        ("  LIMIT_BAL ", "limit_bal"),
        ("ID", "id"),
        ("Bill-Amt (1)", "bill_amt_1"),
    ],
)
def test_a_header_is_known_in_every_spelling_it_is_published_in(header: str, name: str) -> None:
    assert canonical_name(header) == name


@given(st.text())
@example("İ__Straße")
@example("__a__")
def test_a_canonical_name_is_its_own_canonical_name(header: str) -> None:
    name = canonical_name(header)
    assert canonical_name(name) == name
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")


def test_two_headers_that_mean_one_column_are_refused_by_name() -> None:
    """Otherwise one of the two would silently win."""
    with pytest.raises(ValueError, match="names a column twice: pay_0"):
        canonical_names(["ID", "PAY_0", "pay.0"])


@pytest.mark.timeout(5)
def test_a_header_of_very_many_columns_is_dealt_with_in_no_time() -> None:
    """Counting every name in every name took 10 s for 30,000 columns and hours for a megabyte of commas."""
    names = [f"column_{number}" for number in range(30_000)]
    assert canonical_names(names) == names
    with pytest.raises(ValueError, match=r"twice: column_7$"):
        canonical_names([*names, "Column 7"])


def test_a_field_whose_whole_numbers_float32_cannot_tell_apart_is_refused() -> None:
    """16,777,217 becomes 16,777,216 in the decision graph's input: a decision on another amount than the customer's."""
    Field("amount", "", "", 0, FLOAT32_EXACT_INTEGER)
    with pytest.raises(ValueError, match="amount: 16777217 cannot be held exactly"):
        Field("amount", "", "", 0, FLOAT32_EXACT_INTEGER + 1)
    with pytest.raises(ValueError, match="16777217"):
        Field("amount", "", "", -FLOAT32_EXACT_INTEGER - 1, 0)


def test_a_field_that_nothing_could_satisfy_is_refused() -> None:
    with pytest.raises(ValueError, match="amount: minimum 2 is above maximum 1"):
        Field("amount", "", "", 2, 1)
    with pytest.raises(ValueError, match="code: no range"):
        Field("code", "")
    with pytest.raises(ValueError, match="code: both codes and a range"):
        Field("code", "", "", 0, 1, {0: "no", 1: "yes"})


def test_a_field_says_in_words_what_it_accepts() -> None:
    assert Field("code", "", codes={9: "nine", 0: "none"}).valid == "one of 0, 9"
    assert Field("code", "", codes={"b": "second", "a": "first"}).valid == "one of b, a"
    assert Field("rate", "", "", 0, 1.5, decimal=True).valid == "a number from 0 to 1.5"
    assert (
        Field("rate", "", "", 0, 1, required=False).valid
        == "a whole number from 0 to 1, or nothing"
    )
    assert Field("age", "", "years", 18, 120).valid == "a whole number from 18 to 120 (years)"
    assert Field("count", "", "", 0, 5).valid == "a whole number from 0 to 5"


@given(st.data())
def test_every_value_that_the_contract_accepts_survives_float32(data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(PORTFOLIO.fields))
    least, most = (
        (min(field.codes), max(field.codes))
        if field.codes
        else (int(field.minimum or 0), int(field.maximum or 0))
    )
    for value in (data.draw(st.integers(least, most)), least, most):
        assert int(np.float32(value)) == value


# Fields and portfolios that contradict themselves


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda: Field("Amount", "", "", 0, 1),
            "field 'Amount': not a canonical name; valid: 'amount'",
        ),
        (lambda: Field("score", "", "", 0, 1), "field 'score': the system uses this name itself"),
        (
            lambda: Field("kind", "", codes={}),
            "field kind: codes {} of a decimal field, or none at all",
        ),
        (
            lambda: Field("kind", "", codes={"a": "one", 2: "two"}),
            "field kind: codes .* valid: all whole numbers, or all texts",
        ),
        (
            lambda: Field("kind", "", codes={" a": "one"}),
            "field kind: code ' a'; valid: a text without spaces around it",
        ),
        (
            lambda: Field("kind", "", codes={True: "one"}),
            "field kind: code True; valid: a whole number",
        ),
        (
            lambda: Field("kind", "", codes={2**24 + 1: "one"}),
            "field kind: code 16777217; valid: a whole number up to 16777216",
        ),
        (
            lambda: Field("rate", "", "", 0, 1.5),
            "field rate: range 0..1.5; valid: whole numbers, or decimal=True",
        ),
        (
            lambda: Field("rate", "", "", 0, float("nan"), decimal=True),
            "field rate: minimum 0 is above maximum nan",
        ),
        (
            lambda: Field("rate", "", "", 0, 1e39, decimal=True),
            "field rate: 1e.39 cannot be held exactly by float32",
        ),
    ],
)
def test_a_field_that_contradicts_itself_is_refused_by_name(
    wrong: Callable[[], Field], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


def test_a_decimal_field_may_go_beyond_what_whole_numbers_may() -> None:
    assert Field("amount", "", "", 0, 1e12, decimal=True).kind == "decimal"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identifier": "amount"}, "portfolio tiny: column amount stands twice"),
        ({"target": "Bad"}, "portfolio tiny: column 'Bad'; valid: a canonical name"),
        (
            {"identifier": "version"},
            "portfolio tiny: column 'version'; valid: a canonical name that is not reserved",
        ),
        ({"protected": ("sex",)}, "portfolio tiny: sex is no field; valid: amount, code"),
        ({"example": {"amuont": 3}}, "portfolio tiny: amuont is no field"),
        ({"features": (Feature("a"), Feature("a"))}, "portfolio tiny: feature a stands twice"),
        (
            {"reasons": (Reason("R01", "", ("amount",)),)},
            "portfolio tiny: reasons and fields differ in code",
        ),
        (
            {"reasons": (Reason("R01", "", ("amount", "code", "code")),)},
            "field in the reasons code stands twice",
        ),
        (
            {"protected": ("code",), "reasons": (Reason("R01", "", ("amount", "code")),)},
            "portfolio tiny: reasons and fields differ in code",
        ),
        (
            {"reasons": (Reason("R01", "", ("amount",)), Reason("R01", "", ("code",)))},
            "reason code R01 stands twice",
        ),
    ],
)
def test_a_portfolio_that_contradicts_itself_is_refused_by_its_part(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


def test_a_text_code_has_the_number_of_its_place_and_a_numeric_one_its_own() -> None:
    assert Field("kind", "", codes={"b": "", "a": ""}).code_numbers == {"b": 0.0, "a": 1.0}
    assert Field("kind", "", codes={7: "", -2: ""}).code_numbers == {7: 7.0, -2: -2.0}


def test_a_header_without_letters_is_called_by_its_place() -> None:
    assert canonical_names(["", "#", "ID"]) == ["column_1", "column_2", "id"]


# What files may call things


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"target_words": {"bad": 2}},
            "field bad: word 'bad' for 2; valid: text in lower case, .* for 0 or 1",
        ),
        ({"target_words": {"Bad": 1}}, "field bad: word 'Bad' for 1"),
        ({"target_words": {"": 1}}, "field bad: word '' for 1"),
        ({"published_names": {"x1": "amount"}}, "published_names .*; valid: a name for each field"),
        (
            {"published_names": {"x1": "amount", "x2": "code", "x3": "colour"}},
            "published_names .*; valid: a name for each field",
        ),
        (
            {"fields": (Field("code", "", codes={1: "one"}, words={"one": 1}),)},
            "words of code; valid: of the target",
        ),
    ],
)
def test_words_and_published_names_that_mean_nothing_are_refused(
    change: dict[str, Any], message: str
) -> None:
    reasons = (Reason("R01", "any", ("code",)),) if "fields" in change else TINY.reasons
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, reasons=reasons, **change)


def test_words_are_for_numeric_codes_only() -> None:
    with pytest.raises(ValueError, match="none: the field has no numeric codes"):
        Field("purpose", "", codes={"car": "a car"}, words={"auto": 1})


@pytest.mark.timeout(5)
def test_a_column_that_is_missing_from_very_many_is_told_in_no_time() -> None:
    """A request may name thousands of columns, each of a megabyte, and likeness costs time."""
    names = [f"{'x' * 10_000}_{number}" for number in range(4_000)]
    message = missing_columns(names, PORTFOLIO.field_names)
    assert message is not None
    assert " and 3970 more; valid: limit_bal" in message
    assert len(message) < 5_000


@pytest.mark.parametrize("bounds", [(), (0.2, 0.1), (0.1, 0.1), (0.0, 0.5), (0.5, 1.0)])
def test_grade_bounds_rise_between_nothing_and_one(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="valid: 1 to 25 rising PDs between 0 and 1"):
        dataclasses.replace(PORTFOLIO, grade_bounds=bounds)


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("loss_given_default", 1.5, "0 to 1"),
        ("exposure_share", -0.1, "0 to 1"),
        ("data_weekdays", (), "numbers from 1, Monday, to 7, Sunday"),
        ("data_weekdays", (0, 1), "numbers from 1, Monday, to 7, Sunday"),
    ],
)
def test_assumptions_are_shares_and_weekdays(name: str, value: Any, valid: str) -> None:
    with pytest.raises(ValueError, match=f"{name} .*; valid: {valid}"):
        dataclasses.replace(PORTFOLIO, **{name: value})
