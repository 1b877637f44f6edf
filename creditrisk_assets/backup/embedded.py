"""Rows of a store's SQLite files, for a backup and its restoration.

Dagster's SQLite storage has the events of each run in a file of its own, and those that concern
several runs once more in its index, under other numbers. In a backup they are one table, as in
PostgreSQL. The events of the index have their numbers there, by which other records refer to them;
the others follow.
"""

import base64
import datetime
import json
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from creditrisk_assets import database
from creditrisk_assets.backup import rows
from creditrisk_assets.database import OWN_SCHEMA
from creditrisk_assets.decisions.codec import PLAIN
from creditrisk_assets.decisions.idempotency import IdempotencyIndex
from creditrisk_assets.monitoring.alert_outbox import Outbox

DAGSTER, MLFLOW = "dagster", "mlflow"
EVENTS = "event_logs"
RUNS, SCHEDULES, SHARDS = Path("history/runs.db"), Path("schedules/schedules.db"), "history/runs"
INDEX = Path(SHARDS) / "index.db"
ALERTS_FILE = "alerts.db"

OWN_TABLES = {
    "evaluations": "SELECT rowid AS number, asset, name, identity FROM evaluations ORDER BY rowid",
    "episodes": "SELECT asset, name, state FROM episodes ORDER BY asset, name",
    "messages": "SELECT number, identity, episode, body, state, attempts, due, problem, receiver, "
    "at FROM messages ORDER BY number",
    "deliveries": "SELECT message, receiver, state, attempts, due, problem, digest FROM deliveries "
    "ORDER BY message, receiver",
    "episode_records": "SELECT number, identity, is_open, document FROM episode_records "
    "ORDER BY number",
}
"""The rows of the outbox's file as PostgreSQL has them."""

KEYS_TABLE = "idempotency_keys"
KEYS = (
    "SELECT caller, key, digest, '' AS replica, answer, "
    "strftime('%Y-%m-%dT%H:%M:%f+00:00', at, 'unixepoch') AS at FROM keys ORDER BY caller, key"
)


def export_dagster(storage: Path, folder: Path) -> None:
    """Write the rows of Dagster's databases.

    Args:
        storage: folder of the databases; absent before the first use.
        folder: gets `dagster/<table>.jsonl`.
    """
    migrations: set[str] = set()
    for file in (RUNS, SCHEDULES, INDEX):
        with _reading(storage / file) as connection:
            for table in _tables(connection):
                if table.name == rows.MIGRATIONS_TABLE:
                    migrations |= {*connection.execute(sa.select(table.c.version_num)).scalars()}
                elif table.name == EVENTS:
                    events = _events(connection, table, storage)
                    rows.write_rows(events, rows.file_of(folder, DAGSTER, EVENTS))
                elif table.name not in rows.SET_APART[DAGSTER]:
                    selected = rows.select_rows(connection, table)
                    rows.write_rows(selected, rows.file_of(folder, DAGSTER, table.name))
    rows.write_migration(folder, DAGSTER, migrations)


def import_dagster(folder: Path, storage: Path) -> None:
    """Make Dagster's databases of rows.

    Args:
        folder: has `dagster/<table>.jsonl`.
        storage: new folder.

    Raises:
        DatabaseError: if the tables do not fit.
    """
    from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

    made = DagsterSqliteStorage.from_local(str(storage))
    shard = storage / SHARDS / "new.db"
    with made.event_log_storage.run_connection(shard.stem):  # type: ignore[attr-defined]  # its SQLite storage has it
        pass
    made.dispose()
    found: set[str] = set()
    for file in (RUNS, SCHEDULES, INDEX):
        found |= _fill(storage / file, DAGSTER, folder)
    rows.require_tables(folder, DAGSTER, found)
    _divide_events(storage, shard)
    shard.unlink()


def export_mlflow(file: Path, folder: Path, change: rows.Change) -> None:
    """Write the rows of MLflow's database.

    Args:
        file: SQLite file.
        folder: gets `mlflow/<table>.jsonl`.
        change: gives the row of the backup.
    """
    with _reading(file) as connection:
        for table in _tables(connection):
            name, selected = table.name, rows.select_rows(connection, table)
            rows.write_rows(
                (change(name, row) for row in selected), rows.file_of(folder, MLFLOW, name)
            )


def import_mlflow(folder: Path, file: Path, change: rows.Change) -> None:
    """Fill MLflow's database.

    Args:
        folder: has `mlflow/<table>.jsonl`.
        file: a database that MLflow has just made.
        change: gives the row of the database.

    Raises:
        DatabaseError: if the tables do not fit.
    """
    rows.require_tables(folder, MLFLOW, _fill(file, MLFLOW, folder, change))


def export_own(alerts: Path, keys: Path, folder: Path) -> None:
    """Write the alerts, and the idempotency keys with their answers.

    Args:
        alerts: folder of the outbox; absent without alerts.
        keys: SQLite file of the keys; absent before the first key.
        folder: gets `creditrisk/<table>.jsonl`.
    """
    queries = {name: (alerts / ALERTS_FILE, query) for name, query in OWN_TABLES.items()}
    for name, (file, query) in {**queries, KEYS_TABLE: (keys, KEYS)}.items():
        table = "keys" if name == KEYS_TABLE else name
        found = _select(file, query) if _has_table(file, table) else iter(())
        rows.write_rows(found, rows.file_of(folder, OWN_SCHEMA, name))
    rows.write_migration(folder, OWN_SCHEMA, database.latest_migrations())


