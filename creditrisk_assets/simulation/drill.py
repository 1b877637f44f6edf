"""The drill, an acceptance test of the loop: lands a scenario day by day, lets sensors and jobs
respond, and reports their response. It makes no decision of its own.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from dagster import DagsterInstance
from sklearn.metrics import roc_auc_score

from creditrisk_assets.defs import status
from creditrisk_assets.defs.io import stored_path
from creditrisk_assets.job_runner import failures_of
from creditrisk_assets.landing.history import read_history, simulator_of
from creditrisk_assets.landing.listing import land
from creditrisk_assets.monitoring.check_catalogue import BY_CHECK
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.settings import Settings
from creditrisk_assets.simulation import processes
from creditrisk_assets.simulation.sandbox import fresh_sandbox
from creditrisk_assets.simulation.scenarios import (
    SCENARIOS,
    Arrival,
    Draw,
    Plan,
    arrivals,
    customers_of,
    newcomers,
    simulated_customers,
)
from creditrisk_assets.simulation.stepped_loop import SteppedLoop

START = date(2025, 1, 1)
"""The first day of every drill, an arbitrary one."""

HISTORY_ROWS = 20_000
DAEMON_TIMEOUT_SECONDS = 300.0
NO_PICTURES = 0
"""No Evidently reports: they take four fifths of a day's time and are not used in a drill."""


class DrillFailed(RuntimeError):
    """The drill could not run."""


class Loop(Protocol):
    """A loop that a drill can wait for."""

    @property
    def instance(self) -> DagsterInstance:
        """Its Dagster instance."""

    def train(self) -> None:
        """Train the first champion from the history."""

    def settle(self) -> None:
        """Wait until all landed files are processed."""


@dataclass(frozen=True)
class Alarm:
    """A failed check or run, its day, and the day on which it appeared."""

    found_on: str
    what: str
    day: str


@dataclass(frozen=True)
class DrillReport:
    """The response of the loop.

    Attributes:
        plan: the scenario over its days.
        source: source of the customers.
        alarms_before: false alarms, on days before the onset.
        first_alarm: the first alarm on a day from the onset on.
        detection_delay_days: from the onset to the day on which that alarm appeared.
        actions: `nothing`, `recalibrate`, `refit` or `page a human` (a failed run blocks a day
            until a person acts).
        retrains: number of retrains.
        promotions: number of new champions.
        auc_before: of the decisions before the onset.
        auc_disturbed: of the first champion's decisions from the onset on.
        auc_after: of its successors' decisions.
        gap_disturbed: bad rate minus mean PD of the first champion's decisions from the onset on.
        gap_after: the same of its successors.
        landed: landed customers, each once a day.
        lost: those without a decision.
        seconds: duration of the drill.
    """

    plan: Plan
    source: str
    alarms_before: int
    first_alarm: Alarm | None
    detection_delay_days: int | None
    actions: tuple[str, ...]
    retrains: int
    promotions: int
    auc_before: float
    auc_disturbed: float
    auc_after: float
    gap_disturbed: float
    gap_after: float
    landed: int
    lost: int
    seconds: float


@dataclass
class _Record:
    """Alarms, landed customers and outcomes by day so far."""

    alarms: list[Alarm] = field(default_factory=list)
    customers: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)


def run_drill(
    project: Path,
    plan: Plan,
    data: Path | None,
    daemon: bool,
    on_progress: Callable[[int, int, str], None],
    history_rows: int = HISTORY_ROWS,
) -> DrillReport:
    """Run a scenario in its own store, `data/drill/<scenario>` of the project.

    Args:
        project: the project's folder.
        plan: the scenario.
        data: a file of customers with outcomes: the history, whose held-out customers come day by
            day; without one, the portfolio's simulator.
        daemon: use the real daemon and processes instead of the loop in this process.
        on_progress: called with days done, days in all, and the new alarms.
        history_rows: simulated customers for the first champion.

    Raises:
        DrillFailed: if the drill could not run.
    """
    start = time.monotonic()
    portfolio = Settings().portfolio
    history, draw, source = _customers(portfolio, plan.seed, data, history_rows)
    folder = project / "data" / "drill" / plan.scenario
    with fresh_sandbox(folder, project, history, NO_PICTURES) as (sandbox, settings):
        record = _Record()
        last_day = plan.days + plan.outcomes_after_days
        with (
            _daemon_loop(sandbox, settings) if daemon else _stepped_loop(sandbox, settings)
        ) as loop:
            loop.train()
            if status.champion_in_force(loop.instance) is None:
                raise DrillFailed(f"no first champion; see the runs in {sandbox}")
            for done, (day, files) in enumerate(arrivals(plan, portfolio, draw), start=1):
                for arrival in files:
                    _land(settings, portfolio, arrival, record)
                if files:
                    loop.settle()
                alarms = _new_alarms(loop.instance, day, record.alarms) if files else []
                record.alarms += alarms
                message = "; ".join(f"{alarm.what} on {alarm.day}" for alarm in alarms)
                on_progress(done, last_day, message)
            return _report(plan, source, loop.instance, settings, record, time.monotonic() - start)


