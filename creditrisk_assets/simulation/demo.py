"""The demo: a drill of the scenario `campaign` with the daemon and a caller of the API, shown step
by step, from the first champion to its successor. Each step must give what the scenario expects.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from creditrisk_assets import internal_http
from creditrisk_assets.decisions.archive import ApiDecisions, find_decision
from creditrisk_assets.decisions.replay import replay_decision, replay_set
from creditrisk_assets.decisions.sets import sets_of, stored_decision
from creditrisk_assets.defs import champion_records
from creditrisk_assets.monitoring.loop_status import DayStatus, Event
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import Settings, today
from creditrisk_assets.simulation.caller import Caller
from creditrisk_assets.simulation.drill import Drill, DrillFailed, drill_in, population
from creditrisk_assets.simulation.drivers import with_daemon
from creditrisk_assets.simulation.processes import Ports
from creditrisk_assets.simulation.scenarios import (
    Arrival,
    Plan,
    arrivals,
    newcomers,
)

STABLE_DAYS, DRIFTED_DAYS = 2, 2
STABLE_SHARE = 0.1
"""Share of the held-out customers on a stable day; the scenario has three times as many on a
drifted day.
"""

SEED = 20051001
SIMULATED_CUSTOMERS = 24_000
MINIMUM_ROWS = 12_000
"""A smaller file leaves the drifted days too few held-out bads for the promotion gate."""

REPORT_ROWS = 2_000
ANSWER_TIMEOUT_SECONDS = 30.0


def run_demo(console: Console, project: Path, data: Path | None) -> None:
    """Run the demo in its own store, `data/demo` of the project.

    Args:
        console: for the output.
        project: the project's folder.
        data: a CSV or Parquet file with the UCI columns; without one, simulated customers.

    Raises:
        DrillFailed: if an expected event did not happen.
    """
    portfolio, ports = Settings().portfolio, Ports.reserved()
    history, _, source = population(portfolio, data, SIMULATED_CUSTOMERS, SEED)
    console.print(f"customers: {source}; seed {SEED}", soft_wrap=True)
    if len(history) < MINIMUM_ROWS:
        raise DrillFailed(
            f"{len(history):,} customers; valid: at least {MINIMUM_ROWS:,}, so that drifted days "
            "can be judged"
        )
    plan, files = campaign(portfolio, history)
    driver = with_daemon(ports, lambda name: console.print(f"  {name}"))
    console.rule("processes")
    with drill_in(project / "data" / "demo", project, history, REPORT_ROWS, driver) as drill:
        console.print(
            f"  to follow: Dagster UI {ports.dagster_url}, API {ports.api_url}, its page "
            f"{ports.api_url}/monitoring"
        )
        _Demo(console, drill, ports, plan, files).run()
    console.print(f"the store remains in {drill.home} until the next demo", style="dim")


def campaign(portfolio: Portfolio, history: pd.DataFrame) -> tuple[Plan, list[Arrival]]:
    """The days up to yesterday and their files, of the held-out customers of a history."""
    others = newcomers(history, portfolio).sample(frac=1, random_state=SEED)
    days = STABLE_DAYS + DRIFTED_DAYS
    plan = Plan(
        "campaign",
        start=today() - timedelta(days=days),
        days=days,
        rows=round(len(others) * STABLE_SHARE),
        strength=1,
        seed=SEED,
        onset=STABLE_DAYS,
        outcomes_after_days=1,
    )

    def draw(ordinal: int, _rows: int, _rng: np.random.Generator) -> pd.DataFrame:
        """Drifted days share no customer: the promotion gate counts the latest day of a customer
        alone, which would leave it a biased sample.
        """
        return others[(ordinal - plan.start.toordinal()) % DRIFTED_DAYS :: DRIFTED_DAYS]

    return plan, [file for _, files in arrivals(plan, portfolio, draw) for file in files]


@dataclass
class _Demo:
    console: Console
    drill: Drill
    ports: Ports
    plan: Plan
    files: Sequence[Arrival]

    def run(self) -> None:
        self._first_champion()
        names = self.drill.settings.portfolio.field_names
        caller = Caller.of(self.ports.api_url, self.files[0].rows[names])
        with caller.calling():
            self.console.rule("stable days")
            self._land(drifted=False)
            retrains = self._retrains()
            self._expect(not retrains, "no retrain on stable days", f"retrains: {retrains}")
            self.console.rule("drifted days (injected: riskier customers and concept drift)")
            self._land(drifted=True)
            self._promotion(caller)
            self.console.rule("replay of decisions")
            self._replay_decisions(caller)
        self.console.rule("summary")
        self._summary(caller)

    def _first_champion(self) -> None:
        self.console.rule("before the first champion")
        answer = internal_http.get(f"{self.ports.api_url}/ready")
        self._expect(
            answer.status_code == 503 and "Retry-After" in answer.headers,
            f"GET /ready answers 503: {answer.json()['detail']}",
            f"GET /ready answered {answer.status_code}: {answer.text}",
        )
        self.console.rule("first champion")
        with self.console.status("waiting: job train, from history to champion"):
            first = self.drill.train()
        self._expect(
            first.verdict == "first", f"version {first.model_version}: {first.reason}", str(first)
        )
        self.console.print(
            f"  API answers with version {first.model_version}, bundle {first.bundle_sha256[:12]}"
        )

    def _land(self, drifted: bool) -> None:
        """Land the days before the onset, or those from it on, all at once; then their outcomes."""
        files = [file for file in self.files if self._is_drifted(file.day) == drifted]
        for day in self._settle([file for file in files if file.zone == "production"]):
            checks = [alarm.failure for alarm in day.alarms if alarm.check.endswith("stable")]
            self._expect(
                bool(checks) == drifted,
                f"{day.day}: {day.rows:,} rows by version {day.model_version}, score PSI "
                f"{day.score_psi:.3f}, {day.drifted_columns} columns "
                f"drifted{', alarms: ' + ', '.join(checks) if checks else ''}",
                f"{day.day} (drift injected: {drifted}) gave the drift alarms {checks}",
            )
        for day in self._settle([file for file in files if file.zone == "outcomes"]):
            self.console.print(
                f"  {day.day}: AUC {day.roc_auc:.4f} on {day.matured:,} matured rows"
            )

    def _settle(self, files: list[Arrival]) -> list[DayStatus]:
        """Land files, wait for the loop, and return the status of their days."""
        for file in files:
            what = "customers" if file.zone == "production" else "outcomes"
            self.console.print(f"  landed {file.day}: {len(file.rows):,} {what}")
        with self.console.status("waiting: sensors and runs"):
            alarms = self.drill.land(files[-1].day, files)
        failed = [alarm.what for alarm in alarms if alarm.is_run]
        if failed:
            raise DrillFailed(f"{', '.join(failed)}; see {self.ports.dagster_url}")
        landed = {file.day for file in files}
        days = [day for day in self.drill.status().days if day.day in landed]
        figure = "score_psi" if files[0].zone == "production" else "roc_auc"
        missing = landed - {day.day for day in days if getattr(day, figure) is not None}
        if missing:
            raise DrillFailed(
                f"no {figure} of {', '.join(sorted(missing))}; see {self.ports.dagster_url}"
            )
        return days

    def _is_drifted(self, day: str) -> bool:
        return day >= self.plan.date(self.plan.onset)

    def _promotion(self, caller: Caller) -> None:
        retrains = self._retrains()
        if not retrains:
            raise DrillFailed("no retrain on drifted days")
        retrain = retrains[0]
        version = str(retrain.model_version)
        self.console.print(
            f"  retrain {(retrain.run_id or '')[:8]} started because {retrain.cause}"
        )
        self._expect(retrain.kind == "promoted", f"version {version}: {retrain.text}", retrain.text)
        deadline = time.monotonic() + ANSWER_TIMEOUT_SECONDS
        while version not in caller.first_at:
            if time.monotonic() > deadline:
                raise DrillFailed(f"no answer by version {version}; {caller.failures[-1:]}")
            time.sleep(0.1)
        self.console.print(
            f"  API answers with version {version} after "
            f"{caller.first_at[version] - retrain.at:.1f} s, no restart"
        )

    def _replay_decisions(self, caller: Caller) -> None:
        settings, day = self.drill.settings, self.plan.date(0)
        (decisions,) = sets_of(settings.decisions, day)
        bundles = BundleStore(settings.data_dir)
        replayed = replay_set(settings.decisions, bundles, decisions)
        self._expect(
            replayed.exact,
            f"{replayed.rows:,} decisions of {day} by version "
            f"{decisions.champion.model_version} are reproduced bit for bit",
            f"{day}: {replayed.different} decisions differ; {replayed.problem}",
        )
        identity = f"{day}-{decisions.name}-0"
        decision = replay_decision(bundles, *stored_decision(settings.decisions, identity))
        reasons = (
            "; ".join(f"{code}: {text}" for code, text in decision.reasons)
            or "nothing raises the risk"
        )
        probability = f"PD {decision.stored['default_probability']:.4f}"
        self.console.print(f"  decision {identity}: {probability}. {reasons}", soft_wrap=True)
        for version, answer in sorted(caller.last.items()):
            identity = answer["decision_id"]
            decision = replay_decision(bundles, *find_decision(ApiDecisions.of(settings), identity))
            self._expect(
                decision.exact
                and decision.stored["default_probability"] == answer["default_probability"],
                f"the API's decision {identity} by v{version} is in its log and is reproduced bit "
                "for bit",
                f"the API's decision {identity}: answer {answer}, stored {decision.stored}, now "
                f"{decision.now}",
            )
        findings = champion_records.verify(self.drill.loop.instance, settings, every_version=True)
        wrong = [
            f"{finding.claim}: {finding.observed}" for finding in findings if not finding.holds
        ]
        self._expect(
            not wrong,
            "ledger, MLflow alias, Dagster asset and the bundles of both champions agree",
            "; ".join(wrong),
        )

    def _summary(self, caller: Caller) -> None:
        table = Table(
            "day", "rows", "drift injected", "drifted columns", "score PSI", "AUC", "champion"
        )
        status = self.drill.status()
        for day in status.days:
            table.add_row(
                day.day,
                f"{day.rows:,}",
                "yes" if self._is_drifted(day.day) else "no",
                str(day.drifted_columns),
                f"{day.score_psi:.3f}",
                f"{day.roc_auc:.4f}",
                f"v{day.model_version}",
            )
        self.console.print(table)
        for event in reversed(status.events):
            self.console.print(f"champion v{event.model_version} ({event.kind}): {event.text}")
        answers, failed = caller.answers, caller.failures
        by_version = ", ".join(f"{answers[name]:,} by v{name}" for name in sorted(answers))
        self.console.print(
            f"API answers: {answers.total():,} ({by_version}), failed: {len(failed)}"
        )
        self._expect(
            not failed and len(answers) == 2,
            "every call was answered, by the old champion and then by the new one",
            f"{len(failed)} calls failed, the last: {failed[-1:]}; answers: {by_version}",
        )
        self.console.print(
            "The days are synthetic: neither the UCI data nor the simulator has dates.", style="dim"
        )

    def _retrains(self) -> list[Event]:
        return [event for event in self.drill.status().events if event.action]

    def _expect(self, holds: bool, message: str, failure: str) -> None:
        if not holds:
            raise DrillFailed(failure)
        self.console.print(f"  [green]✓[/green] {message}")
