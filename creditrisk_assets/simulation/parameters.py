"""Parameters of the simulated card accounts: their schema, and reading and writing of their table.

The table, `simulator.toml`, is made by `fit`, used by `card_customers`, and readable by people.
"""

import math
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

TABLE = "simulator.toml"

STATES = ("-2 empty", "-2", "-1 empty", "-1", "0 empty", "0 small", "0", "2", "3+", "1 empty", "1")
"""States of an account: UCI status code and kind of bill.

`empty` is a bill of zero or less, `small` a bill up to `SMALL_BILL`; `3+` is three months late or
more. Code 1 occurs in September alone: the 34 of 150,000 real statuses of earlier months that have
it count as code 2.
"""

STATES_UNTIL_AUGUST = STATES[:9]

ANY = "any"
"""All states, in a cell."""

STATES_WITH_SHARED_MOVES = ("-1 empty", "0 empty", "0 small", "3+")
"""States whose moves do not depend on the account type: most of these moves are almost certain, or
rare in the data.
"""

SMALL_BILL = 2_000
"""NT$. Most revolving accounts with a smaller bill are paid off in the next month, unlike others.
"""

LEVELS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Levels of every list of quantiles, with interpolation between them. The ends stand for 0.1 % and
99.9 %.
"""

Period = Literal["all", "until July", "from August"]


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Block):
    """Source of the numbers."""

    data: str
    sha256: str
    rows: int
    command: str


class People(_Block):
    """Holders of the accounts.

    Attributes:
        men: share of men.
        age_men: quantiles, years.
        age_women: quantiles, years.
        age_up_to: upper ends of the age bands, years; the last band has none.
        education: for each age band, shares of the codes 0 to 6.
        marriage: for each age band, shares of the codes 0 to 3.
    """

    men: float
    age_men: list[float]
    age_women: list[float]
    age_up_to: list[float]
    education: list[list[float]]
    marriage: list[list[float]]


class MoveChances(_Block):
    """Chances of the next month's state.

    Attributes:
        until_august: in the order of `STATES_UNTIL_AUGUST`.
        september: from August to September, in the order of `STATES`.
    """

    until_august: list[float]
    september: list[float]


class AccountType(_Block):
    """A hidden type of account: its frailty.

    Attributes:
        name: typical behaviour of the type.
        share: among people with graduate school, university, high school, and other or unknown
            education.
        limit: quantiles, NT$.
        april: chances of the states in April, in the order of `STATES_UNTIL_AUGUST`.
        moves: from the states outside `STATES_WITH_SHARED_MOVES`.
    """

    name: str
    share: list[float]
    limit: list[float]
    april: list[float]
    moves: dict[str, MoveChances]


class DeepLate(_Block):
    """Months late of an account that is three or more months late.

    Attributes:
        april: chances of 3, 4, 5, 6, 7 and 8 months in April.
        deeper: chance that an account which remains so is a month later than the month before.
        same: chance that it is as late as the month before; otherwise it is a month less late.
    """

    april: list[float]
    deeper: float
    same: float


class Habits(_Block):
    """Correlations of normal scores by an account's two hidden habits, of spending and of paying.

    Attributes:
        spending_in_full: between an account's spending in two months, both paid in full.
        spending_otherwise: the same in other months.
        opening_in_full: between the opening bill and the spending of an account that begins by
            paying in full.
        opening_otherwise: the same of other accounts.
        paying: between payments in two months.
        paying_and_spending: between payment and spending in one month.
        paying_and_spending_apart: between payment in one month and spending in another.
    """

    spending_in_full: float
    spending_otherwise: float
    opening_in_full: float
    opening_otherwise: float
    paying: float
    paying_and_spending: float
    paying_and_spending_apart: float


class Bounds(_Block):
    """Bounds that keep amounts in the range of real ones.

    Attributes:
        bill: highest bill, as a share of the limit; an account above it spends nothing.
        overpayment: largest payment beyond the bill, as a share of the limit.
        thousands: chance of a part payment in whole thousands of NT$.
        hundreds: chance of a part payment in whole hundreds but not thousands.
    """

    bill: float
    overpayment: float
    thousands: float
    hundreds: float


class EmptyBills(_Block):
    """Bills of zero or less and the payments on them.

    Attributes:
        negative: chance of a negative bill.
        negative_bill: quantiles, NT$.
        no_payment: chance of no payment.
        payment: quantiles of other payments, NT$.
    """

    negative: float
    negative_bill: list[float]
    no_payment: float
    payment: list[float]


class Cell(_Block):
    """Distribution of an amount among accounts with the same pair of states.

    Attributes:
        before: states in the month before, separated by commas, or `any`.
        after: states in the month, likewise.
        months: months of the cell.
        up_to: upper end of its band; the last band of the same states has none.
        power: the amount grows with this power of the limit; the quantiles are for a limit of
            100,000 NT$.
        none: chance of a zero amount.
        quantiles: of the other amounts.
    """

    before: str
    after: str
    months: Period = "all"
    up_to: float = math.inf
    power: float = 0.0
    none: float = 0.0
    quantiles: list[float]


class Amounts(_Block):
    """Cells of the amounts.

    Attributes:
        opening: the bill in March, NT$; `before` and `after` are both the state in March; bands of
            the limit, NT$.
        payments: as a share of the bill of the month before; bands of that bill, NT$.
        spending: NT$; bands of the unpaid part of the bill of the month before, as a share of the
            limit.
    """

    opening: list[Cell]
    payments: list[Cell]
    spending: list[Cell]


class Parameters(_Block):
    """All parameters of the simulator.

    Attributes:
        limit_rank: coefficients of an account's normal score among the limits of its type; `spread`
            is the residual standard deviation.
        hazard: coefficients of the log-odds of default in October.
    """

    source: Source
    people: People
    limit_rank: dict[str, float]
    account_type: list[AccountType]
    moves_of_all: dict[str, MoveChances]
    deep_late: DeepLate
    habits: Habits
    bounds: Bounds
    empty_bills: EmptyBills
    amounts: Amounts
    hazard: dict[str, float]


def states_named(names: str) -> list[int]:
    """Indices in `STATES` of a cell's states."""
    return (
        list(range(len(STATES)))
        if names == ANY
        else [STATES.index(name) for name in names.split(", ")]
    )


