"""Recalibration: a bundle made from another by replacing the slope and the intercept of its
calibration.

The graphs are the parent's bytes except for these two numbers, so the order of customers, the
decisions and their reasons stay, while PDs and points follow the outcomes.
"""

import io
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from creditrisk_assets.modelling.bundling import (
    PARITY_TOLERANCE,
    held_out_frame,
    parquet_bytes,
    profile_bytes,
    write_bundle,
)
from creditrisk_assets.modelling.calibration import Update, least_update
from creditrisk_assets.modelling.decision_graph import Graphs, calibration_of, recalibrate_graph
from creditrisk_assets.modelling.metrics import ranking_and_calibration
from creditrisk_assets.modelling.training import TrainingError, TrainingRows
from creditrisk_assets.scoring.bundle import (
    CLASSIFIER,
    GRAPH,
    HELD_OUT,
    INSPECTION,
    REASONS_GRAPH,
    RECALIBRATION,
    REFERENCE,
    REFERENCE_PROFILE,
    SEGMENT_PROFILE,
    Bundle,
    Calibration,
    DecisionRule,
    RecalibrationFacts,
    Scores,
    TrainingFacts,
    deciding_files,
    open_session,
)
from creditrisk_assets.scoring.reference_profile import reference_profile_of
from creditrisk_assets.scoring.segment_profile import segment_profile_of

FloatArray = NDArray[np.float64]

CUT_OFF_MARGIN = 1e-12
"""Relative margin by which the new cut-off is lowered, so that a customer exactly at the cut-off
stays refused however the line rounds.
"""


def recalibrate(
    directory: Path,
    parent: Bundle,
    rows: TrainingRows,
    held_out: TrainingRows,
    production_days: list[str],
    target: str,
) -> Bundle:
    """Refit a bundle's calibration and write the new bundle into an empty directory.

    Args:
        directory: for the files.
        parent: the bundle to recalibrate.
        rows: rows to fit on, encoded for the parent; each counts once.
        held_out: rows used for no fit; they give the figures in the manifest and are stored in the
            bundle.
        production_days: days of the matured rows.
        target: name of the outcome in the file of held-out rows.

    Returns:
        The bundle, loaded from the files and verified.

    Raises:
        TrainingError: if there are too few rows, the parent's graphs lack named initializers with
            the calibration of its manifest, the new slope is not positive, or the new graph gives
            PDs other than the line's or decisions other than the parent's.
    """
    rows.require_enough("rows to recalibrate on")
    held_out.require_both_classes()
    before, scaling = parent.manifest, parent.manifest.scaling
    update = _fit_update(parent, rows)
    calibration = update.apply(before.calibration)
    graphs = _graphs(parent, calibration)
    rule = DecisionRule(
        cut_off=recalibrated_cut_off(before.cut_off, update), reference=before.rule.reference
    )
    session = open_session(graphs.decision)

    def answers(raw: NDArray[np.float32]) -> dict[str, FloatArray]:
        names = ["default_probability", "score"]
        return dict(zip(names, session.run(names, {"raw": raw}), strict=True))

    reference = pd.read_parquet(io.BytesIO(parent.document(REFERENCE)))
    reference_raw = reference[parent.input_names].to_numpy(dtype=np.float32)
    check_rows = np.concatenate(
        [rows.raw, held_out.raw, reference_raw, np.array([rule.reference], dtype=np.float32)]
    )
    probability = answers(rows.raw)["default_probability"]
    offset = (1 - update.slope) * scaling.offset - scaling.factor * update.intercept
    profile = reference_profile_of(parent).with_score(offset, update.slope)
    manifest = before.model_copy(
        update={
            "rule": rule,
            "calibration": calibration,
            "training": _facts(parent, update, rows, production_days),
            "metrics": ranking_and_calibration(
                held_out.target, answers(held_out.raw)["default_probability"]
            ),
            "parity": _verify_parity(
                parent.score(check_rows),
                answers(check_rows)["default_probability"],
                rule,
                calibrated_log_odds(parent, check_rows),
                update,
            ),
            "libraries": before.libraries
            | {name: version(name) for name in ("numpy", "onnx", "onnxruntime")},
        }
    )
    return write_bundle(
        directory,
        graphs,
        manifest,
        (rows.raw, probability),
        {
            CLASSIFIER: parent.document(CLASSIFIER),
            INSPECTION: parent.document(INSPECTION),
            REFERENCE: parquet_bytes(reference.assign(**answers(reference_raw))),
            REFERENCE_PROFILE: profile_bytes(profile),
            **_segment_profile(parent, update),
            HELD_OUT: parquet_bytes(held_out_frame(held_out, parent.input_names, target)),
        },
    )


def _segment_profile(parent: Bundle, update: Update) -> dict[str, bytes]:
    """The parent's segment profile with the new PDs, as a document; none if it has none."""
    segments = segment_profile_of(parent)
    if segments is None:
        return {}
    edges = [recalibrated_cut_off(edge, update) for edge in segments.pd_edges]
    return {SEGMENT_PROFILE: segments.recalibrated(edges).model_dump_json().encode()}


