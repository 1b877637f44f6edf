"""The UCI "Default of credit card clients" portfolio (Yeh & Lien 2009, Expert Systems with Applications 36:2473).

Fields, codes and features of this one data set; nothing about how models are made. The target is default in the next month,
so a score over it is a one-month behavioural score.
"""

from typing import Any

import numpy as np

from creditrisk_assets.portfolio.contract import FLOAT32_EXACT_INTEGER, Feature, Field, Portfolio, Reason

MONTHS = ("September", "August", "July", "June", "May", "April")
PAY = ("pay_0", "pay_2", "pay_3", "pay_4", "pay_5", "pay_6")
BILL = tuple(f"bill_amt{month}" for month in range(1, 7))
PAID = tuple(f"pay_amt{month}" for month in range(1, 7))

AGE_BANDS = (25, 35, 45, 62)
"""The last is where 12 CFR 1002.2(o) begins to call an applicant elderly; 0.7 % of these customers are."""

PAYMENT_STATUS = {
    -2: "no consumption",
    -1: "paid in full",
    0: "revolving credit",
    **{months: f"{months} month{'s' if months > 1 else ''} late" for months in range(1, 10)},
}


def _fields() -> tuple[Field, ...]:
    limit = Field("limit_bal", "credit limit, own and family", "NT$", 1, FLOAT32_EXACT_INTEGER)
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
        Field(name, f"payment status in {month}", "months late", codes=PAYMENT_STATUS)
        for name, month in zip(PAY, MONTHS, strict=True)
    )
    bills = tuple(
        Field(name, f"bill statement in {month}", "NT$", -FLOAT32_EXACT_INTEGER, FLOAT32_EXACT_INTEGER)
        for name, month in zip(BILL, MONTHS, strict=True)
    )
    paid = tuple(
        Field(name, f"amount paid in {month}", "NT$", 0, FLOAT32_EXACT_INTEGER) for name, month in zip(PAID, MONTHS, strict=True)
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


def compute_features(raw: Any) -> Any:
    """Feature matrix of the portfolio, as array-API code.

    Args:
        raw: rows x 23 fields, float32, columns in contract order.

    Sums by reduction are of small whole numbers only, which are exact in any order; fractions are added column by column.

    Returns:
        rows x features, float32, columns in the order of the portfolio's `features`.
    """
    xp = raw.__array_namespace__()

    def constant(value: float) -> Any:
        return xp.asarray(value, dtype=xp.float32)

    def block(names: tuple[str, ...]) -> Any:
        return raw[:, _COLUMN[names[0]] : _COLUMN[names[-1]] + 1]

    def holds(condition: Any) -> Any:
        return xp.astype(condition, xp.float32)

    def columns(several: Any, width: int = 6) -> list[Any]:
        return [several[:, month : month + 1] for month in range(width)]

    def over_months(reduction: Any, several: list[Any]) -> list[Any]:
        # One reduction for all: for a single customer each node of the graph costs more than what it computes.
        stacked = xp.reshape(xp.concat(several, axis=1), (-1, len(several), 6))
        return columns(reduction(stacked, axis=2), len(several))

    def total(single: list[Any]) -> Any:
        # Column by column in a fixed order: a reduction may add fractions in another order on another processor.
        result = single[0]
        for column in single[1:]:
            result = result + column
        return result

    zero, one, two, five, six = constant(0.0), constant(1.0), constant(2.0), constant(5.0), constant(6.0)
    limit = raw[:, _COLUMN["limit_bal"] : _COLUMN["limit_bal"] + 1]
    status, bills, paid = block(PAY), block(BILL), block(PAID)
    late = xp.maximum(status, zero)
    recency = xp.asarray(np.array([[6, 5, 4, 3, 2, 1]], dtype=np.float32))
    latest = late[:, :1]
    utilisation = bills / limit
    times_late, times_later, late_sum, late_recency, unused, in_full, unpaid = over_months(
        xp.sum,
        [
            *(holds(late > zero), holds(late > one), late, late * recency),
            *(holds(status == -two), holds(status == -one), holds(paid == zero)),
        ],
    )
    late_most, utilisation_most, utilisation_least, paid_least, paid_most = over_months(
        xp.max, [late, utilisation, -utilisation, -paid, paid]
    )
    bill, payment = columns(bills), columns(paid)
    owed, paid_since = total(bill[1:]), total(payment[:5])  # a payment of a month answers the bill of the month before
    bill_mean, paid_mean = (bill[0] + owed) / six, (paid_since + payment[5]) / six
    movement = total(columns(xp.abs(bills[:, 1:] - bills[:, :5]), 5)) / five
    spent = bill[0] - bill[5] + paid_since
    blocks = [
        limit,
        late,
        late_most,
        times_late,
        times_later,
        late_sum,
        late_recency,
        unused,
        in_full,
        utilisation,
        bill_mean / limit,
        utilisation_most,
        -utilisation_least,
        bills,
        bill_mean,
        limit - bill[0],
        movement,
        movement / limit,
        spent / five / limit,
        paid,
        paid_mean,
        -paid_least,
        paid_most,
        unpaid,
        xp.minimum(paid[:, :5] / xp.maximum(bills[:, 1:], one), two),
        xp.minimum(paid_since / xp.maximum(owed, one), two),
        paid_mean / limit,
        (bill[0] - paid_since - payment[5]) / limit,
        (bill[0] - bill[5]) / limit,
        latest - (late_sum - latest) / five,
    ]
    return xp.concat(blocks, axis=1)


REASONS = (
    Reason("R01", "Payments on this card were late, recently or by several months", PAY),
    Reason("R02", "The credit limit granted so far is low", ("limit_bal",)),
    Reason("R03", "The balance is high for the credit limit, or has been rising", BILL),
    Reason("R04", "The amounts paid are low for the balance", PAID),
)

_EXAMPLE = (120_000, 2, 2, 2, 26, -1, 2, 0, 0, 0, 2, 2682, 1725, 2682, 3272, 3455, 3261, 0, 1000, 1000, 1000, 0, 2000)
"""The second row of the published data."""

PORTFOLIO = Portfolio(
    name="uci_card",
    title="Credit-card customers in Taiwan, 2005 (UCI data set 350, Yeh & Lien 2009)",
    identifier="id",
    target="default_payment_next_month",
    target_description="default on the payment of the next month",
    fields=_FIELDS,
    protected=("sex", "education", "marriage", "age"),
    features=_FEATURES,
    compute_features=compute_features,
    performance_window_days=31,
    reasons=REASONS,
    example=dict(zip(_COLUMN, _EXAMPLE, strict=True)),
    intended_use="To order existing card holders by their risk of default in the next month, by six months of their statements.",
    limits=(
        "It is a one-month behavioural score: neither a 12-month PD as capital rules (Basel) want it nor a lifetime PD (IFRS 9).",
        "It is not an application score: it knows only customers who had a card and statements for six months.",
        "The outcomes are of one month, October 2005, in Taiwan; how they were in other months nobody can see in this data.",
        "The data set has no dates. Days of production made from it, or simulated, are a synthetic time axis.",
    ),
    simulator="creditrisk_assets.portfolio.simulator.simulate",
    exposure="limit_bal",
)
