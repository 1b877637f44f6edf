"""Folders on a disk or in an object store."""

import shutil

from creditrisk_assets.storage import StoredPath, files_below, is_local


def copy_folder(source: StoredPath, target: StoredPath) -> None:
    """Copy all files below a folder."""
    for name, file in files_below(source).items():
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())


def remove_folder(folder: StoredPath) -> None:
    """Remove a folder with all files below it."""
    if is_local(folder):
        shutil.rmtree(folder)
        return
    for file in files_below(folder).values():
        file.unlink()


def move_folder(source: StoredPath, target: StoredPath) -> None:
    """Give a folder another name."""
    if is_local(source) and is_local(target):
        source.rename(target)
        return
    copy_folder(source, target)
    remove_folder(source)
