"""How the day's decisions turned out: the asset `performance_report` and the checks on it.

The checks do not block: there is nothing after them to stop.
"""

import dataclasses
import math

import dagster as dg
import pandas as pd

from creditrisk_assets.defs.events import bundle_that_scored, latest_day_of_data
from creditrisk_assets.defs.metadata import OWNERS, figures, picture, table
from creditrisk_assets.defs.partitions import DAYS
from creditrisk_assets.settings import Settings


@dg.asset(
    group_name="monitoring",
    kinds={"scikitlearn", "parquet"},
    owners=OWNERS,
    code_version="1",
    partitions_def=DAYS,
)
def performance_report(
    context: dg.AssetExecutionContext,
    production_scores: pd.DataFrame,
    outcomes: pd.DataFrame,
    settings: dg.ResourceParam[Settings],
) -> dg.Output[pd.DataFrame]:
    """How the day's scores turned out, on the rows whose outcome has arrived, beside what the champion showed at validation."""
    from creditrisk_assets.governance.policy import grade_table
    from creditrisk_assets.modelling.plots import calibration_plot, roc_plot
    from creditrisk_assets.monitoring.performance import (
        join_outcomes,
        level_held,
        ranking_held,
        realised_performance,
    )
    from creditrisk_assets.portfolio.outcomes import maturity

    version, bundle = bundle_that_scored(context.instance, production_scores)
    validation = bundle.manifest.metrics
    portfolio = settings.portfolio
    day = join_outcomes(production_scores, outcomes, portfolio.identifier)
    realised = realised_performance(day, portfolio.target)
    probability = day.rows["default_probability"].to_numpy(dtype=float)
    latest_day = latest_day_of_data(context.instance)
    waiting = maturity(day.decisions, len(day.rows), context.partition_key, latest_day, portfolio.performance_window_days)
    alpha, floor = settings.performance_alpha, settings.performance_floor
    tests = {
        "ranking": ranking_held(realised, validation, alpha, floor),
        "level": level_held(realised, float((probability**2).mean()) if len(probability) else math.nan, alpha, floor),
    }
    frame = pd.DataFrame(
        [
            {"test": name, **vars(test), "model_version": version, "rows": len(day.rows), "alpha": alpha, "floor": floor}
            for name, test in tests.items()
        ]
    )
    plots = {}
    if "roc_auc" in realised and settings.report_rows:
        target = day.rows[portfolio.target].to_numpy(dtype="int64")
        plots = {
            "roc": picture(roc_plot(target, {f"version {version}": probability})),
            "calibration": picture(calibration_plot(target, {f"version {version}": probability})),
        }
    return dg.Output(
        frame,
        metadata={
            "model_version": version,
            **dataclasses.asdict(waiting),
            "latest_day_of_data": latest_day,
            **figures(realised),
            "validation_roc_auc": validation["roc_auc"],
            "grades": table(grade_table(probability, day.rows[portfolio.target].to_numpy(dtype="int64"), settings.grade_bounds)),
            **plots,
        },
    )


@dg.asset_check(asset=performance_report, partitions_def=DAYS)
def ranking_is_as_at_validation(performance_report: pd.DataFrame) -> dg.AssetCheckResult:
    """The AUC of the day's matured rows has not fallen below validation by more than chance and more than the floor. Does not
    block: there is nothing after it to stop.
    """
    return _performance_result(performance_report, "ranking", "AUC")


@dg.asset_check(asset=performance_report, partitions_def=DAYS)
def default_rate_is_as_predicted(performance_report: pd.DataFrame) -> dg.AssetCheckResult:
    """Bads came at the rate that the PDs said, up to chance and the floor. Does not block: there is nothing after it to stop."""
    return _performance_result(performance_report, "level", "bad rate minus mean PD")


CHECKS = (ranking_is_as_at_validation, default_rate_is_as_predicted)


def _performance_result(performance: pd.DataFrame, test: str, what: str) -> dg.AssetCheckResult:
    row = performance[performance["test"] == test].iloc[0]
    defined = not math.isnan(row["observed"])
    return dg.AssetCheckResult(
        passed=bool(row["passed"]),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "summary": f"{what} {row['observed']:.4f}, limit {row['limit']:.4f}" if defined else row["explanation"],
            **({"observed": float(row["observed"]), "threshold": float(row["limit"])} if defined else {}),
            "p_value": float(row["p_value"]),
            "rows": int(row["rows"]),
            "explanation": str(row["explanation"]),
            "model_version": str(row["model_version"]),
        },
    )