MUTABLE_FIELDS = ("rule", "calibration", "training", "metrics", "parity", "libraries")
"""Manifest fields that a recalibration may change; of the rule only the cut-off."""


def differences_beyond_calibration(bundle: Bundle, parent: Bundle) -> list[str]:
    """Compare a recalibration with its parent; returns a sentence for each difference other than
    the calibration.

    Raises:
        BundleError: if the files of either bundle have changed since they were loaded.
    """
    new, old = (deciding_files(side.location, side.sha256) for side in (bundle, parent))
    differences = []
    for name in (GRAPH, REASONS_GRAPH):
        stated = bundle.manifest.calibration
        if calibration_of(new[name]) != stated:
            differences.append(
                f"{name} has {calibration_of(new[name])}, the manifest states {stated}"
            )
        if recalibrate_graph(new[name], calibration_of(old[name])) != old[name]:
            differences.append(
                f"{name} differs from the champion's in more than slope and intercept"
            )
    if not (bundle.manifest.calibration.slope > 0 and parent.manifest.calibration.slope > 0):
        differences.append("a slope is not above 0")
    alike = {name: getattr(parent.manifest, name) for name in MUTABLE_FIELDS}
    if bundle.manifest.model_copy(update=alike) != parent.manifest:
        differences.append(
            f"the manifest differs from the champion's in more than {', '.join(MUTABLE_FIELDS)}"
        )
    if bundle.manifest.rule.reference != parent.manifest.rule.reference:
        differences.append(
            "reasons are given against another reference profile than the champion's"
        )
    return differences


def calibrated_log_odds(bundle: Bundle, raw: NDArray[np.float32]) -> FloatArray:
    """Calibrated log-odds of n rows by a bundle, computed from the points because PDs near 1 lack
    the precision.
    """
    scaling = bundle.manifest.scaling
    return np.asarray((scaling.offset - bundle.score(raw).score) / scaling.factor)


def _fit_update(parent: Bundle, rows: TrainingRows) -> Update:
    try:
        update = least_update(calibrated_log_odds(parent, rows.raw), rows.target)
    except ValueError as error:
        raise TrainingError(f"bundle {parent.sha256} cannot be recalibrated: {error}") from error
    if not (np.isfinite([update.slope, update.intercept]).all() and update.slope > 0):
        raise TrainingError(
            f"recalibrating bundle {parent.sha256} gives slope {update.slope:.3f} and intercept "
            f"{update.intercept:.3f}; valid: a slope above 0. Those with the higher PD do not "
            "default more often, and no line mends that: refit"
        )
    return update


def _graphs(parent: Bundle, calibration: Calibration) -> Graphs:
    content = deciding_files(parent.location, parent.sha256)
    for name in (GRAPH, REASONS_GRAPH):
        found = calibration_of(content[name])
        if found != parent.manifest.calibration:
            raise TrainingError(
                f"bundle {parent.sha256} cannot be recalibrated: {name} has {found}; valid: "
                f"{parent.manifest.calibration}, which its manifest states"
            )
    return Graphs(
        *(recalibrate_graph(content[name], calibration) for name in (GRAPH, REASONS_GRAPH))
    )


def recalibrated_cut_off(cut_off: float, update: Update) -> float:
    """Cut-off at the same place in the order of customers."""
    if update.kind == "none" or not 0 < cut_off < 1:
        return cut_off
    return float(expit(update.intercept + update.slope * logit(cut_off))) * (1 - CUT_OFF_MARGIN)


def _verify_parity(
    old: Scores, probability: FloatArray, rule: DecisionRule, log_odds: FloatArray, update: Update
) -> float:
    """Check the new PDs and decisions; returns the largest distance of the PDs from the line.

    Raises:
        TrainingError: if the distance is too large, or a decision differs.
    """
    parity = float(np.abs(probability - expit(update.intercept + update.slope * log_odds)).max())
    if not parity <= PARITY_TOLERANCE:
        raise TrainingError(
            f"graph and line differ by {parity:.2e} in PD; valid: at most {PARITY_TOLERANCE:.0e}"
        )
    different = int(((probability >= rule.cut_off) != (old.prediction == 1)).sum())
    if different:
        raise TrainingError(
            f"{different} of {len(probability)} customers are decided otherwise than before; "
            "valid: none"
        )
    return parity


def _facts(
    parent: Bundle, update: Update, rows: TrainingRows, production_days: list[str]
) -> TrainingFacts:
    changed = {
        "kind": RECALIBRATION,
        "rows": len(rows.target),
        "bads": int(rows.target.sum()),
        "fingerprint": rows.fingerprint(),
        "production_days": production_days,
        "recalibration": RecalibrationFacts(
            parent_sha256=parent.sha256,
            update=update.kind,
            intercept=update.intercept,
            slope=update.slope,
            change_p=update.change_p,
            slope_p=update.slope_p,
        ),
    }
    return parent.manifest.training.model_copy(update=changed)
