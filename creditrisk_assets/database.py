"""The PostgreSQL database of a store that several machines share (`CREDITRISK_DATABASE_URL`).

It has one schema for each of its users, so that each migrates its own tables: `dagster`, `mlflow`,
and `creditrisk` for what this project's processes must agree on. Without the setting a store is
embedded: SQLite and local files hold the same.
"""

import select
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from typing import Any

import sqlalchemy as sa

OWN_SCHEMA = "creditrisk"
SCHEMAS = (OWN_SCHEMA, "dagster", "mlflow")

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
    that the network hides is one that does not answer. `transaction` ends this.

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
        raise DatabaseError(f"{without_password(url)}: {error!s:.300}") from error
    finally:
        engine.dispose()


def without_password(url: str) -> str:
    """The address as it may be shown."""
    return sa.make_url(url).render_as_string()


def migration_problem(url: str) -> str | None:
    """The reason why this release cannot use the tables, or None.

    Raises:
        DatabaseError: if the database does not answer.
    """
    from alembic.migration import MigrationContext

    with transaction(url) as connection:
        found = MigrationContext.configure(connection).get_current_heads()
    needed = latest_migrations()
    if {*found} == {*needed}:
        return None
    have = ", ".join(found) or "none"
    return f"migration {have}; valid: {', '.join(needed)}, which `creditrisk init` makes"


def latest_migrations() -> list[str]:
    """The migration that this release's own tables have."""
    from alembic.script import ScriptDirectory

    with as_file(files("creditrisk_assets.migrations")) as folder:
        return list(ScriptDirectory(str(folder)).get_heads())


def known_migrations() -> list[str]:
    """The migrations that this release knows, the first one first."""
    from alembic.script import ScriptDirectory

    with as_file(files("creditrisk_assets.migrations")) as folder:
        scripts = ScriptDirectory(str(folder)).walk_revisions()
        return [script.revision for script in scripts][::-1]


@contextmanager
def transaction(url: str, isolation: Any = "READ COMMITTED") -> Iterator[sa.Connection]:
    """A transaction without a limit of its time, for work on whole tables.

    Raises:
        DatabaseError: if the database does not answer, or refuses a statement.
    """
    from psycopg2 import extensions as pg

    pg.set_wait_callback(None)  # it would limit the time of a statement
    engine = connect(url)
    try:
        with engine.execution_options(isolation_level=isolation).begin() as connection:
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            yield connection
    except sa.exc.SQLAlchemyError as error:
        raise DatabaseError(f"{without_password(url)}: {error!s:.300}") from error
    finally:
        engine.dispose()