def import_own(folder: Path, alerts: Path, keys: Path) -> None:
    """Make the files of alerts and of idempotency keys. A key without an answer is left out: the
    log of its replica decides about it.

    Args:
        folder: has `creditrisk/<table>.jsonl`.
        alerts: new folder.
        keys: new file.

    Raises:
        DatabaseError: if the tables do not fit.
    """
    rows.require_own_tables(folder, [*OWN_TABLES, KEYS_TABLE])
    with Outbox(alerts), closing(sqlite3.connect(alerts / ALERTS_FILE)) as outbox, outbox:
        for name in rows.own_tables_of(folder, OWN_TABLES):
            for row in _read(folder, name):
                named = dict(row)
                if name == "evaluations":
                    named["rowid"] = named.pop("number")
                _insert(outbox, name, named)
    IdempotencyIndex(keys, keys.parent, PLAIN).close()
    with closing(sqlite3.connect(keys)) as index, index:
        for row in _read(folder, KEYS_TABLE):
            if row["answer"] is not None:
                index.execute(
                    "INSERT INTO keys VALUES (:caller, :key, :digest, :answer, :at)",
                    row,
                )


def _read(folder: Path, name: str) -> Iterator[rows.Row]:
    """The rows of an own table, as SQLite has them."""
    with rows.file_of(folder, OWN_SCHEMA, name).open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if name == KEYS_TABLE:
                row["at"] = datetime.datetime.fromisoformat(row["at"]).timestamp()
                if row["answer"] is not None:
                    row["answer"] = base64.b64decode(row["answer"])
            yield row


def _insert(connection: sqlite3.Connection, table: str, row: rows.Row) -> None:
    names = ", ".join(row)
    places = ", ".join(f":{name}" for name in row)
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", row)  # noqa: S608


def _has_table(file: Path, table: str) -> bool:
    """Whether a file has a table; one of an earlier release gets it when the outbox opens it."""
    if not file.is_file():
        return False
    with _reading(file) as connection:
        return bool(sa.inspect(connection).has_table(table))


def _select(file: Path, query: str) -> Iterator[rows.Row]:
    with _reading(file) as connection:
        for row in connection.execute(sa.text(query)).mappings():
            yield dict(row)


def _events(index: sa.Connection, table: sa.Table, storage: Path) -> Iterator[rows.Row]:
    """The events of the index, then those of each run that are only in its own file."""
    last = 0
    for row in rows.select_rows(index, table):
        last = row["id"]
        yield row
    indexed = _indexed_types()
    own = sa.or_(table.c.dagster_event_type.is_(None), table.c.dagster_event_type.not_in(indexed))
    for file in sorted((storage / SHARDS).iterdir()):
        if file.suffix != ".db" and file.name != ".db":  # events without a run are in `.db`
            continue
        if file.name == INDEX.name:
            continue
        with _reading(file) as connection:
            for row in rows.select_rows(connection, table, own):
                last += 1
                yield row | {"id": last}


def _indexed_types() -> Sequence[str]:
    """Types of the events that Dagster's SQLite storage writes to the index too."""
    from dagster._core.events import (
        ASSET_CHECK_EVENTS,
        ASSET_EVENTS,
        EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
    )

    types = {*ASSET_EVENTS, *ASSET_CHECK_EVENTS, *EVENT_TYPE_TO_PIPELINE_RUN_STATUS}
    return sorted(kind.value for kind in types)


def _divide_events(storage: Path, new: Path) -> None:
    """Give each run a file of its events, in the order of their time; leave in the index what
    belongs there.

    Args:
        storage: folder of the databases; the index has all events.
        new: a file without events.
    """
    columns = "run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition"
    with closing(sqlite3.connect(storage / INDEX, isolation_level=None)) as index:
        runs = [run for (run,) in index.execute(f"SELECT DISTINCT run_id FROM {EVENTS}")]  # noqa: S608
        for run in runs:
            file = new.with_name(f"{run}.db")
            shutil.copyfile(new, file)
            index.execute("ATTACH ? AS own", (str(file),))
            index.execute(
                f"INSERT INTO own.{EVENTS} ({columns}) SELECT {columns} FROM main.{EVENTS} "  # noqa: S608
                "WHERE run_id = ? ORDER BY timestamp, id",
                (run,),
            )
            index.execute("DETACH own")
        indexed = _indexed_types()
        places = ", ".join("?" * len(indexed))
        index.execute(
            f"DELETE FROM {EVENTS} WHERE dagster_event_type IS NULL "  # noqa: S608
            f"OR dagster_event_type NOT IN ({places})",
            indexed,
        )
        index.execute("VACUUM")


def _fill(file: Path, schema: str, folder: Path, change: rows.Change = rows.as_is) -> set[str]:
    """Fill the tables of a SQLite file with the rows of a backup: the names of its tables."""
    engine = sa.create_engine(f"sqlite:///{file}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        tables = _tables(connection)
        for table in tables:
            name, source = table.name, rows.file_of(folder, schema, table.name)
            if name == rows.MIGRATIONS_TABLE:
                found = connection.execute(sa.select(table.c.version_num)).scalars().all()
                rows.require_same_migration(folder, schema, found)
            elif name not in rows.SET_APART.get(schema, ()) and source.is_file():
                connection.execute(sa.delete(table))
                read = rows.read_rows(source, table)
                rows.insert_rows(connection, table, (change(name, row) for row in read))
    engine.dispose()
    return {table.name for table in tables}


def _tables(connection: sa.Connection) -> list[sa.Table]:
    metadata = sa.MetaData()
    metadata.reflect(connection)
    return metadata.sorted_tables


@contextmanager
def _reading(file: Path) -> Iterator[sa.Connection]:
    """A connection that sees a file as it is at one moment, and cannot change it."""

    def connect() -> Any:
        return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection
    finally:
        engine.dispose()
