"""Making bundles: train, build and verify the graphs, write the files."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from numpy.typing import NDArray

from creditrisk_assets.modelling.boosting import SEED
from creditrisk_assets.modelling.decision_graph import Graphs, build_graphs
from creditrisk_assets.modelling.inspection import inspect
from creditrisk_assets.modelling.metrics import ranking_and_calibration
from creditrisk_assets.modelling.reasons import reference_profile
from creditrisk_assets.modelling.segment_reference import segment_profile
from creditrisk_assets.modelling.selection import CrossFit
from creditrisk_assets.modelling.training import (
    TrainingError,
    TrainingRows,
    cross_fit_candidates,
    fit_best,
    predict,
)
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import (
    CLASSIFIER,
    GOLDEN,
    GRAPH,
    HELD_OUT,
    INSPECTION,
    MANIFEST,
    REASONS_GRAPH,
    REFERENCE,
    REFERENCE_PROFILE,
    SEGMENT_PROFILE,
    Bundle,
    DecisionRule,
    GoldenRequest,
    InputField,
    Manifest,
    ReasonText,
    Scaling,
    TrainingFacts,
    load_bundle,
    open_session,
)
from creditrisk_assets.scoring.reference_profile import ReferenceProfile, profile_of_rows

FloatArray = NDArray[np.float64]

PARITY_TOLERANCE = 1e-5
"""Largest difference in PD between the graph and the model in Python: float32 sums over hundreds of
trees give about 4e-7.
"""

GOLDEN_REQUESTS = 32
REFERENCE_ROWS = 10_000
"""Training rows stored unchanged: for the plots, and for the reference customer of the reasons at
another cut-off.
"""


def input_fields(portfolio: Portfolio) -> list[InputField]:
    """Fields of a portfolio for a bundle's manifest, in the order of the columns of `raw`."""
    return [
        InputField(
            name=field.name,
            kind=field.kind,
            minimum=field.minimum,
            maximum=field.maximum,
            codes=list(field.codes) if field.codes else None,
            required=field.required,
        )
        for field in portfolio.fields
    ]


def make_bundle(
    directory: Path,
    portfolio: Portfolio,
    rows: TrainingRows,
    held_out: TrainingRows,
    kind: str,
    production_days: list[str],
    fits: Sequence[CrossFit] | None = None,
) -> Bundle:
    """Train a model and write its bundle into an empty directory.

    Args:
        directory: for the files.
        portfolio: contract and features.
        rows: training rows.
        held_out: rows used for no choice; they give the figures in the manifest and are stored in
            the bundle, for the promotion gate to evaluate both sides.
        kind: `history` or `candidate`.
        production_days: days whose matured rows are among `rows`.
        fits: cross-fitted candidates; by default all candidates are cross-fitted here.

    Returns:
        The bundle, loaded from the files and verified.

    Raises:
        TrainingError: if the rows cannot carry a model, or the graph does not give scikit-learn's
            answers.
    """
    held_out.require_both_classes()
    fitted = fit_best(
        portfolio, rows, cross_fit_candidates(portfolio, rows) if fits is None else fits
    )
    scaling = Scaling()
    graphs = build_graphs(portfolio, fitted.model, fitted.calibration, scaling)
    session = open_session(graphs.decision)
    probability, score = session.run(["default_probability", "score"], {"raw": rows.raw})
    parity = float(np.abs(probability - predict(fitted, rows.features)).max())
    if not parity <= PARITY_TOLERANCE:  # also refuses NaN
        raise TrainingError(
            f"graph and scikit-learn differ by {parity:.2e} in PD; valid: at most "
            f"{PARITY_TOLERANCE:.0e}"
        )
    held_out_probability = session.run(["default_probability"], {"raw": held_out.raw})[0]
    manifest = Manifest(
        portfolio=portfolio.name,
        inputs=input_fields(portfolio),
        features=portfolio.feature_names,
        protected=list(portfolio.protected),
        reasons=[
            ReasonText(code=reason.code, text=reason.text, fields=list(reason.fields))
            for reason in portfolio.reasons
        ],
        rule=DecisionRule(
            cut_off=fitted.cut_off,
            reference=reference_profile(
                rows.raw,
                probability,
                fitted.cut_off,
                lambda raw: session.run(["default_probability"], {"raw": raw})[0],
            ),
        ),
        scaling=scaling,
        calibration=fitted.calibration,
        training=TrainingFacts(
            kind=kind,
            rows=len(rows.target),
            bads=int(rows.target.sum()),
            fingerprint=rows.fingerprint(),
            production_days=production_days,
            seed=SEED,
            family=fitted.selection.chosen.candidate.name,
            parameters=dict(fitted.model.parameters),
            candidates=fitted.selection.figures,
        ),
        metrics=ranking_and_calibration(held_out.target, held_out_probability),
        parity=parity,
        libraries={
            name: version(name)
            for name in ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx")
        },
    )
    profile = profile_of_rows(rows.raw, score, rows.weight, manifest.inputs)
    return write_bundle(
        directory,
        graphs,
        manifest,
        (rows.raw, probability),
        {
            CLASSIFIER: skops.io.dumps(fitted.model.skops_object()),
            INSPECTION: inspect(portfolio, fitted, held_out, SEED)
            .model_dump_json(indent=2)
            .encode(),
            REFERENCE: parquet_bytes(_reference(portfolio, rows, probability, score)),
            REFERENCE_PROFILE: profile_bytes(profile),
            **_segment_profile(
                portfolio,
                profile,
                rows,
                (probability, score),
                held_out,
                held_out_probability,
                fitted.cut_off,
            ),
            HELD_OUT: parquet_bytes(
                held_out_frame(held_out, portfolio.field_names, portfolio.target)
            ),
        },
    )


