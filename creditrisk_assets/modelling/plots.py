"""Plots of a model and of a day. Each function returns a PNG."""

import io
from datetime import date
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from creditrisk_assets.modelling.metrics import (
    Z95,
    calibration_bins,
    kolmogorov_smirnov,
    ranking_and_calibration,
)
from creditrisk_assets.portfolio.contract import DecisionWords

if TYPE_CHECKING:  # importing the training stack takes seconds, which a day's plots do not need
    from creditrisk_assets.modelling.inspection import Inspection, Profile

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BLUE, ORANGE, GREY = "#2457a4", "#d1622b", "#8a8f98"

MOST_IMPORTANT = 20
PROFILES_SHOWN = 8


def training_plots(
    inspection: "Inspection", target: IntArray, probability: FloatArray, score: FloatArray
) -> dict[str, bytes]:
    """Plots of a training besides ROC and calibration, by name.

    Args:
        inspection: of the model.
        target: n, 1 = bad, of held-out rows.
        probability: n, their PDs.
        score: n, their points.
    """
    return {
        "ks": ks_plot(target, probability),
        "score_distribution": score_plot(target, score),
        "importance": importance_plot(inspection.importance),
        "monotone_profiles": profiles_plot(inspection.profiles),
    }


def roc_plot(target: IntArray, probabilities: dict[str, FloatArray]) -> bytes:
    """ROC curves of one or two models on the same rows."""
    figure, axes = _axes("share of goods at or above each PD", "share of bads at or above it")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    for (name, probability), color in zip(probabilities.items(), (BLUE, ORANGE), strict=False):
        false_positive, true_positive, _ = roc_curve(target, probability)
        figures = ranking_and_calibration(target, probability)
        label = f"{name}: AUC {figures['roc_auc']:.4f}, KS {figures['ks']:.3f}"
        axes.plot(false_positive, true_positive, color=color, label=label)
    axes.set_title(f"ROC, {len(target):,} held-out rows, {int(target.sum()):,} bads", fontsize=9)
    axes.legend(fontsize=8, loc="lower right")
    return _png(figure)


def calibration_plot(target: IntArray, probabilities: dict[str, FloatArray]) -> bytes:
    """Bad rate against mean PD in ten bins of equal mass."""
    figure, axes = _axes("mean PD", "bad rate")
    top = 0.0
    for (name, probability), color in zip(probabilities.items(), (BLUE, ORANGE), strict=False):
        bins = calibration_bins(target, probability)
        mean_pd = [float(p.mean()) for _, p in bins]
        bad_rate = [float(t.mean()) for t, _ in bins]
        top = max(top, *mean_pd, *bad_rate)
        axes.plot(mean_pd, bad_rate, marker="o", markersize=4, color=color, label=name)
    axes.plot([0, top], [0, top], color=GREY, linewidth=0.8, linestyle="--")
    axes.set_title("calibration, ten bins of equal mass", fontsize=9)
    axes.legend(fontsize=8)
    return _png(figure)


def trade_off_plot(
    approval_rate: FloatArray,
    bad_rate: FloatArray,
    in_force: int,
    cut_off: float,
    words: DecisionWords,
) -> bytes:
    """Bad rate below each cut-off against the share below it; point `in_force` is the cut-off in
    force.
    """
    figure, axes = _axes(words.rate, f"bad rate of those {words.below}")
    axes.plot(approval_rate, bad_rate, color=BLUE, marker=".", markersize=4)
    label = f"cut-off {cut_off:.4f}: {bad_rate[in_force]:.1%} of {approval_rate[in_force]:.1%}"
    axes.scatter(
        [approval_rate[in_force]], [bad_rate[in_force]], color=ORANGE, zorder=3, label=label
    )
    axes.legend(fontsize=8, loc="upper left")
    return _png(figure)


def agreement_plot(target: IntArray, champion: FloatArray, challenger: FloatArray) -> bytes:
    """Each row's PD by the challenger against its PD by the champion."""
    figure, axes = _axes("PD by the champion", "PD by the challenger")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    for outcome, name, color in ((0, "good", BLUE), (1, "bad", ORANGE)):
        rows = target == outcome
        axes.scatter(
            champion[rows], challenger[rows], s=5, alpha=0.4, linewidths=0, color=color, label=name
        )
    axes.set_title("PD against PD, the same rows", fontsize=9)
    axes.legend(fontsize=8, loc="lower right")
    return _png(figure)


