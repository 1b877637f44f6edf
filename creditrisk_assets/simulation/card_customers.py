"""Simulated customers in the columns of the UCI card portfolio.

Every account is simulated month by month, from a hidden March to September. It has a hidden type
(its frailty), a limit, and two hidden habits, of spending and of paying. Its payment status is a
Markov chain of its type; the payment depends on status and bill; the next bill is the old one less
the payment plus the spending; default in October follows a hazard on these months. The parameters
are in `simulator.toml`, made by `fit`. Nothing here is data about people. Any time axis over these
customers, or over the UCI file, is synthetic.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr

from creditrisk_assets.portfolio.contract import FLOAT32_EXACT_INTEGER
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.parameters import (
    LEVELS,
    SMALL_BILL,
    STATES,
    STATES_UNTIL_AUGUST,
    Cell,
    EmptyBills,
    Parameters,
    committed_parameters,
    states_named,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BLOCK = 20_000
"""Customers simulated at a time, so that their arrays fit into the processor's cache."""

LIMIT_STEP = 10_000
"""NT$: limits are multiples of it, like all but three real ones."""

DEEPEST = 8
"""Most months late in the UCI data."""

PART = 0.95
"""Share of the bill below which a payment is a part payment."""

LEAST_ROUNDED = 1_750
"""NT$: smaller part payments are not rounded: they equal the requested amount, which is seldom
round.
"""

AUGUST = 5
"""Month counted from March."""

_EMPTY = np.array([name.endswith("empty") for name in STATES])
_IN_FULL = np.array([name in ("-2", "-1") for name in STATES])
_CODE = np.array([-2, -2, -1, -1, 0, 0, 0, 2, 3, 1, 1])
_DEEP = STATES.index("3+")
_LOWEST_BILL = np.array([SMALL_BILL + 1 if name == "0" else 1 for name in STATES])
_HIGHEST_BILL = np.array(
    [SMALL_BILL if name == "0 small" else FLOAT32_EXACT_INTEGER for name in STATES]
)


def simulate(rows: int, seed: int, first_identifier: int = 1) -> pd.DataFrame:
    """Simulate customers with outcomes by the committed parameters.

    Args:
        rows: number of customers.
        seed: the same seed gives the same customers.
        first_identifier: number of the first customer.

    Returns:
        A row for each customer: identifier (text), the 23 fields and the target (int64).
    """
    return simulate_by(committed_parameters(), rows, seed, first_identifier)


def simulate_by(
    parameters: Parameters, rows: int, seed: int, first_identifier: int = 1
) -> pd.DataFrame:
    """Simulate customers by any parameters; otherwise as `simulate`."""
    rng = np.random.default_rng(seed)
    columns = [*PORTFOLIO.field_names, PORTFOLIO.target]
    numbers = np.empty((len(columns), rows), dtype=np.int64)
    for first in range(0, rows, BLOCK):
        block = numbers[:, first : first + BLOCK]
        block[:] = _customers(parameters, block.shape[1], rng)
    frame = pd.DataFrame(numbers.T, columns=columns)
    frame.insert(
        0,
        PORTFOLIO.identifier,
        [str(number) for number in range(first_identifier, first_identifier + rows)],
    )
    return frame


def _customers(parameters: Parameters, rows: int, rng: np.random.Generator) -> IntArray:
    """Fields in contract order and target: columns x rows."""
    sex, age, education, marriage = _people(parameters, rows, rng)
    shares = np.array([account.share for account in parameters.account_type]).T
    kind = _draw_columns(shares, education_group(education), rng)
    limit = _limits(parameters, kind, limit_terms(sex, age, education), rng)
    state = _states(parameters, kind, rng)
    status = _statuses(parameters, state, rng)
    bills, paid = _balances(parameters, limit, state, rng)
    target = rng.random(rows) < _sigmoid(
        _linear(parameters.hazard, hazard_terms(limit, status, bills, paid))
    )
    return np.vstack(
        [limit, sex, education, marriage, age, status.T, bills.T, paid.T, target]
    ).astype(np.int64)


def education_group(education: IntArray) -> IntArray:
    """Group of each code: 0 graduate school, 1 university, 2 high school, 3 any other."""
    return np.where((education >= 1) & (education <= 3), education - 1, 3)


def limit_terms(sex: IntArray, age: IntArray, education: IntArray) -> dict[str, FloatArray]:
    """Terms of an account's rank among the limits of its type, by name, with a value for each
    customer.
    """
    group = education_group(education)
    terms = {
        "woman": sex == 2,
        "graduate_school": group == 0,
        "high_school": group == 2,
        "years_below_35": np.maximum(35 - age, 0),
        "years_above_35": np.maximum(age - 35, 0),
    }
    return {name: values.astype(np.float64) for name, values in terms.items()}


