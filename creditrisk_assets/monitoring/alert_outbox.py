"""What is to be sent, on the disk until it has arrived: an alert is never lost, and only sent again
when it may not have arrived.

One SQLite file holds which evaluations were taken notice of, which episodes go on, and the
messages; all three change together, so that a process that dies between two of them leaves nothing
half done. Who delivers holds a lock, so that two never send the same.
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
LONGEST_ASKED_SECONDS = 3600.0
"""A receiver may ask for patience, but not for more than this."""

POST_TIMEOUT_SECONDS = 10.0
ROUND_SECONDS = 25.0
"""One round of deliveries ends after this, for a sensor's tick has a minute."""

TRY_AGAIN = (408, 425, 429)
KEPT_DELIVERED = 1_000
KEPT_SEEN = 2_000
SIGNATURE_HEADER = "X-Creditrisk-Signature"
ID_HEADER = "X-Creditrisk-Alert"

SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (asset TEXT, name TEXT, identity TEXT, PRIMARY KEY (asset, name, identity));
CREATE TABLE IF NOT EXISTS episodes (asset TEXT, name TEXT, state TEXT, PRIMARY KEY (asset, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY, identity TEXT UNIQUE, episode TEXT, body TEXT, state TEXT DEFAULT 'waiting',
    attempts INT DEFAULT 0, due REAL DEFAULT 0, problem TEXT, receiver TEXT, at REAL
);
"""  # noqa: E501


@dataclass(frozen=True)
class Receiver:
    """Who is told: an address that takes POST, and the secret by which it knows that we are the
    sender, if there is one.
    """

    url: str
    secret: str | None = None

    @property
    def name(self) -> str:
        """What may be shown: an address often holds a token."""
        return httpx.URL(self.url).host

    @property
    def digest(self) -> str:
        """Differs when the receiver does."""
        return hashlib.sha256(f"{self.url}\0{self.secret}".encode()).hexdigest()[:16]

    def headers(self, identity: str, content: bytes) -> dict[str, str]:
        """Of one message."""
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
    """What a round of deliveries did: messages that arrived, that wait, that the receiver will not
    take, and what went wrong.
    """

    delivered: int
    waiting: int
    refused: int
    problems: tuple[str, ...]

    @property
    def counts(self) -> str:
        """In words."""
        return f"{self.delivered} delivered, {self.waiting} waiting, {self.refused} refused"


class Outbox:
    """The outbox in a folder.

    Args:
        folder: on a disk of this machine; it is made if it is not there.

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

    def unseen(self, readings: Sequence[Reading]) -> list[Reading]:
        """Those evaluations that were not taken notice of."""
        return [one for one in readings if not self._is_seen(one)]

    def take(self, readings: Sequence[Reading], reminder_days: int, links: Links) -> int:
        """Take notice of evaluations; those that were seen before change nothing.

        Of a check that nothing is known of, what began and ended before is passed over: only an
        alarm that goes on is told.

        Returns:
            How many messages are to be sent for them.
        """
        with self._exclusive():
            new = self.unseen(readings)
            if not new:
                return 0
            of_loop = [
                one for one in new if one.observer == LOOP
            ]  # who looks from outside makes each reading once
            checks = {(one.asset, one.check) for one in of_loop}
            unknown = {key for key in checks if not self._is_known(*key)}
            episodes, messages = advance(self.episodes(), new, reminder_days, links)
            going_on = {episode.identity for episode in episodes.values()}
            messages = [
                one
                for one in messages
                if (one.body["asset"], one.body["check"]) not in unknown or one.episode in going_on
            ]
            self._connection.executemany(
                "INSERT INTO seen (asset, name, identity) VALUES (?, ?, ?)",
                [(one.asset, one.check, one.identity) for one in of_loop],
            )
            self._connection.execute("DELETE FROM episodes")
            self._connection.executemany(
                "INSERT INTO episodes VALUES (?, ?, ?)",
                [(*key, json.dumps(asdict(one))) for key, one in episodes.items()],
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
        """The episodes that go on."""
        rows = self._connection.execute("SELECT asset, name, state FROM episodes").fetchall()
        return {(asset, name): _episode(json.loads(state)) for asset, name, state in rows}

    def messages(self, state: str | None = None) -> list[dict[str, Any]]:
        """What was to be sent, the oldest first.

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
        """Send what is due. A message waits until those of its episode that came before it have
        arrived.

        Args:
            receiver: who is told; messages that another one refused are offered to it.
            now: seconds since the epoch.

        Returns:
            What was done; None if somebody else is delivering.
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
        with httpx.Client(timeout=POST_TIMEOUT_SECONDS) as client:
            for number, identity, episode, body, attempts, due in self._due(receiver):
                if episode in held_back:
                    continue
                if due > now or time.monotonic() > ends:
                    held_back.add(episode)
                    continue
                outcome = _post(client, receiver, identity, body.encode())
                if outcome.arrived:
                    self._note(number, "delivered", attempts + 1, 0, None, receiver)
                    delivered += 1
                elif outcome.for_ever:
                    self._note(number, "refused", attempts + 1, 0, outcome.problem, receiver)
                    problems.append(f"{receiver.name} refused alert {identity}: {outcome.problem}")
                else:
                    pause = _pause(attempts + 1, outcome.patience)
                    self._note(
                        number, "waiting", attempts + 1, now + pause, outcome.problem, receiver
                    )
                    problems.append(
                        f"{receiver.name}: {outcome.problem}; alert {identity} is tried again in "
                        f"{pause:.0f} s"
                    )
                    held_back.add(episode)
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

    def _due(self, receiver: Receiver) -> list[tuple[int, str, str, str, int, float]]:
        return self._connection.execute(
            "SELECT number, identity, episode, body, attempts, due FROM messages"
            " WHERE state = 'waiting' OR (state = 'refused' AND receiver != ?) ORDER BY number",
            [receiver.digest],
        ).fetchall()

    def _note(
        self,
        number: int,
        state: str,
        attempts: int,
        due: float,
        problem: str | None,
        receiver: Receiver,
    ) -> None:
        self._connection.execute(
            "UPDATE messages SET state = ?, attempts = ?, due = ?, problem = ?, receiver = ? "
            "WHERE number = ?",
            (state, attempts, due, problem, receiver.digest, number),
        )

    def _is_seen(self, one: Reading) -> bool:
        query = "SELECT 1 FROM seen WHERE asset = ? AND name = ? AND identity = ?"
        return (
            self._connection.execute(query, (one.asset, one.check, one.identity)).fetchone()
            is not None
        )

    def _is_known(self, asset: str, check: str) -> bool:
        query = "SELECT 1 FROM seen WHERE asset = ? AND name = ? LIMIT 1"
        return self._connection.execute(query, (asset, check)).fetchone() is not None

    def _prune(self, checks: Iterable[tuple[str, str]]) -> None:
        for asset, name in checks:
            self._connection.execute(
                "DELETE FROM seen WHERE asset = ? AND name = ? AND rowid NOT IN (SELECT rowid "
                "FROM seen WHERE asset = ? AND name = ? ORDER BY rowid DESC LIMIT ?)",
                (asset, name, asset, name, KEPT_SEEN),
            )
        self._connection.execute(
            "DELETE FROM messages WHERE state = 'delivered' AND number NOT IN"
            " (SELECT number FROM messages WHERE state = 'delivered' ORDER BY number DESC LIMIT ?)",
            [KEPT_DELIVERED],
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
    """What became of one POST."""

    arrived: bool = False
    for_ever: bool = False
    unreachable: bool = False
    problem: str = ""
    patience: float | None = None


def _post(client: httpx.Client, receiver: Receiver, identity: str, content: bytes) -> _Outcome:
    try:
        with closing(
            client.post(receiver.url, content=content, headers=receiver.headers(identity, content))
        ) as answer:
            status, patience = answer.status_code, answer.headers.get("Retry-After", "")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _Outcome(unreachable=True, problem=f"{type(error).__name__}: {error}"[:200])
    if httpx.codes.is_success(status):
        return _Outcome(arrived=True)
    if status in TRY_AGAIN or httpx.codes.is_server_error(status):
        return _Outcome(
            problem=f"answered {status}", patience=float(patience) if patience.isdigit() else None
        )
    hint = "; name the final address" if httpx.codes.is_redirect(status) else ""
    return _Outcome(for_ever=True, problem=f"answered {status}{hint}")


def _pause(attempts: int, patience: float | None) -> float:
    """Seconds until the next try: twice as long each time, half of it by chance, and at least what
    the receiver asks for.
    """
    longest = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(attempts - 1, 20))
    return max(longest * random.uniform(0.5, 1), min(patience or 0, LONGEST_ASKED_SECONDS))  # noqa: S311  # no secret


def _episode(state: Mapping[str, Any]) -> Episode:
    return Episode(**{**state, "tier": Tier(state["tier"])})


def _finite(body: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it: null where a number is none."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in body.items()
    }
