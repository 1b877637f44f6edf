"""Runs a job in this process, as `creditrisk train` and `creditrisk retrain` do, and reports its
result in words.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from creditrisk_assets.definitions import build_definitions
from creditrisk_assets.defs import event_log
from creditrisk_assets.defs.check_results import BLOCKING
from creditrisk_assets.defs.orphaned_runs import PROCESS_TAG, this_process
from creditrisk_assets.settings import Settings

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Turns off Dagster's console log; events still go to the instance."""

FAILURES_SHOWN = 5


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes:
        run_id: of Dagster.
        failures: the reasons for a failure, in words; empty if it succeeded.
        metadata: values of the metadata of each asset that the run materialized.
    """

    run_id: str
    failures: tuple[str, ...]
    metadata: Mapping[str, Mapping[str, object]]


def run_here(
    instance: dg.DagsterInstance,
    settings: Settings,
    job: str,
    tags: Mapping[str, str],
    on_progress: Callable[[str, int, int], None],
) -> Outcome:
    """Execute a job in this process on a real instance, so that the Dagster UI shows the run.

    Args:
        instance: of the store.
        settings: of the store.
        job: its name.
        tags: of the run.
        on_progress: called with the current step, the number of finished steps, and of all steps.
    """
    resolved = build_definitions(settings).resolve_job_def(job)
    run_id = str(uuid.uuid4())
    steps, ended = len(resolved.graph.node_defs), 0

    def report_step(entry: dg.EventLogEntry) -> None:
        nonlocal ended
        event = entry.dagster_event
        if event is None or event.step_key is None:
            return
        if event.is_step_success or event.is_step_failure:
            ended += 1
        if event.is_step_start or event.is_step_success or event.is_step_failure:
            on_progress(event.step_key, ended, steps)

    instance.add_event_listener(run_id, report_step)
    result = resolved.execute_in_process(
        instance=instance,
        tags={**tags, PROCESS_TAG: this_process()},
        run_config=QUIET,
        raise_on_error=False,
        run_id=run_id,
    )
    metadata: dict[str, dict[str, object]] = {}
    for event in result.get_asset_materialization_events():
        if event.asset_key is not None:
            metadata[event.asset_key.to_user_string()] = {
                name: value.value for name, value in event.materialization.metadata.items()
            }
    return Outcome(result.run_id, () if result.success else failures_of(result), metadata)


def failures_of(result: dg.ExecuteInProcessResult) -> tuple[str, ...]:
    """The reasons for a failed run: the summary of each failed blocking check, and the cause of
    each other failed step.
    """
    names = {key.name for key in BLOCKING}
    checks = [
        str(check.metadata["summary"].value)
        for check in result.get_asset_check_evaluations()
        if not check.passed and check.check_name in names
    ]
    causes = []
    for event in result.all_events:
        if event.is_step_failure:
            error = _first_project_error(event.step_failure_data.error)
            if error is not None and error.cls_name != "DagsterAssetCheckFailedError":
                causes.append(re.sub(rf"^[\w.]*{error.cls_name}: ", "", error.message.strip()))
    return tuple(dict.fromkeys([*checks, *causes]))[:FAILURES_SHOWN] or (
        "it ended without a reason; see the run in the Dagster UI",
    )


def _first_project_error(error: SerializableErrorInfo | None) -> SerializableErrorInfo | None:
    """The outermost error of this project, which names the setting or file; otherwise the root
    cause.
    """
    chain = []
    while error is not None:
        chain.append(error)
        error = error.cause
    project_errors = (
        link
        for link in chain
        if link.message.startswith(
            ("creditrisk_assets.", "dagster._core.definitions.events.Failure")
        )
    )
    return next(project_errors, chain[-1] if chain else None)


def retrain_tags(
    instance: dg.DagsterInstance, action: str | None, since: str | None
) -> dict[str, str]:
    """The tags of a retrain that a person starts.

    Args:
        instance: of the store.
        action: `recalibrate` or `refit`; None for a refit.
        since: first day of the evidence for a recalibration.
    """
    latest = event_log.day_of_data(instance)
    tags = {event_log.LATEST_DAY_TAG: latest} if latest else {}
    if action:
        tags[event_log.ACTION_TAG] = action
    if since:
        tags[event_log.SINCE_TAG] = since
    return tags
