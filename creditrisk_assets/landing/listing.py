"""Listing of the landing zone: the files of each day, and the names that will not be read.

This module uses only names, sizes and times. Reading files belongs in `table_reader`, the contract
of their rows in `validation`.
"""

import datetime
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from upath import UPath

from creditrisk_assets.storage import (
    StoredPath,
    file_sha256,
    is_local,
    replacing,
    store_errors,
    zone_path,
)

DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
SUFFIXES = (".csv", ".csv.gz", ".parquet")
HIDDEN = (".", "~", "_")
TEMPORARY = (".tmp", ".part", ".partial", ".filepart", ".crdownload", ".swp", "~")
"""Suffixes that copying programs, browsers and editors give to unfinished or private files."""

NOT_PLAIN = re.compile("[/\\\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Separators, control characters, and undecodable bytes of a name."""

PREFIX_PROTOCOLS = ("s3", "s3a")
"""Stores that can list by any prefix of a name."""

COARSE_CLOCK_SECONDS = 3.0
"""Above the coarsest clock resolution of a file system, the two seconds of FAT."""

NO_FILES = ""

VERSION_MARK = "?versionId="
"""s3fs cuts a name here and would read another object."""


@dataclass(frozen=True)
class LandedFile:
    """Data file of a day: size in bytes, modification time in seconds since the epoch, and a
    tag that changes with the content.
    """

    path: UPath
    size: int
    modified: float
    tag: str


@dataclass(frozen=True)
class DayListing:
    """Contents of one day's folder; `problem` says why the day must not be read, `ignored_names`
    are the other files and folders in it.
    """

    day: str
    files: tuple[LandedFile, ...]
    problem: str | None = None
    ignored_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """Direct child of a folder, by the name that the store gives."""

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


def is_temporary(name: str) -> bool:
    """Whether a name is hidden or temporary; such files are skipped silently."""
    return (name.startswith(HIDDEN) and name not in ("..", ".")) or name.lower().endswith(TEMPORARY)


def is_plain(name: str) -> bool:
    """Whether a name can only mean a direct child of its folder, in every store."""
    return (
        name not in ("", ".", "..") and VERSION_MARK not in name and NOT_PLAIN.search(name) is None
    )


def list_day(folder: StoredPath) -> DayListing:
    """List the data files in one day's folder, by name.

    Hidden and temporary names are skipped; other files and folders go to `ignored_names`. A link, a
    folder or a device with a data file's name, a name that is not plain, and a folder that cannot
    be listed are a `problem`: the day then counts neither as empty nor as readable in part.
    """
    place = zone_path(folder)
    files, ignored_names, problems = [], [], []
    try:
        if is_local(place) and place.is_symlink():
            return DayListing(
                place.name, (), f"{place.name} is a link; valid: a folder of its own in the zone"
            )
        for entry in sorted(_entries(place), key=lambda entry: entry.name):
            if is_temporary(entry.name):
                continue
            if not is_plain(entry.name):
                problems.append(
                    f"{entry.name!r} is not a plain name; valid: a file directly in the day's "
                    "folder"
                )
            elif not entry.name.lower().endswith(SUFFIXES):
                ignored_names.append(entry.name + ("/" if entry.kind == "folder" else ""))
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
        return DayListing(place.name, (), "; ".join(problems), tuple(ignored_names))
    return DayListing(place.name, tuple(files), None, tuple(ignored_names))


def list_days(zone: StoredPath) -> tuple[list[DayListing], list[str]]:
    """List every day of a landing zone in order, and the names in it that are not day folders.

    A zone that does not exist yet is empty; empty day folders are left out.

    Raises:
        OSError: if the zone cannot be listed.
    """
    place = zone_path(zone)
    names, unrecognised = zone_names(place)
    days = [list_day(place / name) for name in names]
    return [day for day in days if day.files or day.problem or day.ignored_names], unrecognised


def zone_names(zone: StoredPath) -> tuple[list[str], list[str]]:
    """List the names in a landing zone in order: those of day folders, and the others.

    Raises:
        OSError: if the zone cannot be listed.
    """
    place = zone_path(zone)
    days, unrecognised = [], []
    try:
        for name, may_be_day in _names(place):
            if may_be_day and is_day(name):
                days.append(name)
            elif not is_temporary(name):
                unrecognised.append(name)
    except FileNotFoundError as error:
        if error.__cause__ is None and error.__context__ is None:
            return [], []
        raise
    return sorted(days), sorted(set(unrecognised))


def zone_signature(zone: StoredPath, now: float) -> str:
    """Value that changes when a name is added to or removed from the zone; empty if unknown.

    Args:
        zone: the landing zone. Object stores give no signature, nor does a local zone that changed
            a moment ago, because the clock of its disk may be coarse.
        now: seconds since the epoch.
    """
    place = zone_path(zone)
    if not is_local(place):
        return ""
    try:
        status = place.stat()
    except OSError:
        return ""
    return (
        f"{status.st_ino}-{status.st_mtime_ns}"
        if now - status.st_mtime > COARSE_CLOCK_SECONDS
        else ""
    )


def quick_stamps(zone: StoredPath, days: Sequence[str]) -> dict[str, str | None]:
    """Stamps of days without a full listing. A day with only data files gets its stamp; a day with
    anything else gets None and needs `list_day`. Missing and empty day folders are left out.

    Raises:
        OSError: if a store does not answer.
    """
    place = zone_path(zone)
    stamps: Iterator[tuple[str, str | None]]
    if is_local(place):
        stamps = ((day, _local_stamp(f"{place}/{day}")) for day in days)
    elif place.protocol in PREFIX_PROTOCOLS:
        stamps = _stamps_by_month(place, days)
    else:
        return dict.fromkeys(days)
    return {day: stamp for day, stamp in stamps if stamp != NO_FILES}


def listing_stamp(day: DayListing) -> str:
    """Short hash over names and tags of a day's files, which changes whenever a file does."""
    return _stamp((file.path.name, file.tag) for file in day.files)


def content_digest(paths: Sequence[StoredPath]) -> str:
    """SHA-256 over the names and contents of files, in the order given.

    Raises:
        OSError: if a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        with store_errors(path):
            content = file_sha256(path)
        digest.update(f"{path.name}\0{content}\n".encode())
    return digest.hexdigest()


def land(folder: StoredPath, name: str, frame: pd.DataFrame) -> UPath:
    """Write a frame atomically into a day's landing folder as a CSV file.

    Raises:
        ValueError: if a file of this name would not be read.
    """
    if not is_plain(name) or is_temporary(name) or not name.lower().endswith(".csv"):
        raise ValueError(f"{name!r} would not be read; valid: a plain name that ends in .csv")
    path = zone_path(folder) / name
    with replacing(path) as file:
        frame.to_csv(file, index=False)
    return path


def _stamp(files: Iterable[tuple[str, str]]) -> str:
    text = "\n".join(f"{name}\0{tag}" for name, tag in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _names(zone: UPath) -> Iterator[tuple[str, bool]]:
    """Names in a zone, each with whether it is a folder or a link."""
    if is_local(zone):
        with os.scandir(zone) as entries:
            yield from (
                (entry.name, entry.is_dir(follow_symlinks=False) or entry.is_symlink())
                for entry in entries
            )
    else:
        yield from (
            (entry.name, entry.kind in ("folder", "link")) for entry in _stored_entries(zone)
        )


def _local_stamp(folder: str) -> str | None:
    files = []
    try:
        if stat.S_ISLNK(os.lstat(folder).st_mode):
            return None
    except FileNotFoundError:
        return NO_FILES
    except OSError:
        return None
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_temporary(entry.name):
                    continue
                status = entry.stat(follow_symlinks=False)
                if not (_is_data(entry.name) and stat.S_ISREG(status.st_mode)):
                    return None
                files.append((entry.name, _local_tag(status)))
    except OSError:
        return None
    return _stamp(sorted(files)) if files else NO_FILES


def _stamps_by_month(zone: UPath, days: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Stamps of days by one listing for each month."""
    start = zone.path.rstrip("/") + "/"
    files: dict[str, list[tuple[str, str]]] = {day: [] for day in days}
    odd = set()
    for month in sorted({day[:7] for day in days}):
        with store_errors(zone):
            found = zone.fs.find(zone.path, prefix=month, detail=True)
        for key, entry in found.items():
            day, _, name = key.removeprefix(start).partition("/")
            if day not in files or (name and is_temporary(name.partition("/")[0])):
                continue
            if _is_data(name):
                files[day].append((name, _stored_tag(entry)))
            elif name or entry["size"]:  # an empty object may represent the folder itself
                odd.add(day)
    for day in days:
        yield day, None if day in odd else _stamp(sorted(files[day])) if files[day] else NO_FILES


def _is_data(name: str) -> bool:
    return is_plain(name) and name.lower().endswith(SUFFIXES)


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
            yield _Entry(entry.name, kind, status.st_size, status.st_mtime, _local_tag(status))


def _local_tag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"


def _stored_entries(folder: UPath) -> Iterator[_Entry]:
    prefix = folder.path.rstrip("/") + "/"
    with store_errors(folder):
        listed = folder.fs.ls(folder.path, detail=True)
    for entry in listed:
        full = entry["name"]
        is_folder = entry["type"] == "directory"
        if full in (prefix, prefix[:-1]) and not is_folder and not entry["size"]:
            continue  # an empty object that represents the folder itself
        name = full.removeprefix(prefix) if full.startswith(prefix) else full
        yield _Entry(
            name,
            "folder" if is_folder else "file",
            entry["size"] or 0,
            _seconds(entry),
            _stored_tag(entry),
        )


def _stored_tag(entry: Mapping[str, Any]) -> str:
    return f"{entry.get('ETag') or entry.get('etag') or _seconds(entry)}-{entry['size']}"


def _seconds(entry: Mapping[str, Any]) -> float:
    """Modification time of an object in seconds since the epoch; 0 if its store gives none."""
    for name in ("LastModified", "mtime", "last_modified", "updated", "created"):
        value = entry.get(name)
        if isinstance(value, datetime.datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return 0.0