def ks_plot(target: IntArray, probability: FloatArray) -> bytes:
    """Share of goods and of bads up to each PD; KS is their largest distance."""
    figure, axes = _axes("PD", "share with at most this PD")
    for outcome, name, color in ((0, "goods", BLUE), (1, "bads", ORANGE)):
        ordered = np.sort(probability[target == outcome])
        axes.step(
            ordered,
            np.arange(1, len(ordered) + 1) / len(ordered),
            where="post",
            color=color,
            label=name,
        )
    value, at = kolmogorov_smirnov(target, probability)
    axes.axvline(at, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_title(f"KS {value:.3f}, reached at a PD of {at:.3f}", fontsize=9)
    axes.legend(fontsize=8, loc="lower right")
    return _png(figure)


def score_plot(target: IntArray, score: FloatArray) -> bytes:
    """Distribution of the points of goods and of bads."""
    figure, axes = _axes("points (higher is safer)", "share of the class")
    edges = np.histogram_bin_edges(score, bins=40).tolist()
    for outcome, name, color in ((0, "goods", BLUE), (1, "bads", ORANGE)):
        points = score[target == outcome]
        axes.hist(
            points,
            bins=edges,
            weights=np.full(len(points), 1 / len(points)),
            color=color,
            alpha=0.55,
            label=name,
        )
    axes.set_title("score distribution", fontsize=9)
    axes.legend(fontsize=8)
    return _png(figure)


def importance_plot(importance: dict[str, float]) -> bytes:
    """Most important features as bars."""
    names = sorted(importance, key=importance.__getitem__, reverse=True)[:MOST_IMPORTANT]
    figure, axes = _axes("rise of the log loss when permuted", "", height=0.22 * len(names) + 1.1)
    positions = np.arange(len(names))[::-1]
    axes.barh(positions, [importance[name] for name in names], color=BLUE, height=0.7)
    axes.set_yticks(positions, names, fontsize=7)
    axes.set_title("permutation importance", fontsize=9)
    return _png(figure)


def profiles_plot(profiles: "dict[str, Profile]") -> bytes:
    """Mean PD along the features that claim a direction, for those with the largest effect."""
    names = sorted(profiles, key=lambda name: float(np.ptp(profiles[name].mean_pd)), reverse=True)[
        :PROFILES_SHOWN
    ]
    figure = Figure(figsize=(7.2, 3.4))
    for place, name in enumerate(names):
        axes = figure.add_axes((0.06 + 0.24 * (place % 4), 0.56 - 0.46 * (place // 4), 0.19, 0.28))
        profile = profiles[name]
        axes.plot(
            profile.values, profile.mean_pd, marker=".", markersize=3, linewidth=1, color=BLUE
        )
        axes.set_ylim(0, max(max(shown.mean_pd) for shown in profiles.values()) * 1.05)
        axes.set_title(f"{name} ({'+' if profile.direction > 0 else '-'})", fontsize=7)
        axes.tick_params(labelsize=5)
    figure.suptitle(
        "mean PD along the features that may only raise (+) or lower (-) it and move it most",
        fontsize=9,
    )
    return _png(figure)


def stability_plot(
    names: list[str], values: list[float], thresholds: list[float], title: str
) -> bytes:
    """PSI or CSI of each column as bars, with its threshold as a tick."""
    figure, axes = _axes(
        "PSI / CSI against the champion's training population", "", height=0.22 * len(names) + 1.1
    )
    positions = np.arange(len(names))[::-1]
    colors = [
        ORANGE if value > limit else BLUE for value, limit in zip(values, thresholds, strict=True)
    ]
    axes.barh(positions, values, color=colors, height=0.7)
    axes.scatter(thresholds, positions, marker="|", s=90, color="black", linewidths=1.2, zorder=3)
    axes.set_yticks(positions, names, fontsize=7)
    axes.set_title(title, fontsize=9)
    return _png(figure)


def performance_plot(
    days: list[date],
    realised: tuple[FloatArray, FloatArray],
    estimated: tuple[FloatArray, FloatArray],
    validation: float,
) -> bytes:
    """Realised and estimated AUC of matured days, each with its 95 % interval.

    Args:
        days: of decision.
        realised: AUC and standard error of each day, NaN if there is none.
        estimated: AUC and standard error expected from the PDs of the same rows.
        validation: AUC of the champion at validation.
    """
    figure, axes = _axes("day of decision", "AUC")
    at = np.array([day.toordinal() for day in days], dtype=np.float64)
    axes.axhline(
        validation,
        color=GREY,
        linewidth=0.8,
        linestyle="--",
        label=f"at validation {validation:.4f}",
    )
    sides = (
        ("estimated without outcomes", estimated, BLUE, -0.12),
        ("realised", realised, ORANGE, 0.12),
    )
    for name, (auc, error), color, shift in sides:
        axes.errorbar(
            at + shift,
            auc,
            Z95 * error,
            fmt="o",
            markersize=3,
            linewidth=0.8,
            color=color,
            label=name,
        )
    shown = sorted({*np.linspace(0, len(days) - 1, 4).round().astype(int).tolist()})
    axes.set_xticks(at[shown], [days[place].isoformat() for place in shown])
    axes.set_title(f"AUC of {len(days)} matured days, 95 % intervals", fontsize=9)
    axes.legend(fontsize=8, loc="lower left")
    return _png(figure)


def _axes(x_label: str, y_label: str, height: float = 3.6) -> tuple[Figure, matplotlib.axes.Axes]:
    figure = Figure(figsize=(4.8, height), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label, fontsize=8)
    axes.set_ylabel(y_label, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
