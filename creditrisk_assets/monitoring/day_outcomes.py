"""The outcomes of a day's decisions as a document for people."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from creditrisk_assets.modelling.fairness import jeffreys_interval
from creditrisk_assets.modelling.grades import grade_table, jeffreys_test
from creditrisk_assets.modelling.metrics import normal_estimate
from creditrisk_assets.monitoring.day_decisions import PD, PREDICTION, currency_of
from creditrisk_assets.monitoring.day_documents import Grade, Maturing, OutcomesDocument
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.portfolio.outcomes import Maturity


@dataclass(frozen=True)
class JudgedDay:
    """A day's outcomes and the version that they judge.

    Attributes:
        day: of the decisions.
        latest_day: the latest day with any data.
        model_version: made most of the decisions.
        validation_roc_auc: of that version.
        maturity: of the decisions.
        bads: of all matured decisions.
    """

    day: str
    latest_day: str
    model_version: str
    validation_roc_auc: float
    maturity: Maturity
    bads: int


def outcomes_document(
    judged: JudgedDay,
    rows: pd.DataFrame,
    figures: Mapping[str, float],
    portfolio: Portfolio,
    earlier: Sequence[Maturing],
    days_before: Sequence[OutcomesDocument],
    run_id: str | None,
) -> OutcomesDocument:
    """The document of a day.

    Args:
        judged: the day.
        rows: matured decisions that count: target, PD, prediction, and the exposure if the
            portfolio names one.
        figures: of `rows`, from `day_figures`.
        portfolio: with target, grades and exposure.
        earlier: what was known on earlier days of data.
        days_before: documents of earlier days that the same version decided.
        run_id: of the run that writes it.
    """
    target = rows[portfolio.target].to_numpy(dtype=np.int64)
    probability = rows[PD].to_numpy(dtype=np.float64)
    approved = rows[PREDICTION].to_numpy() == 0
    expected, realised = _losses(rows, target, probability, portfolio)
    bads = int(target.sum())
    low, high = jeffreys_interval(bads, len(rows)) if len(rows) else (None, None)
    known = Maturing(
        latest_day=judged.latest_day, matured=judged.maturity.matured, bads=judged.bads
    )
    auc = figures.get("roc_auc")
    interval = (
        None if auc is None else normal_estimate(auc, figures["roc_auc_standard_error"], 0.0, 1.0)
    )
    grades = tuple(
        Grade(**{str(name): _defined(value) for name, value in line.items()})
        for line in grade_table(probability, target, portfolio.grade_bounds).to_dict("records")
    )
    with_outcomes = [one for one in days_before if one.rows]
    return OutcomesDocument(
        day=judged.day,
        run_id=run_id,
        model_version=judged.model_version,
        **asdict(judged.maturity),
        rows=len(rows),
        bads=bads,
        mean_pd=figures.get("mean_pd"),
        bad_rate=figures.get("bad_rate"),
        bad_rate_low=low,
        bad_rate_high=high,
        roc_auc=auc,
        roc_auc_low=None if interval is None else interval.low,
        roc_auc_high=None if interval is None else interval.high,
        validation_roc_auc=judged.validation_roc_auc,
        expected_loss=expected,
        realised_loss=realised,
        currency=currency_of(portfolio),
        approved=int(approved.sum()),
        approved_bads=int(target[approved].sum()),
        grades=grades,
        grades_together=pool_grades([grades, *(one.grades for one in with_outcomes)]),
        together_since=min([judged.day, *(one.day for one in with_outcomes)]),
        maturing=(*(one for one in earlier if one.latest_day < judged.latest_day), known),
    )


def pool_grades(days: Sequence[Sequence[Grade]]) -> tuple[Grade, ...]:
    """The grades of several days together; a day with other grades than the first is left out."""
    names = [(one.grade, one.pd_from, one.pd_to) for one in days[0]]
    same = [day for day in days if [(one.grade, one.pd_from, one.pd_to) for one in day] == names]
    pooled = []
    for lines in zip(*same, strict=True):
        customers = sum(line.customers for line in lines)
        bads = sum(line.bads or 0 for line in lines)
        pd_sum = sum(line.customers * (line.mean_pd or 0.0) for line in lines)
        mean_pd = pd_sum / customers if customers else math.nan
        test = jeffreys_test(customers, bads, mean_pd)
        pooled.append(
            lines[0].model_copy(update={name: _defined(value) for name, value in test.items()})
        )
    return tuple(pooled)


def _losses(
    rows: pd.DataFrame,
    target: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    probability: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    portfolio: Portfolio,
) -> tuple[float | None, float | None]:
    """Expected and realised loss, by the portfolio's LGD and exposure."""
    if portfolio.exposure is None:
        return None, None
    exposure = rows[portfolio.exposure].fillna(0.0).to_numpy(dtype=np.float64)
    loss = exposure * (portfolio.loss_given_default * portfolio.exposure_share)
    return float(probability @ loss), float(target @ loss)


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