@cache
def committed_parameters() -> Parameters:
    """The parameters of the package."""
    return from_toml(files(__package__).joinpath(TABLE).read_text(encoding="utf-8"))


def from_toml(text: str) -> Parameters:
    """Parameters from the text of a table.

    Raises:
        tomllib.TOMLDecodeError: if it is not TOML.
        pydantic.ValidationError: if a block or a value is missing, unknown or of the wrong kind.
    """
    return Parameters.model_validate(tomllib.loads(text))


_TITLE = f"""\
# Parameters of the simulated card accounts, made by the command below; the method is in fit.py, the use in card_customers.py.
# Every number is fitted to the customers named below and shows no single row. The customers of the package's own file are
# the UCI data "Default of credit card clients" (CC BY 4.0): I-Cheng Yeh and Che-hui Lien (2009), The comparisons of data mining
# techniques for the predictive accuracy of probability of default of credit card clients, Expert Systems with Applications 36.
#
# Lists of {len(LEVELS)} numbers are quantiles: 0.001, {", ".join(f"{level:g}" for level in LEVELS[1:-1])}, 0.999.
# States are a status code and the bill (empty: zero or less; small: up to {SMALL_BILL:,} NT$); chances of states are in the order
# {", ".join(STATES_UNTIL_AUGUST)}; in September also {", ".join(STATES[len(STATES_UNTIL_AUGUST) :])}."""  # noqa: E501

_ABOUT = {
    "people": [
        "Holders of the accounts. For each band of age, shares of the codes of education (0 to 6) "
        "and of marriage (0 to 3)."
    ],
    "limit_rank": [
        "Least squares of the normal score of the limit among accounts of the same type."
    ],
    "account_type": [
        "Mixture of Markov chains by expectation maximisation. share: of people with graduate "
        "school, university, high school,",
        "other education.",
        "limit: NT$. april: chances of the states. moves: from each state to the next month's, "
        "until August and to September.",
    ],
    "moves_of_all": ["Moves that do not depend on the type."],
    "deep_late": [
        "Accounts three or more months late: chances of 3 to 8 months in April, of a month more in "
        "the next month, of the same."
    ],
    "habits": ["Correlations of normal scores within the cells of [amounts]."],
    "bounds": [
        "bill, overpayment: as a share of the limit, 99.5 % and 99.9 % quantile. thousands, "
        "hundreds: shares of part payments",
        "with that rounding.",
    ],
    "empty_bills": ["Bills of zero or less, and payments on them: NT$."],
    "amounts": [
        "opening: bill, NT$; bands (up_to) of the limit, NT$. payments: share of the bill of the "
        "month before; bands of it, NT$.",
        "spending: NT$; bands of the unpaid part of that bill, as a share of the limit. power: "
        "amounts are for a limit of 100,000,",
        "and grow with that power of it. none: chance of zero; the quantiles are without zeros.",
    ],
    "hazard": [
        "Logistic regression of default in October. log_: of the limit in NT$, otherwise of 1 + "
        "NT$."
    ],
}


def to_toml(parameters: Parameters) -> str:
    """The text of the table, with a comment on each block."""
    lines = [_TITLE, ""]
    for name, block in parameters.model_dump(exclude_defaults=True).items():
        lines += [f"# {line}" for line in _ABOUT.get(name, [])]
        tables = block if isinstance(block, list) else [block]
        header = f"[[{name}]]" if isinstance(block, list) else f"[{name}]"
        for table in tables:
            lines += [header, *_entries(table)]
        lines += [""]
    return "\n".join(lines[:-1]) + "\n"


def _entries(table: Mapping[str, Any]) -> Iterable[str]:
    for key, value in table.items():
        if isinstance(value, dict) and all(isinstance(item, dict) for item in value.values()):
            yield from (f"{key}.{_key(inner)} = {_value(item)}" for inner, item in value.items())
        elif isinstance(value, list) and isinstance(value[0], dict | list):
            yield f"{key} = ["
            yield from (f"  {_value(item)}," for item in value)
            yield "]"
        else:
            yield f"{_key(key)} = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items())
            + " }"
        )
    return str(int(value)) if float(value).is_integer() else repr(value)


def _key(name: str) -> str:
    return name if name.replace("_", "").isalnum() and name.isascii() else f'"{name}"'
