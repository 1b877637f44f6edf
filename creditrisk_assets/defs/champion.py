"""The assets `candidate_model` and `champion`, and the checks on them."""

import datetime
import math
import secrets
from collections.abc import Iterator, Mapping
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from creditrisk_assets.defs.champion_commands import follow_ledger, stored_policy
from creditrisk_assets.defs.champion_records import (
    DATA_VERSION,
    agreement,
    champion_metadata,
    describe_versions,
    in_force_from,
    policy_metadata,
    registry_of,
    verify,
)
from creditrisk_assets.defs.check_results import check_result
from creditrisk_assets.defs.event_log import (
    ACTION_TAG,
    SINCE_TAG,
    cause_of,
    champion_in_force,
    day_of_data,
    latest_registered_version,
)
from creditrisk_assets.defs.history import make_and_register, train_and_register
from creditrisk_assets.defs.io import FramesByDay, ParquetRows
from creditrisk_assets.defs.metadata import OWNERS, figures, picture, rounded, table
from creditrisk_assets.governance.ledger import (
    Entry,
    Ledger,
    LedgerMoved,
    Move,
    lock_champion,
    rollback_of,
)
from creditrisk_assets.monitoring.triage import Action
from creditrisk_assets.scoring.bundle import RECALIBRATION, Bundle
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import Settings
from creditrisk_assets.storage import replacing

if TYPE_CHECKING:
    from creditrisk_assets.registry import RegisteredBundle

CAUSE_TAG_PREFIX = "creditrisk/cause"

VERSIONS_COMPARED = 8
"""Versions on the page of versions: the newest, and the one in force."""

JUDGEMENTS_LIMIT = 3
"""Judgements of one challenger while other machines move the champion."""

ACTIONS = (Action.RECALIBRATE, Action.REFIT)
"""Valid values of the run tag `ACTION_TAG` for `candidate_model`."""


