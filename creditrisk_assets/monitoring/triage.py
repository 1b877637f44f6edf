"""Triage of an alarm by outcomes: nothing, a recalibration, or a refit.

An alarm shows a shift; the matured rows since the alarm show what to do. The level is the bad rate
against the mean PD. The ranking is the AUC against two figures, the AUC at validation and the AUC
expected from the PDs of these customers. It fell only if both tests fail: an easier or harder
population moves the AUC of a correct model, and a wrong level moves the expectation.

| ranking | level | kind of change | action |
|---|---|---|---|
| holds | holds | covariate shift, or chance | nothing |
| holds | is off | prior shift | recalibrate |
| fell | either | concept drift | refit |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from creditrisk_assets.policy import PerformanceLimits

FiguresByDay = Mapping[str, Mapping[str, float]]
"""Figures of matured days, by day; each has at least those of `performance.day_figures`."""


class Action(StrEnum):
    """The response to an alarm."""

    NOTHING = "nothing"
    RECALIBRATE = "recalibrate"
    REFIT = "refit"


@dataclass(frozen=True)
class Triage:
    """The action and its evidence.

    Attributes:
        action: supported by the evidence.
        sentence: reason with figures.
        since: first day of the evidence.
        ranking_p_value: of the fall of the AUC, one-sided; the larger of the two tests.
        level_p_value: of the gap between bad rate and mean PD, two-sided.
    """

    action: Action
    sentence: str
    since: str
    ranking_p_value: float
    level_p_value: float


def triage(
    days: FiguresByDay, validation: Mapping[str, float], limits: PerformanceLimits
) -> Triage:
    """Test the matured days since an alarm with the tests of `monitoring.performance`.

    Args:
        days: of one champion, by day of the decisions.
        validation: roc_auc of that champion and roc_auc_standard_error.
        limits: of the tests.

    Raises:
        ValueError: if there is no matured row.
    """
    # Imported here because it loads SciPy, which most ticks of the sensor do not need.
    from creditrisk_assets.monitoring.performance import level_test, pool_days, ranking_test

    figures = pool_days(list(days.values()))
    if not figures["rows"]:
        raise ValueError(f"{len(days)} days without a matured row; valid: at least one")
    ranking_p, fall = 1.0, "no AUC"
    fell = False
    if {"roc_auc", "expected_roc_auc"} <= figures.keys():
        expected = {"roc_auc": figures["expected_roc_auc"], "roc_auc_standard_error": 0.0}
        tests = [
            ranking_test(figures, reference, limits.alpha, limits.floor)
            for reference in (validation, expected)
        ]
        fell = not any(test.passed for test in tests)
        ranking_p = max(test.p_value for test in tests)
        fall = (
            f"AUC {figures['roc_auc']:.4f}, {validation['roc_auc']:.4f} at validation, "
            f"{expected['roc_auc']:.4f} by the PDs, p {ranking_p:.2g}"
        )
    level = level_test(figures, limits.alpha, limits.floor)
    action = Action.REFIT if fell else Action.NOTHING if level.passed else Action.RECALIBRATE
    first, last = min(days), max(days)
    sentence = (
        f"{figures['rows']:,.0f} matured decisions of {first} to {last}: ranking "
        f"{'fell' if fell else 'holds'} ({fall}), level {'holds' if level.passed else 'is off'} "
        f"({level.explanation}, p {level.p_value:.2g})"
    )
    return Triage(action, sentence, first, ranking_p, level.p_value)
