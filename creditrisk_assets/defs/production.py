"""The assets of a production day: `production_batch`, `production_scores` and `outcomes`, with one
partition a day.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from creditrisk_assets.defs.check_results import check_result
from creditrisk_assets.defs.event_log import champion_in_force
from creditrisk_assets.defs.io import MAY_BE_MISSING, ParquetRows, stored_frame, stored_path
from creditrisk_assets.defs.metadata import OWNERS, percent, rounded, table
from creditrisk_assets.defs.metadata import record as day_record
from creditrisk_assets.defs.partitions import DAYS, days_before
from creditrisk_assets.defs.table_schemas import (
    ANSWERS,
    FROM_THE_MODEL,
    lineage_of,
    same_columns,
    schema_of,
)
from creditrisk_assets.monitoring.day_documents import BatchDocument, FileRows, RejectedRows
from creditrisk_assets.monitoring.day_records import BatchRecord, ScoresRecord
from creditrisk_assets.number_format import format_with_limit
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.settings import Settings
from creditrisk_assets.storage import file_sha256, put_file, scratch_folder

if TYPE_CHECKING:
    from creditrisk_assets.decisions.sets import DecisionSet
    from creditrisk_assets.landing.ingestion import IngestResult
    from creditrisk_assets.monitoring.day_decisions import DecisionCounter
    from creditrisk_assets.monitoring.day_documents import Migration
    from creditrisk_assets.scoring.bundle import Bundle
    from creditrisk_assets.scoring.runtime import Runtime

SCORING_BATCH_ROWS = 65_536
"""Rows in memory at once while a day is scored."""

MIGRATION_DAYS = 31
MIGRATION_ROWS = 1_000_000
"""Days before, and rows of them, that are searched for the day's customers."""


def _row_checks(asset: str) -> list[dg.AssetCheckSpec]:
    descriptions = {
        "rows_reconcile": "For each file: rows in = accepted + rejected + exact duplicates. "
        "Blocks: a row in none of the three is lost.",
        "rows_are_mostly_accepted": "Every file could be read, at least one row was accepted, and "
        "the share of rejected rows is under the limit. Blocks: the rest of a broken day is not a "
        "fair sample of that day.",
    }
    return [
        dg.AssetCheckSpec(
            f"{asset}_{name}",
            asset=asset,
            blocking=True,
            partitions_def=DAYS,
            description=description,
        )
        for name, description in descriptions.items()
    ]


@dg.asset(
    group_name="production",
    kinds={"pandas", "parquet"},
    owners=OWNERS,
    code_version="2",
    partitions_def=DAYS,
    check_specs=_row_checks("production_batch"),
)
def production_batch(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
) -> Iterator[dg.Output[ParquetRows] | dg.AssetCheckResult]:
    """The day's customers as they landed, validated row by row against the contract; rejected rows
    go to the quarantine with a reason.
    """
    from creditrisk_assets.landing.ingestion import ingest

    day = context.partition_key
    paths = _landed_files(settings.landing_production / day)
    with scratch_folder(settings.scratch) as folder:
        ingested = ingest(paths, settings.portfolio, settings.portfolio.fields, folder)
        _batch_document(ingested, day, context.run.run_id).write(settings.reports)
        yield dg.Output(
            ParquetRows(ingested.accepted_file),
            metadata={
                **_accounting(
                    ingested, _write_quarantine(ingested, settings, day, "production_batch")
                ),
                **schema_of(
                    pq.read_schema(ingested.accepted_file),
                    settings.portfolio,
                    {},
                ),
            },
            data_version=dg.DataVersion(file_sha256(ingested.accepted_file)),
        )
    yield from _checks(ingested, settings, day, "production_batch")


