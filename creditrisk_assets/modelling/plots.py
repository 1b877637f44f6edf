"""Plots of a model and of a day. Each function returns a PNG."""

import io
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
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
LegendPlace = Literal["best", "upper left", "lower left", "lower right"]
CLASSES = ((0, "goods", BLUE), (1, "bads", ORANGE))
DASHED: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": "--"}

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
    title = f"ROC, {len(target):,} held-out rows, {int(target.sum()):,} bads"
    figure, axes = _axes(
        "share of goods at or above each PD", "share of bads at or above it", title
    )
    axes.plot([0, 1], [0, 1], **DASHED)
    for (name, probability), color in zip(probabilities.items(), (BLUE, ORANGE), strict=False):
        false_positive, true_positive, _ = roc_curve(target, probability)
        figures = ranking_and_calibration(target, probability)
        label = f"{name}: AUC {figures['roc_auc']:.4f}, KS {figures['ks']:.3f}"
        axes.plot(false_positive, true_positive, color=color, label=label)
    return _png(figure, "lower right")


def calibration_plot(target: IntArray, probabilities: dict[str, FloatArray]) -> bytes:
    """Bad rate against mean PD in ten bins of equal mass."""
    figure, axes = _axes("mean PD", "bad rate", "calibration, ten bins of equal mass")
    top = 0.0
    for (name, probability), color in zip(probabilities.items(), (BLUE, ORANGE), strict=False):
        bins = calibration_bins(target, probability)
        mean_pd = [float(p.mean()) for _, p in bins]
        bad_rate = [float(t.mean()) for t, _ in bins]
        top = max(top, *mean_pd, *bad_rate)
        axes.plot(mean_pd, bad_rate, marker="o", markersize=4, color=color, label=name)
    axes.plot([0, top], [0, top], **DASHED)
    return _png(figure, "best")


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
    return _png(figure, "upper left")


def agreement_plot(target: IntArray, champion: FloatArray, challenger: FloatArray) -> bytes:
    """Each row's PD by the challenger against its PD by the champion."""
    figure, axes = _axes(
        "PD by the champion", "PD by the challenger", "PD against PD, the same rows"
    )
    axes.plot([0, 1], [0, 1], **DASHED)
    for outcome, name, color in ((0, "good", BLUE), (1, "bad", ORANGE)):
        rows = target == outcome
        axes.scatter(
            champion[rows], challenger[rows], s=5, alpha=0.4, linewidths=0, color=color, label=name
        )
    return _png(figure, "lower right")


def ks_plot(target: IntArray, probability: FloatArray) -> bytes:
    """Share of goods and of bads up to each PD; KS is their largest distance."""
    value, at = kolmogorov_smirnov(target, probability)
    title = f"KS {value:.3f}, reached at a PD of {at:.3f}"
    figure, axes = _axes("PD", "share with at most this PD", title)
    for outcome, name, color in CLASSES:
        ordered = np.sort(probability[target == outcome])
        shares = np.arange(1, len(ordered) + 1) / len(ordered)
        axes.step(ordered, shares, where="post", color=color, label=name)
    axes.axvline(at, **DASHED)
    return _png(figure, "lower right")


def score_plot(target: IntArray, score: FloatArray) -> bytes:
    """Distribution of the points of goods and of bads."""
    figure, axes = _axes("points (higher is safer)", "share of the class", "score distribution")
    edges = np.histogram_bin_edges(score, bins=40).tolist()
    for outcome, name, color in CLASSES:
        points = score[target == outcome]
        weights = np.full(len(points), 1 / len(points))
        axes.hist(points, bins=edges, weights=weights, color=color, alpha=0.55, label=name)
    return _png(figure, "best")


def importance_plot(importance: dict[str, float]) -> bytes:
    """Most important features as bars."""
    names = sorted(importance, key=importance.__getitem__, reverse=True)[:MOST_IMPORTANT]
    values = [importance[name] for name in names]
    title = "permutation importance"
    figure, _ = _bars(names, values, BLUE, "rise of the log loss when permuted", title)
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
    colors = [
        ORANGE if value > limit else BLUE for value, limit in zip(values, thresholds, strict=True)
    ]
    label = "PSI / CSI against the champion's training population"
    figure, axes = _bars(names, values, colors, label, title)
    axes.scatter(
        thresholds, axes.get_yticks(), marker="|", s=90, color="black", linewidths=1.2, zorder=3
    )
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
    figure, axes = _axes(
        "day of decision", "AUC", f"AUC of {len(days)} matured days, 95 % intervals"
    )
    at = np.array([day.toordinal() for day in days], dtype=np.float64)
    axes.axhline(validation, label=f"at validation {validation:.4f}", **DASHED)
    sides = (
        ("estimated without outcomes", estimated, BLUE, -0.12),
        ("realised", realised, ORANGE, 0.12),
    )
    for name, (auc, error), color, shift in sides:
        reach = Z95 * error
        axes.errorbar(
            at + shift, auc, reach, fmt="o", markersize=3, linewidth=0.8, color=color, label=name
        )
    shown = sorted({*np.linspace(0, len(days) - 1, 4).round().astype(int).tolist()})
    axes.set_xticks(at[shown], [days[place].isoformat() for place in shown])
    return _png(figure, "lower left")


def _axes(x_label: str, y_label: str, title: str = "", height: float = 3.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.8, height), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label, fontsize=8)
    axes.set_ylabel(y_label, fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _bars(
    names: list[str], values: list[float], colors: str | list[str], x_label: str, title: str
) -> tuple[Figure, Axes]:
    """A horizontal bar for each name, the first at the top."""
    figure, axes = _axes(x_label, "", title, height=0.22 * len(names) + 1.1)
    positions = np.arange(len(names))[::-1]
    axes.barh(positions, values, color=colors, height=0.7)
    axes.set_yticks(positions, names, fontsize=7)
    return figure, axes


def _png(figure: Figure, legend: LegendPlace | None = None) -> bytes:
    """A figure as a PNG, with a legend at a place of its axes."""
    if legend:
        figure.axes[0].legend(fontsize=8, loc=legend)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
