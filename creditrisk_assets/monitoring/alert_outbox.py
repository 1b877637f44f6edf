"""The outbox stores alerts until they have arrived, and sends them. No alert is lost, and one is
sent again only if it may not have arrived. The receivers themselves belong in `receivers`.

One database, a SQLite file or that of the store, holds the recorded evaluations, the open episodes,
the records of all episodes, and the messages with their deliveries, one for each receiver. All
change in one transaction, so a process that dies leaves nothing half done. A lock keeps two
processes from sending the same alert.
"""

import fcntl
import json
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import httpx
import sqlalchemy as sa

from creditrisk_assets import database
from creditrisk_assets.monitoring.alerting import (
    LOOP,
    Episode,
    Kind,
    Links,
    Message,
    Reading,
    advance,
    with_reactions,
)
from creditrisk_assets.monitoring.check_catalogue import Tier
from creditrisk_assets.monitoring.episodes import CLOSED_SHOWN, EpisodeRecord, Reaction
from creditrisk_assets.monitoring.receivers import WEBHOOK, Outcome, Receiver

WAIT_SECONDS = 10.0
FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 900.0
LONGEST_RETRY_AFTER_SECONDS = 3600.0
"""Upper limit of the wait that a receiver asks for by `Retry-After`."""

ROUND_SECONDS = 25.0
"""A round of deliveries ends after this: a sensor's tick has a minute."""

DELIVERED_STORED = 1_000
EVALUATIONS_STORED = 2_000
IDENTITIES_IN_QUERY = 500
"""SQLite has a limit of parameters."""

CLOSED_STORED = 1_000
REACTION_SECONDS = 3_600.0
"""A reaction to an episode that has just closed is still recorded for so long."""

UNINFORMED_SECONDS = 600.0
"""An episode that began and ended within this time is still sent: the external watch runs every
minute.
"""

BY_RECEIVER = "by receiver"
"""State of a message whose deliveries have a row for each receiver. The release before knew one
receiver and had the state in the message: its rows get a delivery.
"""

NO_REACTIONS: Mapping[str, Sequence[Reaction]] = MappingProxyType({})
WORKING_STATE = (
    "identity",
    "asset",
    "check",
    "model_version",
    "tier",
    "first_seen",
    "message_day",
    "failures",
    "latest_day",
    "last_failure",
)
"""Fields of an open episode that the release before stores too; it refuses others. The rest is in
the episode's record.
"""

SQLITE_TABLES = """
CREATE TABLE IF NOT EXISTS evaluations (asset TEXT, name TEXT, identity TEXT, PRIMARY KEY (asset, name, identity));
CREATE TABLE IF NOT EXISTS episodes (asset TEXT, name TEXT, state TEXT, PRIMARY KEY (asset, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY, identity TEXT UNIQUE, episode TEXT, body TEXT, state TEXT DEFAULT 'waiting',
    attempts INT DEFAULT 0, due REAL DEFAULT 0, problem TEXT, receiver TEXT, at REAL
);
CREATE TABLE IF NOT EXISTS deliveries (
    message INTEGER, receiver TEXT, state TEXT, attempts INT, due REAL, problem TEXT, digest TEXT,
    PRIMARY KEY (message, receiver)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS episode_records (
    number INTEGER PRIMARY KEY, identity TEXT UNIQUE, is_open INT, document TEXT
);
"""  # noqa: E501


class OutboxError(RuntimeError):
    """The outbox cannot be read or written."""


@dataclass(frozen=True)
class Delivery:
    """The result of a round of deliveries: deliveries made, waiting and refused by their receivers,
    and the problems.
    """

    delivered: int
    waiting: int
    refused: int
    problems: tuple[str, ...]

    @property
    def counts(self) -> str:
        """The counts in words."""
        return f"{self.delivered} delivered, {self.waiting} waiting, {self.refused} refused"