def table_row(report: DrillReport) -> list[str]:
    """The report as cells of `TABLE_HEADER`."""
    alarm = report.first_alarm
    return [
        report.plan.scenario,
        SCENARIOS[report.plan.scenario].expected,
        ", ".join(report.actions),
        f"{alarm.what} on {alarm.day}" if alarm else "none",
        "" if report.detection_delay_days is None else str(report.detection_delay_days),
        str(report.alarms_before),
        f"{report.retrains} / {report.promotions}",
        " → ".join(
            f"{auc:.3f}"
            for auc in (report.auc_before, report.auc_disturbed, report.auc_after)
            if not np.isnan(auc)
        ),
        " → ".join(
            f"{gap:+.3f}" for gap in (report.gap_disturbed, report.gap_after) if not np.isnan(gap)
        ),
        f"{report.lost} of {report.landed:,}",
    ]


def markdown(reports: Sequence[DrillReport]) -> str:
    """The drills as a Markdown page, with its command."""
    plan, seconds = reports[0].plan, sum(report.seconds for report in reports)
    command = (
        f"creditrisk drill {plan.scenario if len(reports) == 1 else 'all'} --days {plan.days} "
        f"--rows {plan.rows} --strength {plan.strength:g} --seed {plan.seed}"
    )
    lines = [
        "# Drills: what the loop does by itself",
        "",
        f"Made by `{command}`: one run of each scenario, {seconds:.0f} s in all. Customers: "
        f"{reports[0].source}.",
        f"Days are stepped; a disturbance begins on day {plan.onset}, outcomes land "
        f"{plan.outcomes_after_days} days after the day of the decision. All days are synthetic.",
        "",
        "| " + " | ".join(TABLE_HEADER) + " |",
        "|" + "---|" * len(TABLE_HEADER),
        *("| " + " | ".join(table_row(report)) + " |" for report in reports),
        "",
        "The scenarios:",
        "",
        *(
            f"- `{report.plan.scenario}`: {SCENARIOS[report.plan.scenario].happens}."
            for report in reports
        ),
    ]
    return "\n".join(lines) + "\n"


TABLE_HEADER = [
    "scenario",
    "expected",
    "done",
    "first alarm since the onset",
    "delay, days",
    "alarms before",
    "retrains / promotions",
    "AUC before → disturbed → successor",
    "bad rate minus mean PD, disturbed → successor",
    "decisions lost",
]


def _customers(
    portfolio: Portfolio, seed: int, data: Path | None, history_rows: int
) -> tuple[pd.DataFrame, Draw, str]:
    if data is None:
        history = simulator_of(portfolio)(history_rows, seed, 1)
        return (
            history,
            simulated_customers(portfolio),
            f"simulated, history of {history_rows:,} customers",
        )
    read = read_history(str(data), portfolio)
    if len(read.rows.rejected):
        first = read.rows.rejected.iloc[0]
        raise DrillFailed(f"{data}, line {first['line']}: {first['message']}")
    others = newcomers(read.rows.accepted, portfolio)
    source = (
        f"{data.name}, SHA-256 {read.sha256[:16]}…, {len(others):,} of its "
        f"{len(read.rows.accepted):,} customers held out for the days"
    )
    return read.rows.accepted, customers_of(others), source


def _land(settings: Settings, portfolio: Portfolio, arrival: Arrival, record: _Record) -> None:
    zone = (
        settings.landing_production if arrival.zone == "production" else settings.landing_outcomes
    )
    land(zone / arrival.day, arrival.name, arrival.rows)
    identifiers = arrival.rows[portfolio.identifier].astype(str).tolist()
    if arrival.zone == "production":
        record.customers.setdefault(arrival.day, {})[arrival.name] = identifiers
    else:
        record.outcomes.setdefault(arrival.day, {}).update(
            zip(identifiers, arrival.rows[portfolio.target].tolist(), strict=True)
        )


def _new_alarms(instance: DagsterInstance, today: str, former: list[Alarm]) -> list[Alarm]:
    old = {(alarm.what, alarm.day) for alarm in former}
    failures = [
        (BY_CHECK[evaluation.check].failure, evaluation.partition or "")
        for evaluation in status.failed_checks(instance)
    ]
    failures += [
        (f"{run.job} failed", run.day or "") for run in status.failed_runs(instance, limit=1_000)
    ]
    return [
        Alarm(today, what, day) for what, day in dict.fromkeys(failures) if (what, day) not in old
    ]


