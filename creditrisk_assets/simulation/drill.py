"""The drill, an acceptance test of the loop: lands a scenario day by day, lets sensors and jobs
respond, and reports their response. It makes no decision of its own.

The demo is a drill too, over days of its own (`demo`). `drivers` has the loop that both wait for.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from creditrisk_assets.defs import status
from creditrisk_assets.defs.io import stored_path
from creditrisk_assets.landing.history import read_valid_history, simulator_of
from creditrisk_assets.monitoring.check_catalogue import BY_CHECK
from creditrisk_assets.monitoring.loop_status import LoopStatus
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.settings import Settings
from creditrisk_assets.simulation import drivers
from creditrisk_assets.simulation.processes import Ports
from creditrisk_assets.simulation.sandbox import fresh_sandbox
from creditrisk_assets.simulation.scenarios import (
    SCENARIOS,
    Arrival,
    Draw,
    Plan,
    arrivals,
    customers_of,
    land_arrival,
    newcomers,
    simulated_customers,
)

START = date(2025, 1, 1)
"""The first day of every drill, an arbitrary one."""

HISTORY_ROWS = 20_000
NO_PICTURES = 0
"""No Evidently reports: they take four fifths of a day's time and are not used in a drill."""


class DrillFailed(RuntimeError):
    """The drill could not run, or an expected event did not happen."""


@dataclass(frozen=True)
class Alarm:
    """A failed check, or a failed run, with its day and the day on which it appeared."""

    found_on: str
    what: str
    day: str
    is_run: bool


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


def population(
    portfolio: Portfolio, data: Path | None, rows: int, seed: int
) -> tuple[pd.DataFrame, Draw, str]:
    """The history, the draw of the days, and their source in words: a file, whose held-out
    customers come day by day, or so many simulated customers, and others day by day.
    """
    if data is None:
        history = simulator_of(portfolio)(rows, seed, 1)
        source = f"simulated, history of {rows:,} customers"
        return history, simulated_customers(portfolio), source
    read = read_valid_history(str(data), portfolio)
    others = newcomers(read.rows.accepted, portfolio)
    source = (
        f"{data.name}, SHA-256 {read.sha256[:16]}…, {len(others):,} of its "
        f"{len(read.rows.accepted):,} customers held out for the days"
    )
    return read.rows.accepted, customers_of(others), source


@dataclass
class Drill:
    """A drill in progress.

    Attributes:
        home: folder of its sandbox.
        settings: of its store.
        loop: over its store.
        alarms: so far.
        customers: identifiers of the landed customers, by day.
        outcomes: landed outcomes of customers, by day.
    """

    home: Path
    settings: Settings
    loop: drivers.Loop
    alarms: list[Alarm] = field(default_factory=list)
    customers: dict[str, set[str]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)

    def train(self) -> ChampionRecord:
        """Train the first champion from the history.

        Raises:
            DrillFailed: if there is none afterwards.
        """
        self.loop.train()
        champion = status.champion_in_force(self.loop.instance)
        if champion is None:
            raise DrillFailed(f"no first champion; see the runs in {self.home}")
        return champion

    def land(self, today: str, files: Sequence[Arrival]) -> list[Alarm]:
        """Land files, wait until the loop has responded, and return its new alarms."""
        portfolio = self.settings.portfolio
        for arrival in files:
            land_arrival(self.settings, arrival)
            identifiers = arrival.rows[portfolio.identifier].astype(str).tolist()
            if arrival.zone == "production":
                self.customers.setdefault(arrival.day, set()).update(identifiers)
            else:
                self.outcomes.setdefault(arrival.day, {}).update(
                    zip(identifiers, arrival.rows[portfolio.target].tolist(), strict=True)
                )
        if not files:
            return []
        self.loop.settle()
        alarms = self._new_alarms(today)
        self.alarms += alarms
        return alarms

    def status(self) -> LoopStatus:
        """The status of the loop."""
        return status.loop_status(self.loop.instance, self.settings)

    def _new_alarms(self, today: str) -> list[Alarm]:
        instance = self.loop.instance
        failures = [
            (BY_CHECK[evaluation.check].failure, evaluation.partition or "", False)
            for evaluation in status.failed_checks(instance)
        ] + [
            (f"{run.job} failed", run.day or "", True)
            for run in status.failed_runs(instance, 1_000)
        ]
        old = {(alarm.what, alarm.day, alarm.is_run) for alarm in self.alarms}
        return [Alarm(today, *failure) for failure in dict.fromkeys(failures) if failure not in old]


