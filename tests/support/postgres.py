"""A PostgreSQL server for tests: that of `CREDITRISK_TEST_DATABASE_URL`, or one that is started here."""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from creditrisk_assets.simulation.processes import reserved_ports

USER = "creditrisk"
NOBODY = 65_534


def _program(name: str) -> str:
    """A program of the newest installed PostgreSQL."""
    found = [*sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)]
    program = str(found[0]) if found else shutil.which(name)
    assert program is not None, f"{name} is not installed: apt-get install postgresql"
    return program


@contextmanager
def postgres_server() -> Iterator[str]:
    """The address of a server's maintenance database."""
    named = os.environ.get("CREDITRISK_TEST_DATABASE_URL")
    if named:
        yield named
        return
    # The server refuses to run as root, and others may not enter a folder of pytest.
    with tempfile.TemporaryDirectory(prefix="creditrisk-postgres-") as folder:
        user: list[str] = []
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
            user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]

        def run(program: str, *arguments: str) -> None:
            command = [*user, _program(program), "-D", f"{folder}/data", *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)

        (port,) = reserved_ports(1)
        local = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        run("initdb", "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8")
        run("pg_ctl", "-w", "-l", f"{folder}/log", "-o", local, "start")
        try:
            yield f"postgresql://{USER}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")


@contextmanager
def new_database(server: str) -> Iterator[str]:
    """The address of an empty database, which is removed afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    engine = sa.create_engine(
        sa.make_url(server).set(drivername="postgresql+psycopg2"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    try:
        yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()
