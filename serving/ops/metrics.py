"""Metrics for Prometheus. Each worker writes its own files in one folder, so that any worker can
report those of all.

prometheus_client's multi-process values cost some microseconds for each number, and a request
changes several. So a worker counts in plain lists and dictionaries, and a thread copies the changes
into the files four times a second.
"""

import bisect
import os
import re
import threading
import time
from collections import Counter as Tally
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from creditrisk_assets.scoring.runtime import COMPILED, ONNXRUNTIME, Runtime
from serving.http.gateway import Exchange
from serving.inference.champion_holder import LoadedChampion
from serving.inference.decider import Group

log = structlog.get_logger()

CARRY_SECONDS = 0.25
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that gives prometheus_client the folder."""

SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
PROBABILITIES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
GROUP_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1_024, 4_096)

RESERVED = {
    "counter": 1 << 17,
    "histogram": 1 << 19,
    "gauge_livesum": 1 << 16,
    "gauge_livemax": 1 << 16,
}
"""Bytes of a worker's files: enough for every route and status, and some hundred models."""

LIVE_GAUGE = re.compile(r"gauge_live[a-z]+_(\d+)\.db")


def empty_metrics(folder: Path) -> None:
    """Delete the counts of former processes; called before the first worker starts."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink()


def _reserve(folder: Path) -> None:
    """Allocate the space of this worker's files. They are mapped into memory, where a write without
    disk space would kill the process.

    Raises:
        OSError: if there is no space.
    """
    for kind, size in RESERVED.items():
        with (folder / f"{kind}_{os.getpid()}.db").open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, size)


class _Distribution:
    """A histogram that one thread updates and another copies to Prometheus."""

    __slots__ = ("_bounds", "_carried", "_carried_sum", "_counts", "_sum", "_target")

    def __init__(self, bounds: Sequence[float], target: Histogram) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._carried = [0] * (len(bounds) + 1)
        self._sum = self._carried_sum = 0.0
        self._target: Any = target

    def observe(self, value: float) -> None:
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def carry(self) -> None:
        """Copy the changes. The package can only observe one value at a time, so this updates the
        numbers inside its histogram.
        """
        for place, count in enumerate(self._counts):
            if count != self._carried[place]:
                self._target._buckets[place].inc(count - self._carried[place])
                self._carried[place] = count
        total = self._sum
        if total != self._carried_sum:
            self._target._sum.inc(total - self._carried_sum)
            self._carried_sum = total


class _Counts:
    """A counter with labels that one thread updates and another copies to Prometheus."""

    __slots__ = ("_carried", "_target", "counts")

    def __init__(self, target: Counter) -> None:
        self.counts: Tally[tuple[str, ...]] = Tally()
        self._carried: Tally[tuple[str, ...]] = Tally()
        self._target = target

    def carry(self) -> None:
        for labels, count in list(self.counts.items()):
            if count != self._carried[labels]:
                child = self._target.labels(*labels) if labels else self._target
                child.inc(count - self._carried[labels])
                self._carried[labels] = count


class Metrics:
    """The metrics of this worker, and of all workers.

    A worker without disk space for its files counts in its own memory and reports only itself. The
    gateway, the decider and the champion holder call it, each from one thread.

    Args:
        folder: shared by the workers of one API.
        others: collectors of what is no worker's own; each value is there once.
    """

    def __init__(self, folder: Path, others: Sequence[Collector] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        for file in folder.glob(f"gauge_live*_{os.getpid()}.db"):
            file.unlink()  # of a dead worker with the same process id
        os.environ[FOLDER_VARIABLE] = str(folder)
        try:
            _reserve(folder)
        except OSError as error:  # a full disk must not stop decisions
            log.error("metrics_of_this_worker_alone", problem=str(error))
            self._shared, values.ValueClass = False, values.MutexValue
        else:
            # The package chooses its values at its import, before the folder is known.
            self._shared, values.ValueClass = True, values.MultiProcessValue()  # type: ignore[no-untyped-call]
        self._carried: list[_Distribution | _Counts] = []
        self._others = others
        self._own = own = CollectorRegistry()  # without the package's default metrics
        self._seconds = Histogram(
            "creditrisk_request_seconds",
            "Time to answer",
            ("route", "status"),
            buckets=SECONDS,
            registry=own,
        )

        def gauge(name: str, text: str, labels: Sequence[str] = (), mode: Any = "livesum") -> Gauge:
            return Gauge(name, text, labels, multiprocess_mode=mode, registry=own)

        self._in_flight = gauge("creditrisk_requests_in_flight", "Requests being answered")
        self._model = gauge(
            "creditrisk_model_info",
            "Workers that answer by this model",
            ("model_version", "bundle_sha256", "degraded"),
        )
        self._runtime = gauge(
            "creditrisk_runtime_info",
            "Workers that decide by compiled code, or by onnxruntime",
            ("runtime",),
        )
        self._problem = gauge(
            "creditrisk_champion_problem",
            "1 where the champion in force could not be read or loaded",
            mode="livemax",
        )
        self._problem.set(0)

        def distribution(name: str, text: str, bounds: Sequence[float]) -> _Distribution:
            metric = _Distribution(bounds, Histogram(name, text, buckets=bounds, registry=own))
            self._carried.append(metric)
            return metric

        def counts(name: str, text: str, labels: Sequence[str] = ()) -> _Counts:
            metric = _Counts(Counter(name, text, labels, registry=own))
            self._carried.append(metric)
            return metric

        self._probability = distribution(
            "creditrisk_default_probability", "PDs of decisions", PROBABILITIES
        )
        self._group = distribution(
            "creditrisk_decision_group_size", "Decisions of one flush to disk", GROUP_SIZES
        )
        self._fsync = distribution(
            "creditrisk_decision_log_fsync_seconds", "Time of one flush to disk", SECONDS
        )
        self._lag = distribution(
            "creditrisk_decision_log_lag_seconds",
            "From a request's receipt to its decision on disk",
            SECONDS,
        )
        self._refused = counts(
            "creditrisk_requests_refused", "Refused and failed requests", ("reason",)
        )
        self._decisions = counts(
            "creditrisk_decisions", "Decisions", ("model_version", "prediction", "degraded")
        )
        self._log_errors = counts(
            "creditrisk_decision_log_errors", "Flushes, and bodies of batches, that failed to write"
        )
        self._loads = counts("creditrisk_champion_loads", "Champions that were loaded")
        self._refusals = counts(
            "creditrisk_champion_refusals", "Champions that could not be loaded or verified"
        )
        self._by_answer: dict[tuple[str, int], _Distribution] = {}
        self._answering_by: Gauge | None = None
        self._now_in_flight = self._carried_in_flight = 0
        self._carrying = threading.Lock()
        self._stop = threading.Event()
        threading.Thread(target=self._carry_on, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Copy the last changes, and stop the thread."""
        self._stop.set()
        self._carry()

    def on_request(self) -> None:
        """Count a request in flight."""
        self._now_in_flight += 1

    def on_response(self, exchange: Exchange) -> None:
        """Count an answer."""
        self._now_in_flight -= 1
        status = exchange.status
        key = (exchange.rule.template, status // 100)
        seconds = self._by_answer.get(key)
        if seconds is None:
            target = self._seconds.labels(key[0], f"{key[1]}xx" if status else "gone")
            seconds = self._by_answer[key] = _Distribution(SECONDS, target)
        seconds.observe(time.perf_counter() - exchange.received_at)
        if status >= 400:
            self._refused.counts[(exchange.refusal_reason or f"status_{status}",)] += 1

    def on_decided(self, group: Group) -> None:
        """Count a group of decisions."""
        version, word = group.champion.record.model_version, _word(group.champion.degraded)
        predictions = group.decisions.prediction.tolist()
        for prediction in predictions:
            self._decisions.counts[(version, "1" if prediction else "0", word)] += 1
        for probability in group.decisions.default_probability.tolist():
            self._probability.observe(probability)
        self._group.observe(len(predictions))
        self._fsync.observe(group.write_seconds)
        self._lag.observe(time.perf_counter() - group.oldest_received_at)

    def on_not_written(self) -> None:
        """Count a failed flush, or a batch whose body could not be written."""
        self._log_errors.counts[()] += 1

    def on_champion(self, champion: LoadedChampion) -> None:
        """Report the champion of this worker."""
        if self._answering_by is not None:
            self._answering_by.set(0)
        record = champion.record
        self._answering_by = self._model.labels(
            record.model_version, record.bundle_sha256, _word(champion.degraded)
        )
        self._answering_by.set(1)
        self._loads.counts[()] += 1
        self._problem.set(0)

    def on_runtime(self, runtime: Runtime) -> None:
        """Report the runtime of this worker's decisions."""
        for name in (COMPILED, ONNXRUNTIME):
            self._runtime.labels(name).set(runtime.name == name)

    def on_refresh(self, problem: str | None) -> None:
        """Report a problem with the champion in force, or its end."""
        self._problem.set(0 if problem is None else 1)

    def on_refused(self) -> None:
        """Count a champion that could not be loaded or verified."""
        self._problem.set(1)
        self._refusals.counts[()] += 1

    def text(self) -> bytes:
        """The metrics of all workers in Prometheus's format, without gauges of dead workers."""
        self._carry()
        registry = CollectorRegistry()
        for collector in self._others:
            registry.register(collector)
        if not self._shared:
            return generate_latest(self._own) + generate_latest(registry)
        for file in self._folder.glob("gauge_live*.db"):
            found = LIVE_GAUGE.fullmatch(file.name)
            if found and not _is_alive(int(found[1])):
                mark_process_dead(int(found[1]), str(self._folder))  # type: ignore[no-untyped-call]
        MultiProcessCollector(registry, str(self._folder))  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def _carry_on(self) -> None:
        while not self._stop.wait(CARRY_SECONDS):
            self._carry()

    def _carry(self) -> None:
        with self._carrying:
            if self._now_in_flight != self._carried_in_flight:
                self._carried_in_flight = self._now_in_flight
                self._in_flight.set(self._carried_in_flight)
            for metric in (*self._carried, *list(self._by_answer.values())):
                metric.carry()


def add_metrics_route(app: FastAPI, metrics: Metrics) -> None:
    """Add `GET /metrics`."""

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def read_metrics() -> Response:  # in a thread: it reads the files of all workers
        """Metrics of all workers, for Prometheus."""
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _word(value: bool) -> str:
    return "true" if value else "false"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it belongs to another user
    return True
