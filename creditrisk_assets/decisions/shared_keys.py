"""Idempotency keys of several replicas of the API, in their store's database.

A replica claims a key before it decides and adds the answer when the decision is in its log, so the
same key has one decision whichever replica receives it. The replica's own index stays the record of
its decisions: after a crash it tells whether a claimed key was decided. Until then the other
replicas refuse that key, and only that.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from creditrisk_assets import database
from creditrisk_assets.decisions.idempotency import KeysUnavailable, StoredAnswer
from creditrisk_assets.storage import create_file

KEYS = sa.table(
    "idempotency_keys",
    sa.column("caller", sa.Text),
    sa.column("key", sa.Text),
    sa.column("digest", sa.Text),
    sa.column("replica", sa.Text),
    sa.column("answer", sa.LargeBinary),
    sa.column("at", sa.DateTime(timezone=True)),
)


def replica_of(folder: Path) -> str:
    """The id of the replica whose folder this is, made at its first start."""
    file = folder / "replica"
    with suppress(FileExistsError):
        create_file(file, uuid.uuid4().hex.encode())
    return file.read_text()


class _Unrecorded(NamedTuple):
    """An answer that the database does not have yet."""

    caller: str
    key: str
    answer: bytes


class SharedKeys:
    """The keys in a database, for one replica.

    A replica's processes call all methods while they hold its index exclusively. So a claim of this
    replica without an answer, as any of them sees it, belongs to a process that has failed.

    Args:
        url: of the database.
        replica: id of this replica, the same after a restart.
    """

    def __init__(self, url: str, replica: str) -> None:
        database.limit_waits()
        self._engine = database.connect(url)
        self._replica = replica
        self._unrecorded: list[_Unrecorded] = []

    def claim(self, caller: str, digests: Mapping[str, str]) -> dict[str, StoredAnswer]:
        """Claim keys for this replica, all or none.

        Args:
            caller: their caller.
            digests: SHA-256 of the request of each key.

        Returns:
            The answers of those keys that were answered before; the others are claimed.

        Raises:
            KeysUnavailable: if a key is claimed by another replica that has not answered it, or the
                database does not answer.
        """
        of_caller = sa.select(KEYS.c.key, KEYS.c.digest, KEYS.c.replica, KEYS.c.answer).where(
            KEYS.c.caller == caller, KEYS.c.key.in_(list(digests))
        )
        # In one order, so that two replicas cannot wait for each other.
        new = [
            {"caller": caller, "key": key, "digest": digests[key], "replica": self._replica}
            for key in sorted(digests)
        ]
        self.record()
        with self._transaction() as connection:
            connection.execute(
                sa.text(
                    "INSERT INTO idempotency_keys (caller, key, digest, replica) "
                    "VALUES (:caller, :key, :digest, :replica) ON CONFLICT DO NOTHING"
                ),
                new,
            )
            found = connection.execute(of_caller).all()
            elsewhere = [row.key for row in found if self._is_elsewhere(row)]
            if elsewhere:
                raise KeysUnavailable(
                    f"Idempotency-Key {elsewhere[0]!r:.100} was sent to another replica, which "
                    "has not answered yet; try again"
                )
        return {
            row.key: StoredAnswer(row.digest, bytes(row.answer))
            for row in found
            if row.answer is not None
        }

    def add(self, caller: str, key: str, answer: bytes) -> None:
        """Take an answer whose decision is in the log; `record` sends it to the database."""
        self._unrecorded.append(_Unrecorded(caller, key, answer))

    def record(self) -> None:
        """Send the answers that the database does not have yet.

        Raises:
            KeysUnavailable: if it does not answer; they are sent again at the next call.
        """
        if not self._unrecorded:
            return
        self._set_answers(self._unrecorded)
        self._unrecorded = []

    def settle(self, find: Callable[[str, str], StoredAnswer | None]) -> int:
        """Settle this replica's claims without an answer: answer those that were decided, and give
        up the others.

        Args:
            find: gives the answer of a caller and key from this replica's own index.

        Returns:
            The number of settled claims.

        Raises:
            KeysUnavailable: if the database does not answer.
        """
        mine = sa.and_(KEYS.c.replica == self._replica, KEYS.c.answer.is_(None))
        with self._transaction() as connection:
            claims = connection.execute(sa.select(KEYS.c.caller, KEYS.c.key).where(mine)).all()
        answers = [(row, find(row.caller, row.key)) for row in claims]
        self._set_answers(
            [
                _Unrecorded(row.caller, row.key, found.answer)
                for row, found in answers
                if found is not None
            ]
        )
        undecided = [row for row, found in answers if found is None]
        with self._transaction() as connection:
            for row in undecided:
                connection.execute(
                    sa.delete(KEYS).where(mine, KEYS.c.caller == row.caller, KEYS.c.key == row.key)
                )
        return len(claims)

    def forget(self, older_than_seconds: float) -> int:
        """Remove old keys.

        Returns:
            The number of removed keys.
        """
        age = sa.func.now() - KEYS.c.at
        with self._transaction() as connection:
            return connection.execute(
                sa.delete(KEYS).where(sa.func.extract("epoch", age) > older_than_seconds)
            ).rowcount

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise KeysUnavailable(f"the database of idempotency keys: {error!s:.200}") from error

    def _is_elsewhere(self, row: Any) -> bool:
        return row.answer is None and row.replica != self._replica

    def _set_answers(self, answers: list[_Unrecorded]) -> None:
        if not answers:
            return
        with self._transaction() as connection:
            connection.execute(
                sa.text(
                    "UPDATE idempotency_keys SET answer = :answer "
                    "WHERE caller = :caller AND key = :key"
                ),
                [answer._asdict() for answer in answers],
            )