class _File:
    """A SQLite file on a disk of this machine.

    Attributes:
        engine: its engine, which commits each statement outside a transaction.
        begin: statements that begin a transaction which no other process runs beside.
        age: column that orders evaluations by their age.
    """

    begin = ("BEGIN IMMEDIATE",)
    age = "rowid"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = folder / "deliver.lock"
        self.engine = sa.create_engine(
            f"sqlite:///{folder / 'alerts.db'}",
            isolation_level="AUTOCOMMIT",
            connect_args={"timeout": WAIT_SECONDS},
        )
        with _as_outbox_errors(), self.engine.connect() as connection:
            connection.execute(sa.text("PRAGMA journal_mode=WAL"))
            for statement in ("BEGIN IMMEDIATE", *SQLITE_TABLES.strip().split(";\n"), "COMMIT"):
                connection.execute(sa.text(statement))

    @contextmanager
    def delivering(self, _: sa.Connection) -> Iterator[bool]:
        """Hold the lock of the process that delivers; False if another process has it."""
        with self._lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


class _Server:
    """The store's database; attributes and methods as those of `_File`."""

    begin = ("BEGIN", "SELECT pg_advisory_xact_lock(hashtext('alerts'))")
    age = "number"

    def __init__(self, url: str) -> None:
        self.engine = database.connect(url).execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def delivering(self, connection: sa.Connection) -> Iterator[bool]:
        """Hold the same lock in the database."""
        lock = "(hashtext('alert delivery'))"
        locked = connection.execute(sa.text(f"SELECT pg_try_advisory_lock{lock}")).scalar_one()
        try:
            yield bool(locked)
        finally:
            if locked:
                connection.execute(sa.text(f"SELECT pg_advisory_unlock{lock}"))


