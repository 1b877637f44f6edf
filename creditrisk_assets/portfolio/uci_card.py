"""The UCI "Default of credit card clients" portfolio (Yeh & Lien 2009, Expert Systems with
Applications 36:2473).

This module holds the fields, codes and features of this data set; modelling belongs in `modelling`.
The target is default in the next month, so its score is a one-month behavioural score.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from creditrisk_assets.portfolio.contract import (
    FLOAT32_EXACT_INTEGER,
    Feature,
    Field,
    Portfolio,
    Reason,
)

MONTHS = ("September", "August", "July", "June", "May", "April")
PAY = ("pay_0", "pay_2", "pay_3", "pay_4", "pay_5", "pay_6")
BILL = tuple(f"bill_amt{month}" for month in range(1, 7))
PAID = tuple(f"pay_amt{month}" for month in range(1, 7))
PEOPLE = ("sex", "education", "marriage", "age")

_LATE, _BILL, _PAID, _UTILISATION = (
    tuple(f"{name}_{month}" for month in range(1, 7))
    for name in ("late", "bill", "paid", "utilisation")
)
"""Feature names of the monthly columns."""

AGE_BANDS = (25, 35, 45, 62)
"""The last band begins at the age of an elderly applicant by 12 CFR 1002.2(o); it holds 0.7 % of
these customers.
"""

PAYMENT_STATUS = {
    -2: "no consumption",
    -1: "paid in full",
    0: "revolving credit",
    **{months: f"{months} month{'s' if months > 1 else ''} late" for months in range(1, 10)},
}


def _fields() -> tuple[Field, ...]:
    limit = Field(
        "limit_bal", "credit limit, own and family", "NT$", 1, FLOAT32_EXACT_INTEGER, helps="more"
    )
    people = (
        Field("sex", "sex (monitoring only, never a feature)", codes={1: "male", 2: "female"}),
        Field(
            "education",
            "education (monitoring only, a proxy)",
            codes={
                0: "not documented",
                1: "graduate school",
                2: "university",
                3: "high school",
                4: "other",
                5: "not documented",
                6: "not documented",
            },
        ),
        Field(
            "marriage",
            "marital status (monitoring only, never a feature)",
            codes={0: "not documented", 1: "married", 2: "single", 3: "other"},
        ),
        Field("age", "age (monitoring only, never a feature)", "years", 18, 120, bands=AGE_BANDS),
    )
    status = tuple(
        Field(name, f"payment status in {month}", "months late", codes=PAYMENT_STATUS, helps="less")
        for name, month in zip(PAY, MONTHS, strict=True)
    )
    bills = tuple(
        Field(
            name,
            f"bill statement in {month}",
            "NT$",
            -FLOAT32_EXACT_INTEGER,
            FLOAT32_EXACT_INTEGER,
            helps="less",
        )
        for name, month in zip(BILL, MONTHS, strict=True)
    )
    paid = tuple(
        Field(name, f"amount paid in {month}", "NT$", 0, FLOAT32_EXACT_INTEGER, helps="more")
        for name, month in zip(PAID, MONTHS, strict=True)
    )
    return (limit, *people, *status, *bills, *paid)


_FIELDS = _fields()
_COLUMN = {field.name: position for position, field in enumerate(_FIELDS)}

_FEATURES = (
    Feature("limit", -1),
    *(Feature(f"late_{month}", +1) for month in range(1, 7)),
    Feature("late_max", +1),
    Feature("months_late", +1),
    Feature("months_very_late", +1),
    Feature("late_sum", +1),
    Feature("late_recency", +1),
    Feature("months_without_consumption"),
    Feature("months_paid_in_full"),
    *(Feature(f"utilisation_{month}") for month in range(1, 7)),
    Feature("utilisation_mean"),
    Feature("utilisation_max"),
    Feature("utilisation_min"),
    *(Feature(f"bill_{month}") for month in range(1, 7)),
    Feature("bill_mean"),
    Feature("available", -1),
    Feature("bill_movement"),
    Feature("utilisation_movement"),
    Feature("spending_of_limit"),
    *(Feature(f"paid_{month}", -1) for month in range(1, 7)),
    Feature("paid_mean", -1),
    Feature("paid_min", -1),
    Feature("paid_max", -1),
    Feature("months_unpaid", +1),
    *(Feature(f"paid_of_bill_{month}", -1) for month in range(1, 6)),
    Feature("paid_of_bills", -1),
    Feature("paid_of_limit", -1),
    Feature("balance_after_payments"),
    Feature("utilisation_trend"),
    Feature("late_trend"),
)


class _Columns:
    """Columns by name, each a row of one matrix. Columns with the same formula are computed
    together: for a single customer each node of the graph costs more than its arithmetic.

    Args:
        xp: the array namespace.
        names: names of the columns.
        values: columns x customers.
    """

    def __init__(self, xp: Any, names: Sequence[str], values: Any) -> None:
        self._xp = xp
        self._places = {name: place for place, name in enumerate(names)}
        self._values = values

    def __getitem__(self, names: Sequence[str]) -> Any:
        """Matrix of the named columns, in the order of the names."""
        places = np.array([self._places[name] for name in names], dtype=np.int64)
        return self._xp.take(self._values, self._xp.asarray(places), axis=0)

    def with_columns(self, *more: tuple[Sequence[str], Any]) -> "_Columns":
        """Add blocks of columns, each with its names."""
        names = [*self._places, *(name for block, _ in more for name in block)]
        return _Columns(
            self._xp,
            names,
            self._xp.concat([self._values, *(values for _, values in more)], axis=0),
        )


def compute_features(raw: Any) -> Any:
    """Compute the feature matrix of the portfolio, in array-API code.

    Only small whole numbers, whose sums are exact in any order, are summed by reduction; fractions
    are added column by column.

    Args:
        raw: rows x 23 fields, float32, columns in contract order.

    Returns:
        rows x features, float32, columns in the order of the portfolio's `features`.
    """
    xp = raw.__array_namespace__()

    def each(*values: float, times: int = 1) -> Any:
        return xp.asarray(np.repeat(np.array(values, dtype=np.float32), times)[:, None])

    def as_float(condition: Any) -> Any:
        return xp.astype(condition, xp.float32)

    def part_by_part(operation: Callable[[Any, Any], Any], values: Any, parts: int) -> Any:
        # In a fixed order: a reduction may add fractions in a different order on another processor.
        width = values.shape[0] // parts
        result = values[:width, :]
        for part in range(1, parts):
            result = operation(result, values[part * width : (part + 1) * width, :])
        return result

    columns = _Columns(xp, ("limit", *PEOPLE, *PAY, *_BILL, *_PAID), xp.matrix_transpose(raw))
    one, two = each(1.0), each(2.0)
    late = xp.maximum(columns[PAY], each(0.0))
    by_month = [
        as_float(columns[PAY + PAY] > each(0.0, 1.0, times=6)),
        as_float(columns[PAY + PAY + _PAID] == each(-2.0, -1.0, 0.0, times=6)),
        late,
        late * each(6.0, 5.0, 4.0, 3.0, 2.0, 1.0),
    ]
    change = tuple(f"change_{month}" for month in range(1, 6))
    columns = columns.with_columns(
        (_LATE, late),
        (
            (
                *(
                    "months_late",
                    "months_very_late",
                    "months_without_consumption",
                    "months_paid_in_full",
                    "months_unpaid",
                ),
                *("late_sum", "late_recency"),
            ),
            xp.sum(xp.reshape(xp.concat(by_month, axis=0), (7, 6, -1)), axis=1),
        ),
        (change, xp.abs(columns[_BILL[1:]] - columns[_BILL[:5]])),
    )
    # A payment of a month answers the bill of the month before.
    five = [name for month in zip(_BILL[1:], _PAID[:5], change, strict=True) for name in month]
    columns = columns.with_columns(
        (("owed", "paid_since", "moved"), part_by_part(xp.add, columns[five], 5))
    )
    columns = columns.with_columns(
        (
            ("rise", "bill_less_paid", "late_before", "available"),
            columns[("bill_1", "bill_1", "late_sum", "limit")]
            - columns[("bill_6", "paid_since", "late_1", "bill_1")],
        )
    )
    columns = columns.with_columns(
        (
            ("billed", "paid", "spent", "left"),
            columns[("bill_1", "paid_since", "rise", "bill_less_paid")]
            + columns[("owed", "paid_6", "paid_since", "paid_6")] * each(1.0, 1.0, 1.0, -1.0),
        )
    )
    columns = columns.with_columns(
        (
            ("bill_mean", "paid_mean", "bill_movement", "spent_mean", "late_before_mean"),
            columns[("billed", "paid", "moved", "spent", "late_before")]
            / each(6.0, 6.0, 5.0, 5.0, 5.0),
        )
    )
    columns = columns.with_columns(
        (
            (
                *("utilisation_mean", "paid_of_limit", "utilisation_movement", "spending_of_limit"),
                *("balance_after_payments", "utilisation_trend", *_UTILISATION),
            ),
            columns[
                ("bill_mean", "paid_mean", "bill_movement", "spent_mean", "left", "rise", *_BILL)
            ]
            / columns[("limit",)],
        ),
        (
            (*(f"paid_of_bill_{month}" for month in range(1, 6)), "paid_of_bills"),
            xp.minimum(
                columns[(*_PAID[:5], "paid_since")]
                / xp.maximum(columns[(*_BILL[1:], "owed")], one),
                two,
            ),
        ),
        (("late_trend",), columns[("late_1",)] - columns[("late_before_mean",)]),
    )
    six = [
        name
        for month in zip(_LATE, _UTILISATION, _UTILISATION, _PAID, _PAID, strict=True)
        for name in month
    ]
    sign = (1.0, 1.0, -1.0, -1.0, 1.0)  # the minimum is the maximum of the negated values
    extremes = part_by_part(xp.maximum, columns[six] * each(*sign * 6), 6) * each(*sign)
    columns = columns.with_columns(
        (("late_max", "utilisation_max", "utilisation_min", "paid_min", "paid_max"), extremes)
    )
    return xp.matrix_transpose(columns[[feature.name for feature in _FEATURES]])


REASONS = (
    Reason("R01", "Payments on this card were late, recently or by several months", PAY),
    Reason("R02", "The credit limit granted so far is low", ("limit_bal",)),
    Reason("R03", "The balance is high for the credit limit, or has been rising", BILL),
    Reason("R04", "The amounts paid are low for the balance", PAID),
)

PUBLISHED_NAMES = {
    **{
        f"x{place}": name
        for place, name in enumerate(("limit_bal", *PEOPLE, *PAY, *BILL, *PAID), start=1)
    },
    "y": "default_payment_next_month",
}
"""Columns as the UCI archive names them."""

_EXAMPLE = (
    120_000,
    2,
    2,
    2,
    26,
    -1,
    2,
    0,
    0,
    0,
    2,
    2682,
    1725,
    2682,
    3272,
    3455,
    3261,
    0,
    1000,
    1000,
    1000,
    0,
    2000,
)
"""Second row of the published data."""

PORTFOLIO = Portfolio(
    name="uci_card",
    title="Credit-card customers in Taiwan, 2005 (UCI data set 350, Yeh & Lien 2009)",
    identifier="id",
    target="default_payment_next_month",
    target_description="default on the payment of the next month",
    fields=_FIELDS,
    protected=PEOPLE,
    features=_FEATURES,
    compute_features=compute_features,
    performance_window_days=31,
    reasons=REASONS,
    example=dict(zip(_COLUMN, _EXAMPLE, strict=True)),
    intended_use="To order existing card holders by their risk of default in the next month, by "
    "six months of their statements.",
    limits=(
        "It is a one-month behavioural score: neither a 12-month PD as capital rules (Basel) want "
        "it nor a lifetime PD (IFRS 9).",
        "It is not an application score: it knows only customers who had a card and statements "
        "for six months.",
        "The outcomes are of one month, October 2005, in Taiwan; the data shows no other month.",
        "The data set has no dates. Days of production made from it, or simulated, are a "
        "synthetic time axis.",
    ),
    simulator="creditrisk_assets.simulation.card_customers.simulate",
    exposure="limit_bal",
    published_names=PUBLISHED_NAMES,
)