def hazard_terms(
    limit: FloatArray, status: IntArray, bills: FloatArray, paid: FloatArray
) -> dict[str, FloatArray]:
    """Terms of the hazard of default, by name, with a value for each customer.

    Args:
        limit: n, NT$.
        status: n x 6, UCI codes, newest first.
        bills: n x 6, NT$, newest first.
        paid: n x 6, NT$, newest first.
    """
    now, late = status[:, 0], status >= 2
    utilisation = np.clip(bills / limit[:, None], 0, 1.2)
    terms = {
        "september_-2": now == -2,
        "september_-1": now == -1,
        "september_1": now == 1,
        "september_2": now == 2,
        "september_3+": now >= 3,
        "august_late": late[:, 1],
        "months_late_april_to_july": late[:, 2:].sum(axis=1),
        "never_late": ~(status >= 1).any(axis=1),
        "september_2_and_august_late": (now == 2) & late[:, 1],
        "log_limit": np.log(limit),
        "log_paid_september": np.log1p(paid[:, 0]),
        "log_paid_august": np.log1p(paid[:, 1]),
        "log_paid_april_to_july": np.log1p(paid[:, 2:].mean(axis=1)),
        "log_mean_bill": np.log1p(np.maximum(bills.mean(axis=1), 0)),
        "log_bill_if_paid_in_full": (now < 0) * np.log1p(np.maximum(bills[:, 0], 0)),
        "utilisation_september": utilisation[:, 0],
        "utilisation_mean": utilisation.mean(axis=1),
        "utilisation_if_late_september": late[:, 0] * utilisation[:, 0],
    }
    return {name: values.astype(np.float64) for name, values in terms.items()}


def _linear(coefficients: Mapping[str, float], terms: Mapping[str, FloatArray]) -> FloatArray:
    result = np.full(len(next(iter(terms.values()))), coefficients["constant"])
    for name, values in terms.items():
        result += coefficients[name] * values
    return result


