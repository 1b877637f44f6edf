"""The asset `performance_report`, which compares a day's decisions with their outcomes, and the
checks on it.

Each day of decisions is a vintage. Its report has the figures of the day alone and of the last days
of the same champion together (14, 7 and 3 days by default). The figures of earlier days come from
their stored reports; their rows are not read again. The checks do not block: no step follows them.
"""

import dataclasses
import math
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditrisk_assets.defs.check_results import check_result
from creditrisk_assets.defs.drift import scored_by
from creditrisk_assets.defs.event_log import latest_day_of_data
from creditrisk_assets.defs.io import ParquetRows, stored_frame
from creditrisk_assets.defs.metadata import (
    OWNERS,
    figures,
    percent,
    picture,
    record,
    rounded,
    table,
)
from creditrisk_assets.defs.partitions import DAYS, days_before
from creditrisk_assets.defs.table_schemas import (
    EXPECTED,
    PERFORMANCE,
    REALISED,
    lineage_of,
    schema_of,
)
from creditrisk_assets.monitoring.day_documents import OutcomesDocument
from creditrisk_assets.monitoring.day_records import PerformanceRecord
from creditrisk_assets.number_format import format_with_limit
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.settings import Settings

if TYPE_CHECKING:
    from creditrisk_assets.monitoring.performance import PerformanceTest

PD = "default_probability"

HISTORY_DAYS = 60
"""Earlier days whose stored reports are read: for the pooled days, the chart, and the accuracy of
the estimates.
"""

ABOUT = (
    "days",
    "first_day",
    "model_version",
    "validation_roc_auc",
    "validation_roc_auc_standard_error",
)
"""Columns of a stored report other than figures of matured rows."""

FiguresByDay = dict[str, dict[str, float]]
"""Figures of matured rows by day of decision, the oldest first."""


@dg.asset(
    group_name="monitoring",
    kinds={"scikitlearn", "parquet"},
    owners=OWNERS,
    code_version="2",
    partitions_def=DAYS,
)
def performance_report(
    context: dg.AssetExecutionContext,
    production_scores: ParquetRows,
    outcomes: pd.DataFrame,
    settings: dg.ResourceParam[Settings],
) -> dg.Output[pd.DataFrame]:
    """Compares the day's decisions with the outcomes that have arrived: realised figures beside
    those of the champion at validation and those that its PDs imply for the same rows, and the
    accuracy of past estimates. Customers in the champion's training rows and decisions of other
    versions are counted and left out.
    """
    from creditrisk_assets.modelling.plots import calibration_plot, roc_plot
    from creditrisk_assets.monitoring.day_outcomes import JudgedDay, outcomes_document
    from creditrisk_assets.monitoring.estimated_performance import ASSUMPTIONS
    from creditrisk_assets.monitoring.performance import (
        day_figures,
        estimate_accuracy,
        estimate_errors,
        realised_performance,
        spans_of,
    )
    from creditrisk_assets.portfolio.outcomes import maturity

    portfolio, day = settings.portfolio, context.partition_key
    version, bundle = scored_by(settings, production_scores)
    validation = bundle.manifest.metrics
    scores, matured, learned, by_others = matured_decisions(
        settings, production_scores, outcomes, day
    )
    waiting = maturity(
        scores,
        len(matured),
        day,
        latest_day := latest_day_of_data(context.instance),
        portfolio.performance_window_days,
    )
    bads = int(matured[portfolio.target].sum())
    matured = matured[~learned & ~by_others]
    target = matured[portfolio.target].to_numpy(dtype=np.int64)
    probability = matured[PD].to_numpy(dtype=np.float64)
    alone = day_figures(target, probability)
    days = {**_earlier_days(settings, day, version), day: alone}
    recent = {name: one for name, one in days.items() if one["rows"] or name == day}
    about = {
        "model_version": version,
        "validation_roc_auc": validation["roc_auc"],
        "validation_roc_auc_standard_error": validation["roc_auc_standard_error"],
    }
    spans = spans_of([*recent.values()], settings.policy.performance.days)
    frame = pd.DataFrame(
        [
            {"days": number, "first_day": [*recent][-number], **about, **span}
            for number, span in spans.items()
        ]
    )
    misses = estimate_errors([*days.values()])
    earlier_document = OutcomesDocument.read(settings.reports, day)
    document = outcomes_document(
        JudgedDay(day, latest_day, version, validation["roc_auc"], waiting, bads),
        matured,
        alone,
        portfolio,
        earlier_document.maturing if earlier_document else (),
        _documents_before(settings, day, version),
        context.run.run_id,
    )
    document.write(settings.reports)
    losses = document.model_dump(include={"expected_loss", "realised_loss"})
    plots = {}
    if "roc_auc" in alone and settings.policy.reports.rows:
        plots = {
            "roc": picture(roc_plot(target, {f"version {version}": probability})),
            "calibration": picture(calibration_plot(target, {f"version {version}": probability})),
            "estimated_and_realised": picture(_auc_plot(days, validation["roc_auc"])),
        }
    return dg.Output(
        frame,
        metadata={
            "AUC": rounded(alone.get("roc_auc")),
            "AUC at validation": rounded(validation["roc_auc"]),
            "bad rate, %": percent(alone.get("bad_rate")),
            "mean PD, %": percent(alone.get("mean_pd")),
            "bads": int(alone["bads"]),
            **dataclasses.asdict(waiting),
            "model_version": version,
            "latest_day_of_data": latest_day,
            "not_counted_in_sample": int((learned & ~by_others).sum()),
            "not_counted_other_versions": int(by_others.sum()),
            "vintages": table(_vintages(days, misses)),
            "grades": table(pd.DataFrame([one.model_dump() for one in document.grades])),
            "estimate_assumes": ASSUMPTIONS,
            **plots,
            **schema_of(frame, portfolio, PERFORMANCE),
            **lineage_of(_sources(portfolio)),
            **figures(
                {
                    **realised_performance(target, probability),
                    **alone,
                    "validation_roc_auc": validation["roc_auc"],
                    **{f"estimate_{name}": value for name, value in misses.iloc[-1].items()},
                    **estimate_accuracy(misses),
                }
            ),
            **record(
                PerformanceRecord(
                    model_version=version,
                    figures={
                        name: value
                        for name, value in (alone | losses).items()
                        if value is not None and not math.isnan(value)
                    },
                    **dataclasses.asdict(waiting),
                )
            ),
        },
    )


