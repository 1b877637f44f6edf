"""Versions on the same customers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.governance.version_comparison import (
    ComparedVersion,
    approval_at,
    compare_versions,
)
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Bundle


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.05, 0.1, 0.2, 0.5])), min_size=1),
    st.floats(0, 1),
)
def test_the_approval_at_a_bad_rate_is_the_largest_share_with_it(
    customers: list[tuple[int, float]], bad_rate: float
) -> None:
    target = np.array([bad for bad, _ in customers])
    probability = np.array([pd for _, pd in customers])
    shares = [
        float((probability <= pd).mean())
        for pd in np.unique(probability)
        if target[probability <= pd].mean() <= bad_rate
    ]
    assert approval_at(target, probability, bad_rate) == max(shares, default=0.0)


def test_a_version_beside_itself_differs_in_nothing_but_its_cut_off(bundle: Bundle) -> None:
    versions = [
        ComparedVersion("2", bundle, 0.3),
        ComparedVersion("1", bundle, 0.2, "first", "a" * 64, 1.0),
    ]
    found = compare_versions(versions, "1", PORTFOLIO)
    newer, older = found.versions
    assert newer.figures == older.figures
    assert newer.figures["gini"] == 2 * newer.figures["roc_auc"] - 1
    assert (newer.approval_rate or 0) > (older.approval_rate or 1)
    assert newer.approval_at_equal_bad_rate == older.approval_at_equal_bad_rate
    assert (older.approval_at_equal_bad_rate or 0) >= (older.approval_rate or 1)
    assert found.loss is not None
    assert older.approved_loss is not None
    assert older.approved_loss < (newer.approved_loss or 0) <= found.loss
    assert (older.verdict, newer.verdict) == ("first", None)
    by_name: dict[str, int] = {}
    for one in newer.segments:
        by_name[one.segmentation] = by_name.get(one.segmentation, 0) + one.rows
    assert set(by_name.values()) == {found.rows}
    assert len(by_name) == sum(not one.is_by_score for one in PORTFOLIO.segments)
