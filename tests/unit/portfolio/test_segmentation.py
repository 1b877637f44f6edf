"""Segmentations: expressions that are safe, errors that name their part, and segments that cover everybody."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.portfolio.segmentation import MISSING, Segmentation, grade_bands
from creditrisk_assets.portfolio.uci_card import PORTFOLIO

FIELDS = PORTFOLIO.fields


def columns(**values: list[float]) -> dict[str, np.ndarray]:
    return {name: np.array(column, dtype=np.float64) for name, column in values.items()}


def labels(segmentation: Segmentation, **values: list[float]) -> list[str]:
    names = segmentation.segments(FIELDS)
    return [names[place] for place in segmentation.places(columns(**values), FIELDS).tolist()]


def test_a_formula_is_cut_at_its_bands_and_a_band_has_its_lower_edge() -> None:
    use = Segmentation("use", "use of the limit", "bill_amt1 / limit_bal", (0.5, 0.9))
    assert labels(use, bill_amt1=[40, 50, 95, 0], limit_bal=[100, 100, 100, 0]) == [
        "below 0.5",
        "0.5 to below 0.9",
        "0.9 and over",
        MISSING,
    ]


def test_functions_and_signs_are_computed_as_in_arithmetic() -> None:
    late = Segmentation(
        "late", "ever late", "max(pay_0, pay_2, -pay_3) - 2 * (1 + 0)", (0,), ("no", "yes")
    )
    assert labels(late, pay_0=[1, 0], pay_2=[0, 0], pay_3=[0, -2]) == ["no", "yes"]
    assert late.names == ("pay_0", "pay_2", "pay_3")


def test_codes_with_the_same_meaning_are_one_segment() -> None:
    education = Segmentation("education", "education", "education")
    assert education.segments(FIELDS).count("not documented") == 1
    found = labels(education, education=[0, 5, 1, np.nan, 77])
    assert found == ["not documented", "not documented", "graduate school", MISSING, MISSING]


def test_grades_are_bands_of_the_pd() -> None:
    grades = grade_bands((0.1, 0.2))
    assert grades.is_by_score
    assert labels(grades, default_probability=[0.05, 0.1, 0.9]) == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"by": "__import__('os').system('x')"}, "valid: fields, numbers"),
        ({"by": "limit_bal.real"}, "valid: fields, numbers"),
        ({"by": "limit_bal ** 99"}, r"'limit_bal \*\* 99' in by; valid: fields, numbers"),
        ({"by": "abs(limit_bal)"}, r"'abs\(limit_bal\)' in by"),
        ({"by": "limit_bal +"}, "is no expression; valid: fields"),
        ({"by": "1 + 2"}, "valid: an expression that names a field"),
        ({"bands": (2.0, 1.0)}, "valid: ascending numbers, each once"),
        ({"bands": (1.0, float("inf"))}, "valid: ascending numbers"),
        ({"labels": ("one",)}, "valid: none, or 2 different ones"),
        ({"labels": ("same", "same")}, "valid: none, or 2 different ones"),
        ({"labels": ("missing", "other")}, "valid: another word"),
        ({"name": "Limit Band"}, "valid: lower case letters"),
        ({"label": " "}, "valid: words for people"),
    ],
)
def test_a_faulty_segmentation_is_refused_with_its_name(
    changed: dict[str, object], message: str
) -> None:
    good = {"name": "band", "label": "limit", "by": "limit_bal", "bands": (50_000.0,)}
    with pytest.raises(ValueError, match=message):
        Segmentation(**(good | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (
            Segmentation("product", "product", "product"),
            "portfolio uci_card: segmentation product: product is no field; valid: limit_bal",
        ),
        (Segmentation("limit", "limit", "limit_bal"), "no bands for 'limit_bal'; valid: at least"),
        (
            Segmentation("ages", "age", "age", (10, 40)),
            "a band ends or begins at 10 and no value reaches it; valid: above 18 and up to 120",
        ),
        (
            Segmentation("pd_band", "PD", "default_probability", (0.5, 1.5)),
            "at 1.5 and no value reaches it; valid: above 0 and up to 1",
        ),
        (Segmentation("age_band", "again", "age", (40,)), "segmentation age_band stands twice"),
        (
            Segmentation("many", "many", "limit_bal", tuple(range(2, 102))),
            "valid: at most 100 in all",
        ),
    ],
)
def test_a_portfolio_refuses_segments_that_do_not_fit(
    segmentation: Segmentation, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PORTFOLIO, segments=(*PORTFOLIO.segments, segmentation))


@given(
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=50),
    bands=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6, unique=True).map(sorted),
)
def test_every_customer_is_in_exactly_one_segment(values: list[float], bands: list[float]) -> None:
    segmentation = Segmentation("any", "any", "bill_amt1 * 1", tuple(bands))
    names = segmentation.segments(FIELDS)
    places = segmentation.places(columns(bill_amt1=values), FIELDS)
    assert np.bincount(places, minlength=len(names)).sum() == len(values)
    for value, place in zip(values, places.tolist(), strict=True):
        if np.isnan(value):
            assert names[place] == MISSING
        else:
            assert place == sum(edge <= value for edge in bands)
