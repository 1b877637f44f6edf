"""Training rows of a model, and that no evaluation row is a training row."""

import weakref
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import pytest

from creditrisk_assets.modelling.datasets import (
    HELD_OUT_COLUMN,
    LearningSet,
    candidate_set,
    feature_columns,
    history_set,
    with_features,
)
from creditrisk_assets.modelling.decision_graph import feature_matrix
from creditrisk_assets.modelling.training import PRODUCTION_WEIGHT_LIMIT
from creditrisk_assets.portfolio.sampling import is_held_out
from tests.support.examples import TINY, FloatMatrix

EVALUATION_DAYS = 2


def customers(first: int, count: int) -> pd.DataFrame:
    """Customers whose amount is their number, so that a row tells whose it is."""
    numbers = np.arange(first, first + count)
    return pd.DataFrame(
        {"id": numbers.astype(str), "amount": numbers, "code": 1 + numbers % 2, "bad": numbers % 2}
    )


def who(raw: FloatMatrix) -> set[int]:
    return set(raw[:, 0].astype(int).tolist())


PAST = with_features(customers(1, 200), TINY)
DAYS = {f"2026-02-0{day}": customers(200 + 100 * day, 100) for day in (1, 2, 3)}
BATCHES = {day: rows.drop(columns="bad") for day, rows in DAYS.items()}
OUTCOMES = {day: rows[["id", "bad"]].assign(version=1) for day, rows in DAYS.items()}


def candidate(
    batches: Mapping[str, pd.DataFrame],
    outcomes: Mapping[str, pd.DataFrame],
    rows_limit: int = 10_000,
) -> LearningSet:
    return candidate_set(PAST, batches, outcomes, TINY, EVALUATION_DAYS, rows_limit)


def held_out_of(frame: pd.DataFrame) -> set[int]:
    return set(frame.loc[is_held_out(frame["id"]), "amount"])


def test_customers_keep_their_columns_and_get_features_and_a_side() -> None:
    rows = customers(1, 50)
    result = with_features(rows, TINY)
    pd.testing.assert_frame_equal(result[rows.columns.tolist()], rows)
    expected = feature_matrix(TINY, rows[TINY.field_names].to_numpy(dtype=np.float32))
    assert np.array_equal(result[feature_columns(TINY)].to_numpy(), expected)
    assert np.array_equal(result[HELD_OUT_COLUMN], is_held_out(rows["id"]))


def test_features_belong_to_their_customers_whatever_the_rows_are_numbered() -> None:
    """A frame that was filtered has gaps in its index; joining by it would give customers each other's features."""
    rows = customers(1, 50).iloc[::-3]
    result = with_features(rows, TINY)
    assert np.array_equal(result["feature.amount_again"], rows["amount"])
    assert len(result) == len(rows)


def test_the_history_is_split_into_learning_and_judging_without_loss_or_overlap() -> None:
    learning = history_set(PAST, TINY)
    held_out = held_out_of(PAST)
    assert who(learning.held_out.raw) == held_out
    assert who(learning.fit.raw) == set(range(1, 201)) - held_out
    assert learning.production_days == []
    assert f"{len(held_out)} held-out rows of the history" in learning.held_out_origin
    for rows in (learning.fit, learning.held_out):
        assert np.array_equal(rows.target, rows.raw[:, 0] % 2)
        assert np.array_equal(rows.features, rows.raw)


def test_a_candidate_learns_from_matured_days_and_is_judged_by_the_latest_of_them() -> None:
    result = candidate(BATCHES, OUTCOMES)
    everyone = pd.concat([PAST, *DAYS.values()])
    judging = held_out_of(pd.concat([DAYS["2026-02-02"], DAYS["2026-02-03"]]))
    assert who(result.fit.raw) == set(everyone["amount"]) - held_out_of(everyone)
    assert who(result.held_out.raw) == judging
    assert result.production_days == list(DAYS)
    assert (
        result.held_out_origin
        == f"{len(judging)} held-out matured rows of 2026-02-02 to 2026-02-03"
    )
    for rows in (result.fit, result.held_out):
        assert np.array_equal(rows.target, rows.raw[:, 0] % 2)


def test_rows_whose_outcome_has_not_arrived_are_neither_learned_from_nor_judged_by() -> None:
    """Taking a missing outcome for good is the classic way to a model that is too optimistic."""
    half = {"2026-02-01": OUTCOMES["2026-02-01"].iloc[:40]}
    result = candidate(BATCHES, half)
    assert result.production_days == ["2026-02-01"]
    assert max(who(result.fit.raw) | who(result.held_out.raw)) < 340
    assert who(result.held_out.raw) == held_out_of(DAYS["2026-02-01"].iloc[:40])


@pytest.mark.parametrize(
    ("batches", "outcomes"),
    [
        ({}, {}),
        (BATCHES, {}),
        ({}, OUTCOMES),
        (BATCHES, {"2026-02-01": OUTCOMES["2026-02-02"]}),
        (BATCHES, {"2026-02-01": OUTCOMES["2026-02-01"].iloc[:0]}),
    ],
    ids=["nothing", "no outcomes", "no batches", "outcomes of others", "empty outcomes"],
)
def test_without_matured_production_a_candidate_learns_from_the_history_alone(
    batches: dict[str, pd.DataFrame], outcomes: dict[str, pd.DataFrame]
) -> None:
    result, alone = candidate(batches, outcomes), history_set(PAST, TINY)
    assert result.fit.fingerprint() == alone.fit.fingerprint()
    assert who(result.held_out.raw) == who(alone.held_out.raw)
    assert result.production_days == []


