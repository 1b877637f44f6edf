"""The commands `creditrisk init`, `creditrisk code-server` and `creditrisk mlflow-server`, which
start the processes of the loop, the same for Compose, `creditrisk dev`, the demo and the drills.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from creditrisk_assets.cli.common import console, fail, home_folder, settings_here

if TYPE_CHECKING:
    from creditrisk_assets.settings import Settings


def init(
    database_only: Annotated[
        bool,
        typer.Option(
            help="Make the schemas and tables of CREDITRISK_DATABASE_URL and nothing else; an "
            "MLflow server needs its schema before it starts."
        ),
    ] = False,
) -> None:
    """Create the store, or bring its tables to this release: databases and landing folders. Neither
    Dagster's nor MLflow's database can be created by several processes at a time.
    """
    from creditrisk_assets import database
    from creditrisk_assets.defs import status
    from creditrisk_assets.defs.store_mark import require_one_store
    from creditrisk_assets.registry import Registry
    from creditrisk_assets.store import StoreMismatch

    settings = settings_here()
    if not database_only:
        require_routes(settings)
    try:
        if settings.database_url is not None:
            database.prepare(settings.database_url.get_secret_value())
        if database_only:
            return
        require_one_store(settings, status.open_instance(home_folder()))
    except (StoreMismatch, database.DatabaseError) as error:
        fail(error)
    Registry(settings).prepare()
    for folder in (settings.landing_production, settings.landing_outcomes):
        folder.mkdir(parents=True, exist_ok=True)


def require_routes(settings: "Settings") -> None:
    """End the command if the receivers of alerts are not valid: at the first alarm it is late to
    see that.
    """
    from creditrisk_assets.monitoring.receivers import RoutesError, receivers_of

    try:
        receivers_of(settings)
    except RoutesError as error:
        fail(escape(str(error)))


def code_server(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 4000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Load the definitions and execute the runs. Runs of this machine whose process was killed are
    marked as lost first; the sensor `lost_runs` asks for them again.
    """
    from creditrisk_assets import code_server as server
    from creditrisk_assets.defs import status
    from creditrisk_assets.defs.orphaned_runs import end_orphaned_runs
    from creditrisk_assets.simulation.processes import ProcessFailed, require_free

    home = home_folder()
    require_routes(settings_here())
    try:
        require_free(port, "code server", host)  # one that listens there executes runs
    except ProcessFailed as error:
        fail(error)
    for run_id in end_orphaned_runs(status.open_instance(home), port):
        console.print(f"run {run_id} was lost with its process; it is started once more")
    os.environ["DAGSTER_HOME"] = str(home)
    server.serve(host, port)


def mlflow_server(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    workers: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 1,
) -> None:
    """Run the store's MLflow server. Its records and artifacts lie in the database and the bucket,
    or in the data folder.
    """
    settings = settings_here()
    own = Path(sys.executable).with_name("mlflow")
    mlflow = str(own) if own.exists() else shutil.which("mlflow") or "mlflow"
    # Not as arguments, which every user of the machine can read.
    environment = os.environ | _mlflow_places(settings)
    options = ["--host", host, "--port", str(port), "--workers", str(workers)]
    os.execve(mlflow, [mlflow, "server", *options], environment)  # noqa: S606


def _mlflow_places(settings: "Settings") -> dict[str, str]:
    """The environment that names the places of the store's MLflow server."""
    from creditrisk_assets.database import url_in_schema

    # Its jobs are for LLM evaluations, and cost eight processes and over 1 GB.
    result = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        artifacts = {"MLFLOW_ARTIFACTS_DESTINATION": str(settings.data_dir / "mlflow")}
        return result | artifacts | {"MLFLOW_BACKEND_STORE_URI": url_in_schema(url, "mlflow")}
    if settings.has_mlflow_server:
        fail(
            f"MLFLOW_TRACKING_URI is {settings.tracking_uri}, a server; valid for one of a store "
            "without CREDITRISK_DATABASE_URL: no value, or the address of a database"
        )
    if not (settings.mlflow_dir / "mlflow.db").is_file():
        from creditrisk_assets.registry import Registry

        Registry(settings).prepare()
    return result | {"MLFLOW_BACKEND_STORE_URI": settings.tracking_uri}