class Outbox:
    """The outbox of a store.

    Args:
        folder: of its file, on a disk of this machine; created if missing.
        database_url: of the store's database, which has the outbox in place of the folder.

    Raises:
        OutboxError: if it cannot be opened.
    """

    def __init__(self, folder: Path, database_url: str | None = None) -> None:
        self._place = _Server(database_url) if database_url else _File(folder)
        with _as_outbox_errors():
            self._connection = self._place.engine.connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._place.engine.dispose()

    def unrecorded(self, readings: Sequence[Reading]) -> list[Reading]:
        """The evaluations that are not recorded yet."""
        by_check: dict[tuple[str, str], list[str]] = {}
        for one in readings:
            by_check.setdefault((one.asset, one.check), []).append(one.identity)
        query = sa.text(
            "SELECT identity FROM evaluations WHERE asset = :asset AND name = :name "
            "AND identity IN :identities"
        ).bindparams(sa.bindparam("identities", expanding=True))
        recorded = set[tuple[str, str, str]]()
        for (asset, name), identities in by_check.items():
            for start in range(0, len(identities), IDENTITIES_IN_QUERY):
                some = identities[start : start + IDENTITIES_IN_QUERY]
                rows = self._rows(query, asset=asset, name=name, identities=some)
                recorded |= {(asset, name, row.identity) for row in rows}
        return [one for one in readings if (one.asset, one.check, one.identity) not in recorded]

    def record(
        self,
        readings: Sequence[Reading],
        reminder_days: int,
        links: Links,
        receivers: Sequence[Receiver] = (),
        reactions: Mapping[str, Sequence[Reaction]] = NO_REACTIONS,
    ) -> int:
        """Record evaluations and reactions, and queue the messages about them; what is recorded
        already changes nothing.

        The first time that a check is recorded, only alarms that are still open give messages.

        Args:
            readings: evaluations.
            reminder_days: days between reminders of an open alarm; 0: none.
            links: for the messages.
            receivers: whose routes decide which of them gets a message.
            reactions: of people, by episode.

        Returns:
            The number of queued messages.
        """
        with self._exclusive():
            self._take_over_messages()
            new = self.unrecorded(readings)
            # The external health watch sends each reading once.
            of_loop = [reading for reading in new if reading.observer == LOOP]
            checks = {(reading.asset, reading.check) for reading in of_loop}
            of_check = "SELECT 1 FROM evaluations WHERE asset = :asset AND name = :name LIMIT 1"
            first_time = {
                (asset, name)
                for asset, name in checks
                if not self._rows(of_check, asset=asset, name=name)
            }
            before = self.episodes()
            reacted, acknowledged = with_reactions(before, reactions, links)
            advanced = advance(reacted, new, reminder_days, links)
            open_episodes = {episode.identity for episode in advanced.episodes.values()}
            messages = acknowledged + [
                message
                for message in advanced.messages
                if (message.body["asset"], message.body["check"]) not in first_time
                or message.episode in open_episodes
            ]
            self._write(
                "INSERT INTO evaluations (asset, name, identity) VALUES (:asset, :name, :identity)",
                *(
                    {"asset": one.asset, "name": one.check, "identity": one.identity}
                    for one in of_loop
                ),
            )
            self._store_open(before, advanced.episodes)
            self._store_records(advanced.episodes.values(), advanced.closed, reactions)
            self._queue(messages, receivers)
            if new:
                self._prune(checks)
            return len(messages)

    def episodes(self) -> dict[tuple[str, str], Episode]:
        """The open episodes."""
        records = {record.id: record for record in self._records("is_open = 1")}
        found = {}
        for row in self._rows("SELECT asset, name, state FROM episodes"):
            state = json.loads(row.state)
            record = records.get(state["identity"])
            more: dict[str, Any] = {}
            if record is not None:
                more = {
                    "opened_day": record.opened_day,
                    "failure": record.failure,
                    "run_id": record.run_id or "",
                    "reactions": record.reactions,
                }
            tier = Tier(state["tier"])
            found[row.asset, row.name] = Episode(**{**state, "tier": tier, **more})
        return found

    def records(self, closed: int = CLOSED_SHOWN) -> list[EpisodeRecord]:
        """The open episodes, the newest first, and then the closed ones, the last closed first.

        Args:
            closed: the most closed ones.
        """
        is_open = sorted(self._records("is_open = 1"), key=lambda one: -one.opened_at)
        is_closed = sorted(self._records("is_open = 0"), key=lambda one: -(one.closed_at or 0))
        return [*is_open, *is_closed[:closed]]

    def reactions_known(self, now: float | None = None) -> dict[str, list[str]]:
        """The episodes that may get reactions, each with the ids of those that are recorded.

        Args:
            now: seconds since the epoch.
        """
        since = (time.time() if now is None else now) - REACTION_SECONDS
        return {
            one.id: [reaction.id for reaction in one.reactions]
            for one in self.records()
            if one.closed_at is None or one.closed_at > since
        }

    def messages(self, state: str | None = None) -> list[dict[str, Any]]:
        """The deliveries of the messages, the oldest message first, and the messages without one.

        Args:
            state: `waiting`, `delivered` or `refused`; None for all.
        """
        rows = self._rows(
            "SELECT m.body, d.receiver, d.state, d.attempts, d.problem FROM messages m "
            "LEFT JOIN deliveries d ON d.message = m.number ORDER BY m.number, d.receiver"
        )
        return [
            {
                **json.loads(row.body),
                "receiver": row.receiver,
                "state": row.state,
                "attempts": row.attempts,
                "problem": row.problem,
            }
            for row in rows
            if state in (None, row.state)
        ]

    def deliver(
        self,
        receivers: Sequence[Receiver],
        now: float | None = None,
        on_answer: Callable[[Receiver, str, bytes], None] | None = None,
    ) -> Delivery | None:
        """Send the messages that are due, to each receiver those of its route. A message waits
        until the earlier ones of its episode have arrived at the same receiver.

        Args:
            receivers: where to send; messages that a receiver refused under another address or
                secret are sent to it again.
            now: seconds since the epoch.
            on_answer: called with the receiver, the episode and the body of each answer to a
                delivered message that has a body.

        Returns:
            The result; None if another process is delivering.
        """
        with _as_outbox_errors(), self._place.delivering(self._connection) as is_alone:
            if not is_alone:
                return None
            with self._exclusive():
                self._take_over_messages()
                self._inform(receivers, time.time())
            return self._deliver(receivers, time.time() if now is None else now, on_answer)

    def _deliver(
        self,
        receivers: Sequence[Receiver],
        now: float,
        on_answer: Callable[[Receiver, str, bytes], None] | None,
    ) -> Delivery:
        delivered, problems = 0, list[str]()
        ends = time.monotonic() + ROUND_SECONDS
        rows = {one.name: self._undelivered(one) for one in receivers}

        def attempts(receiver: Receiver) -> int:
            return max((row.attempts for row in rows[receiver.name]), default=0)

        with httpx.Client() as client:
            # One that does not answer takes the time of the round: it comes last.
            for receiver in sorted(receivers, key=attempts):
                held_back: set[str] = set()
                for row in rows[receiver.name]:
                    if row.episode in held_back:
                        continue
                    if row.due > now or time.monotonic() > ends:
                        held_back.add(row.episode)
                        continue
                    if Kind(json.loads(row.body)["kind"]) in receiver.skips:
                        self._settle(receiver, row, Outcome("delivered"), 0.0)
                        continue
                    outcome = receiver.send(client, row.identity, row.body.encode())
                    pause = _pause(row.attempts + 1, outcome.retry_after)
                    if outcome.state == "waiting":
                        held_back.add(row.episode)
                    elif outcome.state == "delivered":
                        delivered += 1
                        if outcome.answer and on_answer is not None:
                            on_answer(receiver, row.episode, outcome.answer)
                    if outcome.problem is not None:
                        problems.append(_problem(receiver, row.identity, outcome, pause))
                    self._settle(receiver, row, outcome, now + pause)
                    if outcome.is_unreachable:
                        break
        return Delivery(delivered, *self._counts(receivers), tuple(problems))

    def _undelivered(self, receiver: Receiver) -> Sequence[sa.Row[Any]]:
        return self._rows(
            "SELECT m.number, m.identity, m.episode, m.body, d.attempts, d.due "
            "FROM deliveries d JOIN messages m ON m.number = d.message "
            "WHERE d.receiver = :receiver AND (d.state = 'waiting' "
            "OR (d.state = 'refused' AND d.digest != :digest)) ORDER BY m.number",
            receiver=receiver.name,
            digest=receiver.digest,
        )

    def _settle(self, receiver: Receiver, row: sa.Row[Any], outcome: Outcome, again: float) -> None:
        """Record the result of an attempt."""
        self._write(
            "UPDATE deliveries SET state = :state, attempts = :attempts, due = :due, "
            "problem = :problem, digest = :digest "
            "WHERE message = :message AND receiver = :receiver",
            {
                "state": outcome.state,
                "attempts": row.attempts + 1,
                "due": again if outcome.state == "waiting" else 0.0,
                "problem": outcome.problem,
                "digest": receiver.digest,
                "message": row.number,
                "receiver": receiver.name,
            },
        )

    def _counts(self, receivers: Sequence[Receiver]) -> tuple[int, int]:
        """The waiting and the refused deliveries to these receivers."""
        names = {one.name for one in receivers}
        rows = self._rows(
            "SELECT receiver, state, count(*) AS number FROM deliveries GROUP BY receiver, state"
        )
        counts = {
            state: sum(row.number for row in rows if row.state == state and row.receiver in names)
            for state in ("waiting", "refused")
        }
        return counts["waiting"], counts["refused"]

    def _store_open(
        self, before: Mapping[tuple[str, str], Episode], now: Mapping[tuple[str, str], Episode]
    ) -> None:
        if before == now:
            return
        self._write("DELETE FROM episodes", {})
        self._write(
            "INSERT INTO episodes (asset, name, state) VALUES (:asset, :name, :state)",
            *(
                {"asset": asset, "name": name, "state": json.dumps(_working_state(episode))}
                for (asset, name), episode in now.items()
            ),
        )

    def _store_records(
        self,
        open_episodes: Iterable[Episode],
        closed: Sequence[EpisodeRecord],
        reactions: Mapping[str, Sequence[Reaction]],
    ) -> None:
        """Bring the records to the state of the episodes."""
        records = {episode.identity: episode.record for episode in open_episodes}
        records |= {record.id: record for record in closed}
        stored = {one.id: one for one in self._records("is_open = 1")}
        for identity, one in stored.items():
            if identity not in records:  # a release that knows no records has closed it
                closing = {"closed_at": time.time(), "closed_by": "another release of the loop"}
                records[identity] = one.model_copy(update=closing)
        for one in self._records("is_open = 0") if any(reactions.values()) else ():
            if more := reactions.get(one.id):
                stored[one.id], records[one.id] = one, one.with_reactions(more)
        self._write(
            "INSERT INTO episode_records (identity, is_open, document) "
            "VALUES (:identity, :is_open, :document) ON CONFLICT (identity) DO UPDATE "
            "SET is_open = excluded.is_open, document = excluded.document",
            *(
                {
                    "identity": identity,
                    "is_open": int(record.closed_at is None),
                    "document": record.model_dump_json(),
                }
                for identity, record in records.items()
                if stored.get(identity) != record
            ),
        )
        self._write(
            "DELETE FROM episode_records WHERE is_open = 0 AND number NOT IN (SELECT number "
            "FROM episode_records WHERE is_open = 0 ORDER BY number DESC LIMIT :stored)",
            {"stored": CLOSED_STORED},
        )

    def _records(self, where: str) -> list[EpisodeRecord]:
        rows = self._rows(f"SELECT document FROM episode_records WHERE {where} ORDER BY number")  # noqa: S608  # constants
        return [EpisodeRecord.model_validate_json(row.document) for row in rows]

    def _queue(self, messages: Sequence[Message], receivers: Sequence[Receiver]) -> None:
        """Queue messages for the receivers of their routes, and for those that have had a message
        of the same episode.
        """
        for one in messages:
            self._write(
                "INSERT INTO messages (identity, episode, body, state, at) "
                "VALUES (:identity, :episode, :body, :state, :at) "
                "ON CONFLICT (identity) DO NOTHING",
                {
                    "identity": one.identity,
                    "episode": one.episode,
                    "body": json.dumps(_finite(one.body)),
                    "state": BY_RECEIVER,
                    "at": time.time(),
                },
            )
            (row,) = self._rows(
                "SELECT number FROM messages WHERE identity = :identity", identity=one.identity
            )
            names = self._informed(one.episode)
            if one.body["kind"] != Kind.ACKNOWLEDGED:
                tier, check = one.body["tier"], one.body["check"]
                names |= {to.name for to in receivers if to.takes(tier, check)}
            self._add_deliveries(row.number, names)

    def _inform(self, receivers: Sequence[Receiver], now: float) -> None:
        """Queue what receivers have not had of their routes: of an open episode its latest message,
        of one that has just begun and ended all. A process without receivers may have recorded
        them, or a route is new.
        """
        open_episodes = {episode.identity for episode in self.episodes().values()}
        rows = self._rows(
            "SELECT number, episode, body, at FROM messages WHERE body NOT LIKE :acknowledged "
            "ORDER BY number",
            acknowledged=f'%"kind": "{Kind.ACKNOWLEDGED}"%',
        )
        by_episode: dict[str, list[sa.Row[Any]]] = {}
        for row in rows:
            by_episode.setdefault(row.episode, []).append(row)
        for episode, of_it in by_episode.items():
            is_open = episode in open_episodes
            if not is_open and of_it[-1].at < now - UNINFORMED_SECONDS:
                continue
            body = json.loads(of_it[-1].body)
            takers = {one.name for one in receivers if one.takes(body["tier"], body["check"])}
            names = takers - self._informed(episode)
            for row in of_it[-1:] if is_open else of_it:
                self._add_deliveries(row.number, names)

    def _informed(self, episode: str) -> set[str]:
        """The receivers that have, or get, a message of an episode."""
        rows = self._rows(
            "SELECT DISTINCT d.receiver FROM deliveries d JOIN messages m ON m.number = d.message "
            "WHERE m.episode = :episode",
            episode=episode,
        )
        return {row.receiver for row in rows}

    def _add_deliveries(self, message: int, names: Iterable[str]) -> None:
        self._write(
            "INSERT INTO deliveries (message, receiver, state, attempts, due) "
            "VALUES (:message, :receiver, 'waiting', 0, 0) ON CONFLICT DO NOTHING",
            *({"message": message, "receiver": name} for name in sorted(names)),
        )

    def _take_over_messages(self) -> None:
        """Give the messages of the release before their delivery to its one receiver."""
        earlier = {"state": BY_RECEIVER, "receiver": WEBHOOK}
        # Its own digest is of another kind: what it was refused is offered once more.
        self._write(
            "INSERT INTO deliveries (message, receiver, state, attempts, due, problem, digest) "
            "SELECT number, :receiver, state, attempts, due, problem, receiver FROM messages "
            "WHERE state != :state ON CONFLICT DO NOTHING",
            earlier,
        )
        self._write("UPDATE messages SET state = :state WHERE state != :state", earlier)

    def _prune(self, checks: Iterable[tuple[str, str]]) -> None:
        of_check = "asset = :asset AND name = :name"
        age = self._place.age
        newest = f"SELECT {age} FROM evaluations WHERE {of_check} ORDER BY {age} DESC LIMIT :stored"  # noqa: S608  # constants
        self._write(
            f"DELETE FROM evaluations WHERE {of_check} AND {age} NOT IN ({newest})",  # noqa: S608  # constants
            *(
                {"asset": asset, "name": name, "stored": EVALUATIONS_STORED}
                for asset, name in checks
            ),
        )
        pending = "SELECT message FROM deliveries WHERE state IN ('waiting', 'refused')"
        self._write(
            f"DELETE FROM messages WHERE number NOT IN ({pending}) AND number NOT IN (SELECT "  # noqa: S608  # constants
            f"number FROM messages WHERE number NOT IN ({pending}) "
            "ORDER BY number DESC LIMIT :stored)",
            {"stored": DELIVERED_STORED},
        )
        self._write("DELETE FROM deliveries WHERE message NOT IN (SELECT number FROM messages)", {})

    def _rows(self, query: str | sa.TextClause, **values: object) -> Sequence[sa.Row[Any]]:
        statement = sa.text(query) if isinstance(query, str) else query
        with _as_outbox_errors():
            return self._connection.execute(statement, values).all()

    def _write(self, statement: str, *rows: Mapping[str, object]) -> None:
        if rows:
            with _as_outbox_errors():
                self._connection.execute(sa.text(statement), [dict(row) for row in rows])

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        for statement in self._place.begin:
            self._run(statement)
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            with suppress(OutboxError):  # the connection may be lost, and with it the transaction
                self._run("ROLLBACK")
            raise

    def _run(self, statement: str) -> None:
        with _as_outbox_errors():
            self._connection.execute(sa.text(statement)).close()


