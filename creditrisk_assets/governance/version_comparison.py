"""Versions of the model on the same customers: the held-out rows of the newest of them.

Customers are held out by a hash of their identifier, so no version was fitted on them.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditrisk_assets.modelling.metrics import auc_with_error, ranking_and_calibration
from creditrisk_assets.monitoring.day_decisions import currency_of
from creditrisk_assets.monitoring.performance import SMALLEST_CLASS
from creditrisk_assets.monitoring.version_documents import (
    VersionFigures,
    VersionsDocument,
    VersionSegment,
)
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import HELD_OUT, Bundle

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SHOWN = (
    "roc_auc",
    "gini",
    "ks",
    "brier",
    "log_loss",
    "ece",
    "calibration_in_the_large",
    "calibration_slope",
)
"""Figures of the document, each with its 95 % interval."""


@dataclass(frozen=True)
class ComparedVersion:
    """A version to compare: its bundle, its cut-off, and what the ledger says about it."""

    version: str
    bundle: Bundle
    cut_off: float
    verdict: str | None = None
    verdict_sha256: str | None = None
    judged_at: float | None = None


def compare_versions(
    versions: Sequence[ComparedVersion], in_force: str, portfolio: Portfolio
) -> VersionsDocument:
    """Score the newest version's held-out rows by each version.

    Args:
        versions: the newest first, at least one; the version in force is one of them.
        in_force: the version in force.
        portfolio: with target and exposure.
    """
    newest = versions[0].bundle
    evidence = pd.read_parquet(io.BytesIO(newest.document(HELD_OUT)))
    target = evidence[portfolio.target].to_numpy(dtype=np.int64)
    raw = evidence[newest.input_names].to_numpy(dtype=np.float32)
    loss = None
    if portfolio.exposure in newest.input_names:
        exposure = raw[:, newest.input_names.index(str(portfolio.exposure))].astype(np.float64)
        loss = exposure * (portfolio.loss_given_default * portfolio.exposure_share)
    scored = {
        one.version: one.bundle.score(raw).default_probability
        for one in versions
        if one.bundle.input_names == newest.input_names
    }
    cut_offs = {one.version: one.cut_off for one in versions}
    columns = dict(zip(newest.input_names, raw.T, strict=True))
    places = [
        (one.label, one.segments(portfolio.fields), one.places(columns, portfolio.fields))
        for one in portfolio.segments
        if not one.is_by_score
    ]
    bad_rate = None
    if in_force in scored:
        bad_rate = _bad_rate(target, scored[in_force] < cut_offs[in_force])
    return VersionsDocument(
        evidence_of=versions[0].version,
        in_force=in_force,
        rows=len(target),
        bads=int(target.sum()),
        loss=None if loss is None else float(target @ loss),
        currency=currency_of(portfolio),
        versions=tuple(
            _figures(one, scored.get(one.version), target, loss, bad_rate).model_copy(
                update={"segments": _segments(one, scored.get(one.version), target, places)}
            )
            for one in versions
        ),
    )


def _figures(
    compared: ComparedVersion,
    probability: FloatArray | None,
    target: IntArray,
    loss: FloatArray | None,
    bad_rate: float | None,
) -> VersionFigures:
    manifest = compared.bundle.manifest
    figures = VersionFigures(
        version=compared.version,
        bundle_sha256=compared.bundle.sha256,
        family=manifest.training.family,
        kind=manifest.training.kind,
        rows=manifest.training.rows,
        bads=manifest.training.bads,
        verdict=compared.verdict,
        verdict_sha256=compared.verdict_sha256,
        judged_at=compared.judged_at,
        cut_off=compared.cut_off,
    )
    if probability is None or not 0 < target.sum() < len(target):
        return figures
    found = ranking_and_calibration(target, probability)
    approved = probability < compared.cut_off
    return figures.model_copy(
        update={
            "figures": {
                name: value
                for name, value in found.items()
                if name.removesuffix("_low").removesuffix("_high") in SHOWN
            },
            "approval_rate": float(approved.mean()),
            "approved_bad_rate": _bad_rate(target, approved),
            "approval_at_equal_bad_rate": None
            if bad_rate is None
            else approval_at(target, probability, bad_rate),
            "approved_expected_loss": None
            if loss is None or not approved.any()
            else float((probability * loss)[approved].mean()),
            "approved_loss": None if loss is None else float((target * loss)[approved].sum()),
        }
    )


def _segments(
    compared: ComparedVersion,
    probability: FloatArray | None,
    target: IntArray,
    places: Sequence[tuple[str, Sequence[str], IntArray]],
) -> tuple[VersionSegment, ...]:
    """Figures of each segment that holds a customer."""
    if probability is None:
        return ()
    found = []
    for label, names, place in places:
        for number, name in enumerate(names):
            rows = place == number
            if not rows.any():
                continue
            bads = int(target[rows].sum())
            fewer = min(bads, int(rows.sum()) - bads)
            found.append(
                VersionSegment(
                    segmentation=label,
                    segment=name,
                    rows=int(rows.sum()),
                    bads=bads,
                    mean_pd=float(probability[rows].mean()),
                    approval_rate=float((probability[rows] < compared.cut_off).mean()),
                    roc_auc=auc_with_error(target[rows], probability[rows])[0]
                    if fewer >= SMALLEST_CLASS
                    else None,
                )
            )
    return tuple(found)


def approval_at(target: IntArray, probability: FloatArray, bad_rate: float) -> float:
    """The largest share of customers, the lowest PDs first, whose bad rate is at most a given one.

    Customers with the same PD are approved together.
    """
    order = np.argsort(probability, kind="stable")
    rates = np.cumsum(target[order]) / np.arange(1, len(target) + 1)
    ends = np.append(np.diff(probability[order]) > 0, True)
    allowed = np.flatnonzero(ends & (rates <= bad_rate))
    return float((allowed[-1] + 1) / len(target)) if len(allowed) else 0.0


def _bad_rate(target: IntArray, rows: NDArray[np.bool_]) -> float | None:
    return float(target[rows].mean()) if rows.any() else None
