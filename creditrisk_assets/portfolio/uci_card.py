"""The UCI "Default of credit card clients" portfolio (Yeh & Lien 2009, Expert Systems with
Applications 36:2473).

This module holds the fields, codes and features of this data set; modelling belongs in `modelling`.
The target is default in the next month, so its score is a one-month behavioural score.
"""

from functools import reduce
from typing import Any

import numpy as np

from creditrisk_assets.portfolio.contract import (
    FLOAT32_EXACT_INTEGER,
    Feature,
    Field,
    Portfolio,
    Reason,
)
from creditrisk_assets.portfolio.segmentation import Segmentation, grade_bands

MONTHS = ("September", "August", "July", "June", "May", "April")
PAY = ("pay_0", "pay_2", "pay_3", "pay_4", "pay_5", "pay_6")
BILL = tuple(f"bill_amt{month}" for month in range(1, 7))
PAID = tuple(f"pay_amt{month}" for month in range(1, 7))
PEOPLE = ("sex", "education", "marriage", "age")

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


EDUCATION = {
    0: "not documented",
    1: "graduate school",
    2: "university",
    3: "high school",
    4: "other",
    5: "not documented",
    6: "not documented",
}
MARRIAGE = {0: "not documented", 1: "married", 2: "single", 3: "other"}

LARGEST = FLOAT32_EXACT_INTEGER

_FIELDS = (
    Field("limit_bal", "credit limit, own and family", "NT$", 1, LARGEST, helps="more"),
    Field("sex", "sex (monitoring only, never a feature)", codes={1: "male", 2: "female"}),
    Field("education", "education (monitoring only, a proxy)", codes=EDUCATION),
    Field("marriage", "marital status (monitoring only, never a feature)", codes=MARRIAGE),
    Field("age", "age (monitoring only, never a feature)", "years", 18, 120, bands=AGE_BANDS),
    *(
        Field(name, f"payment status in {month}", "months late", codes=PAYMENT_STATUS, helps="less")
        for name, month in zip(PAY, MONTHS, strict=True)
    ),
    *(
        Field(name, f"bill statement in {month}", "NT$", -LARGEST, LARGEST, helps="less")
        for name, month in zip(BILL, MONTHS, strict=True)
    ),
    *(
        Field(name, f"amount paid in {month}", "NT$", 0, LARGEST, helps="more")
        for name, month in zip(PAID, MONTHS, strict=True)
    ),
)
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
    """Compute the feature matrix of the portfolio, in array-API code.

    Month 1 is the latest (September), month 6 the oldest (April). The payment of a month is due for
    the bill of the month before. A formula over months gives a feature for each month: `late` gives
    `late_1` to `late_6`.

    No bit of a row depends on the number of rows: sums over months are of whole numbers, which
    float32 (counts) or float64 (amounts) adds exactly in any order.

    Args:
        raw: rows x 23 fields, float32, columns in contract order.

    Returns:
        rows x features, float32, columns in the order of the portfolio's `features`.
    """
    xp = raw.__array_namespace__()

    def total(months: Any) -> Any:
        return xp.sum(months, axis=1, keepdims=True)

    def total_amount(months: Any) -> Any:
        return xp.astype(total(xp.astype(months, xp.float64)), xp.float32)

    def count(months: Any) -> Any:
        return total(xp.astype(months, xp.float32))

    # `xp.max` traces to branches: the features of one row take 72 in place of 45 microseconds. A
    # single `ReduceMax` takes 33, and does not always keep NaN.
    def largest(months: Any) -> Any:
        return reduce(xp.maximum, by_month(months))

    def smallest(months: Any) -> Any:
        return reduce(xp.minimum, by_month(months))

    def by_month(months: Any) -> list[Any]:
        return [months[:, month : month + 1] for month in range(6)]

    limit, status, bill, paid = (
        raw[:, _COLUMN[names[0]] : _COLUMN[names[-1]] + 1]
        for names in (("limit_bal",), PAY, BILL, PAID)
    )
    recency = xp.asarray(np.array([[6, 5, 4, 3, 2, 1]], dtype=np.float32))

    late = xp.maximum(status, 0.0)
    utilisation = bill / limit
    bill_1, bill_6, bills_before = bill[:, :1], bill[:, 5:], bill[:, 1:]
    payments, paid_6 = paid[:, :5], paid[:, 5:]
    late_1, late_sum = late[:, :1], total(late)
    owed = total_amount(bills_before)
    paid_since = total_amount(payments)
    bill_mean = (bill_1 + owed) / 6
    paid_mean = (paid_since + paid_6) / 6
    bill_movement = total_amount(xp.abs(bills_before - bill[:, :5])) / 5

    formulas = {
        "limit": limit,
        "late": late,
        "late_max": largest(late),
        "months_late": count(status > 0),
        "months_very_late": count(status > 1),
        "late_sum": late_sum,
        "late_recency": total(late * recency),
        "months_without_consumption": count(status == -2),
        "months_paid_in_full": count(status == -1),
        "utilisation": utilisation,
        "utilisation_mean": bill_mean / limit,
        "utilisation_max": largest(utilisation),
        "utilisation_min": smallest(utilisation),
        "bill": bill,
        "bill_mean": bill_mean,
        "available": limit - bill_1,
        "bill_movement": bill_movement,
        "utilisation_movement": bill_movement / limit,
        "spending_of_limit": (bill_1 - bill_6 + paid_since) / 5 / limit,
        "paid": paid,
        "paid_mean": paid_mean,
        "paid_min": smallest(paid),
        "paid_max": largest(paid),
        "months_unpaid": count(paid == 0),
        "paid_of_bill": xp.minimum(payments / xp.maximum(bills_before, 1.0), 2.0),
        "paid_of_bills": xp.minimum(paid_since / xp.maximum(owed, 1.0), 2.0),
        "paid_of_limit": paid_mean / limit,
        "balance_after_payments": (bill_1 - paid_since - paid_6) / limit,
        "utilisation_trend": (bill_1 - bill_6) / limit,
        "late_trend": late_1 - (late_sum - late_1) / 5,
    }
    return xp.concat([*formulas.values()], axis=1)


