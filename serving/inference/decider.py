"""Makes decisions: requests that come at the same time share one run of the graph and one wait for
the disk.

A request is decided by the champion of that moment, written to the log, and only then answered. So
a decision is on the disk before its answer leaves, and every answer of a group is of one model.
"""

import asyncio
import datetime
import errno
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from typing import Any, Generic, Protocol, TypeVar

import structlog
from pydantic_core import to_json

from creditrisk_assets.decisions.idempotency import IdempotencyIndex, is_full
from creditrisk_assets.decisions.log import SegmentHeader
from creditrisk_assets.decisions.writer import DecisionLog, LogUnwritable
from creditrisk_assets.scoring.bundle import Decisions
from serving.inference.batch_yield import BATCH_YIELD
from serving.inference.champion_holder import ChampionHolder, LoadedChampion

log = structlog.get_logger()

T = TypeVar("T")

IDLE_SECONDS = 1.0
AT_ONCE_SECONDS = 0.001
"""The event loop itself waits for a disk that has just taken less than this, if no group is on its
way: handing over to a thread and back costs more.
"""

SINGLES_AT_ONCE = 64
"""Single customers of one run: some milliseconds, in which the event loop does nothing else."""

WAITING_ROWS_LIMIT = 8_192
"""Rows that may wait for a decision; further requests are refused."""


class NoChampion(RuntimeError):
    """Nothing can be decided: neither a champion nor its fallback is loaded."""


class Overloaded(RuntimeError):
    """Too many rows wait already."""


class KeyUsed(RuntimeError):
    """The idempotency key has been used for another request."""


@dataclass(frozen=True, slots=True)
class DecisionRequest:
    """Customers to decide on together, and their caller.

    Attributes:
        customers: of each its values by field, and its identifier if it has one, as the contract
            allows them.
        caller: name of the API key's owner.
        request_id: of the HTTP request.
        received_at: time of receipt, `time.perf_counter`.
        key: the caller's idempotency key; in a batch each customer's own is made of it and the row.
        rows: of a batch.
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
class _Waiting:
    """A request with its answers, one for each customer, or its error."""

    request: DecisionRequest
    future: "asyncio.Future[list[bytes]]"
    answers: list[bytes] = field(init=False)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.answers = [b""] * len(self.request.customers)


@dataclass(frozen=True, slots=True)
class Group:
    """Decisions that were made together, for listeners.

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
    """Hears of decisions, in the event loop, after the answers have left. An error of its own is
    logged.
    """

    def on_decided(self, group: Group) -> None:
        """A group is on the disk."""

    def on_not_written(self) -> None:
        """A group could not be brought to the disk."""


