"""A comparison that is shown is true."""

import math

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.defs.metadata import table
from creditrisk_assets.number_format import format_with_limit


@given(st.floats(-10, 10), st.floats(-1e-3, 1e-3), st.sampled_from([".3f", "+.4f", ".2%"]))
def test_a_figure_and_its_limit_are_shown_in_their_order(
    limit: float, more: float, spec: str
) -> None:
    figure = limit + more
    shown = [float(text.rstrip("%")) for text in format_with_limit(figure, limit, spec)]
    assert (shown[0] > shown[1]) == (figure > limit)
    assert (shown[0] < shown[1]) == (figure < limit)


def test_no_more_digits_are_shown_than_it_takes() -> None:
    assert format_with_limit(0.0244, 0.0239) == ("0.0244", "0.0239")
    assert format_with_limit(0.3, 0.02) == ("0.300", "0.020")
    assert format_with_limit(0.02, 0.02) == ("0.020", "0.020")
    assert format_with_limit(0.005001, 0.005, ".2%") == ("0.5001%", "0.5000%")
    assert format_with_limit(-0.0001, 0.0) == ("-0.0001", "0.0000")
    assert format_with_limit(math.nan, 0.5) == ("nan", "0.500")


def test_a_table_in_the_dagster_ui_tells_a_figure_from_its_limit() -> None:
    frame = pd.DataFrame(
        {
            "column": ["a", "b", "c"],
            "observed": [0.150001, 0.5, math.nan],
            "limit": [0.15, 0.2, 0.1],
        }
    )
    rows = table(frame, compared=("observed", "limit")).md_str.splitlines()[2:]  # type: ignore[union-attr]
    assert rows == [
        "| a | 0.150001 | 0.150000 |",
        "| b | 0.5000 | 0.2000 |",
        "| c | nan | 0.1000 |",
    ]
    assert frame["observed"].iloc[0] == 0.150001
