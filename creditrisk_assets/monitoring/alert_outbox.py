"""The outbox stores alerts on disk until they have arrived, and sends them. No alert is lost, and
one is sent again only if it may not have arrived.

One SQLite file holds the recorded evaluations, the open episodes and the messages. All three change
in one transaction, so a process that dies leaves nothing half done. A lock keeps two processes from
sending the same alert.
"""

import fcntl
import hashlib
import hmac
import json
import math
import random
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import httpx

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

SCHEMA = """
CREATE TABLE IF NOT EXISTS evaluations (asset TEXT, name TEXT, identity TEXT, PRIMARY KEY (asset, name, identity));
CREATE TABLE IF NOT EXISTS episodes (asset TEXT, name TEXT, state TEXT, PRIMARY KEY (asset, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY, identity TEXT UNIQUE, episode TEXT, body TEXT, state TEXT DEFAULT 'waiting',
    attempts INT DEFAULT 0, due REAL DEFAULT 0, problem TEXT, receiver TEXT, at REAL
);
"""  # noqa: E501


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


class Outbox:
    """The outbox in a folder.

    Args:
        folder: on a disk of this machine; created if missing.

    Raises:
        sqlite3.Error: if it cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = folder / "deliver.lock"
        self._connection = sqlite3.connect(
            folder / "alerts.db", timeout=WAIT_SECONDS, isolation_level=None
        )
        self._connection.execute("PRAGMA journal_mode=WAL")
        with self._exclusive():
            for statement in SCHEMA.split(";"):
                self._connection.execute(statement)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def unrecorded(self, readings: Sequence[Reading]) -> list[Reading]:
        """The evaluations that are not recorded yet."""
        query = "SELECT 1 FROM evaluations WHERE asset = ? AND name = ? AND identity = ?"
        return [one for one in readings if not self._has(query, one.asset, one.check, one.identity)]

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
            of_check = "SELECT 1 FROM evaluations WHERE asset = ? AND name = ? LIMIT 1"
            first_time = {key for key in checks if not self._has(of_check, *key)}
            episodes, messages = advance(self.episodes(), new, reminder_days, links)
            open_episodes = {episode.identity for episode in episodes.values()}
            messages = [
                message
                for message in messages
                if (message.body["asset"], message.body["check"]) not in first_time
                or message.episode in open_episodes
            ]
            self._connection.executemany(
                "INSERT INTO evaluations (asset, name, identity) VALUES (?, ?, ?)",
                [(reading.asset, reading.check, reading.identity) for reading in of_loop],
            )
            self._connection.execute("DELETE FROM episodes")
            self._connection.executemany(
                "INSERT INTO episodes VALUES (?, ?, ?)",
                [(*key, json.dumps(asdict(episode))) for key, episode in episodes.items()],
            )
            self._connection.executemany(
                "INSERT OR IGNORE INTO messages (identity, episode, body, at) VALUES (?, ?, ?, ?)",
                [
                    (one.identity, one.episode, json.dumps(_finite(one.body)), time.time())
                    for one in messages
                ],
            )
            self._prune(checks)
            return len(messages)

    def episodes(self) -> dict[tuple[str, str], Episode]:
        """The open episodes."""
        rows = self._connection.execute("SELECT asset, name, state FROM episodes").fetchall()
        states = {(asset, name): json.loads(state) for asset, name, state in rows}
        return {
            key: Episode(**{**state, "tier": Tier(state["tier"])}) for key, state in states.items()
        }

    def messages(self, state: str | None = None) -> list[dict[str, Any]]:
        """The messages, the oldest first.

        Args:
            state: `waiting`, `delivered` or `refused`; None for all.
        """
        query = (
            "SELECT body, state, attempts, problem FROM messages WHERE ? IS NULL OR state = ? "
            "ORDER BY number"
        )
        rows = self._connection.execute(query, (state, state)).fetchall()
        return [
            {**json.loads(body), "state": at, "attempts": tries, "problem": why}
            for body, at, tries, why in rows
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
        with self._lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            return self._deliver(receiver, time.time() if now is None else now)

    def _deliver(self, receiver: Receiver, now: float) -> Delivery:
        delivered, problems = 0, []
        held_back: set[str] = set()
        ends = time.monotonic() + ROUND_SECONDS
        waiting = self._connection.execute(
            "SELECT number, identity, episode, body, attempts, due FROM messages"
            " WHERE state = 'waiting' OR (state = 'refused' AND receiver != ?) ORDER BY number",
            [receiver.digest],
        ).fetchall()
        with httpx.Client(timeout=POST_TIMEOUT_SECONDS) as client:
            for number, identity, episode, body, attempts, due in waiting:
                if episode in held_back:
                    continue
                if due > now or time.monotonic() > ends:
                    held_back.add(episode)
                    continue
                outcome = _post(client, receiver, identity, body.encode())
                again = 0.0
                if outcome.state == "delivered":
                    delivered += 1
                elif outcome.state == "refused":
                    problems.append(f"{receiver.name} refused alert {identity}: {outcome.problem}")
                else:
                    pause = _pause(attempts + 1, outcome.retry_after)
                    again = now + pause
                    problems.append(
                        f"{receiver.name}: {outcome.problem}; alert {identity} is sent again in "
                        f"{pause:.0f} s"
                    )
                    held_back.add(episode)
                self._connection.execute(
                    "UPDATE messages SET state = ?, attempts = ?, due = ?, problem = ?, "
                    "receiver = ? WHERE number = ?",
                    [outcome.state, attempts + 1, again, outcome.problem, receiver.digest, number],
                )
                if outcome.unreachable:
                    break
        counts = dict(
            self._connection.execute(
                "SELECT state, count(*) FROM messages GROUP BY state"
            ).fetchall()
        )
        return Delivery(
            delivered, counts.get("waiting", 0), counts.get("refused", 0), tuple(problems)
        )

    def _has(self, query: str, *values: str) -> bool:
        return self._connection.execute(query, values).fetchone() is not None

    def _prune(self, checks: Iterable[tuple[str, str]]) -> None:
        for asset, name in checks:
            self._connection.execute(
                "DELETE FROM evaluations WHERE asset = ? AND name = ? AND rowid NOT IN (SELECT "
                "rowid FROM evaluations WHERE asset = ? AND name = ? ORDER BY rowid DESC LIMIT ?)",
                (asset, name, asset, name, EVALUATIONS_STORED),
            )
        self._connection.execute(
            "DELETE FROM messages WHERE state = 'delivered' AND number NOT IN"
            " (SELECT number FROM messages WHERE state = 'delivered' ORDER BY number DESC LIMIT ?)",
            [DELIVERED_STORED],
        )

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise


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