class Decider:
    """Makes decisions and stores them.

    Single customers are decided in the event loop, all that came in one turn of it together; a
    thread brings them to the disk, all that wait for it together. Requests with many customers, or
    with an idempotency key, are decided in another thread, which may wait for other processes
    meanwhile. Each of the two ways has a log of its own.

    Args:
        holder: the champion in force.
        singles: log of the decisions on single customers.
        many: log of all others.
        index: of idempotency keys.
        listeners: hear of decisions.
    """

    def __init__(
        self,
        holder: ChampionHolder,
        singles: DecisionLog,
        many: DecisionLog,
        index: IdempotencyIndex,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._holder = holder
        self._logs = (singles, many)
        self._index = index
        self._listeners = tuple(listeners)
        self._rows_waiting = 0
        self._pending: list[_Waiting] = []
        self._being_written = 0
        self._write_seconds = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer = _Lane("decision-writer", self._write, singles.maintain)
        self._many = _Lane("decider", self._decide_many, many.maintain)

    @property
    def problem(self) -> str | None:
        """The reason why decisions cannot be stored, or None."""
        return next((log.problem for log in self._logs if log.problem is not None), None)

    @property
    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("the decider was asked before it was started; valid: start() first")
        return self._loop

    def start(self) -> None:
        """Start the threads; called in the event loop that asks."""
        self._loop = asyncio.get_running_loop()
        self._writer.start()
        self._many.start()

    def stop(self) -> None:
        """Write pending decisions, finish the segments, end the threads. Called in the event loop
        after the last request.
        """
        if self._pending:
            self._decide_pending()
        for lane in (self._writer, self._many):
            lane.stop()
        for log_ in self._logs:
            log_.close()
        self._index.close()

    async def decide(self, request: DecisionRequest) -> list[bytes]:
        """Decide on customers.

        Returns:
            The answer on each as JSON. The decisions are on the disk.

        Raises:
            NoChampion: if there is nothing to decide with.
            LogUnwritable: if the decisions cannot be brought to the disk.
            KeyUsed: if the idempotency key belongs to another request.
            Overloaded: if too many wait.
        """
        loop, rows = self._running, len(request.customers)
        if self._rows_waiting + rows > WAITING_ROWS_LIMIT:
            raise Overloaded(
                f"{self._rows_waiting} customers wait for a decision; valid: up to "
                f"{WAITING_ROWS_LIMIT}"
            )
        waiting = _Waiting(request, loop.create_future())
        self._rows_waiting += rows
        if rows != 1 or request.key is not None:
            self._many.put(waiting)
        else:
            if not self._pending:
                loop.call_soon(self._decide_pending)
            self._pending.append(waiting)
        return await waiting.future

    def _decide_pending(self) -> None:
        """In the event loop: decide on the single customers that came in this turn, and bring them
        to the disk: at once where the last time took less than handing them to the writer's thread
        is worth.
        """
        group, self._pending = self._pending[:SINGLES_AT_ONCE], self._pending[SINGLES_AT_ONCE:]
        if self._pending:
            self._running.call_soon(self._decide_pending)
        try:
            decided = self._decided([_Customer(waiting, 0) for waiting in group], self._logs[0])
        except Exception as error:
            self._deliver(_failed(group, error))
            return
        if not self._being_written and self._write_seconds < AT_ONCE_SECONDS:
            self._deliver(*self._written([decided]))
        else:
            self._being_written += 1
            self._writer.put(decided)

    def _write(self, groups: list["_Decided"]) -> None:
        """In the writer's thread: bring groups to the disk, those of one segment at once, and
        release their answers.
        """
        for _, together in groupby(groups, key=lambda group: group.header):
            some = list(together)
            self._running.call_soon_threadsafe(
                self._deliver_written, len(some), *self._written(some)
            )

    def _written(self, groups: list["_Decided"]) -> tuple[list[_Waiting], list[Group]]:
        """Bring groups of one segment to the disk: the requests that are answered now, and the
        groups for listeners.
        """
        waiting = [one.waiting for group in groups for one in group.customers]
        try:
            self._write_seconds = self._logs[0].write(
                groups[0].header, [line for group in groups for line in group.lines]
            )
        except Exception as error:
            self._write_seconds = AT_ONCE_SECONDS
            return _failed(waiting, error), []
        for group in groups:
            group.hand_over()
        return waiting, [group.written(self._write_seconds) for group in groups]

    def _deliver_written(self, written: int, answered: list[_Waiting], groups: list[Group]) -> None:
        """In the event loop."""
        self._being_written -= written
        self._deliver(answered, groups)

    def _decide_many(self, waiting: list[_Waiting]) -> None:
        """In the other thread: one request after the other."""
        for request in waiting:
            groups: list[Group] = []
            try:
                keyed = request.request.key is not None
                with self._index.exclusive() if keyed else nullcontext():
                    groups = self._decide_and_write(request)
            except sqlite3.Error as error:
                # The next request with the same key finds the decision in the log, once this
                # process has let go of the segment.
                self._logs[1].release_segment()
                number = errno.ENOSPC if is_full(error) else errno.EIO
                unwritable = LogUnwritable(OSError(number, f"idempotency index: {error}"))
                _failed([request], unwritable)
            except Exception as error:
                _failed([request], error)
            self._running.call_soon_threadsafe(self._deliver, [request], groups)

    def _decide_and_write(self, waiting: _Waiting) -> list[Group]:
        request = waiting.request
        new = []
        for place in range(len(request.customers)):
            customer = _Customer(waiting, place)
            earlier = None
            if customer.key is not None:
                earlier = self._index.find(request.caller, customer.key)
            if earlier is None:
                new.append(customer)
            elif earlier.digest == customer.digest:
                waiting.answers[place] = earlier.answer
            else:
                raise KeyUsed(
                    f"Idempotency-Key {customer.key!r:.100} was used for another request; valid: "
                    "a new key for each decision"
                )
        if not new:
            return []
        decided = self._decided(new, self._logs[1], BATCH_YIELD.between)
        seconds = self._logs[1].write(decided.header, decided.lines)
        decided.hand_over()
        for customer in new:
            if customer.key is not None:
                answer = waiting.answers[customer.place]
                self._index.add(request.caller, customer.key, customer.digest, answer)
        return [decided.written(seconds)]

    def _decided(
        self,
        customers: list["_Customer"],
        decision_log: DecisionLog,
        one_by_one: "_OneByOne" = iter,
    ) -> "_Decided":
        champion = self._holder.current
        if champion is None:
            raise NoChampion(self._holder.why_none)
        raw = champion.bundle.encoder([one.values for one in customers])
        decisions = champion.bundle.decide(raw, champion.record.rule)
        now, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
        header, ids = decision_log.plan(
            champion.record, now.date(), len(customers), degraded=champion.degraded
        )
        answers = _answers(champion, decisions, one_by_one(ids))
        at = now.isoformat(timespec="microseconds")
        lines = [
            _line(at, clock, one, answer)
            for one, answer in zip(customers, one_by_one(answers), strict=True)
        ]
        return _Decided(champion, header, customers, decisions, answers, lines)

    def _deliver(self, answered: list[_Waiting], groups: Sequence[Group] = ()) -> None:
        """In the event loop: let answers leave, then tell listeners."""
        for waiting in answered:
            self._rows_waiting -= len(waiting.request.customers)
            if waiting.future.done():  # its request was given up
                continue
            if waiting.error is not None:
                waiting.future.set_exception(waiting.error)
            else:
                waiting.future.set_result(waiting.answers)
        unwritten = any(isinstance(waiting.error, LogUnwritable) for waiting in answered)
        if unwritten or groups:  # after the requests, which go on in the order of their answers
            self._running.call_soon(self._tell_listeners, unwritten, groups)

    def _tell_listeners(self, unwritten: bool, groups: Sequence[Group]) -> None:
        for listener in self._listeners:
            try:
                if unwritten:
                    listener.on_not_written()
                for group in groups:
                    listener.on_decided(group)
            except Exception:  # a listener must not stop decisions
                log.exception("listener_failed")


class _Lane(Generic[T]):
    """A thread with a queue, which takes all that waits there at once.

    Args:
        name: of the thread.
        work: called with the things that wait; it raises nothing.
        idle: called after a second without anything.
    """

    def __init__(
        self, name: str, work: Callable[[list[T]], None], idle: Callable[[], None]
    ) -> None:
        self._work = work
        self._idle = idle
        self._queue: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, thing: T) -> None:
        """Add to the queue."""
        self._queue.put(thing)

    def stop(self) -> None:
        """Let it work off the queue, and end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        going_on = True
        while going_on:
            try:
                things = [self._queue.get(timeout=IDLE_SECONDS)]
            except queue.Empty:
                self._idle()
                continue
            with suppress(queue.Empty):
                while True:
                    things.append(self._queue.get_nowait())
            work = [thing for thing in things if thing is not None]
            going_on = len(work) == len(things)
            if work:
                self._work(work)


class _OneByOne(Protocol):
    """How a thread goes through rows."""

    def __call__(self, things: list[T], /) -> Iterable[T]:
        """The same things."""


class _Customer:
    """One customer of a request: its place there, its values, and its idempotency key with the
    digest of the values.
    """

    __slots__ = ("digest", "key", "place", "values", "waiting")

    def __init__(self, waiting: _Waiting, place: int) -> None:
        self.waiting = waiting
        self.place = place
        self.values = waiting.request.customers[place]
        self.key = waiting.request.key_of(place)
        self.digest = "" if self.key is None else sha256(to_json(self.values)).hexdigest()


@dataclass(frozen=True, slots=True)
class _Decided:
    """Customers that were decided on together: answers and lines of the log stand in their
    order.
    """

    champion: LoadedChampion
    header: SegmentHeader
    customers: list[_Customer]
    decisions: Decisions
    answers: list[bytes]
    lines: list[bytes]

    def hand_over(self) -> None:
        """Put each answer in its place; call it when the lines are on the disk."""
        for one, answer in zip(self.customers, self.answers, strict=True):
            one.waiting.answers[one.place] = answer

    def written(self, write_seconds: float) -> Group:
        """The group for listeners."""
        oldest = min(one.waiting.request.received_at for one in self.customers)
        return Group(self.champion, self.decisions, write_seconds, oldest)


def _failed(group: list[_Waiting], error: Exception) -> list[_Waiting]:
    """The same requests, with their error."""
    if not isinstance(error, NoChampion | LogUnwritable | KeyUsed):
        log.error("decider_failed", exc_info=error)
    for waiting in group:
        waiting.error = error
    return group


def _answers(champion: LoadedChampion, decisions: Decisions, ids: Iterable[str]) -> list[bytes]:
    """The answers as they are sent, logged and stored."""
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


def _line(at: str, clock: float, one: _Customer, answer: bytes) -> bytes:
    """A decision as a line of the log: the service's own values before the customer's."""
    request = one.waiting.request
    latency_ms = round((clock - request.received_at) * 1000, 3)
    about: dict[str, Any] = {
        "at": at,
        "latency_ms": latency_ms,
        "caller": request.caller,
        "request_id": request.request_id,
    }
    if request.trace_id is not None:
        about["trace_id"] = request.trace_id
    if one.key is not None:
        about["idempotency"] = {"key": one.key, "digest": one.digest}
    return b'%b,"answer":%b,"customer":%b}' % (to_json(about)[:-1], answer, to_json(one.values))
