"""The cost of a run's start, by Dagster's own code server and by the project's:
`python -m benchmarks.operations.run_start`.

Both execute the same training and the same days, in stores of their own, for the same daemon; a day
lands after the one before is scored. Memory is the proportional set size of all processes of the
code server at the end of the last run.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg

from benchmarks.operations.containers import wait_until
from benchmarks.operations.releases import descendants
from creditrisk_assets.code_server import DEFINITIONS, LOCATION
from creditrisk_assets.defs import status
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.settings import Settings, today
from creditrisk_assets.simulation import processes
from creditrisk_assets.simulation.card_customers import simulate
from creditrisk_assets.simulation.processes import HOST, Ports, Service
from creditrisk_assets.simulation.sandbox import fresh_sandbox
from creditrisk_assets.simulation.scenarios import (
    Plan,
    arrivals,
    land_arrival,
    simulated_customers,
)

REPOSITORY = Path(__file__).resolve().parents[2]
HISTORY_ROWS, DAY_ROWS, REPORT_ROWS, SEED = 4_000, 500, 2_000, 7
RUN_SECONDS = 120.0


def main() -> None:
    """Print a table of both code servers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=6)
    days = parser.parse_args().days
    print("| code server | first run, training | a day, from request to end | its run | memory |")
    print("|---|---|---|---|---|")
    for name, is_own in (
        ("`dagster code-server start`", False),
        ("`creditrisk code-server`", True),
    ):
        print(f"| {name} | {' | '.join(_measured(is_own, days))} |", flush=True)


def _measured(is_own: bool, days: int) -> Sequence[str]:
    with (
        tempfile.TemporaryDirectory() as folder,
        fresh_sandbox(
            Path(folder) / "store", REPOSITORY, simulate(HISTORY_ROWS, SEED), REPORT_ROWS
        ) as (
            home,
            settings,
        ),
        status.open_instance(home) as instance,
    ):
        port, *_ = processes.reserved_ports(1)
        workspace, since = home / "workspace.yaml", time.time()
        processes.write_workspace(workspace, port)
        every = processes.services(
            Ports(port, 0, 0), workspace, lambda: status.daemon_is_up(instance, since)
        )
        server, daemon = every[0], every[-1]
        if not is_own:
            server = _of_dagster(server, port)
        with processes.running([server, daemon], home, {}, home / "logs", lambda _: None) as up:
            launch = ["job", "launch", "-w", str(workspace), "-j", "train"]
            once = Service("launch", [processes.tool("dagster"), *launch], lambda: True)
            with processes.running([once], home, {}, home / "logs", lambda _: None):
                (training,) = _ended(instance, "train", 1)
            start = today() - timedelta(days=days)
            plan = Plan("stable", start, days, DAY_ROWS, 0.0, SEED, onset=0, outcomes_after_days=1)
            _land(instance, settings, plan)
            memory = sum(_memory(pid) for pid in descendants(up.services[0][1].pid))
            runs = _ended(instance, "score_production", days)
    spans = [_span(run) for run in runs]
    return (
        f"{sum(_span(training)):.1f} s",
        f"{statistics.median(sum(span) for span in spans):.1f} s",
        f"{statistics.median(execution for _, execution in spans):.1f} s",
        f"{memory / 2**20:.0f} MiB",
    )


def _of_dagster(server: Service, port: int) -> Service:
    """Dagster's own code server in place of the project's."""
    place = ["--host", HOST, "--port", str(port)]
    names = ["--module-name", DEFINITIONS, "--location-name", LOCATION]
    start = [processes.tool("dagster"), "code-server", "start"]
    return replace(server, command=[*start, *names, *place])


def _land(instance: dg.DagsterInstance, settings: Settings, plan: Plan) -> None:
    """Land the customers of the days of a plan, each after the one before is scored."""
    landed = 0
    for _, files in arrivals(plan, PORTFOLIO, simulated_customers(PORTFOLIO)):
        for file in files:
            if file.zone == "production":
                land_arrival(settings, file)
                landed += 1
                _ended(instance, "score_production", landed)


def _ended(instance: dg.DagsterInstance, job: str, count: int) -> list[dg.RunRecord]:
    """Wait for so many successful runs of a job."""
    succeeded = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS])

    def runs() -> list[dg.RunRecord]:
        return list(instance.get_run_records(succeeded))

    wait_until(lambda: len(runs()) >= count, RUN_SECONDS, f"{count} runs of {job}")
    return runs()


def _span(run: dg.RunRecord) -> tuple[float, float]:
    """Seconds from the request of a run to its start, and from there to its end."""
    if run.start_time is None or run.end_time is None:
        raise ValueError(f"run {run.dagster_run.run_id} has no start or end")
    return run.start_time - run.create_timestamp.timestamp(), run.end_time - run.start_time


def _memory(pid: int) -> int:
    """Proportional set size of a process, in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
