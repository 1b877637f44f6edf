"""The data dictionary in docs/ is the one that the contract gives."""

from creditrisk_assets.portfolio.dictionary import data_dictionary
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from tests.support.places import REPOSITORY


def test_the_page_in_the_documentation_is_current() -> None:
    page = (REPOSITORY / "docs" / "data-dictionary.md").read_text()
    assert page == data_dictionary(PORTFOLIO), (
        "make it again: creditrisk portfolio describe -o docs/data-dictionary.md"
    )


def test_it_names_every_field_code_feature_and_reason() -> None:
    page = data_dictionary(PORTFOLIO)
    assert all(f"| `{field.name}` | {field.description} |" in page for field in PORTFOLIO.fields)
    assert "| `pay_0` | -2 | no consumption |" in page
    assert all(f"| `{feature.name}` |" in page for feature in PORTFOLIO.features)
    assert all(f"| {reason.code} | {reason.text} |" in page for reason in PORTFOLIO.reasons)
    assert page.count("monitoring only |") == len(PORTFOLIO.protected)
