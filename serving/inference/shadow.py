"""Shadow mode: the challenger scores the customers that the champion has decided on, off the
request path.

Decisions are handed over when they are on the disk and their answers have left. A thread scores
them some at a time: one run for a quarter of a second's customers costs a fraction of what as many
runs would. When it cannot follow, customers are dropped and counted; nobody waits.
"""

import os
import sys
import threading
import time
from collections import deque
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from creditrisk_assets.decisions.codec import Codec
from creditrisk_assets.decisions.log import SegmentWriter, new_name
from creditrisk_assets.decisions.shadow_log import ShadowHeader, line_of
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.portfolio.encoding import record_of
from creditrisk_assets.scoring.bundle import Bundle
from creditrisk_assets.scoring.bundle_store import BundleStore
from serving.inference.champion_holder import LoadedChampion
from serving.inference.champion_source import (
    HISTORY_LIMIT,
    Contender,
    Source,
    champions_in,
    contender_in,
)
from serving.inference.decider import Group
from serving.ops.metrics import Metrics

log = structlog.get_logger()

FloatArray = NDArray[np.float64]

TOGETHER_SECONDS = 0.25
LOOK_SECONDS = 5.0
AGAIN_SECONDS = 60.0
"""When a challenger that could not be loaded is tried again; another one at the next look."""

WAITING_ROWS_LIMIT = 65_536
"""About 10 MB; a challenger that is so far behind will not catch up."""

ROWS_AT_ONCE = 4_096
NICENESS = 19
"""The least that a thread can ask for: where a core is short, answers come first."""


class _Decided(NamedTuple):
    """Rows of one group."""

    champion: LoadedChampion
    day: str
    ids: list[str]
    raw: NDArray[np.float32]
    probability: FloatArray


class _Challenger(NamedTuple):
    """A contender that is not the champion, and its bundle."""

    contender: Contender
    bundle: Bundle

    def probability(self, raw: NDArray[np.float32], champion: Bundle) -> FloatArray:
        """PD of each row; NaN where the challenger cannot score them."""
        try:
            if (
                self.bundle.manifest.inputs != champion.manifest.inputs
            ):  # made by another state of the contract
                raw = self.bundle.encoder(
                    [record_of(row, champion.manifest.inputs) for row in raw.tolist()]
                )
            return self.bundle.score(raw).default_probability
        except (
            Exception
        ) as error:  # whatever it is: the gate is to know that these could not be scored
            log.error(
                "shadow_not_scored",
                version=self.contender.model_version,
                error=f"{type(error).__name__}: {error}",
            )
            return np.full(len(raw), np.nan)


