"""MLflow: the run and the registered version of each bundle, and the alias that names the champion.

The only module that imports MLflow. Only the `champion` asset calls `set_champion`.
"""

import fcntl
import hashlib
import io
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import onnx
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, Schema
from PIL import Image

from creditrisk_assets.scoring.bundle import GRAPH, Bundle, BundlePlace, load_bundle

MODEL_NAME = "credit_default"
EXPERIMENT = "credit_default"
CHAMPION = "champion"
CHALLENGER = "challenger"
FALLBACK = "fallback"

SERVING_REQUIREMENTS = ("mlflow", "onnx", "onnxruntime", "numpy", "pandas")
"""What `mlflow models serve` needs to answer; pinned in the model to the versions it was made with."""

LOCK_FILE = "requirements.lock"

CHATTY_LOGGERS = ("alembic", "mlflow.store.db.utils")
"""They announce every table that a new store gets."""


@dataclass(frozen=True)
class RegisteredBundle:
    """A bundle that MLflow knows.

    Attributes:
        version: number of the registered model's version, as text.
        run_id: the run that logged it.
        artifact_uri: directory of the bundle's files.
        bundle_sha256: hash over what decides.
        fallback: the scorecard of the same rows; None where the bundle is it.
    """

    version: str
    run_id: str
    artifact_uri: str
    bundle_sha256: str
    fallback: BundlePlace | None

    @property
    def mlflow_uri(self) -> str:
        """The address under which any MLflow client loads it."""
        return f"models:/{MODEL_NAME}/{self.version}"

    def load(self) -> Bundle:
        """Read it back, hash and golden answers checked."""
        return load_bundle(self.artifact_uri, self.bundle_sha256)


