"""The history that the first model learns from."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from creditrisk_assets.portfolio.history import NoHistory, read_history, simulated_history
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from tests.unit.helpers import TINY, write_lines


def test_a_history_that_is_not_there_is_told_with_what_would_be_valid(tmp_path: Path) -> None:
    """A missing file must never become an empty history."""
    for missing in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(NoHistory, match=r"CREDITRISK_RAW_DATA.*is no file; valid: a CSV or Parquet file"):
            read_history(str(missing), TINY)


def test_a_history_file_is_validated_with_its_outcomes_and_known_by_its_bytes(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "past.csv", ["ID,Amount,Code,Bad", "1,10,1,0", "2,20,2,1", "3,30,2,", "4,-1,1,0"])
    history = read_history(str(path), TINY)
    assert history.rows.accepted.to_dict("list") == {"id": ["1", "2"], "amount": [10, 20], "code": [1, 2], "bad": [0, 1]}
    assert history.rows.rejected["field"].tolist() == ["bad", "amount"]
    assert history.source == "file past.csv"
    assert history.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_simulated_history_is_known_by_its_customers() -> None:
    """Lineage: another seed is another history, the same seed the same."""
    one, same, other = (simulated_history(PORTFOLIO, 100, seed) for seed in (1, 1, 2))
    assert one.sha256 == same.sha256 != other.sha256
    assert "100 customers, seed 1" in one.source
    pd.testing.assert_frame_equal(one.rows.accepted, same.rows.accepted)
