"""A delivery that is repeated under another date."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from creditrisk_assets.monitoring import repeated_days
from creditrisk_assets.monitoring.repeated_days import (
    REPEATED_SHARE_LIMIT,
    RepeatedDay,
    find_repeated_day,
)
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.card_customers import simulate

FIELDS = PORTFOLIO.field_names


def day(folder: Path, name: str, customers: pd.DataFrame) -> Path:
    path = folder / f"{name}.parquet"
    customers[["id", *FIELDS]].astype({"id": "str"}).to_parquet(path, index=False)
    return path


def compared(folder: Path, today: pd.DataFrame, **earlier: pd.DataFrame) -> RepeatedDay:
    files = [(name, day(folder, name, frame)) for name, frame in earlier.items()]
    return find_repeated_day(day(folder, "today", today), files, "id", FIELDS)


def test_the_same_rows_in_another_order_are_an_earlier_day(tmp_path: Path) -> None:
    first, second = simulate(400, 1, 1), simulate(400, 2, 1_000)
    found = compared(tmp_path, second.sample(frac=1, random_state=1), monday=first, tuesday=second)
    assert found == RepeatedDay("tuesday", 1.0, 400)


def test_a_part_counts_as_a_part(tmp_path: Path) -> None:
    first = simulate(400, 1, 1)
    found = compared(tmp_path, pd.concat([first.head(100), simulate(300, 2, 9_000)]), monday=first)
    assert found == RepeatedDay("monday", 0.25, 400)


def test_other_customers_with_the_same_values_and_the_same_customers_with_other_values_are_new(
    tmp_path: Path,
) -> None:
    first = simulate(400, 1, 1)
    assert (
        compared(
            tmp_path, first.assign(id=[f"other-{row}" for row in range(400)]), monday=first
        ).share
        == 0
    )
    rng = np.random.default_rng(1)
    later = first.assign(bill_amt1=first["bill_amt1"] + rng.integers(1, 500, 400))
    assert compared(tmp_path, later, monday=first) == RepeatedDay(None, 0.0, 400)
    assert compared(tmp_path, first).day is None


@pytest.mark.parametrize("unchanged", [0.0, 0.2, 0.4])
def test_ordinary_days_of_the_same_customers_do_not_alarm(tmp_path: Path, unchanged: float) -> None:
    """100 days, seed 5: the same 1,000 customers, of whom that share has not used the card since the day before."""
    customers, rng = simulate(1_000, 5), np.random.default_rng(5)
    alarms = 0
    for _ in range(100):
        moved = rng.random(1_000) >= unchanged
        today = customers.assign(
            bill_amt1=customers["bill_amt1"] + np.where(moved, rng.integers(1, 900, 1_000), 0)
        )
        alarms += compared(tmp_path, today, before=customers).share > REPEATED_SHARE_LIMIT
        customers = today
    assert alarms == 0


def test_a_large_day_is_compared_by_a_sample_of_its_customers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeated_days, "SAMPLE_ROWS", 500)
    first = simulate(4_000, 3, 1)
    half = pd.concat([first.head(2_400), simulate(1_600, 4, 90_000)])
    found = compared(tmp_path, half, monday=first)
    assert 350 < found.rows < 650
    assert found.share == pytest.approx(0.6, abs=0.08)
