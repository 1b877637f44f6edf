"""The history that the first model learns from."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from creditrisk_assets.landing.history import (
    InvalidHistory,
    NoHistory,
    read_history,
    read_valid_history,
    simulate_history,
)
from creditrisk_assets.landing.ingestion import validate_files
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.examples import TINY, write_lines


def test_a_history_that_is_not_there_is_told_with_what_would_be_valid(tmp_path: Path) -> None:
    """A missing file must never become an empty history."""
    for missing in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(NoHistory, match=r"is no file; valid: a CSV or Parquet file"):
            read_history(str(missing), TINY)


def test_a_history_file_is_validated_with_its_outcomes_and_known_by_its_bytes(
    tmp_path: Path,
) -> None:
    path = write_lines(
        tmp_path / "past.csv", ["ID,Amount,Code,Bad", "1,10,1,0", "2,20,2,1", "3,30,2,", "4,-1,1,0"]
    )
    history = read_history(str(path), TINY)
    assert history.rows.accepted.to_dict("list") == {
        "id": ["1", "2"],
        "amount": [10, 20],
        "code": [1, 2],
        "bad": [0, 1],
    }
    assert history.rows.rejected["field"].tolist() == ["bad", "amount"]
    assert history.source == "file past.csv"
    assert history.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(InvalidHistory, match=r"past.csv, line 4: bad: .* \(2 problems in all\)"):
        read_valid_history(str(path), TINY)


def test_a_simulated_history_is_known_by_its_customers() -> None:
    """Lineage: another seed is another history, the same seed the same."""
    one, same, other = (simulate_history(PORTFOLIO, 100, seed) for seed in (1, 1, 2))
    assert one.sha256 == same.sha256 != other.sha256
    assert "100 customers, seed 1" in one.source
    pd.testing.assert_frame_equal(one.rows.accepted, same.rows.accepted)


PAST = simulate(30, 3)
TARGET = "default.payment.next.month"
AS_PUBLISHED = PAST.rename(
    columns=lambda name: TARGET if name == PORTFOLIO.target else name.upper()
)
NUMBERED = {
    **{name: f"X{place}" for place, name in enumerate(PORTFOLIO.field_names, start=1)},
    PORTFOLIO.target: "Y",
    "id": "ID",
}


def write_text(path: Path, *above: str, frame: pd.DataFrame) -> Path:
    """A CSV file with lines above its header."""
    path.write_text("".join(f"{line}\n" for line in above) + frame.to_csv(index=False))
    return path


def test_the_published_file_is_recognised_in_each_of_its_forms(tmp_path: Path) -> None:
    """Saved from the archive's workbook it has two header rows; other copies name columns X1 to X23 and Y, with or without ID."""
    numbered = PAST.rename(columns=NUMBERED)
    files = {
        "plain": write_text(tmp_path / "a.csv", frame=AS_PUBLISHED),
        "two header rows": write_text(
            tmp_path / "b.csv", ",".join(["", *list(NUMBERED.values())[:-1]]), frame=AS_PUBLISHED
        ),
        "numbered": write_text(tmp_path / "c.csv", frame=numbered),
        "numbered, small": write_text(tmp_path / "d.csv", frame=numbered.rename(columns=str.lower)),
    }
    numbered.to_parquet(tmp_path / "e.parquet", index=False)
    for form, path in {**files, "Parquet": tmp_path / "e.parquet"}.items():
        history = read_history(str(path), PORTFOLIO)
        assert history.rows.rejected.empty, form
        pd.testing.assert_frame_equal(history.rows.accepted, PAST)


def test_published_customers_without_identifiers_are_numbered_in_a_history_and_refused_in_a_day(
    tmp_path: Path,
) -> None:
    """Nothing is joined to a history by identifier; outcomes are joined to a day by it."""
    path = write_text(tmp_path / "in.csv", frame=PAST.drop(columns="id").rename(columns=NUMBERED))
    accepted = read_history(str(path), PORTFOLIO).rows.accepted
    assert accepted["id"].tolist() == [str(number) for number in range(1, 31)]
    pd.testing.assert_frame_equal(accepted.drop(columns="id"), PAST.drop(columns="id"))
    (message,) = validate_files([path], PORTFOLIO, PORTFOLIO.fields).rejected["message"]
    assert message.startswith(
        "missing column id; the file's other columns: default_payment_next_month; valid: id, limit_bal"
    )


@pytest.mark.parametrize("change", [{"Y": "Z"}, {"X7": "PAY_0"}, {"X7": "X77"}])
def test_published_names_are_taken_together_or_not_at_all(
    tmp_path: Path, change: dict[str, str]
) -> None:
    """X7 alone may be anything."""
    path = write_text(
        tmp_path / "in.csv", frame=PAST.rename(columns=NUMBERED).rename(columns=change)
    )
    (message,) = read_history(str(path), PORTFOLIO).rows.rejected["message"]
    assert str(message).startswith("missing column")


def test_a_missing_column_is_told_with_the_column_that_may_be_it(tmp_path: Path) -> None:
    path = write_text(tmp_path / "in.csv", frame=AS_PUBLISHED.rename(columns={"PAY_0": "PAY_1"}))
    (message,) = read_history(str(path), PORTFOLIO).rows.rejected["message"]
    assert str(message).startswith(
        "missing column pay_0; pay_1 is there and not used: is it pay_0?; the file's other columns: pay_1; valid: id, limit_bal, "
    )
