"""Rows of a store's schemas in PostgreSQL, for a backup and its restoration."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import sqlalchemy as sa

from creditrisk_assets import database
from creditrisk_assets.backup import rows
from creditrisk_assets.database import OWN_SCHEMA, DatabaseError

DAGSTER, MLFLOW = "dagster", "mlflow"

MARKS = {
    OWN_SCHEMA: ("evaluations", "idempotency_keys", "api_keys"),
    DAGSTER: ("runs", "event_logs"),
    MLFLOW: ("runs", "registered_models"),
}
"""Tables with rows if a store uses a schema."""


def export_tables(
    url: str, schemas: Sequence[str], folder: Path, change: rows.Change = rows.as_is
) -> None:
    """Write the rows of schemas to files, all as they are at one moment.

    Args:
        url: of the database.
        schemas: their names.
        folder: gets `<schema>/<table>.jsonl`.
        change: gives the row of the file.

    Raises:
        DatabaseError: if the database does not answer.
    """
    with database.transaction(url, "REPEATABLE READ") as connection:
        for schema in schemas:
            for table in _tables(connection, schema):
                if table.name in rows.SET_APART.get(schema, ()):
                    continue
                name, selected = table.name, rows.select_rows(connection, table)
                rows.write_rows(
                    (change(name, row) for row in selected), rows.file_of(folder, schema, name)
                )


def export_keys(url: str) -> str | None:
    """The file of API keys in the database; None if there is none.

    Raises:
        DatabaseError: if the database does not answer.
    """
    with database.transaction(url) as connection:
        return connection.execute(
            sa.text("SELECT document FROM creditrisk.api_keys")
        ).scalar_one_or_none()


def require_empty(url: str, schemas: Iterable[str]) -> None:
    """Create the tables of Dagster and of this project, and refuse tables that a store uses.

    Raises:
        DatabaseError: if a table has rows, MLflow's server has made no tables, or the database does
            not answer.
    """
    database.prepare(url)
    _prepare_dagster(url)
    with database.transaction(url) as connection:
        for schema in schemas:
            tables = {table.name: table for table in _tables(connection, schema)}
            for name in MARKS[schema]:
                if name not in tables:
                    raise DatabaseError(
                        f"schema {schema} has no tables; valid: one that its program has used, so "
                        "start `mlflow server` first"
                    )
                count = sa.select(sa.func.count()).select_from(tables[name])
                if found := connection.execute(count).scalar():
                    raise DatabaseError(
                        f"table {_named(tables[name])} of {database.without_password(url)} has "
                        f"{found:,} rows; valid: an empty database, or one whose schemas "
                        f"{', '.join(database.SCHEMAS)} were dropped and made again by "
                        "`creditrisk init --database-only`"
                    )


def import_tables(
    url: str,
    schemas: Sequence[str],
    folder: Path,
    keys: str | None = None,
    change: rows.Change = rows.as_is,
) -> None:
    """Fill the tables of schemas with the rows of files, all or none.

    Args:
        url: of the database.
        schemas: their names; those that hold rows in use are not checked here.
        folder: has `<schema>/<table>.jsonl`.
        keys: the file of API keys.
        change: gives the row of the table.

    Raises:
        DatabaseError: if the tables do not fit, or the database does not answer.
    """
    with database.transaction(url) as connection:
        for schema in schemas:
            tables = _tables(connection, schema)
            names_of_tables = [table.name for table in tables]
            if schema == OWN_SCHEMA:
                rows.require_own_tables(folder, names_of_tables)
            else:
                rows.require_tables(folder, schema, names_of_tables)
                of_schema = sa.select(
                    sa.table(rows.MIGRATIONS_TABLE, sa.column("version_num"), schema=schema)
                )
                migrations = connection.execute(of_schema).scalars().all()
                rows.require_same_migration(folder, schema, migrations)
            apart = {rows.MIGRATIONS_TABLE} | rows.SET_APART.get(schema, set())
            filled = [table for table in tables if table.name not in apart]
            names = ", ".join(_named(table) for table in filled)
            connection.execute(sa.text(f"TRUNCATE {names}"))
            for table in filled:
                name, source = table.name, rows.file_of(folder, schema, table.name)
                if not source.is_file():
                    continue  # a table that an earlier release did not have
                read = rows.read_rows(source, table)
                rows.insert_rows(connection, table, (change(name, row) for row in read))
                _continue_numbers(connection, table)
        if keys is not None:
            connection.execute(
                sa.text("INSERT INTO creditrisk.api_keys (number, document) VALUES (1, :text)"),
                {"text": keys},
            )


def _prepare_dagster(url: str) -> None:
    """Create Dagster's tables, which it does when it opens the database."""
    from dagster_postgres.storage import DagsterPostgresStorage

    try:
        storage = DagsterPostgresStorage(database.url_in_schema(url, DAGSTER))
        storage.event_log_storage.dispose()
    except sa.exc.SQLAlchemyError as error:
        raise DatabaseError(f"{database.without_password(url)}: {error!s:.300}") from error


def _tables(connection: sa.Connection, schema: str) -> list[sa.Table]:
    """The tables of a schema; those that others refer to come first."""
    metadata = sa.MetaData()
    metadata.reflect(connection, schema=schema)
    return metadata.sorted_tables


def _continue_numbers(connection: sa.Connection, table: sa.Table) -> None:
    """Let a column that numbers rows continue after the largest number."""
    for column in table.primary_key.columns:
        place = {"table": _named(table), "column": column.name}
        sequence = connection.execute(
            sa.text("SELECT pg_get_serial_sequence(:table, :column)"), place
        ).scalar()
        if sequence:
            largest = sa.select(sa.func.max(column)).scalar_subquery()
            next_number = sa.func.coalesce(largest, 0) + 1
            connection.execute(sa.select(sa.func.setval(sequence, next_number, sa.false())))


def _named(table: sa.Table) -> str:
    return f'{table.schema}."{table.name}"'
