"""OpenLineage events of the runs that materialize assets, as an option of the extra `lineage`.

The sensor exists where one of OpenLineage's own environment variables is set, such as
`OPENLINEAGE_URL`. It reads finished and started runs from Dagster's history and sends their events
from the code server, so a receiver that is down delays events and fails no run. A run is one
OpenLineage job; each asset in it is another, with that one as its parent.
"""

import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from creditrisk_assets.defs.event_log import PARTITION_TAG
from creditrisk_assets.defs.metadata import sensor
from creditrisk_assets.defs.table_schemas import LINEAGE, SCHEMA
from creditrisk_assets.settings import Settings

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent

INTERVAL_SECONDS = 30
RUNS_PER_TICK = 20
OVERLAP_SECONDS = 60.0
"""Runs are read again for this long: two may end in the same moment, or be committed late."""

PREFIX = "OPENLINEAGE"
NAMESPACE = "creditrisk"
"""Namespace of jobs and data sets without `OPENLINEAGE_NAMESPACE`."""
PRODUCER = "urn:creditrisk:lineage_events"
ASSETS_OF_RUNS = uuid.UUID("5f0e7c39-0f2c-5d1c-9a0c-6a1c5a7d3c11")
"""Namespace of the ids of an asset's runs: the same materialization has the same id again."""

EVENTS = {
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.STEP_START,
    dg.DagsterEventType.STEP_FAILURE,
}

ENDS = {
    dg.DagsterRunStatus.SUCCESS: "COMPLETE",
    dg.DagsterRunStatus.FAILURE: "FAIL",
    dg.DagsterRunStatus.CANCELED: "ABORT",
}
"""OpenLineage's state of an ended run."""

SENT = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING, *ENDS)
"""Runs that have events; one in the queue has none yet."""


def is_on() -> bool:
    """True if a variable of OpenLineage names a receiver and none turns it off."""
    named = any(
        name in (f"{PREFIX}_URL", f"{PREFIX}_CONFIG") or name.startswith(f"{PREFIX}__TRANSPORT")
        for name in os.environ
    )
    return named and os.environ.get(f"{PREFIX}_DISABLED", "").strip().lower() != "true"


@dataclass
class _Cursor:
    """The runs whose events were sent.

    Attributes:
        after: runs that changed later than this are read, in seconds since the epoch.
        begun: runs whose START was sent.
        ended: runs whose end was sent, with the time of their last change.
    """

    after: float
    begun: list[str] = field(default_factory=list)
    ended: dict[str, float] = field(default_factory=dict)

    def dump(self) -> str:
        return json.dumps(vars(self))


@dataclass(frozen=True)
class AssetRun:
    """An asset in a run.

    Attributes:
        asset: its key.
        parents: keys of the assets that it reads.
        began: of its step, in seconds since the epoch.
        ended: of its step.
        materialization: None if there was none.
        problem: kind of the error of its step, None without one.
    """

    asset: str
    parents: Sequence[str]
    began: float
    ended: float
    materialization: dg.AssetMaterialization | None
    problem: str | None


@dataclass(frozen=True)
class LineageRun:
    """A run with its assets, as its events tell it.

    Attributes:
        run_id: of Dagster.
        job: of Dagster.
        day: its partition, None without one.
        began: in seconds since the epoch.
        ended: None if it is not over.
        state: OpenLineage's state of its end; None if it is not over.
        assets: those that it was to materialize, in the order of their steps.
        address: page of the run.
    """

    run_id: str
    job: str
    day: str | None
    began: float
    ended: float | None
    state: str | None
    assets: Sequence[AssetRun]
    address: str


