"""The champion in this process: which bundle the `champion` asset names, loaded, proven, and swapped without a pause."""

import datetime
import threading
from dataclasses import dataclass

import structlog
from dagster import AssetKey, AssetRecordsFilter, DagsterInstance  # nowhere else outside the Dagster layer

from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import Bundle, BundleError, ChampionRecord, load_bundle

log = structlog.get_logger()

CHAMPION = AssetKey("champion")
HISTORY_LIMIT = 20
"""Materializations of `champion` that the page shows."""


@dataclass(frozen=True)
class LoadedChampion:
    """A champion's record and its bundle; answers are made from one of these, whole. `degraded` where it is the fallback's."""

    record: ChampionRecord
    bundle: Bundle
    degraded: bool = False


@dataclass(frozen=True)
class PastRecord:
    """What was said of the champion at a moment, UTC."""

    at: datetime.datetime
    record: ChampionRecord


class ChampionInDagster:
    """Reads the record of the champion from a Dagster instance's event log."""

    def __init__(self, instance: DagsterInstance) -> None:
        self._instance = instance
        self._history: list[PastRecord] = []
        self._seen: int | None = None
        self._reading = threading.Lock()

    @classmethod
    def of_environment(cls) -> "ChampionInDagster":
        """Over the instance that `DAGSTER_HOME` configures."""
        return cls(DagsterInstance.get())

    def record(self) -> ChampionRecord | None:
        """The latest materialization of `champion`, or None before the first."""
        event = self._instance.get_latest_materialization_event(CHAMPION)
        if event is None or event.asset_materialization is None:
            return None
        return ChampionRecord.from_metadata(dict(event.asset_materialization.metadata))

    def history(self) -> list[PastRecord]:
        """The latest materializations of `champion`, the newest first.

        One carries plots and takes some 3 ms to read, in which this process answers nobody, so each is read once.
        """
        with self._reading:
            new = AssetRecordsFilter(CHAMPION, after_storage_id=self._seen)
            records = self._instance.fetch_materializations(new, limit=HISTORY_LIMIT).records
            if records:
                self._seen = records[0].storage_id
            latest = [
                PastRecord(
                    datetime.datetime.fromtimestamp(record.timestamp, datetime.UTC),
                    ChampionRecord.from_metadata(dict(record.asset_materialization.metadata)),
                )
                for record in records
                if record.asset_materialization is not None
            ]
            self._history = [*latest, *self._history][:HISTORY_LIMIT]
            return self._history


class ChampionHolder:
    """Holds the champion and follows it.

    A new champion is loaded and proven beside the old one, then one reference is switched. A bundle that cannot be proven is
    reported and the old one goes on.

    Args:
        source: where the record is read.
        portfolio: whose contract the champion must be able to answer on.
        poll_seconds: how often.
    """

    def __init__(self, source: ChampionInDagster, portfolio: Portfolio, poll_seconds: float) -> None:
        self._source = source
        self._portfolio = portfolio
        self._poll_seconds = poll_seconds
        self._current: LoadedChampion | None = None
        self._problem: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="champion", daemon=True)

    @property
    def current(self) -> LoadedChampion | None:
        """The champion that answers now."""
        return self._current

    @property
    def problem(self) -> str | None:
        """Why the champion in force could not be read or loaded, or None."""
        return self._problem

    def history(self) -> list[PastRecord]:
        """What was said of the champion so far, the newest first, at most `HISTORY_LIMIT`."""
        return self._source.history()

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
            record = self._source.record()
            if record is None or (self._current is not None and self._current.record == record):
                self._problem = None
                return
            self._current = self._loaded(record)
            self._problem = None
            log.info("champion", version=record.model_version, bundle_sha256=record.bundle_sha256)
        except Exception as error:  # the boundary of the background thread: nothing may end it
            problem = f"{type(error).__name__}: {error}"
            if problem != self._problem:
                log.error("champion_not_loaded", problem=problem)
            self._problem = problem

    def _loaded(self, record: ChampionRecord) -> LoadedChampion:
        current = self._current
        if current is not None and current.bundle.sha256 == record.bundle_sha256:
            return LoadedChampion(record, current.bundle)
        bundle = load_bundle(record.artifact_uri, record.bundle_sha256)
        if not bundle.golden:
            raise BundleError(f"bundle {record.artifact_uri} has no golden requests; valid: at least one")
        bundle.require_fits(self._portfolio)
        return LoadedChampion(record, bundle)

    def _follow(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            self.refresh()
