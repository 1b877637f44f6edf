"""Registers bundles in MLflow: a run and a version of each, and the alias that names the champion.

No other module imports MLflow. Only the `champion` asset calls `set_champion`.
"""

import atexit
import fcntl
import hashlib
import io
import json
import logging
import math
import os
import shutil
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

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# The output of a command may be a JSON document.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow
import onnx
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, Schema
from PIL import Image

from creditrisk_assets import internal_http
from creditrisk_assets.mlflow_addresses import artifact_root, move_artifacts
from creditrisk_assets.scoring.bundle import (
    GRAPH,
    HELD_OUT,
    Bundle,
    BundlePlace,
    ModelRef,
    load_bundle,
)
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.scoring.model_folders import ModelFolders, ModelRecord, address
from creditrisk_assets.settings import Settings
from creditrisk_assets.storage import files_below
from creditrisk_assets.store import Identity, StoreMismatch, open_store, require_same

log = logging.getLogger(__name__)

MODEL_NAME = "credit_default"
EXPERIMENT = "credit_default"
CHAMPION = "champion"
CHALLENGER = "challenger"
FALLBACK = "fallback"
STORE_TAG = "creditrisk.store"
"""Tag of the registered model: the id of its store."""
BUNDLE_TAG = "bundle_sha256"
"""Tag of a version: the hash of its bundle."""
NOT_FOUND_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's error codes for a missing entry."""

SERVING_REQUIREMENTS = ("mlflow", "onnx", "onnxruntime", "numpy", "pandas")
"""Requirements of `mlflow models serve`, pinned in the model to the versions it was made with."""

LOCK_FILE = "requirements.lock"

ALREADY_EXISTS = "RESOURCE_ALREADY_EXISTS"
"""MLflow's error code for an entry that another process has created."""

DIGEST_LENGTH = 36
"""Characters that MLflow's databases have for the digest of a data set."""

HELD_OUT_COUNTS = {"num_rows": "rows", "num_bads": "bads"}
"""Figures of the manifest by their name in the profile of the held-out rows."""

NOISY_LOGGERS = (
    "alembic",
    "mlflow.store.db.utils",
    "mlflow.store.model_registry.abstract_store",
)
"""These log every table of a new store, and every wait for a version."""


class RegistryError(RuntimeError):
    """MLflow does not answer; the message names its address."""


@dataclass(frozen=True)
class RegisteredBundle:
    """A version of the model, and the store that has its bundle."""

    record: ModelRecord
    bundles: BundleStore

    @property
    def version(self) -> str:
        return self.record.version

    @property
    def bundle_sha256(self) -> str:
        return self.record.bundle.bundle_sha256

    @property
    def ref(self) -> ModelRef:
        """The version as the ledger and the champion's records name it; any MLflow client loads it
        from its `mlflow_uri`.
        """
        return ModelRef(
            **dict(self.record.bundle),
            model_version=self.version,
            mlflow_uri=f"models:/{MODEL_NAME}/{self.record.mlflow_version}",
            fallback=self.record.fallback,
        )

    @property
    def documents_uri(self) -> str:
        """Folder of its documents, relative to the data folder."""
        return address(self.version)

    def load(self) -> Bundle:
        return self.bundles.load(self.bundle_sha256)


@dataclass(frozen=True)
class ModelRun:
    """The content of the MLflow run of a new bundle.

    Attributes:
        bundle: the bundle.
        fallback: the scorecard of the same rows, stored beside it; None if the bundle is it.
        name: of the run.
        plots: PNGs by name.
        tags: of the run.
        example: one record as the contract allows it, or nothing.
    """

    bundle: Bundle
    fallback: Bundle | None
    name: str
    plots: Mapping[str, bytes]
    tags: Mapping[str, str]
    example: Mapping[str, Any]


