"""The raw fields behind each feature, as catalogues show them."""

import pytest

from creditrisk_assets.modelling.feature_sources import feature_sources
from creditrisk_assets.portfolio.encoding import raw_matrix
from creditrisk_assets.portfolio.uci_card import BILL, PAID, PAY, PORTFOLIO
from creditrisk_assets.simulation.card_customers import simulate


@pytest.fixture(scope="module")
def sources() -> dict[str, tuple[str, ...]]:
    return feature_sources(PORTFOLIO, raw_matrix(simulate(1_500, 3), PORTFOLIO.fields))


@pytest.mark.parametrize(
    ("feature", "fields"),
    [
        ("limit", ("limit_bal",)),
        ("late_1", ("pay_0",)),
        ("late_max", PAY),
        ("utilisation_1", ("limit_bal", "bill_amt1")),
        ("paid_mean", PAID),
        ("bill_mean", BILL),
        ("paid_of_bill_1", ("bill_amt2", "pay_amt1")),
    ],
)
def test_a_feature_comes_from_the_fields_of_its_formula(
    sources: dict[str, tuple[str, ...]], feature: str, fields: tuple[str, ...]
) -> None:
    assert sources[feature] == fields


def test_no_feature_comes_from_a_protected_field_and_every_other_field_serves_one(
    sources: dict[str, tuple[str, ...]],
) -> None:
    """The rule of the portfolio, seen in what the graph does."""
    assert list(sources) == PORTFOLIO.feature_names
    used = {field for fields in sources.values() for field in fields}
    assert used == set(PORTFOLIO.field_names) - set(PORTFOLIO.protected)
