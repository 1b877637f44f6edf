"""A run that asks for a recalibration: the champion's calibration is fitted again, judged, registered, served and replayed."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from creditrisk_assets.cli.main import app
from creditrisk_assets.decisions.replay import replay_sample
from creditrisk_assets.defs.event_log import ACTION_TAG, SINCE_TAG
from creditrisk_assets.governance.gate_tests import NO_SHADOW, NOT_FOR_A_RECALIBRATION
from creditrisk_assets.governance.model_card import InventoryEntry
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import RECALIBRATION
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.simulation.card_customers import simulate
from creditrisk_assets.simulation.scenarios import Plan, day_of_customers, simulated_customers
from tests.support.loop import Loop, api
from tests.support.waiting import until

ROWS = 1_600
STABLE_DAYS = 3
SHIFTED_DAYS = 3
PLAN = Plan(
    "prior-shift", date(2026, 3, 1), STABLE_DAYS + SHIFTED_DAYS + 1, ROWS, 1.0, 3, STABLE_DAYS, 31
)
"""The odds of default double on the fourth day; the last day's outcomes are not there yet."""


def customers_of(offset: int) -> pd.DataFrame:
    return day_of_customers(PLAN, PORTFOLIO, simulated_customers(PORTFOLIO), offset)


def live(loop: Loop, offset: int, matured: bool = True) -> None:
    day, customers = PLAN.date(offset), customers_of(offset)
    loop.land_day(day, customers)
    assert loop.run("score_production", day).success
    if matured:
        loop.land_outcomes(day, customers)
        assert loop.run("assess_performance", day).success


