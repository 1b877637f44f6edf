"""From values to the decision graph's input."""

import numpy as np
import pandas as pd
import pytest

from creditrisk_assets.portfolio.contract import Field
from creditrisk_assets.portfolio.encoding import raw_matrix

FIELDS = (
    Field("amount", "", "EUR", 0, 1_000),
    Field("rate", "", "", 0, 1, decimal=True, required=False),
    Field("purpose", "", codes={"car": "a car", "home": "the home"}, required=False),
    Field("status", "", codes={-2: "none", 7: "seven"}),
)
EXPECTED = np.array([[5, 0.1, 1, -2], [1_000, np.nan, np.nan, 7]], dtype=np.float32)


def test_a_frame_and_the_records_of_a_request_give_the_same_bits() -> None:
    columns = {"amount": [5, 1_000], "rate": [0.1, None], "purpose": ["home", None], "status": [-2, 7]}
    frame = pd.DataFrame({**columns, "unused": ["x", "y"]})
    for given in (columns, frame, frame.astype({"purpose": "object"})):
        matrix = raw_matrix(given, FIELDS)
        assert matrix.dtype == np.float32
        assert matrix.tobytes() == EXPECTED.tobytes()


def test_a_text_that_is_no_code_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="purpose: 'boat' is not a known code; valid: one of car, home"):
        raw_matrix({"amount": [1], "rate": [0.0], "purpose": ["boat"], "status": [7]}, FIELDS)


def test_no_rows_are_a_matrix_of_none() -> None:
    assert raw_matrix({field.name: [] for field in FIELDS}, FIELDS).shape == (0, 4)
