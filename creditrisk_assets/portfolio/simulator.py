"""Simulated customers in the shape of the UCI card portfolio, and drift put into customers on purpose.

Every account has a hidden frailty; its payment status moves from month to month as a Markov chain whose rates depend on the
frailty, its balance follows its utilisation, and default next month follows a hazard on what happened before. Nothing here is
data about people. Any time axis over these customers, or over the UCI file, is synthetic.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditrisk_assets.portfolio.contract import FLOAT32_EXACT_INTEGER
from creditrisk_assets.portfolio.uci_card import BILL, PAID, PAY, PAYMENT_STATUS, PORTFOLIO

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PRACTICAL_STRENGTH = 1.0
"""The drift that the demo injects: limits up by half, a third of the payment statuses one month worse, and the outcome of
half of the customers decided by balances and not by payment history."""


def simulate(rows: int, seed: int, first_identifier: int = 1) -> pd.DataFrame:
    """Customers with their outcome.

    Args:
        rows: how many.
        seed: the same seed gives the same customers.
        first_identifier: customers are numbered from here.

    Returns:
        One row for each customer: identifier (text), the 23 fields and the target (int64).
    """
    rng = np.random.default_rng(seed)
    frailty = rng.normal(size=rows)
    limit = np.clip(np.round(np.exp(rng.normal(11.75 - 0.28 * frailty, 0.78)) / 10_000) * 10_000, 10_000, 1_000_000)
    transactor = rng.random(rows) < _sigmoid(-0.9 - 0.55 * frailty)
    dormant = rng.random(rows) < 0.09
    status = _payment_statuses(frailty, transactor, dormant, rng)
    utilisation = _utilisations(frailty, transactor, dormant, rng)
    bills = np.round(utilisation * limit[:, None])
    paid = _payments(bills, status, rng)

    late = np.maximum(status, 0)
    log_odds: FloatArray = np.asarray(
        -1.98
        + 1.15 * (late[:, 0] >= 1)
        + 1.05 * (late[:, 0] >= 2)
        + 0.28 * (late[:, 1:] >= 2).sum(axis=1)
        + 0.35 * np.clip(utilisation.mean(axis=1), 0, 1.2)
        - 0.30 * (np.log(limit) - 11.75)
        - 0.16 * np.log1p(paid.mean(axis=1) / 1_000)
        + 0.30 * frailty
    )
    target = rng.random(rows) < _sigmoid(log_odds)
    frame = {
        PORTFOLIO.identifier: [str(number) for number in range(first_identifier, first_identifier + rows)],
        "limit_bal": limit,
        "sex": 1 + (rng.random(rows) < 0.6),
        "education": rng.choice([1, 2, 3, 4, 5, 6, 0], size=rows, p=[0.353, 0.468, 0.164, 0.004, 0.009, 0.0015, 0.0005]),
        "marriage": rng.choice([1, 2, 3, 0], size=rows, p=[0.455, 0.532, 0.011, 0.002]),
        "age": np.clip(np.round(21 + rng.gamma(2.4, 6.0, size=rows)), 21, 79),
        **{name: status[:, month] for month, name in enumerate(PAY)},
        **{name: bills[:, month] for month, name in enumerate(BILL)},
        **{name: paid[:, month] for month, name in enumerate(PAID)},
        PORTFOLIO.target: target,
    }
    result = pd.DataFrame(frame)
    numbers = [*PORTFOLIO.field_names, PORTFOLIO.target]
    return result.astype(dict.fromkeys(numbers, "int64"))


def inject_drift(customers: pd.DataFrame, seed: int, strength: float = PRACTICAL_STRENGTH) -> pd.DataFrame:
    """The same customers after a shock: who applies, how they pay, and what makes them default have moved.

    Limits rise and payment statuses worsen (covariate shift); a share of the outcomes is drawn again from the balances alone
    (concept drift), so that payment history tells less than it did.

    Args:
        customers: identifier, fields and target, as `simulate` gives them or the UCI file has them.
        seed: the same seed gives the same drift.
        strength: 0 leaves everything as it was.
    """
    rng = np.random.default_rng(seed)
    rows = len(customers)
    drifted = customers.copy()
    limit = customers["limit_bal"].to_numpy()
    rise = np.round(limit * 0.5 * strength / 10_000) * 10_000
    drifted["limit_bal"] = np.minimum(limit + rise, FLOAT32_EXACT_INTEGER).astype("int64")
    worse = rng.random(rows) < min(1.0, 0.33 * strength)
    for name in PAY:
        drifted[name] = np.where(worse, np.minimum(customers[name] + 1, max(PAYMENT_STATUS)), customers[name])
    bills = customers[list(BILL)].clip(lower=0).mean(axis=1).to_numpy()
    rank = np.asarray(pd.Series(bills).rank(pct=True), dtype=np.float64)
    log_odds = 6.0 * (rank - 0.5) - 1.0
    redrawn = rng.random(rows) < min(1.0, 0.5 * strength)
    outcome = rng.random(rows) < _sigmoid(log_odds)
    drifted[PORTFOLIO.target] = np.where(redrawn, outcome, customers[PORTFOLIO.target]).astype("int64")
    return drifted


def _payment_statuses(
    frailty: FloatArray, transactor: NDArray[np.bool_], dormant: NDArray[np.bool_], rng: np.random.Generator
) -> IntArray:
    """Months late for six months, newest first: rows x 6."""
    rows = len(frailty)
    quiet = np.where(dormant, -2, np.where(transactor, -1, 0))
    current = np.where(rng.random(rows) < _sigmoid(-2.5 + 1.1 * frailty), 2, quiet)
    history = [current]
    for _ in range(5):
        chance = rng.random(rows)
        starts = chance < _sigmoid(-3.1 + 1.1 * frailty)
        stays_late = chance < _sigmoid(0.45 + 0.55 * frailty)
        deeper = rng.random(rows) < 0.16
        entry = np.where(rng.random(rows) < 0.55, 1, 2)
        late_next = np.where(stays_late, np.where(deeper, np.minimum(current + 1, 8), np.maximum(current, 2)), quiet)
        current = np.where(current > 0, late_next, np.where(starts, entry, quiet))
        history.append(current)
    return np.stack(history[::-1], axis=1).astype(np.int64)


def _utilisations(
    frailty: FloatArray, transactor: NDArray[np.bool_], dormant: NDArray[np.bool_], rng: np.random.Generator
) -> FloatArray:
    """Balance as a share of the limit for six months, newest first: rows x 6."""
    rows = len(frailty)
    level = np.where(transactor, rng.beta(1.0, 9.0, rows), rng.beta(1.1 + 0.25 * np.clip(frailty, -1, 2), 1.3, rows))
    level = np.where(dormant, 0.0, level)
    steps = rng.normal(0, 0.06, (rows, 6)) * (~dormant[:, None])
    return np.asarray(np.clip(level[:, None] + np.cumsum(steps, axis=1), -0.02, 1.4))


def _payments(bills: FloatArray, status: IntArray, rng: np.random.Generator) -> FloatArray:
    """Amount paid in each month on the bill of the month before, newest first: rows x 6."""
    previous = np.concatenate([bills[:, 1:], bills[:, -1:]], axis=1)
    due = np.maximum(previous, 0)
    share = np.where(status <= -1, 1.0, rng.beta(1.2, 14.0, bills.shape))
    share = np.where((status > 0) & (rng.random(bills.shape) < 0.55), 0.0, share)
    return np.asarray(np.round(due * share))


def _sigmoid(log_odds: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-log_odds)))
