"""The assets `raw_data`, `features` and `model`: from raw data to the first model."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from creditrisk_assets.defs.check_results import check_result
from creditrisk_assets.defs.metadata import OWNERS, figures, percent, picture, rounded, table
from creditrisk_assets.defs.table_schemas import lineage_of, same_columns, schema_of
from creditrisk_assets.monitoring.check_catalogue import WATCHES
from creditrisk_assets.settings import Settings, simulated_history_of
from creditrisk_assets.storage import replacing

if TYPE_CHECKING:
    from creditrisk_assets.modelling.datasets import LearningSet
    from creditrisk_assets.scoring.bundle import Bundle

HISTORY_QUARANTINE = "quarantine/history/raw_data.csv"
"""Path in the data folder."""

HISTORY_CONTRACT = dg.AssetCheckSpec(
    "history_satisfies_contract",
    asset="raw_data",
    blocking=True,
    description="Every row of the history has the contract's columns, types, ranges and codes, "
    "each customer stands once, and the target is known. Blocks: a model must not be trained on "
    "rows of unknown meaning.",
)


@dg.asset(
    group_name="history",
    kinds={"python", "parquet"},
    owners=OWNERS,
    code_version="1",
    check_specs=[HISTORY_CONTRACT],
)
def raw_data(
    settings: dg.ResourceParam[Settings],
) -> Iterator[dg.Output[pd.DataFrame] | dg.AssetCheckResult]:
    """The history: customers with their outcome, from the file that `CREDITRISK_RAW_DATA` names, or
    simulated.
    """
    from creditrisk_assets.landing.history import read_history, simulate_history
    from creditrisk_assets.registry import Registry

    Registry(
        settings
    ).prepare()  # fails before anything is written if MLflow belongs to another store
    portfolio = settings.portfolio
    if (simulated := simulated_history_of(settings.raw_data)) is not None:
        history = simulate_history(portfolio, *simulated)
    else:
        history = read_history(settings.raw_data, portfolio)
    accepted, rejected = history.rows.accepted, history.rows.rejected
    _write_quarantine(rejected, settings)
    repeated = int(accepted[[*portfolio.field_names, portfolio.target]].duplicated().sum())
    yield dg.Output(
        accepted,
        metadata={
            "customers, rows": len(accepted),
            "bads": int(accepted[portfolio.target].sum()),
            "bad rate, %": percent(accepted[portfolio.target].mean()),
            "rejected, rows": int(rejected["line"].nunique()) if len(rejected) else 0,
            "equal but for the identifier, rows": repeated,
            "source": history.source,
            "portfolio": portfolio.name,
            "time axis": "none: the data has no dates",
            "sha256": history.sha256,
            "dagster/row_count": len(accepted),
            **schema_of(accepted, portfolio, {}),
        },
        data_version=dg.DataVersion(history.sha256),
    )
    yield check_result(
        HISTORY_CONTRACT.name,
        passed=rejected.empty and len(accepted) > 0,
        summary=f"{len(rejected):,} problems, {len(accepted):,} rows "
        f"accepted{_why_rejected(history.source, rejected)}",
        observed=len(rejected),
        threshold=0,
        rows=len(accepted) + (rejected["line"].nunique() if len(rejected) else 0),
        first_problems=table(rejected[["line", "field", "rule", "message"]])
        if len(rejected)
        else "none",
    )


def _why_rejected(source: str, rejected: pd.DataFrame) -> str:
    """The first reason and the place of all of them; empty if no row was rejected."""
    if rejected.empty:
        return ""
    first = rejected.iloc[0]
    line = f", line {first['line']}" if first["line"] else ""
    return f"; {source}{line}: {first['message']}; all reasons are in {HISTORY_QUARANTINE}"


def _write_quarantine(rejected: pd.DataFrame, settings: Settings) -> None:
    """Write the history's rejected rows to the quarantine; without any, an older file is
    removed.
    """
    path = settings.data_dir / HISTORY_QUARANTINE
    if rejected.empty:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as file:
        rejected.to_csv(file, index=False)


@dg.asset(group_name="history", kinds={"onnx", "parquet"}, owners=OWNERS, code_version="1")
def features(
    raw_data: pd.DataFrame, settings: dg.ResourceParam[Settings]
) -> dg.Output[pd.DataFrame]:
    """The feature matrix of the history, computed by the traced ONNX feature graph, without the
    protected fields. A hash of the identifier holds out one customer in four for comparisons.
    """
    from creditrisk_assets.modelling.datasets import (
        HELD_OUT_COLUMN,
        feature_columns,
        with_features,
    )
    from creditrisk_assets.modelling.feature_sources import feature_sources
    from creditrisk_assets.portfolio.encoding import raw_matrix

    portfolio = settings.portfolio
    frame = with_features(raw_data, portfolio)
    sources = feature_sources(portfolio, raw_matrix(raw_data, portfolio.fields))
    columns = dict(zip(feature_columns(portfolio), portfolio.features, strict=True))
    directions = {1: "; more of it never lowers the PD", -1: "; more of it never raises the PD"}
    held_out = int(frame[HELD_OUT_COLUMN].sum())
    digest = pd.util.hash_pandas_object(frame, index=False).sum()
    return dg.Output(
        frame,
        metadata={
            "to fit on, rows": len(frame) - held_out,
            "held out, rows": held_out,
            "features": len(portfolio.features),
            "features with a direction": sum(one.monotone != 0 for one in portfolio.features),
            "fields that no feature uses": ", ".join(portfolio.protected) or "none",
            "dagster/row_count": len(frame),
            **schema_of(
                frame,
                portfolio,
                {
                    **{
                        name: f"feature of the model{directions.get(one.monotone, '')}"
                        for name, one in columns.items()
                    },
                    HELD_OUT_COLUMN: "true if the customer is held out for comparisons",
                },
            ),
            **lineage_of(
                {
                    **same_columns("raw_data", raw_data.columns),
                    **{
                        name: [("raw_data", field) for field in sources[one.name]]
                        for name, one in columns.items()
                    },
                    HELD_OUT_COLUMN: [("raw_data", portfolio.identifier)],
                }
            ),
        },
        data_version=dg.DataVersion(f"{int(digest):016x}"),
    )


@dg.asset(
    group_name="model", kinds={"scikitlearn", "onnx", "mlflow"}, owners=OWNERS, code_version="1"
)
def model(
    context: dg.AssetExecutionContext, features: pd.DataFrame, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The model of the history: trained, calibrated, converted to one ONNX decision graph and
    registered in MLflow.
    """
    from creditrisk_assets.governance.ledger import Ledger
    from creditrisk_assets.modelling.datasets import HELD_OUT_COLUMN, history_set

    if Ledger(settings.ledger).head() is None:
        _require_enough(features, features[HELD_OUT_COLUMN], settings)
    return train_and_register(
        context, settings, history_set(features, settings.portfolio), "history", {}
    )


