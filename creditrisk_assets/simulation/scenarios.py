"""Scenarios that test the loop: customers, outcomes, files and arrival times of synthetic days.

They work on customers of any portfolio, simulated or from a file. The portfolio's features and
their monotone directions decide which customers are drawn, so this module names no column.
"""

import datetime
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from upath import UPath

from creditrisk_assets.landing.history import simulator_of
from creditrisk_assets.landing.listing import land
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.portfolio.encoding import raw_matrix
from creditrisk_assets.portfolio.sampling import is_held_out
from creditrisk_assets.settings import Settings

FloatArray = NDArray[np.float64]
Zone = Literal["production", "outcomes"]

POOL = 4
"""Simulated customers per customer of a day: the pool that a day is drawn from."""

NEWCOMER = "new_"
"""Prefix of the identifier of a customer of the history who comes as a new one."""

SEASON_DAYS = 30
CONCEPT_STEEPNESS = 3
"""Under concept drift the PD of a customer grows with this power of the new risk rank."""


@dataclass(frozen=True)
class Scenario:
    """A disturbance and the expected response of the loop."""

    name: str
    happens: str
    expected: str


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("stable", "the same population every day", "nothing"),
        Scenario(
            "covariate-shift",
            "riskier customers come; defaults depend on the customer as before",
            "an alarm",
        ),
        Scenario(
            "prior-shift",
            "the odds of default double; bads and goods look as before",
            "an alarm, recalibrate",
        ),
        Scenario(
            "concept-drift",
            "the same customers come; half of the outcomes depend on other features",
            "refit",
        ),
        Scenario(
            "seasonal", "a mild shift that comes and goes every 30 days", "nothing, or an alarm"
        ),
        Scenario(
            "schema-break",
            "files lose, rename or reformat a column, and arrive again whole",
            "blocked days, page a human",
        ),
        Scenario("late-outcomes", "outcomes arrive late, in two parts, some corrected", "nothing"),
        Scenario("outage", "no files for some days, which arrive later", "nothing lost"),
        Scenario("burst", "one day with ten times the customers, in several files", "nothing"),
        Scenario(
            "campaign",
            "three times the customers come, riskier ones; half of their outcomes depend on other "
            "features",
            "an alarm, refit",
        ),
    )
}


@dataclass(frozen=True)
class Arrival:
    """A file that lands, with its zone, day and name."""

    zone: Zone
    day: str
    name: str
    rows: pd.DataFrame


@dataclass(frozen=True)
class Plan:
    """A scenario over days.

    Attributes:
        scenario: its name.
        start: the first day.
        days: number of days with customers; outcomes follow after them.
        rows: customers a day.
        strength: 0 is no disturbance, 1 a practical one.
        seed: the same seed gives the same files.
        onset: first day of the disturbance, counted from 0.
        outcomes_after_days: days from a decision to its outcome.
    """

    scenario: str
    start: datetime.date
    days: int
    rows: int
    strength: float
    seed: int
    onset: int
    outcomes_after_days: int

    def date(self, offset: int) -> str:
        """The day at an offset from the start."""
        return (self.start + datetime.timedelta(days=offset)).isoformat()


Draw = Callable[[int, int, np.random.Generator], pd.DataFrame]
"""Gives a pool of customers for a day: `(ordinal of the day, rows, rng)` to identifier, fields and
target.
"""


def simulated_customers(portfolio: Portfolio) -> Draw:
    """A draw of new simulated customers every day.

    Raises:
        ValueError: if the portfolio has no simulator.
    """
    simulate = simulator_of(portfolio)
    return lambda ordinal, rows, rng: simulate(
        rows * POOL, int(rng.integers(2**31)), ordinal * 10_000_000
    )


def customers_of(frame: pd.DataFrame) -> Draw:
    """A draw of the customers of a file, each on many days and at most once a day.

    Raises:
        ValueError: by the draw, if a day needs more customers than the file has.
    """

    def draw(_ordinal: int, rows: int, _rng: np.random.Generator) -> pd.DataFrame:
        if rows > len(frame):
            raise ValueError(
                f"a day has {rows:,} customers; valid: at most the {len(frame):,} of the file"
            )
        return frame

    return draw


