"""The asset `drift_report`, which compares a day with the training population of its champion, and
the checks on it.

The checks do not block: a day that drifted is still scored. The retrain policy decides about the
consequences of a failed check.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from creditrisk_assets.defs.check_results import check_result
from creditrisk_assets.defs.event_log import BATCH, records_of
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
from creditrisk_assets.defs.score_checks import deciding_model, estimates_of, probability_of
from creditrisk_assets.defs.table_schemas import DRIFT, schema_of
from creditrisk_assets.monitoring.day_records import BatchRecord, DriftRecord
from creditrisk_assets.number_format import format_with_limit
from creditrisk_assets.settings import Settings

if TYPE_CHECKING:
    from creditrisk_assets.monitoring.evidently_report import EvidentlyReport, Heading
    from creditrisk_assets.scoring.bundle import Bundle

TOP_MOVERS = 5
MONTH_DAYS = 30
"""Days whose scores the page of a day shows together."""


@dg.asset(
    group_name="monitoring",
    kinds={"evidently", "parquet"},
    owners=OWNERS,
    code_version="2",
    partitions_def=DAYS,
)
def drift_report(
    context: dg.AssetExecutionContext,
    production_scores: ParquetRows,
    settings: dg.ResourceParam[Settings],
) -> dg.Output[pd.DataFrame]:
    """Compares the day with the population that its champion was trained on: PSI of the score, CSI
    of each field and the shares of bad values, over all rows, for the day alone and together with
    the days before. Also writes an Evidently report as HTML and JSON.
    """
    from creditrisk_assets.monitoring.day_drift import drift_document
    from creditrisk_assets.monitoring.drift_table import day_counts, drift_table
    from creditrisk_assets.monitoring.estimated_performance import ASSUMPTIONS
    from creditrisk_assets.scoring.reference_profile import (
        BATCH_ROWS,
        RowCounter,
        reference_profile_of,
    )

    day = context.partition_key
    version, bundle = scored_by(settings, production_scores)
    profile = reference_profile_of(bundle)
    counter = RowCounter(profile, bundle.manifest.inputs)
    with production_scores.opened() as file:
        counts = counter.total(file.iter_batches(BATCH_ROWS, columns=counter.columns))
    before = days_before(day, max(settings.policy.drift.days, MONTH_DAYS) - 1)
    month = dict(stored_reports(settings, before, version))
    earlier = [month[one] for one in before[: settings.policy.drift.days - 1] if one in month]
    batch = records_of(context.instance, BATCH, [day], BatchRecord).get(day)
    today = day_counts(counts, *((batch[0].rows_in, batch[0].rejected) if batch else (0, 0)))
    frame = drift_table(profile, today, earlier, settings.policy.drift).assign(
        model_version=version
    )
    drifted = frame.loc[frame["drifted"], "column"]
    estimates = estimates_of(probability_of(production_scores))
    pictures = _pictures(context, production_scores, bundle, frame, settings)
    tables = [month[one] for one in before[: MONTH_DAYS - 1] if one in month]
    drift_document(frame, profile, settings.portfolio, tables, day, context.run.run_id).write(
        settings.reports
    )
    psi = {
        "score_psi": float(frame["value"].iloc[0]),
        "score_psi_judged": float(frame["pooled_value"].iloc[0]),
        "score_psi_threshold": float(frame["threshold"].iloc[0]),
    }
    of_day = DriftRecord(
        model_version=version,
        rows=int(frame["rows"].iloc[0]),
        drifted=tuple(drifted),
        estimated_roc_auc=estimates.get("estimated_roc_auc"),
        estimated_roc_auc_standard_error=estimates.get("estimated_roc_auc_standard_error"),
        has_report="evidently_html" in pictures,
        **psi,
    )
    return dg.Output(
        frame,
        metadata={
            "PSI of the score": rounded(of_day.score_psi_judged),
            "alarm line of the PSI": rounded(of_day.score_psi_threshold),
            "drifted_columns": len(drifted),
            "drifted": ", ".join(drifted) or "none",
            "AUC estimated from the PDs": rounded(of_day.estimated_roc_auc),
            "bad rate estimated from the PDs, %": percent(estimates.get("estimated_bad_rate")),
            "rows": of_day.rows,
            "model_version": version,
            "broken": ", ".join(
                f"{one.column}: {one.quality_problem}"
                for one in frame[frame["broken"]].itertuples()
            )
            or "none",
            "days_together": 1 + len(earlier),
            "estimate_assumes": ASSUMPTIONS,
            **pictures,
            "dagster/row_count": len(frame),
            **schema_of(frame, settings.portfolio, DRIFT),
            **figures({**psi, **estimates}),
            **record(of_day),
        },
    )


def scored_by(settings: Settings, scores: ParquetRows) -> "tuple[str, Bundle]":
    """Version and bundle that made most of a day's decisions."""
    from creditrisk_assets.scoring.bundle_store import BundleStore

    version, bundle_sha256 = deciding_model(scores)
    return version, BundleStore(settings.data_dir).load(bundle_sha256)


