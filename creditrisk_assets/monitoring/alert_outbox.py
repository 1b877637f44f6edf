"""The outbox stores alerts until they have arrived, and sends them. No alert is lost, and one is
sent again only if it may not have arrived.

One database, a SQLite file or that of the store, holds the recorded evaluations, the open episodes
and the messages. All three change in one transaction, so a process that dies leaves nothing half
done. A lock keeps two processes from sending the same alert.
"""

import fcntl
import hashlib
import hmac
import json
import math
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import sqlalchemy as sa

from creditrisk_assets import database
from creditrisk_assets.monitoring.alerting import LOOP, Episode, Links, Reading, advance
from creditrisk_assets.monitoring.check_catalogue import Tier

WAIT_SECONDS = 10.0
FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 900.0
LONGEST_RETRY_AFTER_SECONDS = 3600.0
"""Upper limit of the wait that a receiver asks for by `Retry-After`."""

POST_TIMEOUT_SECONDS = 10.0
ROUND_SECONDS = 25.0
"""A round of deliveries ends after this: a sensor's tick has a minute."""

RETRY_STATUSES = (408, 425, 429)
DELIVERED_STORED = 1_000
EVALUATIONS_STORED = 2_000
SIGNATURE_HEADER = "X-Creditrisk-Signature"
ID_HEADER = "X-Creditrisk-Alert"

SQLITE_TABLES = """
CREATE TABLE IF NOT EXISTS evaluations (asset TEXT, name TEXT, identity TEXT, PRIMARY KEY (asset, name, identity));
CREATE TABLE IF NOT EXISTS episodes (asset TEXT, name TEXT, state TEXT, PRIMARY KEY (asset, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY, identity TEXT UNIQUE, episode TEXT, body TEXT, state TEXT DEFAULT 'waiting',
    attempts INT DEFAULT 0, due REAL DEFAULT 0, problem TEXT, receiver TEXT, at REAL
);
"""  # noqa: E501


class OutboxError(RuntimeError):
    """The outbox cannot be read or written."""


