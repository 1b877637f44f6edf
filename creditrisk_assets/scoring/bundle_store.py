"""The bundles of a store: each in a folder that its hash names, below the data folder.

What was decided by is looked for here and nowhere else, so that a store works wherever it is moved,
and whatever MLflow has lost. Reading and proving one bundle is `bundle`'s matter.
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
    """Bundles below a data folder, on a disk or in an object store.

    Attributes:
        data_dir: the data folder of the store.
    """

    data_dir: StoredPath

    def folder(self, sha256: str) -> StoredPath:
        """The folder of a bundle, whether it is there or not."""
        return self.data_dir / address(sha256)

    def load(self, sha256: str) -> Bundle:
        """Read a bundle back, its hash and its golden answers checked.

        Raises:
            BundleError: if a file is missing, the hash differs, or a golden answer differs.
        """
        return load_bundle(str(self.folder(sha256)), sha256)

    def deciding_files(self, sha256: str) -> dict[str, bytes]:
        """The contents of a bundle's deciding files by name.

        Raises:
            BundleError: if one is missing, or the hash differs.
        """
        return deciding_files(str(self.folder(sha256)), sha256)

    def learned_days(self, bundle: Bundle) -> frozenset[str]:
        """Production days that a bundle was fitted on, and the bundles that it is a recalibration
        of.

        Raises:
            BundleError: if a bundle that it was made of cannot be read.
        """
        training = bundle.manifest.training
        days = frozenset(training.production_days)
        if training.recalibration is None:
            return days
        return days | self.learned_days(self.load(training.recalibration.parent_sha256))

    def put(self, bundle: Bundle) -> BundlePlace:
        """Store a bundle and read it back; one that is there and whole stays as it is.

        Raises:
            BundleError: if it cannot be read back.
            OSError: if the disk or the object store does not take it.
        """
        folder = self.folder(bundle.sha256)
        if not self._is_whole(bundle.sha256):
            source = Path(bundle.location)
            if is_local(folder):
                _put_local(source, folder)
            else:
                _put_remote(source, folder)
            self.load(bundle.sha256)
        return BundlePlace(artifact_uri=address(bundle.sha256), bundle_sha256=bundle.sha256)

    def _is_whole(self, sha256: str) -> bool:
        try:
            self.deciding_files(sha256)
        except BundleError:
            return False
        return True


def address(sha256: str) -> str:
    """Where a bundle is, relative to the data folder."""
    return f"{BUNDLES}/{sha256}"


def _put_local(source: Path, folder: Path) -> None:
    """The folder has its name when all of it is on the disk."""
    with scratch_folder(folder.parent / ".new") as scratch:
        whole = scratch / folder.name
        for name, file in files_below(source).items():
            with replacing(whole / name) as copy:
                copy.write(file.read_bytes())
        if folder.exists():
            shutil.rmtree(folder)  # it was damaged
        whole.rename(folder)
    sync_folder(folder.parent)


def _put_remote(source: Path, folder: StoredPath) -> None:
    """The deciding files come last: a bundle that has them is whole."""
    for name, file in sorted(files_below(source).items(), key=lambda one: one[0] in DECIDING):
        with replacing(folder / name) as copy:
            copy.write(file.read_bytes())
