"""The champion in this process: which bundle the `champion` asset names, loaded, proven, and
swapped without a pause.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import structlog

from creditrisk_assets.governance.ledger import Ledger
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import Bundle, BundleError, ChampionRecord, load_bundle
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.storage import StoredPath
from serving.inference.champion_source import (
    PastRecord,
    Source,
    SourceError,
    champion_in,
    champions_in,
)
from serving.inference.last_known import LastKnown

log = structlog.get_logger()

RETRY_SECONDS_LIMIT = 8.0
"""A bundle that was refused is read again after 1, 2, 4 and so on up to this many seconds, for one
that comes back should answer soon; another one at once.
"""

FALLBACK_SUFFIX = "-fallback"
"""What the version of an answer by the fallback scorecard ends with."""

WARM_UP_ROWS = (1, 8)
"""Runs of these many rows before a bundle answers: the first run of a shape plans its memory."""


@dataclass(frozen=True)
class LoadedChampion:
    """A champion's record and its bundle; answers are made from one of these, whole.

    `degraded` says that the bundle is not the champion's own, but the scorecard of the same rows,
    for as long as the champion's cannot be loaded. The record is then the scorecard's.
    """

    record: ChampionRecord
    bundle: Bundle
    degraded: bool = False

    @cached_property
    def reasons(self) -> dict[str, dict[str, str]]:
        """Each reason by its code, as answers have it."""
        return {
            reason.code: {"code": reason.code, "text": reason.text}
            for reason in self.bundle.manifest.reasons
        }


class Watcher(Protocol):
    """Somebody who looks on, in the thread that follows the champion."""

    def serving(self, champion: LoadedChampion) -> None:
        """A champion answers from now on."""

    def looked(self, problem: str | None) -> None:
        """The champion in force was looked for: why it could not be read or loaded, or None."""

    def refused(self) -> None:
        """A champion could not be loaded or proven."""


@dataclass(frozen=True)
class _Refused:
    """A record whose own bundle could not be read or proven, why, and when it is tried again."""

    record: ChampionRecord
    problem: str
    seconds: float
    again_at: float


class ChampionHolder:
    """Holds the champion and follows it.

    A new champion is loaded and proven beside the old one, then one reference is switched. A bundle
    that cannot be proven is reported and the old one goes on. With no old one there answers, in
    this order: the copy of the same bundle, the bundle's fallback scorecard, the last known
    champion. The last known champion answers too while the source cannot be read.

    Args:
        source: where the record is read.
        portfolio: whose contract the champion must be able to answer on.
        bundles: where the bundles of this API's store are.
        ledger: of this API's store; a champion that it does not have is another store's and does
            not answer.
        last_known: where the champion that answers is kept for the next start.
        poll_seconds: how often the source is read.
        watchers: who looks on.
    """

    def __init__(
        self,
        source: Source,
        portfolio: Portfolio,
        bundles: BundleStore,
        ledger: Ledger,
        last_known: LastKnown,
        poll_seconds: float,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self._source = source
        self._portfolio = portfolio
        self._bundles = bundles
        self._ledger = ledger
        self._recorded: ChampionRecord | None = None  # the last one that was found in the ledger
        self._last_known = last_known
        self._poll_seconds = poll_seconds
        self._current: LoadedChampion | None = None
        self._problem: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="champion", daemon=True)
        self._settled: ChampionRecord | None = (
            None  # the one that answers, by the bundle that its record names
        )
        self._refused: _Refused | None = None
        self._watchers = tuple(watchers)

    @property
    def current(self) -> LoadedChampion | None:
        """The champion that answers now."""
        return self._current

    @property
    def data_dir(self) -> StoredPath:
        """The data folder of this API's store."""
        return self._bundles.data_dir

    @property
    def problem(self) -> str | None:
        """Why the champion in force could not be read or loaded, or None."""
        return self._problem

    @property
    def why_none(self) -> str:
        """Why there is no champion, and what to do."""
        if self._problem is not None:
            return f"a champion could not be loaded ({self._problem})"
        return (
            "a champion does not exist yet; run `make train`, or launch the job train in the "
            "Dagster UI"
        )

    def history(self) -> list[PastRecord]:
        """What was said of the champion so far, the newest first, at most `HISTORY_LIMIT`.

        Raises:
            SourceError: if it cannot be read.
        """
        return champions_in(self._source)

    def start(self) -> None:
        """Look once, then go on looking in the background."""
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join()

    def refresh(self) -> None:
        """Look once. Whatever goes wrong is kept in `problem`; the champion that is loaded
        stays.
        """
        try:
            problem = self._looked()
        except Exception as error:  # the boundary of the background thread: nothing may end it
            problem = _said(error)
        if problem is not None and problem != self._problem:
            log.error("champion_not_loaded", problem=problem)
        self._problem = problem
        for watcher in self._watchers:
            watcher.looked(problem)

    def _looked(self) -> str | None:
        """Read which champion is in force and load it if it is another one; what the problem is, if
        there is one.
        """
        try:
            record = self._named()
        except Exception as error:
            if self._current is None:
                self._serve_last_known()
            return _said(error)
        refused = self._refused
        if record is None or record == self._settled:
            self._refused = None
        elif refused is None or record != refused.record or time.monotonic() >= refused.again_at:
            self._take(record)
        return self._refused.problem if self._refused is not None else None

    def _named(self) -> ChampionRecord | None:
        """The champion that the source names; None before the first.

        Raises:
            SourceError: if it cannot be read, or has forgotten that there was one.
            LedgerError: if the ledger does not have it, or cannot be read.
        """
        record = champion_in(self._source)
        if record is None and (self._current is not None or self._last_known.record() is not None):
            raise SourceError(
                "it names no champion, although there was one; valid: the store that the champion "
                "is recorded in"
            )
        if record is not None and record != self._recorded:
            self._ledger.require_recorded(record)
            self._recorded = record
        return record

    def _take(self, record: ChampionRecord) -> None:
        """Let a champion answer by its own bundle; if that cannot be, let the best that there is
        stand in.
        """
        before = self._refused
        try:
            self._serve(LoadedChampion(record, self._own_bundle(record)))
        except Exception as error:
            again = 2 * before.seconds if before is not None and before.record == record else 1.0
            seconds = min(again, RETRY_SECONDS_LIMIT)
            self._settled = None
            self._refused = _Refused(record, _said(error), seconds, time.monotonic() + seconds)
            for watcher in self._watchers:
                watcher.refused()
            self._stand_in_for(record)
        else:
            self._settled, self._refused, self._problem = record, None, None
            self._keep(record)

    def _own_bundle(self, record: ChampionRecord) -> Bundle:
        """The bundle of a record, not read again where only the rule is new."""
        if (
            self._current is not None
            and self._settled is not None
            and self._settled.bundle_sha256 == record.bundle_sha256
        ):
            return self._current.bundle
        return self._stored(record)

    def _stored(self, record: ChampionRecord) -> Bundle:
        return self._proven(record, str(self._bundles.folder(record.bundle_sha256)))

    def _stand_in_for(self, record: ChampionRecord) -> None:
        """Let answer what is nearest to a champion whose own bundle cannot be read; an old champion
        goes on.
        """
        current = self._current
        if current is not None and current.bundle.sha256 == record.bundle_sha256:
            if current.record != record:
                self._serve(
                    LoadedChampion(record, current.bundle)
                )  # the same bytes, by the rule in force
            return
        if self._serve_copy(record) or (current is not None and not current.degraded):
            return
        self._serve_fallback(record)
        if self._current is None:
            self._serve_last_known()

    def _serve_copy(self, record: ChampionRecord) -> bool:
        """Answer by the copy of a record's bundle; whether that could be. It is the same bytes, so
        nothing is degraded.
        """
        location = self._last_known.location(record.bundle_sha256)
        if location is None:
            return False
        try:
            self._serve(LoadedChampion(record, self._proven(record, location)))
        except Exception as error:
            log.error("copy_not_loaded", problem=_said(error))
            return False
        return True

    def _serve_last_known(self) -> None:
        record = self._last_known.record()
        if record is not None:
            self._serve_copy(record)

    def _serve_fallback(self, record: ChampionRecord) -> None:
        if record.fallback is None:
            return
        fallback = fallback_record(record)
        current = self._current
        if current is not None and current.record == fallback:
            return
        try:
            same = current is not None and current.bundle.sha256 == fallback.bundle_sha256
            bundle = current.bundle if current is not None and same else self._stored(fallback)
            self._serve(LoadedChampion(fallback, bundle, degraded=True))
        except Exception as error:  # the champion's own problem is the one to be reported
            log.error("fallback_not_loaded", problem=_said(error))

    def _serve(self, champion: LoadedChampion) -> None:
        self._current = champion
        for watcher in self._watchers:
            watcher.serving(champion)
        record = champion.record
        log.info(
            "champion",
            version=record.model_version,
            bundle_sha256=record.bundle_sha256,
            degraded=champion.degraded,
        )

    def _keep(self, record: ChampionRecord) -> None:
        """Keep the champion for the next start. That it cannot be kept takes nothing from the one
        that answers now.
        """
        try:
            self._last_known.keep(record)
        except Exception as error:
            log.error("last_known_not_kept", problem=_said(error))

    def _proven(self, record: ChampionRecord, location: str) -> Bundle:
        """A record's bundle from a location: hash and golden requests checked, fitting the
        contract, warm.
        """
        bundle = load_bundle(location, record.bundle_sha256)
        if not bundle.golden:
            raise BundleError(f"bundle {location} has no golden requests; valid: at least one")
        bundle.require_fits(self._portfolio)
        row = np.array([bundle.golden[0].raw], dtype=np.float32)
        for rows in WARM_UP_ROWS:
            bundle.decide(np.repeat(row, rows, axis=0), record.rule)
        return bundle

    def _follow(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            self.refresh()


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def fallback_record(record: ChampionRecord) -> ChampionRecord:
    """The fallback scorecard as a record of its own: its bundle, and the rule in force, which is
    about calibrated PDs and so holds for both. Its version says that it is not the champion itself.

    Raises:
        ValueError: if the champion has no fallback.
    """
    if record.fallback is None:
        raise ValueError(
            f"version {record.model_version} has no fallback; valid: one whose model is not the "
            "scorecard itself"
        )
    return record.model_copy(
        update={
            "artifact_uri": record.fallback.artifact_uri,
            "bundle_sha256": record.fallback.bundle_sha256,
            "model_version": f"{record.model_version}{FALLBACK_SUFFIX}",
            "fallback": None,
        }
    )