class Shadow:
    """Follows the challenger and lets it score. It looks on at the decider.

    The challenger is the model registered last, unless it is champion or was: one that was taken
    out of force is not judged again, while one that was only refused may be.

    Args:
        source: where champion and contenders are read.
        portfolio: whose contract the challenger must be able to answer on.
        bundles: where the bundles of this API's store are.
        shadow_log: where its PDs go.
        metrics: what counts.
    """

    def __init__(
        self,
        source: Source,
        portfolio: Portfolio,
        bundles: BundleStore,
        shadow_log: "ShadowLog",
        metrics: Metrics,
    ) -> None:
        self._source = source
        self._portfolio = portfolio
        self._bundles = bundles
        self._log = shadow_log
        self._metrics = metrics
        self._challenger: _Challenger | None = None
        self._refused: tuple[Contender, float] | None = None
        self._former: set[str] = set()
        self._looked_at = -LOOK_SECONDS
        self._problem: str | None = None
        self._waiting: deque[_Decided] = deque()
        self._rows_put = self._rows_done = 0  # each is written by one thread only
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Score what waits, finish the segment, end."""
        self._stop.set()
        self._thread.join()

    def decided(self, group: Group) -> None:
        """A group is on the disk and told; called in the event loop."""
        challenger, champion, rows = self._challenger, group.champion, len(group.ids)
        if challenger is None or champion.bundle.sha256 == challenger.bundle.sha256:
            return
        if self._rows_put - self._rows_done + rows > WAITING_ROWS_LIMIT:
            self._metrics.observe_shadow_dropped("too_many_wait", rows)
            return
        self._rows_put += rows
        self._waiting.append(
            _Decided(
                champion,
                group.header.day,
                group.ids,
                group.raw,
                group.decisions.default_probability,
            )
        )

    def not_written(self) -> None:
        """A group could not be brought to the disk: none of it was decided."""

    def _run(self) -> None:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        going_on = True
        while going_on:
            going_on = not self._stop.wait(TOGETHER_SECONDS)
            try:
                self._score_waiting()
                self._log.look_after()
            except Exception:  # nothing may end the thread
                log.exception("shadow_failed")
            if going_on:
                self._look()
        self._log.close()

    def _look(self) -> None:
        """Now and then: see who is challenger."""
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        try:
            wanted = self._wanted()
            known = self._challenger.contender if self._challenger is not None else None
            if wanted != known:
                self._challenger = None if wanted is None else self._loaded(wanted)
            self._problem = None
        except (
            Exception
        ) as error:  # the source's, or the bundle's; whoever is challenger already goes on
            problem = f"{type(error).__name__}: {error}"
            if problem != self._problem:
                log.error("challenger_not_loaded", problem=problem)
            self._problem = problem

    def _wanted(self) -> Contender | None:
        contender = contender_in(self._source)
        self._former |= {
            one.record.model_version
            for one in champions_in(self._source, 1 if self._former else HISTORY_LIMIT)
        }
        return None if contender is None or contender.model_version in self._former else contender

    def _loaded(self, contender: Contender) -> _Challenger | None:
        """The contender, proven; None while it is too early to try again."""
        if (
            self._refused is not None
            and self._refused[0] == contender
            and time.monotonic() < self._refused[1]
        ):
            return None
        self._challenger, self._refused = None, (contender, time.monotonic() + AGAIN_SECONDS)
        bundle = self._bundles.load(contender.bundle_sha256)
        bundle.require_fits(self._portfolio)
        self._refused = None
        log.info(
            "challenger", version=contender.model_version, bundle_sha256=contender.bundle_sha256
        )
        return _Challenger(contender, bundle)

    def _score_waiting(self) -> None:
        challenger = self._challenger
        waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
        rows = sum(len(one.ids) for one in waiting)
        try:
            for (_, day), alike in groupby(waiting, key=lambda one: (id(one.champion), one.day)):
                if challenger is not None:
                    self._score(challenger, day, list(alike))
        finally:
            self._rows_done += rows

    def _score(self, challenger: _Challenger, day: str, decided: list[_Decided]) -> None:
        champion = decided[0].champion
        ids = [one for some in decided for one in some.ids]
        raw = np.concatenate([some.raw for some in decided])
        told = np.concatenate([some.probability for some in decided])
        for start in range(0, len(ids), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            probability = challenger.probability(raw[part], champion.bundle)
            scored = int(np.isfinite(probability).sum())
            if self._log.write(
                day,
                champion.record.model_version,
                challenger.contender,
                line_of(ids[part], told[part], probability),
            ):
                self._metrics.observe_shadow(
                    challenger.contender.model_version, scored, len(probability) - scored
                )
            else:
                self._metrics.observe_shadow_dropped("not_written", len(probability))


class ShadowLog:
    """A sequence of shadow segments, each of one day, one champion and one challenger. For one
    thread.

    Args:
        folder: of the segments, on a disk of this machine.
        portfolio: name of the portfolio.
        codec: what payloads pass through.
        segment_bytes: a segment of this size is finished.
        segment_seconds: so is one that was begun so long ago.
    """

    def __init__(
        self, folder: Path, portfolio: str, codec: Codec, segment_bytes: int, segment_seconds: float
    ) -> None:
        self._folder = folder
        self._portfolio = portfolio
        self._codec = codec
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._segment: SegmentWriter | None = None
        self._about: tuple[str, str, Contender] | None = None
        self._begun = 0.0
        self._problem: str | None = None

    def write(self, day: str, champion_version: str, challenger: Contender, line: bytes) -> bool:
        """Write scores; whether that could be."""
        about = (day, champion_version, challenger)
        try:
            if self._segment is None or about != self._about:
                self.close()
                self._segment = SegmentWriter(
                    self._folder, self._header(*about), self._codec, durable=False
                )
                self._about, self._begun = about, time.monotonic()
            self._segment.append([line])
        except OSError as error:
            self.close()
            if str(error) != self._problem:
                log.error("shadow_unwritable", problem=str(error))
            self._problem = str(error)
            return False
        self._problem = None
        return True

    def look_after(self) -> None:
        """Finish a segment that is large or old enough, so that it is kept."""
        if self._segment is not None and (
            self._segment.size >= self._segment_bytes
            or time.monotonic() - self._begun > self._segment_seconds
        ):
            self.close()

    def close(self) -> None:
        """Finish the segment."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _header(self, day: str, champion_version: str, challenger: Contender) -> ShadowHeader:
        return ShadowHeader(
            name=new_name(),
            day=day,
            portfolio=self._portfolio,
            champion_version=champion_version,
            challenger_version=challenger.model_version,
            bundle_sha256=challenger.bundle_sha256,
        )
