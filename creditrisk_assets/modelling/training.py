"""From rows to a bundle: fit, calibrate, choose the cut-off, build the graph, prove it, write the files.

Everything is chosen inside the training rows; the held-out rows only give the figures.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import skops.io
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from creditrisk_assets.modelling.decision_graph import build_decision_graph
from creditrisk_assets.modelling.metrics import kolmogorov_smirnov, ranking_and_calibration
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import (
    CLASSIFIER,
    GOLDEN,
    GRAPH,
    HELD_OUT,
    MANIFEST,
    REFERENCE,
    Bundle,
    Calibration,
    GoldenRequest,
    InputField,
    Manifest,
    Scaling,
    TrainingFacts,
    load_bundle,
    open_session,
)

FloatArray = NDArray[np.float64]

SEED = 20051001
"""The month that the UCI outcomes are of; any fixed number would do."""

PARAMETERS: dict[str, float | int] = {
    "learning_rate": 0.03,
    "max_iter": 300,
    "max_leaf_nodes": 12,
    "min_samples_leaf": 80,
    "l2_regularization": 10.0,
    "max_features": 0.2,
}
"""Chosen on 3x3 folds of the UCI data among three settings; many shallow, strongly shrunk trees on correlated features."""

CALIBRATION_FOLDS = 3
PARITY_TOLERANCE = 1e-5
"""Largest difference in PD between the graph and scikit-learn: float32 sums over 300 trees give about 4e-7."""

GOLDEN_REQUESTS = 32
REFERENCE_ROWS = 10_000
"""Rows kept for monitoring: at this size the reference adds 1/10,000 to the variance factor of PSI, a day of 500 adds 1/500."""

MINIMUM_BADS = 50
"""Below this many bads (or goods), a third of them says nothing of a PD."""


PRODUCTION_WEIGHT_LIMIT = 5
"""Matured production rows together weigh as much as the history, but no single row counts more than this many times."""


class TrainingError(RuntimeError):
    """Training cannot give a model that may be served; the message says why."""


@dataclass(frozen=True)
class TrainingRows:
    """Rows to fit on or to judge by.

    Attributes:
        raw: n x fields, float32, contract order.
        features: n x features, float32, as the decision graph computes them from `raw`.
        target: n, 1 = bad.
        weight: n, how many times each row counts.
    """

    raw: NDArray[np.float32]
    features: NDArray[np.float32]
    target: NDArray[np.int64]
    weight: NDArray[np.int64]

    def fingerprint(self) -> str:
        """SHA-256 over the rows, their outcomes and weights."""
        digest = hashlib.sha256()
        for array in (self.raw, self.target, self.weight):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Fit:
    """A fitted classifier with its calibration and the PDs that cross-fitting gave to its own training rows."""

    classifier: HistGradientBoostingClassifier
    calibration: Calibration
    cut_off: float


def fit(portfolio: Portfolio, rows: TrainingRows) -> Fit:
    """Fit the classifier; calibration and cut-off come from cross-fitted scores of the training rows.

    The cut-off is the PD at which KS is reached, the usual place where no cost of errors has been given.

    Raises:
        TrainingError: if there are too few bads or goods, or the scores do not separate them.
    """
    bads = int(rows.target.sum())
    if min(bads, len(rows.target) - bads) < MINIMUM_BADS:
        raise TrainingError(
            f"{bads} bads in {len(rows.target)} training rows; valid: at least {MINIMUM_BADS} bads and as many goods"
        )
    matrix = rows.features
    raw_scores = np.empty(len(rows.target), dtype=np.float64)
    folds = StratifiedKFold(CALIBRATION_FOLDS, shuffle=True, random_state=SEED)
    for inside, outside in folds.split(matrix, rows.target):
        fold = _fitted_classifier(portfolio, matrix[inside], rows.target[inside], rows.weight[inside])
        raw_scores[outside] = _raw_log_odds(fold, matrix[outside])
    platt = LogisticRegression(C=np.inf).fit(raw_scores[:, None], rows.target, sample_weight=rows.weight)
    calibration = Calibration(slope=float(platt.coef_[0, 0]), intercept=float(platt.intercept_[0]))
    separation, cut_off = kolmogorov_smirnov(rows.target, calibrated(calibration, raw_scores))
    if calibration.slope <= 0 or not np.isfinite(cut_off):
        raise TrainingError(
            f"on rows that they were not fitted on the scores do not separate bads from goods (KS {separation:.3f}, calibration "
            f"slope {calibration.slope:.3f}); valid: a slope above 0, which the features of {portfolio.name} must carry"
        )
    classifier = _fitted_classifier(portfolio, matrix, rows.target, rows.weight)
    return Fit(classifier, calibration, cut_off)


def predict(fitted: Fit, features: NDArray[np.float32]) -> FloatArray:
    """PD by scikit-learn itself, for the parity check and for evaluation."""
    return calibrated(fitted.calibration, _raw_log_odds(fitted.classifier, features))


def calibrated(calibration: Calibration, raw_log_odds: FloatArray) -> FloatArray:
    """PD from the classifier's raw log-odds."""
    return np.asarray(1 / (1 + np.exp(-(calibration.intercept + calibration.slope * raw_log_odds))))