@dg.asset(
    group_name="production",
    kinds={"onnx", "parquet"},
    owners=OWNERS,
    code_version="2",
    partitions_def=DAYS,
    deps=["champion"],
)
def production_scores(
    context: dg.AssetExecutionContext,
    production_batch: ParquetRows,
    settings: dg.ResourceParam[Settings],
) -> Iterator[dg.Output[ParquetRows]]:
    """The day's decisions in effect: each customer's fields with decision id, PD, score,
    prediction, reasons, model version, bundle and cut-off. A record that was decided before has its
    first decision, whichever version is champion now; the champion in force decides on new and
    corrected records. Every scoring is archived.
    """
    from creditrisk_assets.decisions import sets
    from creditrisk_assets.monitoring.day_decisions import DecisionCounter
    from creditrisk_assets.scoring.bundle_store import BundleStore
    from creditrisk_assets.scoring.runtime import DifferentDecisionError, Runtime

    in_force = champion_in_force(context.instance)
    if in_force is None:
        raise dg.Failure("there is no champion to score with; valid: run the job train first")
    bundle = BundleStore(settings.data_dir).load(in_force.bundle_sha256)
    bundle.require_fits(settings.portfolio)
    day = context.partition_key
    with scratch_folder(settings.scratch) as folder, production_batch.opened() as accepted:
        batch_sha256 = file_sha256(production_batch.path)
        name = sets.set_name(day, batch_sha256, in_force)
        scored = folder / "scored.parquet"
        runtime = Runtime.for_rows(
            bundle, in_force.rule, accepted.metadata.num_rows, settings.compiled_code
        )
        try:
            rows = _decide(accepted, scored, day, name, runtime, in_force)
        except DifferentDecisionError as error:
            context.log.warning("the graphs decide: %s", error)
            runtime = Runtime(bundle, in_force.rule, reason=str(error))
            rows = _decide(accepted, scored, day, name, runtime, in_force)
        if not rows:
            raise dg.Failure("the day has no accepted row; valid: at least one")
        scoring = sets.DecisionSet(
            day=day,
            batch_sha256=batch_sha256,
            champion=in_force,
            rows=rows,
            file_sha256=file_sha256(scored),
        )
        new_set = sets.store_set(
            settings.decisions, Path(shutil.copyfile(scored, folder / "stored.parquet")), scoring
        )
        scorings = [
            one
            for one in sets.scorings_of(settings.decisions, day)
            if (one.number or 0) <= (new_set.number or 0)
        ]
        record = ParquetRows(_record_of_day(settings, scorings, scored, folder / "record.parquet"))
        counter = DecisionCounter(settings.portfolio)
        made_by, means = _summary(record, counter)
        deciding = next(
            one.champion
            for one in scorings
            if one.champion.model_version == made_by[0]["model_version"]
        )
        latest = (
            f"scoring {new_set.number} of the day, by version {in_force.model_version} at cut-off "
            f"{in_force.rule.cut_off:.4f}"
        )
        decisions = counter.document(
            day, context.run.run_id, made_by[0]["model_version"], _migration(record, day, settings)
        )
        decisions.write(settings.reports)
        yield dg.Output(
            record,
            metadata={
                "decisions, rows": rows,
                "mean PD, %": percent(means["mean_pd"]),
                f"{settings.portfolio.words.above}, %": percent(means["predicted_bad_share"]),
                "mean score, points": rounded(means["mean_score"], 1),
                "decided_by": table(pd.DataFrame(made_by)),
                "latest_scoring": latest,
                "decision_set": name,
                "runtime": str(runtime),
                "mlflow_uri": deciding.mlflow_uri,
                **made_by[0],
                "decisions_sha256": (digest := file_sha256(record.path)),
                "dagster/row_count": rows,
                **schema_of(pq.read_schema(record.path), settings.portfolio, ANSWERS),
                **_scores_lineage(bundle, settings.portfolio),
                **day_record(
                    ScoresRecord(
                        model_version=decisions.model_version,
                        rows=rows,
                        approved=decisions.approved,
                        expected_loss=decisions.expected_loss,
                    )
                ),
            },
            data_version=dg.DataVersion(digest),
        )


