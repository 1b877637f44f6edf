"""The PostgreSQL database of a store that several machines share (`CREDITRISK_DATABASE_URL`).

It has one schema for each of its users, so that each migrates its own tables: `dagster`, `mlflow`,
and `creditrisk` for what this project's processes must agree on. Without the setting a store is
embedded: SQLite and local files hold the same.
"""

import select
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import sqlalchemy as sa

OWN_SCHEMA = "creditrisk"
SCHEMAS = (OWN_SCHEMA, "dagster", "mlflow")

EXPORTED = (OWN_SCHEMA, "dagster")
"""Schemas of a backup. MLflow's runs are for people: a store registers its versions in a new MLflow
again.
"""

MIGRATIONS_TABLE = "alembic_version"
MARKS = ("runs", "event_logs", "evaluations", "idempotency_keys", "api_keys")
"""Tables with rows if a store uses the database."""

DRIVER = "postgresql+psycopg2"

CONNECT_SECONDS = 3
STATEMENT_SECONDS = 10


class DatabaseError(RuntimeError):
    """The database does not answer, or its tables are of another release."""


def url_in_schema(url: str, schema: str) -> str:
    """The address of one schema of the database, with the driver that is installed.

    Args:
        url: `postgresql://user:password@host:port/database`.
        schema: one of `SCHEMAS`.
    """
    parsed = sa.make_url(url).set(drivername=DRIVER)
    in_schema = parsed.update_query_dict({"options": f"-csearch_path={schema}"})
    return in_schema.render_as_string(hide_password=False)


def connect(url: str) -> sa.Engine:
    """An engine for the project's own tables. A connection that the server has closed is replaced,
    and neither a connection nor a statement waits for long.
    """
    own = sa.make_url(url_in_schema(url, OWN_SCHEMA))
    options = f"{own.query['options']} -cstatement_timeout={STATEMENT_SECONDS}s"
    return sa.create_engine(
        own.update_query_dict({"options": options}),
        pool_pre_ping=True,
        connect_args={"connect_timeout": CONNECT_SECONDS},
    )


def limit_waits(seconds: float = CONNECT_SECONDS) -> None:
    """Let no connection of this process wait longer for an answer, so that a server that hangs or
    that the network hides is one that does not answer. A backup, whose COPY may take long, ends
    this.

    Args:
        seconds: the longest wait.
    """
    import psycopg2
    from psycopg2 import extensions as pg

    def wait(connection: Any) -> None:
        while (state := connection.poll()) != pg.POLL_OK:
            descriptor = [connection.fileno()]
            reads, writes = (descriptor, []) if state == pg.POLL_READ else ([], descriptor)
            if not any(select.select(reads, writes, [], seconds)):
                raise psycopg2.OperationalError(f"no answer within {seconds:g} s")

    pg.set_wait_callback(wait)