def stored_reports(
    settings: Settings, days: Sequence[str], version: str
) -> list[tuple[str, pd.DataFrame]]:
    """Frames of `drift_report` for those of the given days that the same model scored, in the given
    order.
    """
    frames = ((day, stored_frame(settings.storage, "drift_report", day)) for day in days)
    return [
        (day, frame)
        for day, frame in frames
        if frame is not None
        and "counts" in frame
        and str(frame["model_version"].iloc[0]) == version
    ]


def report_heading(
    settings: Settings, subject: str, day: str, links: Mapping[str, str] | None = None
) -> "Heading":
    """Title, links and labels of an Evidently report.

    Args:
        settings: the portfolio.
        subject: days and version of the report.
        day: whose page is the way back.
        links: further addresses by their name.
    """
    from creditrisk_assets.monitoring.evidently_report import Heading, field_labels

    portfolio = settings.portfolio
    return Heading(
        f"{portfolio.title}: {subject}, against the rows that it was trained on",
        {f"Back to {day}": f"/monitoring/{day}", "Monitoring": "/monitoring", **(links or {})},
        field_labels(portfolio.fields),
    )


def write_report(
    settings: Settings, folder: str, report: "EvidentlyReport"
) -> dict[str, dg.MetadataValue]:
    """Write an Evidently report to the folder that the API serves.

    Args:
        settings: folder of the reports and address of the API.
        folder: path below `reports`, and below `/reports` of the API.
        report: the report.
    """
    from creditrisk_assets.storage import replacing

    written: dict[str, dg.MetadataValue] = {
        "evidently_report": dg.MetadataValue.url(f"{settings.api_url}/reports/{folder}")
    }
    for kind, text in (("html", report.html), ("json", report.json)):
        path = settings.reports / folder / f"report.{kind}"
        with replacing(path) as file:
            file.write(text.encode())
        written[f"evidently_{kind}"] = dg.MetadataValue.path(str(path))
    return written


def _pictures(
    context: dg.AssetExecutionContext,
    scores: ParquetRows,
    bundle: "Bundle",
    frame: pd.DataFrame,
    settings: Settings,
) -> dict[str, dg.MetadataValue | int | str]:
    """Evidently's report and a plot of a day, as files and metadata. A drawing that fails is
    reported in the metadata; the measured values and the checks do not depend on it.
    """
    if not settings.policy.reports.rows:
        return {}
    day = context.partition_key
    try:
        from creditrisk_assets.modelling.plots import stability_plot
        from creditrisk_assets.monitoring.evidently_report import report_columns, report_on_rows

        shown = report_columns(frame)
        heading = report_heading(
            settings,
            f"{day}, version {frame['model_version'].iloc[0]}",
            day,
            {"Dagster run": f"{settings.dagster_url}/runs/{context.run.run_id}"},
        )
        report = report_on_rows([scores.path], bundle, shown, settings.policy.reports.rows, heading)
        written = write_report(settings, f"drift/{day}", report)
        plot = stability_plot(
            [one.column for one in shown],
            [one.value for one in shown],
            [one.threshold for one in shown],
            f"{day}: {int(frame['rows'].iloc[0]):,} rows against "
            f"{int(frame['reference_rows'].iloc[0]):,}",
        )
        return {
            **written,
            "evidently_drifted_columns": report.drifted_columns,
            **({"evidently_left_out": ", ".join(report.left_out)} if report.left_out else {}),
            "stability": picture(plot),
        }
    # The drawing library may raise anything; the day is measured already.
    except Exception as error:
        context.log.exception("the pictures of the day could not be made")
        return {"picture_problem": f"{type(error).__name__}: {error}"}