@sensor(minimum_interval_seconds=INTERVAL_SECONDS)
def lineage_events(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SensorResult:
    """Sends the runs that materialize assets to the receiver of OpenLineage events that the
    environment names, with their inputs, outputs, column schemas and column lineage. Events of a
    receiver that does not answer are sent later. Starts no run.
    """
    try:
        from openlineage.client import OpenLineageClient
    except ModuleNotFoundError:
        return dg.SensorResult(
            skip_reason="a variable of OpenLineage is set, and openlineage-python is not "
            "installed; valid: pip install 'creditrisk[lineage]', or OPENLINEAGE_DISABLED=true"
        )
    if context.cursor is None:
        begin = _Cursor(time.time())
        return dg.SensorResult(
            skip_reason="events are sent of runs from now on", cursor=begin.dump()
        )
    cursor, sent, runs = _Cursor(**json.loads(context.cursor)), 0, 0
    repository = context.repository_def
    if repository is None:
        raise RuntimeError("the sensor has no repository; valid: a sensor of the definitions")
    try:
        with _restored_environment():
            client = OpenLineageClient()
        for record in _changed_runs(context.instance, cursor):
            run = _lineage_run(context.instance, record, repository.asset_graph, settings)
            for event in _events_due(run, cursor):
                client.emit(event)
                sent += 1
            runs += 1
            _remember(cursor, run, record.update_timestamp.timestamp())
    except Exception as error:  # a transport may raise anything; the next tick goes on from here
        context.log.warning("the receiver of lineage events: %s: %s", type(error).__name__, error)
        reason = f"{sent} events sent, then {type(error).__name__}; the others are sent later"
        return dg.SensorResult(skip_reason=reason, cursor=cursor.dump())
    return dg.SensorResult(skip_reason=f"{sent} events of {runs} runs sent", cursor=cursor.dump())


@contextmanager
def _restored_environment() -> Iterator[None]:
    """Undo the client's changes to the environment: it writes what it has read there under other
    names, which would count when the setting has changed.
    """
    before = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    yield
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    os.environ.update(before)


def _changed_runs(instance: dg.DagsterInstance, cursor: _Cursor) -> Iterator[dg.RunRecord]:
    """Runs that have changed, the first change first."""
    changed = dg.RunsFilter(
        statuses=[*SENT], updated_after=datetime.fromtimestamp(cursor.after, UTC)
    )
    records = instance.get_run_records(
        changed,
        limit=RUNS_PER_TICK + len(cursor.ended),
        order_by="update_timestamp",
        ascending=True,
    )
    return (one for one in records if one.dagster_run.run_id not in cursor.ended)


def _remember(cursor: _Cursor, run: LineageRun, changed: float) -> None:
    if run.state is None:
        if run.run_id not in cursor.begun:
            cursor.begun.append(run.run_id)
        return
    cursor.begun = [one for one in cursor.begun if one != run.run_id]
    cursor.ended[run.run_id] = changed
    cursor.after = max(cursor.after, changed - OVERLAP_SECONDS)
    cursor.ended = {one: at for one, at in cursor.ended.items() if at >= cursor.after}


def _lineage_run(
    instance: dg.DagsterInstance,
    record: dg.RunRecord,
    graph: Any,
    settings: Settings,
) -> LineageRun:
    """The facts of a run, from its events."""
    run, began = record.dagster_run, record.start_time or record.create_timestamp.timestamp()
    ended = record.end_time
    planned: dict[dg.AssetKey, dg.AssetMaterialization | None] = {}
    steps: dict[str, tuple[float, float, str | None]] = {}
    for entry in instance.all_logs(run.run_id, of_type=EVENTS):
        event = entry.get_dagster_event()
        kind, step = event.event_type, event.step_key or ""
        if kind is dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
            planned.setdefault(event.asset_materialization_planned_data.asset_key, None)
        elif kind is dg.DagsterEventType.STEP_START:
            steps[step] = (entry.timestamp, entry.timestamp, None)
        elif kind is dg.DagsterEventType.ASSET_MATERIALIZATION:
            materialization = event.step_materialization_data.materialization
            planned[materialization.asset_key] = materialization
            steps[step] = (steps.get(step, (began, 0.0, None))[0], entry.timestamp, None)
        else:
            error = event.step_failure_data.error
            # The message may quote a customer's value; the page of the run has it.
            kind_of_error = (error and error.cls_name) or "failed"
            steps[step] = (steps.get(step, (began, 0.0, None))[0], entry.timestamp, kind_of_error)
    assets = []
    for key, made in planned.items():
        name = key.to_user_string()
        never_began = (ended or began, ended or began, None)
        first, last, problem = steps.get(name, never_began)
        parents = sorted(one.to_user_string() for one in graph.get(key).parent_keys)
        assets.append(AssetRun(name, parents, first, last, made, problem))
    return LineageRun(
        run_id=run.run_id,
        job=run.job_name,
        day=run.tags.get(PARTITION_TAG),
        began=began,
        ended=ended,
        state=ENDS.get(run.status),
        assets=sorted(assets, key=lambda one: (one.began, one.asset)),
        address=f"{settings.dagster_url}/runs/{run.run_id}",
    )


def _events_due(run: LineageRun, cursor: _Cursor) -> Iterator["RunEvent"]:
    """The events of a run that were not sent; none of a run without assets, such as a watch."""
    events = events_of(run)
    return (one for place, one in enumerate(events) if place or run.run_id not in cursor.begun)


def events_of(run: LineageRun) -> Iterator["RunEvent"]:
    """The events of a run: its start first, and of a run that is over the start and end of each
    asset, and its own end.
    """
    if not run.assets:
        return
    yield _event("START", run.began, _run_of(run), _job(run.job))
    if run.state is None or run.ended is None:
        return
    for one in run.assets:
        asset_run, job = _run_of(run, one), _job(f"{run.job}.{one.asset}")
        inputs = [_input(parent) for parent in one.parents]
        yield _event("START", one.began, asset_run, job, inputs, [_output(one.asset, None)])
        made = one.materialization
        state = "COMPLETE" if made else "ABORT" if run.state == "ABORT" else "FAIL"
        yield _event(state, one.ended, asset_run, job, inputs, [_output(one.asset, made)])
    made_assets = [one for one in run.assets if one.materialization]
    own = {one.asset for one in run.assets}
    inputs = [
        _input(parent)
        for parent in dict.fromkeys(parent for one in run.assets for parent in one.parents)
        if parent not in own
    ]
    outputs = [_output(one.asset, one.materialization) for one in made_assets]
    yield _event(run.state, run.ended, _run_of(run), _job(run.job), inputs, outputs)


def _event(
    state: str,
    at: float,
    run: "Run",
    job: "Job",
    inputs: "Sequence[InputDataset]" = (),
    outputs: "Sequence[OutputDataset]" = (),
) -> "RunEvent":
    from openlineage.client.event_v2 import RunEvent, RunState

    when = datetime.fromtimestamp(at, UTC).isoformat()
    return RunEvent(
        eventTime=when,
        producer=PRODUCER,
        run=run,
        job=job,
        eventType=RunState[state],
        inputs=[*inputs],
        outputs=[*outputs],
    )


def _run_of(run: LineageRun, asset: AssetRun | None = None) -> "Run":
    """The run, or that of an asset in it, with the day, the engine, the parent and the error."""
    from openlineage.client.event_v2 import Run
    from openlineage.client.facet_v2 import (
        error_message_run,
        external_query_run,
        nominal_time_run,
        parent_run,
        processing_engine_run,
    )

    facets: dict[str, Any] = {
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
            version=dg.__version__, name="dagster"
        ),
        "externalQuery": external_query_run.ExternalQueryRunFacet(
            externalQueryId=run.run_id, source=run.address
        ),
    }
    if run.day is not None:
        day = date.fromisoformat(run.day)
        facets["nominalTime"] = nominal_time_run.NominalTimeRunFacet(
            nominalStartTime=f"{day}T00:00:00Z",
            nominalEndTime=f"{day + timedelta(days=1)}T00:00:00Z",
        )
    problems = [one for one in run.assets if one.problem and asset in (None, one)]
    if problems:
        failed = ", ".join(f"{one.asset}: {one.problem}" for one in problems)
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            message=f"{failed}; see {run.address}", programmingLanguage="python"
        )
    if asset is None:
        return Run(run.run_id, facets)
    facets["parent"] = parent_run.ParentRunFacet(
        run=parent_run.Run(run.run_id), job=parent_run.Job(_namespace(), run.job)
    )
    name = f"{run.run_id}/{asset.asset}"
    return Run(str(uuid.uuid5(ASSETS_OF_RUNS, name)), facets)


