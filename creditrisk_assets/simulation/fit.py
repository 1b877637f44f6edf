"""Fit of the simulator's parameters to real customers. The simulator itself reads no customer.

The methods are counts, quantiles, least squares, logistic regression, and a mixture of Markov
chains by expectation maximisation with a fixed number of rounds, so the same customers give the
same table. Numbers are rounded to three digits or four decimals, which people can read; nothing
depends on more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from creditrisk_assets.portfolio.uci_card import BILL, PAID, PAY, PORTFOLIO
from creditrisk_assets.simulation.card_customers import (
    DEEPEST,
    LEAST_ROUNDED,
    PART,
    education_group,
    hazard_terms,
    limit_terms,
)
from creditrisk_assets.simulation.parameters import (
    ANY,
    LEVELS,
    SMALL_BILL,
    STATES,
    STATES_UNTIL_AUGUST,
    STATES_WITH_SHARED_MOVES,
    AccountType,
    Amounts,
    Bounds,
    Cell,
    DeepLate,
    EmptyBills,
    Habits,
    MoveChances,
    Parameters,
    People,
    Period,
    Source,
    states_named,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Spec = tuple[str, str, tuple[float, ...]]

COMMAND = "creditrisk simulator fit --data FILE --output FILE"

ENDS = (0.001, 0.999)
"""Levels of the lowest and highest quantile: no single customer sets the end of a distribution."""

SEED = 20051001
"""Seed of the draw of each real account's type from the mixture; an arbitrary number."""

ROUNDS = 100
"""Rounds of expectation maximisation: the log-likelihood of the UCI data then changes by less than
a millionth a round.
"""

POOLED = 5.0
"""Accounts of average behaviour added to each row of a type's chances, so that rare moves remain
possible.
"""

LEAST_ROWS = 10
"""Fewest accounts for the quantiles of a cell."""

ROWS_FOR_POWER = 100
"""Fewest accounts for the growth of an amount with the limit."""

NEWTON_STEPS = 12

AGE_BANDS = (25, 30, 40)

TYPES = ("pays in full", "revolves", "late now and then", "often late")

_EMPTY = "-2 empty, -1 empty, 0 empty"
_LATE = "2, 3+"

OPENING: tuple[Spec, ...] = (
    ("-2, -1", "-2, -1", ()),
    ("0 small", "0 small", ()),
    ("0", "0", (30_000, 100_000, 200_000)),
    (_LATE, _LATE, ()),
)
PAYMENTS: tuple[Spec, ...] = (
    ("-2, -1", f"{_EMPTY}, 1 empty, -2, -1", (1_000, 10_000)),
    ("-2, -1", "0 small, 0, 2, 3+, 1", (5_000,)),
    ("2", f"{_EMPTY}, 1 empty, -2, -1", ()),
    ("2", "0 small, 0", ()),
    ("2", "2, 3+, 1", (5_000, 40_000)),
    ("3+", ANY, ()),
)
PAYMENTS_BY_PERIOD: tuple[Spec, ...] = (
    ("0 small", ANY, ()),
    ("0", f"{_EMPTY}, 1 empty, -2, -1, 0 small", (10_000,)),
    ("0", "0, 2, 3+, 1", (5_000, 10_000, 20_000, 40_000, 80_000)),
)
"""On bills of revolving accounts, payments below 1,000 NT$ are rare from August on and frequent
before.
"""

SPENDING: tuple[Spec, ...] = (
    (_EMPTY, "-2, -1", ()),
    (_EMPTY, "0", ()),
    (_EMPTY, "2, 3+, 1", ()),
    ("-2, -1", "-2, -1", ()),
    ("-2, -1", "0", ()),
    ("-2, -1", "2, 3+, 1", ()),
    (ANY, "0 small", ()),
    ("0 small, 0", "-2, -1", (0.02,)),
    ("0 small", "0", ()),
    ("0", "0", (0.02, 0.1, 0.3, 0.6, 0.9, 1.0)),
    ("0 small, 0", "2, 3+, 1", (0.3, 0.8)),
    (_LATE, "-2, -1", (0.02,)),
    (_LATE, "0, 1", (0.3, 0.8)),
    (_LATE, _LATE, (0.3, 0.8)),
)