@dg.asset_check(asset=drift_report, partitions_def=DAYS)
def score_distribution_is_stable(drift_report: pd.DataFrame) -> dg.AssetCheckResult:
    """The score's PSI against the training population is below its threshold. Does not block: the
    day is scored in either case.
    """
    return _stability_result("score_distribution_is_stable", drift_report.iloc[:1])


@dg.asset_check(asset=drift_report, partitions_def=DAYS)
def feature_distributions_are_stable(drift_report: pd.DataFrame) -> dg.AssetCheckResult:
    """Every field's CSI against the training population is below its threshold. Does not block:
    outcomes show later whether a shift matters.
    """
    return _stability_result("feature_distributions_are_stable", drift_report.iloc[1:])


@dg.asset_check(asset=drift_report, partitions_def=DAYS)
def data_quality_is_stable(drift_report: pd.DataFrame) -> dg.AssetCheckResult:
    """New codes, missing and out-of-range values of every field, and rejected rows, are as rare as
    in training. Does not block: rows that satisfy the contract are scored.
    """
    ordered = drift_report.assign(
        excess=drift_report["quality_share"] - drift_report["quality_limit"]
    ).sort_values(["broken", "excess"], ascending=False, kind="stable")
    broken, worst = ordered[ordered["broken"]], ordered.iloc[0]
    return check_result(
        "data_quality_is_stable",
        passed=broken.empty,
        summary=", ".join(
            f"{_quality_label(row)} {' > '.join(figures)}"
            for _, row in broken.head(TOP_MOVERS).iterrows()
            for figures in [format_with_limit(row["quality_share"], row["quality_limit"], ".2%")]
        )
        or "as in training",
        observed=float(worst["quality_share"]),
        threshold=float(worst["quality_limit"]),
        rows=int(worst["quality_rows"]),
        model_version=str(worst["model_version"]),
        worst=_quality_label(worst),
        p_value=float(worst["quality_p_value"]),
        columns=table(
            (ordered if broken.empty else broken)[["column", *QUALITY_SHOWN]].head(TOP_MOVERS),
            compared=("quality_share", "quality_limit"),
        ),
    )


QUALITY_SHOWN = [
    "quality_problem",
    "quality_share",
    "quality_limit",
    "quality_p_value",
    "quality_rows",
]
STABILITY_SHOWN = [
    "column",
    "value",
    "pooled_value",
    "threshold",
    "critical",
    "p_value",
    "days",
    "pooled_rows",
]

CHECKS = (score_distribution_is_stable, feature_distributions_are_stable, data_quality_is_stable)


def _quality_label(row: pd.Series) -> str:
    return (
        str(row["quality_problem"])
        if row["quality_problem"] == "rejected rows"
        else f"{row['column']}: {row['quality_problem']}"
    )


def _stability_result(check: str, lines: pd.DataFrame) -> dg.AssetCheckResult:
    """The result for some lines of the report; the summary names the columns furthest beyond their
    threshold.
    """
    ordered = lines.assign(times=lines["pooled_value"] / lines["threshold"]).sort_values(
        ["drifted", "times"], ascending=False, kind="stable"
    )
    drifted, worst = ordered[ordered["drifted"]], ordered.iloc[0]
    named = ["column", "pooled_value", "threshold", "days"]
    return check_result(
        check,
        passed=drifted.empty,
        summary=", ".join(
            f"{column} {' > '.join(format_with_limit(value, line))}"
            f"{f' over {days} days' if days > 1 else ''}"
            for column, value, line, days in drifted[named].head(TOP_MOVERS).itertuples(index=False)
        )
        or "stable",
        observed=float(worst["pooled_value"]),
        threshold=float(worst["threshold"]),
        rows=int(worst["pooled_rows"]),
        model_version=str(worst["model_version"]),
        days=int(worst["days"]),
        p_value=float(worst["p_value"]),
        columns=table(
            (ordered if drifted.empty else drifted)[STABILITY_SHOWN].head(
                TOP_MOVERS if drifted.empty else len(drifted)
            ),
            compared=("pooled_value", "threshold"),
        ),
    )