def _job(name: str) -> "Job":
    from openlineage.client.event_v2 import Job
    from openlineage.client.facet_v2 import job_type_job

    kind = job_type_job.JobTypeJobFacet(
        processingType="BATCH", integration="DAGSTER", jobType="ASSET" if "." in name else "JOB"
    )
    return Job(_namespace(), name, {"jobType": kind})


def _input(asset: str) -> "InputDataset":
    """An asset that was read. Dagster records the version of a partition that was read as a hash of
    versions, so no event names it.
    """
    from openlineage.client.event_v2 import InputDataset

    return InputDataset(_namespace(), asset)


def _output(asset: str, made: dg.AssetMaterialization | None) -> "OutputDataset":
    """An asset that was written: version, columns, their sources, and rows."""
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    if made is None:
        return OutputDataset(_namespace(), asset)
    metadata: Mapping[str, Any] = made.metadata
    facets = _version((made.tags or {}).get("dagster/data_version"))
    if SCHEMA in metadata:
        facets["schema"] = _schema(metadata[SCHEMA].value)
    if LINEAGE in metadata:
        facets["columnLineage"] = _column_lineage(metadata[LINEAGE].value)
    rows = metadata.get("dagster/row_count")
    counts: dict[str, Any] = {}
    if rows is not None:
        count = statistics.OutputStatisticsOutputDatasetFacet(rowCount=rows.value)
        counts["outputStatistics"] = count
    return OutputDataset(_namespace(), asset, facets=facets, outputFacets=counts)


def _version(version: str | None) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset as versions

    return {} if version is None else {"version": versions.DatasetVersionDatasetFacet(version)}


def _schema(schema: dg.TableSchema) -> Any:
    from openlineage.client.facet_v2 import schema_dataset

    return schema_dataset.SchemaDatasetFacet(
        fields=[
            schema_dataset.SchemaDatasetFacetFields(one.name, one.type, one.description)
            for one in schema.columns
        ]
    )


def _column_lineage(lineage: dg.TableColumnLineage) -> Any:
    from openlineage.client.facet_v2 import column_lineage_dataset as columns

    return columns.ColumnLineageDatasetFacet(
        fields={
            name: columns.Fields(
                inputFields=[
                    columns.InputField(
                        _namespace(), one.asset_key.to_user_string(), one.column_name
                    )
                    for one in sources
                ]
            )
            for name, sources in lineage.deps_by_column.items()
        }
    )


def _namespace() -> str:
    return os.environ.get(f"{PREFIX}_NAMESPACE") or NAMESPACE