@contextmanager
def drill_in(
    folder: Path, project: Path, history: pd.DataFrame, report_rows: int, driver: drivers.Driver
) -> Iterator[Drill]:
    """Start a loop in a fresh sandbox. The arguments are those of `fresh_sandbox`, and the driver
    of the loop.
    """
    with (
        fresh_sandbox(folder, project, history, report_rows) as (home, settings),
        driver(home, settings) as loop,
    ):
        yield Drill(home, settings, loop)


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
        data: a file of customers with outcomes; without one, the portfolio's simulator.
        daemon: use the real daemon and processes instead of the loop in this process.
        on_progress: called with days done, days in all, and the new alarms.
        history_rows: simulated customers for the first champion.

    Raises:
        DrillFailed: if there is no first champion.
    """
    start = time.monotonic()
    portfolio = Settings().portfolio
    history, draw, source = population(portfolio, data, history_rows, plan.seed)
    driver = drivers.with_daemon(Ports.reserved(), lambda _: None) if daemon else drivers.stepped
    folder = project / "data" / "drill" / plan.scenario
    with drill_in(folder, project, history, NO_PICTURES, driver) as drill:
        drill.train()
        last_day = plan.days + plan.outcomes_after_days
        for done, (day, files) in enumerate(arrivals(plan, portfolio, draw), start=1):
            alarms = drill.land(day, files)
            on_progress(
                done, last_day, "; ".join(f"{alarm.what} on {alarm.day}" for alarm in alarms)
            )
        return _report(plan, source, drill, time.monotonic() - start)


def cells(report: DrillReport) -> dict[str, str]:
    """The report as a row of a table, by the column's header."""
    alarm, delay = report.first_alarm, report.detection_delay_days
    aucs = (report.auc_before, report.auc_disturbed, report.auc_after)
    gaps = (report.gap_disturbed, report.gap_after)
    return {
        "scenario": report.plan.scenario,
        "expected": SCENARIOS[report.plan.scenario].expected,
        "done": ", ".join(report.actions),
        "first alarm since the onset": f"{alarm.what} on {alarm.day}" if alarm else "none",
        "delay, days": "" if delay is None else str(delay),
        "alarms before": str(report.alarms_before),
        "retrains / promotions": f"{report.retrains} / {report.promotions}",
        "AUC before → disturbed → successor": " → ".join(
            f"{auc:.3f}" for auc in aucs if not np.isnan(auc)
        ),
        "bad rate minus mean PD, disturbed → successor": " → ".join(
            f"{gap:+.3f}" for gap in gaps if not np.isnan(gap)
        ),
        "decisions lost": f"{report.lost} of {report.landed:,}",
    }


def markdown(reports: Sequence[DrillReport]) -> str:
    """The drills as a Markdown page, with its command."""
    plan, seconds = reports[0].plan, sum(report.seconds for report in reports)
    command = (
        f"creditrisk drill {plan.scenario if len(reports) == 1 else 'all'} --days {plan.days} "
        f"--rows {plan.rows} --strength {plan.strength:g} --seed {plan.seed}"
    )
    rows = [cells(report) for report in reports]
    lines = [
        "# Drills: what the loop does by itself",
        "",
        f"Made by `{command}`: one run of each scenario, {seconds:.0f} s in all. Customers: "
        f"{reports[0].source}.",
        f"Days are stepped; a disturbance begins on day {plan.onset}, outcomes land "
        f"{plan.outcomes_after_days} days after the day of the decision. All days are synthetic.",
        "",
        f"| {' | '.join(rows[0])} |",
        "|" + "---|" * len(rows[0]),
        *(f"| {' | '.join(row.values())} |" for row in rows),
        "",
        "The scenarios:",
        "",
        *(
            f"- `{report.plan.scenario}`: {SCENARIOS[report.plan.scenario].happens}."
            for report in reports
        ),
    ]
    return "\n".join(lines) + "\n"


def _report(plan: Plan, source: str, drill: Drill, seconds: float) -> DrillReport:
    onset, instance = plan.date(plan.onset), drill.loop.instance
    scored = {day: _scores(drill.settings, day) for day in sorted(drill.customers)}
    decided = pd.concat(
        [
            frame.assign(
                day=day,
                bad=pd.Series(drill.outcomes.get(day, {}), dtype="float64").reindex(frame.index),
            )
            for day, frame in scored.items()
        ]
    ).dropna(subset=["bad"])
    before = decided["day"] < onset
    first_version = decided["model_version"].iloc[0] if len(decided) else None
    of_first = decided["model_version"] == first_version
    # An alarm about the champion or a job has no day.
    since = [alarm for alarm in drill.alarms if (alarm.day or alarm.found_on) >= onset]
    first_alarm = min(since, key=lambda alarm: (alarm.found_on, alarm.day), default=None)
    retrains = [run for run in status.runs(instance, limit=10_000) if run.job == "retrain"]
    actions = sorted({run.action or "refit" for run in retrains})
    if any(alarm.is_run for alarm in drill.alarms):
        actions.append("page a human")
    return DrillReport(
        plan=plan,
        source=source,
        alarms_before=len(drill.alarms) - len(since),
        first_alarm=first_alarm,
        detection_delay_days=(
            date.fromisoformat(first_alarm.found_on) - date.fromisoformat(onset)
        ).days
        if first_alarm
        else None,
        actions=tuple(actions) or ("nothing",),
        retrains=len(retrains),
        promotions=sum(
            verdict.verdict == "promoted" for verdict in status.verdicts(instance, limit=1_000)
        ),
        auc_before=_auc(decided[before]),
        auc_disturbed=_auc(decided[~before & of_first]),
        auc_after=_auc(decided[~before & ~of_first]),
        gap_disturbed=_gap(decided[~before & of_first]),
        gap_after=_gap(decided[~before & ~of_first]),
        landed=sum(len(customers) for customers in drill.customers.values()),
        lost=sum(
            len(customers - set(scored[day].index)) for day, customers in drill.customers.items()
        ),
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