def _segment_profile(portfolio: Portfolio, *rows: Any) -> dict[str, bytes]:
    """The segment profile as a document; none for a portfolio without segments."""
    if not portfolio.segments:
        return {}
    return {SEGMENT_PROFILE: segment_profile(portfolio, *rows).model_dump_json().encode()}


def write_bundle(
    directory: Path,
    graphs: Graphs,
    manifest: Manifest,
    golden_rows: tuple[NDArray[np.float32], FloatArray],
    documents: Mapping[str, bytes],
) -> Bundle:
    """Write every file of a bundle into an empty directory.

    Args:
        directory: for the files.
        graphs: the deciding graphs.
        manifest: the bundle's manifest.
        golden_rows: rows to draw the golden requests from, and their PDs by the graph.
        documents: contents of the documenting files, by name.

    Returns:
        The bundle, loaded from the files and verified.
    """
    (directory / MANIFEST).parent.mkdir(parents=True, exist_ok=True)
    (directory / GRAPH).write_bytes(graphs.decision)
    (directory / REASONS_GRAPH).write_bytes(graphs.reasons)
    (directory / MANIFEST).write_text(manifest.model_dump_json(indent=2))
    unverified = Bundle(
        str(directory),
        "",
        manifest,
        (),
        open_session(graphs.decision),
        open_session(graphs.reasons),
    )
    golden = _golden_requests(unverified, *golden_rows)
    (directory / GOLDEN).write_text(
        json.dumps([request.model_dump() for request in golden], indent=2)
    )
    for name, content in documents.items():
        (directory / name).write_bytes(content)
    return load_bundle(str(directory))


def profile_bytes(profile: ReferenceProfile) -> bytes:
    """Serialise a profile for its file."""
    return profile.model_dump_json(indent=1).encode()


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    """Serialise a frame as a Parquet file, without its index."""
    return bytes(frame.to_parquet(index=False))


def held_out_frame(rows: TrainingRows, fields: Sequence[str], target: str) -> pd.DataFrame:
    """Held-out rows for storage in a bundle: its inputs, float32, and the outcome."""
    return pd.DataFrame(rows.raw, columns=list(fields)).assign(**{target: rows.target})


def _golden_requests(
    bundle: Bundle, raw: NDArray[np.float32], probability: FloatArray
) -> list[GoldenRequest]:
    """Golden requests of rows spread evenly over the ranks of PDs, the extremes included."""
    order = np.argsort(probability, kind="stable")
    chosen = raw[order[np.linspace(0, len(order) - 1, GOLDEN_REQUESTS).round().astype(int)]]
    scores, decisions = bundle.score(chosen), bundle.decide(chosen, bundle.manifest.rule)
    return [
        GoldenRequest(
            raw=[None if np.isnan(value) else float(value) for value in row],
            default_probability=pd_value,
            score=score,
            prediction=prediction,
            reasons=reasons,
        )
        for row, pd_value, score, prediction, reasons in zip(
            chosen,
            scores.default_probability.tolist(),
            scores.score.tolist(),
            decisions.prediction.tolist(),
            bundle.reason_codes(decisions),
            strict=True,
        )
    ]


def _reference(
    portfolio: Portfolio, rows: TrainingRows, probability: FloatArray, score: FloatArray
) -> pd.DataFrame:
    """Sample of the training rows, with probabilities in proportion to their weights."""
    rng = np.random.default_rng(SEED)
    size = min(REFERENCE_ROWS, len(rows.target))
    chance = rows.weight / rows.weight.sum()
    chosen = np.sort(rng.choice(len(rows.target), size=size, replace=False, p=chance))
    frame = pd.DataFrame(rows.raw[chosen], columns=portfolio.field_names)
    frame["default_probability"] = probability[chosen]
    frame["score"] = score[chosen]
    return frame
