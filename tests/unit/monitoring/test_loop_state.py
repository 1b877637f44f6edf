"""The sentence about the loop is true, and the state says whether a person is needed."""

import time
from typing import Any

import pytest

from creditrisk_assets.monitoring.episodes import EpisodeRecord
from creditrisk_assets.monitoring.loop_state import State, state_of
from creditrisk_assets.monitoring.loop_status import DayStatus, FailedCheck, LoopStatus, RunStatus
from creditrisk_assets.scoring.bundle import ChampionRecord, DecisionRule

NOON = 1_780_315_200.0  # 2026-06-01 12:00 UTC
CHAMPION = ChampionRecord(
    mlflow_uri="models:/credit_default/2",
    artifact_uri="x",
    model_version="2",
    bundle_sha256="b" * 64,
    verdict="promoted",
    reason="better",
    rule=DecisionRule(cut_off=0.2, reference=[]),
)


def status(**more: Any) -> LoopStatus:
    values: dict[str, Any] = {
        "written": NOON - 60,
        "champion": CHAMPION,
        "champion_since": NOON - 3_600,
        "champion_because": "better",
        "retraining": "no open cause",
        "checks": 20,
        "checks_run": 20,
        "days": (),
        "events": (),
        "runs_in_flight": (),
        "failed_runs": (),
        "sensors": (),
        "landing_problems": (),
        "dagster_url": "",
        "mlflow_url": "",
    }
    return LoopStatus(**(values | more))


def episode(check: str, tier: str, **more: Any) -> EpisodeRecord:
    values: dict[str, Any] = {
        "id": "1" * 32,
        "asset": "champion",
        "check": check,
        "failure": "A run failed: job retrain",
        "tier": tier,
        "opened_at": NOON,
        "opened_day": "2026-06-01",
        "latest_day": "2026-06-01",
        "failures": 1,
    }
    return EpisodeRecord(**(values | more))


def day(name: str, **more: Any) -> DayStatus:
    return DayStatus(day=name, model_version="2", score_psi=0.1, drifted_columns=0, **more)


def drifted(name: str, columns: int) -> DayStatus:
    return DayStatus(day=name, model_version="2", score_psi=0.1, drifted_columns=columns)


def test_a_loop_without_alarms_is_healthy_and_each_clause_is_a_figure() -> None:
    days = (day("2026-05-30", roc_auc=0.771, validation_roc_auc=0.775), day("2026-05-31"))
    state = state_of(status(days=days), 24, NOON)
    assert state.state is State.HEALTHY
    assert state.sentence == (
        "Version 2 since 11:00 UTC; no drift on 2026-05-31; discrimination and calibration hold "
        "(AUC 0.771, 0.775 at validation, 2026-05-30)."
    )


def test_drift_is_told_from_the_first_day_of_its_spell() -> None:
    days = tuple(
        drifted(f"2026-05-0{number}", columns)
        for number, columns in enumerate((3, 0, 2, 5, 20), start=1)
    )
    assert (
        "drift in 20 of 24 columns since 2026-05-03"
        in state_of(status(days=days), 24, NOON).sentence
    )


def test_days_of_other_versions_say_nothing_about_the_champion() -> None:
    other = DayStatus(day="2026-05-31", model_version="1", score_psi=1.0, drifted_columns=20)
    assert state_of(status(days=(other,)), 24, NOON).sentence == "Version 2 since 11:00 UTC."


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ("ranking_is_as_at_validation", "discrimination is down (AUC 0.646, 0.733 at validation"),
        ("default_rate_is_as_predicted", "calibration is off (bad rate 0.300, mean PD 0.200"),
    ],
)
def test_a_failed_check_of_the_latest_matured_day_is_told(check: str, expected: str) -> None:
    failed = FailedCheck(check=check, failure="x", tier="look today", summary="x", run_id=None)
    of_day = day(
        "2026-05-31",
        roc_auc=0.646,
        validation_roc_auc=0.733,
        bad_rate=0.3,
        mean_pd=0.2,
        alarms=(failed,),
    )
    assert expected in state_of(status(days=(of_day,)), 24, NOON).sentence


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"episodes": (episode("no_run_failed", "look today"),)}, State.ACT),
        ({"episodes": (episode("sensors_tick", "page now"),)}, State.ACT),
        ({"episodes": (episode("feature_distributions_are_stable", "note"),)}, State.WATCH),
        # The loop answers it by a retrain.
        ({"episodes": (episode("score_distribution_is_stable", "look today"),)}, State.WATCH),
        ({"episodes": (episode("no_run_failed", "look today", closed_at=NOON),)}, State.HEALTHY),
        ({"retraining_needs_person": True}, State.ACT),
        ({"written": NOON - 3_600}, State.ACT),
        ({"champion": None, "champion_since": None}, State.WATCH),
        ({"days": (drifted("2026-05-31", 3),)}, State.WATCH),
        ({"days": (drifted("2026-05-30", 3), day("2026-05-31"))}, State.HEALTHY),
        (
            {
                "runs_in_flight": (
                    RunStatus(
                        run_id="1",
                        job="retrain",
                        day=None,
                        status="STARTED",
                        started=1.0,
                        action="refit",
                    ),
                )
            },
            State.WATCH,
        ),
    ],
)
def test_the_state_says_whether_a_person_is_needed(more: dict[str, Any], expected: State) -> None:
    assert state_of(status(**more), 24, NOON).state is expected


def test_an_alarm_that_a_person_takes_care_of_needs_no_other() -> None:
    now = time.time()
    reaction = {
        "id": "1",
        "kind": "acknowledge",
        "by": "ana",
        "reason": "on it",
        "at": now,
        "source": "command",
    }
    cared_for = episode("no_run_failed", "page now", reactions=(reaction,))
    state = state_of(status(written=now, episodes=(cared_for,)), 24, now)
    assert state.state is State.WATCH
    assert "a run failed" in state.sentence


def test_a_failure_that_is_no_episode_yet_counts_already() -> None:
    failed = FailedCheck(
        check="no_run_failed", failure="A run failed", tier="look today", summary="x", run_id=None
    )
    of_loop = state_of(status(alarms=(failed,)), 24, NOON)
    assert (of_loop.state, "a run failed" in of_loop.sentence) == (State.ACT, True)
    days = (day("2026-05-30", alarms=(failed,)), day("2026-05-31"))
    assert state_of(status(days=days), 24, NOON).state is State.HEALTHY
    assert state_of(status(days=days[:1]), 24, NOON).state is State.ACT


def test_what_runs_and_what_waits_is_told() -> None:
    running = RunStatus(
        run_id="1", job="retrain", day=None, status="STARTED", started=1.0, action="refit"
    )
    state = state_of(status(runs_in_flight=(running,), waiting_days=("2026-06-01",)), 24, NOON)
    assert state.sentence.endswith("; refit running; 1 day landed and not scored yet.")