@contextmanager
def _as_outbox_errors() -> Iterator[None]:
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        raise OutboxError(f"the outbox of alerts: {error!s:.300}") from error


def _working_state(episode: Episode) -> dict[str, Any]:
    """The fields of an open episode that every release can read."""
    state = {one.name: getattr(episode, one.name) for one in fields(episode)}
    return {name: state[name] for name in WORKING_STATE}


def _problem(receiver: Receiver, identity: str, outcome: Outcome, pause: float) -> str:
    """The problem of a message, for people."""
    if outcome.state == "refused":
        return f"{receiver.name} ({receiver.place}) refused alert {identity}: {outcome.problem}"
    again = f"; alert {identity} is sent again in {pause:.0f} s"
    return (
        f"{receiver.name} ({receiver.place}): {outcome.problem}"
        f"{again if outcome.state == 'waiting' else ''}"
    )


def _pause(attempts: int, retry_after: float | None) -> float:
    """Seconds until the next attempt: exponential backoff, half of it random, and at least the
    receiver's `Retry-After`.
    """
    longest = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(attempts - 1, 20))
    return max(longest * random.uniform(0.5, 1), min(retry_after or 0, LONGEST_RETRY_AFTER_SECONDS))  # noqa: S311  # no secret


def _finite(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body with None for NaN and infinity, which JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in body.items()
    }