def _scores_lineage(bundle: "Bundle", portfolio: Portfolio) -> dict[str, dg.TableColumnLineage]:
    """The record's columns are those of the batch; the answers come from the fields that the
    model's reasons cover.
    """
    batch = production_batch.key.to_user_string()
    fields = [(batch, name) for one in bundle.manifest.reasons for name in one.fields]
    return lineage_of(
        {
            **same_columns(batch, [portfolio.identifier, *portfolio.field_names]),
            **dict.fromkeys(FROM_THE_MODEL, fields),
        }
    )


def _record_of_day(
    settings: Settings, scorings: "list[DecisionSet]", scored: Path, path: Path
) -> Path:
    """The file of a day's decisions in effect, from the scorings of the day in order; the present
    one, with the file `scored`, is the last. A new file is written to `path`.
    """
    from creditrisk_assets.decisions.day_record import write_day_record
    from creditrisk_assets.decisions.sets import verified_file

    *earlier, present = scorings
    if not earlier:
        return scored
    if earlier[0].batch_sha256 == present.batch_sha256:
        with (
            verified_file(settings.decisions, earlier[0]).open("rb") as first,
            path.open("wb") as file,
        ):
            shutil.copyfileobj(first, file)
    else:
        write_day_record(settings.decisions, earlier, scored, path, settings.portfolio)
    return path


