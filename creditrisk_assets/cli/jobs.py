"""The commands `creditrisk train` and `creditrisk retrain`, which run a job in this process."""

import datetime
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress

from creditrisk_assets.cli.common import (
    JSON,
    champion_in_force,
    console,
    errors,
    fail,
    open_instance_here,
    print_json,
    settings_here,
    stop_on_signals,
)


class RetrainAction(StrEnum):
    """Kinds of challenger; a test compares them with those of triage."""

    RECALIBRATE = "recalibrate"
    REFIT = "refit"


def train(as_json: JSON = False) -> None:
    """Train a model on the history and, if it is the first or better, make it champion."""
    _run("train", {}, "model", as_json)


def retrain(
    action: Annotated[
        RetrainAction,
        typer.Option(
            help="refit: train a new model on history and matured production. recalibrate: "
            "recalibrate the champion's PDs."
        ),
    ] = RetrainAction.REFIT,
    since: Annotated[
        datetime.datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="First day of the outcomes for --action recalibrate, which requires it.",
        ),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Make a challenger now, regardless of the checks, and let the promotion gate judge it."""
    from creditrisk_assets.job_runner import retrain_tags

    if (since is None) == (action is RetrainAction.RECALIBRATE):
        raise typer.BadParameter("--since; valid: with --action recalibrate, and only then")
    champion_in_force(settings_here())  # ends the command if there is none
    tags = retrain_tags(open_instance_here(), action.value, f"{since:%Y-%m-%d}" if since else None)
    _run("retrain", tags, "candidate_model", as_json)


def _run(job: str, tags: Mapping[str, str], model_asset: str, as_json: bool) -> None:
    from creditrisk_assets.defs.store_mark import require_one_store
    from creditrisk_assets.job_runner import run_here
    from creditrisk_assets.store import StoreMismatch

    settings, instance = settings_here(), open_instance_here()
    stop_on_signals()
    try:
        require_one_store(settings, instance)
        with Progress(console=errors, transient=True) as progress:
            bar = progress.add_task(job, total=None)
            outcome = run_here(
                instance,
                settings,
                job,
                tags,
                lambda step, done, total: progress.update(
                    bar, description=step, completed=done, total=total
                ),
            )
    except StoreMismatch as error:
        fail(error)
    except KeyboardInterrupt:
        fail("stopped")
    if as_json:
        print_json(
            {
                "job": job,
                "run_id": outcome.run_id,
                "failures": outcome.failures,
                **_verdict(outcome.metadata),
            }
        )
    if outcome.failures:
        fail("; ".join(outcome.failures))
    if not as_json:
        for line in _summary(outcome.metadata, model_asset):
            console.print(escape(line), soft_wrap=True, highlight=False)


def _verdict(metadata: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    champion = metadata.get("champion", {})
    return {
        name: champion.get(name) for name in ("model_version", "bundle_sha256", "verdict", "reason")
    }


def _summary(metadata: Mapping[str, Mapping[str, Any]], model_asset: str) -> list[str]:
    """Three lines: the data, the model, the champion."""
    model, champion = metadata[model_asset], metadata["champion"]
    history = metadata.get("raw_data")
    data = (
        f"history: {history['source']}, {history['dagster/row_count']:,} rows, "
        f"{history['bads']:,} bads"
        if history
        else f"learned from {model['training_rows']:,} rows, {model['training_bads']:,} bads"
    )
    new = "" if model["new_version"] else " (the same as before)"
    return [
        data,
        f"model: version {model['model_version']}{new}, {model['family']}, held-out AUC "
        f"{model['figures']['roc_auc']:.4f}",
        f"champion: version {champion['model_version']}, {champion['verdict']}: "
        f"{champion['reason']}",
    ]