REASONS = (
    Reason("R01", "Payments on this card were late, recently or by several months", PAY),
    Reason("R02", "The credit limit granted so far is low", ("limit_bal",)),
    Reason("R03", "The balance is high for the credit limit, or has been rising", BILL),
    Reason("R04", "The amounts paid are low for the balance", PAID),
)

GRADE_BOUNDS = (0.05, 0.10, 0.15, 0.20, 0.30, 0.50)

SEGMENTS = (
    Segmentation(
        "limit_band", "credit limit in NT$", "limit_bal", (50_000, 100_000, 200_000, 350_000)
    ),
    Segmentation(
        "repayment",
        "payment status in September",
        "pay_0",
        (-1, 0, 1, 2),
        (
            "no consumption",
            "paid in full",
            "revolving credit",
            "1 month late",
            "2 months late or more",
        ),
    ),
    Segmentation(
        "utilisation",
        "bill in September as a share of the limit",
        "bill_amt1 / limit_bal",
        (0.1, 0.5, 0.9),
    ),
    Segmentation("education", "education", "education"),
    Segmentation("age_band", "age", "age", AGE_BANDS),
    grade_bands(GRADE_BOUNDS),
)
"""Segments of a risk analyst: how much was granted, how it is used and paid, who the customer is,
and how the model sees the customer. Age and education are for monitoring only.
"""

PUBLISHED_NAMES = {
    **{f"x{place}": name for place, name in enumerate(_COLUMN, start=1)},
    "y": "default_payment_next_month",
}
"""Columns as the UCI archive names them."""

_EXAMPLE = (
    *(120_000, 2, 2, 2, 26),
    *(-1, 2, 0, 0, 0, 2),
    *(2682, 1725, 2682, 3272, 3455, 3261),
    *(0, 1000, 1000, 1000, 0, 2000),
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
    grade_bounds=GRADE_BOUNDS,
    segments=SEGMENTS,
)
