"""The checks on `production_scores` that need no outcomes, and the estimates from the PDs.

The checks do not block: the decisions are already made, and their readers need the warning.
"""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from creditrisk_assets.defs.check_results import check_result
from creditrisk_assets.defs.io import ParquetRows, stored_path
from creditrisk_assets.defs.metadata import table
from creditrisk_assets.defs.partitions import DAYS, days_before
from creditrisk_assets.defs.production import production_scores
from creditrisk_assets.number_format import format_with_limit
from creditrisk_assets.settings import Settings

if TYPE_CHECKING:
    from creditrisk_assets.modelling.fairness import Groups
    from creditrisk_assets.monitoring.api_agreement import OnlineAgreement

FloatArray = NDArray[np.float64]

FAIRNESS_DAYS = 30
"""Days that are searched for enough decisions to compare groups."""

PD, PREDICTION = "default_probability", "prediction"
VERSION, BUNDLE = "model_version", "bundle_sha256"


def estimates_of(probability: FloatArray) -> dict[str, float]:
    """Figures that the PDs of a day imply: `estimated_<figure>` with its standard error.
    `probability_of` reads the PDs from a file of scores.
    """
    from creditrisk_assets.monitoring.estimated_performance import expected_performance

    estimates: dict[str, float] = {}
    for name, expected in expected_performance(probability).items():
        estimates[f"estimated_{name}"] = expected.value
        estimates[f"estimated_{name}_standard_error"] = expected.standard_error
    return estimates


