"""Evidently's report: the picture people look at tells the same story as the checks."""

import json

import numpy as np
import pandas as pd
import pytest

from creditrisk_assets.monitoring.evidently_report import EvidentlyReport, evidently_report
from creditrisk_assets.monitoring.population_stability import population_stability, stability_of_columns

COLUMNS = ["score", "pay_0", "limit_bal"]


def population(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "score": rng.normal(550, 30, rows),
            "pay_0": rng.choice([-1, 0, 2], p=[0.3, 0.5, 0.2], size=rows),
            "limit_bal": rng.integers(1, 50, rows) * 10_000,
            "note": "not for the report",
        }
    )


@pytest.fixture(scope="module")
def sides() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A reference, and a day on which score and limit have moved, the limit by less than anybody minds."""
    day = population(500, 2)
    return population(2_000, 1), day.assign(score=day["score"] - 30, limit_bal=day["limit_bal"] + 40_000)


@pytest.fixture(scope="module")
def report(sides: tuple[pd.DataFrame, pd.DataFrame]) -> EvidentlyReport:
    reference, day = sides
    stability = stability_of_columns(reference, day, COLUMNS[:2], alpha=0.01, floor=0.0)
    patient = population_stability(
        "limit_bal", reference["limit_bal"].to_numpy(float), day["limit_bal"].to_numpy(float), 0.01, 9.0
    )
    assert [one.drifted for one in (*stability, patient)] == [True, False, False]
    return evidently_report(reference, day, [*stability, patient], rows=5_000)


def test_the_report_flags_exactly_the_columns_that_the_checks_flag(report: EvidentlyReport) -> None:
    """Seen with Evidently's own tests: another method above 1,000 rows, and other columns than the check's."""
    assert report.drifted_columns == 1


def shown(report: EvidentlyReport) -> dict[str, float]:
    """The value of each column in the report."""
    metrics = json.loads(report.json)["metrics"]
    return {metric["config"]["column"]: metric["value"] for metric in metrics if "column" in metric.get("config", {})}


def test_the_report_shows_the_checks_own_values(report: EvidentlyReport, sides: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    reference, day = sides
    stability = stability_of_columns(reference, day, COLUMNS, alpha=0.01, floor=0.0)
    assert shown(report) == pytest.approx({one.column: one.value for one in stability})


def test_the_page_is_whole(report: EvidentlyReport) -> None:
    assert report.html.lstrip().lower().startswith("<html") or "<!doctype html" in report.html[:200].lower()
    assert all(column in report.html for column in COLUMNS)
    assert "not for the report" not in report.html


def test_a_large_day_is_sampled_alike_every_time(sides: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """A day materialized twice gives the same report, and a million rows do not need a gigabyte."""
    reference, day = sides
    stability = stability_of_columns(reference, day, ["score"], alpha=0.01, floor=0.0)
    first, second = (shown(evidently_report(reference, day, stability, rows=200)) for _ in range(2))
    assert first == second
    assert first["score"] == pytest.approx(stability[0].value, rel=0.5)
    assert first["score"] != pytest.approx(stability[0].value)  # of 200 rows, not of all
