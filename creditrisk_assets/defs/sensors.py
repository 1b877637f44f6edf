"""Sensors that start runs. A sensor collects facts, calls a pure function, and translates its
answer.

`find_arrivals` decides which days are new, `retrain_policy.decide` whether and how to retrain.
"""

import json
from collections.abc import Callable, Mapping, Sequence

import dagster as dg

from creditrisk_assets.defs import event_log
from creditrisk_assets.defs.champion_commands import record_policy
from creditrisk_assets.defs.jobs import assess_performance, retrain, score_production
from creditrisk_assets.defs.landing_scan import arrivals_in
from creditrisk_assets.defs.metadata import sensor
from creditrisk_assets.defs.partitions import DAYS
from creditrisk_assets.defs.retraining import history_mark, retrain_decision
from creditrisk_assets.governance.retrain_policy import RetrainLimits, describe_causes
from creditrisk_assets.landing.arrivals import Arrivals
from creditrisk_assets.landing.cursor import LandingCursor
from creditrisk_assets.settings import Settings

INTERVAL_SECONDS = 5
RUNS_PER_TICK = 200
"""Limit of a tick, which has a minute and reads the files of each requested day; the next ticks
request the other days.
"""

UNDECIDED = "undecided"


@sensor(
    job=score_production,
    minimum_interval_seconds=INTERVAL_SECONDS,
)
def new_production_partitions(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SensorResult:
    """Validates, scores and checks a day when a new or changed file of it is in the production
    landing zone.
    """
    if event_log.champion_in_force(context.instance) is None:
        return dg.SensorResult(
            skip_reason="there is no champion to score with yet; run the job train"
        )
    memory = LandingCursor.parse(context.cursor)
    arrivals, states = arrivals_in(settings.landing_production, memory, settings)
    return _day_requests(context, memory, arrivals, states, lambda _: None)


@sensor(
    job=assess_performance,
    minimum_interval_seconds=INTERVAL_SECONDS,
)
def new_outcome_partitions(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SensorResult:
    """Assesses a day's performance when a new or changed file of outcomes has landed and the day is
    scored, and again when the day is scored again. Outcomes of a day that never landed are
    processed too, so that they reach the quarantine.
    """
    from creditrisk_assets.landing.listing import list_day

    memory = LandingCursor.parse(context.cursor)
    scored_since = (
        event_log.decided_days(context.instance, after=memory.last_event)
        if memory.last_event is not None
        else {}
    )
    memory.last_event = max(
        [*scored_since.values(), memory.last_event or event_log.latest_decided(context.instance)]
    )

    def scored(days: Sequence[str]) -> dict[str, str]:
        decided = event_log.decided_days(context.instance, days)
        return {day: f":{decided.get(day, UNDECIDED)}" for day in days}

    arrivals, states = arrivals_in(
        settings.landing_outcomes, memory, settings, scored, scored_since
    )

    def not_yet(day: str) -> str | None:
        if states[day] != f":{UNDECIDED}":
            return None
        folder = settings.landing_production / day
        if not folder.exists():
            return None
        landed = list_day(folder)
        return (
            f"{day} has outcomes but was not scored yet" if landed.files or landed.problem else None
        )

    return _day_requests(context, memory, arrivals, states, not_yet)


@sensor(
    job=retrain,
    minimum_interval_seconds=INTERVAL_SECONDS,
)
def retrain_on_drift(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SensorResult:
    """Weighs failed drift and performance checks when outcomes exist, and starts one recalibration
    or refit for each cause if the evidence and the policy call for it. The last answer stands until
    something happens. A changed policy is recorded in the ledger first.
    """
    instance = context.instance
    record_policy(instance, settings)
    mark = f"{history_mark(instance)} {RetrainLimits.of(settings)}"
    remembered: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
    if remembered.get("mark") == mark:
        return dg.SensorResult(skip_reason=remembered["reason"])
    decision = retrain_decision(instance, settings)
    if not decision.causes or decision.triage is None:
        return dg.SensorResult(
            skip_reason=decision.reason,
            cursor=json.dumps({"mark": mark, "reason": decision.reason}),
        )
    identifiers = ",".join(str(cause.record_id) for cause in decision.causes)
    request = dg.RunRequest(
        run_key=f"causes:{identifiers}",
        tags={
            event_log.CAUSE_IDS_TAG: identifiers,
            event_log.LATEST_DAY_TAG: event_log.latest_day_of_data(instance),
            event_log.ACTION_TAG: decision.triage.action.value,
            event_log.SINCE_TAG: decision.triage.since,
            "creditrisk/cause_checks": ", ".join(
                sorted({cause.check for cause in decision.causes})
            ),
            "creditrisk/cause_partitions": ", ".join(
                sorted({cause.partition for cause in decision.causes})
            ),
            "creditrisk/cause_values": describe_causes(decision.causes),
            "creditrisk/cause_evidence": decision.triage.sentence,
        },
    )
    return dg.SensorResult(run_requests=[request])


STARTING = (new_production_partitions, new_outcome_partitions, retrain_on_drift)
"""The sensors that start runs for data and causes."""


def _day_requests(
    context: dg.SensorEvaluationContext,
    memory: LandingCursor,
    arrivals: Arrivals,
    states: Mapping[str, str],
    not_yet: Callable[[str], str | None],
) -> dg.SensorResult:
    """A run for each new or changed day. Its key contains day and content, so a corrected file
    starts another run.

    Args:
        context: context of the sensor.
        memory: cursor with the stamp of each processed day; updated.
        arrivals: new and changed files.
        states: state of each scanned day apart from its files.
        not_yet: returns the reason why a day must wait, or None.
    """
    from creditrisk_assets.landing.listing import content_digest

    requests: list[dg.RunRequest] = []
    waiting, problems = list(arrivals.waiting), list(arrivals.problems)
    again = list(arrivals.unsettled)
    for day in arrivals.ready:
        if len(requests) >= RUNS_PER_TICK:
            again.append(day.day)
            continue
        if reason := not_yet(day.day):
            waiting.append(reason)
            continue
        try:
            digest = content_digest([file.path for file in day.files])[:32]
        except OSError as error:
            problems.append(f"{day.day}: {error}")
            again.append(day.day)
            continue
        requests.append(
            dg.RunRequest(
                partition_key=day.day,
                run_key=f"{day.day}:{digest}{states.get(day.day, '')}",
                tags={"creditrisk/content": digest, "creditrisk/files": str(len(day.files))},
            )
        )
        memory.mark_done(day.day, arrivals.stamps[day.day])
    memory.revisit(again)
    for problem in problems:
        context.log.warning(problem)
    if requests:
        landed = DAYS.build_add_request([str(request.partition_key) for request in requests])
        return dg.SensorResult(
            run_requests=requests, dynamic_partitions_requests=[landed], cursor=memory.dump()
        )
    notes = [
        f"{memory.days_done} days dealt with, none new",
        *(f"waiting: {one}" for one in waiting),
    ]
    return dg.SensorResult(
        skip_reason="; ".join([*notes, *(f"problem: {one}" for one in problems)]),
        cursor=memory.dump(),
    )
