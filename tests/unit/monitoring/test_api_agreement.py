"""Batch against online: the same record decided by the same bundle has the same bits."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.monitoring.api_agreement import online_agreement

FIELDS = ["amount", "code"]


def told(rows: list[tuple[str, float | None, str, float, str]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["id", *FIELDS, "default_probability", "bundle_sha256"])
    return frame.assign(decision_id=[f"d{place}" for place in range(len(frame))])


def compared(live: pd.DataFrame, batch: pd.DataFrame) -> tuple[int, int, int, int, tuple[str, ...]]:
    one = online_agreement(live, batch, "id", FIELDS)
    assert one.decisions == one.compared + one.other_bundle + one.other_record + one.not_in_batch
    return one.compared, one.other_bundle, one.other_record, one.not_in_batch, one.differing


def test_each_decision_is_compared_or_counted_apart() -> None:
    live = told(
        [
            ("1", 5.0, "a", 0.1, "x"),
            ("2", None, "a", 0.2, "x"),  # a missing value is a value
            ("3", 5.0, "a", 0.3, "old"),
            ("4", 5.0, "a", 0.4, "x"),
            ("4", 6.0, "a", 0.5, "x"),  # asked again with another amount, which is what landed
            ("5", 5.0, "a", 0.6, "x"),
        ]
    )
    batch = told(
        [
            ("1", 5.0, "a", 0.1, "x"),
            ("2", None, "a", 0.2, "x"),
            ("3", 5.0, "a", 0.9, "x"),
            ("4", 6.0, "a", 0.5, "x"),
        ]
    )
    assert compared(live, batch) == (3, 1, 1, 1, ())


@given(st.floats(1e-9, 0.999), st.booleans())
def test_one_bit_is_a_difference(pd_told: float, up: bool) -> None:
    other = float(np.nextafter(pd_told, 1.0 if up else 0.0))
    live, batch = told([("1", 1.0, "a", pd_told, "x")]), told([("1", 1.0, "a", other, "x")])
    agreement = online_agreement(live, batch, "id", FIELDS)
    assert agreement.differing == ("d0",)
    assert agreement.largest == abs(pd_told - other)
    assert online_agreement(live, live, "id", FIELDS).differing == ()


def test_a_missing_pd_is_a_difference() -> None:
    live, batch = told([("1", 1.0, "a", float("nan"), "x")]), told([("1", 1.0, "a", 0.5, "x")])
    assert online_agreement(live, batch, "id", FIELDS).differing == ("d0",)


def test_of_no_decisions_none_differs() -> None:
    batch = told([("1", 1.0, "a", 0.5, "x")])
    assert compared(batch.iloc[:0], batch) == (0, 0, 0, 0, ())
