"""The acceptance test of the loop: a scenario over many days, and what the loop did about it.

Nothing here decides anything. It lands files day by day, lets the sensors and jobs do what they do,
and looks.
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
from creditrisk_assets.simulation.sandbox import fresh_site, use_site
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
"""The first day of every drill; any day would do."""

HISTORY_ROWS = 20_000
DAEMON_TIMEOUT_SECONDS = 300.0
NO_PICTURES = 0
"""The Evidently report is four fifths of a day's time, and nobody looks at those of a drill."""


class DrillFailed(RuntimeError):
    """The drill itself could not be carried out."""


class Loop(Protocol):
    """A loop that can be waited for."""

    @property
    def instance(self) -> DagsterInstance:
        """Its Dagster instance."""

    def train(self) -> None:
        """From the history to the first champion."""

    def settle(self) -> None:
        """Until everything that landed has been dealt with."""


@dataclass(frozen=True)
class Alarm:
    """A failed check, or a day that was blocked, and the day on which it was seen."""

    seen: str
    what: str
    day: str


@dataclass(frozen=True)
class DrillReport:
    """What the loop did.

    Attributes:
        plan: the scenario over its days.
        source: where the customers came from.
        alarms_before: alarms on days before the onset: false ones.
        first_alarm: the first alarm on a day from the onset on.
        detection_delay_days: from the onset to the day on which that alarm was seen.
        actions: what was done: `nothing`, `recalibrate`, `refit`, `page a human` (a run failed: a
            day is blocked until somebody looks).
        retrains: how many.
        promotions: how many of them gave a new champion.
        auc_before: of the decisions before the onset.
        auc_disturbed: of the decisions from the onset on by the champion of that time.
        auc_after: of the decisions by its successors.
        gap_disturbed: bad rate minus mean PD of the decisions from the onset on by the champion of
            that time.
        gap_after: of the decisions by its successors.
        landed: customers that landed, each once a day.
        lost: those of them without a decision.
        seconds: how long the drill took.
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
class _Seen:
    """What is known of the days so far."""

    alarms: list[Alarm] = field(default_factory=list)
    customers: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)


def run_drill(
    project: Path,
    plan: Plan,
    data: Path | None,
    daemon: bool,
    told: Callable[[int, int, str], None],
    history_rows: int = HISTORY_ROWS,
) -> DrillReport:
    """Carry out a scenario in a store of its own, `data/drill/<scenario>` of the project.

    Args:
        project: the project's folder.
        plan: the scenario.
        data: a file of customers with their outcomes: it is the history, and those that no model
            learns from come day by day; without one, the portfolio's simulator.
        daemon: with the real daemon and processes instead of stepping in this process.
        told: called with days done, days in all, and what happened.
        history_rows: simulated customers that the first champion learns from.

    Raises:
        DrillFailed: if it could not be carried out.
    """
    start = time.monotonic()
    portfolio = Settings().portfolio
    history, draw, source = _customers(portfolio, plan.seed, data, history_rows)
    with fresh_site(project / "data" / "drill" / plan.scenario, project) as site:
        history_file = site / "data" / "history.parquet"
        history.to_parquet(history_file, index=False)
        settings, environment = use_site(
            site, NO_PICTURES, RAW_DATA=str(history_file), SETTLE_SECONDS="0"
        )
        seen = _Seen()
        last_day = plan.days + plan.outcomes_after_days
        with _daemon(site, settings, environment) if daemon else _stepped(site, settings) as loop:
            loop.train()
            if status.champion_in_force(loop.instance) is None:
                raise DrillFailed(f"no first champion; see the runs in {site}")
            for done, (day, files) in enumerate(arrivals(plan, portfolio, draw), start=1):
                for arrival in files:
                    _land(settings, portfolio, arrival, seen)
                if files:
                    loop.settle()
                news = _new_alarms(loop.instance, day, seen.alarms) if files else []
                seen.alarms += news
                told(done, last_day, "; ".join(f"{one.what} on {one.day}" for one in news))
            return _report(plan, source, loop.instance, settings, seen, time.monotonic() - start)


def table_row(report: DrillReport) -> list[str]:
    """The report as cells of `TABLE_HEADER`."""
    alarm = report.first_alarm
    return [
        report.plan.scenario,
        SCENARIOS[report.plan.scenario].wanted,
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
    """The drills as a page; the command that makes it again is on it."""
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
        "What happens in each:",
        "",
        *(
            f"- `{report.plan.scenario}`: {SCENARIOS[report.plan.scenario].happens}."
            for report in reports
        ),
    ]
    return "\n".join(lines) + "\n"


TABLE_HEADER = [
    "scenario",
    "wanted",
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
        f"{len(read.rows.accepted):,} customers held out to come"
    )
    return read.rows.accepted, customers_of(others), source


def _land(settings: Settings, portfolio: Portfolio, arrival: Arrival, seen: _Seen) -> None:
    zone = (
        settings.landing_production if arrival.zone == "production" else settings.landing_outcomes
    )
    land(zone / arrival.day, arrival.name, arrival.rows)
    identifiers = arrival.rows[portfolio.identifier].astype(str).tolist()
    if arrival.zone == "production":
        seen.customers.setdefault(arrival.day, {})[arrival.name] = identifiers
    else:
        seen.outcomes.setdefault(arrival.day, {}).update(
            zip(identifiers, arrival.rows[portfolio.target].tolist(), strict=True)
        )


def _new_alarms(instance: DagsterInstance, today: str, known: list[Alarm]) -> list[Alarm]:
    old = {(alarm.what, alarm.day) for alarm in known}
    found = [
        (BY_CHECK[one.check].failure, one.partition or "") for one in status.failed_checks(instance)
    ]
    found += [
        (f"{run.job} failed", run.day or "") for run in status.failed_runs(instance, limit=1_000)
    ]
    return [Alarm(today, what, day) for what, day in dict.fromkeys(found) if (what, day) not in old]


def _report(
    plan: Plan,
    source: str,
    instance: DagsterInstance,
    settings: Settings,
    seen: _Seen,
    seconds: float,
) -> DrillReport:
    onset = plan.date(plan.onset)
    scored = {day: _scores(settings, day) for day in sorted(seen.customers)}
    wanted = {
        day: {one for ids in files.values() for one in ids} for day, files in seen.customers.items()
    }
    lost = sum(len(ids - set(scored[day].index)) for day, ids in wanted.items())
    decided = pd.concat(
        [
            frame.assign(
                day=day,
                bad=pd.Series(seen.outcomes.get(day, {}), dtype="float64").reindex(frame.index),
            )
            for day, frame in scored.items()
        ]
    ).dropna(subset=["bad"])
    before = decided["day"] < onset
    first_version = decided["model_version"].iloc[0] if len(decided) else None
    of_first = decided["model_version"] == first_version
    since = [
        alarm for alarm in seen.alarms if (alarm.day or alarm.seen) >= onset
    ]  # of the champion or a job: of no day
    first_alarm = min(since, key=lambda alarm: (alarm.seen, alarm.day)) if since else None
    retrains = [run for run in status.runs(instance, limit=10_000) if run.job == "retrain"]
    promotions = sum(
        verdict.verdict == "promoted" for verdict in status.verdicts(instance, limit=1_000)
    )
    failed = any(alarm.what.endswith("failed") for alarm in seen.alarms)
    actions = [
        *sorted({run.action or "refit" for run in retrains}),
        *(["page a human"] if failed else []),
    ]
    return DrillReport(
        plan=plan,
        source=source,
        alarms_before=len(seen.alarms) - len(since),
        first_alarm=first_alarm,
        detection_delay_days=(date.fromisoformat(first_alarm.seen) - date.fromisoformat(onset)).days
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
        landed=sum(len(ids) for ids in wanted.values()),
        lost=lost,
        seconds=seconds,
    )


def _scores(settings: Settings, day: str) -> pd.DataFrame:
    """PD and version of each decision of a day, by customer; empty where there are none."""
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
def _stepped(site: Path, settings: Settings) -> Iterator[Loop]:
    loop = SteppedLoop.in_folder(site, settings)
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
        """Every sensor has ticked twice without asking for anything, and no run is under way."""
        landed = time.time()

        def quiet() -> bool:
            return not status.unfinished_runs(self.instance) and status.sensors_idle_since(
                self.instance, landed, ticks=2
            )

        self._wait(quiet)

    def _wait(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DAEMON_TIMEOUT_SECONDS
        while not happened():
            self.up.check()
            if time.monotonic() > deadline:
                raise DrillFailed(f"the loop did not settle within {DAEMON_TIMEOUT_SECONDS:.0f} s")
            time.sleep(0.5)


@contextmanager
def _daemon(site: Path, settings: Settings, environment: dict[str, str]) -> Iterator[Loop]:
    instance = status.open_instance(site)
    code_server, dagster, api = processes.reserved_ports(3)
    ports = processes.Ports(code_server, dagster, api, None)
    workspace = site / "data" / "workspace.yaml"
    processes.write_workspace(workspace, ports.code_server)
    since = time.time()
    wanted = processes.services(
        ports, workspace, settings.tracking_uri, lambda: status.daemon_is_up(instance, since)
    )
    with processes.running(wanted, site, environment, site / "data" / "logs", lambda _: None) as up:
        yield _WithDaemon(instance, up, ports.dagster)
