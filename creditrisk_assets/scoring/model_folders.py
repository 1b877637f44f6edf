"""Store of model versions: a folder for each, with its record and documents.

MLflow numbers the versions; the store records permanently which bundle a number means. A version
deleted in MLflow is registered again (`registry`), and its number never means another bundle.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from creditrisk_assets.scoring.bundle import BundlePlace, Document
from creditrisk_assets.storage import StoredPath, files_below, replacing, store_errors

MODELS = "models"
RECORD = "model.json"


class ModelError(RuntimeError):
    """The record of a model is missing or unreadable; the message names the version."""


class ModelRecord(Document):
    """Version of the model.

    Attributes:
        version: its number in answers and in the ledger.
        mlflow_version: its current number in MLflow, which differs once it is registered again.
        run_id: MLflow run with a copy of its documents.
        bundle: the bundle.
        fallback: the scorecard of the same rows; None if the bundle is the scorecard.
    """

    version: str
    mlflow_version: str
    run_id: str
    bundle: BundlePlace
    fallback: BundlePlace | None


@dataclass(frozen=True)
class ModelFolders:
    """Folders of models below the data folder of a store."""

    data_dir: StoredPath

    def folder(self, version: str) -> StoredPath:
        """Folder of a version, which need not exist."""
        return self.data_dir / address(version)

    def versions(self) -> list[int]:
        """Numbers of all versions, ascending."""
        folder = self.data_dir / MODELS
        with store_errors(folder):
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal())

    def record(self, version: str) -> ModelRecord:
        """Read the record of a version.

        Raises:
            ModelError: if it is missing or unreadable.
        """
        path = self.folder(version) / RECORD
        try:
            with store_errors(path):
                return ModelRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            valid = ", ".join(map(str, self.versions())) or "none yet"
            raise ModelError(
                f"there is no model version {version} in {self.data_dir}; valid: {valid}"
            ) from error
        except (OSError, ValidationError) as error:
            raise ModelError(f"{path} cannot be read: {error}") from error

    def find(self, bundle_sha256: str) -> ModelRecord | None:
        records = (self.record(str(version)) for version in reversed(self.versions()))
        return next(
            (record for record in records if record.bundle.bundle_sha256 == bundle_sha256), None
        )

    def write(self, record: ModelRecord) -> None:
        """Store the record of a version atomically."""
        with replacing(self.folder(record.version) / RECORD) as file:
            file.write((record.model_dump_json(indent=2) + "\n").encode())

    def put_documents(
        self, version: str, documents: Mapping[str, str | bytes], folder: str = ""
    ) -> str:
        """Store documents of a version.

        Args:
            version: its number.
            documents: texts (UTF-8) and binary files by name.
            folder: folder within the version's folder; empty for the latter itself.

        Returns:
            Their address, relative to the data folder.
        """
        for name, content in documents.items():
            with replacing(self.folder(version) / folder / name) as file:
                file.write(content.encode() if isinstance(content, str) else content)
        return f"{address(version)}/{folder}".rstrip("/")

    def documents(self, version: str) -> dict[str, bytes]:
        """Read all documents of a version, by path in its folder."""
        folder = self.folder(version)
        with store_errors(folder):
            return {
                name: bytes(path.read_bytes())
                for name, path in files_below(folder).items()
                if name != RECORD
            }

    def document(self, version: str, name: str) -> bytes | None:
        """Read a document of a version by its path in the version's folder; None if there is
        none.
        """
        path = self.folder(version) / name
        try:
            with store_errors(path):
                return bytes(path.read_bytes())
        except FileNotFoundError:
            return None

    def has_document(self, version: str, name: str) -> bool:
        path = self.folder(version) / name
        with store_errors(path):
            return path.is_file()


def address(version: str) -> str:
    """Address of a version's folder, relative to the data folder."""
    return f"{MODELS}/{version}"
