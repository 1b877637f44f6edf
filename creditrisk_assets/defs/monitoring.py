"""What changed: the assets `drift_report` and `performance_report`, and the checks on them.

The checks do not block: a day that drifted is scored all the same, and the retrain sensor reads what failed.
"""

import dataclasses
import io
import math
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from creditrisk_assets.defs.events import champion_of_version, latest_day_of_data
from creditrisk_assets.defs.metadata import OWNERS, figures, picture, table
from creditrisk_assets.defs.partitions import DAYS
from creditrisk_assets.scoring.bundle import REFERENCE, Bundle, load_bundle
from creditrisk_assets.settings import Settings

if TYPE_CHECKING:
    from creditrisk_assets.monitoring.population_stability import Stability

SCORE = "score"


@dg.asset(
    group_name="monitoring",
    kinds={"evidently", "parquet"},
    owners=OWNERS,
    code_version="1",
    partitions_def=DAYS,
)
def drift_report(
    context: dg.AssetExecutionContext, production_scores: pd.DataFrame, settings: dg.ResourceParam[Settings]
) -> dg.Output[pd.DataFrame]:
    """The day against the population that its champion was trained on: PSI of the score and CSI of each field over all rows, and
    an Evidently report as a page and as JSON.
    """
    from creditrisk_assets.monitoring.population_stability import population_stability, stability_of_columns

    version, bundle = _bundle_that_scored(context.instance, production_scores)
    reference = pd.read_parquet(io.BytesIO(bundle.document(REFERENCE)))
    current = pd.DataFrame(bundle.raw(production_scores), columns=bundle.input_names)
    current[SCORE] = production_scores[SCORE].to_numpy()
    alpha, floor = settings.stability_alpha, settings.stability_floor
    stability = [
        population_stability(SCORE, reference[SCORE].to_numpy(dtype=float), current[SCORE].to_numpy(dtype=float), alpha, floor),
        *stability_of_columns(reference, current, bundle.input_names, alpha, floor),
    ]
    frame = pd.DataFrame(stability).assign(drifted=[one.drifted for one in stability], model_version=version)
    return dg.Output(
        frame,
        metadata={
            "dagster/row_count": len(frame),
            "rows": len(production_scores),
            "model_version": version,
            "score_psi": stability[0].value,
            "drifted_columns": int(frame["drifted"].sum()),
            "drifted": ", ".join(frame.loc[frame["drifted"], "column"]) or "none",
            **(_pictures(context.partition_key, reference, current, stability, settings) if settings.report_rows else {}),
        },
    )


def _pictures(
    day: str, reference: pd.DataFrame, current: pd.DataFrame, stability: list["Stability"], settings: Settings
) -> dict[str, dg.MetadataValue | int]:
    """Evidently's report and a plot of a day, written and shown."""
    from creditrisk_assets.modelling.plots import stability_plot
    from creditrisk_assets.monitoring.evidently_report import evidently_report
    from creditrisk_assets.portfolio.storage import replacing

    report = evidently_report(reference, current, stability, settings.report_rows)
    folder = settings.reports / "drift" / day
    for name, text in (("report.html", report.html), ("report.json", report.json)):
        with replacing(folder / name) as file:
            file.write(text.encode())
    title = f"{day}: {len(current):,} rows against {len(reference):,}"
    plot = stability_plot(
        [one.column for one in stability], [one.value for one in stability], [one.threshold for one in stability], title
    )
    return {
        "evidently_report": dg.MetadataValue.url(f"{settings.api_url}/reports/drift/{day}"),
        "evidently_html": dg.MetadataValue.path(str(folder / "report.html")),
        "evidently_json": dg.MetadataValue.path(str(folder / "report.json")),
        "evidently_drifted_columns": report.drifted_columns,
        "stability": picture(plot),
    }


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

    version, bundle = _bundle_that_scored(context.instance, production_scores)
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


@dg.asset_check(asset=drift_report, partitions_def=DAYS)
def score_distribution_is_stable(drift_report: pd.DataFrame) -> dg.AssetCheckResult:
    """The score's PSI against the training population is below its alarm line. Does not block: the day is scored all the same."""
    return _stability_result(drift_report[drift_report["column"] == SCORE])


@dg.asset_check(asset=drift_report, partitions_def=DAYS)
def feature_distributions_are_stable(drift_report: pd.DataFrame) -> dg.AssetCheckResult:
    """Every field's CSI against the training population is below its alarm line. Does not block: whether a shift matters is seen
    when outcomes arrive.
    """
    return _stability_result(drift_report[drift_report["column"] != SCORE])


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


DRIFT_CHECKS = (score_distribution_is_stable, feature_distributions_are_stable)
PERFORMANCE_CHECKS = (ranking_is_as_at_validation, default_rate_is_as_predicted)
WATCHED_CHECKS = tuple(key for check in (*DRIFT_CHECKS, *PERFORMANCE_CHECKS) for key in check.check_keys)
"""The checks whose failure asks for a retrain."""


def _bundle_that_scored(instance: dg.DagsterInstance, scores: pd.DataFrame) -> tuple[str, Bundle]:
    """Version and bundle that made a day's scores."""
    version = str(scores["model_version"].iloc[0])
    record = champion_of_version(instance, version)
    return version, load_bundle(record.artifact_uri, str(scores["bundle_sha256"].iloc[0]))


def _stability_result(stability: pd.DataFrame) -> dg.AssetCheckResult:
    ordered = stability.sort_values("value", ascending=False)
    drifted = ordered[ordered["drifted"]]
    worst = ordered.iloc[0]
    shown = drifted if len(drifted) else ordered.head(1)
    summary = ", ".join(f"{row.column} {row.value:.3f} > {row.threshold:.3f}" for row in drifted.head(5).itertuples())
    return dg.AssetCheckResult(
        passed=drifted.empty,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "summary": summary or "stable",
            "observed": float(worst["value"]),
            "threshold": float(worst["threshold"]),
            "rows": int(worst["rows"]),
            "model_version": str(worst["model_version"]),
            "columns": table(shown[["column", "value", "threshold", "critical"]]),
        },
    )


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
