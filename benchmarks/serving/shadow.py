"""What shadow mode costs `/predict`: `python -m benchmarks.serving.shadow`.

Two APIs over one store with a champion and a challenger, one worker each, one with shadow mode and
one without; the same client (wrk) asks them in turn, and ratios are of the same round's neighbours.
On a machine that others use too, the processor time of a request tells more than how many were
answered.
"""

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from pathlib import Path

import dagster as dg
import httpx

from benchmarks.serving.throughput import Load, Server, measured
from creditrisk_assets.simulation.stepped_loop import QUIET, SteppedLoop
from tests.support.trials.site import Site, running

HISTORY_ROWS = 4_000
LOADED_SECONDS = 10.0


def register_challenger(loop: SteppedLoop) -> None:
    """Register another model, on other customers, without judging it.

    Raises:
        RuntimeError: if it could not be trained.
    """
    loop.settings.simulated_seed += 1
    every = loop.definitions.resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey(asset) for asset in ("raw_data", "features", "model")]
    if not every.execute_in_process(
        instance=loop.instance, asset_selection=keys, run_config=QUIET
    ).success:
        raise RuntimeError("no challenger could be trained")


def cpu_seconds(process: int) -> float:
    """Processor time that a process has had so far, in all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def compared(folder: Path, seconds: int, rounds: int) -> None:
    """Measure both and print a table."""
    loop = Site.trained(folder / "site", simulated_rows=HISTORY_ROWS).loop
    register_challenger(loop)
    body = json.dumps(dict(loop.settings.portfolio.example)).encode()
    sites = {
        shadow: Site(
            loop,
            environment={"CREDITRISK_SHADOW": shadow, "CREDITRISK_API_DIR": str(folder / shadow)},
        )
        for shadow in ("false", "true")
    }
    loads: dict[str, list[Load]] = {shadow: [] for shadow in sites}
    times: dict[str, list[float]] = {shadow: [] for shadow in sites}
    with running(sites["false"]), running(sites["true"]):
        time.sleep(LOADED_SECONDS)  # until the challenger is there
        for round_ in range(rounds + 1):
            for shadow, site in sites.items():
                assert site.process is not None
                server = Server(
                    shadow,
                    f"{site.url}/predict",
                    body,
                    {"Content-Type": "application/json"},
                    site.process.pid,
                )
                before, length = cpu_seconds(server.process), seconds if round_ else 2
                load = measured(server, 8, length, folder)
                time.sleep(1)  # what waits is scored
                if round_:  # the first warms
                    loads[shadow].append(load)
                    times[shadow].append(
                        (cpu_seconds(server.process) - before) / (load.rate * length)
                    )
        told = httpx.get(f"{sites['true'].url}/metrics").text
    print(f"one worker, wrk with 8 connections, {rounds} rounds of {seconds} s, medians")
    print("| shadow mode | requests/s | p50 | p99 | processor time a request | failed |")
    print("|---|---|---|---|---|---|")
    for shadow, seen in loads.items():
        rate, p50, p99 = (
            statistics.median(getattr(one, name) for one in seen) for name in ("rate", "p50", "p99")
        )
        figures = (
            f"{rate:,.0f} | {p50 * 1e3:.2f} ms | {p99 * 1e3:.2f} ms | "
            f"{statistics.median(times[shadow]) * 1e6:.0f} us"
        )
        print(f"| {shadow} | {figures} | {sum(one.failed for one in seen)} |")
    ratios = [
        with_.rate / without.rate
        for without, with_ in zip(loads["false"], loads["true"], strict=True)
    ]
    print(
        f"requests/s with against without: {statistics.median(ratios):.3f} "
        f"({', '.join(f'{one:.3f}' for one in ratios)})"
    )
    for name in (
        "creditrisk_decision_group_size_sum",
        "creditrisk_shadow_scores_total",
        "creditrisk_shadow_dropped_total",
    ):
        print(
            name,
            sum(
                float(value)
                for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", told, re.MULTILINE)
            ),
        )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(
        prefix="creditrisk-shadow-", ignore_cleanup_errors=True
    ) as folder:
        compared(Path(folder), arguments.seconds, arguments.rounds)


if __name__ == "__main__":
    main()
