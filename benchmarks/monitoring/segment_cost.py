"""Cost of a day with and without segments.

    python -m benchmarks.monitoring.segment_cost

A store with a champion of the card portfolio, and beside it the same store of the portfolio without
segments. Days of simulated customers land in both, and the jobs `score_production` and
`assess_performance` run in turn, as the sensors start them, in one process; pictures are off, as
they cost the same on both sides. Processor seconds count, since a shared machine's clock does not.
"""

import argparse
import dataclasses
import datetime
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from creditrisk_assets.landing.listing import land
from creditrisk_assets.policy import Policy, ReportLimits
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.settings import Settings
from creditrisk_assets.simulation.card_customers import simulate
from creditrisk_assets.simulation.stepped_loop import SteppedLoop

SEED = 40
FIRST_DAY = datetime.date(2026, 1, 5)
JOBS = ("score_production", "assess_performance")


def main() -> None:
    """Train two stores, run days in turn, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument(
        "--rounds", type=int, default=3, help="days of each size; the median counts"
    )
    options = parser.parse_args()
    segments = sum(len(one.segments(PORTFOLIO.fields)) for one in PORTFOLIO.segments)
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            "with segments": store(Path(folder, "with"), True),
            "without": store(Path(folder, "without"), False),
        }
        print(
            f"{segments} segments in {len(PORTFOLIO.segments)} segmentations, seed {SEED}, median "
            f"of {options.rounds} rounds in turn, processor seconds (shortest to longest).\n"
        )
        print("| rows | job | " + " | ".join(sides) + " | ratio |")
        print("|---|---|" + "---|" * (len(sides) + 1))
        day = FIRST_DAY
        for rows in options.rows:
            seconds: dict[tuple[str, str], list[float]] = {}
            for number in range(options.rounds):
                frame = simulate(rows, SEED + number, 10_000_000 + number * 1_000_000)
                name = day.isoformat()
                for side, loop in sides.items():
                    fields = frame.drop(columns=PORTFOLIO.target)
                    labels = frame[[PORTFOLIO.identifier, PORTFOLIO.target]]
                    land(loop.settings.landing_production / name, "customers.csv", fields)
                    land(loop.settings.landing_outcomes / name, "outcomes.csv", labels)
                    for job in JOBS:
                        seconds.setdefault((job, side), []).append(
                            processor_seconds(partial(run, loop, job, name))
                        )
                day += datetime.timedelta(days=1)
            print_rows(rows, [*sides], seconds)


def store(home: Path, segments: bool) -> SteppedLoop:
    """A store with a first champion."""
    home.mkdir(parents=True)
    portfolio = PORTFOLIO if segments else dataclasses.replace(PORTFOLIO, segments=())
    settings = Settings(
        data_dir=home / "data",
        settle_seconds=0,
        portfolio=portfolio,
        raw_data="simulated:8000",
        policy=Policy(reports=ReportLimits(rows=0)),
    )
    loop = SteppedLoop.in_folder(home, settings)
    result = loop.run("train")
    assert result.success
    return loop


def run(loop: SteppedLoop, job: str, day: str) -> None:
    """One job of a day."""
    result = loop.run(job, day)
    assert result.success


def processor_seconds(work: Callable[[], None]) -> float:
    """Of this process and its threads."""
    started = time.process_time()
    work()
    return time.process_time() - started


def print_rows(rows: int, sides: list[str], seconds: dict[tuple[str, str], list[float]]) -> None:
    """A line for each job, and one for the whole day."""
    for side in sides:
        seconds["the whole day", side] = [
            sum(parts) for parts in zip(*(seconds[job, side] for job in JOBS), strict=True)
        ]
    for job in (*JOBS, "the whole day"):
        medians = [statistics.median(seconds[job, side]) for side in sides]
        cells = [
            f"{median:.2f} ({min(seconds[job, side]):.2f} to {max(seconds[job, side]):.2f})"
            for median, side in zip(medians, sides, strict=True)
        ]
        print(
            f"| {rows:,} | {job} | " + " | ".join(cells) + f" | {medians[0] / medians[1]:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
