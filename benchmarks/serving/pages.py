"""The monitoring page of years of days, beside a static file of the same API in the same run.

    python -m benchmarks.serving.pages --days 400

The status is synthetic: every figure of every day is there, with eight versions.
"""

import argparse
import datetime
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from creditrisk_assets.monitoring.loop_status import DayStatus, LoopStatus
from tests.support.loop import Loop, api

VERSIONS = 8
MEASURED = (
    "/static/page.css",
    "/monitoring",
    "/monitoring?from={first}",
    "/monitoring/days.csv?from={first}",
)


def synthetic_status(days: int) -> LoopStatus:
    """A status with some days up to 2026-06-01."""
    last = datetime.date(2026, 6, 1)
    return LoopStatus(
        written=time.time(),
        champion=None,
        champion_since=None,
        champion_because=None,
        retraining="no open cause",
        checks=20,
        checks_run=20,
        days=tuple(
            DayStatus(
                day=(last - datetime.timedelta(days=days - 1 - number)).isoformat(),
                rows=5_000 + number,
                rejected=number % 17,
                model_version=str(1 + number * VERSIONS // days),
                approved=3_400 + number % 97,
                expected_loss=16_369_129.4 + number,
                score_psi=0.0111,
                score_psi_judged=0.01 + number % 13 / 1_000,
                score_psi_threshold=0.0245,
                drifted_columns=number % 5,
                estimated_roc_auc=0.77 + number % 11 / 1_000,
                estimated_roc_auc_standard_error=0.004,
                matured=4_000,
                pending=900,
                missing=100,
                roc_auc=0.76 + number % 7 / 1_000,
                roc_auc_standard_error=0.008,
                mean_pd=0.2132,
                bad_rate=0.21 + number % 9 / 1_000,
                matured_expected_loss=16_369_129.4,
                realised_loss=17_160_000.0 + number,
                validation_roc_auc=0.77,
            )
            for number in range(days)
        ),
        events=(),
        runs_in_flight=(),
        failed_runs=(),
        sensors=(),
        landing_problems=(),
        dagster_url="http://127.0.0.1:3000",
        mlflow_url="http://127.0.0.1:5000",
    )


def median_seconds(client: httpx.Client, address: str, requests: int) -> tuple[float, int]:
    """Median time of an answer, and its bytes."""
    times = []
    for _ in range(requests):
        start = time.perf_counter()
        answer = client.get(address)
        times.append(time.perf_counter() - start)
        answer.raise_for_status()
    return statistics.median(times), len(answer.content)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=400)
    parser.add_argument("--requests", type=int, default=21)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        status = synthetic_status(arguments.days)
        loop = Loop.of(Path(folder) / "site")
        status.write(loop.settings.reports)
        print(f"{arguments.days} days, {arguments.requests} requests each, one at a time")
        print("| address | median, ms | of the static file | bytes |\n|---|---|---|---|")
        with api(loop) as client:
            bare = None
            for template in MEASURED:
                address = template.format(first=status.days[0].day)
                seconds, size = median_seconds(client, address, arguments.requests)
                bare = bare or seconds
                print(f"| {address} | {1_000 * seconds:.1f} | {seconds / bare:.1f} | {size:,} |")
        loop.close()


if __name__ == "__main__":
    main()
