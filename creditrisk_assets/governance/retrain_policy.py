"""Whether failed checks start a retrain now, and of which kind: a pure function of what has
happened, with its reason.

A cause is one evaluation of one check on one day. It is answered once; a cause that judged a former
champion is history; and nothing is trained before there are outcomes, of the days since the cause,
that the champion has not learned from. What the outcomes ask for is `monitoring.triage`'s answer;
whether it may be done now is decided here, in days of data, never of the clock on the wall.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from creditrisk_assets.monitoring.check_catalogue import BY_CHECK, WATCHES
from creditrisk_assets.monitoring.triage import Action, FiguresByDay, Triage, TriageLimits, triage
from creditrisk_assets.settings import Settings

BUDGET_DAYS = 30
"""The budget is for so many days of data: a month."""


@dataclass(frozen=True)
class Cause:
    """One failed evaluation of a drift or performance check."""

    record_id: int
    check: str
    partition: str
    value: str
    model_version: str


@dataclass(frozen=True)
class PastRetrain:
    """A finished retrain.

    Attributes:
        days_ago: in days of data; None where a person started it.
        promoted: whether it gave a new champion.
    """

    days_ago: int | None
    promoted: bool


@dataclass(frozen=True)
class RetrainLimits:
    """What bounds retraining; the settings of the same names say what each is for."""

    enabled: bool
    minimum_bads: int
    complete_share: float
    cooldown_days: int
    monthly_budget: int
    rejection_limit: int
    triage_days: int
    triage: TriageLimits

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits of the settings."""
        return cls(
            enabled=settings.retraining,
            minimum_bads=settings.retrain_minimum_bads,
            complete_share=settings.retrain_complete_share,
            cooldown_days=settings.retrain_cooldown_days,
            monthly_budget=settings.retrain_monthly_budget,
            rejection_limit=settings.retrain_rejection_limit,
            triage_days=settings.triage_days,
            triage=TriageLimits(
                settings.performance_alpha, settings.performance_floor, settings.performance_floor
            ),
        )


@dataclass(frozen=True)
class LoopState:
    """What the policy looks at.

    Attributes:
        champion_version: the version in force, None before the first.
        answered: record ids that a retrain has been started for.
        retrains_in_flight: retrain or train runs not yet finished.
        outcomes_in_flight: runs that are still bringing outcomes in.
        past: finished retrains, newest first.
        evidence: matured days that the champion has decided and was not trained on, by day; with
            how many of its decisions have matured, are pending and missing.
        validation: the champion's roc_auc at validation and roc_auc_standard_error.
    """

    champion_version: str | None
    answered: frozenset[int]
    retrains_in_flight: int
    outcomes_in_flight: int
    past: Sequence[PastRetrain]
    evidence: FiguresByDay
    validation: Mapping[str, float]


@dataclass(frozen=True)
class Decision:
    """The causes to retrain for, none meaning no retrain; what kind of retrain; and why.

    Attributes:
        causes: that the retrain answers.
        reason: with the number that decided.
        triage: what the evidence asks for, where it has been weighed.
    """

    causes: tuple[Cause, ...]
    reason: str
    triage: Triage | None = None


