"""Outcomes in all their versions, and who is still waited for."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.portfolio.outcomes import (
    Maturity,
    current_versions,
    maturity,
    merge_versions,
)


def outcomes(*rows: tuple[str, int]) -> pd.DataFrame:
    """Outcomes in order of arrival, numbered by customer, as by ingestion."""
    frame = pd.DataFrame(rows, columns=["id", "bad"]).astype({"id": "object", "bad": "int64"})
    frame["version"] = frame.groupby("id").cumcount() + 1
    return frame.astype({"version": "int64"})


def versions_of(frame: pd.DataFrame) -> dict[str, list[int]]:
    return {str(customer): rows["bad"].tolist() for customer, rows in frame.groupby("id")}


def test_files_that_only_grow_add_versions() -> None:
    first = merge_versions(None, outcomes(("a", 0), ("b", 1)), "id")
    second = merge_versions(first, outcomes(("a", 0), ("b", 1), ("a", 1), ("c", 0)), "id")
    assert versions_of(second) == {"a": [0, 1], "b": [1], "c": [0]}


def test_a_replaced_file_adds_a_version_and_drops_none() -> None:
    first = merge_versions(None, outcomes(("a", 0), ("b", 1)), "id")
    assert versions_of(merge_versions(first, outcomes(("a", 1), ("b", 1)), "id")) == {
        "a": [0, 1],
        "b": [1],
    }


def test_a_removed_file_removes_no_version() -> None:
    first = merge_versions(None, outcomes(("a", 0), ("b", 1)), "id")
    assert versions_of(merge_versions(first, outcomes(("b", 1)), "id")) == {"a": [0], "b": [1]}


stories = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1)), min_size=1, max_size=12)


@given(st.lists(stories, min_size=1, max_size=4))
def test_no_stored_version_is_lost_and_the_same_files_twice_change_nothing(
    deliveries: list[list[tuple[str, int]]],
) -> None:
    stored = None
    for delivery in deliveries:
        observed = outcomes(*delivery)
        merged = merge_versions(stored, observed, "id")
        if stored is not None:
            before, after = versions_of(stored), versions_of(merged)
            assert all(
                after[name][: len(versions)] == versions for name, versions in before.items()
            )
        last = current_versions(merged, "id").set_index("id")["bad"]
        latest = current_versions(observed, "id").set_index("id")["bad"]
        assert (last[latest.index] == latest).all()  # the last outcome of the files counts
        again = merge_versions(merged, observed, "id")
        pd.testing.assert_frame_equal(again, merged)
        assert (
            list(
                merged.groupby("id")["version"]
                .apply(list)
                .map(lambda versions: versions == list(range(1, len(versions) + 1)))
            )
            == [True] * merged["id"].nunique()
        )
        stored = merged


@pytest.mark.parametrize(
    ("latest_day", "expected"),
    [
        ("2026-01-01", Maturity(10, 4, 6, 0)),
        ("2026-01-31", Maturity(10, 4, 6, 0)),
        ("2026-02-01", Maturity(10, 4, 0, 6)),
    ],
)
def test_a_customer_without_an_outcome_is_pending_until_the_window_is_over_by_the_clock_of_the_data(
    latest_day: str, expected: Maturity
) -> None:
    assert maturity(10, 4, "2026-01-01", latest_day, 31) == expected