class Registry:
    """The registered model `credit_default` in one MLflow store.

    Args:
        tracking_uri: MLflow's store.
        directory: where a SQLite store's artifacts go, and the lock of its first use.
    """

    def __init__(self, tracking_uri: str, directory: Path) -> None:
        self.tracking_uri = tracking_uri
        self._directory = directory
        self._prepared = False

    def register(
        self,
        bundle: Bundle,
        fallback: Bundle | None,
        run_name: str,
        plots: dict[str, bytes],
        tags: dict[str, str],
        example: Mapping[str, Any],
    ) -> tuple[RegisteredBundle, bool]:
        """Log a bundle and register it as a new version, unless one with the same hash is registered already.

        Args:
            bundle: what is registered.
            fallback: the scorecard of the same rows, which is kept beside it.
            run_name: of the MLflow run.
            plots: PNGs by name.
            tags: of the run.
            example: one record as the contract allows it, or nothing.

        Returns:
            The version, and whether it is new.
        """
        client = self._client()
        known = self._find(client, bundle.sha256)
        if known is not None:
            return known, False
        facts = {"training_fingerprint": bundle.manifest.training.fingerprint, **_environment()}
        with mlflow.start_run(experiment_id=self._experiment(client), run_name=run_name, tags={**facts, **tags}) as run:
            mlflow.log_params(_parameters(bundle))
            mlflow.log_metrics(_metrics(bundle))
            if example:
                mlflow.log_dict(_input_example(bundle, example), "input_example.json")
            for name, png in plots.items():
                mlflow.log_image(Image.open(io.BytesIO(png)), artifact_file=f"plots/{name}.png")
            if fallback is not None:
                mlflow.log_artifacts(fallback.location, FALLBACK)
            directory = Path(bundle.location)
            info = mlflow.onnx.log_model(
                onnx.load(directory / GRAPH),
                name="bundle",
                signature=_signature(bundle),
                pip_requirements=[f"{name}=={installed_version(name)}" for name in SERVING_REQUIREMENTS],
                onnx_execution_providers=["CPUExecutionProvider"],
                onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
                save_as_external_data=False,
                extra_files=[str(path) for path in sorted((directory / "extra_files").iterdir())],
                metadata={"bundle_sha256": bundle.sha256},
            )
        location = _local_path(client.get_logged_model(info.model_id).artifact_location)
        load_bundle(location, bundle.sha256)
        version_tags = {"bundle_sha256": bundle.sha256, "artifact_uri": location}
        if fallback is not None:
            place = BundlePlace(artifact_uri=f"{_local_path(run.info.artifact_uri)}/{FALLBACK}", bundle_sha256=fallback.sha256)
            place.load()
            version_tags |= {"fallback_artifact_uri": place.artifact_uri, "fallback_sha256": place.bundle_sha256}
        version = client.create_model_version(
            MODEL_NAME,
            info.model_uri,
            run_id=run.info.run_id,
            model_id=info.model_id,
            tags=version_tags,
        )
        return _registered(version), True

    def attach(self, of: RegisteredBundle, folder: str, documents: Mapping[str, str | bytes]) -> str:
        """Store documents beside the run that logged a bundle; the bundle itself is never changed.

        Args:
            of: the version that they are about.
            folder: where they go among the run's artifacts; empty for their root.
            documents: texts (UTF-8) and files by their name.

        Returns:
            The folder's address.
        """
        client = self._client()
        with tempfile.TemporaryDirectory() as directory:
            for name, content in documents.items():
                path = Path(directory, name)
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            client.log_artifacts(of.run_id, directory, folder or None)
        return f"{client.get_run(of.run_id).info.artifact_uri}/{folder}".rstrip("/")

    def has(self, of: RegisteredBundle, document: str) -> bool:
        """Whether a document stands at the root of the run that logged a bundle."""
        return any(file.path == document for file in self._client().list_artifacts(of.run_id))

    def documents_uri(self, of: RegisteredBundle) -> str:
        """The folder of what documents a version: the artifacts of the run that logged it."""
        return _local_path(str(self._client().get_run(of.run_id).info.artifact_uri))

    def version(self, number: str) -> RegisteredBundle:
        """One version by its number."""
        return _registered(self._client().get_model_version(MODEL_NAME, number))

    def champion_version(self) -> str | None:
        """The version that the alias `champion` names, or None before the first."""
        try:
            return str(self._client().get_model_version_by_alias(MODEL_NAME, CHAMPION).version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def set_champion(self, number: str) -> None:
        """Move the alias `champion`; a version that is champion is challenger no longer."""
        client = self._client()
        client.set_registered_model_alias(MODEL_NAME, CHAMPION, number)
        if str(client.get_registered_model(MODEL_NAME).aliases.get(CHALLENGER)) == number:  # MLflow gives a number here
            client.delete_registered_model_alias(MODEL_NAME, CHALLENGER)

    def set_challenger(self, number: str) -> None:
        """Name the version that was last compared with the champion and did not win."""
        self._client().set_registered_model_alias(MODEL_NAME, CHALLENGER, number)

    def prepare(self) -> None:
        """Create the store if it is not there. Safe for several processes at once; MLflow by itself is not."""
        if self._prepared:
            return
        for name in CHATTY_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / ".prepare.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            client = MlflowClient(self.tracking_uri, self.tracking_uri)
            if client.get_experiment_by_name(EXPERIMENT) is None:
                local = urlparse(self.tracking_uri).scheme.startswith("sqlite")
                artifacts = (self._directory / "artifacts").resolve().as_uri() if local else None
                client.create_experiment(EXPERIMENT, artifact_location=artifacts)
            if not client.search_registered_models(f"name = '{MODEL_NAME}'"):
                client.create_registered_model(MODEL_NAME, description="PD of default next month, one version a bundle.")
        self._prepared = True

    def _client(self) -> MlflowClient:
        self.prepare()
        with _variables_kept():
            mlflow.set_tracking_uri(self.tracking_uri)
            mlflow.set_registry_uri(self.tracking_uri)
        return MlflowClient(self.tracking_uri, self.tracking_uri)

    def _experiment(self, client: MlflowClient) -> str:
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            raise RuntimeError(f"MLflow experiment {EXPERIMENT} is gone from {self.tracking_uri}")
        return str(experiment.experiment_id)

    def _find(self, client: MlflowClient, bundle_sha256: str) -> RegisteredBundle | None:
        found = client.search_model_versions(f"name = '{MODEL_NAME}' and tags.bundle_sha256 = '{bundle_sha256}'")
        return _registered(max(found, key=lambda one: int(one.version))) if found else None


@contextmanager
def _variables_kept() -> Iterator[None]:
    """MLflow writes the addresses that it is given into the environment too, where the next settings would read this store's."""
    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _registered(version: ModelVersion) -> RegisteredBundle:
    fallback = None
    if "fallback_sha256" in version.tags:
        tags = version.tags
        fallback = BundlePlace(artifact_uri=tags["fallback_artifact_uri"], bundle_sha256=tags["fallback_sha256"])
    return RegisteredBundle(
        version=str(version.version),
        run_id=str(version.run_id),
        artifact_uri=version.tags["artifact_uri"],
        bundle_sha256=version.tags["bundle_sha256"],
        fallback=fallback,
    )


def _parameters(bundle: Bundle) -> dict[str, float | int | str]:
    training = bundle.manifest.training
    of_the_run: dict[str, float | int | str] = {
        "family": training.family,
        "kind": training.kind,
        "seed": training.seed,
        "cut_off": bundle.manifest.cut_off,
    }
    return {**training.parameters, **of_the_run}


def _metrics(bundle: Bundle) -> dict[str, float]:
    """Held-out figures, and of every candidate, chosen or not, the cross-fitted ones as `selection/<candidate>/<figure>`."""
    candidates = {
        f"selection/{name}/{figure}": value
        for name, figures in bundle.manifest.training.candidates.items()
        for figure, value in figures.items()
    }
    return {**bundle.manifest.metrics, **candidates, "onnx_parity": bundle.manifest.parity}


def _input_example(bundle: Bundle, example: Mapping[str, Any]) -> dict[str, Any]:
    """A request that `mlflow models serve` takes at /invocations, as the graph sees the record."""
    raw = bundle.raw({name: [example.get(name)] for name in bundle.input_names})
    values = [None if math.isnan(value) else value for value in raw[0].tolist()]
    return {"dataframe_split": {"columns": bundle.input_names, "data": [values]}}


@cache
def _environment() -> dict[str, str]:
    """Hash of the lock file beside the project; of the installed distributions where there is none."""
    lock = Path(__file__).parent.parent / LOCK_FILE
    if lock.is_file():
        return {"requirements_lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest()}
    installed = sorted({f"{one.name}=={one.version}" for one in distributions()})
    return {"installed_distributions_sha256": hashlib.sha256("\n".join(installed).encode()).hexdigest()}


def _signature(bundle: Bundle) -> ModelSignature:
    inputs = Schema([ColSpec("double", name) for name in bundle.input_names])
    outputs = Schema([ColSpec("double", name) for name in ("default_probability", "score")])
    return ModelSignature(inputs=inputs, outputs=outputs)


def _local_path(uri: str) -> str:
    parsed = urlparse(uri)
    return url2pathname(parsed.path) if parsed.scheme == "file" else uri
