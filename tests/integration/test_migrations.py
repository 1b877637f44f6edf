"""The project's own tables from their first migration on, on a real PostgreSQL server."""

import json
from importlib.resources import as_file, files
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from creditrisk_assets import database
from creditrisk_assets.monitoring.alert_outbox import Outbox
from creditrisk_assets.monitoring.alerting import Links

FIRST = "0001"
STATE = json.dumps(
    {
        "identity": "e",
        "asset": "a",
        "check": "c",
        "model_version": "1",
        "tier": "note",
        "first_seen": 1.0,
        "message_day": "2026-02-01",
        "failures": 1,
        "latest_day": "2026-02-01",
        "last_failure": {},
    }
)
ROWS = (
    "INSERT INTO idempotency_keys (caller, key, digest, replica) VALUES ('bank', 'k', 'd', 'r')",
    "INSERT INTO api_keys (number, document) VALUES (1, '{}')",
    "INSERT INTO evaluations (asset, name, identity) VALUES ('a', 'c', 'e')",
    f"INSERT INTO episodes (asset, name, state) VALUES ('a', 'c', '{STATE}')",  # noqa: S608  # a constant
    "INSERT INTO messages (identity, episode, body, at) VALUES ('m', 'e', '{}', 1)",
)


def test_rows_of_the_first_migration_are_there_after_the_last_one(
    database_url: str, tmp_path: Path
) -> None:
    engine = database.connect(database_url)
    with engine.begin() as connection, as_file(files("creditrisk_assets.migrations")) as folder:
        connection.execute(sa.text("CREATE SCHEMA creditrisk"))
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.attributes["connection"] = connection
        command.upgrade(config, FIRST)
        for statement in ROWS:
            connection.exec_driver_sql(statement)
    database.prepare(database_url)
    assert database.migration_problem(database_url) is None
    with engine.begin() as connection:
        for table in ("idempotency_keys", "api_keys", "evaluations", "episodes", "messages"):
            count = sa.select(sa.func.count()).select_from(sa.table(table))
            assert connection.execute(count).scalar_one() == 1, table
        for table in ("deliveries", "episode_records"):
            count = sa.select(sa.func.count()).select_from(sa.table(table))
            assert connection.execute(count).scalar_one() == 0, table
    engine.dispose()
    with Outbox(tmp_path, database_url) as outbox:
        outbox.record([], 7, Links(None, "http://api"))
        assert [one["receiver"] for one in outbox.messages("waiting")] == ["webhook"]
        assert [one.id for one in outbox.records()] == ["e"]


def test_tables_of_a_later_release_are_refused_by_the_number_of_their_migration(
    database_url: str,
) -> None:
    database.prepare(database_url)
    engine = database.connect(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    assert "migration 9999; valid: " in (database.migration_problem(database_url) or "")
    with pytest.raises(database.DatabaseError, match="9999"):
        database.prepare(database_url)