def newcomers(history: pd.DataFrame, portfolio: Portfolio) -> pd.DataFrame:
    """The held-out customers of a history, as new customers that no model was trained on.

    Each gets another, fixed identifier: under their own, all of them would be held out of the
    challengers' training too.

    Args:
        history: identifier, fields and target.
        portfolio: of the customers.
    """
    held_out = history[is_held_out(history[portfolio.identifier])].reset_index(drop=True)
    return held_out.assign(
        **{portfolio.identifier: NEWCOMER + held_out[portfolio.identifier].astype(str)}
    )


def arrivals(plan: Plan, portfolio: Portfolio, draw: Draw) -> Iterator[tuple[str, list[Arrival]]]:
    """The files of each day, from the first day to the last outcome.

    Args:
        plan: the scenario.
        portfolio: of the customers.
        draw: source of the customers.

    Yields:
        The day of landing and its files, which may be of earlier days.
    """
    waiting: dict[int, list[Arrival]] = {}
    for offset in range(plan.days):
        customers = day_of_customers(plan, portfolio, draw, offset)
        for when, arrival in (
            *_files_of_day(plan, portfolio, offset, customers),
            *_outcomes(plan, portfolio, offset, customers),
        ):
            waiting.setdefault(when, []).append(arrival)
        yield plan.date(offset), waiting.pop(offset, [])
    for offset in range(plan.days, max(waiting, default=-1) + 1):
        yield plan.date(offset), waiting.pop(offset, [])


def land_arrival(settings: Settings, arrival: Arrival) -> UPath:
    """Write a file into its landing zone."""
    production = arrival.zone == "production"
    zone = settings.landing_production if production else settings.landing_outcomes
    return land(zone / arrival.day, arrival.name, arrival.rows)


def day_of_customers(plan: Plan, portfolio: Portfolio, draw: Draw, offset: int) -> pd.DataFrame:
    """The customers of a day with their future outcomes."""
    rng = np.random.default_rng([plan.seed, offset])
    strength = plan.strength if offset >= plan.onset else 0.0
    rows = plan.rows
    if plan.scenario == "burst" and offset == plan.onset:
        rows = round(rows * (1 + 9 * strength))
    elif plan.scenario == "campaign":
        rows = round(rows * (1 + 2 * strength))
    pool = draw(plan.start.toordinal() + offset, rows, rng)
    log_weight = np.zeros(len(pool))
    if plan.scenario in ("covariate-shift", "campaign"):
        log_weight = strength * risk_index(portfolio, pool)
    elif plan.scenario == "seasonal":
        season = 0.3 * strength * math.sin(2 * math.pi * (offset - plan.onset) / SEASON_DAYS)
        log_weight = season * risk_index(portfolio, pool)
    elif plan.scenario == "prior-shift":
        log_weight = math.log1p(strength) * pool[portfolio.target].to_numpy(dtype=np.float64)
    customers = weighted_sample(pool, log_weight, rows, rng)
    if plan.scenario in ("concept-drift", "campaign"):
        # The day's own bad rate would count its chance twice; riskier customers have another one.
        bad_rate = (
            float(pool[portfolio.target].mean()) if plan.scenario == "concept-drift" else None
        )
        customers = redraw_outcomes(portfolio, customers, min(1.0, 0.5 * strength), rng, bad_rate)
    return customers


