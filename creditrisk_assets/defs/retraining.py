"""The retrain decision: collects the policy's inputs from the event log, for the sensor and for
`creditrisk status`.
"""

from functools import lru_cache

import dagster as dg

from creditrisk_assets.defs import event_log
from creditrisk_assets.defs.check_results import CAUSES
from creditrisk_assets.defs.jobs import assess_performance, retrain, train
from creditrisk_assets.governance.retrain_policy import (
    BUDGET_DAYS,
    Cause,
    Decision,
    LoopState,
    RetrainLimits,
    decide,
)
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import Settings

EVIDENCE_DAYS = 4 * BUDGET_DAYS
"""Assessed days that are read; no setting needs more."""


def retrain_decision(instance: dg.DagsterInstance, settings: Settings) -> Decision:
    """Decide whether failed checks start a retrain now, of which kind, and give the reason."""
    in_force = event_log.champion_in_force(instance)
    version = in_force.model_version if in_force else None
    excluded = event_log.champion_training_days(instance)
    return decide(
        [_cause(one) for one in event_log.failed_evaluations(instance, CAUSES)],
        LoopState(
            champion_version=version,
            answered=event_log.answered_causes(instance, retrain.name),
            retrains_in_flight=event_log.runs_in_flight(instance, [retrain.name, train.name]),
            outcomes_in_flight=event_log.runs_in_flight(instance, [assess_performance.name]),
            past=event_log.past_retrains(instance, retrain.name),
            evidence=event_log.matured_evidence(instance, version, excluded, EVIDENCE_DAYS)
            if version
            else {},
            validation=_validation(BundleStore(settings.data_dir), in_force.bundle_sha256)
            if in_force
            else {},
        ),
        RetrainLimits.of(settings),
    )


def _cause(one: event_log.Evaluation) -> Cause:
    return Cause(
        record_id=one.record_id,
        check=one.check,
        partition=str(one.partition),
        value=one.summary,
        model_version=str(one.metadata["model_version"]),
    )


def history_mark(instance: dg.DagsterInstance) -> str:
    """A mark that changes with each event that can affect the decision: a run starts, continues or
    ends, or a command changes the champion. Its cost does not depend on the length of the log.
    """
    moved = [
        record.storage_id
        for record in instance.fetch_materializations(event_log.CHAMPION, limit=1).records
    ]
    latest = instance.get_run_records(limit=1, order_by="update_timestamp")
    runs = [
        (one.dagster_run.run_id, one.dagster_run.status.value, one.update_timestamp.isoformat())
        for one in latest
    ]
    return repr((moved, runs))


@lru_cache(maxsize=4)
def _validation(bundles: BundleStore, bundle_sha256: str) -> dict[str, float]:
    metrics = bundles.load(bundle_sha256).manifest.metrics
    return {name: metrics[name] for name in ("roc_auc", "roc_auc_standard_error")}
