"""Whether failed checks start a retrain now, and of which kind."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.governance.retrain_policy import (
    BUDGET_DAYS,
    Cause,
    LoopState,
    PastRetrain,
    RetrainLimits,
    decide,
    describe_causes,
)
from creditrisk_assets.monitoring.triage import Action, FiguresByDay
from creditrisk_assets.policy import PerformanceLimits
from creditrisk_assets.settings import Settings
from tests.support.policies import policy_of

VALIDATION = {"roc_auc": 0.78, "roc_auc_standard_error": 0.005}


def day_figures(bads: int, mean_pd: float = 0.2, auc: float = 0.70) -> dict[str, float]:
    """A bad rate of a fifth; by default the ranking has fallen."""
    return {
        "rows": 5.0 * bads,
        "matured": 5.0 * bads,
        "pending": 0.0,
        "missing": 0.0,
        "bads": float(bads),
        "mean_pd": mean_pd,
        "bad_rate": 0.2,
        "pd_variance": mean_pd * (1 - mean_pd),
        "roc_auc": auc,
        "roc_auc_standard_error": 0.3 / bads**0.5,
        "expected_roc_auc": 0.78,
        "expected_roc_auc_standard_error": 0.01,
    }


CALM = LoopState(
    champion_version="3",
    answered=frozenset(),
    retrains_in_flight=0,
    outcomes_in_flight=0,
    past=(),
    evidence={
        "2026-02-01": day_figures(500),
        "2026-02-10": day_figures(600),
        "2026-02-11": day_figures(400),
    },
    validation=VALIDATION,
)
LIMITS = RetrainLimits(
    enabled=True,
    minimum_bads=1_000,
    complete_share=0.6,
    cooldown_days=7,
    monthly_budget=3,
    rejection_limit=3,
    triage_days=14,
    triage=PerformanceLimits(alpha=0.001, floor=0.03),
)


def cause(record_id: int = 1, partition: str = "2026-02-10", model_version: str = "3") -> Cause:
    return Cause(record_id, "score_distribution_is_stable", partition, "0.31", model_version)


def test_the_causes_of_a_retrain_are_counted_by_check_with_performance_first() -> None:
    """The first five by date used to be listed, "pay_amt2 0.024 > 0.024" among them, and not what decided."""
    drift = [
        Cause(
            place,
            "feature_distributions_are_stable",
            f"2026-02-{place:02d}",
            f"Fields have shifted: pay_0 0.1{place}",
            "3",
        )
        for place in range(1, 8)
    ]
    ranking = Cause(
        9,
        "ranking_is_as_at_validation",
        "2026-02-04",
        "Discrimination is down: AUC 0.646, limit 0.733",
        "3",
    )
    assert describe_causes([*drift, ranking]) == (
        "Discrimination is down on 1 day, the latest 2026-02-04: AUC 0.646, limit 0.733; "
        "Fields have shifted on 7 days, the latest 2026-02-07: pay_0 0.17"
    )


def with_evidence(days: FiguresByDay) -> LoopState:
    return replace(CALM, evidence=days)


def past(*days_ago: int, promoted: bool = False) -> tuple[PastRetrain, ...]:
    return tuple(PastRetrain(ago, promoted) for ago in days_ago)


def test_an_open_cause_whose_outcomes_show_a_fallen_ranking_starts_a_refit() -> None:
    decision = decide([cause()], CALM, LIMITS)
    assert decision.causes == (cause(),)
    assert decision.triage is not None
    assert (decision.triage.action, decision.triage.since) == (Action.REFIT, "2026-02-10")
    assert decision.reason.startswith(
        "1 open causes since 2026-02-10; refit: 5,000 matured decisions of 2026-02-10 to 2026-02-11:"
    )


def test_an_alarm_whose_outcomes_are_as_expected_starts_nothing() -> None:
    """Covariates moved, the model is still right: training it again would only add noise."""
    decision = decide(
        [cause()], with_evidence({"2026-02-10": day_figures(1_000, auc=0.78)}), LIMITS
    )
    assert decision.causes == ()
    assert decision.triage is not None
    assert decision.triage.action is Action.NOTHING
    assert (
        "nothing to do: 5,000 matured decisions of 2026-02-10 to 2026-02-10: ranking holds"
        in decision.reason
    )


def test_a_wrong_level_alone_asks_for_a_recalibration() -> None:
    decision = decide(
        [cause()], with_evidence({"2026-02-10": day_figures(1_000, mean_pd=0.13, auc=0.78)}), LIMITS
    )
    assert decision.triage is not None
    assert decision.triage.action is Action.RECALIBRATE
    assert decision.causes == (cause(),)


def test_only_the_latest_days_are_weighed() -> None:
    """A change after many quiet days must not be averaged away by them."""
    quiet = {f"2026-01-{number:02d}": day_figures(1_000, auc=0.78) for number in range(1, 31)}
    changed = {f"2026-02-{number:02d}": day_figures(300) for number in range(1, 5)}
    state = with_evidence(quiet | changed)
    early = cause(partition="2026-01-01")
    assert decide([early], state, LIMITS.model_copy(update={"triage_days": 60})).causes == ()
    assert decide([early], state, LIMITS.model_copy(update={"triage_days": 4})).causes == (early,)


def test_where_days_are_small_more_of_them_are_weighed() -> None:
    """A retrain on a fortnight with thirty bads could neither learn from it nor be judged by it."""
    state = with_evidence({f"2026-01-{number:02d}": day_figures(50) for number in range(1, 31)})
    decision = decide([cause(partition="2026-01-01")], state, LIMITS)
    assert decision.triage is not None
    assert decision.triage.since == "2026-01-11"


def test_all_open_causes_are_answered_by_one_retrain() -> None:
    causes = [cause(1), cause(2, "2026-02-11"), cause(5, "2026-02-10")]
    assert decide(causes, CALM, LIMITS).causes == tuple(causes)


def test_without_a_champion_nothing_is_retrained() -> None:
    """The first model is the job train's business, not an answer to drift."""
    decision = decide([cause()], replace(CALM, champion_version=None), LIMITS)
    assert (decision.causes, decision.reason) == ((), "there is no champion yet; run the job train")


