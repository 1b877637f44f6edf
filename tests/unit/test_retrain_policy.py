"""Whether failed checks start a retrain now."""

from dataclasses import replace

from creditrisk_assets.governance.retrain_policy import Cause, Decision, LoopState, decide

CALM = LoopState(
    champion_version="3",
    answered=frozenset(),
    retrains_in_flight=0,
    outcomes_in_flight=0,
    new_bads={"2026-02-01": 500, "2026-02-10": 60, "2026-02-11": 40},
    minimum_bads=100,
    days_since_retrain=None,
    cooldown_days=7,
)


def cause(record_id: int = 1, partition: str = "2026-02-10", model_version: str = "3") -> Cause:
    return Cause(record_id, "score_distribution_is_stable", partition, "0.31", model_version)


def test_an_open_cause_with_enough_outcomes_since_then_starts_a_retrain() -> None:
    assert decide([cause()], CALM) == Decision((cause(),), "1 open causes since 2026-02-10; 100 bads matured since then")


def test_all_open_causes_are_answered_by_one_retrain() -> None:
    causes = [cause(1), cause(2, "2026-02-11"), cause(5, "2026-02-10")]
    assert decide(causes, CALM).causes == tuple(causes)


def test_without_a_champion_nothing_is_retrained() -> None:
    """The first model is the job train's business, not an answer to drift."""
    decision = decide([cause()], replace(CALM, champion_version=None))
    assert decision == Decision((), "there is no champion yet; run the job train")


def test_without_failed_checks_nothing_is_retrained() -> None:
    assert decide([], CALM).causes == ()


def test_a_cause_is_answered_once() -> None:
    """A failed check stays in the log for ever; without memory each tick would train again."""
    decision = decide([cause(1), cause(2, "2026-02-11")], replace(CALM, answered=frozenset({1, 2})))
    assert decision.causes == ()
    assert decision.reason.startswith("no open cause: 2 failed checks known, 0 of them judged a former champion, 2 answered")


def test_a_new_evaluation_of_the_same_day_is_a_new_cause() -> None:
    state = replace(CALM, answered=frozenset({1}))
    assert decide([cause(2)], state).causes == (cause(2),)


def test_a_failure_of_a_former_champion_is_history() -> None:
    """It was drift against another model's training population; the champion of today has never been judged that day."""
    decision = decide([cause(model_version="2")], CALM)
    assert decision.causes == ()
    assert "1 of them judged a former champion" in decision.reason
    assert decide([cause(1, model_version="2"), cause(2)], CALM).causes == (cause(2),)


def test_a_training_run_in_flight_is_waited_for() -> None:
    decision = decide([cause()], replace(CALM, retrains_in_flight=2))
    assert decision == Decision((), "1 open causes since 2026-02-10; waiting for 2 training run(s) in flight")


def test_outcomes_on_their_way_are_waited_for() -> None:
    """A retrain started a minute too early would learn from half of a day."""
    decision = decide([cause()], replace(CALM, outcomes_in_flight=1))
    assert decision == Decision((), "1 open causes since 2026-02-10; waiting for 1 run(s) that are bringing outcomes")


def test_outcomes_from_before_the_cause_do_not_count() -> None:
    """500 bads of 1 February say nothing about a change on the 10th: the retrain would learn the old world again."""
    decision = decide([cause()], replace(CALM, minimum_bads=101))
    assert decision.causes == ()
    assert decision.reason == (
        "1 open causes since 2026-02-10; waiting for outcomes: 100 bads matured since then, 101 needed to learn from"
    )


def test_outcomes_are_counted_from_the_earliest_open_cause() -> None:
    state = replace(CALM, minimum_bads=101)
    assert decide([cause(1), cause(2, "2026-02-01")], state).causes == (cause(1), cause(2, "2026-02-01"))
    answered = replace(state, answered=frozenset({2}))
    assert decide([cause(1), cause(2, "2026-02-01")], answered).causes == ()


def test_without_any_new_outcome_a_cause_waits() -> None:
    assert "0 bads matured since then, 100 needed" in decide([cause()], replace(CALM, new_bads={})).reason


def test_after_a_retrain_the_next_waits_for_so_many_days_of_data() -> None:
    """A drift that persists fails its checks on each further day; each would train again on nearly the same rows."""
    early = decide([cause()], replace(CALM, days_since_retrain=6))
    assert early.causes == ()
    assert early.reason.endswith("cooling down: 6 days of data since the last retrain, 7 wanted")
    assert decide([cause()], replace(CALM, days_since_retrain=7)).causes == (cause(),)
    assert decide([cause()], replace(CALM, days_since_retrain=0, cooldown_days=0)).causes == (cause(),)
