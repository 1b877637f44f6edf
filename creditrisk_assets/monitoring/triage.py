"""What the evidence behind an alarm asks for: nothing, a recalibration, or a refit.

An alarm says that something moved. What to do about it is told by outcomes: of the matured rows
since the alarm, do bads come at the rate that the PDs say (level), and does the score rank them as
it should (ranking)? The ranking is held against two figures, the AUC at validation and the AUC that
the PDs themselves let expect of these very customers, and has fallen only if both tests say so: an
easier or harder population moves the AUC of a model that is still right, and a wrong level moves
the expectation.

| ranking | level | kind of change | answer |
|---|---|---|---|
| holds | holds | covariate shift, or chance | nothing |
| holds | is off | prior shift | recalibrate |
| fell | either | concept drift | refit |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

FiguresByDay = Mapping[str, Mapping[str, float]]
"""How the decisions of days turned out: by day, what `monitoring.performance.day_figures` keeps,
and more.
"""


class Action(StrEnum):
    """What is done about an alarm."""

    NOTHING = "nothing"
    RECALIBRATE = "recalibrate"
    REFIT = "refit"


@dataclass(frozen=True)
class Triage:
    """The answer, and the figures that gave it.

    Attributes:
        action: what the evidence supports.
        sentence: why, with the figures.
        since: the first day of the evidence.
        ranking_p_value: of the fall of the ranking, one-sided; the larger of the two tests.
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


def triage(days: FiguresByDay, validation: Mapping[str, float], limits: TriageLimits) -> Triage:
    """Weigh the matured days since an alarm, by the tests that watch a day
    (`monitoring.performance`).

    Args:
        days: of one champion, by day of the decisions; what `day_figures` keeps of each.
        validation: roc_auc of that champion and roc_auc_standard_error.
        limits: when a figure counts.

    Raises:
        ValueError: if there is no matured row.
    """
    # Here, for a sensor that has nothing to weigh must not wait for SciPy.
    from creditrisk_assets.monitoring.performance import level_held, ranking_held, together

    figures = together(list(days.values()))
    if not figures["rows"]:
        raise ValueError(f"{len(days)} days without a matured row; valid: at least one")
    ranking_p, fall = 1.0, "no AUC"
    fell = False
    if {"roc_auc", "expected_roc_auc"} <= figures.keys():
        by_the_pds = {"roc_auc": figures["expected_roc_auc"], "roc_auc_standard_error": 0.0}
        tests = [
            ranking_held(figures, one, limits.alpha, limits.ranking_floor)
            for one in (validation, by_the_pds)
        ]
        fell = not any(test.passed for test in tests)
        ranking_p = max(test.p_value for test in tests)
        fall = (
            f"AUC {figures['roc_auc']:.4f}, {validation['roc_auc']:.4f} at validation, "
            f"{by_the_pds['roc_auc']:.4f} by the PDs, p {ranking_p:.2g}"
        )
    level = level_held(figures, limits.alpha, limits.level_floor)
    action = Action.REFIT if fell else Action.NOTHING if level.passed else Action.RECALIBRATE
    first, last = min(days), max(days)
    sentence = (
        f"{figures['rows']:,.0f} matured decisions of {first} to {last}: ranking "
        f"{'fell' if fell else 'holds'} ({fall}), level {'holds' if level.passed else 'is off'} "
        f"({level.explanation}, p {level.p_value:.2g})"
    )
    return Triage(action, sentence, first, ranking_p, level.p_value)
