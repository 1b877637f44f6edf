"""The champion in this process: loads and verifies its bundle, and replaces it without a pause."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import structlog

from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import Bundle, BundleError, ChampionRecord, load_bundle
from creditrisk_assets.scoring.runtime import DifferentDecisionError, Runtime
from creditrisk_assets.storage import StoredPath
from serving.inference.champion_file import ChampionFile, error_text
from serving.inference.champion_source import PastChampion

log = structlog.get_logger()

RETRY_SECONDS_LIMIT = 8.0
"""A bundle that failed is read again after 1, 2, 4 and so on up to this many seconds; another
bundle is read at once.
"""

FALLBACK_SUFFIX = "-fallback"
"""Suffix of the version in an answer of the fallback scorecard."""

WARM_UP_ROWS = (1, 8)
"""Rows of the warm-up runs: the first run of a shape plans its memory."""


@dataclass(frozen=True)
class LoadedChampion:
    """A champion's record and the runtime of its bundle and rule; an answer uses one of these
    throughout.

    `degraded` means that the champion's bundle cannot be loaded, and record and bundle are those of
    the scorecard of the same rows.
    """

    record: ChampionRecord
    runtime: Runtime
    degraded: bool = False

    @property
    def bundle(self) -> Bundle:
        return self.runtime.bundle

    @cached_property
    def reasons(self) -> dict[str, dict[str, str]]:
        """Reasons by their code, in the form of an answer."""
        return {
            reason.code: {"code": reason.code, "text": reason.text}
            for reason in self.bundle.manifest.reasons
        }


class Listener(Protocol):
    """Is called about the champion, in the thread that follows it."""

    def on_champion(self, champion: LoadedChampion) -> None:
        """A champion answers from now on."""

    def on_runtime(self, runtime: Runtime) -> None:
        """The champion is decided by this runtime from now on; called in any thread."""

    def on_refresh(self, problem: str | None) -> None:
        """The champion in force was read; `problem` if it could not be read or loaded."""

    def on_refused(self) -> None:
        """A champion could not be loaded or verified."""


@dataclass(frozen=True)
class _FailedLoad:
    """A record whose bundle could not be read or verified, the reason, and the next try."""

    record: ChampionRecord
    problem: str
    seconds: float
    retry_at: float


class ChampionHolder:
    """Holds the champion and follows it.

    A new champion is loaded and verified while the old one answers; then one reference is switched.
    A bundle that fails is reported, and the old one continues. Without an old one, a substitute
    answers, in this order: the copy of the same bundle, the bundle's fallback scorecard, the newest
    champion of the history that has a copy. The last one also answers while the champion in force
    cannot be read.

    Args:
        file: the champion on this machine's disk.
        portfolio: its contract must fit the champion.
        poll_seconds: time between two reads of the file.
        listeners: called about the champion.
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
        self.current: LoadedChampion | None = None  # answers now
        self.problem: str | None = None  # of the last read or load of the champion in force
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="champion", daemon=True)
        self._settled: ChampionRecord | None = None  # the record that answers by its own bundle
        self._failed_load: _FailedLoad | None = None
        self._listeners = tuple(listeners)
        self._switching = threading.Lock()

    @property
    def data_dir(self) -> StoredPath:
        """The data folder of this API's store."""
        return self._file.bundles.data_dir

    @property
    def why_none(self) -> str:
        """The reason for having no champion, and advice."""
        if self.problem is not None:
            return f"a champion could not be loaded ({self.problem})"
        return (
            "a champion does not exist yet; run `make train`, or launch the job train in the "
            "Dagster UI"
        )

    def history(self) -> list[PastChampion]:
        """The champions so far, newest first, as many as the source gives."""
        return self._file.history()

    def start(self) -> None:
        """Read the champion once, and then in the background."""
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """End the background thread."""
        self._stop.set()
        self._thread.join()

    def switch_runtime(self, before: Runtime, after: Runtime) -> None:
        """Decide by another runtime of the same bundle and rule, unless another champion answers
        already.
        """
        with self._switching:
            current = self.current
            if current is None or current.runtime is not before:
                return
            self.current = replace(current, runtime=after)
        for listener in self._listeners:
            listener.on_runtime(after)

    def refuse_code(self, runtime: Runtime, error: DifferentDecisionError) -> Runtime:
        """Decide by the graphs from now on, as a decision of the champion's code is wrong.

        Args:
            runtime: the one that decided.
            error: the difference.

        Returns:
            The runtime of the same bundle's graphs.
        """
        log.error("compiled_code_refused", problem=str(error))
        graphs = Runtime(runtime.bundle, runtime.rule, reason=str(error))
        self.switch_runtime(runtime, graphs)
        return graphs

    def refresh(self) -> None:
        """Read the champion in force once. An error sets `problem`; the loaded champion stays."""
        try:
            problem = self._load()
        except Exception as error:  # no error may end the background thread
            problem = error_text(error)
        if problem is not None and problem != self.problem:
            log.error("champion_not_loaded", problem=problem)
        self.problem = problem
        for listener in self._listeners:
            listener.on_refresh(problem)

    def _load(self) -> str | None:
        """Load the champion in force if it has changed.

        Returns:
            The problem, or None.
        """
        try:
            record = self._file.in_force()
        except Exception as error:
            if self.current is None:
                self._serve_newest_copy()
            return error_text(error)
        failed = self._failed_load
        if record is None or record == self._settled:
            self._failed_load = None
        elif failed is None or record != failed.record or time.monotonic() >= failed.retry_at:
            self._replace(record)
        return self._failed_load.problem if self._failed_load is not None else None

    def _replace(self, record: ChampionRecord) -> None:
        """Serve a champion by its own bundle or, if that fails, by the best substitute."""
        before = self._failed_load
        try:
            self._serve(LoadedChampion(record, self._own_runtime(record)))
        except Exception as error:
            delay = 2 * before.seconds if before is not None and before.record == record else 1.0
            seconds = min(delay, RETRY_SECONDS_LIMIT)
            self._settled = None
            self._failed_load = _FailedLoad(
                record, error_text(error), seconds, time.monotonic() + seconds
            )
            for listener in self._listeners:
                listener.on_refused()
            self._serve_substitute(record)
        else:
            self._settled, self._failed_load, self.problem = record, None, None
            self._store_copy(record)

    def _own_runtime(self, record: ChampionRecord) -> Runtime:
        """The runtime of a record. Its bundle is not read again if only the rule is new."""
        if (
            self.current is not None
            and self._settled is not None
            and self._settled.bundle_sha256 == record.bundle_sha256
        ):
            return self.current.runtime.under(record.rule)
        return self._load_stored(record)

    def _load_stored(self, record: ChampionRecord) -> Runtime:
        return self._load_verified(record, str(self._file.bundles.folder(record.bundle_sha256)))

    def _serve_substitute(self, record: ChampionRecord) -> None:
        """Serve the best substitute of a champion whose bundle cannot be read; an old champion
        continues.
        """
        current = self.current
        if current is not None and current.bundle.sha256 == record.bundle_sha256:
            if current.record != record:
                # The same bundle with the rule in force.
                self._serve(LoadedChampion(record, current.runtime.under(record.rule)))
            return
        if self._serve_copy(record) or (current is not None and not current.degraded):
            return
        self._serve_fallback(record)
        if self.current is None:
            self._serve_newest_copy()

    def _serve_copy(self, record: ChampionRecord) -> bool:
        """Serve the copy of a record's bundle, the same bytes, so not degraded.

        Returns:
            True if that is possible.
        """
        copy = self._file.copy_of(record.bundle_sha256)
        if copy is None:
            return False
        try:
            self._serve(LoadedChampion(record, self._load_verified(record, str(copy))))
        except Exception as error:
            log.error("copy_not_loaded", problem=error_text(error))
            return False
        return True

    def _serve_newest_copy(self) -> None:
        """Serve the newest champion of the history whose bundle has a copy."""
        any(self._serve_copy(past.record) for past in self._file.history())

    def _serve_fallback(self, record: ChampionRecord) -> None:
        if record.fallback is None:
            return
        fallback = fallback_record(record)
        current = self.current
        if current is not None and current.record == fallback:
            return
        try:
            same = current is not None and current.bundle.sha256 == fallback.bundle_sha256
            runtime = (
                current.runtime.under(fallback.rule)
                if current is not None and same
                else self._load_stored(fallback)
            )
            self._serve(LoadedChampion(fallback, runtime, degraded=True))
        except Exception as error:  # `problem` reports the champion's own failure
            log.error("fallback_not_loaded", problem=error_text(error))

    def _serve(self, champion: LoadedChampion) -> None:
        with self._switching:
            self.current = champion
        for listener in self._listeners:
            listener.on_champion(champion)
            listener.on_runtime(champion.runtime)
        record = champion.record
        log.info(
            "champion",
            version=record.model_version,
            bundle_sha256=record.bundle_sha256,
            degraded=champion.degraded,
        )

    def _store_copy(self, record: ChampionRecord) -> None:
        """Copy the champion's bundle for the next start. A failure does not affect the champion in
        this process.
        """
        try:
            self._file.store_copy(record.bundle_sha256)
        except Exception as error:
            log.error("copy_not_stored", problem=error_text(error))

    def _load_verified(self, record: ChampionRecord, location: str) -> Runtime:
        """Load a record's bundle, check its hash, golden requests and contract, and warm it up."""
        bundle = load_bundle(location, record.bundle_sha256)
        if not bundle.golden:
            raise BundleError(f"bundle {location} has no golden requests; valid: at least one")
        bundle.require_fits(self._portfolio)
        row = np.array([bundle.golden[0].raw], dtype=np.float32)
        for rows in WARM_UP_ROWS:
            bundle.decide(np.repeat(row, rows, axis=0), record.rule)
        return Runtime(bundle, record.rule)

    def _follow(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            self.refresh()


def fallback_record(record: ChampionRecord) -> ChampionRecord:
    """The record of the fallback scorecard: its bundle, and the rule in force, which applies to
    calibrated PDs and so to both. The version's suffix marks it as the fallback.

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