@dg.asset(
    group_name="model", kinds={"scikitlearn", "onnx", "mlflow"}, owners=OWNERS, code_version="1"
)
def candidate_model(
    context: dg.AssetExecutionContext,
    features: pd.DataFrame,
    production_batch: dict[str, ParquetRows],
    outcomes: dict[str, ParquetRows],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """A challenger, made as the run's tag `creditrisk/action` says and judged on held-out
    customers. `refit`, the default: trained on the history and the matured part of production,
    judged on the latest matured days. `recalibrate`: the champion with a new slope and intercept of
    its calibration, fitted to and judged on the matured days from the tag `creditrisk/since` on.
    The metadata name the failed checks that caused it.
    """
    from creditrisk_assets.modelling.datasets import candidate_set

    causes = {
        name.removeprefix("creditrisk/"): value
        for name, value in context.run.tags.items()
        if name.startswith(CAUSE_TAG_PREFIX)
    }
    action = context.run.tags.get(ACTION_TAG, Action.REFIT)
    if action not in ACTIONS:
        raise dg.Failure(
            f"run tag {ACTION_TAG} is {action!r}; valid: {', '.join(ACTIONS)}, or no such tag, "
            f"which means {Action.REFIT}"
        )
    by_day = FramesByDay(production_batch), FramesByDay(outcomes)
    if action == Action.RECALIBRATE:
        return _recalibration(context, settings, *by_day, causes)
    learning = candidate_set(
        features,
        *by_day,
        settings.portfolio,
        settings.policy.gate.evaluation_days,
        settings.policy.retraining.learning_rows,
    )
    return train_and_register(context, settings, learning, "candidate", causes)


def _since(tags: Mapping[str, str]) -> str:
    """The first day of the evidence to recalibrate on."""
    day = tags.get(SINCE_TAG)
    try:
        if day is not None and date.fromisoformat(day).isoformat() == day:
            return day
    except ValueError:
        pass
    value = "missing" if day is None else repr(day)
    raise dg.Failure(
        f"run tag {SINCE_TAG} is {value}; valid with {ACTION_TAG} {Action.RECALIBRATE}: a day as "
        "YYYY-MM-DD"
    )


def _recalibration(
    context: dg.AssetExecutionContext,
    settings: Settings,
    production_batch: Mapping[str, pd.DataFrame],
    outcomes: Mapping[str, pd.DataFrame],
    causes: dict[str, str],
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The champion in force with its calibration fitted again, and its fallback likewise."""
    from creditrisk_assets.modelling.datasets import recalibration_set
    from creditrisk_assets.modelling.recalibration import recalibrate

    since = _since(context.run.tags)
    champion = champion_in_force(context.instance)
    if champion is None:
        raise dg.Failure(
            "there is no champion to recalibrate; valid: run the job train first, or "
            f"{ACTION_TAG} {Action.REFIT}"
        )
    bundles = BundleStore(settings.data_dir)
    parent = bundles.load(champion.bundle_sha256)
    fallback = bundles.load(champion.fallback.bundle_sha256) if champion.fallback else None
    rows_limit = settings.policy.retraining.learning_rows
    learning = recalibration_set(
        parent, production_batch, outcomes, settings.portfolio, since, rows_limit
    )
    data = (learning.fit, learning.held_out, learning.production_days, settings.portfolio.target)

    def make(directory: Path, fallback_directory: Path) -> tuple[Bundle, Bundle | None]:
        return recalibrate(directory, parent, *data), recalibrate(
            fallback_directory, fallback, *data
        ) if fallback else None

    return make_and_register(
        context,
        settings,
        learning,
        make,
        {"parent_version": champion.model_version, "since": since, **causes},
    )


@dg.asset(
    group_name="model",
    kinds={"mlflow", "onnx"},
    owners=OWNERS,
    code_version="1",
    deps=["model", "candidate_model"],
    pool="champion",
)
def champion(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    """The model in force. The newest version is compared with the champion on the same held-out
    rows and replaces it only if it passes every test of the promotion gate. The verdict is stored
    as a document in MLflow and recorded here and in the ledger. Only this asset and the commands of
    `creditrisk champion` set the MLflow alias.
    """
    # The lock is held until Dagster has stored the materialization, which precedes the next step.
    with lock_champion(settings.champion_lock):
        for left in reversed(range(JUDGEMENTS_LIMIT)):
            try:
                result, entry = _judge(context, settings)
                break
            except LedgerMoved as moved:
                if not left:
                    raise
                context.log.warning(f"{moved}; the challenger is judged again")
        yield result
        follow_ledger(context.instance, settings, entry)
        _write_versions(context, settings)
        if problem := describe_versions(settings, Ledger(settings.ledger).entries()):
            context.log.warning(f"the descriptions in MLflow were not written: {problem}")


def _write_versions(context: dg.AssetExecutionContext, settings: Settings) -> None:
    """Compare the latest versions for their page. The champion does not depend on it, so a version
    that cannot be read is reported and no more.
    """
    from creditrisk_assets.governance.version_comparison import ComparedVersion, compare_versions

    entries = Ledger(settings.ledger).entries()
    in_force = entries[-1].after
    judged = {one.challenger: one for one in entries if one.evidence_sha256 is not None}
    rules = {one.after.model_version: one.after.rule for one in entries}
    policy = in_force.rule.cut_off if in_force.cut_off_by == "policy" else None
    newest = sorted({*filter(None, judged), *rules}, key=int, reverse=True)[:VERSIONS_COMPARED]
    if in_force.model_version not in newest:
        newest[-1] = in_force.model_version
    registry = registry_of(settings)
    compared = []
    try:
        for version in newest:
            bundle = registry.version(version).load()
            entry = judged.get(version)
            rule = rules.get(version)
            compared.append(
                ComparedVersion(
                    version=version,
                    bundle=bundle,
                    cut_off=rule.cut_off if rule else policy or bundle.manifest.cut_off,
                    verdict=entry.action if entry else None,
                    verdict_sha256=entry.evidence_sha256 if entry else None,
                    judged_at=entry.at.timestamp() if entry else None,
                )
            )
        document = compare_versions(compared, in_force.model_version, settings.portfolio)
    except (OSError, LookupError, ValueError, RuntimeError) as error:
        context.log.warning(f"the versions are not compared: {type(error).__name__}: {error}")
        return
    document.write(settings.reports)


def _judge(
    context: dg.AssetExecutionContext, settings: Settings
) -> tuple[dg.MaterializeResult, Entry]:  # type: ignore[type-arg]
    """The materialization of `champion`, and the entry of the ledger that it names."""
    challenger_version = latest_registered_version(context.instance)
    if challenger_version is None:
        raise dg.Failure(
            "there is no model to judge; valid: materialize model or candidate_model first (job "
            "train)"
        )
    registry, entries = registry_of(settings), Ledger(settings.ledger).entries()
    rollback = rollback_of(entries, challenger_version)
    if entries and entries[-1].after.model_version == challenger_version:
        why = f"version {challenger_version} is in force already"
    elif rollback is not None:
        why = (
            f"version {challenger_version} was rolled back by {rollback.actor} "
            f"({rollback.why}) and is not judged again"
        )
    else:
        return _compare(context, settings, entries, registry.version(challenger_version))
    in_force = entries[-1].after
    registry.set_champion(in_force.model_version)  # a killed run may have left this undone
    context.log.info(f"unchanged: {why}")
    bundle = BundleStore(settings.data_dir).load(in_force.bundle_sha256)
    result = dg.MaterializeResult[None](
        metadata=champion_metadata(registry, in_force, bundle, "unchanged", why, entries),
        data_version=dg.DataVersion(DATA_VERSION),
    )
    return result, entries[-1]


def _compare(
    context: dg.AssetExecutionContext,
    settings: Settings,
    entries: list[Entry],
    challenger: "RegisteredBundle",
) -> tuple[dg.MaterializeResult, Entry]:  # type: ignore[type-arg]
    """Judge a challenger, append the verdict to the ledger, and put the winner in force."""
    from creditrisk_assets.decisions.shadow import shadow_scores
    from creditrisk_assets.governance.promotion_gate import judge
    from creditrisk_assets.governance.verdict_page import Occasion, verdict_page, verdict_plots

    registry = registry_of(settings)
    head = entries[-1] if entries else None
    before = head.after if head else None
    current = registry.version(before.model_version) if before else None
    policy = before.rule.cut_off if before is not None and before.cut_off_by == "policy" else None
    shadow = partial(shadow_scores, settings.decisions, settings.policy.gate.evaluation_days)
    judgement = judge(challenger, current, settings.portfolio, settings.policy.gate, policy, shadow)
    verdict, plots = judgement.verdict, verdict_plots(judgement)
    occasion = Occasion(
        datetime.datetime.now(datetime.UTC),
        cause_of(context.run.tags) or "",
        day_of_data(context.instance),
        settings.api_url,
    )
    html = verdict_page(judgement, plots, settings.portfolio.words, occasion)
    page = registry.attach(
        challenger,
        f"verdicts/{verdict.digest[:16]}",
        {"verdict.json": verdict.text, "verdict.html": html},
    )
    with replacing(settings.reports / "verdicts" / f"{verdict.digest}.html") as file:
        file.write(html.encode())
    if verdict.verdict != "rejected":
        after = in_force_from(challenger, challenger.load(), before)
    elif before is not None:
        after = before
    else:
        raise dg.Failure(f"no champion can be named: {verdict.reason}")
    winner = BundleStore(settings.data_dir).load(after.bundle_sha256)
    move = Move(
        action=verdict.verdict,
        actor=f"run {context.run.run_id} of job {context.run.job_name}",
        day=day_of_data(context.instance),
        before=before,
        after=after,
        challenger=challenger.version,
        why=verdict.reason,
        evidence_sha256=verdict.digest,
        policy_sha256=stored_policy(settings),
    )
    entry = Ledger(settings.ledger).append(move, head)
    registry.set_champion(after.model_version)
    if challenger.version != after.model_version:
        registry.set_challenger(challenger.version)
    context.log.info(f"{verdict.verdict}: {verdict.reason}")
    cut_off: dict[str, float | str] = {}
    if verdict.cut_off:
        cut_off["cut_off_move"] = verdict.cut_off.sentence
        moved = verdict.cut_off.model_dump(exclude={"by", "rate"})
        cut_off |= {f"cut_off_{name}": value for name, value in moved.items()}
    judged, held = verdict.challenger.figures, verdict.champion.figures if verdict.champion else {}
    result = dg.MaterializeResult[None](
        metadata={
            "verdict": verdict.verdict,
            "reason": verdict.reason,
            "AUC of the challenger": rounded(judged.get("roc_auc")),
            "AUC of the champion before": rounded(held.get("roc_auc")),
            "judged on, rows": verdict.evidence.rows if verdict.evidence else 0,
            "verdict page": dg.MetadataValue.url(
                f"{settings.api_url}/reports/verdicts/{verdict.digest}"
            ),
            **cut_off,
            "tests": table(
                pd.DataFrame([test.model_dump() for test in verdict.tests]),
                compared=("observed", "limit"),
            ),
            "tests_not_applicable": "; ".join(
                f"{name}: {why}" for name, why in verdict.not_applied.items()
            )
            or "none",
            **{name: picture(png) for name, png in plots.items()},
            **policy_metadata(after, winner, settings),
            **champion_metadata(
                registry, after, winner, verdict.verdict, verdict.reason, [*entries, entry]
            ),
            "challenger_version": challenger.version,
            "previous_version": before.model_version if before else "none",
            "verdict_sha256": verdict.digest,
            "verdict_page": f"{page}/verdict.html",
            "verdict_document": dg.MetadataValue.json(verdict.model_dump(mode="json")),
            **figures({"challenger": judged, "champion": held}),
        },
        data_version=dg.DataVersion(DATA_VERSION),
    )
    return result, entry


@dg.asset_check(asset=champion, blocking=True)
def champion_records_agree(
    context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """The ledger is an unbroken chain, and it, MLflow's alias, the asset and the bundle name the
    same champion. Blocks: production must not be scored by a champion without a complete record.
    Also runs daily, because an alias can be moved by hand.
    """
    return agreement(verify(context.instance, settings, every_version=False))


@dg.asset_check(asset=champion)
def past_decisions_replay(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A sample of past decisions, replayed with the bundles that made them, gives the same bits."""
    from creditrisk_assets.decisions.replay import replay_sample

    seed = secrets.randbits(32)
    replayed = replay_sample(settings.decisions, BundleStore(settings.data_dir), seed)
    wrong = [one for one in replayed if not one.exact]
    decided = sum(one.rows for one in replayed)
    problems = "; ".join(one.problem or ", ".join(one.differences) for one in wrong)
    return check_result(
        "past_decisions_replay",
        passed=not wrong,
        summary=problems
        or (f"{decided:,} decisions replayed to the bit" if replayed else "no decisions yet"),
        observed=sum(one.different for one in replayed),
        threshold=0,
        rows=decided,
        days=", ".join(one.decisions.day for one in replayed) or "none",
        seed=seed,
    )


@dg.asset_check(asset=candidate_model)
def challenger_agrees_in_shadow(
    context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """The newest challenger scores every record of the champion's recent decisions by the API, and
    its PDs agree with the champion's. Runs on stored decisions; requests do not wait for it.
    """
    from creditrisk_assets.decisions.shadow import shadow_scores
    from creditrisk_assets.governance.gate_tests import NO_SHADOW, shadow_agrees

    result = partial(check_result, "challenger_agrees_in_shadow")
    challenger = _waiting_challenger(context.instance, settings)
    in_force = champion_in_force(context.instance)
    nothing = partial(result, passed=True, observed=math.nan, threshold=math.nan, rows=0)
    if challenger is None or in_force is None:
        return nothing(summary="no challenger waits")
    bundle, version = challenger.load(), in_force.model_version
    shadow = shadow_scores(
        settings.decisions, settings.policy.gate.evaluation_days, bundle, version
    )
    if not shadow.rows:
        return nothing(summary=NO_SHADOW)
    recalibrated = bundle.manifest.training.kind == RECALIBRATION
    test = shadow_agrees(shadow, settings.policy.gate, recalibrated)
    return result(
        passed=test.passed,
        summary=f"version {challenger.version}: {test.sentence}",
        observed=math.nan if test.observed is None else test.observed,
        threshold=math.nan if test.limit is None else test.limit,
        rows=shadow.rows,
        days=", ".join(shadow.days),
    )


def _waiting_challenger(
    instance: dg.DagsterInstance, settings: Settings
) -> "RegisteredBundle | None":
    """The newest version; None if it is or was the champion."""
    version = latest_registered_version(instance)
    entries = Ledger(settings.ledger).entries()
    if version is None or any(entry.after.model_version == version for entry in entries):
        return None
    return registry_of(settings).version(version)
