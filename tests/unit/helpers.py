"""Small things to test with: portfolios of a few columns, files, and bundles whose PDs are known beforehand."""

from collections.abc import Sequence
from pathlib import Path

import ndonnx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditrisk_assets.portfolio.contract import Feature, Field, Portfolio
from creditrisk_assets.portfolio.ingestion import ValidatedRows, validate_files
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Bundle, Calibration, InputField, Manifest, Scaling, TrainingFacts, open_session

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


def _input(name: str) -> InputField:
    return InputField(name=name, kind="decimal", minimum=-100, maximum=100, codes=None, required=True)


def bundle_of_column(column: int, width: int, shift: float = 0.0) -> Bundle:
    """A real bundle whose log-odds are one column of its input plus a shift."""
    raw = ndonnx.argument(shape=("N", width), dtype=ndonnx.float32)
    log_odds = ndonnx.astype(raw[:, column], ndonnx.float64) + shift
    probability = 1.0 / (1.0 + ndonnx.exp(-log_odds))
    graph = ndonnx.build({"raw": raw}, {"default_probability": probability, "score": -log_odds})
    manifest = Manifest(
        portfolio="handmade",
        inputs=[_input(f"column_{position}") for position in range(width)],
        features=[],
        protected=[],
        cut_off=0.5,
        scaling=Scaling(),
        calibration=Calibration(slope=1.0, intercept=shift),
        training=TrainingFacts(
            kind="history",
            rows=0,
            bads=0,
            fingerprint="",
            production_days=[],
            seed=0,
            family="handmade",
            parameters={},
            candidates={},
        ),
        metrics={},
        parity=0.0,
        libraries={},
    )
    return Bundle(f"column {column}", f"{column}{shift}", manifest, (), open_session(graph.SerializeToString()))
