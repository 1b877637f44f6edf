"""Rewrites MLflow's artifact addresses in a store that was moved.

MLflow's database holds the absolute address of each artifact folder. After a store's folder is
copied or renamed, the addresses in its embedded SQLite database are rewritten before MLflow is
used; otherwise MLflow would write to the old place.
"""

import sqlalchemy as sa

COLUMNS = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("experiments", "artifact_location"),
)
"""Columns of MLflow 3.17 with addresses of artifacts."""

FOLDER = "/mlflow/artifacts"
"""End of the address of all artifacts of an embedded store."""


def move_artifacts(database_uri: str, old: str, new: str) -> None:
    """Rewrite the addresses of all artifacts below a folder, all or none.

    Args:
        database_uri: SQLAlchemy URL of MLflow's database.
        old: address of the folder in the database.
        new: its present address.
    """
    engine = sa.create_engine(database_uri)
    try:
        with engine.begin() as connection:
            for table, column in COLUMNS:
                address: sa.ColumnClause[str] = sa.column(column)
                rest = sa.func.substr(address, len(old) + 1)
                below = sa.func.substr(address, 1, len(old)) == old
                connection.execute(
                    sa.update(sa.table(table, address))
                    .where(below, sa.or_(rest == "", rest.like("/%")))
                    .values({column: new + rest})
                )
    finally:
        engine.dispose()


def artifact_root(address: str) -> str:
    """The folder of all artifacts of an embedded store that an address lies in; the address itself
    if it is in none.
    """
    before, found, _ = f"{address}/".rpartition(f"{FOLDER}/")
    return before + FOLDER if found else address