@dataclass(frozen=True)
class _Accounts:
    """Real accounts, n x 6 from April to September (oldest first), amounts in NT$; `limit` n
    x 1.
    """

    status: IntArray
    state: IntArray
    bill: FloatArray
    paid: FloatArray
    limit: FloatArray


def fit_parameters(customers: pd.DataFrame, data: str, sha256: str) -> Parameters:
    """Fit the simulator to customers.

    Args:
        customers: identifier, fields and target of the UCI card portfolio, validated.
        data: their description for the table.
        sha256: of their file.

    Raises:
        ValueError: if a kind of account in the table has too few customers.
    """
    accounts = _accounts(customers)
    sex, age, education, marriage = (
        customers[name].to_numpy() for name in ("sex", "age", "education", "marriage")
    )
    kind, chances = _types(accounts)
    amounts, habits = _amounts_and_habits(accounts)
    return Parameters(
        source=Source(data=data, sha256=sha256, rows=len(customers), command=COMMAND),
        people=_people(sex, age, education, marriage),
        limit_rank=_limit_rank(accounts, kind, limit_terms(sex, age, education)),
        account_type=_account_types(accounts, kind, education_group(education), chances),
        moves_of_all={
            name: move
            for name, move in _moves(*chances[0][1:]).items()
            if name in STATES_WITH_SHARED_MOVES
        },
        deep_late=_deep_late(accounts),
        habits=habits,
        bounds=_bounds(accounts),
        empty_bills=_empty_bills(accounts),
        amounts=amounts,
        hazard=_hazard(accounts, customers[PORTFOLIO.target].to_numpy()),
    )


def _accounts(customers: pd.DataFrame) -> _Accounts:
    status, bill, paid = (customers[list(names[::-1])].to_numpy() for names in (PAY, BILL, PAID))
    names = np.select(
        [status == -2, status == -1, status == 0, status <= 2],
        [
            np.where(bill <= 0, "-2 empty", "-2"),
            np.where(bill <= 0, "-1 empty", "-1"),
            np.select([bill <= 0, bill <= SMALL_BILL], ["0 empty", "0 small"], "0"),
            "2",
        ],
        "3+",
    )
    names[:, 5] = np.where(
        status[:, 5] == 1, np.where(bill[:, 5] <= 0, "1 empty", "1"), names[:, 5]
    )
    order = np.argsort(STATES)
    state = order[np.searchsorted(np.array(STATES)[order], names)]
    limit = customers[["limit_bal"]].to_numpy(dtype=np.float64)
    return _Accounts(status, state, bill.astype(np.float64), paid.astype(np.float64), limit)


def _people(sex: IntArray, age: IntArray, education: IntArray, marriage: IntArray) -> People:
    bands = np.searchsorted(AGE_BANDS, age, side="left")
    return People(
        men=_digits((sex == 1).mean()),
        age_men=_quantiles(age[sex == 1]),
        age_women=_quantiles(age[sex == 2]),
        age_up_to=list(AGE_BANDS),
        education=[
            _shares(np.bincount(education[bands == band], minlength=7))
            for band in range(len(AGE_BANDS) + 1)
        ],
        marriage=[
            _shares(np.bincount(marriage[bands == band], minlength=4))
            for band in range(len(AGE_BANDS) + 1)
        ],
    )


def _limit_rank(
    accounts: _Accounts, kind: IntArray, terms: dict[str, FloatArray]
) -> dict[str, float]:
    """Least squares of the normal score of the limit within the account's type; `spread` makes its
    variance 1.
    """
    score = np.empty(len(kind))
    for number in range(len(TYPES)):
        score[kind == number] = _normal_scores(accounts.limit[kind == number, 0])
    matrix = np.column_stack([np.ones(len(kind)), *terms.values()])
    coefficients = np.linalg.lstsq(matrix, score)[0]
    spread = np.sqrt(1 - np.var(matrix @ coefficients))
    return {
        name: _digits(value)
        for name, value in zip(["constant", *terms, "spread"], [*coefficients, spread], strict=True)
    }


