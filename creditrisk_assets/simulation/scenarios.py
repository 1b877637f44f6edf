"""Days that put the loop to the test: who comes, what makes them default, what their files look
like, and when they arrive.

Everything is done to customers of any portfolio, simulated or from a file, by what the portfolio
says of itself: whom to draw is decided by its features and their monotone directions, so no column
is named here. The days are synthetic.
"""

import datetime
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditrisk_assets.landing.history import simulator_of
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.portfolio.encoding import raw_matrix
from creditrisk_assets.portfolio.sampling import is_held_out

FloatArray = NDArray[np.float64]
Zone = Literal["production", "outcomes"]

POOL = 4
"""Simulated customers drawn for each one that comes, so that who comes can be chosen."""

NEWCOMER = "new_"
"""Before the identifier of a customer of the history who comes as a new one."""

SEASON_DAYS = 30
CONCEPT_STEEPNESS = 3
"""Under a new concept the PD of a customer grows with this power of the rank in what now
decides.
"""


@dataclass(frozen=True)
class Scenario:
    """What happens, and what a good loop does about it."""

    name: str
    happens: str
    wanted: str


SCENARIOS = {
    one.name: one
    for one in (
        Scenario("stable", "the same population every day", "nothing"),
        Scenario(
            "covariate-shift",
            "riskier customers come; who defaults is decided as before",
            "an alarm",
        ),
        Scenario(
            "prior-shift",
            "the odds of default double; bads and goods look as before",
            "an alarm, recalibrate",
        ),
        Scenario(
            "concept-drift",
            "the same customers come; half of the outcomes are decided by something else",
            "refit",
        ),
        Scenario(
            "seasonal", "a mild shift that comes and goes every 30 days", "nothing, or an alarm"
        ),
        Scenario(
            "schema-break",
            "files lose, rename or reformat a column, and are sent again whole",
            "blocked days, page a human",
        ),
        Scenario("late-outcomes", "outcomes arrive late, in two parts, some corrected", "nothing"),
        Scenario("outage", "no files for some days, which are sent later", "nothing lost"),
        Scenario("burst", "one day with ten times the customers, in several files", "nothing"),
    )
}


@dataclass(frozen=True)
class Arrival:
    """A file that lands: in which zone, for which day, under which name."""

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
        days: how many days of customers; outcomes follow after them.
        rows: customers a day.
        strength: 0 is no disturbance, 1 a practical one.
        seed: the same seed lands the same files.
        onset: the disturbance begins on this day, counted from 0.
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
"""Gives customers to choose so many from: `(ordinal of the day, rows, rng)` to identifier, fields
and target.
"""


def simulated_customers(portfolio: Portfolio) -> Draw:
    """New simulated customers every day.

    Raises:
        ValueError: if the portfolio has no simulator.
    """
    simulate = simulator_of(portfolio)
    return lambda ordinal, rows, rng: simulate(
        rows * POOL, int(rng.integers(2**31)), ordinal * 10_000_000
    )


def customers_of(frame: pd.DataFrame) -> Draw:
    """The customers of a file, seen again on many days, each at most once a day.

    Raises:
        ValueError: by the drawing, if a day wants more customers than there are.
    """

    def draw(_ordinal: int, rows: int, _rng: np.random.Generator) -> pd.DataFrame:
        if rows > len(frame):
            raise ValueError(
                f"{rows:,} customers wanted for a day; valid: at most the {len(frame):,} that "
                "there are"
            )
        return frame

    return draw


def newcomers(history: pd.DataFrame, portfolio: Portfolio) -> pd.DataFrame:
    """The customers of a history that no model learns from, as new customers.

    They are the held-out ones, so that no row of training comes again as somebody new. Each gets
    another identifier, always the same: under their own they would all be held out of what
    challengers learn, too.

    Args:
        history: identifier, fields and target.
        portfolio: whose customers they are.
    """
    held_out = history[is_held_out(history[portfolio.identifier])].reset_index(drop=True)
    return held_out.assign(
        **{portfolio.identifier: NEWCOMER + held_out[portfolio.identifier].astype(str)}
    )


def arrivals(plan: Plan, portfolio: Portfolio, draw: Draw) -> Iterator[tuple[str, list[Arrival]]]:
    """What lands on each day, from the first day until the last outcome.

    Args:
        plan: the scenario.
        portfolio: whose customers they are.
        draw: where they come from.

    Yields:
        The day on which the files land, and the files, which may be of earlier days.
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


def day_of_customers(plan: Plan, portfolio: Portfolio, draw: Draw, offset: int) -> pd.DataFrame:
    """Who comes on one day, with the outcome that they will have."""
    rng = np.random.default_rng([plan.seed, offset])
    strength = plan.strength if offset >= plan.onset else 0.0
    rows = plan.rows
    if plan.scenario == "burst" and offset == plan.onset:
        rows = round(rows * (1 + 9 * strength))
    pool = draw(plan.start.toordinal() + offset, rows, rng)
    if plan.scenario == "covariate-shift":
        customers = chosen(pool, strength * risk_index(portfolio, pool), rows, rng)
    elif plan.scenario == "seasonal":
        season = 0.3 * strength * math.sin(2 * math.pi * (offset - plan.onset) / SEASON_DAYS)
        customers = chosen(pool, season * risk_index(portfolio, pool), rows, rng)
    elif plan.scenario == "prior-shift":
        customers = chosen(
            pool,
            math.log1p(strength) * pool[portfolio.target].to_numpy(dtype=np.float64),
            rows,
            rng,
        )
    else:
        customers = chosen(pool, np.zeros(len(pool)), rows, rng)
    if plan.scenario == "concept-drift":
        bad_rate = float(
            pool[portfolio.target].mean()
        )  # the day's own would count its chance twice
        customers = redrawn_outcomes(portfolio, customers, min(1.0, 0.5 * strength), rng, bad_rate)
    return customers


def chosen(
    pool: pd.DataFrame, log_weight: FloatArray, rows: int, rng: np.random.Generator
) -> pd.DataFrame:
    """So many of a pool without repeats, the heavier ones more likely (the largest of log weight
    plus Gumbel noise).
    """
    order = np.argsort(-(log_weight + rng.gumbel(size=len(pool))), kind="stable")
    return pool.iloc[np.sort(order[:rows])].reset_index(drop=True)


def risk_index(portfolio: Portfolio, customers: pd.DataFrame) -> FloatArray:
    """How risky a customer looks by the features whose direction the portfolio states: mean rank,
    in standard deviations.
    """
    return _mean_rank(portfolio, customers, [feature.monotone for feature in portfolio.features])


def redrawn_outcomes(
    portfolio: Portfolio,
    customers: pd.DataFrame,
    share: float,
    rng: np.random.Generator,
    bad_rate: float | None = None,
) -> pd.DataFrame:
    """A share of the outcomes is drawn again at the same bad rate, decided by the features whose
    direction the portfolio does not state; where it states all, by their opposite.

    Args:
        portfolio: whose customers they are.
        customers: with their outcomes.
        share: of the outcomes.
        rng: of the drawing.
        bad_rate: of those drawn again; by default the customers' own.
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
    """Ranks of each column as shares, centred on 0; ties share their mean rank, missing values are
    in the middle.
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
        return [
            (
                offset,
                Arrival(
                    "production",
                    day,
                    f"customers-{place}.csv",
                    fields.iloc[part].reset_index(drop=True),
                ),
            )
            for place, part in enumerate(parts, start=1)
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
    """The first field lost, renamed, or with its unit behind each number."""
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
