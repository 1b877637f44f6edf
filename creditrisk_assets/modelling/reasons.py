"""Why a score is as high as it is: contributions of groups of fields, computed inside the graph.

A group is the fields of one reason of the portfolio. Its contribution is its Shapley value on the
log-odds scale: what the group's own values add over a reference profile, averaged over every order
in which the groups can be put in. With G groups there are 2^G coalitions, so that the value is
exact, not sampled. The reference is a customer just good enough to be approved (comment 9(b)(2)-5
to 12 CFR 1002.9), and it is an input of the graph: with another cut-off it is another customer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import ndonnx
import numpy as np
import spox.opset.ai.onnx.v17 as op
from numpy.typing import NDArray

from creditrisk_assets.portfolio.contract import Portfolio

REASONS_LIMIT = 4
"""Most reasons that a customer is told (12 CFR 1002.9, comment 9(b)(2)-1)."""

NO_REASON = -1

NEIGHBOURS = 500
"""Training rows just under the cut-off whose median is the reference profile."""


@dataclass(frozen=True)
class Explained:
    """Parts of a graph. `log_odds` of the records themselves: n; `contributions` to it: n x groups;
    `reasons`: n x up to four places of groups in order of contribution, then -1.
    """

    log_odds: ndonnx.Array
    contributions: ndonnx.Array
    reasons: ndonnx.Array


def explained(
    portfolio: Portfolio,
    raw: ndonnx.Array,
    reference: ndonnx.Array,
    log_odds: Callable[[ndonnx.Array], ndonnx.Array],
) -> Explained:
    """Log-odds with exact group Shapley values and the reasons that follow from them.

    A reason is given for a group that raises the risk in the mean over all orders and also by
    itself: with that group alone put back to the reference, the PD falls. Sums are element-wise
    additions in a fixed order, so that no bit depends on how many rows are decided together.

    Args:
        portfolio: whose reasons are the groups.
        raw: rows x fields, float32.
        reference: 1 x fields, float32.
        log_odds: calibrated log-odds of such rows, float64.
    """
    inside = _coalitions(portfolio)
    coalitions, groups = len(inside), len(portfolio.reasons)
    fields = len(portfolio.fields)
    from_record = ndonnx.asarray(_fields_from_record(portfolio, inside)[None])
    mixed = ndonnx.where(from_record, raw[:, None, :], reference)
    values = ndonnx.reshape(log_odds(ndonnx.reshape(mixed, (-1, fields))), (-1, coalitions))
    without, with_group, weights = _marginals(inside)
    gains = _columns(values, with_group.T) - _columns(values, without.T)
    contributions = _halved(gains * ndonnx.asarray(weights.T.reshape(-1)), groups)
    everything = coalitions - 1
    put_back = everything - (1 << np.arange(groups))
    own = _columns(values, np.array([everything]))
    falls = _columns(values, put_back) < own
    raising = ndonnx.where(falls, contributions, ndonnx.asarray(0.0, dtype=ndonnx.float64))
    largest, places = _largest(raising, min(groups, REASONS_LIMIT))
    reasons = ndonnx.where(largest > 0.0, places, ndonnx.asarray(NO_REASON, dtype=ndonnx.int64))
    return Explained(ndonnx.reshape(own, (-1,)), contributions, reasons)


def reference_profile(
    raw: NDArray[np.float32],
    probability: NDArray[np.float64],
    cut_off: float,
    scored: Callable[[NDArray[np.float32]], NDArray[np.float64]],
) -> list[float | None]:
    """The median of each field over the customers just good enough to be approved, itself good
    enough.

    The medians of the 500 nearest under the cut-off may together be no approved customer; then
    twice as many are taken, and so on, and at last the nearest customer as he is.

    Args:
        raw: n x fields, customers that the model was trained on.
        probability: n, their PDs.
        cut_off: PD from which a customer is refused.
        scored: PDs of rows x fields.

    Returns:
        A value for each field that some customer has (the lower median), None where most of them
        have none.

    Raises:
        ValueError: if no customer is under the cut-off.
    """
    approved = np.flatnonzero(probability < cut_off)
    if not len(approved):
        raise ValueError(
            f"cut-off {cut_off}: none of {len(raw)} customers is under it; valid: above "
            f"{probability.min():.6f}"
        )
    nearest = raw[approved[np.argsort(-probability[approved], kind="stable")]]
    count = NEIGHBOURS
    while count < 2 * len(nearest):
        profile = np.array(
            [_lower_median(column) for column in nearest[:count].T], dtype=np.float32
        )
        if scored(profile[None])[0] < cut_off:
            return _values(profile)
        count *= 2
    return _values(nearest[0])


def _values(profile: NDArray[np.float32]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in profile]


def _lower_median(column: NDArray[np.float32]) -> float:
    known = column[~np.isnan(column)]
    return (
        float(np.quantile(known, 0.5, method="lower")) if 2 * len(known) > len(column) else np.nan
    )


def _coalitions(portfolio: Portfolio) -> NDArray[np.bool_]:
    """Coalitions x groups: coalition number k holds the groups whose bit is set in k."""
    groups = len(portfolio.reasons)
    bits: NDArray[np.int64] = np.arange(1 << groups)[:, None] >> np.arange(groups)
    return np.asarray(bits & 1 == 1)


def _fields_from_record(portfolio: Portfolio, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Coalitions x fields: whether a field has the record's value. Fields of no group, the
    protected ones, always have.
    """
    result = np.ones((len(inside), len(portfolio.fields)), dtype=bool)
    for group, reason in enumerate(portfolio.reasons):
        columns = [portfolio.field_names.index(name) for name in reason.fields]
        result[:, columns] = inside[:, group : group + 1]
    return result


def _marginals(
    inside: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For each group the coalitions without it, the same with it, and the Shapley weight of each
    such step.
    """
    coalitions, groups = inside.shape
    numbers = np.arange(coalitions, dtype=np.int64)
    without = np.stack([numbers[~inside[:, group]] for group in range(groups)])
    with_group = without + (1 << np.arange(groups, dtype=np.int64))[:, None]
    sizes = inside.sum(axis=1)[without]
    weights = [
        [
            math.factorial(size) * math.factorial(groups - size - 1) / math.factorial(groups)
            for size in row
        ]
        for row in sizes
    ]
    return without, with_group, np.array(weights)


def _columns(values: ndonnx.Array, places: NDArray[np.int64]) -> ndonnx.Array:
    """Columns of a matrix, in the order of the places."""
    return ndonnx.take(values, ndonnx.asarray(places.reshape(-1).astype(np.int64)), axis=1)


def _halved(terms: ndonnx.Array, groups: int) -> ndonnx.Array:
    """For each group the sum of its terms, by adding halves: rows x groups, from rows x (terms x
    groups), their number a power of two.
    """
    for half in [groups << power for power in reversed(range(groups - 1))]:
        terms = terms[:, :half] + terms[:, half:]
    return terms


def _largest(values: ndonnx.Array, count: int) -> tuple[ndonnx.Array, ndonnx.Array]:
    """The largest of each row, in order, and their places; of equals the first comes first."""
    found = op.top_k(values.unwrap_spox(), op.const(np.array([count], dtype=np.int64)), axis=1)
    return ndonnx.asarray(found[0]), ndonnx.asarray(found[1])
