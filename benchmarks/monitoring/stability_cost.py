"""Cost of the comparison of a day of any size with the champion's training rows.

    python -m benchmarks.monitoring.stability_cost

A file of customers of the card portfolio with their score, 24 columns as `production_scores` has
them, is read batch by batch: once only read, once read and counted. Both in the same process,
taking turns. Memory is that of a process of its own at two sizes. Beside it Evidently's default
report on the same columns, at the sizes that it can be asked to take.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from creditrisk_assets.defs.io import ParquetRows
from creditrisk_assets.modelling.bundling import input_fields
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.reference_profile import (
    BATCH_ROWS,
    SCORE,
    ReferenceProfile,
    RowCounter,
    profile_of_rows,
)
from creditrisk_assets.simulation.card_customers import simulate

SEED = 6
DISTINCT = 500_000
"""Simulated customers; larger files repeat them."""
EVIDENTLY_ROWS = (1_000, 10_000, 100_000)
INPUTS = input_fields(PORTFOLIO)


def main() -> None:
    """Write the file, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the large file")
    parser.add_argument(
        "--rounds", type=int, default=5, help="how often each is timed; the median counts"
    )
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--no-evidently", action="store_true", help="leave Evidently out")
    options = parser.parse_args()
    if options.memory_of:
        count(options.memory_of, profile())
        print(peak_memory())
        return
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder, "large.parquet"), Path(folder, "small.parquet")
        write(large, options.rows)
        write(small, options.rows // 10)
        made = profile()
        read_seconds, count_seconds = [], []
        for _ in range(options.rounds):
            read_seconds.append(timed(lambda: read(large)))
            count_seconds.append(timed(lambda: count(large, made)))
        memory = {path: memory_of(path) for path in (small, large)}
        size = large.stat().st_size / 2**20
    reading, counting = statistics.median(read_seconds), statistics.median(count_seconds)
    print(
        f"{options.rows:,} rows x {len(INPUTS) + 1} columns, {size:,.0f} MiB of Parquet, median "
        f"of {options.rounds} rounds, seed {SEED}, {platform.processor() or platform.machine()}, "
        f"{pa.cpu_count()} threads of pyarrow.\n"
    )
    print(
        "| | seconds | million rows a second | share of the speed of reading | memory of the "
        "process, MiB |"
    )
    print("|---|---|---|---|---|")
    print(
        f"| pyarrow, reading only | {reading:.2f} ({spread(read_seconds)}) | "
        f"{options.rows / reading / 1e6:.2f} | 1 | |"
    )
    print(
        f"| reading and counting | {counting:.2f} ({spread(count_seconds)}) | "
        f"{options.rows / counting / 1e6:.2f} | {reading / counting:.2f} | {memory[large]:.0f} "
        f"({memory[small]:.0f} for a tenth of the rows) |"
    )
    if not options.no_evidently:
        print("\n| Evidently, default drift preset | seconds |\n|---|---|")
        for rows in EVIDENTLY_ROWS:
            print(f"| {rows:,} rows against {rows:,} | {evidently_seconds(rows):.1f} |", flush=True)


def profile() -> ReferenceProfile:
    """Of 15,000 simulated customers; the score is a stand-in, which costs what any decimal
    costs.
    """
    frame = simulate(15_000, SEED + 1)
    raw = frame[PORTFOLIO.field_names].to_numpy(dtype=np.float32)
    return profile_of_rows(
        raw,
        stand_in(frame["limit_bal"].to_numpy(), SEED),
        np.ones(len(frame), dtype=np.int64),
        INPUTS,
    )


def stand_in(limit: np.ndarray, seed: int) -> np.ndarray:
    """A decimal between 400 and 700 for each customer."""
    return np.asarray(
        550 + 20 * np.log10(limit / 1e5) + np.random.default_rng(seed).normal(0, 20, len(limit))
    )


def write(path: Path, rows: int) -> None:
    """A file of simulated customers, written as `production_scores` is, a batch at a time."""
    frame = simulate(min(rows, DISTINCT), SEED)
    table = pa.Table.from_pandas(frame[PORTFOLIO.field_names], preserve_index=False)
    table = table.append_column(SCORE, pa.array(stand_in(frame["limit_bal"].to_numpy(), SEED + 2)))
    with pq.ParquetWriter(path, table.schema) as writer:
        left = rows
        while left > 0:
            for batch in table.slice(0, left).to_batches(max_chunksize=BATCH_ROWS):
                writer.write_batch(batch)
            left -= len(table)


def read(path: Path) -> int:
    """Read all columns, batch by batch, as pyarrow does by default."""
    return sum(
        len(batch)
        for batch in pq.ParquetFile(path).iter_batches(
            BATCH_ROWS, columns=[SCORE, *PORTFOLIO.field_names]
        )
    )


def count(path: Path, made: ReferenceProfile) -> int:
    """Read and count all columns, as `drift_report` does."""
    counter = RowCounter(made, INPUTS)
    with ParquetRows(path).opened() as file:
        return int(
            counter.total(file.iter_batches(BATCH_ROWS, columns=counter.columns))[SCORE].bins.sum()
        )


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spread(seconds: list[float]) -> str:
    """The shortest and the longest."""
    return f"{min(seconds):.2f} to {max(seconds):.2f}"


def memory_of(path: Path) -> float:
    """The most memory, in MiB, that a process takes that counts a file."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.monitoring.stability_cost",
        "--memory-of",
        str(path),
    ]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_memory() -> float:
    """The most that this process has held, in MiB; `ru_maxrss` would count what its parent held
    when it was started.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def evidently_seconds(rows: int) -> float:
    """Of a report with Evidently's default preset, numbers and codes named."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    codes = [field.name for field in PORTFOLIO.fields if field.codes is not None]
    numbers = [SCORE, *(field.name for field in PORTFOLIO.fields if field.codes is None)]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=codes)
    sides = []
    for seed in (SEED, SEED + 1):
        frame = simulate(rows, seed)
        sides.append(
            Dataset.from_pandas(
                frame.assign(**{SCORE: stand_in(frame["limit_bal"].to_numpy(), seed)})[
                    numbers + codes
                ],
                definition,
            )
        )
    return timed(lambda: Report([DataDriftPreset()]).run(*sides).dict())


if __name__ == "__main__":
    main()
