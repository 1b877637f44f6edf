"""What happens by itself. A sensor gathers facts, asks a pure function, and translates the answer.

`arrivals.look` decides which days are new, `retrain_policy.decide` whether to retrain and how.
"""

import json
from collections.abc import Callable

import dagster as dg
from upath import UPath

from creditrisk_assets.defs import events
from creditrisk_assets.defs.jobs import assess_performance, retrain, score_production
from creditrisk_assets.defs.retraining import history_mark, retrain_decision
from creditrisk_assets.defs.zones import arrivals_in
from creditrisk_assets.governance.retrain_policy import RetrainLimits
from creditrisk_assets.settings import Settings

INTERVAL_SECONDS = 5
CAUSES_SHOWN = 5


@dg.sensor(job=score_production, minimum_interval_seconds=INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.RUNNING)
def new_production_partitions(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
    """A new or changed file in the production landing zone gets its day validated, scored and checked."""
    if events.champion_in_force(context.instance) is None:
        return dg.SensorResult(skip_reason="there is no champion to score with yet; run the job train")
    return _day_requests(context, settings, settings.landing_production, lambda _: None, lambda _: "")


@dg.sensor(job=assess_performance, minimum_interval_seconds=INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.RUNNING)
def new_outcome_partitions(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
    """A new or changed file of outcomes gets its day's performance assessed, once the day has been scored, and again when the
    day is scored again. Outcomes of a day that never landed are looked at too, so that they are quarantined and not forgotten.
    """
    from creditrisk_assets.portfolio.landing import list_day

    decided = events.decided_days(context.instance)

    def not_yet(day: str) -> str | None:
        if day in decided:
            return None
        folder = settings.landing_production / day
        if not folder.exists():
            return None
        landed = list_day(folder)
        return f"{day} has outcomes but was not scored yet" if landed.files or landed.problem else None

    return _day_requests(context, settings, settings.landing_outcomes, not_yet, lambda day: f":{decided.get(day, 'undecided')}")


@dg.sensor(job=retrain, minimum_interval_seconds=INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.RUNNING)
def retrain_on_drift(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
    """Failed drift or performance checks are weighed when there are outcomes; a recalibration or a refit is started once for each
    cause, if the evidence asks for one and the policy allows it. As long as nothing has happened the last answer stands.
    """
    instance = context.instance
    mark = f"{history_mark(instance)} {RetrainLimits.of(settings)}"
    remembered: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
    if remembered.get("mark") == mark:
        return dg.SensorResult(skip_reason=remembered["reason"])
    decision = retrain_decision(instance, settings)
    if not decision.causes or decision.triage is None:
        return dg.SensorResult(skip_reason=decision.reason, cursor=json.dumps({"mark": mark, "reason": decision.reason}))
    identifiers = ",".join(str(cause.record_id) for cause in decision.causes)
    shown = decision.causes[:CAUSES_SHOWN]
    request = dg.RunRequest(
        run_key=f"causes:{identifiers}",
        tags={
            events.CAUSE_IDS_TAG: identifiers,
            events.LATEST_DAY_TAG: events.latest_day_of_data(instance),
            events.ACTION_TAG: decision.triage.action.value,
            events.SINCE_TAG: decision.triage.since,
            "creditrisk/cause_checks": ", ".join(sorted({cause.check for cause in decision.causes})),
            "creditrisk/cause_partitions": ", ".join(sorted({cause.partition for cause in decision.causes})),
            "creditrisk/cause_values": "; ".join(f"{one.check} on {one.partition}: {one.value}" for one in shown),
            "creditrisk/cause_evidence": decision.triage.sentence,
        },
    )
    return dg.SensorResult(run_requests=[request])


ALL = (new_production_partitions, new_outcome_partitions, retrain_on_drift)
"""The sensors that start runs."""


def _day_requests(
    context: dg.SensorEvaluationContext,
    settings: Settings,
    zone: UPath,
    not_yet: Callable[[str], str | None],
    state: Callable[[str], str],
) -> dg.SensorResult:
    """One run for each day that is new or changed; its key is the day and the content, so a corrected file runs again.

    Args:
        context: of the sensor; its cursor remembers how each day looked that was dealt with.
        settings: how long a file must have been still.
        zone: the landing zone.
        not_yet: the reason why a day must wait, or None.
        state: what else than its files makes a day new when it changes.
    """
    from creditrisk_assets.portfolio.landing import content_digest

    remembered: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
    arrivals = arrivals_in(zone, remembered, settings, state)
    requests, waiting, problems = [], list(arrivals.waiting), list(arrivals.problems)
    for day in arrivals.ready:
        if reason := not_yet(day.day):
            waiting.append(reason)
            continue
        try:
            digest = content_digest([file.path for file in day.files])[:32]
        except OSError as error:
            problems.append(f"{day.day}: {error}")
            continue
        requests.append(
            dg.RunRequest(
                partition_key=day.day,
                run_key=f"{day.day}:{digest}{state(day.day)}",
                tags={"creditrisk/content": digest, "creditrisk/files": str(len(day.files))},
            )
        )
        remembered[day.day] = arrivals.stamps[day.day]
    for problem in problems:
        context.log.warning(problem)
    cursor = json.dumps(remembered, sort_keys=True)
    if requests:
        return dg.SensorResult(run_requests=requests, cursor=cursor)
    notes = [f"{len(remembered)} days dealt with, none new", *(f"waiting: {one}" for one in waiting)]
    return dg.SensorResult(skip_reason="; ".join([*notes, *(f"problem: {one}" for one in problems)]), cursor=cursor)
