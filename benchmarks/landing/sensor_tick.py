"""Cost of a tick of each sensor with many old partitions, beside the same tick with few.

    python -m benchmarks.landing.sensor_tick --days 10 3650 --ticks 200

For each number of days a Dagster instance on SQLite and both landing zones are made, which is not
measured: every day has a file of customers and one of outcomes, its assets are materialized, and
every check was evaluated on it. The first ticks of each sensor, with an empty cursor, ask
for every day; later ones find nothing new. Those are measured, each store in turn, so that a busy
moment of the machine falls on all of them. A tick is the sensor's function and what it reads; the
daemon's own work is not in it. `--failed` of the latest days failed their drift checks, so that the
retrain sensor has something to weigh.
"""

import argparse
import datetime
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from creditrisk_assets.defs.metadata import record
from creditrisk_assets.monitoring.day_records import (
    BatchRecord,
    DriftRecord,
    PerformanceRecord,
    ScoresRecord,
)
from creditrisk_assets.policy import Policy, ReportLimits
from creditrisk_assets.scoring.bundle_store import BUNDLES

COPIED = ("event", "evaluation_event", "partition")
"""Columns of Dagster's tables that name a day."""

PERFORMANCE = PerformanceRecord(
    model_version="1",
    decisions=500,
    matured=500,
    pending=0,
    missing=0,
    figures={
        "rows": 500,
        "bads": 110,
        **dict.fromkeys(("bad_rate", "mean_pd"), 0.22),
        "pd_variance": 0.15,
        **dict.fromkeys(("roc_auc", "expected_roc_auc"), 0.77),
        **dict.fromkeys(("roc_auc_standard_error", "expected_roc_auc_standard_error"), 0.02),
    },
)
"""A day whose outcomes are as expected."""

DRIFT = DriftRecord(
    model_version="1",
    rows=500,
    score_psi=0.01,
    score_psi_judged=0.01,
    score_psi_threshold=0.02,
    drifted=(),
)

ASKS_ANEW = "retrain_on_drift"
"""The sensor that remembers its answer until something has happened; it is measured both ways."""

TODAY = datetime.datetime.now(datetime.UTC).date()


