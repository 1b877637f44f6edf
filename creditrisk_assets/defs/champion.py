"""Who decides: the assets `candidate_model` and `champion`, and what must hold for a champion."""

import io

import dagster as dg
import pandas as pd

from creditrisk_assets.defs.events import champion_in_force, latest_contender
from creditrisk_assets.defs.history import train_and_register
from creditrisk_assets.defs.metadata import OWNERS, figures, picture
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
    """The model in force. The newest model is compared with the champion on the same held-out rows and replaces it only if it is
    better; either way the verdict and both sides' figures are here. Only this asset moves the MLflow alias.
    """
    from creditrisk_assets.governance.promotion_gate import GateLimits, HeldOutRows, judge
    from creditrisk_assets.modelling.plots import calibration_plot, roc_plot
    from creditrisk_assets.registry import Registry
    from creditrisk_assets.scoring.bundle import HELD_OUT

    registry = Registry(settings.tracking_uri, settings.mlflow_dir)
    in_force = champion_in_force(context.instance)
    contender_version = latest_contender(context.instance)
    if contender_version is None:
        raise dg.Failure("there is no model to judge; valid: materialize model or candidate_model first (job train)")
    contender = registry.version(contender_version)
    current = registry.version(in_force.model_version) if in_force else None
    challenger_bundle = contender.load()
    champion_bundle = current.load() if current else None
    evidence = pd.read_parquet(io.BytesIO(challenger_bundle.document(HELD_OUT)))
    held_out = HeldOutRows(
        raw=evidence[challenger_bundle.input_names].to_numpy(dtype="float32"),
        target=evidence[settings.portfolio.target].to_numpy(dtype="int64"),
        origin=f"{len(evidence):,} held-out rows that came with version {contender.version}",
    )
    limits = GateLimits(settings.gate_minimum_bads, settings.gate_minimum_gain, settings.gate_alpha)
    verdict = judge(challenger_bundle, champion_bundle, held_out, limits)
    if verdict.verdict == "kept":
        if current is None or champion_bundle is None:
            raise dg.Failure(f"no champion can be named: {verdict.reason}")
        winner, winner_bundle = current, champion_bundle
    else:
        winner, winner_bundle = contender, challenger_bundle
    registry.set_champion(winner.version)
    if contender.version != winner.version:
        registry.set_challenger(contender.version)
    context.log.info(f"{verdict.verdict}: {verdict.reason}")
    plots = {}
    if verdict.probabilities:
        plots = {
            "roc": picture(roc_plot(verdict.target, verdict.probabilities)),
            "calibration": picture(calibration_plot(verdict.target, verdict.probabilities)),
        }
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
            "cut_off": winner_bundle.manifest.cut_off,
            "production_days": ",".join(winner_bundle.manifest.training.production_days),
            **figures(verdict.champion, "champion_"),
            **figures(verdict.challenger, "challenger_"),
            **plots,
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
