"""The model card and the inventory entry: they say what the bundle, the portfolio and the settings say, and nothing else."""

import dataclasses
import json
import re
from html import unescape
from pathlib import Path

import pytest

from creditrisk_assets.governance.model_card import (
    InventoryEntry,
    Subject,
    inventory_entry,
    kind_of_change,
    model_documents,
)
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Bundle
from creditrisk_assets.settings import Settings

SETTINGS = Settings(portfolio=dataclasses.replace(PORTFOLIO, owner="A. Owner & Sons"))
CHECKS = [("score_is_stable", "the score | has not moved")]
PLOTS = {"roc": b"\x89PNG roc", "calibration": b"\x89PNG calibration"}


@pytest.fixture(scope="module")
def subject(bundle: Bundle) -> Subject:
    return Subject("credit_default", "3", bundle, None, CHECKS, PLOTS)


@pytest.fixture(scope="module")
def documents(subject: Subject) -> dict[str, str]:
    return model_documents(subject, SETTINGS)


def test_the_card_has_every_fact_of_the_bundle_and_the_portfolio(
    documents: dict[str, str], bundle: Bundle
) -> None:
    card, manifest = documents["model_card.md"], bundle.manifest
    for told in (
        bundle.sha256,
        manifest.training.fingerprint,
        f"| rows trained on | {manifest.training.rows:,} |",
        f"| roc_auc | {manifest.metrics['roc_auc']:.4f} | {manifest.metrics['roc_auc_low']:.4f} to "
        f"{manifest.metrics['roc_auc_high']:.4f} |",
        f"| cut-off | PD {manifest.cut_off:.4f}: not flagged below it, flagged from it on |",
        "| owner | A. Owner & Sons |",
        "| validator | not assigned |",
        "none: history alone",
        "creditrisk champion rollback",
        "creditrisk fairness --data",
        "they prove no compliance",
        *PORTFOLIO.limits,
        *(f"| {one.name} | " for one in PORTFOLIO.features),
        *(reason.text for reason in PORTFOLIO.reasons),
        *(f"| {name} | {version} |" for name, version in manifest.libraries.items()),
        *(f"| {name} | " for name in PORTFOLIO.protected),
    ):
        assert told in card, told


def test_the_monitoring_plan_has_every_check_and_every_setting_with_its_value(
    documents: dict[str, str],
) -> None:
    card = documents["model_card.md"]
    assert "| score_is_stable | the score \\| has not moved |" in card
    rows = 0
    for section, limits in SETTINGS.policy:
        for name, value in limits:
            purpose = type(limits).model_fields[name].description
            assert f"| {section}.{name} | {value} | {purpose} |" in card
            rows += 1
    assert rows > 20


def test_the_page_is_whole_by_itself_and_says_the_same(documents: dict[str, str]) -> None:
    page = documents["model_card.html"]
    assert page.count("data:image/png;base64,") == len(PLOTS)
    assert not re.findall(r'(?:src|<link[^>]+href)="(?!data:)', page)
    assert "A. Owner &amp; Sons" in page
    rows = re.findall(r"^\| (.+) \|$", documents["model_card.md"], flags=re.MULTILINE)
    cells = [
        cell.strip().replace("\\|", "|") for row in rows for cell in re.split(r"(?<!\\)\|", row)
    ]
    assert len(cells) > 300
    assert [cell for cell in cells if cell not in unescape(page)] == []


def test_tables_in_markdown_have_as_many_cells_in_every_row_as_in_their_header(
    documents: dict[str, str],
) -> None:
    for text in re.split(r"\n\n+", documents["model_card.md"]):
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1, text


def test_the_inventory_entry_is_json_that_reads_back(
    documents: dict[str, str], subject: Subject
) -> None:
    entry = InventoryEntry.model_validate_json(documents["inventory.json"])
    assert entry == inventory_entry(subject, SETTINGS)
    assert (entry.model, entry.version, entry.kind_of_change, entry.champion_when_registered) == (
        "credit_default",
        "3",
        "first",
        None,
    )
    assert entry.metrics == subject.bundle.manifest.metrics


def test_the_same_version_gives_the_same_documents(
    documents: dict[str, str], subject: Subject
) -> None:
    assert model_documents(subject, SETTINGS) == documents


def test_a_refit_is_minor_other_features_are_major_another_population_is_material(
    bundle: Bundle,
) -> None:
    manifest = bundle.manifest
    training = manifest.training
    refit = manifest.model_copy(
        update={"training": training.model_copy(update={"rows": 1, "fingerprint": "other"})}
    )
    other_family = training.model_copy(update={"family": "another"})
    other_parameters = training.model_copy(
        update={"parameters": {**training.parameters, "max_iter": 5}}
    )
    assert kind_of_change(manifest, None) == "first"
    assert kind_of_change(refit, manifest) == "minor"
    others = ({"training": other_parameters}, {"training": other_family})
    for update in ({"features": manifest.features[1:]}, {"inputs": manifest.inputs[1:]}, *others):
        assert kind_of_change(manifest.model_copy(update=update), manifest) == "major"
    assert (
        kind_of_change(manifest.model_copy(update={"portfolio": "loans"}), manifest) == "material"
    )


def test_nothing_of_one_portfolio_is_in_the_code() -> None:
    """The card of another bank's portfolio must not speak of this data set."""
    folder = Path(__file__).parents[3] / "creditrisk_assets" / "governance"
    text = "".join(path.read_text() for path in [*folder.glob("*.py"), *folder.glob("templates/*")])
    assert not re.search(r"\buci\b|taiwan|behavioural|one-month|pay_0", text, flags=re.IGNORECASE)


def test_the_inventory_has_the_version_that_it_was_compared_with(bundle: Bundle) -> None:
    subject = Subject("credit_default", "4", bundle, ("2", bundle.manifest), CHECKS, {})
    entry = json.loads(model_documents(subject, SETTINGS)["inventory.json"])
    assert (entry["compared_with_version"], entry["kind_of_change"]) == ("2", "minor")