@dg.asset_check(asset=production_scores, partitions_def=DAYS)
def estimated_performance_holds(
    production_scores: ParquetRows, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """The AUC that the PDs of the day imply is not below that of validation by more than chance and
    the floor. Assumes that the PDs are right, so it detects a change of population but no change of
    concept. Does not block: the day is scored in either case.
    """
    from creditrisk_assets.monitoring.estimated_performance import ASSUMPTIONS, expected_performance
    from creditrisk_assets.monitoring.performance import estimate_test
    from creditrisk_assets.scoring.bundle_store import BundleStore

    version, bundle_sha256 = deciding_model(production_scores)
    validation = BundleStore(settings.data_dir).load(bundle_sha256).manifest.metrics
    probability = probability_of(production_scores)
    expected = expected_performance(probability).get("roc_auc")
    test = estimate_test(
        expected, validation, settings.policy.performance.alpha, settings.policy.performance.floor
    )
    interval = (
        "" if expected is None else f" [{expected.interval.low:.4f}, {expected.interval.high:.4f}]"
    )
    observed, limit = format_with_limit(test.observed, test.limit, ".4f")
    estimate = f"estimated AUC {observed}{interval}, limit {limit}"
    return check_result(
        "estimated_performance_holds",
        passed=test.passed,
        summary=test.explanation if np.isnan(test.observed) else estimate,
        observed=test.observed,
        threshold=test.limit,
        rows=len(probability),
        model_version=version,
        p_value=test.p_value,
        explanation=test.explanation,
        assumes=ASSUMPTIONS,
    )


@dg.asset_check(asset=production_scores, partitions_def=DAYS)
def live_decisions_treat_groups_alike(
    context: dg.AssetCheckExecutionContext,
    production_scores: ParquetRows,
    settings: dg.ResourceParam[Settings],
) -> dg.AssetCheckResult:
    """Compares the approval rates of the groups of each protected field. Fails if a group's rate,
    relative to the group with the highest, lies below the four-fifths line with its whole 95 %
    interval. A small day is pooled with earlier days of the same champion. A pass is no evidence of
    compliance. Does not block: cut-offs do not depend on groups, and a person must judge the case.
    """
    from creditrisk_assets.modelling.fairness import impact_by_group, under_line

    version, _ = deciding_model(production_scores)
    line = settings.policy.gate.fairness_floor
    days = list(_recent_decisions(production_scores, context.partition_key, version, settings))
    decided = pd.concat(days)
    impacts = impact_by_group((decided[PREDICTION] == 0).to_numpy(), _groups(decided, settings))
    below = [one for one in impacts if one.high < line]
    under = [one for one in impacts if one.ratio < line]
    worst = min(below or under or impacts, key=lambda one: one.ratio, default=None)
    shown = [
        dataclasses.asdict(one) | {"flag": under_line(one.ratio, one.high, line)} for one in impacts
    ]
    return check_result(
        "live_decisions_treat_groups_alike",
        passed=not below,
        summary="no group is large enough to be judged"
        if worst is None
        else f"{worst.field} {worst.group}: ratio {format_with_limit(worst.ratio, line)[0]} "
        f"[{worst.low:.3f}, {worst.high:.3f}] to {worst.reference}, line {line:.2f}, "
        f"{len(days)} days"
        + (
            f"; {len(under)} groups under the line by their figure, perhaps by chance"
            if under and not below
            else ""
        ),
        observed=np.nan if worst is None else worst.ratio,
        threshold=line,
        rows=len(decided),
        model_version=version,
        days=len(days),
        under_the_line=", ".join(f"{one.field} {one.group}" for one in under) or "none",
        groups=table(pd.DataFrame(shown)) if shown else "none",
    )


@dg.asset_check(asset=production_scores, partitions_def=DAYS)
def batch_equals_online(
    context: dg.AssetCheckExecutionContext,
    production_scores: ParquetRows,
    settings: dg.ResourceParam[Settings],
) -> dg.AssetCheckResult:
    """The day's batch gives the same PDs as the API, bit for bit, wherever the same bundle decided
    on the same record. Does not block: the API's answers are already sent.
    """
    from creditrisk_assets.decisions.sets import DecisionsError

    version, _ = deciding_model(production_scores)
    try:
        agreement = _agreement(production_scores, context.partition_key, settings)
    except DecisionsError as error:
        return check_result(
            "batch_equals_online",
            passed=False,
            summary=str(error),
            observed=np.nan,
            threshold=np.nan,
            rows=0,
            model_version=version,
        )
    if agreement is None:
        summary = "no live decisions"
    elif agreement.differing:
        summary = (
            f"{len(agreement.differing)} of {agreement.compared} PDs differ, the first of "
            f"{agreement.differing[0]}"
        )
    else:
        summary = (
            f"{agreement.compared} of {agreement.decisions} live decisions compared, all to the bit"
        )
    counts = {} if agreement is None else dataclasses.asdict(agreement)
    differing = counts.pop("differing", ())
    largest = counts.pop("largest", np.nan)
    return check_result(
        "batch_equals_online",
        passed=not differing,
        summary=summary,
        observed=float(len(differing)),
        threshold=0.0,
        rows=agreement.compared if agreement else 0,
        model_version=version,
        **counts,
        **({"differing": ", ".join(differing[:20])} if differing else {}),
        **({} if np.isnan(largest) else {"largest_difference": largest}),
    )


CHECKS = (estimated_performance_holds, live_decisions_treat_groups_alike, batch_equals_online)


def deciding_model(scores: ParquetRows) -> tuple[str, str]:
    """Version and bundle of most of a day's decisions. A day has decisions of several versions if a
    file was corrected after a promotion.
    """
    version, bundle_sha256 = scores.count([VERSION, BUNDLE]).most_common(1)[0][0]
    return version, bundle_sha256


def probability_of(scores: ParquetRows) -> FloatArray:
    """The PDs of a day's scores; reads no other column."""
    with scores.opened() as file:
        return np.asarray(file.read([PD]).column(0).to_numpy(), dtype=np.float64)


def _recent_decisions(
    scores: ParquetRows, day: str, version: str, settings: Settings
) -> Iterator[pd.DataFrame]:
    """Protected fields and predictions of the day, then of earlier days of the same champion until
    there are enough rows.
    """
    columns = [*settings.portfolio.protected, PREDICTION]
    rows = 0
    before = days_before(day, FAIRNESS_DAYS - 1)
    paths = (stored_path(settings.storage, "production_scores", earlier) for earlier in before)
    for stored in (scores, *map(ParquetRows, paths)):
        try:
            if stored is not scores and deciding_model(stored)[0] != version:
                continue
            with stored.opened() as file:
                decided = file.read(columns).to_pandas()
        except FileNotFoundError:
            continue
        yield decided
        rows += len(decided)
        if rows >= settings.policy.fairness.rows:
            return


def _groups(decided: pd.DataFrame, settings: Settings) -> "Groups":
    from creditrisk_assets.modelling.fairness import protected_groups
    from creditrisk_assets.portfolio.encoding import raw_matrix

    protected = [
        field for field in settings.portfolio.fields if field.name in settings.portfolio.protected
    ]
    if not protected:
        return {}
    numbers = raw_matrix(decided, protected).T
    return protected_groups(
        settings.portfolio, {field.name: row for field, row in zip(protected, numbers, strict=True)}
    )


def _agreement(scores: ParquetRows, day: str, settings: Settings) -> "OnlineAgreement | None":
    """The API's decisions of the day compared with its batch; None if the API made none.

    Raises:
        DecisionsError: if the archived decisions were changed.
    """
    from creditrisk_assets.decisions.sets import DECISION_ID, sets_of, verified_file
    from creditrisk_assets.monitoring.api_agreement import online_agreement

    portfolio = settings.portfolio
    compared = [DECISION_ID, portfolio.identifier, *portfolio.field_names, PD, BUNDLE]
    live = []
    for decisions in sets_of(settings.decisions, day):
        if decisions.segment is not None:
            with verified_file(settings.decisions, decisions).open("rb") as file:
                live.append(pq.read_table(file, columns=compared))
    if not live:
        return None
    online = pa.concat_tables(live)
    with scores.opened() as file:
        customers = online[portfolio.identifier].unique()
        customers = customers.cast(file.schema_arrow.field(portfolio.identifier).type)
        batch = pa.Table.from_batches(
            [
                rows.filter(pc.is_in(rows[portfolio.identifier], customers))
                for rows in file.iter_batches(columns=compared[1:])
            ]
        )
    return online_agreement(
        online.to_pandas(), batch.to_pandas(), portfolio.identifier, portfolio.field_names
    )
