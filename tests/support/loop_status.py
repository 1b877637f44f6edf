"""A status of the loop in which everything has a value."""

from creditrisk_assets.monitoring.check_catalogue import Tier
from creditrisk_assets.monitoring.loop_status import (
    DayStatus,
    Event,
    FailedCheck,
    LoopStatus,
    RunStatus,
    SensorStatus,
)
from creditrisk_assets.scoring.bundle import ChampionRecord, DecisionRule

CHAMPION = ChampionRecord(
    mlflow_uri="models:/credit_default/2",
    artifact_uri="x",
    model_version="2",
    bundle_sha256="b" * 64,
    verdict="rejected",
    reason="version 3 is no better",
    rule=DecisionRule(cut_off=0.2, reference=[]),
    in_force_verdict="promoted",
    in_force_reason="version 2 is better",
)


def alarm(tier: Tier) -> FailedCheck:
    return FailedCheck(check="c", failure="f", tier=tier.value, summary="f: x", run_id=None)


def event(kind: str, action: str | None, at: float = 1.0) -> Event:
    return Event(at=at, day=None, kind=kind, action=action, text="")


def whole_status(written: float) -> LoopStatus:
    """A status in which every metric has a value."""
    return LoopStatus(
        written=written,
        champion=CHAMPION,
        champion_since=1_700_000_000.0,
        champion_because="version 2 is better",
        retraining="no open cause",
        checks=20,
        checks_run=19,
        waiting_days=("2026-06-04",),
        days=(
            DayStatus(
                day="2026-06-01",
                rows=500,
                rejected=3,
                model_version="2",
                score_psi=0.01,
                score_psi_judged=0.02,
                score_psi_threshold=0.05,
                drifted_columns=1,
                estimated_roc_auc=0.75,
                matured=400,
                pending=0,
                missing=100,
                roc_auc=0.74,
                validation_roc_auc=0.77,
                mean_pd=0.21,
                bad_rate=0.22,
            ),
            DayStatus(
                day="2026-06-02",
                rows=600,
                rejected=0,
                model_version="2",
                score_psi=0.2,
                score_psi_judged=0.3,
                score_psi_threshold=0.06,
                drifted_columns=4,
                estimated_roc_auc=0.7,
                alarms=(alarm(Tier.TODAY), alarm(Tier.NOTE), alarm(Tier.TODAY)),
            ),
            DayStatus(day="2026-06-03", rows=10, rejected=90, alarms=(alarm(Tier.PAGE),)),
        ),
        alarms=(alarm(Tier.PAGE),),
        events=(
            event("in flight", "refit"),
            event("failed", "recalibrate"),
            event("rejected", "refit"),
            event("promoted", "refit"),
            event("promoted", None),
            event("first", None),
        ),
        runs_in_flight=(
            RunStatus(run_id="a", job="retrain", day=None, status="STARTED", started=1.0),
        ),
        failed_runs=(
            RunStatus(run_id="b", job="train", day=None, status="FAILURE", started=1_700_000_100.0),
            RunStatus(run_id="c", job="train", day=None, status="FAILURE", started=None),
        ),
        sensors=(
            SensorStatus(name="lost_runs", status="SKIPPED", message=""),
            SensorStatus(name="retrain_on_drift", status="stopped", message=""),
        ),
        landing_problems=("x",),
        dagster_url="",
        mlflow_url="",
    )