def make_bundle(
    directory: Path,
    portfolio: Portfolio,
    rows: TrainingRows,
    held_out: TrainingRows,
    kind: str,
    production_days: list[str],
    cut_off: float | None = None,
) -> Bundle:
    """Train and write a bundle's files into an empty directory.

    Args:
        directory: where the files go.
        portfolio: whose contract and features are used.
        rows: what is fitted on.
        held_out: rows that nothing is chosen on; they give the figures in the manifest and go into the bundle, for the
            promotion gate to judge both sides by.
        kind: `history` or `candidate`.
        production_days: days whose matured rows are among `rows`.
        cut_off: PD from which a customer is predicted bad, where policy gives one.

    Returns:
        The bundle, loaded back from the files and verified.

    Raises:
        TrainingError: if the rows cannot carry a model, or the graph does not give scikit-learn's answers.
    """
    if len(np.unique(held_out.target)) < 2:
        raise TrainingError(f"{len(held_out.target)} held-out rows of one class; valid: at least one good and one bad")
    fitted = fit(portfolio, rows)
    scaling = Scaling()
    graph = build_decision_graph(portfolio, fitted.classifier, fitted.calibration, scaling)
    session = open_session(graph)
    probability, score = session.run(["default_probability", "score"], {"raw": rows.raw})
    parity = float(np.abs(probability - predict(fitted, rows.features)).max())
    if not parity <= PARITY_TOLERANCE:  # NaN is no parity either
        raise TrainingError(f"graph and scikit-learn differ by {parity:.2e} in PD; valid: at most {PARITY_TOLERANCE:.0e}")
    held_out_probability = session.run(["default_probability"], {"raw": held_out.raw})[0]
    manifest = Manifest(
        portfolio=portfolio.name,
        inputs=[
            InputField(
                name=field.name,
                kind=field.kind,
                minimum=field.minimum,
                maximum=field.maximum,
                codes=list(field.codes) if field.codes else None,
                required=field.required,
            )
            for field in portfolio.fields
        ],
        features=portfolio.feature_names,
        protected=list(portfolio.protected),
        cut_off=fitted.cut_off if cut_off is None else cut_off,
        scaling=scaling,
        calibration=fitted.calibration,
        training=TrainingFacts(
            kind=kind,
            rows=len(rows.target),
            bads=int(rows.target.sum()),
            fingerprint=rows.fingerprint(),
            production_days=production_days,
            seed=SEED,
            parameters=PARAMETERS,
        ),
        metrics=ranking_and_calibration(held_out.target, held_out_probability),
        parity=parity,
        libraries={name: version(name) for name in ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx")},
    )
    golden = _golden_requests(rows.raw, probability, score)
    (directory / MANIFEST).parent.mkdir(parents=True, exist_ok=True)
    (directory / GRAPH).write_bytes(graph)
    (directory / MANIFEST).write_text(manifest.model_dump_json(indent=2))
    (directory / GOLDEN).write_text(json.dumps([request.model_dump() for request in golden], indent=2))
    (directory / CLASSIFIER).write_bytes(skops.io.dumps(fitted.classifier))
    _reference(portfolio, rows, probability, score).to_parquet(directory / REFERENCE, index=False)
    evidence = pd.DataFrame(held_out.raw, columns=portfolio.field_names)
    evidence[portfolio.target] = held_out.target
    evidence.to_parquet(directory / HELD_OUT, index=False)
    return load_bundle(str(directory))


def _one_thread() -> threadpool_limits:
    """OpenMP threads that wait for each other on busy cores cost up to fifty times what they bring."""
    return threadpool_limits(limits=1, user_api="openmp")


def _raw_log_odds(classifier: HistGradientBoostingClassifier, features: NDArray[np.float32]) -> FloatArray:
    with _one_thread():
        return np.asarray(classifier.decision_function(features), dtype=np.float64)


def _fitted_classifier(
    portfolio: Portfolio, matrix: NDArray[np.float32], target: NDArray[np.int64], weight: NDArray[np.int64]
) -> HistGradientBoostingClassifier:
    """Fit on rows repeated by their weight: with sample weights, scikit-learn 1.9 spends six times the fit on binning alone."""
    classifier = HistGradientBoostingClassifier(
        **PARAMETERS,
        monotonic_cst=portfolio.monotone_constraints,
        early_stopping=False,
        random_state=SEED,
    )
    with _one_thread():
        classifier.fit(np.repeat(matrix, weight, axis=0), np.repeat(target, weight))
    _hold_thresholds_in_float32(classifier)
    return classifier


def _hold_thresholds_in_float32(classifier: HistGradientBoostingClassifier) -> None:
    """Round each split down to float32.

    Splits are midpoints in float64. The graph holds them in float32, and rounding to nearest may land on the larger of two
    neighbouring values and send it the other way (seen: a PD off by 0.0058). For a float32 value x, x <= t holds exactly when
    x <= the largest float32 not above t, so rounding down changes no answer of scikit-learn's either.
    """
    for predictors in classifier._predictors:
        for predictor in predictors:
            exact = predictor.nodes["num_threshold"]
            nearest = exact.astype(np.float32)
            down = np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)
            predictor.nodes["num_threshold"] = down


def _golden_requests(raw: NDArray[np.float32], probability: FloatArray, score: FloatArray) -> list[GoldenRequest]:
    """Rows spread evenly over the range of PDs, the extremes included."""
    order = np.argsort(probability, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, GOLDEN_REQUESTS).round().astype(int)]
    return [
        GoldenRequest(
            raw=[None if np.isnan(value) else float(value) for value in raw[row]],
            default_probability=float(probability[row]),
            score=float(score[row]),
        )
        for row in chosen
    ]


def _reference(portfolio: Portfolio, rows: TrainingRows, probability: FloatArray, score: FloatArray) -> pd.DataFrame:
    """A sample of the training rows, each as likely as its weight, for monitoring to compare with."""
    rng = np.random.default_rng(SEED)
    size = min(REFERENCE_ROWS, len(rows.target))
    chance = rows.weight / rows.weight.sum()
    chosen = np.sort(rng.choice(len(rows.target), size=size, replace=False, p=chance))
    frame = pd.DataFrame(rows.raw[chosen], columns=portfolio.field_names)
    frame["default_probability"] = probability[chosen]
    frame["score"] = score[chosen]
    return frame
