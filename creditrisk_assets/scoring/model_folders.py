"""The models of a store: a folder for each version, with its record and what documents it.

MLflow gives a version its number; the store keeps which bundle that number means, for ever. So a
version that somebody deletes in MLflow is registered again (`registry`), and its number never comes
to mean another bundle.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from creditrisk_assets.scoring.bundle import BundlePlace
from creditrisk_assets.storage import (
    StoredPath,
    files_below,
    replacing,
    store_errors,
)

MODELS = "models"
RECORD = "model.json"


class ModelError(RuntimeError):
    """The record of a model is not there or cannot be read; the message names the version."""


class ModelRecord(BaseModel):
    """A version of the model.

    Attributes:
        version: its number, as every answer and the ledger have it.
        mlflow_version: the number under which MLflow has it now; another one once it had to be
            registered again.
        run_id: the MLflow run that holds a copy of its documents.
        bundle: the bundle.
        fallback: the scorecard of the same rows; None where the bundle is it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    version: str
    mlflow_version: str
    run_id: str
    bundle: BundlePlace
    fallback: BundlePlace | None


@dataclass(frozen=True)
class ModelFolders:
    """The folders of models below a data folder.

    Attributes:
        data_dir: the data folder of the store.
    """

    data_dir: StoredPath

    def folder(self, version: str) -> StoredPath:
        """The folder of a version, whether it is there or not."""
        return self.data_dir / address(version)

    def versions(self) -> list[int]:
        """The numbers of all versions, rising."""
        folder = self.data_dir / MODELS
        with store_errors(folder):
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal())

    def record(self, version: str) -> ModelRecord:
        """The record of a version.

        Raises:
            ModelError: if there is none, or it cannot be read.
        """
        path = self.folder(version) / RECORD
        try:
            with store_errors(path):
                return ModelRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            known = ", ".join(map(str, self.versions())) or "none yet"
            raise ModelError(
                f"there is no model version {version} in {self.data_dir}; valid: {known}"
            ) from error
        except (OSError, ValidationError) as error:
            raise ModelError(f"{path} cannot be read: {error}") from error

    def find(self, bundle_sha256: str) -> ModelRecord | None:
        """The latest version that a bundle has, or None."""
        records = (self.record(str(version)) for version in reversed(self.versions()))
        return next(
            (record for record in records if record.bundle.bundle_sha256 == bundle_sha256), None
        )

    def write(self, record: ModelRecord) -> None:
        """Store the record of a version; it appears whole or not at all."""
        with replacing(self.folder(record.version) / RECORD) as file:
            file.write((record.model_dump_json(indent=2) + "\n").encode())

    def put_documents(
        self, version: str, documents: Mapping[str, str | bytes], folder: str = ""
    ) -> str:
        """Store what documents a version.

        Args:
            version: its number.
            documents: texts (UTF-8) and files by their name.
            folder: where they go in the version's folder; empty for the folder itself.

        Returns:
            Their address, relative to the data folder.
        """
        for name, content in documents.items():
            with replacing(self.folder(version) / folder / name) as file:
                file.write(content.encode() if isinstance(content, str) else content)
        return f"{address(version)}/{folder}".rstrip("/")

    def documents(self, version: str) -> dict[str, bytes]:
        """All documents of a version by their path in its folder."""
        folder = self.folder(version)
        with store_errors(folder):
            return {
                name: bytes(path.read_bytes())
                for name, path in files_below(folder).items()
                if name != RECORD
            }

    def has_document(self, version: str, name: str) -> bool:
        """Whether a document was written."""
        path = self.folder(version) / name
        with store_errors(path):
            return path.is_file()


def address(version: str) -> str:
    """Where a version's record and documents are, relative to the data folder."""
    return f"{MODELS}/{version}"
