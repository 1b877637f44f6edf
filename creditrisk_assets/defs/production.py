"""A production day: the assets `production_batch`, `production_scores`, `outcomes`, one partition a day."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd

from creditrisk_assets.defs.events import champion_in_force
from creditrisk_assets.defs.metadata import OWNERS, table
from creditrisk_assets.defs.partitions import DAYS
from creditrisk_assets.portfolio.contract import Field
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.settings import Settings

DayYield = Iterator[dg.Output[pd.DataFrame] | dg.AssetCheckResult]


def _reconciles(asset: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        f"{asset}_rows_reconcile",
        asset=asset,
        blocking=True,
        partitions_def=DAYS,
        description="For each file: rows in = accepted + rejected + exact duplicates. Blocks: a row that is in neither place is "
        "lost.",
    )


def _mostly_accepted(asset: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        f"{asset}_rows_are_mostly_accepted",
        asset=asset,
        blocking=True,
        partitions_def=DAYS,
        description="Every file could be read, at least one row was accepted, and the share of rejected rows is under the limit. "
        "Blocks: the rest of a broken day is not a fair sample of that day.",
    )


@dg.asset(
    group_name="production",
    kinds={"pandas", "parquet"},
    owners=OWNERS,
    code_version="1",
    partitions_def=DAYS,
    check_specs=[_reconciles("production_batch"), _mostly_accepted("production_batch")],
)
def production_batch(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> DayYield:
    """The day's customers as they landed, validated row by row against the contract; bad rows go to quarantine with a reason."""
    folder = settings.landing_production / context.partition_key
    yield from _validated_day(context, settings, folder, "production_batch", PORTFOLIO.fields)


@dg.asset(
    group_name="production",
    kinds={"pandas", "parquet"},
    owners=OWNERS,
    code_version="1",
    partitions_def=DAYS,
    check_specs=[_reconciles("outcomes"), _mostly_accepted("outcomes")],
)
def outcomes(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> DayYield:
    """Who of the day's customers defaulted in the month after: labels that arrive later, in files of identifier and outcome."""
    from creditrisk_assets.portfolio.validation import target_field

    folder = settings.landing_outcomes / context.partition_key
    yield from _validated_day(context, settings, folder, "outcomes", (target_field(PORTFOLIO),))


@dg.asset(
    group_name="production",
    kinds={"onnx", "parquet"},
    owners=OWNERS,
    code_version="1",
    partitions_def=DAYS,
    deps=["champion"],
)
def production_scores(context: dg.AssetExecutionContext, production_batch: pd.DataFrame) -> dg.Output[pd.DataFrame]:
    """The day's decisions: each customer's fields with PD, score, prediction, and the model version and bundle that made them."""
    from creditrisk_assets.scoring.bundle import load_bundle

    in_force = champion_in_force(context.instance)
    if in_force is None:
        raise dg.Failure("there is no champion to score with; valid: run the job train first")
    bundle = load_bundle(in_force.artifact_uri, in_force.bundle_sha256)
    answers = bundle.score(production_batch[bundle.input_names].to_numpy(dtype=np.float32))
    scores = production_batch.assign(
        default_probability=answers.default_probability,
        score=answers.score,
        prediction=answers.prediction,
        model_version=in_force.model_version,
        bundle_sha256=in_force.bundle_sha256,
    )
    return dg.Output(
        scores,
        metadata={
            "dagster/row_count": len(scores),
            "model_version": in_force.model_version,
            "mlflow_uri": in_force.mlflow_uri,
            "bundle_sha256": in_force.bundle_sha256,
            "cut_off": bundle.manifest.cut_off,
            "mean_pd": float(scores["default_probability"].mean()),
            "predicted_bad_share": float(scores["prediction"].mean()),
            "mean_score": float(scores["score"].mean()),
        },
        data_version=dg.DataVersion(_digest(scores)),
    )


def _validated_day(
    context: dg.AssetExecutionContext, settings: Settings, folder: Path, asset: str, fields: tuple[Field, ...]
) -> DayYield:
    """Validate a landing folder, write its quarantine, give the accepted rows and both checks on them."""
    from creditrisk_assets.portfolio.landing import list_day, write_quarantine
    from creditrisk_assets.portfolio.validation import validate_files

    listing = list_day(folder)
    if listing.problem or not listing.files:
        raise dg.Failure(f"{folder}: {listing.problem or 'no data file'}; valid: at least one .csv or .parquet file")
    day = validate_files([file.path for file in listing.files], PORTFOLIO, fields)
    quarantine = write_quarantine(settings.quarantine / asset / context.partition_key, day.rejected)
    unreadable = day.rejected[day.rejected["line"] == 0]
    problems = table(day.rejected[["file", "line", "field", "rule", "message"]]) if len(day.rejected) else "none"
    yield dg.Output(
        day.accepted,
        metadata={
            "dagster/row_count": len(day.accepted),
            "rows_in": day.rows_in,
            "rows_rejected": day.rejected_rows,
            "rows_duplicate": sum(file.duplicates for file in day.files),
            "files": table(pd.DataFrame(day.files)),
            "ignored_columns": ", ".join(day.ignored_columns) or "none",
            "quarantine": dg.MetadataValue.path(str(quarantine)) if quarantine else "nothing rejected",
            "rejected": problems,
        },
        data_version=dg.DataVersion(_digest(day.accepted)),
    )
    broken = [file.file for file in day.files if not file.holds]
    yield dg.AssetCheckResult(
        passed=not broken,
        check_name=_reconciles(asset).name,
        metadata={"files_that_do_not_add_up": ", ".join(broken) or "none", "files": table(pd.DataFrame(day.files))},
    )
    yield dg.AssetCheckResult(
        passed=len(day.accepted) > 0 and unreadable.empty and day.rejected_share <= settings.rejected_share_limit,
        check_name=_mostly_accepted(asset).name,
        metadata={
            "rejected_share": day.rejected_share,
            "limit": settings.rejected_share_limit,
            "rows_accepted": len(day.accepted),
            "unreadable_files": ", ".join(unreadable["file"]) or "none",
            "problems": problems,
        },
    )


def _digest(frame: pd.DataFrame) -> str:
    import hashlib

    return hashlib.sha256(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes()).hexdigest()
