"""A comparison that is shown is true."""

import math

from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.shown import beside


@given(st.floats(-10, 10), st.floats(-1e-3, 1e-3), st.sampled_from([".3f", "+.4f", ".2%"]))
def test_whatever_is_beside_its_limit_is_shown_in_the_order_that_it_has(limit: float, more: float, spec: str) -> None:
    figure = limit + more
    shown = [float(text.rstrip("%")) for text in beside(figure, limit, spec)]
    assert (shown[0] > shown[1]) == (figure > limit)
    assert (shown[0] < shown[1]) == (figure < limit)


def test_no_more_digits_are_shown_than_it_takes() -> None:
    assert beside(0.0244, 0.0239) == ("0.0244", "0.0239")
    assert beside(0.3, 0.02) == ("0.300", "0.020")
    assert beside(0.02, 0.02) == ("0.020", "0.020")
    assert beside(0.005001, 0.005, ".2%") == ("0.5001%", "0.5000%")
    assert beside(math.nan, 0.5) == ("nan", "0.500")
