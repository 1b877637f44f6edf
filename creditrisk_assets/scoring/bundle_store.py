"""Store of bundles below the data folder, each in a folder named by its hash.

All decisions take their bundle from here, so a store works wherever it is moved, and without
MLflow. Loading and verifying one bundle belongs in `bundle`.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from creditrisk_assets.scoring.bundle import (
    DECIDING,
    Bundle,
    BundleError,
    BundlePlace,
    deciding_files,
    load_bundle,
)
from creditrisk_assets.storage import (
    StoredPath,
    files_below,
    is_local,
    replacing,
    scratch_folder,
    sync_folder,
)

BUNDLES = "bundles"


@dataclass(frozen=True)
class BundleStore:
    """Bundles below the data folder of a store, on a disk or in an object store."""

    data_dir: StoredPath

    def folder(self, sha256: str) -> StoredPath:
        """Folder of a bundle, which need not exist."""
        return self.data_dir / address(sha256)

    def load(self, sha256: str) -> Bundle:
        """Load a bundle, as `load_bundle` does."""
        return load_bundle(str(self.folder(sha256)), sha256)

    def deciding_files(self, sha256: str) -> dict[str, bytes]:
        """Read a bundle's deciding files, as the function of the same name does."""
        return deciding_files(str(self.folder(sha256)), sha256)

    def learned_days(self, bundle: Bundle) -> frozenset[str]:
        """Production days that a bundle, or a parent by recalibration, was fitted on.

        Raises:
            BundleError: if a parent cannot be read.
        """
        training = bundle.manifest.training
        days = frozenset(training.production_days)
        if training.recalibration is None:
            return days
        return days | self.learned_days(self.load(training.recalibration.parent_sha256))

    def put(self, bundle: Bundle) -> BundlePlace:
        """Store a bundle and load it again; a complete stored copy stays as it is.

        Raises:
            BundleError: if it cannot be loaded again.
            OSError: if it cannot be written.
        """
        folder = self.folder(bundle.sha256)
        if not self._is_complete(bundle.sha256):
            source = Path(bundle.location)
            if is_local(folder):
                _put_local(source, folder)
            else:
                _copy(source, folder)
            self.load(bundle.sha256)
        return BundlePlace(artifact_uri=address(bundle.sha256), bundle_sha256=bundle.sha256)

    def _is_complete(self, sha256: str) -> bool:
        try:
            self.deciding_files(sha256)
        except BundleError:
            return False
        return True


def address(sha256: str) -> str:
    """Address of a bundle, relative to the data folder."""
    return f"{BUNDLES}/{sha256}"


def _put_local(source: Path, folder: Path) -> None:
    """Write the folder; it gets its final name when it is complete on disk."""
    with scratch_folder(folder.parent / ".new") as scratch:
        copied = scratch / folder.name
        _copy(source, copied)
        if folder.exists():
            shutil.rmtree(folder)  # it is incomplete
        copied.rename(folder)
    sync_folder(folder.parent)


def _copy(source: Path, folder: StoredPath) -> None:
    """Write the deciding files last: a bundle that has them is complete."""
    for name, file in sorted(files_below(source).items(), key=lambda item: item[0] in DECIDING):
        with replacing(folder / name) as copy:
            copy.write(file.read_bytes())
