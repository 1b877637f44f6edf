"""Metrics of the loop for Prometheus, from the status document that the loop writes.

The document is read when `/metrics` is asked, by the worker that answers, so each value is there
once and not once a worker. Metrics that a worker counts itself belong in `metrics`.
"""

import threading
import time
from collections import Counter as Tally
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime

import structlog
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from creditrisk_assets.monitoring.check_catalogue import Tier
from creditrisk_assets.monitoring.loop_status import DayStatus, LoopStatus
from creditrisk_assets.storage import StoredPath

log = structlog.get_logger()

READ_SECONDS = 3.0
"""Limit for reading the document: Prometheus waits ten seconds for all metrics, and an object store
that is down lets its readers wait for longer.
"""

MOVES = ("first", "promoted", "rejected", "unchanged", "rolled_back", "cut_off", "policy")
"""Kinds of `Event` that are no retrain's failure; each has a value from the beginning, because
Prometheus sees no increase in a series that begins with one.
"""

RETRAINS = tuple(
    (action, result)
    for action in ("recalibrate", "refit")
    for result in ("promoted", "rejected", "unchanged", "failed")
)
UNDER_WAY = "in flight"


class LoopMetrics(Collector):
    """The collector of the loop's metrics.

    Without a document that can be read, `creditrisk_loop_status_readable` is 0 and the only metric.

    Args:
        reports: the folder of the document.
    """

    def __init__(self, reports: StoredPath) -> None:
        self._reports = reports
        self._reading: Future[LoopStatus] | None = None

    def describe(self) -> list[Metric]:
        """Nothing, so that a registry reads no document when the collector is added."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics as of now."""
        status = self._status()
        yield _gauge("status_readable", "1 if the loop's status could be read", status is not None)
        if status is not None:
            yield from _of_loop(status)
            yield from _of_days(status)
            yield from _of_champion(status)
            yield from _of_events(status)

    def _status(self) -> LoopStatus | None:
        """The document; None if it is missing or cannot be read in time."""
        reading = self._reading or _reading_of(self._reports)
        self._reading = None
        try:
            return reading.result(READ_SECONDS)
        except FileNotFoundError:
            return None  # the loop has not written it yet
        except Exception as error:  # a store's client may raise anything; the scrape must not fail
            if not reading.done():
                self._reading = reading  # the next request waits for the same reading
            problem = str(error) or f"not read within {READ_SECONDS} s"
            log.warning("loop_status_not_read", problem=problem)
            return None


def _reading_of(reports: StoredPath) -> "Future[LoopStatus]":
    """The document in the making. Its thread does not hold up the end of the process."""
    reading: Future[LoopStatus] = Future()

    def read() -> None:
        try:
            reading.set_result(LoopStatus.read(reports))
        except Exception as error:  # it is raised again where the result is asked for
            reading.set_exception(error)

    threading.Thread(target=read, name="loop-status", daemon=True).start()
    return reading


def _gauge(name: str, text: str, value: float | None) -> GaugeMetricFamily:
    """A gauge without labels; without a sample if there is no value."""
    metric = GaugeMetricFamily(f"creditrisk_loop_{name}", text)
    if value is not None:
        metric.add_metric([], float(value))
    return metric


def _of_loop(status: LoopStatus) -> Iterator[Metric]:
    yield _gauge(
        "status_age_seconds", "Age of the loop's status", max(0.0, time.time() - status.written)
    )
    alarms = GaugeMetricFamily(
        "creditrisk_loop_open_alarms", "Alarms that stand, by urgency", labels=("tier",)
    )
    by_tier = Tally(alarm.tier for _, alarm in status.open_alarms)
    for tier in Tier:
        alarms.add_metric([tier.value], by_tier[tier.value])
    yield alarms
    yield _gauge("checks_run", "Checks that have run", status.checks_run)
    yield _gauge("checks", "Checks of the graph", status.checks)
    yield _gauge("runs_in_flight", "Runs queued or in progress", len(status.runs_in_flight))
    yield _gauge("failed_runs", "Failed runs in the status, five at most", len(status.failed_runs))
    yield _gauge(
        "last_failed_run_timestamp_seconds",
        "Start of the latest failed run",
        max((run.started for run in status.failed_runs if run.started), default=None),
    )
    sensors = GaugeMetricFamily(
        "creditrisk_loop_sensor_info",
        "1 for the state of each sensor's last tick",
        labels=("sensor", "state"),
    )
    for sensor in status.sensors:
        sensors.add_metric([sensor.name, sensor.status.lower()], 1)
    yield sensors
    yield _gauge(
        "landing_problems",
        "Entries of the landing zones that cannot be read",
        len(status.landing_problems),
    )


