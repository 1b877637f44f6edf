"""Small things to test with: portfolios of a few columns, files, and bundles whose PDs are known beforehand."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ndonnx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditrisk_assets.landing.ingestion import ValidatedRows, validate_files
from creditrisk_assets.modelling.bundling import input_fields
from creditrisk_assets.modelling.decision_graph import build_graphs
from creditrisk_assets.portfolio.contract import Feature, Field, Portfolio, Reason
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import (
    GOLDEN,
    GRAPH,
    HELD_OUT,
    MANIFEST,
    REASONS_GRAPH,
    Bundle,
    Calibration,
    ChampionRecord,
    DecisionRule,
    GoldenRequest,
    Manifest,
    ReasonText,
    Scaling,
    TrainingFacts,
    load_bundle,
    open_session,
)
from creditrisk_assets.simulation.card_customers import simulate

FloatMatrix = NDArray[np.float32]

TINY = Portfolio(
    name="tiny",
    title="Two fields",
    identifier="id",
    target="bad",
    target_description="went bad",
    fields=(
        Field("amount", "how much", "NT$", 0, 1_000),
        Field("code", "which", codes={1: "one", 2: "two"}),
    ),
    protected=(),
    features=(Feature("amount_again", +1), Feature("code_again")),
    compute_features=lambda raw: raw,
    performance_window_days=31,
    reasons=(
        Reason("R01", "the amount is high", ("amount",)),
        Reason("R02", "the code is two", ("code",)),
    ),
)
"""Two fields that are their own features: cheap to validate and to train on."""


def plain_portfolio(width: int) -> Portfolio:
    """Fields that are their own features, without any constraint."""
    return Portfolio(
        name="plain",
        title="Plain fields",
        identifier="id",
        target="bad",
        target_description="went bad",
        fields=tuple(Field(f"field_{position}", "any", "", 0, 1_000) for position in range(width)),
        protected=(),
        features=tuple(Feature(f"feature_{position}") for position in range(width)),
        compute_features=lambda raw: raw,
        performance_window_days=31,
        reasons=(Reason("R01", "any", tuple(f"field_{position}" for position in range(width))),),
    )


def raw_matrix(customers: pd.DataFrame) -> FloatMatrix:
    """UCI customers as the decision graph takes them."""
    return customers[PORTFOLIO.field_names].to_numpy(dtype=np.float32)


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    """A text file of these lines."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


HEADER = "id,amount,code"


def validated(*paths: Path) -> ValidatedRows:
    """Files of the tiny portfolio."""
    return validate_files(paths, TINY, TINY.fields)


def one_file(folder: Path, *rows: str, name: str = "in.csv") -> ValidatedRows:
    """One CSV file of the tiny portfolio."""
    return validated(write_lines(folder / name, [HEADER, *rows]))


def only_rejection(rows: ValidatedRows) -> dict[str, object]:
    """The one thing that is wrong."""
    (entry,) = rows.rejected.to_dict("records")
    return {str(name): value for name, value in entry.items()}


def logistic(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-log_odds)))


HANDMADE = Portfolio(
    name="handmade",
    title="Three views of the log-odds",
    identifier="id",
    target="bad",
    target_description="went bad",
    fields=(
        *(
            Field(f"column_{place}", "a view of the log-odds", "", -100, 100, decimal=True)
            for place in range(3)
        ),
        Field("group", "one of two groups", codes={1: "left", 2: "right"}),
    ),
    protected=("group",),
    features=tuple(Feature(f"column_{place}") for place in range(3)),
    compute_features=lambda raw: raw[:, :3],
    performance_window_days=31,
    reasons=(Reason("R01", "any", tuple(f"column_{place}" for place in range(3))),),
)
"""Customers whose true log-odds are the first column, and whose bundles need no training."""