def _summary(
    record: ParquetRows, counter: "DecisionCounter"
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows of each version, bundle and cut-off, the version with the most rows first, and means
    over the day. The counter counts all rows.
    """
    by = ["model_version", "bundle_sha256", "cut_off"]
    figures = {
        "mean_pd": "default_probability",
        "predicted_bad_share": "prediction",
        "mean_score": "score",
    }
    rows = record.count(by)
    totals = dict.fromkeys(figures, 0.0)
    with record.opened() as file:
        columns = list(dict.fromkeys([*figures.values(), *counter.columns]))
        for batch in file.iter_batches(SCORING_BATCH_ROWS, columns=columns):
            counter.add(batch)
            for name, column in figures.items():
                totals[name] += float(batch.column(column).to_numpy().sum())
    of_version: Counter[str] = Counter()
    for key, count in rows.items():
        of_version[key[0]] += count
    ordered = sorted(rows.items(), key=lambda one: (of_version[one[0][0]], one[1]), reverse=True)
    made_by = [dict(zip(by, key, strict=True)) | {"decisions": count} for key, count in ordered]
    return made_by, {name: total / rows.total() for name, total in totals.items()}


def _migration(record: ParquetRows, day: str, settings: Settings) -> "Migration | None":
    """Grades of the day's customers, today and when they were last decided."""
    from creditrisk_assets.monitoring.day_decisions import PD, migration_of

    portfolio = settings.portfolio
    columns = [portfolio.identifier, PD]

    def earlier() -> Iterator[pa.Table]:
        rows = 0
        for before in days_before(day, MIGRATION_DAYS):
            path = stored_path(settings.storage, "production_scores", before)
            if rows > MIGRATION_ROWS or not path.exists():
                continue
            with ParquetRows(path).opened() as file:
                yield file.read(columns)
                rows += file.metadata.num_rows

    with record.opened() as file:
        return migration_of(
            file.read(columns),
            earlier(),
            portfolio.identifier,
            portfolio.grade_bounds,
            days_before(day, MIGRATION_DAYS)[-1],
        )


def _decide(
    accepted: pq.ParquetFile,
    staged: Path,
    day: str,
    name: str,
    runtime: "Runtime",
    in_force: ChampionRecord,
) -> int:
    """Write the decisions on a day's rows to a file and return their number."""
    from creditrisk_assets.decisions import sets

    rows, writer = 0, None
    try:
        for batch in accepted.iter_batches(SCORING_BATCH_ROWS):
            answers = sets.answer_columns(runtime, batch)
            decided = pa.RecordBatch.from_pydict(
                {
                    sets.DECISION_ID: sets.decision_ids(day, name, rows, len(batch)),
                    **dict(zip(batch.schema.names, batch.columns, strict=True)),
                    **answers,
                    "cut_off": pa.array([in_force.rule.cut_off] * len(batch)),
                    "model_version": pa.array([in_force.model_version] * len(batch)),
                    "bundle_sha256": pa.array([in_force.bundle_sha256] * len(batch)),
                }
            )
            writer = writer or pq.ParquetWriter(staged, decided.schema)
            writer.write_batch(decided)
            rows += len(batch)
    finally:
        if writer is not None:
            writer.close()
    return rows


@dg.asset(
    group_name="production",
    kinds={"pandas", "parquet"},
    owners=OWNERS,
    code_version="2",
    partitions_def=DAYS,
    ins={"production_batch": dg.AssetIn(metadata={MAY_BE_MISSING: True})},
    check_specs=_row_checks("outcomes"),
)
def outcomes(
    context: dg.AssetExecutionContext,
    production_batch: ParquetRows | None,
    settings: dg.ResourceParam[Settings],
) -> Iterator[dg.Output[pd.DataFrame] | dg.AssetCheckResult]:
    """Defaults of the day's customers in the performance window: labels that arrive later, in
    parts, in any order, or corrected. Every version is stored; the last counts. Outcomes of
    customers outside the day's batch go to the quarantine.
    """
    from creditrisk_assets.landing.ingestion import ingest
    from creditrisk_assets.portfolio.outcomes import VERSION, current_versions, merge_versions

    day, portfolio = context.partition_key, settings.portfolio
    paths = _landed_files(settings.landing_outcomes / day)
    customers = pd.Index([], dtype="object")
    if production_batch is not None:
        with production_batch.opened() as batch:
            customers = pd.Index(batch.read([portfolio.identifier]).column(0).to_pandas())
    with scratch_folder(settings.scratch) as folder:
        ingested = ingest(
            paths,
            portfolio,
            (portfolio.target_field,),
            folder,
            duplicate_rule="versions",
            known_customers=customers,
        )
        observed = pd.read_parquet(ingested.accepted_file)
        quarantine = _write_quarantine(ingested, settings, day, "outcomes")
    versions = merge_versions(
        stored_frame(settings.storage, "outcomes", day), observed, portfolio.identifier
    )
    current = current_versions(versions, portfolio.identifier)
    yield dg.Output(
        versions,
        metadata={
            "customers with an outcome": len(current),
            "bads": int(current[portfolio.target].sum()),
            "bad rate, %": percent(current[portfolio.target].mean()),
            "corrected outcomes": int((current[VERSION] > 1).sum()),
            "the day has landed": production_batch is not None,
            **_accounting(ingested, quarantine),
            "dagster/row_count": len(versions),
            **schema_of(
                versions, portfolio, {VERSION: "1, 2, … for each customer; the last counts"}
            ),
        },
        data_version=dg.DataVersion(
            hashlib.sha256(versions.to_csv(index=False).encode()).hexdigest()
        ),
    )
    yield from _checks(ingested, settings, day, "outcomes")


def _landed_files(folder: UPath) -> list[UPath]:
    from creditrisk_assets.landing.arrivals import DAY_PATTERN
    from creditrisk_assets.landing.listing import list_day

    if DAY_PATTERN.fullmatch(folder.name) is None:
        raise dg.Failure(
            f"partition is {folder.name!r}; valid: a day as YYYY-MM-DD, which the sensors add "
            "when its file lands"
        )
    listing = list_day(folder)
    if listing.problem or not listing.files:
        raise dg.Failure(
            f"{folder}: {listing.problem or 'no data file'}; valid: at least one .csv or .parquet "
            "file"
        )
    return [file.path for file in listing.files]


def _write_quarantine(
    ingested: "IngestResult", settings: Settings, day: str, asset: str
) -> UPath | None:
    """Write a day's rejected rows to the quarantine; without any, an older file is removed."""
    path = settings.quarantine / day / f"{asset}.csv"
    if ingested.rejected_file is None:
        path.unlink(missing_ok=True)
        return None
    put_file(ingested.rejected_file, path)
    return path


def _batch_document(ingested: "IngestResult", day: str, run_id: str) -> BatchDocument:
    """The rows of the day's files, and the faults of the rejected ones."""
    faults: Counter[tuple[str, str]] = Counter()
    if ingested.rejected_file is not None:
        named = ["field", "rule", "rows"]
        with pd.read_csv(
            ingested.rejected_file,
            usecols=named,
            keep_default_na=False,
            dtype={"field": "str", "rule": "str", "rows": "int64"},
            chunksize=SCORING_BATCH_ROWS,
        ) as chunks:
            for chunk in chunks:
                for field, rule, rows in chunk[named].itertuples(index=False):
                    faults[field, rule] += rows
    return BatchDocument(
        day=day,
        run_id=run_id,
        rows_in=ingested.rows_in,
        rows=ingested.rows,
        rejected=ingested.rejected_rows,
        duplicates=ingested.duplicates,
        files=tuple(FileRows(**vars(one)) for one in ingested.files),
        reasons=tuple(
            RejectedRows(field=field, rule=rule, rows=rows)
            for (field, rule), rows in faults.most_common()
        ),
    )


def _accounting(
    ingested: "IngestResult", quarantine: UPath | None
) -> dict[str, dg.MetadataValue | str | int | float]:
    """Metadata that account for every row."""
    return {
        "accepted, rows": ingested.rows,
        "rejected, rows": ingested.rejected_rows,
        "rejected, %": percent(ingested.rejected_share),
        "exact duplicates, rows": ingested.duplicates,
        "rows of the files": ingested.rows_in,
        "dagster/row_count": ingested.rows,
        "files": table(pd.DataFrame(ingested.files)),
        "ignored_columns": ", ".join(ingested.ignored_columns) or "none",
        "quarantine": dg.MetadataValue.path(str(quarantine)) if quarantine else "nothing rejected",
        "rejected": _first_rejected(ingested),
        **day_record(
            BatchRecord(
                rows_in=ingested.rows_in, rows=ingested.rows, rejected=ingested.rejected_rows
            )
        ),
    }


def _first_rejected(ingested: "IngestResult") -> dg.MetadataValue | str:
    if ingested.first_rejected.empty:
        return "none"
    return table(ingested.first_rejected[["file", "line", "field", "rule", "message"]])


def _why_rejected(ingested: "IngestResult", day: str, asset: str) -> str:
    """The first reason and the place of all of them."""
    if ingested.first_rejected.empty:
        return "no file has a row"
    first = ingested.first_rejected.iloc[0]
    line = f", line {first['line']}" if first["line"] else ""
    return (
        f"{first['file']}{line}: {first['message']}; all reasons are in "
        f"quarantine/{day}/{asset}.csv"
    )


def _checks(
    ingested: "IngestResult", settings: Settings, day: str, asset: str
) -> Iterator[dg.AssetCheckResult]:
    broken = [file.file for file in ingested.files if not file.holds]
    yield check_result(
        f"{asset}_rows_reconcile",
        passed=not broken,
        summary=f"rows are missing in {', '.join(broken)}"
        if broken
        else "every row is accounted for",
        observed=len(broken),
        threshold=0,
        rows=ingested.rows_in,
        files=table(pd.DataFrame(ingested.files)),
    )
    share, limit = ingested.rejected_share, settings.policy.landing.rejected_share
    unreadable = ", ".join(ingested.unreadable_files)
    passed = ingested.rows > 0 and not unreadable and share <= limit
    if unreadable:
        summary = f"could not be read: {unreadable}"
    else:
        rejected, allowed = format_with_limit(share, limit, ".1%")
        summary = f"{rejected} of {ingested.rows_in:,} rows rejected, limit {allowed}"
    yield check_result(
        f"{asset}_rows_are_mostly_accepted",
        passed=passed,
        summary=summary if passed else f"{summary}; {_why_rejected(ingested, day, asset)}",
        observed=share,
        threshold=limit,
        rows=ingested.rows_in,
        rows_accepted=ingested.rows,
        unreadable_files=unreadable or "none",
        problems=_first_rejected(ingested),
    )
