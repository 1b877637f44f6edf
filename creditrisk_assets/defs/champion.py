"""Who decides: the assets `candidate_model` and `champion`, and what must hold for a champion."""

import dagster as dg
import pandas as pd

from creditrisk_assets.defs.events import champion_in_force, latest_contender
from creditrisk_assets.defs.history import train_and_register
from creditrisk_assets.defs.metadata import OWNERS, figures, picture, table
from creditrisk_assets.settings import Settings

CAUSE_TAG_PREFIX = "creditrisk/cause"


@dg.asset(group_name="model", kinds={"scikitlearn", "onnx", "mlflow"}, owners=OWNERS, code_version="1")
def candidate_model(
    context: dg.AssetExecutionContext,
    features: pd.DataFrame,
    production_batch: dict[str, pd.DataFrame],
    outcomes: dict[str, pd.DataFrame],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """A challenger: trained on the history and on the matured part of production, judged by held-out customers of the latest
    matured days. Its metadata name the failed checks that asked for it.
    """
    from creditrisk_assets.modelling.datasets import candidate_set

    learning = candidate_set(features, production_batch, outcomes, settings.portfolio, settings.evaluation_days)
    causes = {
        name.removeprefix("creditrisk/"): value for name, value in context.run.tags.items() if name.startswith(CAUSE_TAG_PREFIX)
    }
    return train_and_register(context, settings, learning, "candidate", causes)


@dg.asset(
    group_name="model",
    kinds={"mlflow", "onnx"},
    owners=OWNERS,
    code_version="1",
    deps=["model", "candidate_model"],
    pool="champion",
)
def champion(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The model in force. The newest model is compared with the champion on the same held-out rows and replaces it only if it
    passes every test of the promotion gate; either way the verdict is a document in MLflow, and here. Only this asset moves the
    MLflow alias.
    """
    from creditrisk_assets.governance.promotion_gate import judge
    from creditrisk_assets.governance.verdict import GateLimits
    from creditrisk_assets.governance.verdict_page import verdict_page, verdict_plots
    from creditrisk_assets.registry import Registry

    registry = Registry(settings.tracking_uri, settings.mlflow_dir)
    in_force = champion_in_force(context.instance)
    contender_version = latest_contender(context.instance)
    if contender_version is None:
        raise dg.Failure("there is no model to judge; valid: materialize model or candidate_model first (job train)")
    contender = registry.version(contender_version)
    current = registry.version(in_force.model_version) if in_force else None
    judgement = judge(contender, current, settings.portfolio, GateLimits.of(settings))
    verdict, plots = judgement.verdict, verdict_plots(judgement)
    page = registry.attach(
        contender,
        f"verdicts/{verdict.digest[:16]}",
        {"verdict.json": verdict.text, "verdict.html": verdict_page(judgement, plots)},
    )
    if verdict.verdict == "kept" and current is None:
        raise dg.Failure(f"no champion can be named: {verdict.reason}")
    winner = current if verdict.verdict == "kept" and current is not None else contender
    manifest = winner.load().manifest
    registry.set_champion(winner.version)
    if contender.version != winner.version:
        registry.set_challenger(contender.version)
    context.log.info(f"{verdict.verdict}: {verdict.reason}")
    return dg.MaterializeResult(
        metadata={
            "mlflow_uri": winner.mlflow_uri,
            "artifact_uri": winner.artifact_uri,
            "model_version": winner.version,
            "bundle_sha256": winner.bundle_sha256,
            "verdict": verdict.verdict,
            "reason": verdict.reason,
            "challenger_version": contender.version,
            "previous_version": current.version if current else "none",
            "cut_off": manifest.cut_off,
            "production_days": ",".join(manifest.training.production_days),
            "verdict_sha256": verdict.digest,
            "verdict_page": f"{page}/verdict.html",
            "verdict_document": dg.MetadataValue.json(verdict.model_dump(mode="json")),
            "tests": table(pd.DataFrame([test.model_dump() for test in verdict.tests])),
            **figures(verdict.champion.figures if verdict.champion else {}, "champion_"),
            **figures(verdict.challenger.figures, "challenger_"),
            **{name: picture(png) for name, png in plots.items()},
        },
        data_version=dg.DataVersion(winner.bundle_sha256),
    )


@dg.asset_check(asset=champion, blocking=True)
def champion_is_what_mlflow_names(
    context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """The bundle of the champion loads with the hash and golden answers that it was promoted with, and MLflow's alias names the
    same version. Blocks: production must not be scored by a champion that nobody can prove.
    """
    from creditrisk_assets.registry import Registry

    registry = Registry(settings.tracking_uri, settings.mlflow_dir)
    in_force = champion_in_force(context.instance)
    if in_force is None:
        return dg.AssetCheckResult(passed=False, metadata={"observed": "no champion", "expected": "one champion"})
    bundle = registry.version(in_force.model_version).load()
    alias = registry.champion_version()
    return dg.AssetCheckResult(
        passed=alias == in_force.model_version and bundle.sha256 == in_force.bundle_sha256,
        metadata={
            "alias_version": str(alias),
            "asset_version": in_force.model_version,
            "bundle_sha256": bundle.sha256,
            "expected_sha256": in_force.bundle_sha256,
        },
    )
