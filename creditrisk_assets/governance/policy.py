"""Credit policy on a calibrated PD, separate from the model: cut-off, expected loss and the
trade-off of every cut-off.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditrisk_assets.modelling.grades import grade_table
from creditrisk_assets.modelling.reasons import reference_profile
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import HELD_OUT, REFERENCE, Bundle, DecisionRule

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

APPROVAL_STEPS = tuple(step / 100 for step in range(5, 101, 5))
"""Approval rates of the trade-off table."""


def rule_of(bundle: Bundle, cut_off: float | None) -> DecisionRule:
    """The decision rule of a bundle.

    Args:
        bundle: the model.
        cut_off: the policy's, or None for the model's own (the PD at which KS is reached).

    Returns:
        The cut-off and the profile of a customer just below it, from the bundle's reference rows.

    Raises:
        ValueError: if no customer would be approved.
    """
    if cut_off is None:
        return bundle.manifest.rule
    reference = pd.read_parquet(io.BytesIO(bundle.document(REFERENCE)))
    raw = reference[bundle.input_names].to_numpy(dtype=np.float32)
    probability = reference["default_probability"].to_numpy(dtype=np.float64)
    profile = reference_profile(
        raw, probability, cut_off, lambda rows: bundle.score(rows).default_probability
    )
    return DecisionRule(cut_off=cut_off, reference=profile)


@dataclass(frozen=True)
class ScoredEvidence:
    """Held-out customers, scored by a bundle.

    Attributes:
        probability: n, PD.
        target: n, 1 = bad.
        expected_loss: n, PD x LGD x EAD in the exposure's unit; None if the portfolio names no
            exposure.
    """

    probability: FloatArray
    target: IntArray
    expected_loss: FloatArray | None


def score_held_out(bundle: Bundle, portfolio: Portfolio) -> ScoredEvidence:
    """Score the held-out rows of a bundle. LGD and the exposure's share are the portfolio's
    assumptions; no data set here provides them.
    """
    evidence = pd.read_parquet(io.BytesIO(bundle.document(HELD_OUT)))
    raw = evidence[bundle.input_names].to_numpy(dtype=np.float32)
    probability = bundle.score(raw).default_probability
    loss = None
    if portfolio.exposure is not None:
        exposure = raw[:, bundle.input_names.index(portfolio.exposure)].astype(np.float64)
        loss = probability * portfolio.loss_given_default * portfolio.exposure_share * exposure
    return ScoredEvidence(probability, evidence[portfolio.target].to_numpy(dtype=np.int64), loss)


def trade_off_table(judged: ScoredEvidence, cut_offs: Sequence[float]) -> pd.DataFrame:
    """The trade-off of every cut-off on the same customers.

    Args:
        judged: customers with PD and outcome.
        cut_offs: further cut-offs besides those that approve 5, 10, ... 100 % of the customers.

    Returns:
        A row for each cut-off, rising: cut_off, approval_rate, bad_rate of the approved,
        bad_rate_refused, bads_approved_share (of all bads), and the mean expected_loss of the
        approved if there is an exposure.
    """
    # The smallest cut-offs that approve at least these shares.
    highest = np.quantile(judged.probability, APPROVAL_STEPS, method="inverted_cdf")
    by_rate = np.nextafter(highest, 1.0).tolist()
    rows = []
    for cut_off in sorted({*by_rate, *cut_offs}):
        approved = judged.probability < cut_off
        rows.append(
            {
                "cut_off": cut_off,
                "approval_rate": float(approved.mean()),
                "bad_rate": _mean(judged.target[approved]),
                "bad_rate_refused": _mean(judged.target[~approved]),
                "bads_approved_share": float(
                    judged.target[approved].sum() / max(judged.target.sum(), 1)
                ),
                "expected_loss": math.nan
                if judged.expected_loss is None
                else _mean(judged.expected_loss[approved]),
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class PolicyView:
    """Trade-off and grades on the held-out rows of the bundle.

    Attributes:
        trade_off: from `trade_off_table`.
        in_force: its row of the cut-off in force.
        grades: from `grade_table`.
        customers: number of held-out rows.
    """

    trade_off: pd.DataFrame
    in_force: int
    grades: pd.DataFrame
    customers: int


def policy_view(bundle: Bundle, rule: DecisionRule, portfolio: Portfolio) -> PolicyView:
    """Trade-off and grades of a bundle on its held-out rows.

    Args:
        bundle: the model.
        rule: in force.
        portfolio: with target, exposure and grades.
    """
    judged = score_held_out(bundle, portfolio)
    trade_off = trade_off_table(judged, [rule.cut_off])
    in_force = int(np.flatnonzero(trade_off["cut_off"].to_numpy() == rule.cut_off)[0])
    grades = grade_table(judged.probability, judged.target, portfolio.grade_bounds)
    return PolicyView(trade_off, in_force, grades, len(judged.target))


def _mean(values: NDArray[np.generic]) -> float:
    return float(values.mean()) if len(values) else math.nan