def recalibrate(loop: Loop, since: str) -> bool:
    return loop.run("retrain", tags={ACTION_TAG: "recalibrate", SINCE_TAG: since}).success


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A champion, and stable days that have matured; the first test recalibrates on them, the second after a prior shift."""
    made = Loop.of(tmp_path_factory.mktemp("recalibrated") / "site", raw_data="simulated:6000")
    assert made.run("train").success
    for offset in range(STABLE_DAYS):
        live(made, offset)
    yield made
    made.close()


def test_a_right_calibration_stays(loop: Loop) -> None:
    first = loop.champion()
    assert recalibrate(loop, PLAN.date(0))
    candidate, verdict = loop.metadata("candidate_model"), loop.metadata("champion")
    assert candidate["kind"] == RECALIBRATION
    assert candidate["production_days"] == ",".join(
        PLAN.date(offset) for offset in range(STABLE_DAYS)
    )
    assert (verdict["verdict"], verdict["challenger_version"]) == (
        "rejected",
        candidate["model_version"],
    )
    assert loop.champion().model_version == first.model_version
    failed = [test["name"] for test in verdict["verdict_document"]["tests"] if not test["passed"]]
    assert "likelihood_is_greater" in failed
    assert "graph_is_the_champions" not in failed


@pytest.fixture(scope="module")
def promoted(loop: Loop) -> Loop:
    """After the shift, recalibrated on it; one more day is scored by the new champion."""
    for offset in range(STABLE_DAYS, STABLE_DAYS + SHIFTED_DAYS):
        live(loop, offset)
    assert recalibrate(loop, PLAN.date(STABLE_DAYS))
    live(loop, STABLE_DAYS + SHIFTED_DAYS, matured=False)
    return loop


def test_after_a_prior_shift_the_recalibration_is_promoted_and_says_what_it_is(
    promoted: Loop,
) -> None:
    candidate, verdict = promoted.metadata("candidate_model"), promoted.metadata("champion")
    assert verdict["verdict"] == "promoted", verdict["reason"]
    assert verdict["reason"].startswith("challenger is the champion, better calibrated")
    assert candidate["kind"] == RECALIBRATION
    assert (candidate["parent_version"], candidate["since"]) == ("1", PLAN.date(STABLE_DAYS))
    assert candidate["recalibration_update"] == "intercept"
    assert candidate["recalibration_intercept"] == pytest.approx(np.log(2), abs=0.2)
    assert candidate["production_days"] == ",".join(
        PLAN.date(STABLE_DAYS + day) for day in range(SHIFTED_DAYS)
    )
    document = verdict["verdict_document"]
    assert (document["kind"], document["not_applied"]) == (
        RECALIBRATION,
        {"shadow_agrees": NO_SHADOW, **NOT_FOR_A_RECALIBRATION},
    )
    assert promoted.champion().model_version == candidate["model_version"]


def test_ranking_decisions_and_reasons_are_the_former_champion_s_and_the_level_is_right(
    promoted: Loop,
) -> None:
    record = promoted.champion()
    new = promoted.bundle(record)
    former = promoted.frame("production_scores", PLAN.date(0))
    old = BundleStore(promoted.settings.data_dir).load(str(former["bundle_sha256"].iloc[0]))
    assert new.manifest.training.recalibration is not None
    assert new.manifest.training.recalibration.parent_sha256 == old.sha256
    raw = simulate(3_000, 78)[PORTFOLIO.field_names].to_numpy(np.float32)
    before, after = old.decide(raw, old.manifest.rule), new.decide(raw, new.manifest.rule)
    places = [stats.rankdata(side.default_probability, "dense") for side in (before, after)]
    assert np.array_equal(places[0], places[1])
    assert np.array_equal(before.prediction, after.prediction)
    assert np.array_equal(before.reasons, after.reasons)
    last = STABLE_DAYS + SHIFTED_DAYS
    scored, bad_rate = (
        promoted.frame("production_scores", PLAN.date(last)),
        customers_of(last)[PORTFOLIO.target].mean(),
    )
    assert set(scored["model_version"]) == {record.model_version}
    assert abs(scored["default_probability"].mean() - bad_rate) < 0.03
    stale = old.score(new.raw(customers_of(last))).default_probability
    assert abs(stale.mean() - bad_rate) > 0.08


def test_the_fallback_is_recalibrated_on_the_same_rows(promoted: Loop) -> None:
    record = promoted.champion()
    training = promoted.bundle(record).manifest.training
    if training.family == "scorecard":
        assert record.fallback is None
        return
    assert record.fallback is not None
    beside = (
        BundleStore(promoted.settings.data_dir)
        .load(record.fallback.bundle_sha256)
        .manifest.training
    )
    assert (beside.family, beside.kind, beside.fingerprint) == (
        "scorecard",
        RECALIBRATION,
        training.fingerprint,
    )


def test_decisions_of_before_and_after_replay_to_the_bit(promoted: Loop) -> None:
    replayed = replay_sample(
        promoted.settings.decisions, BundleStore(promoted.settings.data_dir), 1
    )
    assert all(one.exact for one in replayed)
    assert {one.decisions.day for one in replayed} <= {
        PLAN.date(offset) for offset in range(PLAN.days)
    }
    command = CliRunner().invoke(
        app,
        ["replay", "--date", PLAN.date(PLAN.days - 1)],
        env={
            **promoted.environment,
        },
    )
    assert command.exit_code == 0, command.output


def test_any_mlflow_client_and_the_api_answer_with_the_recalibrated_bits(promoted: Loop) -> None:
    record = promoted.champion()
    bundle = promoted.bundle(record)
    frame = simulate(200, 79)
    expected = bundle.score(bundle.raw(frame))
    answers = promoted.mlflow_model("models:/credit_default@champion").predict(
        frame[PORTFOLIO.field_names].astype("float64")
    )
    assert np.array_equal(answers["default_probability"], expected.default_probability)
    with api(promoted) as client:
        until(lambda: client.get("/ready").status_code == 200, 30)
        answer = client.post("/predict", json=frame[PORTFOLIO.field_names].iloc[0].to_dict()).json()
    assert answer["default_probability"] == expected.default_probability[0]
    assert (answer["model_version"], answer["degraded"]) == (record.model_version, False)


def test_card_inventory_and_the_command_say_the_kind(promoted: Loop, tmp_path: Path) -> None:
    client = mlflow.MlflowClient(promoted.settings.tracking_uri, promoted.settings.tracking_uri)
    run_id = promoted.metadata("candidate_model")["mlflow_run_id"]
    card, inventory = (
        Path(client.download_artifacts(run_id, name, str(tmp_path))).read_text()
        for name in ("model_card.md", "inventory.json")
    )
    assert "| kind of model | recalibration: " in card
    assert "| rows recalibrated on | " in card
    assert "| changed | intercept |" in card
    entry = InventoryEntry.model_validate_json(inventory)
    assert (entry.training_kind, entry.kind_of_change) == (RECALIBRATION, "minor")
    assert entry.recalibration is not None
    assert client.get_run(run_id).data.params["kind"] == RECALIBRATION
    shown = CliRunner().invoke(
        app,
        ["champion", "show"],
        env={
            **promoted.environment,
            "COLUMNS": "200",
        },
    )
    assert "(recalibration)" in shown.output
    in_one_line = "".join(
        shown.output.replace("│", " ").split()
    )  # a narrow terminal breaks the hash
    assert f"{entry.recalibration.parent_sha256}(intercept)" in in_one_line


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        (
            {ACTION_TAG: "rebuild"},
            "run tag creditrisk/action is 'rebuild'; valid: recalibrate, refit",
        ),
        (
            {ACTION_TAG: "recalibrate"},
            "run tag creditrisk/since is missing; valid with creditrisk/action recalibrate: a day",
        ),
        (
            {ACTION_TAG: "recalibrate", SINCE_TAG: "yesterday"},
            "run tag creditrisk/since is 'yesterday'; valid",
        ),
        (
            {ACTION_TAG: "recalibrate", SINCE_TAG: "20260301"},
            "run tag creditrisk/since is '20260301'; valid",
        ),
        (
            {ACTION_TAG: "recalibrate", SINCE_TAG: "2027-01-01"},
            "2027-01-01 or later has arrived; valid: a day up to 2026-03-06",
        ),
    ],
)
def test_a_tag_that_cannot_be_followed_fails_the_run_and_says_what_is_valid(
    promoted: Loop, tags: dict[str, str], told: str
) -> None:
    before = promoted.champion()
    result = promoted.run("retrain", tags=tags)
    assert not result.success
    failure = result.failure_data_for_node("candidate_model")
    assert failure is not None
    assert told in json.dumps([str(failure.error), str(failure.user_failure_data)])
    assert promoted.champion() == before


def test_without_a_champion_there_is_nothing_to_recalibrate(fresh: Loop) -> None:
    fresh.make("raw_data", "features")
    result = fresh.run("retrain", tags={ACTION_TAG: "recalibrate", SINCE_TAG: "2026-03-01"})
    assert not result.success
    failure = result.failure_data_for_node("candidate_model")
    assert failure is not None
    assert "there is no champion to recalibrate; valid: run the job train first" in str(
        failure.error
    ) + str(failure.user_failure_data)