def test_without_failed_checks_nothing_is_retrained() -> None:
    assert decide([], CALM, LIMITS).causes == ()


def test_a_cause_is_answered_once() -> None:
    """A failed check stays in the log for ever; without memory each tick would train again."""
    decision = decide(
        [cause(1), cause(2, "2026-02-11")], replace(CALM, answered=frozenset({1, 2})), LIMITS
    )
    assert decision.causes == ()
    assert decision.reason.startswith(
        "no open cause: 2 failed checks, 0 of them about a former champion, 2 answered"
    )


def test_a_new_evaluation_of_the_same_day_is_a_new_cause() -> None:
    state = replace(CALM, answered=frozenset({1}))
    assert decide([cause(2)], state, LIMITS).causes == (cause(2),)


def test_a_failure_of_a_former_champion_is_history() -> None:
    """It was drift against another model's training population; the champion of today has never been judged that day."""
    decision = decide([cause(model_version="2")], CALM, LIMITS)
    assert decision.causes == ()
    assert "1 of them about a former champion" in decision.reason
    assert decide([cause(1, model_version="2"), cause(2)], CALM, LIMITS).causes == (cause(2),)


def test_runs_in_flight_are_waited_for() -> None:
    """A retrain started a minute too early would learn from half of a day."""
    decision = decide([cause()], replace(CALM, retrains_in_flight=2), LIMITS)
    assert (
        decision.reason == "1 open causes since 2026-02-10; waiting for 2 training run(s) in flight"
    )
    decision = decide([cause()], replace(CALM, outcomes_in_flight=1), LIMITS)
    assert (
        decision.reason
        == "1 open causes since 2026-02-10; waiting for 1 run(s) that are bringing outcomes"
    )
    assert decision.causes == ()


def test_outcomes_from_before_the_cause_do_not_count() -> None:
    """500 bads of 1 February say nothing about a change on the 10th: the retrain would learn the old world again."""
    decision = decide([cause()], CALM, LIMITS.model_copy(update={"minimum_bads": 1_001}))
    assert decision.causes == ()
    assert decision.reason == (
        "1 open causes since 2026-02-10; waiting for outcomes: 1000 bads matured since then, 1001 needed to learn from"
    )
    earlier = [cause(1), cause(2, "2026-02-01")]
    assert decide(earlier, CALM, LIMITS.model_copy(update={"minimum_bads": 1_001})).causes == tuple(
        earlier
    )
    assert (
        "0 bads matured since then, 1000 needed"
        in decide([cause()], with_evidence({}), LIMITS).reason
    )