def _types(accounts: _Accounts) -> tuple[IntArray, list[tuple[FloatArray, FloatArray, FloatArray]]]:
    """Fit a mixture of Markov chains over the states, with the quintile of the limit as a further
    variable.

    Returns:
        The type of each account, drawn from its posterior; for each type the chances of the states
        in April, of the moves until August and of those to September.
    """
    fifth = np.searchsorted(np.quantile(accounts.limit, [0.2, 0.4, 0.6, 0.8]), accounts.limit)
    paths, place, counts = np.unique(
        np.hstack([accounts.state, fifth]), axis=0, return_inverse=True, return_counts=True
    )
    times = counts.astype(np.float64)
    likely = np.full((len(paths), len(TYPES)), 0.02)
    likely[np.arange(len(paths)), _first_guess(paths)] = 1
    likely /= likely.sum(axis=1, keepdims=True)
    for _ in range(ROUNDS):
        weight = likely * times[:, None]
        chances = [_chances(paths, weight[:, number], times) for number in range(len(TYPES))]
        logs = np.column_stack([_log_likelihood(paths, *of_type) for of_type in chances]) + np.log(
            weight.sum(axis=0) / times.sum()
        )
        likely = np.exp(logs - logs.max(axis=1, keepdims=True))
        likely /= likely.sum(axis=1, keepdims=True)
    upper = likely.cumsum(axis=1)[place.ravel()]
    kind = (np.random.default_rng(SEED).random((len(upper), 1)) > upper[:, :-1]).sum(axis=1)
    return kind, [(april, moves, september) for april, moves, september, _ in chances]


def _first_guess(paths: IntArray) -> IntArray:
    """A plausible type for each path: the start of expectation maximisation."""
    names = np.array(STATES)[paths[:, :6]]
    late = np.isin(names, ["2", "3+"]).sum(axis=1)
    in_full = np.isin(names, ["-2 empty", "-2", "-1 empty", "-1"]).sum(axis=1)
    guess = np.select(
        [late >= 3, late >= 1, in_full >= 3],
        ["often late", "late now and then", "pays in full"],
        "revolves",
    )
    return np.array([TYPES.index(name) for name in guess])