def matured_decisions(
    settings: Settings, production_scores: ParquetRows, outcomes: pd.DataFrame, day: str
) -> "tuple[int, pd.DataFrame, NDArray[np.bool_], NDArray[np.bool_]]":
    """The number of a day's decisions; those with an outcome, each with its `row` in the file of
    scores and its exposure; which of these the deciding model has learned from; and which another
    version made.
    """
    from creditrisk_assets.monitoring.performance import in_sample, join_outcomes
    from creditrisk_assets.scoring.bundle_store import BundleStore

    identifier, exposure = settings.portfolio.identifier, settings.portfolio.exposure
    columns = [identifier, PD, "prediction", "model_version", *([exposure] if exposure else [])]
    with production_scores.opened() as file:
        scores = file.read(columns).to_pandas()
    version, bundle = scored_by(settings, production_scores)
    matured = join_outcomes(scores.assign(row=np.arange(len(scores))), outcomes, identifier)
    learned = in_sample(
        matured[identifier], day, BundleStore(settings.data_dir).learned_days(bundle)
    )
    return len(scores), matured, learned, (matured["model_version"] != version).to_numpy()


@dg.asset_check(asset=performance_report, partitions_def=DAYS)
def ranking_is_as_at_validation(
    performance_report: pd.DataFrame, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """The AUC of the matured rows, of the day alone and of pooled days, is not below validation by
    more than chance and the floor. Does not block: no step follows it.
    """
    from creditrisk_assets.monitoring.performance import ranking_tests

    report = performance_report.iloc[0]
    validation = {
        name: float(report[f"validation_{name}"]) for name in ("roc_auc", "roc_auc_standard_error")
    }
    spans = _spans(performance_report)
    tests = ranking_tests(
        spans, validation, settings.policy.performance.alpha, settings.policy.performance.floor
    )
    return _performance_result("ranking_is_as_at_validation", performance_report, tests, "AUC")


@dg.asset_check(asset=performance_report, partitions_def=DAYS)
def default_rate_is_as_predicted(
    performance_report: pd.DataFrame, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """The bad rate agrees with the mean PD, for the day alone and for pooled days, up to chance and
    the floor. Does not block: no step follows it.
    """
    from creditrisk_assets.monitoring.performance import level_tests

    tests = level_tests(
        _spans(performance_report),
        settings.policy.performance.alpha,
        settings.policy.performance.floor,
    )
    return _performance_result(
        "default_rate_is_as_predicted", performance_report, tests, "bad rate minus mean PD"
    )


CHECKS = (ranking_is_as_at_validation, default_rate_is_as_predicted)


def _sources(portfolio: Portfolio) -> dict[str, list[tuple[str, str]]]:
    """Sources of the figures of matured rows: the PDs, the outcomes, or both."""
    decided = [("production_scores", PD), ("production_scores", portfolio.identifier)]
    matured, target = ("outcomes", portfolio.identifier), ("outcomes", portfolio.target)
    return {name: [*decided, matured, target] for name in REALISED} | {
        name: [*decided, matured] for name in EXPECTED
    }


def _earlier_days(settings: Settings, day: str, version: str) -> FiguresByDay:
    """Stored figures of the matured days before a day that the same champion scored."""
    days: FiguresByDay = {}
    for earlier in reversed(days_before(day, HISTORY_DAYS)):
        stored = stored_frame(settings.storage, "performance_report", earlier)
        # Older reports have other figures.
        if stored is not None and "days" in stored and stored["model_version"].iloc[0] == version:
            days[earlier] = _figures(stored.iloc[0])
    return days


def _documents_before(settings: Settings, day: str, version: str) -> list[OutcomesDocument]:
    """The documents of earlier days that the same champion decided."""
    found = (
        OutcomesDocument.read(settings.reports, earlier)
        for earlier in days_before(day, HISTORY_DAYS)
    )
    return [one for one in found if one is not None and one.model_version == version]


def _spans(report: pd.DataFrame) -> dict[int, dict[str, float]]:
    return {int(row["days"]): _figures(row) for _, row in report.iterrows()}


def _figures(row: "pd.Series[Any]") -> dict[str, float]:
    """The defined figures of one span."""
    return {str(name): float(value) for name, value in row.dropna().items() if name not in ABOUT}


def _performance_result(
    check: str, report: pd.DataFrame, tests: "dict[int, PerformanceTest]", what: str
) -> dg.AssetCheckResult:
    from creditrisk_assets.monitoring.performance import decisive_span

    shown = decisive_span(tests)
    test, row = tests[shown], report[report["days"] == shown].iloc[0]
    observed, limit = format_with_limit(test.observed, test.limit, ".4f")
    span = f"{shown} days since {row['first_day']}" if shown > 1 else "the day alone"
    of_spans = [
        {"days": number, "rows": rows, **vars(tests[number])}
        for number, rows in zip(report["days"], report["rows"], strict=True)
    ]
    return check_result(
        check,
        passed=all(one.passed for one in tests.values()),
        summary=test.explanation
        if np.isnan(test.observed)
        else f"{what} {observed}, limit {limit}, {span}",
        observed=test.observed,
        threshold=test.limit,
        rows=int(row["rows"]),
        model_version=str(row["model_version"]),
        p_value=test.p_value,
        explanation=test.explanation,
        days=shown,
        first_day=str(row["first_day"]),
        tests=table(pd.DataFrame(of_spans), compared=("observed", "limit")),
    )


def _vintages(figures_by_day: FiguresByDay, misses: pd.DataFrame) -> pd.DataFrame:
    """Table of the days, latest first: realised figures with 95 % intervals, the estimates for the
    same rows, and their errors in standard errors.
    """
    from creditrisk_assets.modelling.fairness import jeffreys_interval
    from creditrisk_assets.modelling.metrics import normal_estimate

    rows = []
    for (day, of_day), missed in zip(figures_by_day.items(), misses.itertuples(), strict=True):
        auc = normal_estimate(
            of_day.get("roc_auc", np.nan), of_day.get("roc_auc_standard_error", np.nan), 0.0, 1.0
        )
        low, high = (
            jeffreys_interval(int(of_day["bads"]), int(of_day["rows"]))
            if of_day["rows"]
            else (np.nan, np.nan)
        )
        rows.append(
            {
                "vintage": day,
                "rows": int(of_day["rows"]),
                "bads": int(of_day["bads"]),
                "roc_auc": auc.value,
                "low": auc.low if not np.isnan(auc.value) else np.nan,
                "high": auc.high if not np.isnan(auc.value) else np.nan,
                "expected_roc_auc": of_day.get("expected_roc_auc", np.nan),
                "z": missed.roc_auc_z,
                "bad_rate": of_day.get("bad_rate", np.nan),
                "bad_rate_low": low,
                "bad_rate_high": high,
                "mean_pd": of_day.get("mean_pd", np.nan),
                "bad_rate_z": missed.bad_rate_z,
            }
        )
    return pd.DataFrame(rows[::-1])


def _auc_plot(figures_by_day: FiguresByDay, validation: float) -> bytes:
    from creditrisk_assets.modelling.plots import performance_plot

    sides = [
        tuple(
            np.array([of_day.get(f"{prefix}{name}", np.nan) for of_day in figures_by_day.values()])
            for name in ("roc_auc", "roc_auc_standard_error")
        )
        for prefix in ("", "expected_")
    ]
    days = [date.fromisoformat(day) for day in figures_by_day]
    return performance_plot(days, sides[0], sides[1], validation)  # type: ignore[arg-type]
