"""Whether failed checks start a retrain now: a pure function of what has happened, with its reason.

A cause is one evaluation of one check on one day. It is answered once; a cause that judged a former champion is history; and
nothing is trained before there are outcomes, of the days since the cause, that the champion has not learned from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """One failed evaluation of a drift or performance check."""

    record_id: int
    check: str
    partition: str
    value: str
    model_version: str


@dataclass(frozen=True)
class LoopState:
    """What the policy looks at.

    Attributes:
        champion_version: the version in force, None before the first.
        answered: record ids that a retrain has been started for.
        retrains_in_flight: retrain or train runs not yet finished.
        outcomes_in_flight: runs that are still bringing outcomes in.
        new_bads: matured bads of each day that the champion was not trained on.
        minimum_bads: how many of those a retrain needs.
        days_since_retrain: days of data since the last retrain was started, None before the first.
        cooldown_days: how many there must be.
    """

    champion_version: str | None
    answered: frozenset[int]
    retrains_in_flight: int
    outcomes_in_flight: int
    new_bads: Mapping[str, int]
    minimum_bads: int
    days_since_retrain: int | None
    cooldown_days: int


@dataclass(frozen=True)
class Decision:
    """The causes to retrain for, none meaning no retrain; and why."""

    causes: tuple[Cause, ...]
    reason: str


def decide(failures: Sequence[Cause], state: LoopState) -> Decision:
    """Decide from the latest evaluation of each check on each day that failed."""
    if state.champion_version is None:
        return Decision((), "there is no champion yet; run the job train")
    open_causes = tuple(
        cause for cause in failures if cause.record_id not in state.answered and cause.model_version == state.champion_version
    )
    former = sum(cause.model_version != state.champion_version for cause in failures)
    if not open_causes:
        return Decision(
            (),
            f"no open cause: {len(failures)} failed checks known, {former} of them judged a former champion, "
            f"{len(state.answered)} answered by a retrain",
        )
    first_day = min(cause.partition for cause in open_causes)
    what = f"{len(open_causes)} open causes since {first_day}"
    if state.retrains_in_flight:
        return Decision((), f"{what}; waiting for {state.retrains_in_flight} training run(s) in flight")
    if state.outcomes_in_flight:
        return Decision((), f"{what}; waiting for {state.outcomes_in_flight} run(s) that are bringing outcomes")
    since = state.days_since_retrain
    if since is not None and since < state.cooldown_days:
        return Decision((), f"{what}; cooling down: {since} days of data since the last retrain, {state.cooldown_days} wanted")
    new_bads = sum(bads for day, bads in state.new_bads.items() if day >= first_day)
    if new_bads < state.minimum_bads:
        return Decision(
            (), f"{what}; waiting for outcomes: {new_bads} bads matured since then, {state.minimum_bads} needed to learn from"
        )
    return Decision(open_causes, f"{what}; {new_bads} bads matured since then")