class Registry:
    """The registered model `credit_default` of one store.

    The store's own bundles and records decide; MLflow holds a copy of each version for its clients
    and its UI. A version that MLflow has lost is registered again from the store.

    Args:
        settings: places of the store and of MLflow.
    """

    def __init__(self, settings: Settings) -> None:
        self.tracking_uri = settings.tracking_uri
        self._settings = settings
        self._directory = settings.mlflow_dir
        self._bundles = BundleStore(settings.data_dir)
        self._models = ModelFolders(settings.data_dir)
        self._prepared = False

    def register(self, run: ModelRun) -> tuple[RegisteredBundle, bool]:
        """Store a bundle and register it as a new version, unless the store has a version of it
        already.

        Returns:
            The version, and whether it is new.
        """
        self.prepare()
        place = self._bundles.put(run.bundle)
        fallback_place = None if run.fallback is None else self._bundles.put(run.fallback)
        known = self._models.find(run.bundle.sha256)
        if known is not None:
            return self._registered(known), False
        number, run_id = self._unrecorded_version(run.bundle.sha256) or self._log(run)
        record = ModelRecord(
            version=number,
            mlflow_version=number,
            run_id=run_id,
            bundle=place,
            fallback=fallback_place,
        )
        self._models.put_documents(
            number, {f"{name}.png": png for name, png in run.plots.items()}, "plots"
        )
        self._models.write(record)
        return RegisteredBundle(record, self._bundles), True

    def attach(
        self, version: RegisteredBundle, folder: str, documents: Mapping[str, str | bytes]
    ) -> str:
        """Store documents of a version, in the store and in the MLflow run that logged it; the
        bundle does not change.

        Args:
            version: the subject of the documents.
            folder: subfolder of the version's documents; empty for their root.
            documents: texts (UTF-8) and files by their name.

        Returns:
            Their address, relative to the data folder.
        """
        place = self._models.put_documents(version.version, documents, folder)
        self._copy_documents(self._registered(version.record).record.run_id, folder, documents)
        return place

    def has(self, version: RegisteredBundle, document: str) -> bool:
        """True if a version's documents have this one at their root."""
        return self._models.has_document(version.version, document)

    def document(self, version: str, name: str) -> bytes | None:
        """A document of a version by its path in the version's folder; None if there is none."""
        return self._models.document(version, name)

    def run_of(self, version: RegisteredBundle) -> tuple[str, dict[str, str]]:
        """Experiment and tags of the MLflow run of a version.

        Raises:
            RegistryError: if MLflow does not answer, or has lost the run.
        """
        with self._answers():
            run = self._client().get_run(version.record.run_id)
        return str(run.info.experiment_id), dict(run.data.tags)

    def describe(self, version: RegisteredBundle, text: str) -> None:
        """Write the description of a version.

        Args:
            version: the version.
            text: Markdown.

        Raises:
            RegistryError: if MLflow does not answer, or has lost the version.
        """
        with self._answers():
            self._client().update_model_version(MODEL_NAME, version.record.mlflow_version, text)

    def version(self, number: str) -> RegisteredBundle:
        """A version by its number, from the store and not from MLflow.

        Raises:
            ModelError: if the store has no such version.
        """
        return RegisteredBundle(self._models.record(number), self._bundles)

    def champion_bundle(self) -> str | None:
        """Hash of the bundle that MLflow's alias `champion` names; None without that alias."""
        client = self._reading_client()
        try:
            named = client.get_model_version_by_alias(MODEL_NAME, CHAMPION)
        except MlflowException as error:
            if error.error_code in NOT_FOUND_CODES:
                return None
            raise
        return str(named.tags.get(BUNDLE_TAG, "none"))

    def store_mark(self) -> str | None:
        """Id of the store that MLflow's registered model belongs to; None before its first use.

        Raises:
            RegistryError: if MLflow does not answer.
        """
        if self._is_embedded and not (self._directory / "mlflow.db").is_file():
            return None
        with self._answers():
            models = self._client_of(self.tracking_uri).search_registered_models(
                f"name = '{MODEL_NAME}'"
            )
        return models[0].tags.get(STORE_TAG) if models else None

    def set_champion(self, number: str) -> None:
        """Move the alias `champion`; the new champion loses the alias `challenger`."""
        client = self._client()
        mlflow_version = self._registered(self._models.record(number)).record.mlflow_version
        client.set_registered_model_alias(MODEL_NAME, CHAMPION, mlflow_version)
        challenger = client.get_registered_model(MODEL_NAME).aliases.get(CHALLENGER)
        if str(challenger) == mlflow_version:  # MLflow gives a number here
            client.delete_registered_model_alias(MODEL_NAME, CHALLENGER)

    def set_challenger(self, number: str) -> None:
        """Move the alias `challenger` to the version that last lost to the champion."""
        registered = self._registered(self._models.record(number))
        self._client().set_registered_model_alias(
            MODEL_NAME, CHALLENGER, registered.record.mlflow_version
        )

    def prepare(self) -> None:
        """Create MLflow's store if it is missing. A lock makes this safe for concurrent processes
        of one machine, which MLflow's SQLite file alone is not.

        Raises:
            StoreMismatch: if MLflow's store belongs to another store, or has versions that no store
                registered.
            RegistryError: if MLflow does not answer.
        """
        if self._prepared:
            return
        identity = open_store(self._settings)
        silence_loggers()
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / ".prepare.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with self._answers():
                if self._is_embedded:
                    self._create_database()
                self._claim(self._client_of(self.tracking_uri), identity)
        self._prepared = True

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """Name MLflow's address in its errors.

        Raises:
            RegistryError: for an error of MLflow.
        """
        try:
            yield
        except MlflowException as error:
            raise RegistryError(
                f"MLFLOW_TRACKING_URI is {self.tracking_uri}: {error!s:.300}"
            ) from error

    def _create_database(self) -> None:
        """Let MLflow make its SQLite file under another name. A process that is killed during its
        fifty migrations would leave a file that MLflow never opens again.
        """
        database, unfinished = self._directory / "mlflow.db", self._directory / ".unfinished"
        if database.exists():
            return
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        new = unfinished / database.name
        self._client_of(f"sqlite:///{new}").search_experiments()
        new.rename(database)
        shutil.rmtree(unfinished)

    def _claim(self, client: MlflowClient, identity: Identity) -> None:
        """Create the experiment and the registered model, or check that they are this store's."""
        try:
            self._create_or_compare(client, identity)
        except MlflowException as error:
            if error.error_code != ALREADY_EXISTS:
                raise
            self._claim(client, identity)  # another machine was first

    def _create_or_compare(self, client: MlflowClient, identity: Identity) -> None:
        models = client.search_registered_models(f"name = '{MODEL_NAME}'")
        marked = models[0].tags.get(STORE_TAG) if models else None
        if marked is not None:
            require_same(
                f"registered model {MODEL_NAME} of MLflow {self.tracking_uri}", marked, identity
            )
        elif models and models[0].latest_versions:
            raise StoreMismatch(
                f"MLflow {self.tracking_uri} has versions of {MODEL_NAME} that no store "
                "registered; valid: an MLflow without that model, or the one that this store has "
                "used so far"
            )
        artifacts = self._artifact_location()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            client.create_experiment(EXPERIMENT, artifact_location=artifacts)
        elif self._is_embedded and artifacts != (
            old := artifact_root(experiment.artifact_location)
        ):
            move_artifacts(self.tracking_uri, old, str(artifacts))
        if not models:
            client.create_registered_model(
                MODEL_NAME,
                tags={STORE_TAG: identity.id},
                description=f"{self._settings.portfolio.title}. PD: "
                f"{self._settings.portfolio.target_description}. One version a bundle.",
            )
        elif marked is None:
            client.set_registered_model_tag(MODEL_NAME, STORE_TAG, identity.id)

    def _artifact_location(self) -> str | None:
        """Folder of the artifacts without an MLflow server: in the store, not in the working
        directory. None with a server, which stores them itself.
        """
        served = urlparse(self.tracking_uri).scheme in ("http", "https")
        return None if served else (self._directory / "artifacts").resolve().as_uri()

    @property
    def _is_embedded(self) -> bool:
        """True if MLflow's database is a file of the store."""
        return urlparse(self.tracking_uri).scheme == "sqlite"

    def _log(self, logged: ModelRun) -> tuple[str, str]:
        """Log a run and register its bundle: the number of MLflow's version, and the run."""
        client, bundle, fallback = self._client(), logged.bundle, logged.fallback
        training = bundle.manifest.training
        facts = {"training_fingerprint": training.fingerprint, **_environment()}
        with mlflow.start_run(
            experiment_id=self._experiment(client),
            run_name=logged.name,
            tags={**facts, **logged.tags},
        ) as run:
            mlflow.log_params(
                {
                    **training.parameters,
                    "family": training.family,
                    "kind": training.kind,
                    "seed": training.seed,
                    "cut_off": bundle.manifest.cut_off,
                }
            )
            mlflow.log_metrics(_metrics(bundle))
            for context, rows in _data_sets(bundle, self._settings.portfolio.target).items():
                mlflow.log_input(rows, context)
            if logged.example:
                mlflow.log_dict(_input_example(bundle, logged.example), "input_example.json")
            for name, png in logged.plots.items():
                mlflow.log_image(Image.open(io.BytesIO(png)), artifact_file=f"plots/{name}.png")
            if fallback is not None:
                mlflow.log_artifacts(fallback.location, FALLBACK)
            directory = Path(bundle.location)
            info = mlflow.onnx.log_model(
                onnx.load(directory / GRAPH),
                name="bundle",
                signature=_signature(bundle),
                pip_requirements=[
                    f"{name}=={installed_version(name)}" for name in SERVING_REQUIREMENTS
                ],
                onnx_execution_providers=["CPUExecutionProvider"],
                onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
                save_as_external_data=False,
                extra_files=[str(path) for path in sorted((directory / "extra_files").iterdir())],
                metadata={"bundle_sha256": bundle.sha256},
            )
        version_tags = {BUNDLE_TAG: bundle.sha256}
        if fallback is not None:
            version_tags["fallback_sha256"] = fallback.sha256
        used_numbers = self._models.versions()
        while True:
            version = client.create_model_version(
                MODEL_NAME,
                info.model_uri,
                run_id=run.info.run_id,
                model_id=info.model_id,
                tags=version_tags,
            )
            if int(version.version) not in used_numbers:
                return str(version.version), run.info.run_id
            # The number belongs to another bundle of this store.
            client.delete_model_version(MODEL_NAME, version.version)

    def _unrecorded_version(self, bundle_sha256: str) -> tuple[str, str] | None:
        """Number and run of a version that a killed process registered without recording it."""
        found = self._client().search_model_versions(
            f"name = '{MODEL_NAME}' and tags.{BUNDLE_TAG} = '{bundle_sha256}'"
        )
        used_numbers = self._models.versions()
        runs = {
            int(version.version): str(version.run_id)
            for version in found
            if int(version.version) not in used_numbers
        }
        return (str(max(runs)), runs[max(runs)]) if runs else None

    def _registered(self, record: ModelRecord) -> RegisteredBundle:
        """A version that MLflow has. One that MLflow has lost is registered again under a new
        MLflow number.
        """
        if self._is_registered(record):
            return RegisteredBundle(record, self._bundles)
        log.warning(
            "MLflow has lost version %s of %s; it is registered again from the store",
            record.version,
            MODEL_NAME,
        )
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            bundle = self._local_copy(record.bundle, Path(first))
            fallback = (
                None if record.fallback is None else self._local_copy(record.fallback, Path(second))
            )
            tags = {"registered_again_as_version": record.version}
            example = self._settings.portfolio.example
            name = f"version {record.version}, again"
            number, run_id = self._log(ModelRun(bundle, fallback, name, {}, tags, example))
        updated = record.model_copy(update={"mlflow_version": number, "run_id": run_id})
        self._models.write(updated)
        by_folder: dict[str, dict[str, bytes]] = {}
        for name, content in self._models.documents(record.version).items():
            folder, _, file = name.rpartition("/")
            by_folder.setdefault(folder, {})[file] = content
        for folder, documents in by_folder.items():
            self._copy_documents(run_id, folder, documents)
        return RegisteredBundle(updated, self._bundles)

    def _is_registered(self, record: ModelRecord) -> bool:
        client = self._client()
        try:
            found = client.get_model_version(MODEL_NAME, record.mlflow_version)
            run = client.get_run(record.run_id)
        except MlflowException as error:
            if error.error_code in NOT_FOUND_CODES:
                return False
            raise
        return (
            found.tags.get(BUNDLE_TAG) == record.bundle.bundle_sha256
            and run.info.lifecycle_stage == "active"
        )

    def _local_copy(self, place: BundlePlace, folder: Path) -> Bundle:
        """A copy of a stored bundle in a local folder, as MLflow requires."""
        for name, file in files_below(self._bundles.folder(place.bundle_sha256)).items():
            copy = folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
        return load_bundle(str(folder), place.bundle_sha256)

    def _copy_documents(
        self, run_id: str, folder: str, documents: Mapping[str, str | bytes]
    ) -> None:
        with tempfile.TemporaryDirectory() as directory:
            for name, content in documents.items():
                Path(directory, name).write_bytes(
                    content.encode() if isinstance(content, str) else content
                )
            self._client().log_artifacts(run_id, directory, folder or None)

    def _client(self) -> MlflowClient:
        self.prepare()
        return self._client_of(self.tracking_uri)

    def _reading_client(self) -> MlflowClient:
        """A client for reading only. MLflow writes to a database when it opens it, so a read-only
        one is copied first.
        """
        silence_loggers()
        database = self._directory / "mlflow.db"
        if not self._is_embedded or not database.is_file() or os.access(database, os.W_OK):
            return self._client()
        return self._client_of(f"sqlite:///{_database_copy(database)}")

    @staticmethod
    def _client_of(uri: str) -> MlflowClient:
        internal_http.exempt_from_proxies(uri)
        with _restored_environment():
            mlflow.set_tracking_uri(uri)
            mlflow.set_registry_uri(uri)
        return MlflowClient(uri, uri)

    def _experiment(self, client: MlflowClient) -> str:
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            raise RuntimeError(f"MLflow experiment {EXPERIMENT} is gone from {self.tracking_uri}")
        return str(experiment.experiment_id)


