"""A recalibration: a bundle that is another one with two numbers replaced, the slope and the
intercept of its calibration.

The graphs are the parent's own bytes but for these two numbers, so that the order of customers, who
is refused and why stay what they were, while PDs and points follow the outcomes.
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
    document,
    held_out_frame,
    parquet,
    write_bundle,
)
from creditrisk_assets.modelling.calibration import Update, least_update
from creditrisk_assets.modelling.decision_graph import Graphs, calibration_of, recalibrated_graph
from creditrisk_assets.modelling.metrics import ranking_and_calibration
from creditrisk_assets.modelling.training import MINIMUM_BADS, TrainingError, TrainingRows
from creditrisk_assets.scoring.bundle import (
    CLASSIFIER,
    GRAPH,
    HELD_OUT,
    INSPECTION,
    REASONS_GRAPH,
    RECALIBRATION,
    REFERENCE,
    REFERENCE_PROFILE,
    Bundle,
    Calibration,
    DecisionRule,
    RecalibrationFacts,
    Scores,
    TrainingFacts,
    deciding_files,
    open_session,
)
from creditrisk_assets.scoring.reference_profile import ReferenceProfile, reference_profile_of

FloatArray = NDArray[np.float64]

BELOW_THE_LINE = 1e-12
"""Share of the cut-off by which the new one is lower than where the line puts it, so that a
customer exactly on it stays refused however the line rounds.
"""


def recalibrated(
    directory: Path,
    parent: Bundle,
    rows: TrainingRows,
    held_out: TrainingRows,
    production_days: list[str],
    target: str,
) -> Bundle:
    """Fit a bundle's calibration again and write the bundle that follows into an empty directory.

    Args:
        directory: where the files go.
        parent: whose graphs are used.
        rows: customers that the calibration is fitted on, as the parent takes them; each counts
            once.
        held_out: customers that nothing is fitted on; they give the figures in the manifest and go
            into the bundle.
        production_days: days whose matured rows they are.
        target: name of the outcome in the file of held-out rows.

    Returns:
        The bundle, loaded back from the files and verified.

    Raises:
        TrainingError: if the rows are too few, the parent's graphs do not hold the calibration of
            its manifest under names, the new line does not rise, or the new graph gives other PDs
            than the line or other decisions than the parent.
    """
    bads = int(rows.target.sum())
    if min(bads, len(rows.target) - bads) < MINIMUM_BADS:
        raise TrainingError(
            f"{bads} bads in {len(rows.target)} rows to recalibrate on; valid: at least "
            f"{MINIMUM_BADS} bads and as many goods"
        )
    if len(np.unique(held_out.target)) < 2:
        raise TrainingError(
            f"{len(held_out.target)} held-out rows of one class; valid: at least one good and one "
            "bad"
        )
    before = parent.manifest
    update = _fitted(parent, rows)
    calibration = update.of(before.calibration)
    graphs = _graphs(parent, calibration)
    rule = DecisionRule(
        cut_off=moved_cut_off(before.cut_off, update), reference=before.rule.reference
    )
    session = open_session(graphs.decision)

    def answers(raw: NDArray[np.float32]) -> dict[str, FloatArray]:
        names = ["default_probability", "score"]
        return dict(zip(names, session.run(names, {"raw": raw}), strict=True))

    reference = pd.read_parquet(io.BytesIO(parent.document(REFERENCE)))
    reference_raw = reference[parent.input_names].to_numpy(dtype=np.float32)
    seen = np.concatenate(
        [rows.raw, held_out.raw, reference_raw, np.array([rule.reference], dtype=np.float32)]
    )
    probability = answers(rows.raw)["default_probability"]
    manifest = before.model_copy(
        update={
            "rule": rule,
            "calibration": calibration,
            "training": _facts(parent, update, rows, production_days),
            "metrics": ranking_and_calibration(
                held_out.target, answers(held_out.raw)["default_probability"]
            ),
            "parity": _proven(
                parent.score(seen),
                answers(seen)["default_probability"],
                rule,
                log_odds_of(parent, seen),
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
            REFERENCE: parquet(reference.assign(**answers(reference_raw))),
            REFERENCE_PROFILE: document(_profile(parent, update)),
            HELD_OUT: parquet(held_out_frame(held_out, parent.input_names, target)),
        },
    )


MAY_CHANGE = ("rule", "calibration", "training", "metrics", "parity", "libraries")
"""What a recalibration's manifest may say otherwise than its parent's; of the rule only the
cut-off.
"""


def differences_beyond_calibration(bundle: Bundle, parent: Bundle) -> list[str]:
    """What keeps a bundle from being another one with a new calibration: sentences, none if it is.

    Raises:
        BundleError: if the files of either are not those that were loaded.
        LookupError: if one of their graphs was built before its calibration could be replaced.
    """
    new, old = (deciding_files(one.location, one.sha256) for one in (bundle, parent))
    found = []
    for name in (GRAPH, REASONS_GRAPH):
        stated = bundle.manifest.calibration
        if calibration_of(new[name]) != stated:
            found.append(f"{name} has {calibration_of(new[name])}, the manifest states {stated}")
        if recalibrated_graph(new[name], calibration_of(old[name])) != old[name]:
            found.append(f"{name} differs from the champion's in more than slope and intercept")
    if not (bundle.manifest.calibration.slope > 0 and parent.manifest.calibration.slope > 0):
        found.append("a slope is not above 0")
    alike = {name: getattr(parent.manifest, name) for name in MAY_CHANGE}
    if bundle.manifest.model_copy(update=alike) != parent.manifest:
        found.append(
            f"the manifest differs from the champion's in more than {', '.join(MAY_CHANGE)}"
        )
    if bundle.manifest.rule.reference != parent.manifest.rule.reference:
        found.append("reasons are given against another reference profile than the champion's")
    return found


def log_odds_of(bundle: Bundle, raw: NDArray[np.float32]) -> FloatArray:
    """Calibrated log-odds that a bundle gives to n rows. They are read off the points, for a PD
    near 1 has no room for them.
    """
    scaling = bundle.manifest.scaling
    return np.asarray((scaling.offset - bundle.score(raw).score) / scaling.factor)


def _profile(parent: Bundle, update: Update) -> ReferenceProfile:
    """The parent's training rows with the points that the new line gives them."""
    scaling = parent.manifest.scaling
    offset = (1 - update.slope) * scaling.offset - scaling.factor * update.intercept
    return reference_profile_of(parent).with_score(offset, update.slope)


