"""What the source says of the champion, in a file of this machine.

One process beside the workers reads the source and publishes what it says; the workers read the
file. So a worker needs neither Dagster nor its database, a source that hangs holds up nobody who
answers, and all workers see the same.
"""

import os
import time
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.storage import replacing
from serving.inference.champion_source import (
    CHAMPION,
    CONTENDERS,
    HISTORY_LIMIT,
    Contender,
    Materialization,
    Source,
    SourceError,
)

log = structlog.get_logger()

STALE_SECONDS = 10.0
"""A file in which nobody has written for so long says nothing any more."""

START_SECONDS = 15.0
"""So long a worker waits for the first word of the process that reads the source, which starts at
the same time.
"""

LOOK_SECONDS = 0.02

WANTED = {*ChampionRecord.model_fields, *Contender.model_fields}
"""Values of a materialization's metadata that the API reads."""


class Published(BaseModel):
    """What was read of the source.

    Attributes:
        problem: why it could not be read, or None.
        materializations: of each asset that the API reads, the newest first; none if there is a
            problem.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    problem: str | None = None
    materializations: dict[str, list[Materialization]] = {}


class Publisher:
    """Reads a source and publishes what it says.

    Args:
        source: where materializations are.
        file: on a disk of this machine.
    """

    def __init__(self, source: Source, file: Path) -> None:
        self._source = source
        self._file = file
        self._published: Published | None = None
        self._told: str | None = None

    def publish(self) -> None:
        """Read once. What goes wrong with the source is published, too; a file that cannot be
        written goes stale.
        """
        said = self._read()
        problem = said.problem
        try:
            if said == self._published and self._file.exists():
                os.utime(self._file)
            else:
                with replacing(self._file) as file:
                    file.write(said.model_dump_json().encode())
        except OSError as error:
            problem = f"it cannot be published: {error}"
        else:
            self._published = said
        if problem is not None and problem != self._told:
            log.error("champion_not_published", problem=problem)
        self._told = problem

    def _read(self) -> Published:
        try:
            found = {
                asset: self._source.materializations(asset, HISTORY_LIMIT)
                for asset in (CHAMPION, *CONTENDERS)
            }
        except Exception as error:  # the source's, whatever it is
            problem = (
                str(error) if isinstance(error, SourceError) else f"{type(error).__name__}: {error}"
            )
            return Published(problem=problem)
        return Published(
            materializations={
                asset: [_wanted(one) for one in some] for asset, some in found.items()
            }
        )


class PublishedSource:
    """What was published of a source, as a source.

    Args:
        file: that a `Publisher` in another process writes.
        start_seconds: how long to wait for its first word.
    """

    def __init__(self, file: Path, start_seconds: float = START_SECONDS) -> None:
        self._file = file
        self._wait_until = time.monotonic() + start_seconds

    def materializations(self, asset: str, limit: int) -> list[Materialization]:
        """The latest ones of an asset, the newest first.

        Raises:
            SourceError: if the source could not be read, or nobody has read it for a while.
        """
        published = self._read()
        if published.problem is not None:
            raise SourceError(published.problem)
        return published.materializations.get(asset, [])[:limit]

    def _read(self) -> Published:
        while (content := self._fresh()) is None and time.monotonic() < self._wait_until:
            time.sleep(LOOK_SECONDS)
        self._wait_until = 0.0
        if content is None:
            unread = f"which champion is in force was not read for {STALE_SECONDS:g} s"
            raise SourceError(
                f"{unread}; `creditrisk serve` runs the process that does, beside the API"
            )
        try:
            return Published.model_validate_json(content)
        except ValidationError as error:
            raise SourceError(f"{self._file} cannot be read: {error}") from error

    def _fresh(self) -> bytes | None:
        try:
            with self._file.open("rb") as file:
                seconds_since = time.time() - os.fstat(file.fileno()).st_mtime
                # Written in the future: the clock was put back, and nobody writes any more.
                return file.read() if abs(seconds_since) < STALE_SECONDS else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SourceError(f"{self._file} cannot be read: {error}") from error


def _wanted(one: Materialization) -> Materialization:
    return Materialization(
        one.at, {name: value for name, value in one.metadata.items() if name in WANTED}
    )
