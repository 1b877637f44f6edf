"""Evidently's report: the picture people look at tells the same story as the checks."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from creditrisk_assets.monitoring.evidently_report import (
    SCORE_LABEL,
    EvidentlyReport,
    Heading,
    ReportColumn,
    evidently_report,
    field_labels,
    readable_rows,
    sampled_rows,
)
from creditrisk_assets.portfolio.contract import Field
from creditrisk_assets.scoring.bundle import InputField

COLUMNS = [
    ReportColumn("score", 0.42, 0.05, True),
    ReportColumn("pay_0", 0.01, 0.05, False),
    ReportColumn("limit_bal", 0.3, 9.0, False),
]


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
    return population(2_000, 1), day.assign(
        score=day["score"] - 30, limit_bal=day["limit_bal"] + 40_000
    )


@pytest.fixture(scope="module")
def report(sides: tuple[pd.DataFrame, pd.DataFrame]) -> EvidentlyReport:
    reference, day = (side.assign(pay_0=side["pay_0"].astype(str)) for side in sides)
    return evidently_report(reference, day, COLUMNS, ["pay_0"])


def metrics(report: EvidentlyReport) -> dict[str, dict[str, object]]:
    """Figure and verdict of each column of the report."""
    return {
        one["config"]["column"]: one
        for one in json.loads(report.json)["metrics"]
        if "column" in one.get("config", {})
    }


def test_the_report_flags_exactly_the_columns_that_the_checks_flag(report: EvidentlyReport) -> None:
    """Seen with Evidently's own tests: another method above 1,000 rows, and other columns than the check's."""
    assert report.drifted_columns == 1
    tests = {
        test["metric_config"]["params"].get("column"): test["status"]
        for test in json.loads(report.json)["tests"]
    }
    assert {name: tests[name] for name in ("score", "pay_0", "limit_bal")} == {
        "score": "FAIL",
        "pay_0": "SUCCESS",
        "limit_bal": "SUCCESS",
    }


@pytest.mark.parametrize("empty_side", ["day", "reference"])
def test_a_column_without_a_value_is_left_out_and_the_page_says_so(
    sides: tuple[pd.DataFrame, pd.DataFrame], empty_side: str
) -> None:
    reference, day = (side.assign(pay_0=side["pay_0"].astype(str)) for side in sides)
    emptied = {"day": day, "reference": reference}[empty_side].assign(limit_bal=np.nan)
    report = evidently_report(
        *((reference, emptied) if empty_side == "day" else (emptied, day)), COLUMNS, ["pay_0"]
    )
    assert report.left_out == ("limit_bal",)
    assert "because one side has no value: limit_bal." in report.html
    assert json.loads(report.json)["left_out"] == ["limit_bal"]
    assert set(metrics(report)) >= {"score", "pay_0"}
    with pytest.raises(ValueError, match="no column has values on both sides"):
        evidently_report(reference, day.assign(limit_bal=np.nan), COLUMNS[2:])


def test_a_day_of_one_row_and_a_column_of_one_value_are_drawn(
    sides: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    reference, day = (side.assign(pay_0=side["pay_0"].astype(str)) for side in sides)
    for odd in (
        day.head(1),
        day.assign(limit_bal=5.0),
        day.assign(limit_bal=[1.0, *[np.nan] * (len(day) - 1)]),
    ):
        assert evidently_report(reference, odd, COLUMNS, ["pay_0"]).left_out == ()


def test_the_report_shows_the_checks_own_values(report: EvidentlyReport) -> None:
    """They are of all rows, not of the sample that is drawn."""
    assert {name: one["value"] for name, one in metrics(report).items()} == {
        one.column: one.value for one in COLUMNS
    }


def test_the_page_is_whole(report: EvidentlyReport) -> None:
    assert (
        report.html.lstrip().lower().startswith("<html")
        or "<!doctype html" in report.html[:200].lower()
    )
    assert all(one.column in report.html for one in COLUMNS)
    assert "not for the report" not in report.html


def test_the_page_says_what_it_shows_and_leads_back_and_names_fields_as_people_do(
    sides: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    """A page of column names without a day: whoever had two open could not tell which was which."""
    reference, day = (side.assign(pay_0=side["pay_0"].astype(str)) for side in sides)
    labels = {"limit_bal": "credit limit, NT$", "pay_0": "payment status", "score": SCORE_LABEL}
    heading = Heading("Cards & loans: 2026-06-01", {"Back": "/monitoring/2026-06-01"}, labels)
    report = evidently_report(reference, day, COLUMNS, ["pay_0"], heading)
    assert "<title>Cards &amp; loans: 2026-06-01</title>" in report.html
    assert ">Cards &amp; loans: 2026-06-01</h1>" in report.html
    assert '<a href="/monitoring/2026-06-01">Back</a>' in report.html
    assert all(label in report.html for label in labels.values())
    assert "limit_bal" not in report.html
    assert set(metrics(report)) == {"score", "pay_0", "limit_bal"}  # machines read the names
    assert report.drifted_columns == 1


def test_an_amount_with_a_long_tail_is_drawn_where_its_rows_are_and_the_page_says_so(
    sides: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    """One customer with a limit of a million put all others into the first bar of the picture."""
    reference, day = (side.assign(pay_0=side["pay_0"].astype(str)) for side in sides)
    tailed = reference.assign(
        limit_bal=reference["limit_bal"].where(reference.index > 0, 90_000_000)
    )
    report = evidently_report(tailed, day, COLUMNS, ["pay_0"])
    low, high = (
        figure(side["limit_bal"].quantile(part) for side in (tailed, day))
        for figure, part in ((min, 0.05), (max, 0.95))
    )
    said = f"limit_bal [drawn from {low:,.0f} to {high:,.0f}, values beyond at the edges]"
    assert said in report.html
    assert "90000000" not in report.html
    assert "score [drawn" not in report.html  # the score has no tails
    assert {name: one["value"] for name, one in metrics(report).items()} == {
        one.column: one.value for one in COLUMNS
    }


def test_two_fields_with_one_description_keep_their_names_apart() -> None:
    twins = [
        Field(name, "amount", "EUR", 0, 9) if name != "c" else Field("c", "age", "", 0, 9)
        for name in ("a", "b", "c")
    ]
    assert field_labels(twins) == {
        "score": SCORE_LABEL,
        "a": "amount, EUR (a)",
        "b": "amount, EUR (b)",
        "c": "age",
    }


def test_a_sample_of_files_is_bounded_and_the_same_every_time(tmp_path: Path) -> None:
    """A day materialized twice gives the same report, and a million rows do not need a gigabyte."""
    whole = population(4_000, 3).assign(number=np.arange(4_000))
    files = [tmp_path / f"{place}.parquet" for place in range(3)]
    for path, part in zip(files, np.array_split(np.arange(4_000), [1_000, 1_010]), strict=True):
        pq.write_table(
            pa.Table.from_pandas(whole.iloc[part], preserve_index=False), path, row_group_size=300
        )
    first, second = (sampled_rows(files, ["number", "score"], 500) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert list(first.columns) == ["number", "score"]
    assert len(set(first["number"])) == 500
    assert first["score"].to_numpy() == pytest.approx(whole["score"].to_numpy()[first["number"]])
    assert (first["number"] < 1_000).mean() == pytest.approx(0.25, abs=0.08)
    assert sorted(sampled_rows(files, ["number"], 9_999)["number"]) == list(range(4_000))


def test_codes_are_drawn_as_people_know_them() -> None:
    inputs = [
        InputField(name="amount", kind="whole", minimum=0, maximum=9, codes=None, required=True),
        InputField(
            name="status", kind="code", minimum=None, maximum=None, codes=[-1, 2], required=False
        ),
        InputField(
            name="place",
            kind="code",
            minimum=None,
            maximum=None,
            codes=["north", "south"],
            required=True,
        ),
    ]
    frame = readable_rows(
        np.array([[1, 2, 0], [2, np.nan, 1], [3, -1, 1]], dtype=np.float32), inputs
    )
    assert frame.to_dict("list") == {
        "amount": [1.0, 2.0, 3.0],
        "status": ["2", "missing", "-1"],
        "place": ["north", "south", "south"],
    }