def held_out(rows: int = 4_000, seed: int = 1) -> pd.DataFrame:
    """Customers with the true log-odds of their outcome, two noisy views of them, and a group by a coin."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1.3, 1.2, rows)
    columns = {
        "column_0": truth,
        "column_1": truth + rng.normal(0, 0.7, rows),
        "column_2": truth + rng.normal(0, 1.5, rows),
    }
    target = (rng.random(rows) < logistic(truth)).astype(np.int64)
    return pd.DataFrame({**columns, "group": rng.integers(1, 3, rows), "bad": target}).astype(
        dict.fromkeys(columns, "float32")
    )


@dataclass(frozen=True)
class OneColumn:
    """A model whose log-odds are one feature."""

    column: int

    def in_graph(self, features: ndonnx.Array) -> ndonnx.Array:
        return ndonnx.astype(features[:, self.column], ndonnx.float64)


@dataclass(frozen=True)
class WrittenBundle:
    """A real bundle in a folder, known by a version and a hash as the registry knows it."""

    version: str
    location: Path
    bundle_sha256: str

    def load(self) -> Bundle:
        return load_bundle(str(self.location), self.bundle_sha256)


def written_bundle(
    directory: Path,
    column: int,
    held_out: pd.DataFrame,
    *,
    version: str = "1",
    shift: float = 0.0,
    slope: float = 1.0,
    cut_off: float = 0.3,
    kind: str = "history",
    production_days: Sequence[str] = (),
    parity: float = 0.0,
    portfolio: Portfolio = HANDMADE,
) -> WrittenBundle:
    """Write a bundle whose log-odds are one column of a portfolio's features, by default a handmade customer's, on a line."""
    calibration = Calibration(slope=slope, intercept=shift)
    graphs = build_graphs(portfolio, OneColumn(column), calibration, Scaling())
    example = [float(value) for value in portfolio.example.values()] or [1.0] * len(
        portfolio.fields
    )
    manifest = Manifest(
        portfolio=portfolio.name,
        inputs=[field.model_copy(update={"required": True}) for field in input_fields(portfolio)],
        features=portfolio.feature_names,
        protected=list(portfolio.protected),
        reasons=[
            ReasonText(code=one.code, text=one.text, fields=list(one.fields))
            for one in portfolio.reasons
        ],
        rule=DecisionRule(
            cut_off=cut_off,
            reference=example if portfolio.example else [0.0] * len(portfolio.fields),
        ),
        scaling=Scaling(),
        calibration=calibration,
        training=TrainingFacts(
            kind=kind,
            rows=0,
            bads=0,
            fingerprint="",
            production_days=list(production_days),
            seed=0,
            family="handmade",
            parameters={},
            candidates={},
        ),
        metrics={},
        parity=parity,
        libraries={},
    )
    unproven = Bundle(
        str(directory),
        "",
        manifest,
        (),
        open_session(graphs.decision),
        open_session(graphs.reasons),
    )
    asked = np.array([example], dtype=np.float32)
    answer = unproven.decide(asked, manifest.rule)
    golden = GoldenRequest(
        raw=asked[0].tolist(),
        default_probability=float(answer.default_probability[0]),
        score=float(answer.score[0]),
        prediction=int(answer.prediction[0]),
        reasons=unproven.reason_codes(answer)[0],
    )
    (directory / MANIFEST).parent.mkdir(parents=True)
    (directory / GRAPH).write_bytes(graphs.decision)
    (directory / REASONS_GRAPH).write_bytes(graphs.reasons)
    (directory / MANIFEST).write_text(manifest.model_dump_json())
    (directory / GOLDEN).write_text(json.dumps([golden.model_dump()]))
    held_out.to_parquet(directory / HELD_OUT, index=False)
    return WrittenBundle(version, directory, load_bundle(str(directory)).sha256)


def champion_of(bundle: Bundle, version: str, rule: DecisionRule | None = None) -> ChampionRecord:
    """A bundle as the first champion, by its own rule or another."""
    return ChampionRecord(
        mlflow_uri=f"models:/credit_default/{version}",
        artifact_uri=bundle.location,
        model_version=version,
        bundle_sha256=bundle.sha256,
        verdict="first",
        reason="no champion before",
        rule=rule or bundle.manifest.rule,
    )


def handmade_champion(
    folder: Path, version: str, feature: str, shift: float
) -> tuple[ChampionRecord, Bundle]:
    """A champion whose log-odds are a feature plus a shift, and its bundle."""
    column = PORTFOLIO.feature_names.index(feature)
    bundle = written_bundle(
        folder / version, column, simulate(10, 1), version=version, shift=shift, portfolio=PORTFOLIO
    ).load()
    return champion_of(bundle, version), bundle