def _fitted(parent: Bundle, rows: TrainingRows) -> Update:
    try:
        update = least_update(log_odds_of(parent, rows.raw), rows.target)
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
        try:
            found = calibration_of(content[name])
        except LookupError as error:
            raise TrainingError(
                f"bundle {parent.sha256} cannot be recalibrated: {name}: {error}; valid: refit once"
            ) from error
        if found != parent.manifest.calibration:
            raise TrainingError(
                f"bundle {parent.sha256} cannot be recalibrated: {name} has {found}; valid: "
                f"{parent.manifest.calibration}, which its manifest states"
            )
    return Graphs(
        *(recalibrated_graph(content[name], calibration) for name in (GRAPH, REASONS_GRAPH))
    )


def moved_cut_off(cut_off: float, update: Update) -> float:
    """The cut-off at the same place in the order of customers."""
    if update.kind == "none" or not 0 < cut_off < 1:
        return cut_off
    return float(expit(update.intercept + update.slope * logit(cut_off))) * (1 - BELOW_THE_LINE)


def _proven(
    old: Scores, probability: FloatArray, rule: DecisionRule, log_odds: FloatArray, update: Update
) -> float:
    """How far the new PDs are from the line on the parent's log-odds.

    Raises:
        TrainingError: if they are too far, or a decision differs.
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
