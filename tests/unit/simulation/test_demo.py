"""The days of the demo."""

import pandas as pd

from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.card_customers import simulate
from creditrisk_assets.simulation.demo import campaign
from creditrisk_assets.simulation.scenarios import NEWCOMER


def test_the_days_are_of_held_out_customers_and_the_drifted_ones_share_none() -> None:
    """The gate counts the latest day of a customer alone: it would judge on a biased sample."""
    plan, files = campaign(PORTFOLIO, simulate(4_000, 5))
    customers, outcomes = (
        {file.day: file.rows.set_index(PORTFOLIO.identifier) for file in files if file.zone == zone}
        for zone in ("production", "outcomes")
    )
    assert [*customers] == [*outcomes] == [plan.date(offset) for offset in range(4)]
    assert all(customers[day].index.equals(outcomes[day].index) for day in customers)
    assert [len(rows) // plan.rows for rows in customers.values()] == [1, 1, 3, 3]
    assert pd.concat(customers.values()).index.str.startswith(NEWCOMER).all()
    _, _, first, second = customers.values()
    assert first.index.intersection(second.index).empty
