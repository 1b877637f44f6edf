"""Outcomes in all their versions, and who is still waited for."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.portfolio.outcomes import (
    Maturity,
    current_versions,
    maturity,
    merged_versions,
)


def told(*rows: tuple[str, int]) -> pd.DataFrame:
    """Outcomes in the order told, numbered by customer, as ingestion gives them."""
    frame = pd.DataFrame(rows, columns=["id", "bad"]).astype({"id": "object", "bad": "int64"})
    frame["version"] = frame.groupby("id").cumcount() + 1
    return frame.astype({"version": "int64"})


def story(frame: pd.DataFrame) -> dict[str, list[int]]:
    return {str(one): rows["bad"].tolist() for one, rows in frame.groupby("id")}


def test_files_that_only_grow_tell_the_longer_story() -> None:
    first = merged_versions(None, told(("a", 0), ("b", 1)), "id")
    second = merged_versions(first, told(("a", 0), ("b", 1), ("a", 1), ("c", 0)), "id")
    assert story(second) == {"a": [0, 1], "b": [1], "c": [0]}


def test_a_replaced_file_adds_a_version_and_drops_none() -> None:
    first = merged_versions(None, told(("a", 0), ("b", 1)), "id")
    assert story(merged_versions(first, told(("a", 1), ("b", 1)), "id")) == {"a": [0, 1], "b": [1]}


def test_a_file_that_was_taken_away_takes_nothing_with_it() -> None:
    first = merged_versions(None, told(("a", 0), ("b", 1)), "id")
    assert story(merged_versions(first, told(("b", 1)), "id")) == {"a": [0], "b": [1]}


stories = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1)), min_size=1, max_size=12)


@given(st.lists(stories, min_size=1, max_size=4))
def test_nothing_kept_is_ever_lost_and_the_same_files_twice_change_nothing(
    tellings: list[list[tuple[str, int]]],
) -> None:
    kept = None
    for telling in tellings:
        observed = told(*telling)
        merged = merged_versions(kept, observed, "id")
        if kept is not None:
            before, after = story(kept), story(merged)
            assert all(after[one][: len(versions)] == versions for one, versions in before.items())
        last = current_versions(merged, "id").set_index("id")["bad"]
        said = current_versions(observed, "id").set_index("id")["bad"]
        assert (last[said.index] == said).all()  # what the files say last is what counts
        again = merged_versions(merged, observed, "id")
        pd.testing.assert_frame_equal(again, merged)
        assert (
            list(
                merged.groupby("id")["version"]
                .apply(list)
                .map(lambda one: one == list(range(1, len(one) + 1)))
            )
            == [True] * merged["id"].nunique()
        )
        kept = merged


@pytest.mark.parametrize(
    ("latest_day", "expected"),
    [
        ("2026-01-01", Maturity(10, 4, 6, 0)),
        ("2026-01-31", Maturity(10, 4, 6, 0)),
        ("2026-02-01", Maturity(10, 4, 0, 6)),
    ],
)
def test_who_has_no_outcome_is_pending_until_the_window_is_over_by_the_clock_of_the_data(
    latest_day: str, expected: Maturity
) -> None:
    assert maturity(10, 4, "2026-01-01", latest_day, 31) == expected