def _require_enough(history: pd.DataFrame, held_out: pd.Series, settings: Settings) -> None:
    """Raise a failure before training if the history is too small to judge a first champion."""
    target, needed = history[settings.portfolio.target], settings.policy.gate.minimum_bads
    counts = {"bads": int(target[held_out].sum()), "goods": int((1 - target[held_out]).sum())}
    for what, count in counts.items():
        if count < needed:
            total = int(target.sum()) if what == "bads" else int((1 - target).sum())
            raise dg.Failure(
                f"the history has {total:,} {what}, of which {count:,} are held out to judge a "
                f"model by; valid: at least {needed} held out (gate.minimum_bads of the policy), "
                f"about {4 * needed:,} in all: a quarter is held out"
            )


def train_and_register(
    context: dg.AssetExecutionContext,
    settings: Settings,
    learning: "LearningSet",
    kind: str,
    metadata: dict[str, str],
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Fit a bundle, and a scorecard as its fallback, to a learning set, and register it.

    Args:
        context: context of the asset.
        settings: MLflow and the cut-off.
        learning: rows to fit on and rows to judge by.
        kind: `history` or `candidate`.
        metadata: further metadata of the asset.
    """
    from creditrisk_assets.modelling.bundling import make_bundle
    from creditrisk_assets.modelling.selection import SCORECARD
    from creditrisk_assets.modelling.training import cross_fit_candidates

    def make(directory: Path, fallback_directory: Path) -> "tuple[Bundle, Bundle | None]":
        data = (
            settings.portfolio,
            learning.fit,
            learning.held_out,
            kind,
            learning.production_days,
        )
        fits = cross_fit_candidates(settings.portfolio, learning.fit)
        bundle = make_bundle(directory, *data, fits)
        is_scorecard = bundle.manifest.training.family == SCORECARD.name
        scorecard = [one for one in fits if one.candidate is SCORECARD]
        return bundle, None if is_scorecard else make_bundle(fallback_directory, *data, scorecard)

    return make_and_register(context, settings, learning, make, metadata)


def make_and_register(
    context: dg.AssetExecutionContext,
    settings: Settings,
    learning: "LearningSet",
    make: "Callable[[Path, Path], tuple[Bundle, Bundle | None]]",
    metadata: dict[str, str],
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Make a bundle and register it: the steps that `model` and `candidate_model` share.

    Args:
        context: context of the asset.
        settings: MLflow.
        learning: rows to fit on and rows to judge by.
        make: writes a bundle into the first directory and its fallback, if any, into the second.
        metadata: further metadata of the asset.
    """
    from creditrisk_assets.governance.ledger import Ledger
    from creditrisk_assets.governance.model_card import CARD, Subject, model_documents
    from creditrisk_assets.modelling.inspection import Inspection
    from creditrisk_assets.modelling.plots import calibration_plot, roc_plot, training_plots
    from creditrisk_assets.registry import MODEL_NAME, ModelRun, Registry
    from creditrisk_assets.scoring.bundle import INSPECTION

    with (
        tempfile.TemporaryDirectory() as directory,
        tempfile.TemporaryDirectory() as fallback_directory,
    ):
        bundle, fallback = make(Path(directory), Path(fallback_directory))
        kind = bundle.manifest.training.kind
        target, scores = learning.held_out.target, bundle.score(learning.held_out.raw)
        held_out_pd = {kind: scores.default_probability}
        plots = {
            "roc": roc_plot(target, held_out_pd),
            "calibration": calibration_plot(target, held_out_pd),
        }
        all_plots = plots
        if settings.policy.reports.rows:
            inspection = Inspection.model_validate_json(bundle.document(INSPECTION))
            all_plots = plots | training_plots(
                inspection, target, scores.default_probability, scores.score
            )
        registry = Registry(settings)
        run = ModelRun(
            bundle,
            fallback,
            name=f"{kind} {context.run.run_id[:8]}",
            plots=all_plots,
            tags={"dagster_run_id": context.run.run_id, **metadata},
            example=settings.portfolio.example,
        )
        registered, new = registry.register(run)
        if not registry.has(
            registered, CARD
        ):  # missing for a new version, or if a run was killed before this step
            head = Ledger(settings.ledger).head()
            in_force = head.after.model_version if head else None
            champion = (in_force, registry.version(in_force).load().manifest) if in_force else None
            watches = [(watch.check, watch.question) for watch in WATCHES]
            subject = Subject(MODEL_NAME, registered.version, bundle, champion, watches, all_plots)
            registry.attach(registered, "", model_documents(subject, settings))
    manifest = bundle.manifest
    fallback_auc = (fallback or bundle).manifest.metrics["roc_auc"]
    facts = manifest.training.recalibration
    recalibration = facts.model_dump() if facts else {}
    return dg.MaterializeResult(
        metadata={
            "AUC on held-out rows": rounded(manifest.metrics["roc_auc"]),
            "AUC, 95 % interval": f"{manifest.metrics['roc_auc_low']:.4f} to "
            f"{manifest.metrics['roc_auc_high']:.4f}",
            "KS": rounded(manifest.metrics["ks"]),
            "mean PD, %": percent(manifest.metrics["mean_pd"]),
            "bad rate, %": percent(manifest.metrics["bad_rate"]),
            "AUC of the fallback scorecard": rounded(
                (fallback or bundle).manifest.metrics["roc_auc"]
            ),
            "cut-off, PD": rounded(manifest.cut_off),
            "judged on": learning.held_out_origin,
            "model_version": registered.version,
            "new_version": new,
            "kind": kind,
            "family": manifest.training.family,
            "training_rows": manifest.training.rows,
            "training_bads": manifest.training.bads,
            "production_days": ",".join(learning.production_days),
            **metadata,
            "roc": picture(plots["roc"]),
            "calibration": picture(plots["calibration"]),
            **registered.ref.model_dump(exclude={"fallback", "model_version"}),
            "mlflow_run_id": registered.record.run_id,
            **{f"recalibration_{name}": value for name, value in recalibration.items()},
            **figures(
                {
                    **manifest.metrics,
                    "fallback_roc_auc": fallback_auc,
                    "cut_off": manifest.cut_off,
                    "onnx_parity": manifest.parity,
                }
            ),
        },
        data_version=dg.DataVersion(bundle.sha256),
    )