def _of_days(status: LoopStatus) -> Iterator[Metric]:
    scored = sorted(
        (day for day in status.days if day.model_version is not None), key=lambda day: day.day
    )
    yield _gauge("days_scored", "Scored days in the status, the latest 60 at most", len(scored))
    yield _gauge(
        "days_waiting", "Days that have landed and are not scored", len(status.waiting_days)
    )
    yield from _of_last_day(scored[-1] if scored else None)
    matured = [day for day in scored if day.bad_rate is not None]
    yield from _of_matured_day(matured[-1] if matured else None)


def _of_last_day(day: DayStatus | None) -> Iterator[Metric]:
    of = {} if day is None else day.model_dump()
    yield _gauge("last_day_timestamp_seconds", "The last scored day", _begin(day))
    for name, text in (
        ("rows", "Accepted rows of the last scored day"),
        ("rejected", "Rejected rows of the last scored day"),
        ("score_psi", "PSI of the score on the last scored day alone"),
        ("score_psi_judged", "PSI of the score as judged, perhaps over several days"),
        ("score_psi_threshold", "Alarm line of the judged PSI"),
        ("drifted_columns", "Columns that drifted, by the last scored day"),
        ("estimated_roc_auc", "AUC that the PDs of the last scored day imply"),
    ):
        yield _gauge(f"last_day_{name}", text, of.get(name))


def _of_matured_day(day: DayStatus | None) -> Iterator[Metric]:
    of = {} if day is None else day.model_dump()
    yield _gauge("matured_day_timestamp_seconds", "The last scored day with outcomes", _begin(day))
    for name, text in (
        ("matured", "Decisions with an outcome, of the last day with outcomes"),
        ("pending", "Decisions whose outcome is not due, of the last day with outcomes"),
        ("missing", "Decisions whose outcome is overdue, of the last day with outcomes"),
        ("roc_auc", "Realised AUC of the last day with outcomes"),
        ("validation_roc_auc", "AUC at validation of the version that decided that day"),
        ("mean_pd", "Mean PD of the matured rows of the last day with outcomes"),
        ("bad_rate", "Bad rate of the last day with outcomes"),
    ):
        yield _gauge(f"matured_day_{name}", text, of.get(name))


def _of_champion(status: LoopStatus) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "creditrisk_loop_champion_info",
        "1 for the champion of the loop",
        labels=("model_version", "bundle_sha256"),
    )
    champion = status.champion
    if champion is not None:
        info.add_metric([champion.model_version, champion.bundle_sha256], 1)
    yield info
    yield _gauge(
        "champion_since_timestamp_seconds",
        "Time since which that version is champion",
        status.champion_since,
    )
    yield _gauge(
        "cut_off",
        "PD from which a customer is refused",
        champion.rule.cut_off if champion else None,
    )


def _of_events(status: LoopStatus) -> Iterator[Metric]:
    moves = CounterMetricFamily(
        "creditrisk_loop_champion_moves",
        "Verdicts and commands on the champion, the latest 500 at most",
        labels=("kind",),
    )
    of_kind = Tally(
        event.kind for event in status.events if event.kind not in (UNDER_WAY, "failed")
    )
    for kind in dict.fromkeys((*MOVES, *of_kind)):
        moves.add_metric([kind], of_kind[kind])
    yield moves
    retrains = CounterMetricFamily(
        "creditrisk_loop_retrains",
        "Retrains that have ended, by kind and result, the latest 500 at most",
        labels=("action", "result"),
    )
    ended = Tally(
        (event.action, event.kind)
        for event in status.events
        if event.action is not None and event.kind != UNDER_WAY
    )
    for action, result in dict.fromkeys((*RETRAINS, *ended)):
        retrains.add_metric([action, result], ended[(action, result)])
    yield retrains


def _begin(day: DayStatus | None) -> float | None:
    """The beginning of a day in UTC, in seconds since the epoch."""
    if day is None:
        return None
    return datetime.fromisoformat(day.day).replace(tzinfo=UTC).timestamp()
