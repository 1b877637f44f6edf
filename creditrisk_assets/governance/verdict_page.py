"""The verdict as a page for people, with plots."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from creditrisk_assets.governance.pages import fairness_note, fairness_table, figure, inline, render
from creditrisk_assets.governance.promotion_gate import Judgement
from creditrisk_assets.governance.verdict import GateTest
from creditrisk_assets.modelling.plots import agreement_plot, calibration_plot, roc_plot
from creditrisk_assets.number_format import format_with_limit
from creditrisk_assets.portfolio.contract import DecisionWords

SMALL = 1e-4
"""Smaller figures are shown with an exponent."""

SHOWN_FIGURES = (
    "rows",
    "bads",
    "roc_auc",
    "roc_auc_low",
    "roc_auc_high",
    "gini",
    "ks",
    "average_precision",
    "brier",
    "log_loss",
    "ece",
    "calibration_in_the_large",
    "mean_pd",
    "bad_rate",
)


def verdict_plots(judgement: Judgement) -> dict[str, bytes]:
    """PNGs by name: ROC and calibration of the scored sides; PD against PD if both were scored."""
    sides = judgement.probabilities
    if not sides:
        return {}
    plots = {
        "roc": roc_plot(judgement.target, sides),
        "calibration": calibration_plot(judgement.target, sides),
    }
    if "champion" in sides:
        plots["agreement"] = agreement_plot(
            judgement.target, sides["champion"], sides["challenger"]
        )
    return plots


def _compared(test: GateTest) -> tuple[str, str]:
    """A test's figure and limit, with enough digits to differ."""
    if (
        test.observed is None
        or test.limit is None
        or float(test.observed).is_integer()
        or abs(test.observed) < SMALL
    ):
        return figure(test.observed), figure(test.limit)
    return format_with_limit(test.observed, test.limit, ".4f")


@dataclass(frozen=True)
class Occasion:
    """When and why the gate judged.

    Attributes:
        at: time of the verdict, UTC.
        cause: the failed checks behind a retrain; empty if a person started it.
        day: the latest day of data.
        home: address of the API.
    """

    at: datetime.datetime
    cause: str = ""
    day: str | None = None
    home: str = ""


def _summary(judgement: Judgement) -> str:
    """The verdict in one sentence: the AUC of both sides, and what failed or passed narrowly."""
    verdict = judgement.verdict
    sides = [("challenger", verdict.challenger), ("champion", verdict.champion)]
    aucs = [
        f"{name} (version {side.version}) {side.figures['roc_auc']:.4f}"
        for name, side in sides
        if side is not None and "roc_auc" in side.figures
    ]
    failed = [test.name.replace("_", " ") for test in verdict.tests if not test.passed]
    close = [test.name.replace("_", " ") for test in verdict.tests if test.warning]
    passed = sum(test.passed for test in verdict.tests)
    parts = [f"{passed} of {len(verdict.tests)} tests passed"]
    if failed:
        parts.append(f"not so: {', '.join(failed)}")
    if close:
        parts.append(f"to be looked at: {', '.join(close)}")
    if aucs:
        parts.append(f"AUC {' against '.join(aucs)}")
    return "; ".join(parts) + "."


def verdict_page(
    judgement: Judgement, plots: Mapping[str, bytes], words: DecisionWords, occasion: Occasion
) -> str:
    """Render a self-contained HTML page.

    Args:
        judgement: of the gate.
        plots: from `verdict_plots`.
        words: the portfolio's words for decisions.
        occasion: when and why; it is no part of the verdict's document.
    """
    verdict = judgement.verdict
    sides = {"challenger": verdict.challenger} | (
        {"champion": verdict.champion} if verdict.champion else {}
    )
    return render(
        "verdict.html",
        home=occasion.home,
        occasion=occasion,
        summary=_summary(judgement),
        verdict=verdict,
        sides=sides,
        shown=[
            name for name in SHOWN_FIGURES if any(name in side.figures for side in sides.values())
        ],
        plots={name: inline(png) for name, png in plots.items()},
        fairness={
            name: fairness_table(side.fairness, words)
            for name, side in sides.items()
            if side.fairness
        },
        fairness_note=fairness_note(words),
        latency_ms=judgement.latency_ms,
        compared=_compared,
    )
