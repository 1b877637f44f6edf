"""The champion in this process: its bundle, loaded, proven, and replaced without a pause."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import structlog

from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import Bundle, BundleError, ChampionRecord, load_bundle
from creditrisk_assets.storage import StoredPath
from serving.inference.champion_file import ChampionFile, error_text
from serving.inference.champion_source import PastChampion

log = structlog.get_logger()

RETRY_SECONDS_LIMIT = 8.0
"""A refused bundle is read again after 1, 2, 4 and so on up to this many seconds, so that one that
comes back answers soon; another bundle is read at once.
"""

FALLBACK_SUFFIX = "-fallback"
"""Ends the version of an answer by the fallback scorecard."""

WARM_UP_ROWS = (1, 8)
"""Rows of the runs before a bundle answers: the first run of a shape plans its memory."""


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


class Listener(Protocol):
    """Hears of the champion, in the thread that follows it."""

    def on_champion(self, champion: LoadedChampion) -> None:
        """A champion answers from now on."""

    def on_refresh(self, problem: str | None) -> None:
        """The champion in force was read; the reason if it could not be read or loaded."""

    def on_refused(self) -> None:
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
    that cannot be proven is reported and the old one goes on. Without an old one there answers, in
    this order: the copy of the same bundle, the bundle's fallback scorecard, the newest champion of
    the history that has a copy. The last of these answers also while the champion in force cannot
    be read.

    Args:
        file: the champion on this machine's disk.
        portfolio: the contract that the champion must be able to answer on.
        poll_seconds: time between two reads of the file.
        listeners: hear of the champion.
    """

    def __init__(
        self,
        file: ChampionFile,
        portfolio: Portfolio,
        poll_seconds: float,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._file = file
        self._portfolio = portfolio
        self._poll_seconds = poll_seconds
        self._current: LoadedChampion | None = None
        self._problem: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="champion", daemon=True)
        self._settled: ChampionRecord | None = None  # answers by the bundle that its record names
        self._refused: _Refused | None = None
        self._listeners = tuple(listeners)

    @property
    def current(self) -> LoadedChampion | None:
        """The champion that answers now."""
        return self._current

    @property
    def data_dir(self) -> StoredPath:
        """The data folder of this API's store."""
        return self._file.bundles.data_dir

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

    def history(self) -> list[PastChampion]:
        """The champions so far, the newest first, as many as the source gives."""
        return self._file.history()

    def start(self) -> None:
        """Look once, then go on looking in the background."""
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join()

    def refresh(self) -> None:
        """Read the champion in force once. An error is kept in `problem`; the champion that is
        loaded stays.
        """
        try:
            problem = self._load()
        except Exception as error:  # the boundary of the background thread: nothing may end it
            problem = error_text(error)
        if problem is not None and problem != self._problem:
            log.error("champion_not_loaded", problem=problem)
        self._problem = problem
        for listener in self._listeners:
            listener.on_refresh(problem)

    def _load(self) -> str | None:
        """Load the champion in force if it is another one; the problem, if there is one."""
        try:
            record = self._file.in_force()
        except Exception as error:
            if self._current is None:
                self._serve_last_known()
            return error_text(error)
        refused = self._refused
        if record is None or record == self._settled:
            self._refused = None
        elif refused is None or record != refused.record or time.monotonic() >= refused.again_at:
            self._take(record)
        return self._refused.problem if self._refused is not None else None

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
            self._refused = _Refused(record, error_text(error), seconds, time.monotonic() + seconds)
            for listener in self._listeners:
                listener.on_refused()
            self._stand_in_for(record)
        else:
            self._settled, self._refused, self._problem = record, None, None
            self._store_copy(record)

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
        return self._proven(record, str(self._file.bundles.folder(record.bundle_sha256)))

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
        """Answer by the copy of a record's bundle; whether that is possible. It is the same bytes,
        so nothing is degraded.
        """
        copy = self._file.copy_of(record.bundle_sha256)
        if copy is None:
            return False
        try:
            self._serve(LoadedChampion(record, self._proven(record, str(copy))))
        except Exception as error:
            log.error("copy_not_loaded", problem=error_text(error))
            return False
        return True

    def _serve_last_known(self) -> None:
        """Answer by the newest champion of the history whose bundle has a copy."""
        any(self._serve_copy(past.record) for past in self._file.history())

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
            log.error("fallback_not_loaded", problem=error_text(error))

    def _serve(self, champion: LoadedChampion) -> None:
        self._current = champion
        for listener in self._listeners:
            listener.on_champion(champion)
        record = champion.record
        log.info(
            "champion",
            version=record.model_version,
            bundle_sha256=record.bundle_sha256,
            degraded=champion.degraded,
        )

    def _store_copy(self, record: ChampionRecord) -> None:
        """Copy the champion's bundle for the next start. A failure takes nothing from the champion
        that answers now.
        """
        try:
            self._file.store_copy(record.bundle_sha256)
        except Exception as error:
            log.error("copy_not_stored", problem=error_text(error))

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
