"""The landing zone: which files have arrived for which day, and what lies there that will not be read.

Only names, sizes and times are looked at. Reading a file is `reading`'s matter; what its rows must hold is `validation`'s.
"""

import datetime
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from upath import UPath

from creditrisk_assets.portfolio.storage import StoredPath, is_local, replacing, store_errors, zone_path

DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
SUFFIXES = (".csv", ".parquet")
HIDDEN = (".", "~", "_")
TEMPORARY = (".tmp", ".part", ".partial", ".filepart", ".crdownload", ".swp", "~")
"""What copying programs, browsers and editors call a file that is not finished, or not meant for others."""

NOT_PLAIN = re.compile("[/\\\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Separators, control characters, and bytes of a name that are no text."""

VERSION_MARK = "?versionId="
"""s3fs cuts a name here, so that another object would be read."""


@dataclass(frozen=True)
class LandedFile:
    """One data file of one day, as the listing shows it: size in bytes, time of change in seconds since the epoch, and a tag
    that differs when the content does.
    """

    path: UPath
    size: int
    modified: float
    tag: str


@dataclass(frozen=True)
class DayListing:
    """What one day's folder holds; `problem` says why the day must not be read, `passed_over` names what lies there unread."""

    day: str
    files: tuple[LandedFile, ...]
    problem: str | None = None
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """One direct child of a folder; its name is as the store gives it."""

    name: str
    kind: Literal["file", "folder", "link", "other"]
    size: int
    modified: float
    tag: str


def is_day(name: str) -> bool:
    """Whether a folder's name is a calendar day written `YYYY-MM-DD`."""
    if DAY.fullmatch(name) is None:
        return False
    try:
        datetime.date.fromisoformat(name)
    except ValueError:
        return False
    return True


def is_passing(name: str) -> bool:
    """Whether a name is hidden or temporary: what it names is nobody's data yet, and is not spoken of."""
    return (name.startswith(HIDDEN) and name not in ("..", ".")) or name.lower().endswith(TEMPORARY)


def is_plain(name: str) -> bool:
    """Whether a name names a direct child and nothing else, wherever it is used."""
    return name not in ("", ".", "..") and VERSION_MARK not in name and NOT_PLAIN.search(name) is None


def list_day(folder: StoredPath) -> DayListing:
    """The data files in one day's folder, by name.

    Hidden and temporary names are ignored; other files and folders are named in `passed_over`. A link, a folder or a device
    with a data file's name, a name that is not plain, and a folder that cannot be looked at are a `problem`: the day is not
    taken for empty, and not read in part.
    """
    place = zone_path(folder)
    files, passed_over, problems = [], [], []
    try:
        if is_local(place) and place.is_symlink():
            return DayListing(place.name, (), f"{place.name} is a link; valid: a folder of its own in the zone")
        for entry in sorted(_entries(place), key=lambda one: one.name):
            if is_passing(entry.name):
                continue
            if not is_plain(entry.name):
                problems.append(f"{entry.name!r} is not a plain name; valid: a file directly in the day's folder")
            elif not entry.name.lower().endswith(SUFFIXES):
                passed_over.append(entry.name + ("/" if entry.kind == "folder" else ""))
            elif entry.kind == "link":
                problems.append(f"{entry.name} is a link; only regular files are read")
            elif entry.kind != "file":
                what = "a folder" if entry.kind == "folder" else "no file"
                problems.append(f"{entry.name} is {what}; only regular files are read")
            else:
                files.append(LandedFile(place / entry.name, entry.size, entry.modified, entry.tag))
    except OSError as error:
        return DayListing(place.name, (), f"{place}: {error.strerror or error}")
    if problems:
        return DayListing(place.name, (), "; ".join(problems), tuple(passed_over))
    return DayListing(place.name, tuple(files), None, tuple(passed_over))


def list_days(zone: StoredPath) -> tuple[list[DayListing], list[str]]:
    """Every day of a landing zone in order, and the names of what lies in the zone without being a day's folder.

    A zone that does not exist yet is empty; a day's folder in which nothing is found is left out.

    Raises:
        OSError: if the zone cannot be looked at.
    """
    place = zone_path(zone)
    try:
        entries = sorted(_entries(place), key=lambda one: one.name)
    except FileNotFoundError as error:
        if error.__cause__ is None and error.__context__ is None:
            return [], []
        raise
    days, strangers = [], []
    for entry in entries:
        if is_day(entry.name) and entry.kind in ("folder", "link"):
            days.append(list_day(place / entry.name))
        elif not is_passing(entry.name):
            strangers.append(entry.name)
    return [day for day in days if day.files or day.problem or day.passed_over], sorted(set(strangers))


def content_digest(paths: Sequence[StoredPath]) -> str:
    """SHA-256 over the names and contents of files, in the order given.

    Raises:
        OSError: if one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        with store_errors(path), path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        digest.update(f"{path.name}\0{content}\n".encode())
    return digest.hexdigest()


def land(folder: StoredPath, name: str, frame: pd.DataFrame) -> UPath:
    """Put a frame into a day's landing folder as a CSV file that appears whole or not at all.

    Raises:
        ValueError: if the name is one that would not be read.
    """
    if not is_plain(name) or is_passing(name) or not name.lower().endswith(".csv"):
        raise ValueError(f"{name!r} would not be read; valid: a plain name that ends in .csv")
    path = zone_path(folder) / name
    with replacing(path) as file:
        frame.to_csv(file, index=False)
    return path


def _entries(folder: UPath) -> Iterator[_Entry]:
    return _local_entries(folder) if is_local(folder) else _stored_entries(folder)


def _local_entries(folder: Path) -> Iterator[_Entry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # renamed or removed since it was listed
                continue
            kind: Literal["file", "folder", "link", "other"] = "other"
            if stat.S_ISLNK(status.st_mode):
                kind = "link"
            elif stat.S_ISDIR(status.st_mode):
                kind = "folder"
            elif stat.S_ISREG(status.st_mode):
                kind = "file"
            tag = f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"
            yield _Entry(entry.name, kind, status.st_size, status.st_mtime, tag)


def _stored_entries(folder: UPath) -> Iterator[_Entry]:
    prefix = folder.path.rstrip("/") + "/"
    with store_errors(folder):
        listed = folder.fs.ls(folder.path, detail=True)
    for entry in listed:
        full = entry["name"]
        is_folder = entry["type"] == "directory"
        if full in (prefix, prefix[:-1]) and not is_folder and not entry["size"]:
            continue  # an empty object that stands for the folder itself
        name = full.removeprefix(prefix) if full.startswith(prefix) else full
        modified = _seconds(entry)
        tag = str(entry.get("ETag") or entry.get("etag") or modified)
        yield _Entry(name, "folder" if is_folder else "file", entry["size"] or 0, modified, f"{tag}-{entry['size']}")


def _seconds(entry: Mapping[str, Any]) -> float:
    """When an object was written, in seconds since the epoch; 0 if its store does not say."""
    for name in ("LastModified", "mtime", "last_modified", "updated", "created"):
        value = entry.get(name)
        if isinstance(value, datetime.datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return 0.0
