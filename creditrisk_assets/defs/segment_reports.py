"""The assets `segment_report` and `segment_performance`, which judge a day by the segments of the
portfolio, and the checks on them.

Both store the day's sums, so that later days are judged together with it, and write a document for
pages (`monitoring.segment_report`). For a portfolio without segments they read nothing and store
no line. The checks do not block and start no retrain: the checks of the whole day do.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditrisk_assets.defs.check_results import check_result
from creditrisk_assets.defs.drift import scored_by
from creditrisk_assets.defs.io import ParquetRows, stored_frame
from creditrisk_assets.defs.metadata import OWNERS
from creditrisk_assets.defs.partitions import DAYS, days_before
from creditrisk_assets.defs.performance import HISTORY_DAYS, PD, matured_decisions
from creditrisk_assets.settings import Settings

if TYPE_CHECKING:
    from creditrisk_assets.monitoring.segment_days import Judged
    from creditrisk_assets.monitoring.segment_report import WorstSlice
    from creditrisk_assets.scoring.bundle import Bundle
    from creditrisk_assets.scoring.reference_profile import ReferenceProfile
    from creditrisk_assets.scoring.segment_profile import SegmentPlacer

CUT_OFF = "cut_off"
STABLE = "segments_are_stable"
APPROVED = "segments_are_approved_as_in_training"
PREDICTED = "segments_perform_as_predicted"
NO_SEGMENTS = "the portfolio has no segments"
SHOWN = 5
"""Segments named in a summary."""

Results = Iterator[dg.Output[pd.DataFrame] | dg.AssetCheckResult]


def _spec(check: str, asset: str, description: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(check, asset=asset, partitions_def=DAYS, description=description)


@dg.asset(
    group_name="monitoring",
    kinds={"parquet"},
    owners=OWNERS,
    code_version="1",
    partitions_def=DAYS,
    check_specs=[
        _spec(
            STABLE,
            "segment_report",
            "Every field of every segment is distributed as in the same segment of the training "
            "rows. Does not block: the day is scored in either case.",
        ),
        _spec(
            APPROVED,
            "segment_report",
            "The approval rate of every segment is that of its training rows at the same cut-off. "
            "Does not block: the decisions are made.",
        ),
    ],
)
def segment_report(
    context: dg.AssetExecutionContext,
    production_scores: ParquetRows,
    settings: dg.ResourceParam[Settings],
) -> Results:
    """Compares each segment of the day with the same segment of the champion's training rows:
    score, fields and approval rate, for the day alone and together with the days before, and
    searches for the slice that has grown most.
    """
    from creditrisk_assets.monitoring.segment_days import (
        References,
        approval_of,
        counts_frame,
        counts_of,
        is_comparable,
        stability_of,
    )
    from creditrisk_assets.monitoring.segment_documents import (
        approval_sentences,
        decisions_document,
        stability_sentences,
    )
    from creditrisk_assets.monitoring.segment_report import SegmentDecisions
    from creditrisk_assets.scoring.reference_profile import BATCH_ROWS, reference_profile_of
    from creditrisk_assets.scoring.segment_profile import (
        SegmentCounter,
        SegmentPlacer,
        segment_profile_of,
    )

    portfolio, policy, day = settings.portfolio, settings.policy, context.partition_key
    if not portfolio.segments:
        SegmentDecisions.path(settings.reports, day).unlink(missing_ok=True)
        yield from _without_segments(STABLE, APPROVED)
        return
    version, bundle = scored_by(settings, production_scores)
    profile = reference_profile_of(bundle)
    counter = SegmentCounter(profile, bundle.manifest.inputs, portfolio)
    with production_scores.opened() as file:
        counts = counter.total(file.iter_batches(BATCH_ROWS, columns=counter.columns))
    cut_off = float(production_scores.count([CUT_OFF]).most_common(1)[0][0][0])
    placer = SegmentPlacer.of(portfolio)
    frames = [
        frame
        for earlier in days_before(day, policy.drift.days - 1)
        if (frame := stored_frame(settings.storage, "segment_report", earlier)) is not None
        and is_comparable(frame, placer, version)
    ]
    days = [counts, *(counts_of(frame, profile.names) for frame in frames)]
    by_rule = [
        counts,
        *(counts_of(one, profile.names) for one in frames if one[CUT_OFF].iloc[0] == cut_off),
    ]
    references = References.of(segment_profile_of(bundle), placer, len(profile.columns))
    stability = stability_of([one.bins for one in days], references, policy)
    approval = approval_of(by_rule, references, cut_off, policy)
    document = decisions_document(
        day,
        version,
        portfolio,
        profile.names,
        counts,
        references,
        stability,
        approval,
        references.approved_share(cut_off).tolist(),
        _worst_growth(production_scores, bundle, profile, settings),
    )
    path = document.write(settings.reports)
    worst = document.worst_slice
    yield dg.Output(
        counts_frame(placer, profile.names, counts, version, cut_off),
        metadata={
            "dagster/row_count": len(placer.labels),
            "rows": document.rows,
            "model_version": version,
            "days_together": len(days),
            "without_reference": ", ".join(references.without) or "none",
            "document": dg.MetadataValue.path(str(path)),
            **_slice_metadata(worst),
        },
    )
    reference = _reference_problem(references.without)
    yield _result(
        STABLE, stability, stability_sentences(document), reference, document.rows, version
    )
    yield _result(
        APPROVED, approval, approval_sentences(document), reference, document.rows, version
    )


@dg.asset(
    group_name="monitoring",
    kinds={"parquet"},
    owners=OWNERS,
    code_version="1",
    partitions_def=DAYS,
    check_specs=[
        _spec(
            PREDICTED,
            "segment_performance",
            "In every segment the bad rate agrees with the mean PD, and the AUC is not below that "
            "of the same segment at validation. Does not block: no step follows it.",
        ),
    ],
)
def segment_performance(
    context: dg.AssetExecutionContext,
    production_scores: ParquetRows,
    outcomes: pd.DataFrame,
    settings: dg.ResourceParam[Settings],
) -> Results:
    """Compares the outcomes of each segment with its PDs, and its AUC with that of its held-out
    rows, over several days together, and searches for the slice whose bad rate is furthest above
    its PDs. Counts the same customers as `performance_report`.
    """
    from creditrisk_assets.monitoring.segment_days import (
        References,
        is_comparable,
        outcome_frame,
        outcome_sums,
        outcomes_from,
        outcomes_of,
    )
    from creditrisk_assets.monitoring.segment_documents import (
        outcome_sentences,
        outcomes_document,
    )
    from creditrisk_assets.monitoring.segment_report import SegmentOutcomes
    from creditrisk_assets.monitoring.worst_slice import (
        searched_rows,
        slice_placer,
        worst_outcomes,
    )
    from creditrisk_assets.scoring.reference_profile import reference_profile_of
    from creditrisk_assets.scoring.segment_profile import SegmentPlacer, segment_profile_of

    portfolio, policy, day = settings.portfolio, settings.policy, context.partition_key
    if not portfolio.segments:
        SegmentOutcomes.path(settings.reports, day).unlink(missing_ok=True)
        yield from _without_segments(PREDICTED)
        return
    version, bundle = scored_by(settings, production_scores)
    profile = reference_profile_of(bundle)
    _, matured, learned, by_others = matured_decisions(settings, production_scores, outcomes, day)
    matured = matured[~learned & ~by_others]
    target = matured[portfolio.target].to_numpy(dtype=np.int64)
    probability = matured[PD].to_numpy(dtype=np.float64)
    rows = matured["row"].to_numpy()
    placer, number = SegmentPlacer.of(portfolio), len(SegmentPlacer.of(portfolio).labels)
    sums = outcome_sums(target, probability, _places(production_scores, placer, rows), number)
    days = [sums]
    for earlier in days_before(day, HISTORY_DAYS):
        frame = stored_frame(settings.storage, "segment_performance", earlier)
        if frame is not None and is_comparable(frame, placer, version) and frame["rows"].any():
            days.append(outcomes_from(frame))
        if len(days) == policy.performance.days:
            break
    references = References.of(segment_profile_of(bundle), placer, len(profile.columns))
    judged = outcomes_of(days, references, policy)
    part, slices = searched_rows(len(rows)), slice_placer(portfolio, profile)
    document = outcomes_document(
        day,
        version,
        portfolio,
        sums,
        references,
        judged,
        worst_outcomes(
            slices,
            _places(production_scores, slices, rows[part]),
            target[part],
            probability[part],
            policy.segments,
        ),
    )
    path = document.write(settings.reports)
    yield dg.Output(
        outcome_frame(placer, sums, version),
        metadata={
            "dagster/row_count": number,
            "rows": document.rows,
            "model_version": version,
            "days_together": len(days),
            "document": dg.MetadataValue.path(str(path)),
            **_slice_metadata(document.worst_slice),
        },
    )
    yield _result(PREDICTED, judged, outcome_sentences(document), "", document.rows, version)


def _places(
    scores: ParquetRows, placer: "SegmentPlacer", rows: "NDArray[np.int64]"
) -> "list[NDArray[np.int64]]":
    """Segments of some rows of a day, by their places in the file."""
    from creditrisk_assets.scoring.reference_profile import BATCH_ROWS

    parts: list[list[NDArray[np.int64]]] = []
    start = 0
    order = np.sort(rows)
    with scores.opened() as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=placer.names):
            first, last = np.searchsorted(order, (start, start + len(batch)))
            own = order[first:last] - start
            parts.append([place[own] for place in placer.of_batch(batch)])
            start += len(batch)
    back = np.empty(len(rows), dtype=np.int64)
    back[np.argsort(rows, kind="stable")] = np.arange(len(rows))
    return [np.concatenate(segment)[back] for segment in zip(*parts, strict=True)]


def _worst_growth(
    scores: ParquetRows, bundle: "Bundle", profile: "ReferenceProfile", settings: Settings
) -> "WorstSlice | None":
    """The slice that has grown most beyond its share of the training rows that the bundle keeps."""
    import io

    from creditrisk_assets.monitoring.worst_slice import (
        searched_rows,
        slice_placer,
        worst_growth,
    )
    from creditrisk_assets.scoring.bundle import REFERENCE

    placer = slice_placer(settings.portfolio, profile)
    learned = pd.read_parquet(io.BytesIO(bundle.document(REFERENCE)))
    missing = [name for name in placer.names if name not in learned]
    if missing:  # a field that the contract did not have at training
        return None
    with scores.opened() as file:
        count = file.metadata.num_rows
    rows = np.arange(count)[searched_rows(count)]
    return worst_growth(
        placer,
        _places(scores, placer, rows),
        placer.of_columns({name: learned[name].to_numpy() for name in placer.names}),
        settings.policy.segments,
    )


def _slice_metadata(worst: "WorstSlice | None") -> dict[str, dg.MetadataValue | str | float]:
    if worst is None:
        return {"worst_slice": "none is large enough"}
    return {
        "worst_slice": " and ".join(worst.conditions),
        "worst_slice_rows": worst.rows,
        "worst_slice_figure": worst.figure,
        "worst_slice_expected": worst.expected,
        "worst_slice_p_value": worst.p_value,
    }


def _reference_problem(without: tuple[str, ...]) -> str:
    return f"no reference by segment in this version: {', '.join(without)}" if without else ""


def _without_segments(*checks: str) -> Results:
    """An empty day, and checks that pass."""
    yield dg.Output(pd.DataFrame({"segment": pd.Series(dtype=str)}), metadata={"segments": "none"})
    for check in checks:
        yield check_result(
            check, passed=True, summary=NO_SEGMENTS, observed=np.nan, threshold=np.nan, rows=0
        )


def _result(
    check: str, judged: "Judged", sentences: list[str], note: str, rows: int, version: str
) -> dg.AssetCheckResult:
    """The result of a check; the observed value is the smallest corrected p-value."""
    tested = judged.corrected[~np.isnan(judged.corrected)]
    more = f" and {len(sentences) - SHOWN} more" if len(sentences) > SHOWN else ""
    found = "; ".join(sentences[:SHOWN]) + more
    fine = f"{len(tested):,} tests, none fails" if len(tested) else "no segment could be tested"
    return check_result(
        check,
        passed=not sentences,
        summary="; ".join(part for part in (found or fine, note) if part),
        observed=float(tested.min()) if len(tested) else np.nan,
        threshold=judged.alpha,
        rows=rows,
        model_version=version,
        tests=len(tested),
        failed=len(sentences),
    )
