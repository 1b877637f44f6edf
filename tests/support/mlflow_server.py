"""An MLflow server that starts in a moment: a copy of a process which has imported MLflow.

Its own command takes five seconds of a processor to start, and every store needs a server of its own.
"""

import multiprocessing
import os
import socket
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

IMPORTED = (
    "boto3",
    "mlflow.server.fastapi_app",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "psycopg2",
    "uvicorn",
    __name__,
)


class MlflowServer:
    """A server whose records and artifacts are elsewhere; its end loses nothing.

    Args:
        database: SQLAlchemy address of its records.
        artifacts: address of the folder of all artifacts.
        log: file of its output.

    Attributes:
        url: where it answers. A request waits until it has started.
    """

    def __init__(self, database: str, artifacts: str, log: Path) -> None:
        keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*IMPORTED])
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            self._process: ForkServerProcess = context.Process(
                target=_serve, args=(listening, keys, database, artifacts, log), daemon=True
            )
            self._process.start()

    def stop(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join()
        self._process.close()


def _serve(
    listening: socket.socket, keys: dict[str, str], database: str, artifacts: str, log: Path
) -> None:
    import uvicorn
    from mlflow.server import constants
    from mlflow.server.fastapi_app import app

    os.environ |= keys | {
        constants.BACKEND_STORE_URI_ENV_VAR: database,
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: artifacts,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
    }
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    uvicorn.Server(uvicorn.Config(app, access_log=False)).run(sockets=[listening])
