"""What the evidence behind an alarm asks for: nothing, a recalibration, or a refit.

An alarm says that something moved. What to do about it is told by outcomes: of the matured rows since the alarm, do bads come at
the rate that the PDs say (level), and does the score rank them as it should (ranking)? The ranking is held against two figures,
the AUC at validation and the AUC that the PDs themselves let expect of these very customers, and has fallen only if it is below
both: an easier or harder population moves the AUC of a model that is still right, and a wrong level moves the expectation.

| ranking | level | kind of change | answer |
|---|---|---|---|
| holds | holds | covariate shift, or chance | nothing |
| holds | is off | prior shift | recalibrate |
| fell | either | concept drift | refit |
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What is done about an alarm."""

    NOTHING = "nothing"
    RECALIBRATE = "recalibrate"
    REFIT = "refit"


@dataclass(frozen=True)
class MaturedEvidence:
    """How the decisions of one day turned out, as sums that can be pooled over days.

    Attributes:
        day: the day of the decisions.
        rows: matured ones.
        bads: of them.
        mean_pd: of them.
        pd_variance: mean of PD (1 - PD): so large is the variance of an outcome if the PD is right.
        roc_auc: realised; None where the rows hold one class only.
        roc_auc_standard_error: of it.
        expected_roc_auc: of the same rows, if their PDs are right.
    """

    day: str
    rows: int
    bads: int
    mean_pd: float
    pd_variance: float
    roc_auc: float | None
    roc_auc_standard_error: float | None
    expected_roc_auc: float | None


@dataclass(frozen=True)
class Triage:
    """The answer, and the figures that gave it.

    Attributes:
        action: what the evidence supports.
        sentence: why, with the figures.
        since: the first day of the evidence.
        ranking_p_value: of the fall of the ranking, one-sided.
        level_p_value: of the gap between bad rate and mean PD, two-sided.
    """

    action: Action
    sentence: str
    since: str
    ranking_p_value: float
    level_p_value: float


@dataclass(frozen=True)
class TriageLimits:
    """When a figure counts.

    Attributes:
        alpha: probability that chance alone makes one of the two tests speak.
        ranking_floor: a fall in AUC up to this is no reason to act.
        level_floor: a gap between bad rate and mean PD up to this is no reason to act.
    """

    alpha: float
    ranking_floor: float
    level_floor: float


def triage(evidence: Sequence[MaturedEvidence], validation_auc: float, validation_error: float, limits: TriageLimits) -> Triage:
    """Weigh the matured days since an alarm.

    Args:
        evidence: one or more days of one champion, at least one matured row in all.
        validation_auc: of that champion.
        validation_error: its standard error.
        limits: when a figure counts.

    Raises:
        ValueError: if there is no matured row.
    """
    rows = sum(day.rows for day in evidence)
    if rows == 0:
        raise ValueError(f"{len(evidence)} days without a matured row; valid: at least one")
    fall, error = _fall(evidence, validation_auc, validation_error)
    ranking_p = _upper_tail(fall / error) if error > 0 else 1.0
    gap = sum(day.bads - day.rows * day.mean_pd for day in evidence) / rows
    gap_error = math.sqrt(sum(day.rows * day.pd_variance for day in evidence)) / rows
    level_p = 2 * _upper_tail(abs(gap) / gap_error) if gap_error > 0 else float(gap == 0)
    fell = ranking_p < limits.alpha and fall > limits.ranking_floor
    off = level_p < limits.alpha and abs(gap) > limits.level_floor
    action = Action.REFIT if fell else Action.RECALIBRATE if off else Action.NOTHING
    first, last = min(day.day for day in evidence), max(day.day for day in evidence)
    sentence = (
        f"{rows:,} matured decisions of {first} to {last}: "
        f"ranking {'fell' if fell else 'holds'} (AUC {-fall:+.4f}, p {ranking_p:.2g}), "
        f"level {'is off' if off else 'holds'} (bad rate {gap:+.4f} from the PDs, p {level_p:.2g})"
    )
    return Triage(action, sentence, first, ranking_p, level_p)


def _fall(evidence: Sequence[MaturedEvidence], validation_auc: float, validation_error: float) -> tuple[float, float]:
    """How far the AUC is below the lower of validation and expectation, and the standard error of this; days are pooled by the
    inverse of their variances. Without any AUC there is no fall.
    """
    known = [
        (day.roc_auc, day.expected_roc_auc, 1 / day.roc_auc_standard_error**2)
        for day in evidence
        if day.roc_auc is not None and day.expected_roc_auc is not None and day.roc_auc_standard_error
    ]
    if not known:
        return 0.0, 0.0
    weight = sum(one[2] for one in known)
    realised = sum(auc * share for auc, _, share in known) / weight
    expected = sum(auc * share for _, auc, share in known) / weight
    error = math.sqrt(1 / weight)
    if expected <= validation_auc:
        return expected - realised, error
    return validation_auc - realised, math.hypot(error, validation_error)


def _upper_tail(z: float) -> float:
    """Probability that a standard normal is above z. The sensor asks, and it must not wait for SciPy."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))
