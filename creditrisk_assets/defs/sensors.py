"""What happens by itself. A sensor gathers facts, asks a pure function, and translates the answer.

`arrivals.look` decides which days are new, `retrain_policy.decide` whether to retrain.
"""

import json
import time
from collections.abc import Callable, Set
from pathlib import Path

import dagster as dg

from creditrisk_assets.defs import events
from creditrisk_assets.defs.jobs import assess_performance, retrain, score_production, train
from creditrisk_assets.defs.monitoring import WATCHED_CHECKS
from creditrisk_assets.defs.partitions import DAYS
from creditrisk_assets.governance.retrain_policy import LoopState, decide
from creditrisk_assets.portfolio.arrivals import look
from creditrisk_assets.settings import Settings

INTERVAL_SECONDS = 5
CAUSES_SHOWN = 5

SCORES = dg.AssetKey("production_scores")


@dg.sensor(job=score_production, minimum_interval_seconds=INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.RUNNING)
def new_production_partitions(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
    """A new or changed file in the production landing zone gets its day validated, scored and checked."""
    if events.champion_in_force(context.instance) is None:
        return dg.SensorResult(skip_reason="there is no champion to score with yet; run the job train")
    return _day_requests(context, settings, settings.landing_production, lambda _: None)


@dg.sensor(job=assess_performance, minimum_interval_seconds=INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.RUNNING)
def new_outcome_partitions(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
    """A new or changed file of outcomes gets its day's performance assessed, once the day has been scored."""
    scored: Set[str] = context.instance.get_materialized_partitions(SCORES)
    return _day_requests(
        context,
        settings,
        settings.landing_outcomes,
        lambda day: None if day in scored else f"{day} has outcomes but was not scored yet",
    )


@dg.sensor(job=retrain, minimum_interval_seconds=INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.RUNNING)
def retrain_on_drift(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
    """Failed drift or performance checks start a retrain, once for each cause, when there are outcomes to learn from."""
    instance = context.instance
    in_force = events.champion_in_force(instance)
    decision = decide(
        events.failed_evaluations(instance, WATCHED_CHECKS),
        LoopState(
            champion_version=in_force.model_version if in_force else None,
            answered=events.answered_causes(instance, retrain.name),
            retrains_in_flight=events.runs_in_flight(instance, [retrain.name, train.name]),
            outcomes_in_flight=events.runs_in_flight(instance, [assess_performance.name]),
            new_bads=events.matured_bads(instance, events.champion_training_days(instance)),
            minimum_bads=settings.retrain_minimum_bads,
        ),
    )
    if not decision.causes:
        return dg.SensorResult(skip_reason=decision.reason)
    identifiers = ",".join(str(cause.record_id) for cause in decision.causes)
    shown = decision.causes[:CAUSES_SHOWN]
    request = dg.RunRequest(
        run_key=f"causes:{identifiers}",
        tags={
            events.CAUSE_IDS_TAG: identifiers,
            "creditrisk/cause_checks": ", ".join(sorted({cause.check for cause in decision.causes})),
            "creditrisk/cause_partitions": ", ".join(sorted({cause.partition for cause in decision.causes})),
            "creditrisk/cause_values": "; ".join(f"{one.check} on {one.partition}: {one.value}" for one in shown),
        },
    )
    return dg.SensorResult(run_requests=[request])


ALL = (new_production_partitions, new_outcome_partitions, retrain_on_drift)


def _day_requests(
    context: dg.SensorEvaluationContext,
    settings: Settings,
    zone: Path,
    not_yet: Callable[[str], str | None],
) -> dg.SensorResult:
    """One run for each day that is new or changed; its key is the day and the content, so a corrected file runs again.

    `not_yet` gives the reason why a day must wait, or None.
    """
    from creditrisk_assets.portfolio.landing import content_digest, list_days

    remembered: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
    listings, strangers = list_days(zone)
    valid = frozenset(day.day for day in listings if DAYS.has_partition_key(day.day))
    arrivals = look(listings, strangers, remembered, valid, time.time(), settings.settle_seconds)
    waiting, problems = list(arrivals.waiting), list(arrivals.problems)
    requests = []
    for day in arrivals.ready:
        if reason := not_yet(day.day):
            waiting.append(reason)
            continue
        try:
            digest = content_digest([file.path for file in day.files])
        except OSError as error:
            problems.append(f"{day.day}: {error}")
            continue
        requests.append(
            dg.RunRequest(
                partition_key=day.day,
                run_key=f"{day.day}:{digest[:32]}",
                tags={"creditrisk/content": digest[:32], "creditrisk/files": str(len(day.files))},
            )
        )
        remembered[day.day] = arrivals.stamps[day.day]
    for problem in problems:
        context.log.warning(problem)
    cursor = json.dumps(remembered, sort_keys=True)
    if requests:
        return dg.SensorResult(run_requests=requests, cursor=cursor)
    notes = [f"{len(listings)} days known, none new", *(f"waiting: {one}" for one in waiting)]
    return dg.SensorResult(skip_reason="; ".join([*notes, *(f"problem: {one}" for one in problems)]), cursor=cursor)
