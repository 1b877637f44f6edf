"""What happens by itself: real sensors on a real instance."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from creditrisk_assets.defs.sensors import (
    new_outcome_partitions,
    new_production_partitions,
    retrain_on_drift,
)
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.registry import Registry
from creditrisk_assets.simulation.scenarios import (
    redraw_outcomes,
    risk_index,
    weighted_sample,
)
from tests.support.loop import Loop, checks, customers
from tests.support.trained import trained_loop


@pytest.fixture(scope="module")
def waiting(trained: Loop) -> Loop:
    """A loop that shares the trained champion and has a landing zone of its own."""
    settings = trained.settings.model_copy(update={"data_dir": trained.place("waiting")})
    return Loop(trained.home, settings, trained.instance, trained.definitions)


def _skip(result: object) -> str:
    return str(getattr(getattr(result, "skip_reason", None), "skip_message", ""))


def test_without_a_champion_no_day_is_started_and_the_reason_says_what_to_run(fresh: Loop) -> None:
    """A run that fails for want of a champion would use up its run key for ever."""
    fresh.land_day("2026-02-01", customers(20, 1))
    result = fresh.tick(new_production_partitions)
    assert not result.run_requests
    assert "run the job train" in _skip(result)


def test_a_new_day_is_requested_once_and_a_changed_file_again(waiting: Loop) -> None:
    waiting.land_day("2026-04-01", customers(20, 1))
    first = waiting.tick(new_production_partitions)
    assert [request.partition_key for request in first.run_requests or []] == ["2026-04-01"]
    again = waiting.tick(new_production_partitions)
    assert not again.run_requests
    assert "none new" in _skip(again)
    waiting.land_day("2026-04-01", customers(20, 2))
    changed = waiting.tick(new_production_partitions)
    keys = [request.run_key for result in (first, changed) for request in result.run_requests or []]
    assert len(set(keys)) == 2
    assert all(key is not None and key.startswith("2026-04-01:") for key in keys)


@pytest.mark.embedded("it touches a file, and an object has no time of its own")
def test_a_file_touched_but_not_changed_keeps_its_run_key(waiting: Loop) -> None:
    """The daemon drops a second request with the same key, so a touched file is not scored twice."""
    path = waiting.land_day("2026-04-02", customers(20, 1))
    first = waiting.tick(new_production_partitions)
    os.utime(path.path, (time.time() - 60, time.time() - 60))
    second = waiting.tick(new_production_partitions)
    assert [one.run_key for one in first.run_requests or []] == [
        one.run_key for one in second.run_requests or []
    ]


@pytest.mark.embedded("it makes a file older than it is")
def test_a_file_that_is_still_being_written_waits_and_stops_nothing_else(
    trained: Loop, tmp_path: Path
) -> None:
    settings = trained.settings.model_copy(update={"data_dir": tmp_path, "settle_seconds": 30.0})
    loop = Loop(trained.home, settings, trained.instance, trained.definitions)
    done = loop.land_day("2026-04-03", customers(20, 1))
    os.utime(done.path, (time.time() - 60, time.time() - 60))
    loop.land_day("2026-04-04", customers(20, 2))
    result = loop.tick(new_production_partitions)
    assert [request.partition_key for request in result.run_requests or []] == ["2026-04-03"]
    skipped = _skip(loop.tick(new_production_partitions))
    assert "waiting: 2026-04-04 changed less than 30 s ago" in skipped


@pytest.mark.embedded(
    "links and empty folders are those of a disk; test_listing_s3 has the names of objects"
)
def test_what_cannot_be_read_is_named_and_stops_nothing_else(waiting: Loop) -> None:
    zone = waiting.settings.landing_production
    (zone / "2026-13-45").mkdir(parents=True)
    (zone / "1969-01-01").mkdir()
    (zone / "1969-01-01" / "a.csv").write_text("x,y\n1,2\n")
    (zone / "2026-04-05").mkdir()
    (zone / "2026-04-05" / "link.csv").symlink_to("/etc/hostname")
    (zone / "2026-04-06").mkdir()
    (zone / "2026-04-06" / ".hidden.csv").write_text("")
    waiting.land_day("2026-04-07", customers(20, 7))
    result = waiting.tick(new_production_partitions)
    assert [request.partition_key for request in result.run_requests or []] == ["2026-04-07"]
    skipped = _skip(waiting.tick(new_production_partitions))
    assert "'2026-13-45' is no day's folder" in skipped
    assert "1969-01-01 is before the earliest day; valid: 1970-01-01 to" in skipped
    assert "2026-04-05: link.csv is a link; only regular files are read" in skipped


def test_outcomes_wait_until_their_day_is_scored(waiting: Loop) -> None:
    landed = customers(20, 8)
    waiting.land_day("2026-04-08", landed)
    waiting.land_outcomes("2026-04-08", landed)
    result = waiting.tick(new_outcome_partitions)
    assert not result.run_requests
    assert "2026-04-08 has outcomes but was not scored yet" in _skip(result)


def test_drift_leads_to_one_retrain_that_names_its_causes_and_the_better_challenger_is_promoted(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The closed loop, stepped: stable days start nothing, drift waits for outcomes, then one retrain, once."""
    loop = trained_loop(tmp_path / "site", tmp_path_factory)
    rng = np.random.default_rng(
        132
    )  # not the pool's seed: the choice would follow whatever that stream drew first
    pool = customers(8_000, 32, 3_000_000)
    riskier = weighted_sample(pool, risk_index(PORTFOLIO, pool), 2_200, rng)
    stable, drifted = customers(600, 31, 2_000_000), redraw_outcomes(PORTFOLIO, riskier, 0.5, rng)
    for day, landed in (("2026-05-01", stable), ("2026-05-02", drifted)):
        loop.land_day(day, landed)
        loop.land_outcomes(day, landed)
    requested = [
        str(request.partition_key)
        for request in loop.tick(new_production_partitions).run_requests or []
    ]
    assert requested == ["2026-05-01", "2026-05-02"]
    results = {day: loop.run("score_production", day) for day in requested}
    assert checks(results["2026-05-01"])["feature_distributions_are_stable"].passed
    failed = checks(results["2026-05-02"])["feature_distributions_are_stable"]
    assert not failed.passed
    assert failed.metadata["observed"].value > failed.metadata["threshold"].value  # type: ignore[operator]
    assert "waiting for outcomes: 0 bads matured since then" in _skip(loop.tick(retrain_on_drift))

    for request in loop.tick(new_outcome_partitions).run_requests or []:
        assert loop.run("assess_performance", str(request.partition_key)).success
    (request,) = loop.tick(retrain_on_drift).run_requests or []
    assert request.tags["creditrisk/cause_partitions"] == "2026-05-02"
    assert "feature_distributions_are_stable" in request.tags["creditrisk/cause_checks"]
    assert (
        "Fields have shifted on 1 day, the latest 2026-05-02: pay_"
        in request.tags["creditrisk/cause_values"]
    )
    assert request.tags["creditrisk/cause_evidence"].startswith(
        "2,200 matured decisions of 2026-05-02 to 2026-05-02: ranking fell (AUC "
    )
    assert request.tags["creditrisk/action"] == "refit"
    assert request.tags["creditrisk/since"] == "2026-05-02"
    assert loop.run("retrain", tags=dict(request.tags)).success
    assert "no open cause" in _skip(loop.tick(retrain_on_drift))

    record = loop.champion()
    assert record.verdict == "promoted", record.reason
    candidate = loop.metadata("candidate_model")
    assert candidate["cause_partitions"] == "2026-05-02"
    assert candidate["production_days"] == "2026-05-01,2026-05-02"
    champion = loop.metadata("champion")
    assert champion["figures"]["challenger"]["roc_auc"] > champion["figures"]["champion"]["roc_auc"]
    assert champion["previous_version"] == "1"
    assert Registry(loop.settings).champion_bundle() == record.bundle_sha256
    loop.close()


def test_a_retrain_before_any_day_learns_from_the_history_alone(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    loop = trained_loop(tmp_path / "site", tmp_path_factory)
    assert loop.run("retrain").success
    assert loop.metadata("candidate_model")["production_days"] == ""
    loop.close()


def test_a_challenger_that_is_no_better_is_not_promoted_and_the_verdict_has_both_sides(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    loop = trained_loop(tmp_path / "site", tmp_path_factory)
    first = loop.champion()
    landed = customers(1_500, 41, 5_000_000)
    loop.land_day("2026-05-01", landed)
    loop.land_outcomes("2026-05-01", landed)
    assert loop.run("score_production", "2026-05-01").success
    assert loop.run("assess_performance", "2026-05-01").success
    assert loop.run("retrain").success
    record, metadata = loop.champion(), loop.metadata("champion")
    assert (record.verdict, record.model_version) == ("rejected", first.model_version)
    for side in ("champion", "challenger"):
        assert {"roc_auc", "brier"} <= set(metadata["figures"][side])
    assert metadata["challenger_version"] != record.model_version
    registry = Registry(loop.settings)
    assert registry.champion_bundle() == first.bundle_sha256
    loop.close()