@dataclass(frozen=True)
class Receiver:
    """An address that takes POST requests, and the secret that signs them, if there is one."""

    url: str
    secret: str | None = None

    @property
    def name(self) -> str:
        """The host, which may be shown; a full address often holds a token."""
        return httpx.URL(self.url).host

    @property
    def digest(self) -> str:
        """A digest of address and secret."""
        return hashlib.sha256(f"{self.url}\0{self.secret}".encode()).hexdigest()[:16]

    def headers(self, identity: str, content: bytes) -> dict[str, str]:
        """HTTP headers of one message."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "creditrisk",
            ID_HEADER: identity,
        }
        if self.secret:
            headers[SIGNATURE_HEADER] = (
                "sha256=" + hmac.new(self.secret.encode(), content, hashlib.sha256).hexdigest()
            )
        return headers


@dataclass(frozen=True)
class Delivery:
    """The result of a round of deliveries: messages delivered, waiting and refused by the receiver,
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
        query = (
            "SELECT 1 FROM evaluations WHERE asset = :asset AND name = :name "
            "AND identity = :identity"
        )
        return [
            one
            for one in readings
            if not self._rows(query, asset=one.asset, name=one.check, identity=one.identity)
        ]

    def record(self, readings: Sequence[Reading], reminder_days: int, links: Links) -> int:
        """Record evaluations and queue their messages; recorded evaluations change nothing.

        The first time that a check is recorded, only alarms that are still open give messages.

        Returns:
            The number of queued messages.
        """
        with self._exclusive():
            new = self.unrecorded(readings)
            if not new:
                return 0
            # The external health watch sends each reading once.
            of_loop = [reading for reading in new if reading.observer == LOOP]
            checks = {(reading.asset, reading.check) for reading in of_loop}
            of_check = "SELECT 1 FROM evaluations WHERE asset = :asset AND name = :name LIMIT 1"
            first_time = {
                (asset, name)
                for asset, name in checks
                if not self._rows(of_check, asset=asset, name=name)
            }
            episodes, messages = advance(self.episodes(), new, reminder_days, links)
            open_episodes = {episode.identity for episode in episodes.values()}
            messages = [
                message
                for message in messages
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
            self._write("DELETE FROM episodes", {})
            self._write(
                "INSERT INTO episodes (asset, name, state) VALUES (:asset, :name, :state)",
                *(
                    {"asset": asset, "name": name, "state": json.dumps(asdict(episode))}
                    for (asset, name), episode in episodes.items()
                ),
            )
            self._write(
                "INSERT INTO messages (identity, episode, body, at) "
                "VALUES (:identity, :episode, :body, :at) ON CONFLICT DO NOTHING",
                *(
                    {
                        "identity": one.identity,
                        "episode": one.episode,
                        "body": json.dumps(_finite(one.body)),
                        "at": time.time(),
                    }
                    for one in messages
                ),
            )
            self._prune(checks)
            return len(messages)

    def episodes(self) -> dict[tuple[str, str], Episode]:
        """The open episodes."""
        rows = self._rows("SELECT asset, name, state FROM episodes")
        states = {(row.asset, row.name): json.loads(row.state) for row in rows}
        return {
            key: Episode(**{**state, "tier": Tier(state["tier"])}) for key, state in states.items()
        }

    def messages(self, state: str | None = None) -> list[dict[str, Any]]:
        """The messages, the oldest first.

        Args:
            state: `waiting`, `delivered` or `refused`; None for all.
        """
        rows = self._rows("SELECT body, state, attempts, problem FROM messages ORDER BY number")
        return [
            {
                **json.loads(row.body),
                "state": row.state,
                "attempts": row.attempts,
                "problem": row.problem,
            }
            for row in rows
            if state in (None, row.state)
        ]

    def deliver(self, receiver: Receiver, now: float | None = None) -> Delivery | None:
        """Send the messages that are due. A message waits until the earlier ones of its episode
        have arrived.

        Args:
            receiver: where to send; messages that another receiver refused are sent to it too.
            now: seconds since the epoch.

        Returns:
            The result; None if another process is delivering.
        """
        with _as_outbox_errors(), self._place.delivering(self._connection) as is_alone:
            if not is_alone:
                return None
            return self._deliver(receiver, time.time() if now is None else now)

    def _deliver(self, receiver: Receiver, now: float) -> Delivery:
        delivered, problems = 0, []
        held_back: set[str] = set()
        ends = time.monotonic() + ROUND_SECONDS
        waiting = self._rows(
            "SELECT number, identity, episode, body, attempts, due FROM messages "
            "WHERE state = 'waiting' OR (state = 'refused' AND receiver != :receiver) "
            "ORDER BY number",
            receiver=receiver.digest,
        )
        with httpx.Client(timeout=POST_TIMEOUT_SECONDS) as client:
            for row in waiting:
                if row.episode in held_back:
                    continue
                if row.due > now or time.monotonic() > ends:
                    held_back.add(row.episode)
                    continue
                outcome = _post(client, receiver, row.identity, row.body.encode())
                again = 0.0
                if outcome.state == "delivered":
                    delivered += 1
                elif outcome.state == "refused":
                    problems.append(
                        f"{receiver.name} refused alert {row.identity}: {outcome.problem}"
                    )
                else:
                    pause = _pause(row.attempts + 1, outcome.retry_after)
                    again = now + pause
                    problems.append(
                        f"{receiver.name}: {outcome.problem}; alert {row.identity} is sent again "
                        f"in {pause:.0f} s"
                    )
                    held_back.add(row.episode)
                self._write(
                    "UPDATE messages SET state = :state, attempts = :attempts, due = :due, "
                    "problem = :problem, receiver = :receiver WHERE number = :number",
                    {
                        "state": outcome.state,
                        "attempts": row.attempts + 1,
                        "due": again,
                        "problem": outcome.problem,
                        "receiver": receiver.digest,
                        "number": row.number,
                    },
                )
                if outcome.unreachable:
                    break
        rows = self._rows("SELECT state, count(*) AS number FROM messages GROUP BY state")
        counts = {row.state: row.number for row in rows}
        return Delivery(
            delivered, counts.get("waiting", 0), counts.get("refused", 0), tuple(problems)
        )

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
        self._write(
            "DELETE FROM messages WHERE state = 'delivered' AND number NOT IN (SELECT number "
            "FROM messages WHERE state = 'delivered' ORDER BY number DESC LIMIT :stored)",
            {"stored": DELIVERED_STORED},
        )

    def _rows(self, query: str, **values: object) -> Sequence[sa.Row[Any]]:
        with _as_outbox_errors():
            return self._connection.execute(sa.text(query), values).all()

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


@dataclass(frozen=True)
class _Outcome:
    """The result of one POST: the message's new state and the problem, if there is one."""

    state: str
    problem: str | None = None
    unreachable: bool = False
    retry_after: float | None = None


def _post(client: httpx.Client, receiver: Receiver, identity: str, content: bytes) -> _Outcome:
    try:
        with closing(
            client.post(receiver.url, content=content, headers=receiver.headers(identity, content))
        ) as answer:
            status, retry_after = answer.status_code, answer.headers.get("Retry-After", "")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _Outcome("waiting", f"{type(error).__name__}: {error}"[:200], unreachable=True)
    if httpx.codes.is_success(status):
        return _Outcome("delivered")
    if status in RETRY_STATUSES or httpx.codes.is_server_error(status):
        seconds = float(retry_after) if retry_after.isdigit() else None
        return _Outcome("waiting", f"answered {status}", retry_after=seconds)
    hint = "; name the final address" if httpx.codes.is_redirect(status) else ""
    return _Outcome("refused", f"answered {status}{hint}")


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
