"""Making the documents of a day by segment, and the sentences of its failed tests, from its
verdicts.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from creditrisk_assets.modelling.fairness import jeffreys_interval
from creditrisk_assets.monitoring.segment_days import Judged, References
from creditrisk_assets.monitoring.segment_report import (
    DecisionSegment,
    DecisionSegmentation,
    OutcomeSegment,
    OutcomeSegmentation,
    SegmentDecisions,
    SegmentOutcomes,
    SegmentVerdict,
    WorstSlice,
)
from creditrisk_assets.monitoring.segment_rule import OutcomeSums
from creditrisk_assets.number_format import format_with_limit
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.reference_profile import SCORE
from creditrisk_assets.scoring.segment_profile import SegmentCounts, SegmentPlacer

LEVEL, RANKING = 0, 1
"""Places of the tests of outcomes."""

STABILITY_TESTS, APPROVAL_TESTS = "stability", "approval"
LEVEL_TESTS, RANKING_TESTS = "level", "ranking"


def labels_of(portfolio: Portfolio) -> dict[str, str]:
    """Words for the columns of a profile."""
    return {SCORE: "score", **{field.name: field.description for field in portfolio.fields}}


def decisions_document(
    day: str,
    version: str,
    portfolio: Portfolio,
    columns: Sequence[str],
    counts: SegmentCounts,
    references: References,
    stability: Judged,
    approval: Judged,
    approved_share: Sequence[float],
    worst_slice: WorstSlice | None,
) -> SegmentDecisions:
    """The document of a scored day.

    Args:
        day: the business day.
        version: of the model.
        portfolio: defines segments and words.
        columns: of the reference profile.
        counts: of the day alone.
        references: training rows.
        stability: verdicts, spans x segments x columns.
        approval: verdicts, spans x segments.
        approved_share: of the training rows of each segment at the cut-off in force.
        worst_slice: from the search.
    """
    placer, words = SegmentPlacer.of(portfolio), labels_of(portfolio)
    worst_column = _worst_columns(stability)
    drifted = np.asarray(stability.failed.any(axis=0))
    total = int(counts.rows[: len(portfolio.segments[0].segments(portfolio.fields))].sum())
    lines = []
    for place, (segmentation, label) in enumerate(placer.labels):
        rows, column = int(counts.rows[place]), int(worst_column[place])
        verdict = _verdict(stability, (place, column))
        lines.append(
            (
                segmentation,
                DecisionSegment(
                    label=label,
                    rows=rows,
                    share=rows / max(total, 1),
                    training_share=_number(references.share[place]),
                    mean_pd=float(counts.pd_sum[place]) / rows if rows else None,
                    approval_rate=float(counts.approved[place]) / rows if rows else None,
                    training_approval_rate=_number(approved_share[place]),
                    worst_field=columns[column] if verdict else None,
                    worst_field_label=words[columns[column]] if verdict else None,
                    stability=verdict,
                    approval=_verdict(approval, (place,)),
                    drifted=tuple(
                        columns[other] for other in np.flatnonzero(drifted[place]).tolist()
                    ),
                ),
            )
        )
    return SegmentDecisions(
        day=day,
        model_version=version,
        rows=total,
        alpha=stability.alpha,
        tests={STABILITY_TESTS: _tests(stability), APPROVAL_TESTS: _tests(approval)},
        worst_slice=worst_slice,
        segmentations=tuple(
            DecisionSegmentation(
                name=segmentation.name,
                label=segmentation.label,
                has_reference=segmentation.name not in references.without,
                segments=tuple(
                    segment for _, segment in group if segment.rows or segment.training_share
                ),
            )
            for segmentation, group in groupby(lines, key=lambda line: line[0])
        ),
    )


def outcomes_document(
    day: str,
    version: str,
    portfolio: Portfolio,
    sums: OutcomeSums,
    references: References,
    judged: Judged,
    worst_slice: WorstSlice | None,
) -> SegmentOutcomes:
    """The document of a day's outcomes.

    Args:
        day: the business day.
        version: of the model.
        portfolio: defines segments and words.
        sums: of the day alone.
        references: held-out figures.
        judged: verdicts, spans x tests x segments.
        worst_slice: from the search.
    """
    lines = []
    for place, (segmentation, label) in enumerate(SegmentPlacer.of(portfolio).labels):
        rows, bads = int(sums.rows[place]), int(sums.bads[place])
        low, high = jeffreys_interval(bads, rows) if rows else (None, None)
        weight = float(sums.auc_weight[place])
        lines.append(
            (
                segmentation,
                OutcomeSegment(
                    label=label,
                    rows=rows,
                    bads=bads,
                    bad_rate=bads / rows if rows else None,
                    bad_rate_low=low,
                    bad_rate_high=high,
                    mean_pd=float(sums.pd_sum[place]) / rows if rows else None,
                    roc_auc=float(sums.auc_sum[place]) / weight if weight else None,
                    roc_auc_standard_error=float(np.sqrt(sums.auc_error_sum[place])) / weight
                    if weight
                    else None,
                    validation_roc_auc=_number(references.roc_auc[place]),
                    level=_verdict(judged, (LEVEL, place)),
                    ranking=_verdict(judged, (RANKING, place)),
                ),
            )
        )
    first = portfolio.segments[0].segments(portfolio.fields)
    tested = ~np.isnan(judged.corrected)
    return SegmentOutcomes(
        day=day,
        model_version=version,
        rows=int(sums.rows[: len(first)].sum()),
        alpha=judged.alpha,
        tests={
            LEVEL_TESTS: int(tested[:, LEVEL].sum()),
            RANKING_TESTS: int(tested[:, RANKING].sum()),
        },
        worst_slice=worst_slice,
        segmentations=tuple(
            OutcomeSegmentation(
                name=segmentation.name,
                label=segmentation.label,
                segments=tuple(
                    segment for _, segment in group if segment.rows or segment.validation_roc_auc
                ),
            )
            for segmentation, group in groupby(lines, key=lambda line: line[0])
        ),
    )


def stability_sentences(document: SegmentDecisions) -> list[str]:
    """The segments with a failed stability test, the smallest p-value first."""
    found = [
        (segment.stability, f"{one.label} {segment.label}: {segment.worst_field}", "PSI", ".3f")
        for one in document.segmentations
        for segment in one.segments
        if segment.stability
    ]
    return _sentences(found)


def approval_sentences(document: SegmentDecisions) -> list[str]:
    """The segments with a failed approval test, the smallest p-value first."""
    found = [
        (segment.approval, f"{one.label} {segment.label}:", "approved", ".1%")
        for one in document.segmentations
        for segment in one.segments
        if segment.approval
    ]
    return _sentences(found, "in training")


def outcome_sentences(document: SegmentOutcomes) -> list[str]:
    """The segments with a failed test of level or ranking, the smallest p-value first."""
    found = []
    for one in document.segmentations:
        for segment in one.segments:
            name = f"{one.label} {segment.label}:"
            if segment.level:
                found.append((segment.level, name, "bad rate", ".2%"))
            if segment.ranking:
                found.append((segment.ranking, name, "AUC", ".3f"))
    against = {"bad rate": "mean PD", "AUC": "at validation"}
    return _sentences(found, against)


def _sentences(
    found: Sequence[tuple[SegmentVerdict, str, str, str]],
    against: str | Mapping[str, str] = "floor",
) -> list[str]:
    failed = sorted((one for one in found if one[0].failed), key=lambda one: one[0].p_value)
    sentences = []
    for verdict, name, what, spec in failed:
        figure, reference = format_with_limit(verdict.figure, verdict.reference, spec)
        words = against if isinstance(against, str) else against[what]
        days = f" over {verdict.days} days" if verdict.days > 1 else ""
        sentences.append(f"{name} {what} {figure}, {words} {reference}{days}")
    return sentences


def _worst_columns(stability: Judged) -> np.ndarray:
    """For each segment the column with a failed test, or else with the smallest p-value."""
    order = np.where(stability.failed, -1.0, 0.0) + np.nan_to_num(stability.corrected, nan=2.0)
    own = np.nan_to_num(stability.tests.p_value, nan=2.0).min(axis=0)
    best = order.min(axis=0)
    return np.asarray([np.lexsort((p, one))[0] for one, p in zip(best, own, strict=True)])


def _verdict(judged: Judged, place: tuple[int, ...]) -> SegmentVerdict | None:
    """The decisive span of a test; None if it was not tested."""
    span = int(judged.decisive_spans()[place])
    corrected = float(judged.corrected[(span, *place)])
    if np.isnan(corrected):
        return None
    return SegmentVerdict(
        figure=float(judged.tests.figure[(span, *place)]),
        reference=float(judged.tests.reference[(span, *place)]),
        p_value=corrected,
        limit=judged.alpha,
        days=judged.spans[span],
        failed=bool(judged.failed[(span, *place)]),
    )


def _tests(judged: Judged) -> int:
    return int((~np.isnan(judged.corrected)).sum())


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
