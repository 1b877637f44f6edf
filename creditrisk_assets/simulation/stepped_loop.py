"""The loop without its daemon: steps jobs and sensors of a Dagster instance in this process."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import dagster as dg
import sqlalchemy as sa

from creditrisk_assets.definitions import build_definitions
from creditrisk_assets.defs import sensors
from creditrisk_assets.defs.partitions import add_days
from creditrisk_assets.job_runner import QUIET, failures_of
from creditrisk_assets.settings import Settings

CONFIGURATION = """\
telemetry: {{enabled: false}}
event_log_storage:
  module: dagster._core.storage.event_log
  class: ConsolidatedSqliteEventLogStorage
  config: {{base_dir: "{home}/history"}}
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
"""
"""A single database for all runs and no capture of each step's output: this saves half the time of
a day.
"""

WRITTEN_LAZILY = "PRAGMA synchronous=OFF"
"""A stepped loop must survive its own death but no power cut, so SQLite need not wait for the disk.
That wait, at each of a run's hundred events, was a third of a day's time.
"""

ROUNDS_LIMIT = 20


class LoopFailed(RuntimeError):
    """A training failed, or the loop does not settle."""


@dataclass
class SteppedLoop:
    """The system in a folder, stepped by its caller.

    Attributes:
        home: the Dagster home.
        settings: of this loop.
        instance: on SQLite in the home.
        definitions: over the settings.
        cursors: of each sensor.
        skip_reasons: the last one of each sensor.
    """

    home: Path
    settings: Settings
    instance: dg.DagsterInstance
    definitions: dg.Definitions
    cursors: dict[str, str | None] = field(default_factory=dict)
    skip_reasons: dict[str, str] = field(default_factory=dict)

    @classmethod
    def in_folder(cls, home: Path, settings: Settings) -> Self:
        """Make a loop in a folder.

        Args:
            home: where Dagster's instance goes, with a configuration of its own.
            settings: with `settle_seconds=0`, or files are left alone until they have been still.
        """
        _write_lazily()
        home.mkdir(parents=True, exist_ok=True)
        (home / "dagster.yaml").write_text(CONFIGURATION.format(home=home.resolve()))
        return cls(
            home, settings, dg.DagsterInstance.from_config(str(home)), build_definitions(settings)
        )

    def run(
        self, job: str, day: str | None = None, tags: dict[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Execute a job; a failure is in the result and in the instance, not raised."""
        resolved = self.definitions.resolve_job_def(job)
        if day is not None:
            add_days(self.instance, [day])
        return resolved.execute_in_process(
            instance=self.instance,
            partition_key=day,
            tags=tags,
            run_config=QUIET,
            raise_on_error=False,
        )

    def train(self) -> None:
        """Execute the job `train`.

        Raises:
            LoopFailed: if it fails, with the reasons.
        """
        result = self.run("train")
        if not result.success:
            raise LoopFailed("; ".join(failures_of(result)))

    def tick(self, sensor: dg.SensorDefinition) -> dg.SensorResult:
        """Evaluate a sensor once with its stored cursor."""
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(sensor.name),
            resources={"settings": self.settings},
            sensor_name=sensor.name,
        )
        result = sensor(context)
        if not isinstance(result, dg.SensorResult):
            raise TypeError(
                f"sensor {sensor.name} gave {type(result).__name__}; valid: SensorResult"
            )
        if result.cursor is not None:
            self.cursors[sensor.name] = result.cursor
        reason = result.skip_reason
        if reason is not None:
            self.skip_reasons[sensor.name] = str(
                reason.skip_message if isinstance(reason, dg.SkipReason) else reason
            )
        return result

    def settle(
        self, ticked: Sequence[dg.SensorDefinition] = sensors.STARTING
    ) -> list[dg.ExecuteInProcessResult]:
        """Tick sensors, by default all, and execute the requested runs until there are none; a run
        key is executed once, as by the daemon.

        Raises:
            LoopFailed: if requests continue after `ROUNDS_LIMIT` rounds.
        """
        results = []
        for _ in range(ROUNDS_LIMIT):
            requested = False
            for sensor in ticked:
                for request in self.tick(sensor).run_requests or []:
                    if self._has_run(sensor.name, request.run_key):
                        continue
                    requested = True
                    tags = {
                        **request.tags,
                        "dagster/run_key": request.run_key or "",
                        "dagster/sensor_name": sensor.name,
                    }
                    results.append(self.run(str(sensor.job_name), request.partition_key, tags))
            if not requested:
                return results
        raise LoopFailed(
            f"after {ROUNDS_LIMIT} rounds the sensors still request runs: {self.skip_reasons}"
        )

    def _has_run(self, sensor: str, run_key: str | None) -> bool:
        tags = {"dagster/run_key": run_key or "", "dagster/sensor_name": sensor}
        return run_key is not None and self.instance.get_runs_count(dg.RunsFilter(tags=tags)) > 0


@cache
def _write_lazily() -> None:
    """Open all further SQLite databases of this process without waits for the disk."""

    @sa.event.listens_for(sa.Engine, "connect")
    def lazily(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute(WRITTEN_LAZILY)