def _people(
    parameters: Parameters, rows: int, rng: np.random.Generator
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Sex, age, education and marriage of each customer."""
    people = parameters.people
    woman = (rng.random(rows) >= people.men).astype(np.int64)
    ages = np.array([people.age_men, people.age_women])
    age = np.round(_quantiles(ages, woman, rng.random(rows), np.inf)).astype(np.int64)
    band = np.searchsorted(people.age_up_to, age, side="left")
    education = _draw_columns(np.array(people.education), band, rng)
    return 1 + woman, age, education, _draw_columns(np.array(people.marriage), band, rng)


def _limits(
    parameters: Parameters,
    kind: IntArray,
    terms: Mapping[str, FloatArray],
    rng: np.random.Generator,
) -> FloatArray:
    """Credit limits, NT$."""
    score = _linear(parameters.limit_rank, terms) + parameters.limit_rank[
        "spread"
    ] * rng.standard_normal(len(kind))
    limits = np.array([account.limit for account in parameters.account_type])
    steps = np.round(_quantiles(limits, kind, ndtr(score), np.inf) / LIMIT_STEP)
    return np.asarray(np.maximum(steps, 1) * LIMIT_STEP)


def _states(parameters: Parameters, kind: IntArray, rng: np.random.Generator) -> IntArray:
    """States of each account from March to September: rows x 7, oldest first.

    The data begin in April. March is drawn backwards from April by Bayes' rule, with the shares of
    April as its prior.
    """
    types, size = parameters.account_type, len(STATES_UNTIL_AUGUST)
    april = np.array([account.april for account in types])
    moves = [{**account.moves, **parameters.moves_of_all} for account in types]
    move = np.array([[of[name].until_august for name in STATES_UNTIL_AUGUST] for of in moves])
    last = np.array([[of[name].september for name in STATES_UNTIL_AUGUST] for of in moves])
    back = np.swapaxes(april[:, :, None] * move, 1, 2)
    states = np.empty((len(kind), 7), dtype=np.int64)
    states[:, 1] = _draw_columns(april, kind, rng)
    states[:, 0] = _draw_columns(back.reshape(-1, size), kind * size + states[:, 1], rng)
    for month in range(2, 6):
        states[:, month] = _draw_columns(
            move.reshape(-1, size), kind * size + states[:, month - 1], rng
        )
    states[:, 6] = _draw_columns(last.reshape(-1, len(STATES)), kind * size + states[:, 5], rng)
    return states


def _statuses(parameters: Parameters, states: IntArray, rng: np.random.Generator) -> IntArray:
    """UCI status codes from September back to April: rows x 6."""
    deep = parameters.deep_late
    codes = _CODE[states[:, 1:]]
    first = np.flatnonzero(states[:, 1] == _DEEP)
    codes[first, 0] = 3 + _draw_columns(np.array([deep.april]), np.zeros_like(first), rng)
    for month in range(1, 6):
        stays = np.flatnonzero((states[:, month] == _DEEP) & (states[:, month + 1] == _DEEP))
        chance = rng.random(len(stays))
        step = np.where(chance < deep.deeper, 1, np.where(chance < deep.deeper + deep.same, 0, -1))
        codes[stays, month] = np.clip(codes[stays, month - 1] + step, 3, DEEPEST)
    return codes[:, ::-1]


def _balances(
    parameters: Parameters, limit: FloatArray, states: IntArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Bills and payments, NT$, from September back to April: rows x 6 each."""
    amounts, rows = parameters.amounts, len(limit)
    habits = _Habits(parameters, rows, rng)
    opening, spending = _Amounts(amounts.opening, unit=1), _Amounts(amounts.spending, unit=1)
    early = _Amounts(
        [cell for cell in amounts.payments if cell.months != "from August"], unit=0.001
    )
    later = _Amounts([cell for cell in amounts.payments if cell.months != "until July"], unit=0.001)

    first = states[:, 0]
    bill = opening.at_rank(first, first, limit, limit, habits.opening(first))
    bill = _bill(parameters, first, np.minimum(bill, parameters.bounds.bill * limit), rng)
    bills, paid = np.empty((rows, 6)), np.empty((rows, 6))
    for month in range(1, 7):
        before, after = states[:, month - 1], states[:, month]
        paying, spends = habits.month(after)
        share = (later if month >= AUGUST else early).at_rank(before, after, bill, limit, paying)
        payment = _payments(parameters, bill, share, limit, rng)
        left = bill - payment
        spent = spending.at_rank(before, after, left / limit, limit, spends)
        bill = _bill(
            parameters,
            after,
            np.minimum(left + spent, np.maximum(left, parameters.bounds.bill * limit)),
            rng,
        )
        bills[:, 6 - month], paid[:, 6 - month] = bill, payment
    return bills, paid


class _Habits:
    """Hidden habits of spending and paying, as ranks between 0 and 1 of each month's amounts among
    similar accounts.

    A factor for each habit correlates the months of an account. The parameters give the correlation
    of the two factors and of their residuals in the same month.
    """

    def __init__(self, parameters: Parameters, rows: int, rng: np.random.Generator) -> None:
        self._habits, self._rng, self._rows = parameters.habits, rng, rows
        self._paying = float(np.sqrt(self._habits.paying))
        in_full, otherwise = np.sqrt(
            [self._habits.spending_in_full, self._habits.spending_otherwise]
        )
        self._loading = np.where(_IN_FULL, in_full, otherwise)
        shared = self._habits.paying_and_spending_apart / (
            self._paying * float(self._loading.mean())
        )
        self._payer = self._normal()
        self._spender = shared * self._payer + np.sqrt(1 - shared**2) * self._normal()

    def opening(self, state: IntArray) -> FloatArray:
        """Ranks of the opening bills."""
        correlation = np.where(
            _IN_FULL, self._habits.opening_in_full, self._habits.opening_otherwise
        )
        loading = (correlation / self._loading)[state]
        return np.asarray(ndtr(loading * self._spender + np.sqrt(1 - loading**2) * self._normal()))

    def month(self, after: IntArray) -> tuple[FloatArray, FloatArray]:
        """Ranks of a month's payments and of its spending."""
        paying_noise, paying_left = self._normal(), np.sqrt(1 - self._paying**2)
        left = np.sqrt(1 - self._loading**2)
        same_month = self._habits.paying_and_spending - self._habits.paying_and_spending_apart
        shared = (same_month / (paying_left * left))[after]
        noise = shared * paying_noise + np.sqrt(1 - shared**2) * self._normal()
        paying = self._paying * self._payer + paying_left * paying_noise
        return np.asarray(ndtr(paying)), np.asarray(
            ndtr(self._loading[after] * self._spender + left[after] * noise)
        )

    def _normal(self) -> FloatArray:
        return self._rng.standard_normal(self._rows)


class _Amounts:
    """Amounts of cells.

    Args:
        cells: with the bands of the same states in rising order.
        unit: about the smallest amount that matters; interpolation is linear up to it and
            logarithmic beyond.
    """

    def __init__(self, cells: Sequence[Cell], unit: float) -> None:
        self._quantiles, self._unit = np.array([cell.quantiles for cell in cells]), unit
        self._none, self._power = (
            np.array([cell.none for cell in cells]),
            np.array([cell.power for cell in cells]),
        )
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, cell in enumerate(cells):
            for pair in product(states_named(cell.before), states_named(cell.after)):
                groups[pair].append(number)
        self._first = np.full((len(STATES), len(STATES)), -1)
        self._edges = np.full((*self._first.shape, max(map(len, groups.values()))), np.inf)
        for pair, numbers in groups.items():
            self._first[pair] = numbers[0]
            self._edges[pair][: len(numbers)] = [cells[number].up_to for number in numbers]

    def at_rank(
        self,
        before: IntArray,
        after: IntArray,
        band: FloatArray,
        limit: FloatArray,
        rank: FloatArray,
    ) -> FloatArray:
        """Amounts at ranks of their cells; zero for states without a cell.

        Args:
            before: state in the month before.
            after: state in the month.
            band: the quantity that the cells' `up_to` bounds.
            limit: NT$.
            rank: between 0 and 1.
        """
        amounts = np.zeros(len(rank))
        in_cell = np.flatnonzero(self._first[before, after] >= 0)
        before, after, band, rank = before[in_cell], after[in_cell], band[in_cell], rank[in_cell]
        cell = self._first[before, after]
        for place in range(self._edges.shape[2] - 1):
            cell = cell + (band > self._edges[before, after, place])
        none = self._none[cell]
        positive = rank >= none
        value = _quantiles(
            self._quantiles, cell, np.maximum(rank - none, 0) / (1 - none), self._unit
        )
        amounts[in_cell] = positive * value * (limit[in_cell] / 100_000) ** self._power[cell]
        return amounts


def _payments(
    parameters: Parameters,
    bill: FloatArray,
    share: FloatArray,
    limit: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    """The payment on each bill, NT$."""
    bounds = parameters.bounds
    paid = np.round(np.minimum(bill * share, bill + bounds.overpayment * limit))
    chance = rng.random(len(bill))
    unit = np.where(
        chance < bounds.thousands,
        1_000,
        np.where(chance < bounds.thousands + bounds.hundreds, 100, 1),
    )
    in_part = (share < PART) & (paid >= LEAST_ROUNDED)
    paid = np.where(in_part, np.round(paid / unit) * unit, paid)
    on_empty = _payments_on_empty_bills(parameters.empty_bills, len(bill), rng)
    return np.clip(np.where(bill > 0, paid, on_empty), 0, FLOAT32_EXACT_INTEGER)


def _payments_on_empty_bills(empty: EmptyBills, rows: int, rng: np.random.Generator) -> FloatArray:
    rank = (rng.random(rows) - empty.no_payment) / (1 - empty.no_payment)
    paid = _quantiles(
        np.array([empty.payment]), np.zeros(rows, dtype=np.int64), np.maximum(rank, 0), 1
    )
    return np.where(rank < 0, 0, np.round(paid))


def _bill(
    parameters: Parameters, state: IntArray, bill: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """The bill, NT$, limited to the range of its state."""
    empty = parameters.empty_bills
    rank = rng.random(len(bill)) / empty.negative
    negative = _quantiles(
        np.array([empty.negative_bill]), np.zeros(len(bill), dtype=np.int64), np.minimum(rank, 1), 1
    )
    owed = np.clip(np.round(bill), _LOWEST_BILL[state], _HIGHEST_BILL[state])
    return np.where(_EMPTY[state], np.where(rank < 1, np.round(negative), 0), owed)


def _draw_columns(shares: FloatArray, row: IntArray, rng: np.random.Generator) -> IntArray:
    """Draw a column number for each entry of `row`, with chances in proportion to that row of
    `shares`.
    """
    upper = shares.cumsum(axis=1)
    chance = rng.random(len(row)) * upper[row, -1]
    result = np.zeros(len(row), dtype=np.int64)
    for column in range(shares.shape[1] - 1):
        result += chance >= upper[row, column]
    return result


def _quantiles(table: FloatArray, row: IntArray, rank: FloatArray, unit: float) -> FloatArray:
    """Values at ranks between 0 and 1 of rows of quantiles at `LEVELS`.

    Interpolation between two levels is on the scale of arsinh(value / unit): linear below `unit`,
    logarithmic above.
    """
    levels = np.array(LEVELS)
    scaled = table if np.isinf(unit) else np.arcsinh(table / unit)
    slope = np.diff(scaled, axis=1) / np.diff(levels)
    below = np.searchsorted(levels[1:-1], rank, side="right")
    place = row * slope.shape[1] + below
    value = scaled[:, :-1].ravel()[place] + (rank - levels[below]) * slope.ravel()[place]
    return value if np.isinf(unit) else np.asarray(unit * np.sinh(value))


def _sigmoid(log_odds: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-log_odds)))
