"""The compiled decision beside onnxruntime: `python -m benchmarks.scoring.compiled`.

Each candidate of a training is fitted on simulated customers, made a bundle and compiled. Other
customers are scored by both in turn, in calls of 1, 16 and 4,096 rows, without and with reasons.
Times are those of the process on its processor, not of the clock, and the least of several rounds,
for others may use the machine.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks import ratios
from creditrisk_assets.modelling.bundling import make_bundle
from creditrisk_assets.modelling.datasets import LearningSet, history_set, with_features
from creditrisk_assets.modelling.selection import CANDIDATES, Candidate
from creditrisk_assets.modelling.training import cross_fit_candidates
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Bundle
from creditrisk_assets.scoring.compiled.kernel import Kernel, compile_kernel
from creditrisk_assets.scoring.compiled.native import compiler_version
from creditrisk_assets.scoring.compiled.proof import ROWS_AT_LOAD, prove
from creditrisk_assets.simulation.card_customers import simulate

CALLS = (1, 16, 4_096)
ROUND_SECONDS = 0.1

Result = TypeVar("Result")


def main() -> None:
    """Print the times of each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--proof-rows", type=int, default=1_000_000)
    ratios.add_option(parser)
    arguments = parser.parse_args()
    print(compiler_version().split(" +")[0])
    learning = history_set(with_features(simulate(arguments.customers, 1), PORTFOLIO), PORTFOLIO)
    others = simulate(max(CALLS), 2)[PORTFOLIO.field_names].to_numpy(dtype=np.float32)
    raw = np.ascontiguousarray(others)
    found: dict[str, float] = {}
    for candidate in CANDIDATES:
        with tempfile.TemporaryDirectory() as folder:
            bundle = bundle_of(candidate, learning, Path(folder, "bundle"))
            kernel = report_preparation(candidate.name, bundle, Path(folder, "cache"))
            for name, ratio in report_times(bundle, kernel, raw, arguments.rounds).items():
                found[f"{candidate.name}, {name}"] = ratio
            report_proof(bundle, kernel, arguments.proof_rows)
    ratios.write(arguments.ratios, found)


def bundle_of(candidate: Candidate, learning: LearningSet, folder: Path) -> Bundle:
    """A bundle of one candidate."""
    folder.mkdir()
    fits = cross_fit_candidates(PORTFOLIO, learning.fit, [candidate])
    return make_bundle(folder, PORTFOLIO, learning.fit, learning.held_out, "history", [], fits)


def report_preparation(name: str, bundle: Bundle, cache: Path) -> Kernel:
    """Print what has to be done before the first decision."""
    rule = bundle.manifest.rule
    kernel, compiled = timed(lambda: compile_kernel(bundle, rule, cache))
    kernel, cached = timed(lambda: compile_kernel(bundle, rule, cache))
    _, checked = timed(lambda: prove(kernel, bundle))
    size = sum(file.stat().st_size for file in cache.iterdir())
    print(
        f"\n{name}: compiled in {compiled:.2f} s, from the cache ({size / 1024:.0f} KiB) in "
        f"{cached:.2f} s; proof of {ROWS_AT_LOAD:,} rows {checked:.2f} s\n"
    )
    return kernel


def report_times(
    bundle: Bundle, kernel: Kernel, raw: NDArray[np.float32], rounds: int
) -> dict[str, float]:
    """Print CPU nanoseconds a row, and how many times the kernel is faster; returns that."""
    found = {}
    rule = bundle.manifest.rule
    print(
        "| rows a call | PD: onnxruntime | kernel | ratio | reasons: onnxruntime | kernel | ratio |"
    )
    print("|---|---|---|---|---|---|---|")
    for count in CALLS:
        rows = raw[:count]
        calls: list[Callable[[], object]] = [
            partial(bundle.score, rows),
            partial(kernel.score, rows),
            partial(bundle.decide, rows, rule),
            partial(kernel.decide, rows, rule),
        ]
        best = [float("inf")] * len(calls)
        for _ in range(rounds):
            for place, call in enumerate(calls):
                best[place] = min(best[place], cpu_seconds(call))
        graph, code, graph_reasons, code_reasons = (1e9 * seconds / count for seconds in best)
        print(
            f"| {count:,} | {graph:,.0f} | {code:,.0f} | {graph / code:.1f} "
            f"| {graph_reasons:,.0f} | {code_reasons:,.0f} | {graph_reasons / code_reasons:.1f} |"
        )
        found[f"PD, {count} rows a call"] = graph / code
        found[f"reasons, {count} rows a call"] = graph_reasons / code_reasons
    return found


def report_proof(bundle: Bundle, kernel: Kernel, rows: int) -> None:
    """Print the result of a proof such as is made with a bundle."""
    left_out, seconds = timed(lambda: prove(kernel, bundle, rows, seed=1))
    print(
        f"\nproof of {rows:,} generated rows: no bit differs; {left_out} rows left out, "
        "outside of the contract, to which the graph itself gives other bits at another place of "
        f"a batch; {seconds:.0f} s"
    )


def timed(function: Callable[[], Result]) -> tuple[Result, float]:
    """Result and CPU seconds of a call."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def cpu_seconds(call: Callable[[], object]) -> float:
    """Mean CPU seconds of a call, repeated for a tenth of a second."""
    calls, start = 0, time.process_time()
    while (passed := time.process_time() - start) < ROUND_SECONDS:
        call()
        calls += 1
    return passed / calls


if __name__ == "__main__":
    main()
