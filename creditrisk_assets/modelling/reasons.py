"""Reasons of a score: contributions of groups of fields, computed inside the graph.

A group is the fields of one reason of the portfolio. Its contribution is its Shapley value on the
log-odds scale: the effect of the group's own values against a reference profile, averaged over all
orders of adding the groups. With G groups there are 2^G coalitions, so the value is exact and not
sampled. The reference is a customer just good enough to be approved (comment 9(b)(2)-5 to 12 CFR
1002.9). It is an input of the graph, because it depends on the cut-off.
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
"""Most reasons stated to a customer (12 CFR 1002.9, comment 9(b)(2)-1)."""

NO_REASON = -1

NEIGHBOURS = 500
"""Training rows just under the cut-off whose median is the reference profile."""


@dataclass(frozen=True)
class Explanation:
    """Outputs of a graph: `log_odds` of the records, n; `contributions` to them, n x groups;
    `reasons`, n x up to four indices of groups in order of contribution, then -1.
    """

    log_odds: ndonnx.Array
    contributions: ndonnx.Array
    reasons: ndonnx.Array


def explain(
    portfolio: Portfolio,
    raw: ndonnx.Array,
    reference: ndonnx.Array,
    log_odds: Callable[[ndonnx.Array], ndonnx.Array],
) -> Explanation:
    """Build log-odds with exact group Shapley values and the reasons that follow from them.

    A group is a reason if it raises the risk in the mean over all orders and also by itself: the PD
    falls if only this group is set to the reference. Sums are element-wise additions in a fixed
    order, so no bit depends on the number of rows in a batch.

    Args:
        portfolio: its reasons are the groups.
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
    contributions = _pairwise_sum(gains * ndonnx.asarray(weights.T.reshape(-1)), groups)
    full = coalitions - 1
    without_group = full - (1 << np.arange(groups))
    own = _columns(values, np.array([full]))
    falls = _columns(values, without_group) < own
    raising = ndonnx.where(falls, contributions, ndonnx.asarray(0.0, dtype=ndonnx.float64))
    largest, places = _largest(raising, min(groups, REASONS_LIMIT))
    reasons = ndonnx.where(largest > 0.0, places, ndonnx.asarray(NO_REASON, dtype=ndonnx.int64))
    return Explanation(ndonnx.reshape(own, (-1,)), contributions, reasons)


def reference_profile(
    raw: NDArray[np.float32],
    probability: NDArray[np.float64],
    cut_off: float,
    score: Callable[[NDArray[np.float32]], NDArray[np.float64]],
) -> list[float | None]:
    """Find a reference profile: the median of each field over the customers just below the cut-off,
    itself below the cut-off.

    The medians over the 500 nearest customers may together have a PD above the cut-off; the number
    is then doubled until they have not, with the nearest customer as the last resort.

    Args:
        raw: n x fields, training rows.
        probability: n, their PDs.
        cut_off: PD from which a customer is refused.
        score: function from rows x fields to PDs.

    Returns:
        The lower median of each field, a value that occurs; None if most customers have none.

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
        if score(profile[None])[0] < cut_off:
            return _values(profile)
        count *= 2
    return _values(nearest[0])


def _values(profile: NDArray[np.float32]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in profile]


def _lower_median(column: NDArray[np.float32]) -> float:
    present = column[~np.isnan(column)]
    if 2 * len(present) <= len(column):
        return np.nan
    return float(np.quantile(present, 0.5, method="lower"))


def _coalitions(portfolio: Portfolio) -> NDArray[np.bool_]:
    """Membership, coalitions x groups: coalition k holds the groups whose bit is set in k."""
    groups = len(portfolio.reasons)
    bits: NDArray[np.int64] = np.arange(1 << groups)[:, None] >> np.arange(groups)
    return np.asarray(bits & 1 == 1)


def _fields_from_record(portfolio: Portfolio, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask, coalitions x fields, of the fields with the record's value. Protected fields, which are
    in no group, always have it.
    """
    result = np.ones((len(inside), len(portfolio.fields)), dtype=bool)
    for group, reason in enumerate(portfolio.reasons):
        columns = [portfolio.field_names.index(name) for name in reason.fields]
        result[:, columns] = inside[:, group : group + 1]
    return result


def _marginals(
    inside: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Coalitions without each group, the same coalitions with it, and the Shapley weight of each
    such pair.
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
    """Take columns of a matrix, in the order of the places."""
    return ndonnx.take(values, ndonnx.asarray(places.reshape(-1).astype(np.int64)), axis=1)


def _pairwise_sum(terms: ndonnx.Array, groups: int) -> ndonnx.Array:
    """Sum the terms of each group by adding halves: rows x groups, from rows x (terms x groups),
    whose number of terms is a power of two.
    """
    for half in [groups << power for power in reversed(range(groups - 1))]:
        terms = terms[:, :half] + terms[:, half:]
    return terms


def _largest(values: ndonnx.Array, count: int) -> tuple[ndonnx.Array, ndonnx.Array]:
    """Largest values of each row, in order, and their places; the first of equals comes first."""
    found = op.top_k(values.unwrap_spox(), op.const(np.array([count], dtype=np.int64)), axis=1)
    return ndonnx.asarray(found[0]), ndonnx.asarray(found[1])
