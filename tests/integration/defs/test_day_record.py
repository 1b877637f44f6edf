"""What was acted on is what is monitored: scoring an old day again changes no record, no figure and no alarm."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus

from creditrisk_assets.decisions.sets import scorings_of
from creditrisk_assets.portfolio.sampling import is_held_out
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from tests.support.loop import Loop, api, checks, customers
from tests.support.trained import poorly_trained_loop

DAY, LATER = "2026-05-01", "2026-05-02"
ROWS = 2_000


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A poor first champion decides a day badly; its successor has learned from that day."""
    loop = poorly_trained_loop(tmp_path_factory.mktemp("record") / "site", tmp_path_factory)
    landed = customers(ROWS, 31)
    loop.land_day(DAY, landed)
    assert loop.run("score_production", DAY).success
    loop.land_outcomes(DAY, landed)
    assert loop.run("assess_performance", DAY).success
    loop.land_day(LATER, customers(200, 32, 1_500_000))
    assert loop.run("score_production", LATER).success
    assert loop.run("retrain").success
    assert loop.champion().verdict == "promoted", loop.champion().reason
    yield loop
    loop.close()


def status_of(loop: Loop, asset: str, day: str) -> StaleStatus:
    """What the Dagster UI shows of a day."""
    resolver = CachingStaleStatusResolver(
        loop.instance, loop.definitions.resolve_asset_graph(), _loading(loop)
    )
    return resolver.get_status(dg.AssetKey(asset), day)


def _loading(loop: Loop) -> Any:
    from dagster._core.loader import LoadingContextForTest

    return LoadingContextForTest(loop.instance)


def test_a_promotion_does_not_make_past_decisions_unsynced(promoted: Loop) -> None:
    for asset in ("production_scores", "drift_report", "performance_report"):
        assert status_of(promoted, asset, DAY) is StaleStatus.FRESH, asset


def test_scoring_an_old_day_again_leaves_record_performance_and_alarm_and_keeps_the_scoring_beside(
    promoted: Loop,
) -> None:
    """The new champion's own answers on the days that it has learned from used to become that day's performance."""
    record = promoted.frame("production_scores", DAY)
    before = promoted.metadata("performance_report", DAY)
    first = promoted.metadata("production_scores", DAY)
    assert first["model_version"] == "1"
    result = promoted.run("score_production", DAY)
    assert result.success
    assert promoted.run("assess_performance", DAY).success
    pd.testing.assert_frame_equal(promoted.frame("production_scores", DAY), record)
    after = promoted.metadata("performance_report", DAY)
    assert after["figures"]["roc_auc"] == before["figures"]["roc_auc"]
    assert after["model_version"] == "1"
    again = promoted.metadata("production_scores", DAY)
    assert (again["model_version"], again["mean PD, %"]) == ("1", first["mean PD, %"])
    assert again["latest_scoring"].startswith("scoring 2 of the day, by version 2 ")
    scorings = scorings_of(promoted.settings.decisions, DAY)
    assert [(one.number, one.champion.model_version, one.rows) for one in scorings] == [
        (1, "1", ROWS),
        (2, "2", ROWS),
    ]
    assert status_of(promoted, "drift_report", DAY) is StaleStatus.FRESH


def test_of_a_corrected_file_decided_records_keep_their_decision_and_the_others_are_decided_now(
    promoted: Loop,
) -> None:
    record = promoted.frame("production_scores", LATER)
    landed = customers(200, 32, 1_500_000)
    corrected = landed.copy()
    corrected.loc[[3, 7], "limit_bal"] = 990_000
    more = customers(5, 33, 1_700_000)
    file = pd.concat([corrected.drop(index=11), more]).sample(frac=1, random_state=1)
    promoted.land_day(LATER, file)
    result = promoted.run("score_production", LATER)
    assert result.success
    now = promoted.frame("production_scores", LATER)
    assert list(now["id"]) == list(file["id"])
    anew = {*corrected.loc[[3, 7], "id"], *more["id"]}
    versions = now.set_index("id")["model_version"]
    assert set(versions[versions == "2"].index) == anew
    kept = now[~now["id"].isin(anew)].set_index("id").sort_index()
    was = record[record["id"].isin(kept.index)].set_index("id").sort_index()
    pd.testing.assert_frame_equal(kept, was)
    said = promoted.metadata("production_scores", LATER)
    assert said["model_version"] == "1"
    assert "| 2 |" in said["decided_by"]
    assert "| 7 |" in said["decided_by"]
    assert all(
        one.metadata["model_version"].value == "1"
        for one in checks(result).values()
        if "model_version" in one.metadata
    )


def test_rows_that_the_champion_has_learned_from_are_no_performance(promoted: Loop) -> None:
    """A file that lands for a day on which the champion was trained: three in four of its customers may be in the training."""
    landed = customers(ROWS, 34, 1_800_000)
    promoted.land_day(DAY, landed)
    promoted.land_outcomes(DAY, landed)
    assert promoted.run("score_production", DAY).success
    assert promoted.run("assess_performance", DAY).success
    said = promoted.metadata("performance_report", DAY)
    held_out = int(is_held_out(landed[PORTFOLIO.identifier]).sum())
    assert (said["model_version"], said["figures"]["rows"]) == ("2", held_out)
    assert said["not_counted_in_sample"] == ROWS - held_out


def test_what_is_said_of_the_champion_is_why_it_is_champion_and_not_why_another_was_refused(
    promoted: Loop,
) -> None:
    because = promoted.champion().effective_reason
    assert "the cut-off moves with the model from PD " in because
    promoted.land_day("2026-05-03", customers(400, 35, 1_900_000))
    assert promoted.run("retrain").success
    now = promoted.champion()
    assert (now.model_version, now.verdict) == ("2", "rejected")
    assert now.reason != because
    assert (now.effective_verdict, now.effective_reason) == ("promoted", because)
    with api(promoted) as client:
        told = client.get("/model-info").json()
    assert (told["model_version"], told["verdict"], told["reason"]) == ("2", "promoted", because)
