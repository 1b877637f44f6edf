"""The jobs and the schedule of the audit."""

import dagster as dg

from creditrisk_assets.defs.check_results import key_of
from creditrisk_assets.monitoring.check_catalogue import WATCHES

OF_THE_LOOP = dg.AssetSelection.checks(*(key_of(watch) for watch in WATCHES if watch.of_the_loop))
"""Checks on the loop. They do not concern a new champion, so its runs leave them out."""

train = dg.define_asset_job(
    "train",
    selection=dg.AssetSelection.assets("raw_data", "features", "model", "champion") - OF_THE_LOOP,
    description="From the history to a champion.",
)

score_production = dg.define_asset_job(
    "score_production",
    selection=dg.AssetSelection.assets(
        "production_batch", "production_scores", "drift_report", "segment_report"
    ),
    description="One day: validated, scored by the champion, checked for drift.",
)

assess_performance = dg.define_asset_job(
    "assess_performance",
    selection=dg.AssetSelection.assets("outcomes", "performance_report", "segment_performance"),
    description="One day: its outcomes, and the performance of its scores.",
)

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.assets("candidate_model", "champion") - OF_THE_LOOP,
    description="From matured production to a challenger, and the verdict on it.",
)

audit = dg.define_asset_job(
    "audit",
    selection=dg.AssetSelection.checks(
        dg.AssetCheckKey(dg.AssetKey("champion"), "champion_records_agree"),
        dg.AssetCheckKey(dg.AssetKey("champion"), "past_decisions_replay"),
        dg.AssetCheckKey(dg.AssetKey("candidate_model"), "challenger_agrees_in_shadow"),
    ),
    description="All records of the champion agree, past decisions replay to the bit, and the "
    "challenger agrees with the champion on past decisions.",
)

daily_audit = dg.ScheduleDefinition(
    name="daily_audit",
    job=audit,
    cron_schedule="0 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="The audit, at 03:00 UTC.",
)
