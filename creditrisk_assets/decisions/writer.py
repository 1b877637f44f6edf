"""Writes decisions to the log: plans the segment of each, and syncs them to the disk."""

import datetime
import errno
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from creditrisk_assets.decisions.codec import Codec
from creditrisk_assets.decisions.log import SegmentHeader, SegmentWriter, new_name
from creditrisk_assets.scoring.bundle import ChampionRecord

log = structlog.get_logger()

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

PROBE_BYTES = 1 << 16
"""With less free space than this, some dozens of decisions, the log counts as unwritable."""


FINISH_REQUEST = "finish"
"""File beside the open segments; a change of it asks their processes to finish them."""


class LogUnwritable(RuntimeError):
    """Decisions cannot be written to the disk, so none is made; `full` is True if the disk is
    full.
    """

    def __init__(self, error: OSError) -> None:
        self.full = error.errno in FULL
        super().__init__(f"the decision log cannot be written: {error.strerror or error}")


class DecisionLog:
    """A sequence of segments, each of one day and one champion.

    One thread plans, without input or output. Writes follow the order of the plans.

    Args:
        folder: of the open segments, on a local disk.
        portfolio: name of the portfolio.
        codec: encodes payloads.
        segment_bytes: size of a finished segment.
        segment_seconds: age of a finished segment.
        keyed: True if it also takes decisions with idempotency keys.
    """

    def __init__(
        self,
        folder: Path,
        portfolio: str,
        codec: Codec,
        segment_bytes: int,
        segment_seconds: float,
        *,
        keyed: bool,
    ) -> None:
        self.problem: str | None = None
        self._folder = folder
        self._portfolio = portfolio
        self._codec = codec
        self._keyed = keyed
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._planned: SegmentHeader | None = None
        self._rows = 0
        self._finished: str | None = None
        self._failed: tuple[str, int] | None = None
        self._segment: SegmentWriter | None = None
        self._begun = 0.0
        self._request: str | None = None
        self._writing = threading.Lock()

    def plan(
        self, champion: ChampionRecord, day: datetime.date, rows: int, *, degraded: bool = False
    ) -> tuple[SegmentHeader, list[str]]:
        """Plan the next decisions: their segment, and their ids."""
        header = self._planned
        if header is None or not self._continues(header, champion, day, degraded):
            header = SegmentHeader(
                name=new_name(),
                day=day.isoformat(),
                portfolio=self._portfolio,
                champion=champion,
                degraded=degraded,
                keyed=self._keyed,
            )
            self._planned, self._rows = header, 0
        first, self._rows = self._rows, self._rows + rows
        return header, [header.decision_id(row) for row in range(first, first + rows)]

    def write(self, header: SegmentHeader, lines: Sequence[bytes]) -> float:
        """Write the decisions of a plan and sync them to the disk.

        Returns:
            Seconds that the disk took.

        Raises:
            LogUnwritable: if that fails; then none of them counts, and no other decision that is
                planned for the same segment.
        """
        start = time.perf_counter()
        with self._writing:
            self._write(header, lines)
        return time.perf_counter() - start

    def _write(self, header: SegmentHeader, lines: Sequence[bytes]) -> None:
        try:
            if self._failed is not None and header.name == self._failed[0]:
                raise OSError(self._failed[1], "decisions before these could not be written")
            segment = self._segment
            if segment is None or segment.header is not header:
                self.close()
                segment = self._segment = SegmentWriter(self._folder, header, self._codec)
                self._begun, self._request = time.monotonic(), _finish_request(self._folder)
            segment.append(lines)
        except OSError as error:
            # Row numbers of later plans follow these.
            self._failed = (header.name, error.errno or errno.EIO)
            self._finished = header.name
            self.close()
            raise self._unwritable(error) from error
        self.problem = None
        if segment.size >= self._segment_bytes:
            self._finished = header.name

    def maintain(self) -> None:
        """Finish a segment that has been open for long enough, so that quiet hours are archived
        too, or that is asked for; check the free space, and after a problem retry a write before
        the next request.
        """
        with self._writing:
            segment = self._segment
            if segment is not None and segment.header.name == self._finished:
                self.close()  # nothing more has been planned for it for at least a second
            elif segment is not None and (
                time.monotonic() - self._begun > self._segment_seconds
                or _finish_request(self._folder) != self._request
            ):
                self._finished = segment.header.name
            if self.problem is not None:
                probe = self._folder / f"{new_name()}.probe"
                try:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    probe.write_bytes(bytes(PROBE_BYTES))
                    self.problem = None
                    log.info("decision_log_writable")
                except OSError as error:
                    self._unwritable(error)
                finally:
                    probe.unlink(missing_ok=True)
            elif self._free_bytes() < PROBE_BYTES:
                self._unwritable(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def release_segment(self) -> None:
        """Close the segment so that other processes may seal it; the next plan starts a new one."""
        if self._segment is not None:
            self._finished = self._segment.header.name
        self.close()

    def close(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _continues(
        self, header: SegmentHeader, champion: ChampionRecord, day: datetime.date, degraded: bool
    ) -> bool:
        return (
            header.name != self._finished
            and header.champion is champion
            and header.degraded == degraded
            and header.day == day.isoformat()
        )

    def _free_bytes(self) -> int:
        """Free space for this process."""
        folder = next(path for path in (self._folder, *self._folder.parents) if path.exists())
        disk = os.statvfs(folder)
        return disk.f_frsize * (disk.f_bfree if os.geteuid() == 0 else disk.f_bavail)

    def _unwritable(self, error: OSError) -> LogUnwritable:
        unwritable = LogUnwritable(error)
        if self.problem != str(unwritable):
            log.error("decision_log_unwritable", problem=str(unwritable))
        self.problem = str(unwritable)
        return unwritable


def request_finish(folder: Path) -> None:
    """Ask the processes that write the open segments of a folder to finish them. They do so within
    some seconds.

    Raises:
        OSError: if the folder cannot be written.
    """
    unnamed = folder / f"{new_name()}.request"
    unnamed.write_text(f"{new_name()}\n", encoding="ascii")
    unnamed.replace(folder / FINISH_REQUEST)


def _finish_request(folder: Path) -> str | None:
    """The last request, or None if there is none or the disk cannot be read; then writes fail, too,
    and say so.
    """
    try:
        return (folder / FINISH_REQUEST).read_text(encoding="ascii")
    except OSError:
        return None
