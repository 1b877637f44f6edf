"""The recalibration figures of the promotion gate page are those of its benchmark, which reproduces them."""

import json
from typing import Any

import pytest

from creditrisk_assets.modelling.fairness import jeffreys_interval
from creditrisk_assets.policy import GateLimits, RetrainingLimits
from tests.support.places import REPOSITORY
from tests.support.trials.promotion_gate import with_block
from tests.support.trials.recalibration_gate import (
    BADS,
    BEGIN,
    END,
    RIGHT,
    TRUTHS,
    Cell,
    block,
    counted,
    fitted_pool,
)

EVIDENCE = REPOSITORY / "docs" / "evidence"


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return dict(json.loads((EVIDENCE / "recalibration-gate.json").read_text()))


def cells(results: dict[str, Any]) -> dict[tuple[str, int], Cell]:
    return {(one["truth"], one["bads"]): Cell(**one) for one in results["cells"]}


def test_every_figure_of_the_page_comes_from_the_results(results: dict[str, Any]) -> None:
    page = (EVIDENCE / "promotion-gate.md").read_text()
    assert with_block(page, block(results), BEGIN, END) == page


def test_the_results_were_found_with_the_limits_that_are_the_defaults(
    results: dict[str, Any],
) -> None:
    """Changed limits need the benchmark again."""
    assert GateLimits(**results["limits"]) == GateLimits()
    assert set(cells(results)) == {(truth.name, bads) for truth in TRUTHS for bads in BADS}


def test_right_pds_are_replaced_less_often_than_alpha_allows(results: dict[str, Any]) -> None:
    for bads in BADS:
        cell = cells(results)[RIGHT.name, bads]
        assert cell.trials >= 1_000
        assert jeffreys_interval(cell.promoted, cell.trials)[1] <= GateLimits().alpha


def test_a_rise_by_half_is_mended_on_enough_rows_and_the_ranking_never_moves(
    results: dict[str, Any],
) -> None:
    found = cells(results)
    assert found["bad rate x 1.5", 400].promoted > 0.9 * found["bad rate x 1.5", 400].trials
    assert all(cell.passed["ranks_identically"] == cell.trials for cell in found.values())


def test_the_power_that_a_recalibration_waits_for_is_the_measured_one(
    results: dict[str, Any],
) -> None:
    setting = RetrainingLimits.model_fields["minimum_bads"]
    cell = cells(results)["bad rate x 1.5", setting.default // 4]
    assert f"{cell.promoted / cell.trials:.0%}".replace("%", " %") in str(setting.description)
    decision = (
        REPOSITORY / "docs" / "decisions" / "0016-a-recalibration-is-two-numbers.md"
    ).read_text()
    assert f"{cell.promoted / cell.trials:.1%}".replace("%", " %") in decision


def test_the_benchmark_finds_its_figures_again(results: dict[str, Any]) -> None:
    """All trials of one cell again, on a champion that is fitted again."""
    cell = cells(results)["bad rate x 1.5", 50]
    truth = next(one for one in TRUTHS if one.name == cell.truth)
    assert counted(fitted_pool(), truth, cell.bads, cell.trials, GateLimits()) == cell
