"""The whole graph on one page: from raw data to the champion, from a day's file to its reports, and
the automation.
"""

import dagster as dg
from upath import UPath

from creditrisk_assets.defs import (
    batch_checks,
    champion,
    drift,
    history,
    jobs,
    lineage_events,
    loop_checks,
    performance,
    production,
    score_checks,
    segment_reports,
    status,
    window_reports,
)
from creditrisk_assets.defs.io import ParquetIOManager
from creditrisk_assets.defs.store_mark import checked_settings
from creditrisk_assets.settings import Settings

ASSETS = [
    history.raw_data,
    history.features,
    history.model,
    production.production_batch,
    production.production_scores,
    production.outcomes,
    drift.drift_report,
    segment_reports.segment_report,
    performance.performance_report,
    segment_reports.segment_performance,
    champion.candidate_model,
    champion.champion,
]

ASSET_CHECKS = [
    champion.champion_records_agree,
    champion.past_decisions_replay,
    champion.challenger_agrees_in_shadow,
    *batch_checks.CHECKS,
    *drift.CHECKS,
    *score_checks.CHECKS,
    *performance.CHECKS,
    *loop_checks.CHECKS,
]


def build_definitions(settings: Settings) -> dg.Definitions:
    """Build the definitions for one store."""
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=ASSET_CHECKS,
        jobs=[
            jobs.train,
            jobs.score_production,
            jobs.assess_performance,
            jobs.retrain,
            jobs.audit,
            window_reports.window_reports,
            loop_checks.watch,
        ],
        schedules=[
            jobs.daily_audit,
            window_reports.daily_window_reports,
            loop_checks.watch_schedule,
        ],
        sensors=[
            *status.SENSORS,
            *([lineage_events.lineage_events] if lineage_events.is_on() else []),
        ],
        resources={
            "settings": checked_settings(settings),
            "io_manager": ParquetIOManager(UPath(settings.storage)),
        },
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Build the definitions that Dagster loads, with the settings of the environment."""
    return build_definitions(Settings())
