"""How often the gate is wrong about a recalibration: promotions where the champion's PDs are right,
and power where they are not.

    python -m benchmarks.governance.recalibration_gate

One champion is fitted to a simulated history. In each trial customers that it has not seen are
drawn anew, three quarters of them to recalibrate on and a quarter to judge by, as the hash of the
identifier divides them. Their outcomes are drawn from the champion's own PDs, moved as the case
says, so that the truth is known; in one case they are the simulator's. The champion is recalibrated
as `candidate_model` does it, and both sides go through every test that the gate makes of their
answers.

The figures go to `docs/evidence/recalibration-gate.json`, and from there into the marked block of
`docs/evidence/promotion-gate.md`.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

from scipy.special import expit
from threadpoolctl import threadpool_limits

from creditrisk_assets.policy import GateLimits
from tests.support.trials.promotion_gate import (
    DOCS,
    HISTORY_ROWS,
    with_block,
)
from tests.support.trials.recalibration_gate import (
    BADS,
    BEGIN,
    END,
    POOL_ROWS,
    RIGHT,
    RIGHT_TRIALS,
    SEED,
    TRIALS,
    TRUTHS,
    block,
    counted,
    fitted_pool,
)


def main() -> None:
    """Fit, simulate, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=DOCS, help="where the page and its figures are"
    )
    options = parser.parse_args()
    started = time.monotonic()
    limits = GateLimits()
    cells = []
    with threadpool_limits(limits=1):
        pool = fitted_pool()
        for truth in TRUTHS:
            for bads in BADS:
                cells.append(
                    counted(pool, truth, bads, RIGHT_TRIALS if truth == RIGHT else TRIALS, limits)
                )
                seconds = time.monotonic() - started
                print(
                    f"{seconds:5.0f} s  {truth.name}, {bads} bads: {cells[-1].promoted} of "
                    f"{cells[-1].trials}",
                    flush=True,
                )
    results = {
        "seed": SEED,
        "history_rows": HISTORY_ROWS,
        "pool_rows": POOL_ROWS,
        "pool_bad_rate": float(pool.target.mean()),
        "pool_mean_pd": float(expit(pool.log_odds).mean()),
        "limits": limits.model_dump(),
        "cells": [dataclasses.asdict(cell) for cell in cells],
    }
    (options.folder / "evidence" / "recalibration-gate.json").write_text(
        json.dumps(results, indent=1) + "\n"
    )
    page = options.folder / "evidence" / "promotion-gate.md"
    page.write_text(with_block(page.read_text(), block(results), BEGIN, END))


if __name__ == "__main__":
    main()