def weighted_sample(
    pool: pd.DataFrame, log_weight: FloatArray, rows: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Draw a weighted sample without replacement (the largest of log weight plus Gumbel noise)."""
    order = np.argsort(-(log_weight + rng.gumbel(size=len(pool))), kind="stable")
    return pool.iloc[np.sort(order[:rows])].reset_index(drop=True)


def risk_index(portfolio: Portfolio, customers: pd.DataFrame) -> FloatArray:
    """Risk of each customer by the features with a monotone direction: mean rank, in standard
    deviations.
    """
    return _mean_rank(portfolio, customers, [feature.monotone for feature in portfolio.features])


def redraw_outcomes(
    portfolio: Portfolio,
    customers: pd.DataFrame,
    share: float,
    rng: np.random.Generator,
    bad_rate: float | None = None,
) -> pd.DataFrame:
    """Draw a share of the outcomes again at the same bad rate, by the features without a monotone
    direction; if all have one, by the opposite directions.

    Args:
        portfolio: of the customers.
        customers: with their outcomes.
        share: of the outcomes.
        rng: of the draw.
        bad_rate: of the new outcomes; by default the customers' own.
    """
    other = [int(feature.monotone == 0) for feature in portfolio.features]
    weights = other if any(other) else [-feature.monotone for feature in portfolio.features]
    rank = _ranks(_mean_rank(portfolio, customers, weights)[:, None])[:, 0] + 0.5
    bad_rate = float(customers[portfolio.target].mean()) if bad_rate is None else bad_rate
    pd_now = np.minimum(bad_rate * (CONCEPT_STEEPNESS + 1) * rank**CONCEPT_STEEPNESS, 1.0)
    drawn = rng.random(len(customers)) < pd_now
    redrawn = rng.random(len(customers)) < share
    target = np.where(redrawn, drawn, customers[portfolio.target].to_numpy()).astype(np.int64)
    return customers.assign(**{portfolio.target: target})


def _mean_rank(portfolio: Portfolio, customers: pd.DataFrame, weights: Sequence[int]) -> FloatArray:
    with np.errstate(all="ignore"):
        matrix = np.asarray(
            portfolio.compute_features(raw_matrix(customers, portfolio.fields)), dtype=np.float64
        )
    index = _ranks(matrix) @ np.array(weights, dtype=np.float64)
    spread = float(index.std())
    return np.asarray((index - index.mean()) / spread if spread > 0 else np.zeros(len(index)))


def _ranks(matrix: FloatArray) -> FloatArray:
    """Ranks of each column as shares, centred on 0; ties get their mean rank, missing values the
    middle.
    """
    ranks = pd.DataFrame(matrix).rank(pct=True).fillna(0.5).to_numpy(dtype=np.float64)
    return np.asarray(ranks - 0.5)


def _files_of_day(
    plan: Plan, portfolio: Portfolio, offset: int, customers: pd.DataFrame
) -> list[tuple[int, Arrival]]:
    """A day's production files, each with the offset of the day on which it lands."""
    day = plan.date(offset)
    fields = customers.drop(columns=portfolio.target)
    whole = Arrival("production", day, "customers.csv", fields)
    since = offset - plan.onset
    if plan.scenario == "burst" and since == 0:
        parts = np.array_split(np.arange(len(fields)), 4)
        rows = [fields.iloc[part].reset_index(drop=True) for part in parts]
        return [
            (offset, Arrival("production", day, f"customers-{place}.csv", part))
            for place, part in enumerate(rows, start=1)
        ]
    broken_days = max(1, round(3 * plan.strength)) if plan.strength > 0 else 0
    if plan.scenario == "schema-break" and 0 <= since < broken_days:
        broken = Arrival("production", day, "customers.csv", _broken(portfolio, fields, since))
        return [(offset, broken), (plan.onset + broken_days, whole)]
    missing_days = round(5 * plan.strength)
    if plan.scenario == "outage" and 0 <= since < missing_days:
        return [(plan.onset + missing_days + 5, whole)]
    return [(offset, whole)]


def _broken(portfolio: Portfolio, fields: pd.DataFrame, kind: int) -> pd.DataFrame:
    """The fields with the first one lost, renamed, or with a unit after each number."""
    name = portfolio.field_names[0]
    if kind % 3 == 0:
        return fields.drop(columns=name)
    if kind % 3 == 1:
        return fields.rename(columns={name: f"new_{name}"})
    return fields.assign(**{name: fields[name].astype(str) + " units"})


def _outcomes(
    plan: Plan, portfolio: Portfolio, offset: int, customers: pd.DataFrame
) -> list[tuple[int, Arrival]]:
    """A day's outcomes, each file with the offset of the day on which it lands."""
    day = plan.date(offset)
    labels = customers[[portfolio.identifier, portfolio.target]]
    due = offset + plan.outcomes_after_days
    if plan.scenario != "late-outcomes" or offset < plan.onset:
        return [(due, Arrival("outcomes", day, "outcomes.csv", labels))]
    delay = round(20 * plan.strength)
    half = len(labels) // 2
    wrong = labels.iloc[: max(1, half // 20)]
    mistaken = wrong.assign(**{portfolio.target: 1 - wrong[portfolio.target]})
    first = pd.concat([mistaken, labels.iloc[len(wrong) : half]])
    return [
        (due, Arrival("outcomes", day, "outcomes-1.csv", first)),
        (due + delay, Arrival("outcomes", day, "outcomes-2.csv", labels.iloc[half:])),
        (due + delay, Arrival("outcomes", day, "outcomes-3-corrections.csv", wrong)),
    ]
