"""The answer of `/metrics` as numbers, and a champion with decisions to count."""

from types import SimpleNamespace
from typing import cast

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from creditrisk_assets.scoring.bundle import Bundle, ChampionRecord, DecisionRule, Decisions
from creditrisk_assets.scoring.runtime import Runtime
from serving.inference.champion_holder import LoadedChampion

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: bytes) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def champion(version: str, *, degraded: bool = False) -> LoadedChampion:
    record = ChampionRecord(
        mlflow_uri="models:/m/1",
        artifact_uri="bundles/b",
        model_version=version,
        bundle_sha256=version * 64,
        verdict="first",
        reason="it is the first",
        rule=DecisionRule(cut_off=0.5, reference=()),
    )
    return LoadedChampion(record, Runtime(cast(Bundle, None), record.rule), degraded)


def decisions(predictions: list[int], probabilities: list[float]) -> Decisions:
    return cast(
        Decisions,
        SimpleNamespace(
            prediction=np.array(predictions), default_probability=np.array(probabilities)
        ),
    )
