"""Makes decisions: concurrent requests share one run of the graph and one wait for the disk.

A request is decided by the present champion, written to the log, and then answered. So a decision
is on the disk before its answer is sent, and one model makes all decisions of a group.
"""

import asyncio
import datetime
import errno
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import groupby
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import structlog
from pydantic_core import to_json

from creditrisk_assets.decisions.idempotency import (
    IdempotencyIndex,
    KeysUnavailable,
    StoredAnswer,
    is_full,
)
from creditrisk_assets.decisions.log import SegmentHeader
from creditrisk_assets.decisions.writer import DecisionLog, LogUnwritable
from creditrisk_assets.scoring.bundle import Decisions
from creditrisk_assets.scoring.runtime import DifferentDecisionError
from serving.inference.batch_yield import BATCH_YIELD
from serving.inference.champion_holder import ChampionHolder, LoadedChampion

if TYPE_CHECKING:
    from creditrisk_assets.decisions.shared_keys import SharedKeys

log = structlog.get_logger()

T = TypeVar("T")

MAINTAIN_SECONDS = 1.0
"""From one look at the age of segments and the disk to the next, also under load."""

AT_ONCE_SECONDS = 0.001
"""The event loop itself writes to a disk whose last write took less than this, if no other group is
being written: a handover to a thread and back costs more.
"""

SINGLES_AT_ONCE = 64
"""Single customers of one run, which blocks the event loop for some milliseconds."""

WAITING_ROWS_LIMIT = 8_192
"""Rows that may wait for a decision; more requests are refused."""


class NoChampion(RuntimeError):
    """Neither a champion nor its fallback is loaded."""


class Overloaded(RuntimeError):
    """Too many rows wait for a decision."""


class KeyUsed(RuntimeError):
    """The idempotency key belongs to another request."""


@dataclass(frozen=True, slots=True)
class DecisionRequest:
    """Customers to decide on together, and their caller.

    Attributes:
        customers: for each its valid values by field, and its identifier if it has one.
        caller: name of the API key's owner.
        request_id: of the HTTP request.
        received_at: time of receipt, `time.perf_counter`.
        key: the caller's idempotency key; in a batch each customer's key is made of it and the row.
        rows: the customers' rows in a batch.
        trace_id: of the W3C trace context.
    """

    customers: Sequence[dict[str, Any]]
    caller: str
    request_id: str
    received_at: float
    key: str | None = None
    rows: Sequence[int] | None = None
    trace_id: str | None = None

    def key_of(self, place: int) -> str | None:
        """The idempotency key of one customer."""
        if self.key is None or self.rows is None:
            return self.key
        return f"{self.key}/{self.rows[place]}"


@dataclass(slots=True)
class _PendingRequest:
    """A request with its answers, one for each customer, or its error."""

    request: DecisionRequest
    future: "asyncio.Future[list[bytes]]"
    answers: list[bytes] = field(init=False)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.answers = [b""] * len(self.request.customers)


@dataclass(frozen=True, slots=True)
class Group:
    """Decisions that were made together.

    Attributes:
        champion: the model that decided.
        decisions: on each row.
        write_seconds: time that the disk took.
        oldest_received_at: receipt of the first of their requests, `time.perf_counter`.
    """

    champion: LoadedChampion
    decisions: Decisions
    write_seconds: float
    oldest_received_at: float


class Listener(Protocol):
    """Is called about decisions, in the event loop, after the answers. Its errors are logged."""

    def on_decided(self, group: Group) -> None:
        """A group is on the disk."""

    def on_not_written(self) -> None:
        """A group, or the body of a batch, could not be written to the disk."""


