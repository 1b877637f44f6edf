"""Fairness monitoring: figures by group, with too small groups named and not judged; and how well features give groups away."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from creditrisk_assets.governance.pages import fairness_note, fairness_table
from creditrisk_assets.modelling.fairness import (
    SMALLEST_GROUP,
    FieldFigures,
    Grouping,
    fairness_by_group,
    impact_by_group,
    impact_ratio,
    jeffreys_interval,
    lowest_ratios,
    protected_groups,
    under_line,
)
from creditrisk_assets.modelling.proxies import proxies
from creditrisk_assets.portfolio.contract import DecisionWords, Feature, Field, Portfolio, Reason
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Scores


def scores(probability: NDArray[np.float64], cut_off: float = 0.5) -> Scores:
    return Scores(probability, -probability, (probability >= cut_off).astype(np.int8))


def one_field(target: NDArray[np.int64], answers: Scores, names: NDArray[np.str_]) -> FieldFigures:
    (figures,) = fairness_by_group(target, answers, {"group": Grouping.of(names)})
    return figures


def named(grouping: Grouping) -> list[str]:
    return [grouping.names[place] for place in grouping.place]


def portfolio_of(field: Field) -> Portfolio:
    return Portfolio(
        name="one",
        title="One protected field",
        identifier="id",
        target="bad",
        target_description="went bad",
        fields=(Field("amount", "how much", "NT$", 0, 1_000), field),
        protected=(field.name,),
        features=(Feature("amount"),),
        compute_features=lambda raw: raw[:, :1],
        performance_window_days=31,
        reasons=(Reason("R01", "any", ("amount",)),),
    )


def test_the_ratio_of_approval_rates_is_that_to_the_group_with_the_largest_one() -> None:
    names = np.repeat(["a", "b"], [200, 400])
    probability = np.concatenate(
        [np.repeat([0.1, 0.9], [60, 140]), np.repeat([0.1, 0.9], [240, 160])]
    )
    figures = one_field(np.zeros(600, dtype=np.int64), scores(probability), names)
    assert figures.reference == "b"
    a, b = figures.groups
    assert (a.approval_rate, b.approval_rate, a.impact_ratio, b.impact_ratio) == (
        0.3,
        0.6,
        0.5,
        1.0,
    )
    assert a.impact_ratio_low < 0.5 < a.impact_ratio_high < 0.8
    assert (b.impact_ratio_low, b.impact_ratio_high) == (1.0, 1.0)
    assert lowest_ratios(scores(probability), {"group": Grouping.of(names)}) == {"group": 0.5}


def test_the_interval_of_the_ratio_holds_the_true_one_in_95_of_100_samples() -> None:
    """2,000 samples, seed 0: true rates 0.6 and 0.75 in groups of 120 and 300."""
    rng = np.random.default_rng(0)
    held = 0
    for approved, reference in zip(
        rng.binomial(120, 0.6, 2_000), rng.binomial(300, 0.75, 2_000), strict=True
    ):
        _, low, high = impact_ratio(int(approved), 120, int(reference), 300)
        held += low <= 0.8 <= high
    assert held / 2_000 == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("approved", "reference"), [(0, 50), (0, 0), (100, 100), (50, 0)])
def test_nobody_or_everybody_approved_gives_finite_figures(approved: int, reference: int) -> None:
    ratio, low, high = impact_ratio(approved, 100, reference, 100)
    assert 0 <= low <= ratio <= high < np.inf


def test_a_small_group_is_named_and_is_neither_judged_nor_reference() -> None:
    names = np.repeat(["few", "many", "others"], [SMALLEST_GROUP - 1, SMALLEST_GROUP, 500])
    probability = np.where(names == "few", 0.1, np.linspace(0.2, 0.8, len(names)))
    figures = one_field(np.zeros(len(names), dtype=np.int64), scores(probability), names)
    judged = {group.group: group.judged for group in figures.groups}
    assert judged == {"few": False, "many": True, "others": True}
    assert figures.reference == "many"


def test_of_one_judged_group_there_is_no_ratio_and_of_none_no_reference() -> None:
    for sizes, reference in (([500, 20], "a"), ([20, 20], None)):
        names = np.repeat(["a", "b"], sizes)
        figures = one_field(
            np.zeros(sum(sizes), dtype=np.int64), scores(np.full(sum(sizes), 0.1)), names
        )
        assert figures.reference == reference
        assert lowest_ratios(scores(np.full(sum(sizes), 0.1)), {"group": Grouping.of(names)}) == {}


def test_equal_opportunity_looks_at_goods_only_and_level_at_all() -> None:
    names = np.repeat(["a", "b"], 200)
    target = np.tile([0, 1], 200)
    probability = np.where((names == "a") & (target == 0), 0.9, 0.1)
    a, b = one_field(target, scores(probability), names).groups
    assert (a.equal_opportunity, b.equal_opportunity) == (0.0, 1.0)
    assert a.mean_pd == pytest.approx(0.5)
    assert a.bad_rate_low < a.bad_rate == 0.5 < a.bad_rate_high
    all_bad, _ = one_field(np.repeat([1, 0], 200), scores(probability), names).groups
    assert all_bad.equal_opportunity is None


def test_a_group_with_lower_scores_has_a_mean_difference_below_zero() -> None:
    rng = np.random.default_rng(1)
    names = np.repeat(["a", "b"], 2_000)
    score = rng.normal(0, 20, 4_000) - np.where(names == "a", 10, 0)
    answers = Scores(np.full(4_000, 0.1), score, np.zeros(4_000, dtype=np.int8))
    figures = {
        group.group: group
        for group in one_field(np.zeros(4_000, dtype=np.int64), answers, names).groups
    }
    assert figures["a"].mean_difference - figures["b"].mean_difference == pytest.approx(
        -0.5, abs=0.08
    )


@given(st.integers(0, 1_000), st.integers(2, 5), st.integers(1, 1_200))
def test_every_row_is_in_one_group_and_the_order_of_rows_does_not_matter(
    seed: int, kinds: int, rows: int
) -> None:
    rng = np.random.default_rng(seed)
    names = rng.integers(0, kinds, rows).astype(str)
    target, answers = rng.integers(0, 2, rows), scores(rng.random(rows), 0.6)
    figures = one_field(target, answers, names)
    assert sum(group.n for group in figures.groups) == rows
    ratios = [group.impact_ratio for group in figures.groups if group.judged]
    assert lowest_ratios(answers, {"group": Grouping.of(names)}) == (
        {"group": min(ratios)} if len(ratios) > 1 else {}
    )
    assert all(
        group.impact_ratio == 1.0 for group in figures.groups if group.group == figures.reference
    )
    assert all(group.impact_ratio <= 1.0 for group in figures.groups if group.judged)
    mixed = rng.permutation(rows)
    again = one_field(
        target[mixed],
        Scores(answers.default_probability[mixed], answers.score[mixed], answers.prediction[mixed]),
        names[mixed],
    )
    for one, other in zip(figures.groups, again.groups, strict=True):
        assert (one.n, one.approval_rate, one.impact_ratio) == (
            other.n,
            other.approval_rate,
            other.impact_ratio,
        )


def test_codes_are_grouped_by_meaning_and_numbers_by_bands() -> None:
    groups = protected_groups(
        PORTFOLIO,
        {
            "sex": np.array([1, 2, 2], dtype=np.float32),
            "education": np.array([0, 5, 3], dtype=np.float32),
            "marriage": np.array([1, 2, 3], dtype=np.float32),
            "age": np.array([24, 25, 62], dtype=np.float32),
        },
    )
    names = {field: named(grouping) for field, grouping in groups.items()}
    assert names["sex"] == ["male", "female", "female"]
    assert names["education"] == ["not documented", "not documented", "high school"]
    assert names["age"] == ["below 25", "25 to below 35", "62 and over"]


def test_a_number_without_bands_is_cut_at_its_quartiles_and_what_is_missing_is_a_group() -> None:
    field = Field("years", "how old", "years", 0, 120, required=False)
    values = np.array([*range(100), np.nan], dtype=np.float32)
    names = protected_groups(portfolio_of(field), {"years": values})["years"]
    assert dict(zip(names.names, names.sizes.tolist(), strict=True)) == {
        "below 25": 25,
        "25 to below 50": 25,
        "50 to below 75": 25,
        "75 and over": 25,
        "missing": 1,
    }
    nothing = protected_groups(
        portfolio_of(field), {"years": np.full(3, np.nan, dtype=np.float32)}
    )["years"]
    assert named(nothing) == ["missing"] * 3


def test_text_codes_are_known_by_their_place() -> None:
    field = Field("origin", "where from", codes={"n": "north", "s": "south"})
    grouping = protected_groups(
        portfolio_of(field), {"origin": np.array([1, 0], dtype=np.float32)}
    )["origin"]
    assert named(grouping) == ["south", "north"]


@pytest.mark.parametrize("bands", [(30.0, 20.0), (20.0, 20.0)])
def test_bands_that_do_not_ascend_are_refused(bands: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"field age: bands .* valid: ascending edges"):
        Field("age", "years", "", 0, 120, bands=bands)


def test_the_interval_of_a_share_closes_at_its_ends() -> None:
    assert jeffreys_interval(0, 10)[0] == 0.0
    assert jeffreys_interval(10, 10)[1] == 1.0


def test_proxies_tell_a_field_that_the_features_give_away_from_one_that_they_do_not() -> None:
    """600 rows, seed 2; three folds, so that no row is predicted by a model that has seen it."""
    rng = np.random.default_rng(2)
    given_away, unrelated = rng.integers(0, 2, 600), rng.integers(0, 2, 600)
    features = np.column_stack([given_away + rng.normal(0, 0.4, 600), rng.normal(size=600)]).astype(
        np.float32
    )
    names = {"given_away": given_away.astype(str), "unrelated": unrelated.astype(str)}
    names["unrelated"][:50] = "few"
    finished_fields: list[str] = []
    report = proxies(
        features,
        {field: Grouping.of(values) for field, values in names.items()},
        finished_fields.append,
    )
    assert finished_fields == ["given_away", "unrelated"]
    found = {(one.field, one.group): one for one in report}
    for group in ("0", "1"):
        assert (found["given_away", group].low or 0) > 0.9
    for group in ("0", "1"):
        low, high = found["unrelated", group].low, found["unrelated", group].high
        assert low is not None
        assert high is not None
        assert low < 0.55
        assert high > 0.45
    assert found["unrelated", "few"].auc is None


def test_a_field_of_one_group_has_no_proxy() -> None:
    features = np.zeros((200, 1), dtype=np.float32)
    (only,) = proxies(features, {"one": Grouping.of(np.full(200, "all"))}, lambda _: None)
    assert (only.n, only.auc) == (200, None)


def test_impact_without_outcomes_is_that_with_outcomes() -> None:
    rng = np.random.default_rng(31)
    answers = scores(rng.random(2_000))
    names = rng.choice(["a", "b", "c", "few"], 2_000, p=[0.4, 0.3, 0.28, 0.02])
    figures = one_field(np.zeros(2_000, dtype=np.int64), answers, names)
    impacts = impact_by_group(answers.prediction == 0, {"group": Grouping.of(names)})
    assert {one.group for one in impacts} == {"a", "b", "c"}
    assert {one.reference for one in impacts} == {figures.reference}
    of_group = {one.group: one for one in figures.groups}
    for one in impacts:
        same = of_group[one.group]
        assert (one.n, one.approval_rate) == (same.n, same.approval_rate)
        assert (one.ratio, one.low, one.high) == (
            same.impact_ratio,
            same.impact_ratio_low,
            same.impact_ratio_high,
        )


def test_where_no_group_is_large_enough_there_is_no_impact() -> None:
    assert (
        impact_by_group(
            np.ones(SMALLEST_GROUP - 1, dtype=bool),
            {"group": Grouping.of(np.repeat("a", SMALLEST_GROUP - 1))},
        )
        == []
    )


def test_a_ratio_under_the_line_is_flagged_wherever_the_table_stands() -> None:
    """0.785 used to appear next to "0.80 is the four-fifths line" without a flag."""
    assert under_line(0.785, 0.9) == "under 0.80, perhaps by chance"
    assert under_line(0.785, 0.799) == "under 0.80, with its whole interval"
    assert (under_line(0.8, 0.9), under_line(0.95, 1.0)) == ("", "")
    approved = np.concatenate([np.arange(200) < 157, np.full(200, True)])
    answers = scores(np.where(approved, 0.1, 0.9))
    figures = one_field(np.zeros(400, dtype=np.int64), answers, np.repeat(["left", "right"], 200))
    words = DecisionWords("approved", "refused", "approval rate")
    table = fairness_table([figures], words)
    cells = {row[1]: row[4] for row in table.rows}
    assert cells["left"].startswith("0.785 (")
    assert cells["left"].endswith("): under 0.80, perhaps by chance")
    assert "under" not in cells["right (reference)"]
    assert "approval rate" in table.header
    assert fairness_note(words).startswith("Approved is a PD below the cut-off.")
    assert fairness_note(DecisionWords()).startswith("Not flagged is a PD below the cut-off.")