def decide(failures: Sequence[Cause], state: LoopState, limits: RetrainLimits) -> Decision:
    """Decide from the latest evaluation of each check on each day that failed."""
    if state.champion_version is None:
        return Decision((), "there is no champion yet; run the job train")
    open_causes = tuple(
        cause
        for cause in failures
        if cause.record_id not in state.answered and cause.model_version == state.champion_version
    )
    former = sum(cause.model_version != state.champion_version for cause in failures)
    if not open_causes:
        return Decision(
            (),
            f"no open cause: {len(failures)} failed checks known, {former} of them judged a "
            f"former champion, {len(state.answered)} answered by a retrain",
        )
    first_day = min(cause.partition for cause in open_causes)
    what = f"{len(open_causes)} open causes since {first_day}"
    if obstacle := _obstacle(state, limits):
        return Decision((), f"{what}; {obstacle}")
    matured = {day: figures for day, figures in state.evidence.items() if day >= first_day}
    since = {
        day: figures
        for day, figures in matured.items()
        if _is_complete(figures, limits.complete_share)
    }
    bads = _bads(since)
    if bads < limits.minimum_bads:
        partly = len(matured) - len(since)
        left_out = (
            f"; {partly} days are left out, whose outcomes are not complete" if partly else ""
        )
        waiting = (
            f"waiting for outcomes: {bads:.0f} bads matured since then, {limits.minimum_bads} "
            f"needed to learn from{left_out}"
        )
        return Decision((), f"{what}; {waiting}")
    found = triage(_latest(since, limits), state.validation, limits.triage)
    if found.action is Action.NOTHING:
        return Decision((), f"{what}; nothing to do: {found.sentence}", found)
    return Decision(open_causes, f"{what}; {found.action}: {found.sentence}", found)


def causes_counted(causes: Sequence[Cause]) -> str:
    """Failures by check: on how many days, and what the latest of them found. Performance comes
    before drift, for it is nearer to what decided.
    """
    order = [watch.check for watch in reversed(WATCHES)]
    lines = []
    for check in sorted({cause.check for cause in causes}, key=order.index):
        of_check = [cause for cause in causes if cause.check == check]
        latest = max(of_check, key=lambda cause: cause.partition)
        days = len({cause.partition for cause in of_check})
        wrong = BY_CHECK[check].failure
        found = latest.value.removeprefix(f"{wrong}: ")
        lines.append(
            f"{wrong} on {days} {'day' if days == 1 else 'days'}, the latest {latest.partition}: "
            f"{found}"
        )
    return "; ".join(lines)


def _is_complete(figures: Mapping[str, float], share: float) -> bool:
    """Whether the outcomes of enough of a day's decisions are there: the first to come are no fair
    sample of the day.
    """
    decided = figures["matured"] + figures["pending"] + figures["missing"]
    return figures["matured"] >= share * decided


def _latest(since: FiguresByDay, limits: RetrainLimits) -> FiguresByDay:
    """The latest days, and as many more as hold the bads that a retrain learns from and is judged
    by.
    """
    latest = dict[str, Mapping[str, float]]()
    for day in sorted(since, reverse=True):
        if len(latest) >= limits.triage_days and _bads(latest) >= limits.minimum_bads:
            break
        latest[day] = since[day]
    return latest


def _bads(days: FiguresByDay) -> float:
    return sum(day["bads"] for day in days.values())


def _obstacle(state: LoopState, limits: RetrainLimits) -> str | None:
    """What forbids a retrain now, whatever the evidence is."""
    if not limits.enabled:
        return "retraining is switched off (CREDITRISK_RETRAINING)"
    if state.retrains_in_flight:
        return f"waiting for {state.retrains_in_flight} training run(s) in flight"
    if state.outcomes_in_flight:
        return f"waiting for {state.outcomes_in_flight} run(s) that are bringing outcomes"
    rejected = 0
    for one in state.past:
        if one.promoted or one.days_ago is None:
            break
        rejected += 1
    if rejected >= limits.rejection_limit:
        return (
            f"a person is asked to look: {rejected} retrains in a row gave no champion, "
            f"{limits.rejection_limit} allowed; launch the job retrain by hand to begin anew"
        )
    days_ago = [one.days_ago for one in state.past if one.days_ago is not None]
    if days_ago and days_ago[0] < limits.cooldown_days:
        return (
            f"cooling down: {days_ago[0]} days of data since the last retrain, "
            f"{limits.cooldown_days} wanted"
        )
    spent = sum(days < BUDGET_DAYS for days in days_ago)
    if spent >= limits.monthly_budget:
        return (
            f"the budget is spent: {spent} retrains in the last {BUDGET_DAYS} days of data, "
            f"{limits.monthly_budget} allowed"
        )
    return None
