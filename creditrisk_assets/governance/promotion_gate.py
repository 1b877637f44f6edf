"""Whether a challenger replaces the champion: both sides on the same held-out rows, and no promotion without evidence.

The gate computes and says why; moving the alias is the `champion` asset's doing.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from creditrisk_assets.modelling.metrics import auc_gain, ranking_and_calibration
from creditrisk_assets.scoring.bundle import Bundle

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class HeldOutRows:
    """Rows that neither side has learned from: raw fields (n x fields, float32), outcomes (n), and where they come from."""

    raw: NDArray[np.float32]
    target: IntArray
    origin: str


@dataclass(frozen=True)
class GateLimits:
    """What a challenger must bring: enough held-out bads to judge by, and an AUC gain above the minimum that chance alone gives
    with a probability below `alpha` (DeLong's paired test, one-sided).
    """

    minimum_bads: int
    minimum_gain: float
    alpha: float


@dataclass(frozen=True)
class Verdict:
    """The gate's decision with both sides' figures.

    `probabilities` holds each side's PDs on the held-out rows for the plots; it is empty where nothing was compared.
    """

    verdict: Literal["first", "promoted", "kept"]
    reason: str
    champion: dict[str, float]
    challenger: dict[str, float]
    origin: str
    probabilities: dict[str, FloatArray]
    target: IntArray


def judge(challenger: Bundle, champion: Bundle | None, held_out: HeldOutRows, limits: GateLimits) -> Verdict:
    """Compare on the same rows: ROC-AUC first, by a paired test, then no worse Brier score.

    Args:
        challenger: the new bundle.
        champion: the bundle in force; None before the first.
        held_out: matured rows of customers that training never sees.
        limits: what counts as evidence.

    Returns:
        `first` where there was no champion, `promoted`, or `kept`; the reason names the figure that decided.
    """
    bads = int(held_out.target.sum())
    goods = len(held_out.target) - bads
    if min(bads, goods) < limits.minimum_bads:
        why = f"{bads} bads and {goods} goods held out ({held_out.origin}); {limits.minimum_bads} of each needed to judge"
        return Verdict("kept", f"no evidence: {why}", {}, {}, held_out.origin, {}, held_out.target)

    challenger_pd = challenger.score(held_out.raw).default_probability
    challenger_figures = ranking_and_calibration(held_out.target, challenger_pd)
    if champion is None:
        reason = f"no champion before; AUC {challenger_figures['roc_auc']:.4f} on {held_out.origin}"
        return Verdict("first", reason, {}, challenger_figures, held_out.origin, {"challenger": challenger_pd}, held_out.target)

    champion_pd = champion.score(held_out.raw).default_probability
    champion_figures = ranking_and_calibration(held_out.target, champion_pd)
    gain, error = auc_gain(held_out.target, challenger_pd, champion_pd)
    p_value = float(stats.norm.sf(gain / error)) if error > 0 else 1.0
    worse_brier = challenger_figures["brier"] - champion_figures["brier"]
    figures = (
        f"AUC {challenger_figures['roc_auc']:.4f} against {champion_figures['roc_auc']:.4f} ({gain:+.4f}, p {p_value:.2g}), "
        f"Brier {challenger_figures['brier']:.4f} against {champion_figures['brier']:.4f}, on {held_out.origin}"
    )
    verdict: Literal["promoted", "kept"]
    if not gain > limits.minimum_gain:
        verdict, reason = "kept", f"AUC gain not above {limits.minimum_gain}: {figures}"
    elif not p_value < limits.alpha:
        verdict, reason = "kept", f"AUC gain may be chance, p not below {limits.alpha}: {figures}"
    elif worse_brier > 0:
        verdict, reason = "kept", f"ranks better but Brier is worse: {figures}"
    else:
        verdict, reason = "promoted", f"challenger is better: {figures}"
    return Verdict(
        verdict,
        reason,
        champion_figures,
        challenger_figures,
        held_out.origin,
        {"champion": champion_pd, "challenger": challenger_pd},
        held_out.target,
    )
