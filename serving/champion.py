"""The champion in this process: which bundle the `champion` asset names, loaded, proven, and swapped without a pause."""

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
from serving.sources import PastRecord, Source, champion_in, champions_in

log = structlog.get_logger()

RETRY_SECONDS_LIMIT = 60.0
"""A bundle that was refused is read again after 1, 2, 4 and so on up to this many seconds; another one at once."""

WARM_UP_ROWS = (1, 8)
"""Runs of these many rows before a bundle answers: the first run of a shape plans its memory."""


@dataclass(frozen=True)
class LoadedChampion:
    """A champion's record and its bundle; answers are made from one of these, whole.

    `degraded` says that the bundle is not the champion's own, but the scorecard of the same rows, for as long as the champion's
    cannot be loaded. The record is then the scorecard's.
    """

    record: ChampionRecord
    bundle: Bundle
    degraded: bool = False

    @cached_property
    def reasons(self) -> dict[str, dict[str, str]]:
        """Each reason by its code, as answers have it."""
        return {reason.code: {"code": reason.code, "text": reason.text} for reason in self.bundle.manifest.reasons}


class Watcher(Protocol):
    """Somebody who looks on, in the thread that follows the champion."""

    def serving(self, champion: LoadedChampion) -> None:
        """A champion answers from now on."""

    def looked(self, problem: str | None) -> None:
        """The champion in force was looked for: why it could not be read or loaded, or None."""

    def refused(self) -> None:
        """A champion could not be loaded or proven."""


class ChampionHolder:
    """Holds the champion and follows it.

    A new champion is loaded and proven beside the old one, then one reference is switched. A bundle that cannot be proven is
    reported and the old one goes on; with no old one, its fallback scorecard answers.

    Args:
        source: where the record is read.
        portfolio: whose contract the champion must be able to answer on.
        poll_seconds: how often.
        watchers: who looks on.
    """

    def __init__(self, source: Source, portfolio: Portfolio, poll_seconds: float, watchers: Sequence[Watcher] = ()) -> None:
        self._source = source
        self._portfolio = portfolio
        self._poll_seconds = poll_seconds
        self._current: LoadedChampion | None = None
        self._problem: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="champion", daemon=True)
        self._refused: ChampionRecord | None = None
        self._retry_at = self._retry_seconds = 0.0
        self._watchers = tuple(watchers)

    @property
    def current(self) -> LoadedChampion | None:
        """The champion that answers now."""
        return self._current

    @property
    def problem(self) -> str | None:
        """Why the champion in force could not be read or loaded, or None."""
        return self._problem

    @property
    def why_none(self) -> str:
        """Why there is no champion, and what to do."""
        why = f"could not be loaded ({self._problem})" if self._problem else "does not exist yet"
        return f"a champion {why}; run `make train`, or launch the job train in the Dagster UI"

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
        """Look once. Whatever goes wrong is kept in `problem`; the champion that is loaded stays."""
        try:
            record = champion_in(self._source)
            if record is None or self._is_served(record):
                self._problem = self._refused = None
            elif record != self._refused or time.monotonic() >= self._retry_at:
                self._try(record)
                self._problem = self._refused = None
        except Exception as error:  # the boundary of the background thread: nothing may end it
            problem = f"{type(error).__name__}: {error}"
            if problem != self._problem:
                log.error("champion_not_loaded", problem=problem)
            self._problem = problem
        for watcher in self._watchers:
            watcher.looked(self._problem)

    def _try(self, record: ChampionRecord) -> None:
        try:
            self._serve(self._loaded(record))
        except Exception:
            again = min(2 * self._retry_seconds, RETRY_SECONDS_LIMIT) if record == self._refused else 1.0
            self._refused, self._retry_seconds, self._retry_at = record, again, time.monotonic() + again
            for watcher in self._watchers:
                watcher.refused()
            raise

    def _is_served(self, record: ChampionRecord) -> bool:
        current = self._current
        return current is not None and not current.degraded and current.record == record

    def _serve(self, champion: LoadedChampion) -> None:
        self._current = champion
        for watcher in self._watchers:
            watcher.serving(champion)
        record = champion.record
        log.info("champion", version=record.model_version, bundle_sha256=record.bundle_sha256, degraded=champion.degraded)

    def _loaded(self, record: ChampionRecord) -> LoadedChampion:
        current = self._current
        if current is not None and current.bundle.sha256 == record.bundle_sha256:
            return LoadedChampion(record, current.bundle)
        try:
            return LoadedChampion(record, self._proven(record))
        except Exception:
            if record.fallback is not None and current is None:
                self._serve_fallback(record)
            raise

    def _serve_fallback(self, record: ChampionRecord) -> None:
        fallback = fallback_record(record)
        try:
            self._serve(LoadedChampion(fallback, self._proven(fallback), degraded=True))
        except Exception as error:  # the champion's own problem is the one to be reported
            log.error("fallback_not_loaded", problem=f"{type(error).__name__}: {error}")

    def _proven(self, record: ChampionRecord) -> Bundle:
        """The bundle of a record: hash and golden requests checked, fitting the contract, warm."""
        bundle = load_bundle(record.artifact_uri, record.bundle_sha256)
        if not bundle.golden:
            raise BundleError(f"bundle {record.artifact_uri} has no golden requests; valid: at least one")
        bundle.require_fits(self._portfolio)
        row = np.array([bundle.golden[0].raw], dtype=np.float32)
        for rows in WARM_UP_ROWS:
            bundle.decide(np.repeat(row, rows, axis=0), record.rule)
        return bundle

    def _follow(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            self.refresh()


def fallback_record(record: ChampionRecord) -> ChampionRecord:
    """The fallback scorecard as a record of its own: its bundle, and the rule in force, which is about calibrated PDs and so
    holds for both. Its version says that it is not the champion itself.

    Raises:
        ValueError: if the champion has no fallback.
    """
    if record.fallback is None:
        raise ValueError(f"version {record.model_version} has no fallback; valid: one whose model is not the scorecard itself")
    return record.model_copy(
        update={
            "artifact_uri": record.fallback.artifact_uri,
            "bundle_sha256": record.fallback.bundle_sha256,
            "model_version": f"{record.model_version}-fallback",
            "fallback": None,
        }
    )
