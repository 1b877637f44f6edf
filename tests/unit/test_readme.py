"""Claims of the README, compared with the project."""

import json
import re

from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from tests.support.places import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
EVIDENCE = REPOSITORY / "docs" / "evidence"


def test_the_record_of_the_example_request_has_every_field_of_the_contract() -> None:
    (body,) = re.findall(r"-d '(\{.*?\})'", README, flags=re.DOTALL)
    assert set(json.loads(body)) == set(PORTFOLIO.field_names)


def test_the_figure_of_the_recipe_is_that_of_the_command() -> None:
    ours = json.loads((EVIDENCE / "model" / "3x3.json").read_text())["results"][0]
    claim = f"a mean AUC of {ours['mean']['roc_auc']:.4f} over three times three folds"
    assert claim in " ".join(README.replace("\n", " ").split())
