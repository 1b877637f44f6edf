"""The demo: runs the whole loop with real processes, from the first champion to its successor,
while a client calls the API.

It lands files, waits for sensors and assets, and checks their results. It makes no decision of its
own.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from creditrisk_assets import internal_http
from creditrisk_assets.decisions.archive import ApiDecisions, find_decision
from creditrisk_assets.decisions.replay import replay_decision, replay_set
from creditrisk_assets.decisions.sets import sets_of, stored_decision
from creditrisk_assets.defs import champion_records, status
from creditrisk_assets.defs.status import DagsterInstance
from creditrisk_assets.landing.history import read_history, simulator_of
from creditrisk_assets.landing.listing import land
from creditrisk_assets.monitoring.loop_status import DayStatus, RunStatus
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import Settings, today
from creditrisk_assets.simulation import processes
from creditrisk_assets.simulation.sandbox import fresh_sandbox
from creditrisk_assets.simulation.scenarios import (
    newcomers,
    redraw_outcomes,
    risk_index,
    weighted_sample,
)

STABLE_DAYS = 2
DRIFTED_DAYS = 2
STEP_TIMEOUT_SECONDS = 240.0
CLIENT_PAUSE_SECONDS = 0.1
POLL_SECONDS = 1.0
SEED = 20051001
REPORT_ROWS = 2_000

STABLE_SHARE, DRIFTED_SHARE = 0.1, 0.3
"""Share of the newcomers on each stable and each drifted day. The drifted days share no customer:
the promotion gate would count the latest day of each alone, and leave a biased sample.
"""

SIMULATED_CUSTOMERS = 24_000
MINIMUM_ROWS = 12_000
"""A smaller file leaves the drifted days too few held-out bads for the promotion gate."""


class DemoFailed(RuntimeError):
    """An expected event of the demo did not happen."""


COVARIATE_SHIFT = 1.0
CONCEPT_DRIFT = 0.5
"""On drifted days: log weight of a customer per standard deviation of risk, and share of outcomes
that depend on other features.
"""


@dataclass(frozen=True)
class Day:
    """A day to land."""

    day: str
    customers: pd.DataFrame
    drifted: bool


@dataclass
class Caller:
    """A client that calls `/predict` continuously and counts the answers."""

    url: str
    customer: dict[str, Any]
    answers: int = 0
    failures: int = 0
    last_failure: str = ""
    versions: dict[str, int] = field(default_factory=dict)
    last_by_version: dict[str, dict[str, Any]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Call until stopped."""
        with internal_http.direct_client(base_url=self.url, timeout=10) as client:
            while not self._stop.is_set():
                try:
                    response = client.post("/predict", json=self.customer)
                    body = response.raise_for_status().json()
                    version = f"v{body['model_version']}"
                    self.versions[version] = self.versions.get(version, 0) + 1
                    self.last_by_version[version] = body
                    self.answers += 1
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    self.failures += 1
                    self.last_failure = f"{type(error).__name__}: {error}"
                time.sleep(CLIENT_PAUSE_SECONDS)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Call from a background thread."""
        thread = threading.Thread(target=self.run, name="caller", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


def run_demo(console: Console, project: Path, data: Path | None) -> None:
    """Run the demo in its own store, `data/demo` of the project.

    Args:
        console: for the output.
        project: the project's folder.
        data: a CSV or Parquet file with the UCI columns; without one, simulated customers.

    Raises:
        DemoFailed: if an expected event did not happen.
    """
    portfolio = Settings().portfolio
    history, days = _customers(console, portfolio, data)
    folder = project / "data" / "demo"
    with fresh_sandbox(folder, project, history, REPORT_ROWS) as (sandbox, settings):
        code_server, dagster, api = processes.reserved_ports(3)
        ports = processes.Ports(code_server, dagster, api, None)
        urls = {
            "CREDITRISK_API_URL": ports.api_url,
            "CREDITRISK_DAGSTER_URL": ports.dagster_url,
            "CREDITRISK_MLFLOW_URL": "",
        }
        instance = status.open_instance(sandbox)
        console.rule("processes")
        with processes.loop_processes(
            sandbox, settings, ports, urls, lambda name: console.print(f"  {name}")
        ) as up:
            console.print(
                f"  to follow: Dagster UI {ports.dagster_url}, API {ports.api_url}, its page "
                f"{ports.api_url}/monitoring"
            )
            _Demo(console, instance, up, settings, ports, days).run()
    console.print(f"the store remains in {sandbox} until the next demo", style="dim")


@dataclass
class _Demo:
    console: Console
    instance: DagsterInstance
    up: processes.Running
    settings: Settings
    ports: processes.Ports
    days: list[Day]

    def run(self) -> None:
        stable = [day for day in self.days if not day.drifted]
        drifted = [day for day in self.days if day.drifted]
        self._before_any_champion()
        self._first_champion()
        caller = Caller(self.ports.api_url, self._customer())
        with caller.calling():
            self.console.rule("stable days")
            self._land_and_score(stable)
            self._outcomes(stable)
            self._expect(
                not self._retrains(), "no retrain on stable days", f"retrains: {self._retrains()}"
            )
            self.console.rule("drifted days (injected: riskier customers and concept drift)")
            self._land_and_score(drifted)
            self._outcomes(drifted)
            self._promotion()
            self._api_follows(caller)
            self._replay_decisions(caller)
        self._summary(caller)

    def _before_any_champion(self) -> None:
        self.console.rule("before the first champion")
        answer = internal_http.get(f"{self.ports.api_url}/ready")
        self._expect(
            answer.status_code == 503 and "Retry-After" in answer.headers,
            f"GET /ready answers 503: {answer.json()['detail']}",
            f"GET /ready answered {answer.status_code}: {answer.text}",
        )

    def _first_champion(self) -> None:
        self.console.rule("first champion")
        from dagster_graphql import DagsterGraphQLClient

        client = DagsterGraphQLClient(processes.HOST, port_number=self.ports.dagster)
        client.submit_job_execution("train", repository_location_name="creditrisk")
        self._until("job train: history to champion", lambda: bool(self._verdicts()))
        first = self._verdicts()[0]
        self._expect(
            first.verdict == "first", f"version {first.model_version}: {first.reason}", str(first)
        )
        self._until("API loads it", lambda: self._api_version() == first.model_version)
        self.console.print(
            f"  API answers with version {first.model_version}, bundle {first.bundle_sha256[:12]}"
        )

    def _land_and_score(self, days: list[Day]) -> None:
        for day in days:
            customers = day.customers.drop(columns=self.settings.portfolio.target)
            land(self.settings.landing_production / day.day, "customers.csv", customers)
            self.console.print(f"  landed {day.day}: {len(customers):,} customers")
        for day in days:
            self._until(
                f"{day.day} scored and checked",
                lambda day=day: self._day(day.day).drifted_columns is not None,  # type: ignore[misc]
            )
            self._until("its run ends", lambda day=day: not self._in_flight(day.day))  # type: ignore[misc]
            scored = self._day(day.day)
            drift_checks = [
                alarm.failure for alarm in scored.alarms if alarm.check.endswith("stable")
            ]
            self._expect(
                bool(drift_checks) == day.drifted,
                f"{day.day}: {scored.rows:,} rows by version {scored.model_version}, score PSI "
                f"{scored.score_psi:.3f}, {scored.drifted_columns} columns "
                f"drifted{', alarms: ' + ', '.join(drift_checks) if drift_checks else ''}",
                f"{day.day} (drift injected: {day.drifted}) gave the drift alarms {drift_checks}",
            )

    def _outcomes(self, days: list[Day]) -> None:
        for day in days:
            outcomes = day.customers[
                [self.settings.portfolio.identifier, self.settings.portfolio.target]
            ]
            land(self.settings.landing_outcomes / day.day, "outcomes.csv", outcomes)
        self.console.print(f"  landed the outcomes of {len(days)} days")
        for day in days:
            self._until(
                f"performance of {day.day}",
                lambda day=day: self._day(day.day).roc_auc is not None,  # type: ignore[misc]
            )
            matured = self._day(day.day)
            self.console.print(
                f"  {day.day}: AUC {matured.roc_auc:.4f} on {matured.matured:,} matured rows"
            )
        self._until("their runs end", lambda: not self._in_flight(None, "assess_performance"))

    def _promotion(self) -> None:
        self._until("the sensor starts a retrain", lambda: bool(self._retrains()))
        retrain = self._retrains()[0]
        self.console.print(f"  retrain {retrain.run_id[:8]} started because {retrain.cause}")
        self._until("verdict on the challenger", lambda: len(self._verdicts()) > 1)
        verdict = self._verdicts()[0]
        self._expect(
            verdict.verdict == "promoted",
            f"version {verdict.model_version}: {verdict.reason}",
            f"{verdict.reason}",
        )

    def _api_follows(self, caller: Caller) -> None:
        version = self._verdicts()[0].model_version
        start = time.monotonic()
        self._until("API serves the new champion", lambda: self._api_version() == version)
        self.console.print(
            f"  API answers with version {version} after {time.monotonic() - start:.1f} s, no "
            "restart"
        )
        before = caller.versions.get(f"v{version}", 0)
        self._until(
            "the client gets its answers", lambda: caller.versions.get(f"v{version}", 0) > before
        )

    def _replay_decisions(self, caller: Caller) -> None:
        self.console.rule("replay of decisions")
        day = self.days[0].day
        (decisions,) = sets_of(self.settings.decisions, day)
        bundles = BundleStore(self.settings.data_dir)
        replayed = replay_set(self.settings.decisions, bundles, decisions)
        self._expect(
            replayed.exact,
            f"{replayed.rows:,} decisions of {day} by version "
            f"{decisions.champion.model_version} are reproduced bit for bit",
            f"{day}: {replayed.different} decisions differ; {replayed.problem}",
        )
        identity = f"{day}-{decisions.name}-0"
        decision = replay_decision(bundles, *stored_decision(self.settings.decisions, identity))
        reasons = (
            "; ".join(f"{code}: {text}" for code, text in decision.reasons)
            or "nothing raises the risk"
        )
        probability = f"PD {decision.stored['default_probability']:.4f}"
        self.console.print(f"  decision {identity}: {probability}. {reasons}", soft_wrap=True)
        for version, answer in sorted(caller.last_by_version.items()):
            identity = answer["decision_id"]
            decision = replay_decision(
                bundles, *find_decision(ApiDecisions.of(self.settings), identity)
            )
            self._expect(
                decision.exact
                and decision.stored["default_probability"] == answer["default_probability"],
                f"the API's decision {identity} by {version} is in its log and is reproduced bit "
                "for bit",
                f"the API's decision {identity}: answer {answer}, stored {decision.stored}, now "
                f"{decision.now}",
            )
        wrong = [
            finding
            for finding in champion_records.verify(self.instance, self.settings, every_version=True)
            if not finding.holds
        ]
        self._expect(
            not wrong,
            "ledger, MLflow alias, Dagster asset and the bundles of both champions agree",
            "; ".join(f"{finding.claim}: {finding.observed}" for finding in wrong),
        )

    def _summary(self, caller: Caller) -> None:
        self.console.rule("summary")
        table = Table(
            "day", "rows", "drift injected", "drifted columns", "score PSI", "AUC", "champion"
        )
        for day in self.days:
            result = self._day(day.day)
            table.add_row(
                day.day,
                f"{result.rows:,}",
                "yes" if day.drifted else "no",
                str(result.drifted_columns),
                f"{result.score_psi:.3f}",
                f"{result.roc_auc:.4f}",
                f"v{result.model_version}",
            )
        self.console.print(table)
        for verdict in reversed(self._verdicts()):
            self.console.print(
                f"champion v{verdict.model_version} ({verdict.verdict}): {verdict.reason}"
            )
        by_version = ", ".join(
            f"{count:,} by {version}" for version, count in sorted(caller.versions.items())
        )
        self.console.print(
            f"API answers: {caller.answers:,} ({by_version}), failed: {caller.failures}"
        )
        self._expect(
            caller.failures == 0 and caller.answers > 0 and len(caller.versions) == 2,
            "every call was answered, by the old champion and then by the new one",
            f"{caller.failures} failed calls of {caller.answers}, last: {caller.last_failure}; "
            f"versions {caller.versions}",
        )
        self.console.print(
            "The days are synthetic: neither the UCI data nor the simulator has dates.", style="dim"
        )

    def _customer(self) -> dict[str, Any]:
        first = self.days[0].customers[self.settings.portfolio.field_names].head(1)
        record: dict[str, Any] = json.loads(first.to_json(orient="records"))[0]
        return record

    def _day(self, day: str) -> DayStatus:
        return status.day_status(self.instance, self.settings, day)

    def _verdicts(self) -> list[ChampionRecord]:
        return status.verdicts(self.instance)

    def _retrains(self) -> list[RunStatus]:
        return [run for run in status.runs(self.instance) if run.job == "retrain"]

    def _in_flight(self, day: str | None, job: str = "score_production") -> list[RunStatus]:
        unfinished = status.unfinished_runs(self.instance)
        return [run for run in unfinished if run.job == job and day in (None, run.day)]

    def _api_version(self) -> str | None:
        answer = internal_http.get(f"{self.ports.api_url}/ready")
        return str(answer.json()["model_version"]) if answer.status_code == httpx.codes.OK else None

    def _expect(self, holds: bool, message: str, failure: str) -> None:
        if not holds:
            raise DemoFailed(failure)
        self.console.print(f"  [green]✓[/green] {message}")

    def _until(self, event: str, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + STEP_TIMEOUT_SECONDS
        with self.console.status(f"waiting: {event}"):
            while not is_done():
                self.up.check()
                failed = status.failed_runs(self.instance)
                if failed:
                    raise DemoFailed(
                        f"run {failed[0].run_id} of {failed[0].job} failed; see "
                        f"{self.ports.dagster_url}"
                    )
                if time.monotonic() > deadline:
                    raise DemoFailed(f"not within {STEP_TIMEOUT_SECONDS:.0f} s: {event}")
                time.sleep(POLL_SECONDS)


def _customers(
    console: Console, portfolio: Portfolio, data: Path | None
) -> tuple[pd.DataFrame, list[Day]]:
    """The history, and days of its held-out customers."""
    if data is None:
        console.print(f"{SIMULATED_CUSTOMERS:,} simulated customers, seed {SEED}")
        customers = simulator_of(portfolio)(SIMULATED_CUSTOMERS, SEED, 1)
    else:
        history = read_history(str(data), portfolio)
        if len(history.rows.rejected):
            first = history.rows.rejected.iloc[0]
            raise DemoFailed(
                f"{data}, line {first['line']}: {first['message']} ({len(history.rows.rejected)} "
                "problems in all)"
            )
        customers = history.rows.accepted
        console.print(f"{data}: {len(customers):,} customers, SHA-256 {history.sha256[:16]}…")
    if len(customers) < MINIMUM_ROWS:
        raise DemoFailed(
            f"{len(customers):,} customers; valid: at least {MINIMUM_ROWS:,}, so that drifted "
            "days can be judged"
        )
    others = (
        newcomers(customers, portfolio).sample(frac=1, random_state=SEED).reset_index(drop=True)
    )
    days = []
    for position in range(STABLE_DAYS + DRIFTED_DAYS):
        drifted = position >= STABLE_DAYS
        rng = np.random.default_rng([SEED, position])
        pool = others[position % DRIFTED_DAYS :: DRIFTED_DAYS] if drifted else others
        weight = COVARIATE_SHIFT * risk_index(portfolio, pool) if drifted else np.zeros(len(pool))
        part = weighted_sample(
            pool, weight, round(len(others) * (DRIFTED_SHARE if drifted else STABLE_SHARE)), rng
        )
        name = (today() - timedelta(days=STABLE_DAYS + DRIFTED_DAYS - position)).isoformat()
        days.append(
            Day(
                name,
                redraw_outcomes(portfolio, part, CONCEPT_DRIFT, rng) if drifted else part,
                drifted,
            )
        )
    return customers, days
