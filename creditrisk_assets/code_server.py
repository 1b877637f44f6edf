"""Dagster's code server, with runs that are copies of a process which has imported what they need.

Dagster starts a new interpreter for each run, and its imports take longer than the computations of
a small day (`benchmarks.operations.run_start`). Python's fork server imports once; its copies share
no thread and no connection with the code server. Dagster has no setting for the way in which it
starts processes, so the attribute that holds it is replaced.
"""

import multiprocessing

PACKAGE = "creditrisk_assets"
DEFINITIONS = f"{PACKAGE}.definitions"
LOCATION = "creditrisk"

IMPORTED_BEFORE_RUNS = (
    DEFINITIONS,
    f"{PACKAGE}.governance.model_card",
    f"{PACKAGE}.governance.promotion_gate",
    f"{PACKAGE}.modelling.bundling",
    f"{PACKAGE}.modelling.plots",
    f"{PACKAGE}.modelling.selection",
    f"{PACKAGE}.monitoring.evidently_report",
    f"{PACKAGE}.registry",
    "mlflow.onnx",
    "mlflow.store.tracking.sqlalchemy_store",
    "skl2onnx",
)
"""Modules that the steps of a run import when they need them."""


def serve(host: str, port: int) -> None:
    """Load the definitions, answer the daemon and the webserver, and execute runs until a signal.

    Args:
        host: address to listen on.
        port: to listen on.
    """
    from dagster._cli.api import grpc_command
    from dagster._grpc import server

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*IMPORTED_BEFORE_RUNS])

    class Server(server.DagsterApiServer):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[arg-type]
            self._mp_ctx = context  # type: ignore[assignment]

    server.DagsterApiServer = Server  # type: ignore[misc]
    place = ["--host", host, "--port", str(port)]
    names = ["--module-name", DEFINITIONS, "--location-name", LOCATION]
    grpc_command.main([*names, *place])