def main() -> None:
    """Make the stores, measure, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--days",
        type=int,
        nargs="+",
        default=[10, 3650],
        help="old partitions; the first is what others are compared with",
    )
    parser.add_argument(
        "--ticks", type=int, default=200, help="measured ticks of each sensor and store"
    )
    parser.add_argument(
        "--failed", type=int, default=5, help="latest days whose drift checks failed"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the stores are made; by default the system's temporary folder",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the stores in the folder, and use those that are there",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        home = options.folder / "stores" if options.keep else Path(name)
        champion = champion_metadata(home / "champion")
        stores = [Store(home / str(days), days, options.failed, champion) for days in options.days]
        time.sleep(3.5)  # a zone that changed a moment ago is looked at whole
        for sensor in stores[0].sensors:
            for store in stores:
                first = store.first_tick(sensor)
                print(
                    f"{sensor}: first tick of {store.days:,} days took {first[1] * 1e3:,.0f} ms "
                    f"and asked for {first[0]:,} runs"
                )
        print(f"{'sensor':<26}{'days':>7}{'median':>11}{'95 %':>11}{'ratio':>8}{'cursor':>12}")
        for sensor, anew in [*((name, False) for name in stores[0].sensors), (ASKS_ANEW, True)]:
            times: dict[int, list[float]] = {store.days: [] for store in stores}
            for _ in range(options.ticks):
                for store in stores:
                    times[store.days].append(store.tick(sensor, anew))
            bare = statistics.median(times[options.days[0]])
            for store in stores:
                median = statistics.median(times[store.days])
                worst = statistics.quantiles(times[store.days], n=20)[-1]
                size = len(store.cursors.get(sensor) or "")
                times_told = f"{median * 1e3:>8.2f} ms{worst * 1e3:>8.2f} ms{median / bare:>7.2f}x"
                name = f"{sensor}, anew" if anew else sensor
                print(f"{name:<26}{store.days:>7,}{times_told}{size:>10,} B")


class Store:
    """An instance and landing zones with so many days behind them."""

    def __init__(self, home: Path, days: int, failed: int, champion: Mapping[str, Any]) -> None:
        from creditrisk_assets.defs import sensors
        from creditrisk_assets.settings import Settings
        from creditrisk_assets.simulation.stepped_loop import SteppedLoop

        self.days = days
        self.home = home
        self.sensors = {sensor.name: sensor for sensor in sensors.STARTING}
        self.cursors: dict[str, str | None] = {}
        made = (home / "made").exists()
        settings = Settings(data_dir=home / "data", settle_seconds=0)
        loop = SteppedLoop.in_folder(home, settings)
        self.instance, self.settings = loop.instance, settings
        if not made:
            started = time.perf_counter()
            shutil.copytree(home.parent / "champion" / "data" / BUNDLES, home / "data" / BUNDLES)
            self._make(failed, champion)
            (home / "made").touch()
            print(f"{days:,} days made in {time.perf_counter() - started:,.0f} s", flush=True)

    def first_tick(self, name: str) -> tuple[int, float]:
        """Ticks until nothing more is asked for; how many runs were, and how long it took."""
        total, started = 0, time.perf_counter()
        while requests := len(self._evaluate(name).run_requests or []):
            total += requests
        return total, time.perf_counter() - started

    def tick(self, name: str, anew: bool = False) -> float:
        """Seconds of one tick.

        Args:
            name: of the sensor.
            anew: as after something has happened, when the answer that it remembers does not stand.

        Raises:
            AssertionError: if it asks for a run.
        """
        if anew:
            self.cursors.pop(name, None)
        started = time.perf_counter()
        result = self._evaluate(name)
        seconds = time.perf_counter() - started
        assert not result.run_requests, (
            f"{name} asks for {len(result.run_requests)} runs though nothing is new"
        )
        return seconds

    def _evaluate(self, name: str) -> Any:
        import dagster as dg

        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(name),
            resources={"settings": self.settings},
            sensor_name=name,
        )
        result = self.sensors[name](context)
        assert isinstance(result, dg.SensorResult)
        if result.cursor is not None:
            self.cursors[name] = result.cursor
        return result

    def _make(self, failed: int, champion: Mapping[str, Any]) -> None:
        import dagster as dg

        from creditrisk_assets.defs.check_results import CAUSES

        days = [
            (TODAY - datetime.timedelta(days=back)).isoformat() for back in range(self.days, 0, -1)
        ]
        self._record(dg.AssetMaterialization("champion", metadata=dict(champion)))
        for day in days:
            for zone in (self.settings.landing_production, self.settings.landing_outcomes):
                (zone / day).mkdir(parents=True)
                (zone / day / "a.csv").write_text("id\n1\n")
        outcome = {days[0]: True, **({days[-1]: False} if failed else {})}
        for day, passed in outcome.items():
            shown: tuple[tuple[str, dict[str, Any]], ...] = (
                ("production_batch", record(BatchRecord(rows_in=500, rows=500, rejected=0))),
                ("production_scores", record(ScoresRecord(model_version="1", rows=500))),
                ("drift_report", record(DRIFT)),
                ("performance_report", record(PERFORMANCE)),
            )
            for asset, metadata in shown:
                self._record(dg.AssetMaterialization(asset, metadata=metadata, partition=day))
            for key in CAUSES:
                self._record(
                    dg.AssetCheckEvaluation(
                        asset_key=key.asset_key,
                        check_name=key.name,
                        passed=passed or key.asset_key.path[-1] != "drift_report",
                        partition=day,
                        severity=dg.AssetCheckSeverity.WARN,
                        metadata={
                            "summary": "made",
                            "observed": 0.01,
                            "threshold": 0.1,
                            "rows": 500,
                            "model_version": "1",
                        },
                    )
                )
        whole = len(days) - failed
        self._copy(days[0], days[1:whole])
        if failed:
            self._copy(days[-1], days[whole:-1])

    def _copy(self, source: str, days: list[str]) -> None:
        """Copy the event log's rows of a day to other days: Dagster would take 10 ms for
        each event.
        """
        file = self.home / "history" / "event_log.db"
        with closing(sqlite3.connect(file)) as connection, connection:
            for table in ("event_logs", "asset_check_executions"):
                columns = [
                    row[1]
                    for row in connection.execute(f"PRAGMA table_info({table})")
                    if row[1] != "id"
                ]
                rows = connection.execute(
                    f"SELECT {', '.join(columns)} FROM {table} WHERE partition = ?",  # noqa: S608
                    [source],
                ).fetchall()
                named = [place for place, column in enumerate(columns) if column in COPIED]
                copies = []
                for day in days:
                    for row in map(list, rows):
                        for place in named:
                            row[place] = row[place].replace(source, day)
                        copies.append(row)
                query = (
                    f"INSERT INTO {table} ({', '.join(columns)}) VALUES "  # noqa: S608
                    f"({', '.join('?' * len(columns))})"
                )
                connection.executemany(query, copies)

    def _record(self, event: Any) -> None:
        self.instance.report_runless_asset_event(event)


def champion_metadata(home: Path) -> Mapping[str, Any]:
    """Metadata of a champion's materialization; trained in a folder unless it is there already.

    Raises:
        RuntimeError: if it could not be trained.
    """
    from creditrisk_assets.defs import event_log
    from creditrisk_assets.settings import Settings
    from creditrisk_assets.simulation.stepped_loop import SteppedLoop

    trained = home.exists()
    loop = SteppedLoop.in_folder(
        home,
        Settings(
            data_dir=home / "data",
            policy=Policy(reports=ReportLimits(rows=0)),
            raw_data="simulated:4000",
        ),
    )
    if not trained and not loop.run("train").success:
        raise RuntimeError(f"no champion could be trained in {home}")
    event = loop.instance.get_latest_materialization_event(event_log.CHAMPION)
    if event is None or event.asset_materialization is None:
        raise RuntimeError(f"{home} has no champion; remove it")
    return event.asset_materialization.metadata


if __name__ == "__main__":
    main()
