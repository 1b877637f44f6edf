"""The outcomes of a day, and grades of several days together."""

import numpy as np
import pandas as pd
import pytest

from creditrisk_assets.modelling.grades import grade_table
from creditrisk_assets.monitoring.day_decisions import PD, PREDICTION
from creditrisk_assets.monitoring.day_documents import Grade, Maturing, OutcomesDocument
from creditrisk_assets.monitoring.day_outcomes import JudgedDay, outcomes_document, pool_grades
from creditrisk_assets.monitoring.performance import day_figures
from creditrisk_assets.portfolio.outcomes import Maturity
from creditrisk_assets.portfolio.uci_card import PORTFOLIO

BOUNDS = PORTFOLIO.grade_bounds


def rows(count: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    probability = random.beta(1, 3, count)
    return pd.DataFrame(
        {
            PD: probability,
            PORTFOLIO.target: (random.random(count) < probability).astype(np.int64),
            PREDICTION: (probability >= 0.2).astype(np.int8),
            "limit_bal": random.integers(10_000, 500_000, count),
        }
    )


def document(
    frame: pd.DataFrame,
    earlier: tuple[Maturing, ...] = (),
    before: tuple[OutcomesDocument, ...] = (),
) -> OutcomesDocument:
    target = frame[PORTFOLIO.target].to_numpy()
    figures = day_figures(target, frame[PD].to_numpy())
    judged = JudgedDay(
        "2026-06-02",
        "2026-06-20",
        "3",
        0.77,
        Maturity(500, len(frame), 500 - len(frame), 0),
        int(target.sum()),
    )
    return outcomes_document(judged, frame, figures, PORTFOLIO, earlier, before, "run")


def test_the_figures_are_those_of_the_rows() -> None:
    frame = rows(400, 1)
    bad, approved = frame[PORTFOLIO.target] == 1, frame[PREDICTION] == 0
    found = document(frame)
    assert (found.rows, found.bads, found.pending) == (400, int(bad.sum()), 100)
    assert found.bad_rate == pytest.approx(bad.mean())
    assert found.bad_rate_low is not None
    assert found.bad_rate_low < float(found.bad_rate or 0) < float(found.bad_rate_high or 0)
    assert found.approved_bad_rate == pytest.approx(bad[approved].mean())
    assert found.realised_loss == pytest.approx(0.75 * frame.loc[bad, "limit_bal"].sum())
    assert found.expected_loss == pytest.approx(0.75 * (frame[PD] * frame["limit_bal"]).sum())
    assert sum(grade.customers for grade in found.grades) == 400
    assert found.grades == found.grades_together


def test_without_outcomes_no_figure_is_made_up() -> None:
    found = document(rows(400, 1).iloc[:0])
    assert (found.rows, found.bad_rate, found.roc_auc, found.approved_bad_rate) == (
        0,
        None,
        None,
        None,
    )
    assert all(grade.bad_rate is None and grade.p_value is None for grade in found.grades)


def test_what_was_known_on_earlier_days_stays_and_the_same_day_is_known_once() -> None:
    known = (
        Maturing(latest_day="2026-06-10", matured=100, bads=9),
        Maturing(latest_day="2026-06-20", matured=150, bads=15),
    )
    found = document(rows(400, 1), known)
    assert [one.latest_day for one in found.maturing] == ["2026-06-10", "2026-06-20"]
    assert found.maturing[-1].matured == 400


def test_grades_of_days_together_are_the_grades_of_all_their_rows() -> None:
    days = [rows(300, seed) for seed in (1, 2, 3)]
    before = tuple(
        document(day).model_copy(update={"day": f"2026-06-0{number}"})
        for number, day in enumerate(days[:2], start=1)
    )
    found = document(days[2], before=before)
    every = pd.concat(days)
    of_all = grade_table(every[PD].to_numpy(), every[PORTFOLIO.target].to_numpy(), BOUNDS)
    assert found.together_since == "2026-06-01"
    for grade, line in zip(found.grades_together, of_all.to_dict("records"), strict=True):
        assert (grade.customers, grade.bads) == (line["customers"], line["bads"])
        assert grade.mean_pd == pytest.approx(line["mean_pd"])
        assert grade.p_value == pytest.approx(line["p_value"])


def test_a_day_with_other_grades_is_left_out() -> None:
    own = [Grade(grade="A", pd_from=0, pd_to=1, customers=10, mean_pd=0.1, bads=1)]
    other = [Grade(grade="A", pd_from=0, pd_to=0.5, customers=90, mean_pd=0.1, bads=9)]
    assert pool_grades([own, other])[0].customers == 10