def test_production_weighs_as_much_as_the_history_but_no_row_more_than_the_limit() -> None:
    past = len(history_set(PAST, TINY).fit.target)
    for count, expected in ((100, 2), (1_000, 1), (12, PRODUCTION_WEIGHT_LIMIT)):
        rows = customers(1_001, count)
        result = candidate(
            {"2026-02-01": rows.drop(columns="bad")},
            {"2026-02-01": rows[["id", "bad"]].assign(version=1)},
        )
        produced = result.fit.raw[:, 0] > 1_000
        assert set(result.fit.weight[~produced]) == {1}
        assert set(result.fit.weight[produced]) == {expected}
        assert (~produced).sum() == past


def test_the_order_in_which_days_arrive_changes_nothing() -> None:
    backwards = candidate(dict(reversed(BATCHES.items())), dict(reversed(OUTCOMES.items())))
    assert backwards.fit.fingerprint() == candidate(BATCHES, OUTCOMES).fit.fingerprint()
    assert backwards.held_out_origin == candidate(BATCHES, OUTCOMES).held_out_origin


def test_of_an_outcome_in_versions_the_last_is_learned() -> None:
    mistaken = OUTCOMES["2026-02-01"].assign(bad=1 - OUTCOMES["2026-02-01"]["bad"])
    corrected = pd.concat([OUTCOMES["2026-02-01"].assign(version=2), mistaken])
    result = candidate(BATCHES, {**OUTCOMES, "2026-02-01": corrected})
    assert result.fit.fingerprint() == candidate(BATCHES, OUTCOMES).fit.fingerprint()


def test_a_customer_who_comes_on_several_judging_days_judges_once_by_the_latest() -> None:
    """Rows of one customer are no independent evidence; counted twice, they would make the gate too sure."""
    again = DAYS["2026-02-02"].assign(code=2, bad=1)
    both = {"2026-02-02": DAYS["2026-02-02"], "2026-02-03": again}
    learning = candidate(
        {day: rows.drop(columns="bad") for day, rows in both.items()},
        {day: rows[["id", "bad"]].assign(version=1) for day, rows in both.items()},
    )
    assert len(learning.held_out.target) == len(held_out_of(again))
    assert learning.held_out.target.all()
    assert len(learning.fit.target) == 200 - len(held_out_of(PAST)) + 2 * (
        100 - len(held_out_of(again))
    )


class OneAtATime(Mapping[str, pd.DataFrame]):
    """Days that are read when they are asked for; the most that lived at the same time is counted."""

    def __init__(self, days: dict[str, pd.DataFrame]) -> None:
        self._days = days
        self._alive: list[weakref.ref[pd.DataFrame]] = []
        self.most_alive = 0

    def __getitem__(self, day: str) -> pd.DataFrame:
        frame = self._days[day].copy()
        self._alive = [one for one in self._alive if one() is not None] + [weakref.ref(frame)]
        self.most_alive = max(self.most_alive, len(self._alive))
        return frame

    def __iter__(self) -> Iterator[str]:
        return iter(self._days)

    def __len__(self) -> int:
        return len(self._days)


MANY = {f"2026-02-{day:02}": customers(1_000 * day, 1_000) for day in range(1, 13)}
MANY_BATCHES = {day: rows.drop(columns="bad") for day, rows in MANY.items()}
MANY_OUTCOMES = {day: rows[["id", "bad"]].assign(version=1) for day, rows in MANY.items()}


def test_of_more_rows_than_the_limit_a_sample_is_drawn_in_which_every_row_has_the_same_chance() -> (
    None
):
    everyone = pd.concat([PAST, *MANY.values()])
    learned = set(everyone["amount"]) - held_out_of(everyone)
    for limit in (1_000, 4_000):
        result = candidate(MANY_BATCHES, MANY_OUTCOMES, limit)
        drawn = who(result.fit.raw)
        assert len(result.fit.target) == len(drawn) == limit
        assert drawn <= learned
        assert set(result.fit.weight) == {1}
        assert result.production_days == list(MANY)
        share = limit / len(learned)
        for rows in (PAST, *MANY.values()):
            here = learned & set(rows["amount"])
            spread = 5 * np.sqrt(len(here) * share * (1 - share))
            assert abs(len(drawn & here) - len(here) * share) < spread
        again = candidate(dict(reversed(MANY_BATCHES.items())), MANY_OUTCOMES, limit)
        assert again.fit.fingerprint() == result.fit.fingerprint()
    judging = held_out_of(pd.concat([*MANY.values()][-EVALUATION_DAYS:]))
    few = candidate(MANY_BATCHES, MANY_OUTCOMES, 100)
    assert len(few.held_out.target) == 100
    assert who(few.held_out.raw) < judging


def test_days_are_read_one_at_a_time() -> None:
    """A year of large days does not fit into memory."""
    days = OneAtATime(MANY_BATCHES)
    assert candidate(days, MANY_OUTCOMES, 1_000).production_days == list(MANY)
    assert days.most_alive <= 2
