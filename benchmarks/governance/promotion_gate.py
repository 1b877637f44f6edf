"""How often the promotion gate is wrong: false promotions of models that are no better, and power
against true gains in AUC.

    python -m benchmarks.governance.promotion_gate

Real part: the recipe is fitted to simulated customers again and again, with another seed, on a
    bootstrap of the same rows, and on
other customers. Each trial takes two of these fits as champion and challenger and draws the
evidence anew from a large pool of customers that no fit has seen. Stand-in part: a binormal pair of
scores whose AUC, likeness and spread are those measured on the real fits; its true gain can be set.
Both go through every test that the gate makes of two sides' answers.

The figures go to `docs/evidence/promotion-gate.json`, and from there into the marked block of
`docs/evidence/promotion-gate.md` and two pictures.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

from threadpoolctl import threadpool_limits

from creditrisk_assets.policy import GateLimits
from tests.support.trials.promotion_gate import (
    BADS,
    DOCS,
    GAINS,
    HISTORY_ROWS,
    POOL_ROWS,
    SEED,
    block,
    draw_false_promotions,
    draw_power,
    measured_pairs,
    pairs_of,
    real_cell,
    real_sides,
    shown,
    stand_in_cell,
    stand_in_of,
    with_block,
)


def main() -> None:
    """Fit, measure, simulate, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--fits",
        type=int,
        default=12,
        help="refits by seed, and as many on bootstraps; half as many on others",
    )
    parser.add_argument(
        "--trials", type=int, default=1_000, help="trials of each cell; half as many for power"
    )
    parser.add_argument(
        "--folder", type=Path, default=DOCS, help="where the page and its figures are"
    )
    options = parser.parse_args()
    started = time.monotonic()

    def on_progress(news: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {news}", flush=True)

    limits = GateLimits()
    with threadpool_limits(limits=1):
        pool, sides = real_sides(options.fits, on_progress)
        pairs = {
            kind: list(pairs_of(kind, sides)) for kind in ("seed", "bootstrap", "other customers")
        }
        measured = {
            kind: measured_pairs(pool, sides, kind_pairs) for kind, kind_pairs in pairs.items()
        }
        on_progress("measured the pairs")
        cells = []
        for kind, kind_pairs in pairs.items():
            for bads in BADS:
                cells.append(real_cell(kind, kind_pairs, pool, sides, bads, options.trials, limits))
                on_progress(shown(cells[-1]))
        stand_ins = {
            kind: stand_in_of(pool, sides, measured[kind]) for kind in ("seed", "other customers")
        }
        for kind, stand_in in stand_ins.items():
            for bads in BADS:
                cells.append(
                    stand_in_cell(f"stand-in: {kind}", stand_in, bads, 0.0, options.trials, limits)
                )
                on_progress(shown(cells[-1]))
        exact = dataclasses.replace(stand_ins["other customers"], spread=0.0)
        for gain in GAINS:
            for bads in BADS:
                cells.append(stand_in_cell("gain", exact, bads, gain, options.trials // 2, limits))
                on_progress(shown(cells[-1]))
    results = {
        "seed": SEED,
        "history_rows": HISTORY_ROWS,
        "pool_rows": POOL_ROWS,
        "pool_bads": int(pool.target.sum()),
        "fits": {kind: sum(name.startswith(kind) for name in sides) for kind in pairs},
        "limits": limits.model_dump(),
        "measured": measured,
        "stand_ins": {kind: dataclasses.asdict(one) for kind, one in stand_ins.items()},
        "cells": [dataclasses.asdict(cell) for cell in cells],
    }
    (options.folder / "evidence" / "promotion-gate.json").write_text(
        json.dumps(results, indent=1) + "\n"
    )
    page = options.folder / "evidence" / "promotion-gate.md"
    page.write_text(with_block(page.read_text(), block(results)))
    draw_power(cells, options.folder / "images" / "promotion-gate-power.svg")
    draw_false_promotions(cells, options.folder / "images" / "promotion-gate-false-promotions.svg")
    on_progress("written")


if __name__ == "__main__":
    main()
