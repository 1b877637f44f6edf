"""MLflow's records for a backup and its restoration: the addresses of artifacts, and the artifacts
of an MLflow server.

In a backup an address is relative to the folder of all artifacts, as an MLflow server that stores
artifacts itself has it: `mlflow-artifacts:/<path>`.
"""

from pathlib import Path
from urllib.parse import urlparse

import sqlalchemy as sa

from creditrisk_assets import database, internal_http, registry
from creditrisk_assets.backup import rows
from creditrisk_assets.backup.served import MLFLOW
from creditrisk_assets.mlflow_addresses import COLUMNS, artifact_root
from creditrisk_assets.settings import Settings

import mlflow.artifacts  # isort: skip  # after registry, which sets its switches
from mlflow.exceptions import MlflowException  # isort: skip
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository  # isort: skip

PROXIED = "mlflow-artifacts:"
DEFAULT_EXPERIMENT = "0"


class MlflowUnavailable(RuntimeError):
    """The MLflow server does not answer, or has its records elsewhere."""


def is_embedded(settings: Settings) -> bool:
    """True if MLflow's database is a SQLite file."""
    return urlparse(settings.tracking_uri).scheme == "sqlite"


def database_file(settings: Settings) -> Path:
    """The SQLite file of an embedded MLflow."""
    return Path(str(sa.make_url(settings.tracking_uri).database))


def has_own_schema(settings: Settings) -> bool:
    """True if the MLflow server has its records in the schema `mlflow` of the store's database: the
    server and the schema name the same moment at which they were made.

    Raises:
        MlflowUnavailable: if the server does not answer.
        DatabaseError: if the database does not answer.
    """
    if is_embedded(settings) or settings.database_url is None:
        return False
    uri = settings.tracking_uri
    try:
        internal_http.exempt_from_proxies(uri)
        made = mlflow.MlflowClient(uri, uri).get_experiment(DEFAULT_EXPERIMENT).creation_time
    except MlflowException as error:
        raise MlflowUnavailable(f"MLFLOW_TRACKING_URI is {uri}: {error!s:.300}") from error
    with database.transaction(settings.database_url.get_secret_value()) as connection:
        if not sa.inspect(connection).has_table("experiments", schema=MLFLOW):
            return False
        query = sa.text("SELECT creation_time FROM mlflow.experiments WHERE experiment_id = 0")
        return bool(connection.execute(query).scalar() == made)


def neutral_addresses(root: str | None) -> rows.Change:
    """Makes addresses below a folder relative to it.

    Args:
        root: address of the folder of all artifacts; None if there is none.
    """

    def change(table: str, row: rows.Row) -> rows.Row:
        for of_table, column in COLUMNS:
            address = row.get(column)
            if of_table == table and root and address and f"{address}/".startswith(f"{root}/"):
                row[column] = f"{PROXIED}/{address[len(root) :].lstrip('/')}"
        return row

    return change


def placed_addresses(root: str) -> rows.Change:
    """Makes the addresses of a backup absolute. An address outside the backup stays.

    Args:
        root: address of the folder of all artifacts; `PROXIED` for an MLflow server.
    """

    def change(table: str, row: rows.Row) -> rows.Row:
        for of_table, column in COLUMNS:
            address = row.get(column)
            if of_table == table and address and address.startswith(f"{PROXIED}/"):
                rest = address.removeprefix(f"{PROXIED}/")
                row[column] = f"{root}/{rest}" if root == PROXIED else f"{root}/{rest}".rstrip("/")
        return row

    return change


def embedded_root(settings: Settings) -> str:
    """Address of the folder of all artifacts of an embedded MLflow."""
    return (settings.mlflow_dir / "artifacts").resolve().as_uri()


def stored_root(file: Path) -> str | None:
    """The same as a SQLite file has it, which may be of the store's earlier place."""
    engine = sa.create_engine(f"sqlite:///file:{file.resolve()}?mode=ro&uri=true")
    try:
        with engine.connect() as connection:
            query = sa.text("SELECT artifact_location FROM experiments WHERE name = :name")
            found = connection.execute(query, {"name": registry.EXPERIMENT}).scalar()
            return None if found is None else artifact_root(found)
    finally:
        engine.dispose()


def make_database(file: Path) -> None:
    """Let MLflow make a new SQLite file."""
    registry.silence_loggers()
    uri = f"sqlite:///{file}"
    mlflow.MlflowClient(uri, uri).search_experiments()


def fetch_artifacts(uri: str, folder: Path) -> None:
    """Copy all artifacts of an MLflow server to a folder.

    Raises:
        MlflowUnavailable: if it does not answer.
    """
    folder.mkdir(parents=True)
    try:
        repository = get_artifact_repository(f"{PROXIED}/", tracking_uri=uri)
        if repository.list_artifacts():
            repository.download_artifacts("", str(folder))  # type: ignore[no-untyped-call]
    except MlflowException as error:
        raise MlflowUnavailable(f"artifacts of {uri}: {error!s:.300}") from error


def send_artifacts(uri: str, folder: Path) -> None:
    """Copy a folder of artifacts to an MLflow server.

    Raises:
        MlflowUnavailable: if it does not answer.
    """
    try:
        repository = get_artifact_repository(f"{PROXIED}/", tracking_uri=uri)
        repository.log_artifacts(str(folder))  # type: ignore[no-untyped-call]
    except MlflowException as error:
        raise MlflowUnavailable(f"artifacts of {uri}: {error!s:.300}") from error
