"""A PostgreSQL server for tests: that of `CREDITRISK_TEST_DATABASE_URL`, or one that is started here."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from creditrisk_assets.simulation.processes import reserved_ports

USER = "creditrisk"


def _program(name: str) -> str:
    """A program of the newest installed PostgreSQL."""
    found = [*sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)]
    program = str(found[0]) if found else shutil.which(name)
    assert program is not None, f"{name} is not installed: apt-get install postgresql"
    return program


def _as_other_user(folder: Path) -> list[str]:
    """The server refuses to run as root."""
    if os.geteuid() != 0:
        return []
    for place in (folder, *folder.parents):
        if place.stat().st_uid == 0 and not place.stat().st_mode & 0o001:
            place.chmod(place.stat().st_mode | 0o011)
    nobody = 65_534
    os.chown(folder, nobody, nobody)
    return ["setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups"]


@contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """The address of a server's maintenance database."""
    named = os.environ.get("CREDITRISK_TEST_DATABASE_URL")
    if named:
        yield named
        return
    folder.mkdir(parents=True)
    (port,) = reserved_ports(1)
    user, data = _as_other_user(folder), folder / "data"
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder}
    made = [
        _program("initdb"),
        "-D",
        str(data),
        "-U",
        USER,
        "-A",
        "trust",
        "--no-sync",
        "-E",
        "UTF8",
    ]
    subprocess.run([*user, *made], **quiet)  # type: ignore[call-overload]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    control = [*user, _program("pg_ctl"), "-D", str(data), "-w"]
    log = ["-l", str(folder / "log")]
    subprocess.run([*control, *log, "-o", options, "start"], **quiet)  # type: ignore[call-overload]
    try:
        yield f"postgresql://{USER}@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)  # type: ignore[call-overload]


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