def prepare(url: str) -> None:
    """Create the schemas, and the project's own tables as this release needs them.

    Raises:
        DatabaseError: if the database does not answer, or a later release has changed the tables.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    engine = connect(url)
    try:
        with engine.begin() as connection, as_file(files("creditrisk_assets.migrations")) as folder:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('creditrisk'))"))
            for schema in SCHEMAS:
                connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
            config = Config()
            config.set_main_option("script_location", str(folder))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except (sa.exc.SQLAlchemyError, CommandError) as error:
        raise DatabaseError(f"{_without_password(url)}: {error!s:.300}") from error
    finally:
        engine.dispose()


def _without_password(url: str) -> str:
    return sa.make_url(url).render_as_string()


def migration_problem(url: str) -> str | None:
    """The reason why this release cannot use the tables, or None.

    Raises:
        DatabaseError: if the database does not answer.
    """
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with _transaction(url, "READ COMMITTED") as connection:
        found = MigrationContext.configure(connection).get_current_heads()
    with as_file(files("creditrisk_assets.migrations")) as folder:
        needed = ScriptDirectory(str(folder)).get_heads()
    if {*found} == {*needed}:
        return None
    have = ", ".join(found) or "none"
    return f"migration {have}; valid: {', '.join(needed)}, which `creditrisk init` makes"


def export_tables(url: str, folder: Path) -> None:
    """Write the tables of Dagster and of this project to files, all as they are at one moment.

    Args:
        url: of the database.
        folder: new; gets `<schema>/<table>.copy` in the format of PostgreSQL's COPY.

    Raises:
        DatabaseError: if the database does not answer.
    """
    with _transaction(url, "REPEATABLE READ") as connection:
        for table in _tables(connection):
            file = folder / str(table.schema) / f"{table.name}.copy"
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as written:
                _cursor(connection).copy_expert(f"COPY {_named(table)} TO STDOUT", written)


def import_tables(url: str, folder: Path) -> None:
    """Fill the tables from files of `export_tables`, all or none. The tables of both must have the
    same migrations, and those of the database no rows in use.

    Raises:
        DatabaseError: if they do not fit, or the database does not answer.
    """
    prepare(url)
    _prepare_dagster(url)
    with _transaction(url, "READ COMMITTED") as connection:
        tables = _tables(connection)
        found = {f"{table.schema}/{table.name}.copy" for table in tables}
        expected = {f"{file.parent.name}/{file.name}" for file in folder.glob("*/*.copy")}
        if found != expected:
            raise DatabaseError(
                f"the backup has other tables: {', '.join(sorted(found ^ expected))}; valid: one "
                "of this release"
            )
        for table in tables:
            if table.name == MIGRATIONS_TABLE:
                _require_same_migration(connection, table, folder)
            elif table.name in MARKS:
                used = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar()
                if used:
                    raise DatabaseError(f"table {_named(table)} has rows; valid: a new database")
        filled = [table for table in tables if table.name != MIGRATIONS_TABLE]
        names = ", ".join(_named(table) for table in filled)
        connection.execute(sa.text(f"TRUNCATE {names}"))
        for table in filled:
            file = folder / str(table.schema) / f"{table.name}.copy"
            with file.open("rb") as read:
                _cursor(connection).copy_expert(f"COPY {_named(table)} FROM STDIN", read)
            _continue_numbers(connection, table)


def _prepare_dagster(url: str) -> None:
    """Create Dagster's tables, which it does when it opens the database."""
    from dagster_postgres.storage import DagsterPostgresStorage

    storage = DagsterPostgresStorage(url_in_schema(url, "dagster"))
    storage.event_log_storage.dispose()


def _tables(connection: sa.Connection) -> list[sa.Table]:
    """The tables of Dagster and of this project; those that others refer to come first."""
    metadata = sa.MetaData()
    for schema in EXPORTED:
        metadata.reflect(connection, schema=schema)
    return metadata.sorted_tables


def _require_same_migration(connection: sa.Connection, table: sa.Table, folder: Path) -> None:
    here = set(connection.execute(sa.select(table.c.version_num)).scalars())
    there = set((folder / str(table.schema) / f"{table.name}.copy").read_text().split())
    if here != there:
        raise DatabaseError(
            f"the tables of schema {table.schema} have migration {', '.join(sorted(there))} in the "
            f"backup; valid: {', '.join(sorted(here))}, that of this release"
        )


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


def _cursor(connection: sa.Connection) -> Any:
    return connection.connection.cursor()


@contextmanager
def _transaction(url: str, isolation: Any) -> Iterator[sa.Connection]:
    from psycopg2 import extensions as pg

    pg.set_wait_callback(None)  # with one there is no COPY
    engine = connect(url)
    try:
        with engine.execution_options(isolation_level=isolation).begin() as connection:
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            yield connection
    except sa.exc.SQLAlchemyError as error:
        raise DatabaseError(f"{_without_password(url)}: {error!s:.300}") from error
    finally:
        engine.dispose()
