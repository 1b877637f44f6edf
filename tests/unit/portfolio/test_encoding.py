"""From values to the decision graph's input, and back."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.portfolio.contract import Field
from creditrisk_assets.portfolio.encoding import raw_matrix, record_of

FIELDS = (
    Field("amount", "", "EUR", 0, 1_000),
    Field("rate", "", "", 0, 1, decimal=True, required=False),
    Field("purpose", "", codes={"car": "a car", "home": "the home"}, required=False),
    Field("status", "", codes={-2: "none", 7: "seven"}),
)
EXPECTED = np.array([[5, 0.1, 1, -2], [1_000, np.nan, np.nan, 7]], dtype=np.float32)


def test_a_frame_and_the_records_of_a_request_give_the_same_bits() -> None:
    columns = {
        "amount": [5, 1_000],
        "rate": [0.1, None],
        "purpose": ["home", None],
        "status": [-2, 7],
    }
    frame = pd.DataFrame({**columns, "unused": ["x", "y"]})
    for records in (columns, frame, frame.astype({"purpose": "object"})):
        matrix = raw_matrix(records, FIELDS)
        assert matrix.dtype == np.float32
        assert matrix.tobytes() == EXPECTED.tobytes()


def test_a_text_that_is_no_code_is_an_error_that_names_it() -> None:
    with pytest.raises(
        ValueError, match="purpose: 'boat' is not a known code; valid: one of car, home"
    ):
        raw_matrix({"amount": [1], "rate": [0.0], "purpose": ["boat"], "status": [7]}, FIELDS)


def test_no_rows_are_a_matrix_of_none() -> None:
    assert raw_matrix({field.name: [] for field in FIELDS}, FIELDS).shape == (0, 4)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    amount=st.integers(0, 1_000),
    rate=st.none() | finite,
    purpose=st.none() | st.sampled_from([0.0, 1.0]),
    status=st.sampled_from([-2, 7]),
)
def test_a_row_read_back_and_encoded_again_has_the_same_bits(
    amount: int, rate: float | None, purpose: float | None, status: int
) -> None:
    """The page must show a row as the graph got it."""
    row = [float(amount), rate, purpose, float(status)]
    record = record_of(row, FIELDS)
    assert (record["amount"], record["status"]) == (amount, status)
    again = raw_matrix({name: [value] for name, value in record.items()}, FIELDS)
    assert again.tobytes() == np.array([row], dtype=np.float32).tobytes()


def test_a_decimal_is_read_back_as_the_shortest_number_that_gives_it() -> None:
    row = raw_matrix({"amount": [5], "rate": [0.1], "purpose": ["home"], "status": [7]}, FIELDS)[0]
    assert record_of(row.tolist(), FIELDS) == {
        "amount": 5,
        "rate": 0.1,
        "purpose": "home",
        "status": 7,
    }