def _chances(
    paths: IntArray, weight: FloatArray, times: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Chances of a type: April, moves until August, move to September, fifths of the limit."""
    size, all_states = len(STATES_UNTIL_AUGUST), len(STATES)

    def moves(weights: FloatArray, months: range, width: int) -> FloatArray:
        counts = sum(
            np.bincount(paths[:, m] * width + paths[:, m + 1], weights, size * width)
            for m in months
        )
        return np.asarray(counts).reshape(size, width)

    def mixed(months: range, width: int) -> FloatArray:
        of_all = moves(times, months, width)
        average = of_all / of_all.sum(axis=1, keepdims=True)
        own = _rows_to_one(moves(weight, months, width) + POOLED * average)
        return np.where(
            np.isin(STATES_UNTIL_AUGUST, STATES_WITH_SHARED_MOVES)[:, None], average, own
        )

    april = np.bincount(paths[:, 0], weight, size) + 0.01
    limit = np.bincount(paths[:, 6], weight, 5) + 1
    return (
        april / april.sum(),
        mixed(range(4), size),
        mixed(range(4, 5), all_states),
        limit / limit.sum(),
    )


def _log_likelihood(
    paths: IntArray, april: FloatArray, moves: FloatArray, september: FloatArray, limit: FloatArray
) -> FloatArray:
    with np.errstate(divide="ignore"):  # an impossible move is in no path
        log_moves, log_september = np.log(moves), np.log(september)
    result = (
        np.log(april)[paths[:, 0]]
        + np.log(limit)[paths[:, 6]]
        + log_september[paths[:, 4], paths[:, 5]]
    )
    return np.asarray(
        result + sum(log_moves[paths[:, month], paths[:, month + 1]] for month in range(4))
    )


def _account_types(
    accounts: _Accounts,
    kind: IntArray,
    education: IntArray,
    chances: list[tuple[FloatArray, FloatArray, FloatArray]],
) -> list[AccountType]:
    result = []
    for number, (april, moves, september) in enumerate(chances):
        result.append(
            AccountType(
                name=TYPES[number],
                share=[_digits((kind[education == group] == number).mean()) for group in range(4)],
                limit=_quantiles(accounts.limit[kind == number]),
                april=_shares(april),
                moves={
                    name: move
                    for name, move in _moves(moves, september).items()
                    if name not in STATES_WITH_SHARED_MOVES
                },
            )
        )
    return result


def _moves(until_august: FloatArray, september: FloatArray) -> dict[str, MoveChances]:
    rows = zip(STATES_UNTIL_AUGUST, until_august, september, strict=True)
    return {
        name: MoveChances(until_august=_shares(until), september=_shares(last))
        for name, until, last in rows
    }


def _deep_late(accounts: _Accounts) -> DeepLate:
    before, after = accounts.status[:, :-1], accounts.status[:, 1:]
    stays = (before >= 3) & (after >= 3)
    april = np.bincount(np.clip(accounts.status[:, 0], 2, DEEPEST), minlength=DEEPEST + 1)[3:]
    return DeepLate(
        april=_shares(april),
        deeper=_digits((after > before)[stays].mean()),
        same=_digits((after == before)[stays].mean()),
    )


def _bounds(accounts: _Accounts) -> Bounds:
    bill, paid = accounts.bill[:, :-1], accounts.paid[:, 1:]
    in_part = paid[(paid < PART * bill) & (paid >= LEAST_ROUNDED)]
    return Bounds(
        bill=_digits(np.quantile(accounts.bill / accounts.limit, 0.995)),
        overpayment=_digits(np.quantile((paid - np.maximum(bill, 0)) / accounts.limit, 0.999)),
        thousands=_digits((in_part % 1_000 == 0).mean()),
        hundreds=_digits(((in_part % 100 == 0) & (in_part % 1_000 != 0)).mean()),
    )


def _empty_bills(accounts: _Accounts) -> EmptyBills:
    empty = accounts.bill <= 0
    paid = accounts.paid[:, 1:][empty[:, :-1]]
    return EmptyBills(
        negative=_digits((accounts.bill[empty] < 0).mean()),
        negative_bill=_quantiles(accounts.bill[accounts.bill < 0]),
        no_payment=_digits((paid == 0).mean()),
        payment=_quantiles(paid[paid > 0]),
    )


def _amounts_and_habits(accounts: _Accounts) -> tuple[Amounts, Habits]:
    """Cells of every amount, and correlations of an account's ranks in its cells."""
    before, after = accounts.state[:, :-1], accounts.state[:, 1:]
    bill, paid = accounts.bill[:, :-1], accounts.paid[:, 1:]
    limit = np.broadcast_to(accounts.limit, bill.shape)
    first = accounts.state[:, :1]
    opening, opens = _cells(
        OPENING, first, first, accounts.limit, accounts.bill[:, :1], accounts.limit
    )

    spending, spends = _cells(
        SPENDING, before, after, (bill - paid) / limit, accounts.bill[:, 1:] - bill + paid, limit
    )

    share = np.divide(paid, bill, out=np.zeros_like(bill), where=bill > 0)
    payments, pays = _cells(PAYMENTS, before, after, bill, share)
    periods: tuple[tuple[Period, slice], ...] = (
        ("until July", slice(0, 3)),
        ("from August", slice(3, 5)),
    )
    for months, part in periods:
        more, ranks = _cells(
            PAYMENTS_BY_PERIOD, before[:, part], after[:, part], bill[:, part], share[:, part]
        )
        payments += [cell.model_copy(update={"months": months}) for cell in more]
        pays[:, part] = np.where(np.isnan(ranks), pays[:, part], ranks)
    return Amounts(opening=opening, payments=payments, spending=spending), _habits(
        first, after, opens, pays, spends
    )


def _cells(
    specs: Sequence[Spec],
    before: IntArray,
    after: IntArray,
    band: FloatArray,
    amount: FloatArray,
    limit: FloatArray | None = None,
) -> tuple[list[Cell], FloatArray]:
    """Cells of an amount, and the normal score of each account's amount in its cell (NaN for
    accounts in no cell).

    Args:
        specs: states before and after, and the edges of the bands.
        before: n x months.
        after: n x months.
        band: n x months, divided by the edges.
        amount: n x months; without `limit`, zeros are counted separately.
        limit: n x months, NT$, for amounts that grow with it.
    """
    cells, scores = [], np.full(amount.shape, np.nan)
    for from_states, to_states, edges in specs:
        here = _is_in(before, from_states) & _is_in(after, to_states)
        lower = -np.inf
        for upper in (*edges, np.inf):
            chosen = here & (band > lower) & (band <= upper)
            lower = upper
            values = amount[chosen]
            if len(values) < LEAST_ROWS:
                raise ValueError(
                    f"{len(values)} accounts from {from_states} to {to_states} up to {upper:g}; "
                    f"valid: at least {LEAST_ROWS}"
                )
            power = 0.0 if limit is None else _power(values, limit[chosen])
            if limit is not None:
                values = values / (limit[chosen] / 100_000) ** power
            scores[chosen] = _normal_scores(values)
            none = 0.0 if limit is not None else round(float((values == 0).mean()), 4)
            counted = values if limit is not None else values[values > 0]
            cells.append(
                Cell(
                    before=from_states,
                    after=to_states,
                    up_to=upper,
                    power=power,
                    none=none,
                    quantiles=_quantiles(counted),
                )
            )
    return cells, scores


def _is_in(state: IntArray, names: str) -> NDArray[np.bool_]:
    return np.isin(state, states_named(names))


def _power(amount: FloatArray, limit: FloatArray) -> float:
    """Slope of log(amount) over log(limit), between 0 and 1."""
    chosen = amount > 0
    if chosen.sum() < ROWS_FOR_POWER:
        return 0.0
    slope = stats.linregress(np.log(limit[chosen]), np.log(amount[chosen])).slope
    return float(np.clip(np.round(slope, 2), 0, 1))


def _habits(
    first: IntArray, after: IntArray, opens: FloatArray, pays: FloatArray, spends: FloatArray
) -> Habits:
    in_full = np.where(_is_in(after, "-2, -1"), spends, np.nan)
    otherwise = np.where(_is_in(after, "-2, -1"), np.nan, spends)
    opens_in_full = np.where(_is_in(first, "-2, -1"), opens, np.nan)
    opens_otherwise = np.where(_is_in(first, "-2, -1"), np.nan, opens)
    months = range(after.shape[1])
    apart = [(first, second) for first in months for second in months if first != second]
    return Habits(
        spending_in_full=_correlation(in_full, in_full, apart),
        spending_otherwise=_correlation(otherwise, otherwise, apart),
        opening_in_full=_correlation(opens_in_full, in_full, [(0, month) for month in months]),
        opening_otherwise=_correlation(
            opens_otherwise, otherwise, [(0, month) for month in months]
        ),
        paying=_correlation(pays, pays, apart),
        paying_and_spending=_correlation(pays, spends, [(month, month) for month in months]),
        paying_and_spending_apart=_correlation(pays, spends, apart),
    )


def _correlation(left: FloatArray, right: FloatArray, pairs: Sequence[tuple[int, int]]) -> float:
    """Mean product of normal scores over pairs of months, where both exist."""
    products = np.concatenate([left[:, first] * right[:, second] for first, second in pairs])
    return _digits(np.nanmean(products))


def _hazard(accounts: _Accounts, target: IntArray) -> dict[str, float]:
    """Logistic regression by Newton's method."""
    newest_first = (accounts.status[:, ::-1], accounts.bill[:, ::-1], accounts.paid[:, ::-1])
    terms = hazard_terms(accounts.limit[:, 0], *newest_first)
    matrix = np.column_stack([np.ones(len(target)), *terms.values()])
    coefficients = np.zeros(matrix.shape[1])
    for _ in range(NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-matrix @ coefficients))
        information = (matrix * (chance * (1 - chance))[:, None]).T @ matrix
        coefficients += np.linalg.solve(information, matrix.T @ (target - chance))
    return {
        name: _digits(value) for name, value in zip(["constant", *terms], coefficients, strict=True)
    }


def _normal_scores(values: FloatArray) -> FloatArray:
    return np.asarray(stats.norm.ppf((stats.rankdata(values) - 0.5) / len(values)))


def _quantiles(values: IntArray | FloatArray) -> list[float]:
    return [_digits(value) for value in np.quantile(values, np.clip(LEVELS, *ENDS))]


def _rows_to_one(counts: FloatArray) -> FloatArray:
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _shares(counts: IntArray | FloatArray) -> list[float]:
    """Shares to four decimals."""
    return [round(float(share), 4) for share in counts / counts.sum()]


def _digits(value: float | np.floating) -> float:
    """The value rounded to three digits."""
    return float(f"{float(value):.3g}")
