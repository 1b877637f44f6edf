"""How the day differs from the population of its champion: the asset `drift_report` and the checks on it.

The checks do not block: a day that drifted is scored all the same, and what a failed check asks for is decided elsewhere.
"""

import io
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from creditrisk_assets.defs.estimates import estimates_of
from creditrisk_assets.defs.events import bundle_that_scored
from creditrisk_assets.defs.metadata import OWNERS, picture, table
from creditrisk_assets.defs.partitions import DAYS
from creditrisk_assets.scoring.bundle import REFERENCE
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

    version, bundle = bundle_that_scored(context.instance, production_scores)
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
            "score_psi_threshold": stability[0].threshold,
            "drifted_columns": int(frame["drifted"].sum()),
            "drifted": ", ".join(frame.loc[frame["drifted"], "column"]) or "none",
            **estimates_of(production_scores["default_probability"].to_numpy(dtype=float)),
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


CHECKS = (score_distribution_is_stable, feature_distributions_are_stable)


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