def _report(
    plan: Plan,
    source: str,
    instance: DagsterInstance,
    settings: Settings,
    record: _Record,
    seconds: float,
) -> DrillReport:
    onset = plan.date(plan.onset)
    scored = {day: _scores(settings, day) for day in sorted(record.customers)}
    landed = {
        day: {identifier for identifiers in files.values() for identifier in identifiers}
        for day, files in record.customers.items()
    }
    lost = sum(len(ids - set(scored[day].index)) for day, ids in landed.items())
    decided = pd.concat(
        [
            frame.assign(
                day=day,
                bad=pd.Series(record.outcomes.get(day, {}), dtype="float64").reindex(frame.index),
            )
            for day, frame in scored.items()
        ]
    ).dropna(subset=["bad"])
    before = decided["day"] < onset
    first_version = decided["model_version"].iloc[0] if len(decided) else None
    of_first = decided["model_version"] == first_version
    # An alarm about the champion or a job has no day.
    since = [alarm for alarm in record.alarms if (alarm.day or alarm.found_on) >= onset]
    first_alarm = min(since, key=lambda alarm: (alarm.found_on, alarm.day)) if since else None
    retrains = [run for run in status.runs(instance, limit=10_000) if run.job == "retrain"]
    promotions = sum(
        verdict.verdict == "promoted" for verdict in status.verdicts(instance, limit=1_000)
    )
    failed = any(alarm.what.endswith("failed") for alarm in record.alarms)
    actions = [
        *sorted({run.action or "refit" for run in retrains}),
        *(["page a human"] if failed else []),
    ]
    return DrillReport(
        plan=plan,
        source=source,
        alarms_before=len(record.alarms) - len(since),
        first_alarm=first_alarm,
        detection_delay_days=(
            date.fromisoformat(first_alarm.found_on) - date.fromisoformat(onset)
        ).days
        if first_alarm
        else None,
        actions=tuple(actions) or ("nothing",),
        retrains=len(retrains),
        promotions=promotions,
        auc_before=_auc(decided[before]),
        auc_disturbed=_auc(decided[~before & of_first]),
        auc_after=_auc(decided[~before & ~of_first]),
        gap_disturbed=_gap(decided[~before & of_first]),
        gap_after=_gap(decided[~before & ~of_first]),
        landed=sum(len(ids) for ids in landed.values()),
        lost=lost,
        seconds=seconds,
    )


def _scores(settings: Settings, day: str) -> pd.DataFrame:
    """PD and version of each decision of a day, by customer; empty without decisions."""
    path = stored_path(settings.storage, "production_scores", day)
    identifier = settings.portfolio.identifier
    columns = [identifier, "default_probability", "model_version"]
    if not path.exists():
        return pd.DataFrame(columns=columns).set_index(identifier)
    with path.open("rb") as file:
        return pd.read_parquet(file, columns=columns).set_index(identifier)


def _gap(decided: pd.DataFrame) -> float:
    return (
        float((decided["bad"] - decided["default_probability"]).mean())
        if len(decided)
        else float("nan")
    )


def _auc(decided: pd.DataFrame) -> float:
    if decided["bad"].nunique() < 2:
        return float("nan")
    return float(roc_auc_score(decided["bad"], decided["default_probability"]))


@dataclass
class _Stepped:
    loop: SteppedLoop

    @property
    def instance(self) -> DagsterInstance:
        return self.loop.instance

    def train(self) -> None:
        result = self.loop.run("train")
        if not result.success:
            raise DrillFailed("; ".join(failures_of(result)))

    def settle(self) -> None:
        self.loop.settle()


@contextmanager
def _stepped_loop(sandbox: Path, settings: Settings) -> Iterator[Loop]:
    loop = SteppedLoop.in_folder(sandbox, settings)
    try:
        yield _Stepped(loop)
    finally:
        loop.instance.dispose()


@dataclass
class _WithDaemon:
    instance: DagsterInstance
    up: processes.Running
    dagster_port: int

    def train(self) -> None:
        from dagster_graphql import DagsterGraphQLClient

        client = DagsterGraphQLClient(processes.HOST, port_number=self.dagster_port)
        client.submit_job_execution("train", repository_location_name="creditrisk")
        self._wait(lambda: status.champion_in_force(self.instance) is not None)

    def settle(self) -> None:
        """Wait until every sensor has ticked twice without a request and no run is unfinished."""
        landed = time.time()

        def is_settled() -> bool:
            return not status.unfinished_runs(self.instance) and status.sensors_idle_since(
                self.instance, landed, ticks=2
            )

        self._wait(is_settled)

    def _wait(self, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DAEMON_TIMEOUT_SECONDS
        while not is_done():
            self.up.check()
            if time.monotonic() > deadline:
                raise DrillFailed(f"the loop did not settle within {DAEMON_TIMEOUT_SECONDS:.0f} s")
            time.sleep(0.5)


@contextmanager
def _daemon_loop(sandbox: Path, settings: Settings) -> Iterator[Loop]:
    code_server, dagster, api = processes.reserved_ports(3)
    ports = processes.Ports(code_server, dagster, api, None)
    with processes.loop_processes(sandbox, settings, ports, {}, lambda _: None) as up:
        yield _WithDaemon(status.open_instance(sandbox), up, ports.dagster)
