"""Rows of tables as files: one JSON object a line, the same from SQLite and from PostgreSQL.

The types come from the tables of the place that the rows go to, which its own program has made.
"""

import base64
import datetime
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from creditrisk_assets.database import OWN_SCHEMA, DatabaseError, known_migrations

Row = dict[str, Any]
Change = Callable[[str, Row], Row]
"""Gives the row that a place gets, from the name of its table and the row."""

BATCH = 1_000
SUFFIX = ".jsonl"
MIGRATIONS_TABLE = "alembic_version"

SET_APART = {"dagster": {"secondary_indexes"}, OWN_SCHEMA: {"api_keys"}}
"""Tables that are not copied: what Dagster has migrated in the database itself, and the API keys,
which are a file of the backup.
"""


def file_of(folder: Path, schema: str, table: str) -> Path:
    """Where a table's rows lie in a folder."""
    return folder / schema / f"{table}{SUFFIX}"


def as_is(_: str, row: Row) -> Row:
    """The row itself."""
    return row


def write_rows(rows: Iterable[Row], file: Path) -> None:
    """Write rows to a new file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as written:
        for row in rows:
            written.write(json.dumps(row, default=_as_text) + "\n")


def select_rows(connection: sa.Connection, table: sa.Table, *where: Any) -> Iterator[Row]:
    """The rows of a table in the order of its key, without holding all of them."""
    rows = sa.select(table).where(*where).order_by(*table.primary_key.columns)
    streamed = connection.execute(rows, execution_options={"yield_per": BATCH})
    for row in streamed.mappings():
        yield dict(row)


def read_rows(file: Path, table: sa.Table) -> Iterator[Row]:
    """The rows of a file, with the types of a table."""
    types = {
        column.name: read
        for column in table.columns
        if (read := _reader_of(column.type)) is not None
    }
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            row: Row = json.loads(line)
            for name, read in types.items():
                if row.get(name) is not None:
                    row[name] = read(row[name])
            yield row


def insert_rows(
    connection: sa.Connection, table: sa.Table, rows: Iterable[Mapping[str, Any]]
) -> None:
    """Insert rows in batches."""
    for column in table.columns:
        if isinstance(column.type, sa.JSON):
            column.type.none_as_null = True
    left = iter(rows)
    while batch := list(islice(left, BATCH)):
        connection.execute(sa.insert(table), batch)


def write_migration(folder: Path, schema: str, migrations: Iterable[str]) -> None:
    """Write which migration the tables of a schema have."""
    write_rows(
        ({"version_num": one} for one in sorted(migrations)),
        file_of(folder, schema, MIGRATIONS_TABLE),
    )


def require_same_migration(folder: Path, schema: str, valid: Iterable[str]) -> None:
    """Compare the migration of rows with that of the tables which they go to.

    Raises:
        DatabaseError: if they differ.
    """
    lines = file_of(folder, schema, MIGRATIONS_TABLE).read_text().splitlines()
    found, expected = {json.loads(line)["version_num"] for line in lines}, set(valid)
    if found != expected:
        raise DatabaseError(
            f"the tables of {schema} have migration {', '.join(sorted(found))} in the backup; "
            f"valid: {', '.join(sorted(expected))}, that of this place. Restore it with the "
            "release that made it, which backup.json names, and upgrade then"
        )


def require_tables(folder: Path, schema: str, tables: Iterable[str]) -> None:
    """Compare the tables of a backup with those of the place.

    Raises:
        DatabaseError: if they differ.
    """
    found = {file.name.removesuffix(SUFFIX) for file in (folder / schema).glob(f"*{SUFFIX}")}
    expected = {*tables} - SET_APART.get(schema, set()) | {MIGRATIONS_TABLE}
    if found != expected:
        raise DatabaseError(
            f"the backup has other tables of {schema}: {', '.join(sorted(found ^ expected))}; "
            "valid: one of this release"
        )


def require_own_tables(folder: Path, tables: Iterable[str]) -> None:
    """Compare the project's own tables in a backup with those of this release. Those of an earlier
    release fit too: a migration adds tables, and columns with a default (decision 0028).

    Raises:
        DatabaseError: if they are of a later release, or the backup has other tables.
    """
    lines = file_of(folder, OWN_SCHEMA, MIGRATIONS_TABLE).read_text().splitlines()
    found, valid = {json.loads(line)["version_num"] for line in lines}, known_migrations()
    if not found or not found <= {*valid}:
        raise DatabaseError(
            f"the tables of {OWN_SCHEMA} have migration {', '.join(sorted(found)) or 'none'} in "
            f"the backup; valid: {', '.join(valid)}. Restore it with the release that made it, "
            "which backup.json names"
        )
    here = {*tables} - SET_APART[OWN_SCHEMA] - {MIGRATIONS_TABLE}
    there = {file.name.removesuffix(SUFFIX) for file in (folder / OWN_SCHEMA).glob(f"*{SUFFIX}")}
    if more := there - here - {MIGRATIONS_TABLE}:
        raise DatabaseError(
            f"the backup has other tables of {OWN_SCHEMA}: {', '.join(sorted(more))}; valid: one "
            "of this release or of an earlier one"
        )


def own_tables_of(folder: Path, tables: Iterable[str]) -> list[str]:
    """The tables of these that a backup has; an earlier release has fewer."""
    return [name for name in tables if file_of(folder, OWN_SCHEMA, name).is_file()]


def _as_text(value: object) -> str:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no form in a backup")


def _reader_of(kind: Any) -> Callable[[str], Any] | None:
    if isinstance(kind, sa.DateTime):
        return datetime.datetime.fromisoformat
    if isinstance(kind, sa.LargeBinary):
        return base64.b64decode
    return None
