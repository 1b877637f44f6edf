"""Saving and cost of a sample of the learning rows:
`python -m benchmarks.governance.learning_rows`.

A challenger is made of a history of 20,000 simulated customers and of days of matured production:
of many days with the policy's limit of learning rows, and of ten days with several limits and
without one. Each runs in a process of its own, which reads the days, selects, fits and calibrates a
model and makes its bundles. The AUC is that on 100,000 further customers.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from creditrisk_assets.defs.io import FramesByDay, ParquetRows
from creditrisk_assets.modelling.bundling import make_bundle
from creditrisk_assets.modelling.datasets import candidate_set, with_features
from creditrisk_assets.modelling.metrics import auc_with_error
from creditrisk_assets.modelling.training import cross_fit_candidates
from creditrisk_assets.policy import Policy
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.card_customers import simulate

DISTINCT_DAYS = 10
UNLIMITED = 1 << 40


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=100)
    parser.add_argument("--rows", type=int, default=100_000, help="of each day")
    parser.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        learn(arguments.folder, arguments.days, arguments.limit)
        return
    policy = Policy().retraining.learning_rows
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, arguments.days, arguments.rows)
        print("| days | matured rows | learning rows | AUC | s | peak memory |")
        print("|---|---|---|---|---|---|")
        ten = min(10, arguments.days)
        for days, limit in (
            (arguments.days, policy),
            (ten, policy // 4),
            (ten, policy),
            (ten, UNLIMITED),
        ):
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.governance.learning_rows"]
            command += ["--folder", str(folder), "--days", str(days), "--limit", str(limit)]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(run.stdout.splitlines()[-1])
            print(
                f"| {days} | {days * arguments.rows:,} | {found['rows']:,} | {found['auc']:.4f} "
                f"± {found['error']:.4f} | {found['seconds']:.0f} | {found['memory']:,.0f} MiB |",
                flush=True,
            )


def prepare(folder: Path, days: int, rows: int) -> None:
    """Write days with outcomes; the same customers come again after ten days, under other names."""
    frames = [simulate(rows, 100 + seed) for seed in range(min(days, DISTINCT_DAYS))]
    for day in range(days):
        frame = frames[day % DISTINCT_DAYS]
        names = pd.Series(np.arange(len(frame)) + day * rows, dtype=str)
        customers = frame.assign(**{PORTFOLIO.identifier: names})
        customers.drop(columns=PORTFOLIO.target).to_parquet(path(folder, "batch", day), index=False)
        outcomes = customers[[PORTFOLIO.identifier, PORTFOLIO.target]].assign(version=1)
        outcomes.to_parquet(path(folder, "outcomes", day), index=False)


def path(folder: Path, kind: str, day: int) -> Path:
    """The file of a day."""
    return folder / f"{kind}-{day:04}.parquet"


def learn(folder: Path, days: int, limit: int) -> None:
    """Make a challenger, and print its figures as JSON."""
    names = {f"{np.datetime64('2026-01-01') + day}": day for day in range(days)}
    batches, outcomes = (
        FramesByDay({name: ParquetRows(path(folder, kind, day)) for name, day in names.items()})
        for kind in ("batch", "outcomes")
    )
    history = with_features(simulate(20_000, 1), PORTFOLIO)
    started = time.perf_counter()
    evaluation_days = Policy().gate.evaluation_days
    learning = candidate_set(history, batches, outcomes, PORTFOLIO, evaluation_days, limit)
    fits = cross_fit_candidates(PORTFOLIO, learning.fit)
    with tempfile.TemporaryDirectory() as place:
        bundle = make_bundle(
            Path(place),
            PORTFOLIO,
            learning.fit,
            learning.held_out,
            "candidate",
            learning.production_days,
            fits,
        )
        seconds = time.perf_counter() - started
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        others = simulate(100_000, 2)
        scores = bundle.score(bundle.raw(others)).default_probability
        auc, error = auc_with_error(others[PORTFOLIO.target].to_numpy(), scores)
    figures = {
        "rows": len(learning.fit.target),
        "auc": auc,
        "error": error,
        "seconds": seconds,
        "memory": int(status.partition("VmHWM:")[2].split()[0]) / 1024,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