class Decider:
    """Makes decisions and logs them.

    Single customers that arrive in one turn of the event loop are decided there together, and a
    thread writes all waiting groups together. Requests with many customers or an idempotency key
    are decided in another thread, which may wait for other processes. Each path has its own log.

    Args:
        holder: the champion in force.
        single_log: log of the decisions on single customers.
        batch_log: log of all others.
        index: of idempotency keys.
        listeners: called about decisions.
        shared: keys of all replicas; None if this is the only one.
    """

    def __init__(
        self,
        holder: ChampionHolder,
        single_log: DecisionLog,
        batch_log: DecisionLog,
        index: IdempotencyIndex,
        listeners: Sequence[Listener] = (),
        shared: "SharedKeys | None" = None,
    ) -> None:
        self._holder = holder
        self._logs = (single_log, batch_log)
        self._index = index
        self._shared = shared
        self._settled = shared is None
        self._listeners = tuple(listeners)
        self._rows_waiting = 0
        self._pending: list[_PendingRequest] = []
        self._groups_in_writing = 0
        self._write_seconds = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer = _QueueThread("decision-writer", self._write, single_log.maintain)
        self._batch_decider = _QueueThread("decider", self._decide_batches, self._maintain)

    @property
    def problem(self) -> str | None:
        """The reason for an unwritable log, or None."""
        return next((log.problem for log in self._logs if log.problem is not None), None)

    @property
    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("the decider is not started; valid: start() first")
        return self._loop

    def start(self) -> None:
        """Start the threads; called in the event loop of the requests."""
        self._loop = asyncio.get_running_loop()
        self._writer.start()
        self._batch_decider.start()

    def stop(self) -> None:
        """Write pending decisions, finish the segments, end the threads. Called in the event loop
        after the last request.
        """
        if self._pending:
            self._decide_pending()
        for worker in (self._writer, self._batch_decider):
            worker.stop()
        for log_ in self._logs:
            log_.close()
        self._index.close()
        if self._shared is not None:
            self._shared.close()

    def report_not_written(self) -> None:
        """Call the listeners about a request whose body could not be written. Called in the event
        loop.
        """
        self._call_listeners(True, ())

    async def decide(self, request: DecisionRequest) -> list[bytes]:
        """Decide on customers, and write the decisions to the disk.

        Returns:
            The answer on each customer as JSON.

        Raises:
            NoChampion: if no model is loaded.
            LogUnwritable: if the decisions cannot be written to the disk.
            KeyUsed: if the idempotency key belongs to another request.
            Overloaded: if too many rows wait.
        """
        loop, rows = self._running, len(request.customers)
        if self._rows_waiting + rows > WAITING_ROWS_LIMIT:
            raise Overloaded(
                f"{self._rows_waiting} customers wait for a decision; valid: up to "
                f"{WAITING_ROWS_LIMIT}"
            )
        waiting = _PendingRequest(request, loop.create_future())
        self._rows_waiting += rows
        if rows != 1 or request.key is not None:
            self._batch_decider.put(waiting)
        else:
            if not self._pending:
                loop.call_soon(self._decide_pending)
            self._pending.append(waiting)
        return await waiting.future

    def _decide_pending(self) -> None:
        """In the event loop: decide on the single customers of this turn. Write them at once if the
        last write was quick; otherwise the writer's thread does.
        """
        group, self._pending = self._pending[:SINGLES_AT_ONCE], self._pending[SINGLES_AT_ONCE:]
        if self._pending:
            self._running.call_soon(self._decide_pending)
        try:
            decided = self._decide([_Customer(waiting, 0) for waiting in group], self._logs[0])
        except Exception as error:
            self._deliver(_fail(group, error))
            return
        if not self._groups_in_writing and self._write_seconds < AT_ONCE_SECONDS:
            self._deliver(*self._write_segment([decided]))
        else:
            self._groups_in_writing += 1
            self._writer.put(decided)

    def _write(self, groups: list["_DecidedGroup"]) -> None:
        """In the writer's thread: write groups to the disk, those of one segment together, and
        release their answers.
        """
        for _, of_segment in groupby(groups, key=lambda group: group.header):
            together = list(of_segment)
            self._running.call_soon_threadsafe(
                self._deliver_written, len(together), *self._write_segment(together)
            )

    def _write_segment(
        self, groups: list["_DecidedGroup"]
    ) -> tuple[list[_PendingRequest], list[Group]]:
        """Write groups of one segment to the disk.

        Returns:
            The requests to answer now, and the groups for listeners.
        """
        waiting = [customer.waiting for group in groups for customer in group.customers]
        try:
            self._write_seconds = self._logs[0].write(
                groups[0].header, [line for group in groups for line in group.lines]
            )
        except Exception as error:
            self._write_seconds = AT_ONCE_SECONDS
            return _fail(waiting, error), []
        for group in groups:
            group.set_answers()
        return waiting, [group.for_listeners(self._write_seconds) for group in groups]

    def _deliver_written(
        self, count: int, requests: list[_PendingRequest], groups: list[Group]
    ) -> None:
        """In the event loop: deliver the answers of some groups from the writer's thread."""
        self._groups_in_writing -= count
        self._deliver(requests, groups)

    def _decide_batches(self, waiting: list[_PendingRequest]) -> None:
        """In the batch thread: decide on one request after the other."""
        for request in waiting:
            groups: list[Group] = []
            try:
                if request.request.key is None:
                    groups = self._decide_and_write(request)
                else:
                    groups = self._decide_keyed(request)
            except sqlite3.Error as error:
                # The next request with the same key finds the decision in the log once this
                # process has released the segment.
                self._logs[1].release_segment()
                number = errno.ENOSPC if is_full(error) else errno.EIO
                unwritable = LogUnwritable(OSError(number, f"idempotency index: {error}"))
                _fail([request], unwritable)
            except OSError as error:  # of another worker's segment, as on a read-only disk
                _fail([request], LogUnwritable(error))
            except Exception as error:
                _fail([request], error)
            self._running.call_soon_threadsafe(self._deliver, [request], groups)

    def _decide_keyed(self, request: _PendingRequest) -> list[Group]:
        try:
            with self._index.exclusive():
                groups = self._decide_and_write(request)
        except BaseException:
            self._settled = self._shared is None  # it may have claimed keys that it did not answer
            raise
        self._record_answers()
        return groups

    def _maintain(self) -> None:
        """In the batch thread, between its requests."""
        self._logs[1].maintain()
        if self._settled:
            self._record_answers()
            return
        with suppress(sqlite3.Error, KeysUnavailable), self._index.exclusive():
            self._settle_claims()

    def _settle_claims(self) -> None:
        """After the start, and after a failure: settle what this replica has claimed."""
        if self._shared is not None and not self._settled:
            self._shared.settle(self._index.find)
            self._settled = True

    def _record_answers(self) -> None:
        """Send the last answers to the other replicas; a failure is made good at the next call."""
        if self._shared is not None:
            with suppress(KeysUnavailable):
                self._shared.record()

    def _decide_and_write(self, waiting: _PendingRequest) -> list[Group]:
        request = waiting.request
        new = [_Customer(waiting, place) for place in range(len(request.customers))]
        if request.key is not None:
            new = self._without_answered(new, partial(self._index.find, request.caller))
            if self._shared is not None and new:
                self._settle_claims()
                digests = {str(customer.key): customer.digest for customer in new}
                answers = self._shared.claim(request.caller, digests)
                new = self._without_answered(new, answers.get)
        if not new:
            return []
        decided = self._decide(new, self._logs[1], BATCH_YIELD.between)
        seconds = self._logs[1].write(decided.header, decided.lines)
        decided.set_answers()
        for customer in new:
            if customer.key is not None:
                answer = waiting.answers[customer.place]
                self._index.add(request.caller, customer.key, customer.digest, answer)
                if self._shared is not None:
                    self._shared.add(request.caller, customer.key, answer)
        return [decided.for_listeners(seconds)]

    def _without_answered(
        self, customers: list["_Customer"], find: Callable[[str], StoredAnswer | None]
    ) -> list["_Customer"]:
        """The customers whose keys are new; the others get their earlier answers.

        Raises:
            KeyUsed: if a key belongs to another request.
        """
        new = []
        for customer in customers:
            earlier = find(str(customer.key))
            if earlier is None:
                new.append(customer)
            elif earlier.digest == customer.digest:
                customer.waiting.answers[customer.place] = earlier.answer
            else:
                raise KeyUsed(
                    f"Idempotency-Key {customer.key!r:.100} was used for another request; valid: "
                    "a new key for each decision"
                )
        return new

    def _decide(
        self,
        customers: list["_Customer"],
        decision_log: DecisionLog,
        iterate: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> "_DecidedGroup":
        champion = self._holder.current
        if champion is None:
            raise NoChampion(self._holder.why_none)
        raw = champion.bundle.encoder([customer.values for customer in customers])
        try:
            decisions = champion.runtime.decide(raw)
        except DifferentDecisionError as error:
            runtime = self._holder.refuse_code(champion.runtime, error)
            champion, decisions = replace(champion, runtime=runtime), runtime.decide(raw)
        now, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
        header, ids = decision_log.plan(
            champion.record, now.date(), len(customers), degraded=champion.degraded
        )
        answers = _answers(champion, decisions, iterate(ids))
        at, runtime_name = now.isoformat(timespec="microseconds"), champion.runtime.name
        lines = [
            _line(at, clock, runtime_name, customer, answer)
            for customer, answer in zip(customers, iterate(answers), strict=True)
        ]
        return _DecidedGroup(champion, header, customers, decisions, answers, lines)

    def _deliver(self, requests: list[_PendingRequest], groups: Sequence[Group] = ()) -> None:
        """In the event loop: send the answers, then call the listeners."""
        for waiting in requests:
            self._rows_waiting -= len(waiting.request.customers)
            if waiting.future.done():  # its request was cancelled
                continue
            if waiting.error is not None:
                waiting.future.set_exception(waiting.error)
            else:
                waiting.future.set_result(waiting.answers)
        unwritten = any(isinstance(waiting.error, LogUnwritable) for waiting in requests)
        if unwritten or groups:  # after the requests, which resume in the order of their answers
            self._running.call_soon(self._call_listeners, unwritten, groups)

    def _call_listeners(self, unwritten: bool, groups: Sequence[Group]) -> None:
        for listener in self._listeners:
            try:
                if unwritten:
                    listener.on_not_written()
                for group in groups:
                    listener.on_decided(group)
            except Exception:  # a listener must not stop decisions
                log.exception("listener_failed")


class _QueueThread(Generic[T]):
    """A thread with a queue; it works on all waiting items together.

    Args:
        name: of the thread.
        work: called with the waiting items; must not raise.
        maintain: called after a second without items, and every second between items.
    """

    def __init__(
        self, name: str, work: Callable[[list[T]], None], maintain: Callable[[], None]
    ) -> None:
        self._work = work
        self._maintain = maintain
        self._queue: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, item: T) -> None:
        """Add to the queue."""
        self._queue.put(item)

    def stop(self) -> None:
        """Finish the queue, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        running, maintained_at = True, time.monotonic()
        while running:
            if time.monotonic() - maintained_at >= MAINTAIN_SECONDS:
                self._maintain()
                maintained_at = time.monotonic()
            try:
                items = [self._queue.get(timeout=MAINTAIN_SECONDS)]
            except queue.Empty:
                continue
            with suppress(queue.Empty):
                while True:
                    items.append(self._queue.get_nowait())
            work = [item for item in items if item is not None]
            running = len(work) == len(items)
            if work:
                self._work(work)


class _Customer:
    """A customer of a request: place, values, and idempotency key with the digest of the values."""

    __slots__ = ("digest", "key", "place", "values", "waiting")

    def __init__(self, waiting: _PendingRequest, place: int) -> None:
        self.waiting = waiting
        self.place = place
        self.values = waiting.request.customers[place]
        self.key = waiting.request.key_of(place)
        self.digest = "" if self.key is None else sha256(to_json(self.values)).hexdigest()


@dataclass(frozen=True, slots=True)
class _DecidedGroup:
    """Customers that were decided on together, with their answers and lines of the log in order."""

    champion: LoadedChampion
    header: SegmentHeader
    customers: list[_Customer]
    decisions: Decisions
    answers: list[bytes]
    lines: list[bytes]

    def set_answers(self) -> None:
        """Give each request its answers; call it when the lines are on the disk."""
        for customer, answer in zip(self.customers, self.answers, strict=True):
            customer.waiting.answers[customer.place] = answer

    def for_listeners(self, write_seconds: float) -> Group:
        """The group for listeners."""
        oldest = min(customer.waiting.request.received_at for customer in self.customers)
        return Group(self.champion, self.decisions, write_seconds, oldest)


def _fail(group: list[_PendingRequest], error: Exception) -> list[_PendingRequest]:
    """Set the error of requests, and return them."""
    if not isinstance(error, NoChampion | LogUnwritable | KeyUsed):
        log.error("decider_failed", exc_info=error)
    for waiting in group:
        waiting.error = error
    return group


def _answers(champion: LoadedChampion, decisions: Decisions, ids: Iterable[str]) -> list[bytes]:
    """The answers, in the form that is sent, logged and stored."""
    record, texts = champion.record, champion.reasons
    return [
        to_json(
            {
                "prediction": prediction,
                "default_probability": probability,
                "score": score,
                "reasons": [texts[code] for code in codes],
                "decision_id": decision_id,
                "model_version": record.model_version,
                "bundle_sha256": record.bundle_sha256,
                "cut_off": record.rule.cut_off,
                "degraded": champion.degraded,
            }
        )
        for prediction, probability, score, codes, decision_id in zip(
            decisions.prediction.tolist(),
            decisions.default_probability.tolist(),
            decisions.score.tolist(),
            champion.bundle.reason_codes(decisions),
            ids,
            strict=True,
        )
    ]


def _line(at: str, clock: float, runtime: str, customer: _Customer, answer: bytes) -> bytes:
    """A decision as a line of the log: the service's own values before the customer's."""
    request = customer.waiting.request
    latency_ms = round((clock - request.received_at) * 1000, 3)
    about: dict[str, Any] = {
        "at": at,
        "latency_ms": latency_ms,
        "caller": request.caller,
        "request_id": request.request_id,
        "runtime": runtime,
    }
    if request.trace_id is not None:
        about["trace_id"] = request.trace_id
    if customer.key is not None:
        about["idempotency"] = {"key": customer.key, "digest": customer.digest}
    values = to_json(customer.values)
    return b'%b,"answer":%b,"customer":%b}' % (to_json(about)[:-1], answer, values)