def test_a_day_of_which_only_the_first_outcomes_have_come_is_no_evidence() -> None:
    """They are no fair sample, and the first to be corrected."""
    half = day_figures(1_000) | {"missing": 5_000.0}
    decision = decide(
        [cause()], with_evidence({"2026-02-10": half, "2026-02-11": day_figures(300)}), LIMITS
    )
    assert decision.causes == ()
    assert decision.reason.endswith(
        "300 bads matured since then, 1000 needed to learn from; 1 days are left out, whose outcomes are not complete"
    )
    most = day_figures(1_000) | {"pending": 1_000.0, "missing": 1_000.0}
    assert decide([cause()], with_evidence({"2026-02-10": most}), LIMITS).causes == (cause(),)
    assert decide(
        [cause()],
        with_evidence({"2026-02-10": half}),
        LIMITS.model_copy(update={"complete_share": 0.5}),
    ).causes == (cause(),)


def test_after_a_retrain_the_next_waits_for_so_many_days_of_data() -> None:
    """A drift that persists fails its checks on each further day; each would train again on nearly the same rows."""
    early = decide([cause()], replace(CALM, past=past(6)), LIMITS)
    assert early.causes == ()
    assert early.reason.endswith("cooling down: 6 days of data since the last retrain, 7 needed")
    assert decide([cause()], replace(CALM, past=past(7)), LIMITS).causes == (cause(),)
    assert decide(
        [cause()], replace(CALM, past=past(0)), LIMITS.model_copy(update={"cooldown_days": 0})
    ).causes == (cause(),)


def test_a_month_has_a_budget() -> None:
    spent = decide([cause()], replace(CALM, past=past(8, 15, 22, promoted=True)), LIMITS)
    assert spent.causes == ()
    assert spent.reason.endswith(
        "the budget is spent: 3 retrains in the last 30 days of data, 3 allowed"
    )
    assert decide(
        [cause()], replace(CALM, past=past(8, 15, BUDGET_DAYS, promoted=True)), LIMITS
    ).causes == (cause(),)
    assert decide([cause()], CALM, LIMITS.model_copy(update={"monthly_budget": 0})).causes == ()


def test_after_so_many_rejections_a_person_is_asked_and_their_own_retrain_begins_anew() -> None:
    """Repeated retrains on evidence that gives no better model end in a promotion by chance."""
    stuck = decide([cause()], replace(CALM, past=past(100, 200, 300)), LIMITS)
    assert stuck.causes == ()
    assert stuck.reason.endswith(
        "3 retrains in a row gave no champion, 3 allowed; a person must look and launch the job retrain"
    )
    looked = (PastRetrain(None, False), *past(100, 200, 300))
    assert decide([cause()], replace(CALM, past=looked), LIMITS).causes == (cause(),)
    promoted = (*past(100, 200), *past(300, promoted=True), *past(400))
    assert decide([cause()], replace(CALM, past=promoted), LIMITS).causes == (cause(),)


def test_the_kill_switch_stops_everything_and_names_its_setting() -> None:
    decision = decide([cause()], CALM, LIMITS.model_copy(update={"enabled": False}))
    assert decision.causes == ()
    assert (
        decision.reason
        == "1 open causes since 2026-02-10; retraining is switched off (CREDITRISK_RETRAINING)"
    )


def test_the_limits_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITRISK_RETRAINING", "false")
    limits = RetrainLimits.of(Settings(policy=policy_of({"retraining.monthly_budget": 9})))
    assert (limits.enabled, limits.monthly_budget) == (False, 9)


@given(
    st.lists(st.integers(0, 400), max_size=12).map(sorted),
    st.integers(0, 30),
    st.integers(0, 5),
    st.integers(1, 5),
)
def test_whatever_the_history_no_bound_is_ever_exceeded(
    days_ago: list[int], cooldown: int, budget: int, rejections: int
) -> None:
    limits = LIMITS.model_copy(
        update={"cooldown_days": cooldown, "monthly_budget": budget, "rejection_limit": rejections}
    )
    history = past(*days_ago)
    if decide([cause()], replace(CALM, past=history), limits).causes:
        assert not days_ago or days_ago[0] >= cooldown
        assert sum(ago < BUDGET_DAYS for ago in days_ago) < budget
        assert len(days_ago) < rejections
