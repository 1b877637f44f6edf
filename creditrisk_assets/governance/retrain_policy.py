"""The retrain policy: a pure function that decides if failed checks start a retrain, of which kind,
and why.

A cause is a failed evaluation of a check on a day. It starts at most one retrain; a cause about a
former champion starts none. Training waits for outcomes, of the days since the cause, that the
champion has not learned from. `monitoring.triage` chooses the kind of retrain; this module decides
if it may run now, in days of data and never by the wall clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from creditrisk_assets.monitoring.check_catalogue import BY_CHECK, WATCHES
from creditrisk_assets.monitoring.triage import Action, FiguresByDay, Triage, triage
from creditrisk_assets.policy import PerformanceLimits, RetrainingLimits
from creditrisk_assets.settings import Settings

BUDGET_DAYS = 30
"""Period of the budget in days of data: a month."""


@dataclass(frozen=True)
class Cause:
    """A failed evaluation of a drift or performance check."""

    record_id: int
    check: str
    partition: str
    value: str
    model_version: str


@dataclass(frozen=True)
class PastRetrain:
    """A finished retrain.

    Attributes:
        days_ago: in days of data; None if a person started it.
        promoted: whether it gave a new champion.
    """

    days_ago: int | None
    promoted: bool


class RetrainLimits(RetrainingLimits):
    """The policy's limits of retraining and of triage, and the setting that switches it off."""

    enabled: bool
    triage: PerformanceLimits

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits of the settings."""
        policy = settings.policy
        return cls(
            **dict(policy.retraining), enabled=settings.retraining, triage=policy.performance
        )


@dataclass(frozen=True)
class LoopState:
    """The input of the policy.

    Attributes:
        champion_version: the version in force, None before the first.
        answered: record ids of causes that have started a retrain.
        retrains_in_flight: unfinished retrain or train runs.
        outcomes_in_flight: unfinished runs that bring outcomes.
        past: finished retrains, newest first.
        evidence: matured days that the champion decided and was not trained on, by day; with the
            numbers of matured, pending and missing decisions.
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
    """The decision of the policy.

    Attributes:
        causes: of the retrain; empty if none starts.
        reason: with the deciding number.
        triage: of the evidence, if there is enough.
        needs_person: whether only a person can go on.
    """

    causes: tuple[Cause, ...]
    reason: str
    triage: Triage | None = None
    needs_person: bool = False


@dataclass(frozen=True)
class _Obstacle:
    """A reason against any retrain now."""

    reason: str
    needs_person: bool = False


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
            f"no open cause: {len(failures)} failed checks, {former} of them about a former "
            f"champion, {len(state.answered)} answered by a retrain",
        )
    first_day = min(cause.partition for cause in open_causes)
    what = f"{len(open_causes)} open causes since {first_day}"
    if obstacle := _obstacle(state, limits):
        return Decision((), f"{what}; {obstacle.reason}", needs_person=obstacle.needs_person)
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
    finding = triage(_latest(since, limits), state.validation, limits.triage)
    if finding.action is Action.NOTHING:
        return Decision((), f"{what}; nothing to do: {finding.sentence}", finding)
    return Decision(open_causes, f"{what}; {finding.action}: {finding.sentence}", finding)


def describe_causes(causes: Sequence[Cause]) -> str:
    """Failures by check, with the number of days and the latest finding; performance before
    drift.
    """
    order = [watch.check for watch in reversed(WATCHES)]
    lines = []
    for check in sorted({cause.check for cause in causes}, key=order.index):
        of_check = [cause for cause in causes if cause.check == check]
        latest = max(of_check, key=lambda cause: cause.partition)
        days = len({cause.partition for cause in of_check})
        wrong = BY_CHECK[check].failure
        finding = latest.value.removeprefix(f"{wrong}: ")
        lines.append(
            f"{wrong} on {days} {'day' if days == 1 else 'days'}, the latest {latest.partition}: "
            f"{finding}"
        )
    return "; ".join(lines)


def _is_complete(figures: Mapping[str, float], share: float) -> bool:
    """Whether enough of a day's decisions have outcomes: the first outcomes are a biased sample."""
    decided = figures["matured"] + figures["pending"] + figures["missing"]
    return figures["matured"] >= share * decided


def _latest(since: FiguresByDay, limits: RetrainLimits) -> FiguresByDay:
    """The latest `triage_days`, and more until they hold `minimum_bads`."""
    latest = dict[str, Mapping[str, float]]()
    for day in sorted(since, reverse=True):
        if len(latest) >= limits.triage_days and _bads(latest) >= limits.minimum_bads:
            break
        latest[day] = since[day]
    return latest


def _bads(days: FiguresByDay) -> float:
    return sum(day["bads"] for day in days.values())


def _obstacle(state: LoopState, limits: RetrainLimits) -> _Obstacle | None:
    """The reason against any retrain now, or None."""
    if not limits.enabled:
        return _Obstacle("retraining is switched off (CREDITRISK_RETRAINING)", needs_person=True)
    if state.retrains_in_flight:
        return _Obstacle(f"waiting for {state.retrains_in_flight} training run(s) in flight")
    if state.outcomes_in_flight:
        return _Obstacle(
            f"waiting for {state.outcomes_in_flight} run(s) that are bringing outcomes"
        )
    rejected = 0
    for retrain in state.past:
        if retrain.promoted or retrain.days_ago is None:
            break
        rejected += 1
    if rejected >= limits.rejection_limit:
        return _Obstacle(
            f"{rejected} retrains in a row gave no champion, {limits.rejection_limit} allowed; a "
            "person must look and launch the job retrain",
            needs_person=True,
        )
    days_ago = [retrain.days_ago for retrain in state.past if retrain.days_ago is not None]
    if days_ago and days_ago[0] < limits.cooldown_days:
        return _Obstacle(
            f"cooling down: {days_ago[0]} days of data since the last retrain, "
            f"{limits.cooldown_days} needed"
        )
    spent = sum(days < BUDGET_DAYS for days in days_ago)
    if spent >= limits.monthly_budget:
        return _Obstacle(
            f"the budget is spent: {spent} retrains in the last {BUDGET_DAYS} days of data, "
            f"{limits.monthly_budget} allowed",
            needs_person=True,
        )
    return None