@cache
def _database_copy(database: Path) -> Path:
    """A copy of MLflow's database that lives as long as this process."""
    folder = Path(tempfile.mkdtemp(prefix="creditrisk-mlflow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(shutil.copyfile(database, folder / database.name))


def silence_loggers() -> None:
    """Silence what MLflow logs about each table of a new database."""
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def _restored_environment() -> Iterator[None]:
    """Undo MLflow's changes to the environment: it writes its addresses there, and the settings of
    another store would read them.
    """
    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


class _DataSet(MetaDataset):
    """Rows of the store as MLflow describes an input: without a copy of them.

    Args:
        name: of the data set.
        digest: SHA-256 over the rows.
        schema: of their columns.
        source: tags that say where they come from.
        profile: counts.
    """

    def __init__(
        self,
        name: str,
        digest: str,
        schema: Schema,
        source: Mapping[str, str],
        profile: Mapping[str, int],
    ) -> None:
        self._profile = dict(profile)
        tags = {**source, "sha256": digest}
        super().__init__(CodeDatasetSource(tags), name, digest[:DIGEST_LENGTH], schema)

    @property
    def profile(self) -> dict[str, int]:
        return self._profile

    def to_dict(self) -> dict[str, str]:
        """The fields that MLflow stores."""
        return {**super().to_dict(), "profile": json.dumps(self.profile)}


def _data_sets(bundle: Bundle, target: str) -> dict[str, _DataSet]:
    """Training and held-out rows of a bundle, by MLflow's context."""
    manifest, training = bundle.manifest, bundle.manifest.training
    columns = [
        ColSpec(
            "double"
            if field.kind == "decimal"
            else "string"
            if isinstance((field.codes or [0])[0], str)
            else "long",
            field.name,
            required=field.required,
        )
        for field in manifest.inputs
    ]
    schema = Schema([*columns, ColSpec("long", target)])
    days = ", ".join(training.production_days) or "none"
    source = {"portfolio": manifest.portfolio, "production_days": days}
    return {
        "training": _DataSet(
            f"{manifest.portfolio} training rows",
            training.fingerprint,
            schema,
            {**source, "sha256_of": "fields, outcomes and weights of the rows"},
            {"num_rows": training.rows, "num_bads": training.bads},
        ),
        "evaluation": _DataSet(
            f"{manifest.portfolio} held-out rows",
            hashlib.sha256(bundle.document(HELD_OUT)).hexdigest(),
            schema,
            {**source, "sha256_of": f"the file {HELD_OUT} of the bundle"},
            {name: int(manifest.metrics[key]) for name, key in HELD_OUT_COUNTS.items()},
        ),
    }


def _metrics(bundle: Bundle) -> dict[str, float]:
    """Held-out figures, and the cross-fitted figures of every candidate model as
    `selection/<candidate>/<figure>`.
    """
    candidates = {
        f"selection/{name}/{figure}": value
        for name, figures in bundle.manifest.training.candidates.items()
        for figure, value in figures.items()
    }
    return {**bundle.manifest.metrics, **candidates, "onnx_parity": bundle.manifest.parity}


def _input_example(bundle: Bundle, example: Mapping[str, Any]) -> dict[str, Any]:
    """A request for /invocations of `mlflow models serve`, with the record as the graph sees it."""
    raw = bundle.raw({name: [example.get(name)] for name in bundle.input_names})
    values = [None if math.isnan(value) else value for value in raw[0].tolist()]
    return {"dataframe_split": {"columns": bundle.input_names, "data": [values]}}


@cache
def _environment() -> dict[str, str]:
    """Hash of the project's lock file; without one, of the installed distributions."""
    lock = Path(__file__).parent.parent / LOCK_FILE
    if lock.is_file():
        return {"requirements_lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest()}
    installed = sorted({f"{package.name}=={package.version}" for package in distributions()})
    return {
        "installed_distributions_sha256": hashlib.sha256("\n".join(installed).encode()).hexdigest()
    }


def _signature(bundle: Bundle) -> ModelSignature:
    inputs = Schema([ColSpec("double", name) for name in bundle.input_names])
    outputs = Schema([ColSpec("double", name) for name in ("default_probability", "score")])
    return ModelSignature(inputs=inputs, outputs=outputs)
