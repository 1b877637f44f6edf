"""The page of the promotion gate says what its benchmark found, and the benchmark finds it again."""

import dataclasses
import json
from typing import Any

import pytest

from creditrisk_assets.modelling.fairness import jeffreys_interval
from creditrisk_assets.policy import GateLimits
from tests.support.places import REPOSITORY
from tests.support.trials.promotion_gate import (
    BEGIN,
    Cell,
    StandIn,
    block,
    stand_in_cell,
    with_block,
)

EVIDENCE = REPOSITORY / "docs" / "evidence"


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return dict(json.loads((EVIDENCE / "promotion-gate.json").read_text()))


def test_every_figure_of_the_page_comes_from_the_results(results: dict[str, Any]) -> None:
    page = (EVIDENCE / "promotion-gate.md").read_text()
    assert with_block(page, block(results)) == page


def test_the_results_were_found_with_the_limits_that_are_the_defaults(
    results: dict[str, Any],
) -> None:
    """Changed limits need the benchmark again."""
    assert GateLimits(**results["limits"]) == GateLimits()


def test_a_challenger_that_is_no_better_is_promoted_as_seldom_as_the_page_says(
    results: dict[str, Any],
) -> None:
    """The stand-in of refits with another seed, 50 bads: all trials again, the same counts, and the error within its bound."""
    (cell,) = (
        Cell(**one)
        for one in results["cells"]
        if (one["kind"], one["bads"]) == ("stand-in: seed", 50)
    )
    stand_in = StandIn(**results["stand_ins"]["seed"])
    assert (
        stand_in_cell(
            cell.kind, stand_in, cell.bads, cell.gain, cell.trials, GateLimits(**results["limits"])
        )
        == cell
    )
    assert jeffreys_interval(cell.promoted, cell.trials)[0] <= 0.05


def test_every_simulated_challenger_that_is_no_better_is_within_the_bound(
    results: dict[str, Any],
) -> None:
    nulls = [Cell(**one) for one in results["cells"] if one["kind"] in ("seed", "bootstrap")]
    assert len(nulls) == 8
    assert min(cell.trials for cell in nulls) >= 1_000
    assert max(cell.promoted / cell.trials for cell in nulls) <= 0.05


def test_a_gain_that_matters_is_found_on_enough_rows(results: dict[str, Any]) -> None:
    """40 trials: a true gain of 0.03 with 400 bads."""
    stand_in = dataclasses.replace(StandIn(**results["stand_ins"]["other customers"]), spread=0.0)
    cell = stand_in_cell("gain", stand_in, 400, 0.03, 40, GateLimits())
    assert cell.promoted >= 36


def test_a_page_without_a_block_is_refused() -> None:
    for page in ("nothing", f"{BEGIN} {BEGIN}"):
        with pytest.raises(ValueError, match="the page has no block; valid: once"):
            with_block(page, "figures")
