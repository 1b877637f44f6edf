"""A day's files: what lands is scored or in quarantine with a reason, and one broken day stops no other."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from upath import UPath

from creditrisk_assets.defs.sensors import new_outcome_partitions, new_production_partitions
from creditrisk_assets.landing.listing import land
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from tests.support.loop import Loop, checks, customers


def test_a_clean_day_is_scored_by_the_champion_and_checked_for_drift(trained: Loop) -> None:
    day, landed = "2026-02-01", customers(400, 11)
    trained.land_day(day, landed)
    result = trained.run("score_production", day)
    assert result.success
    assert all(evaluation.passed for evaluation in checks(result).values())
    assert set(checks(result)) == {
        "batch_is_not_an_earlier_day_again",
        "production_batch_rows_reconcile",
        "production_batch_rows_are_mostly_accepted",
        "score_distribution_is_stable",
        "feature_distributions_are_stable",
        "estimated_performance_holds",
        "live_decisions_treat_groups_alike",
        "batch_equals_online",
        "data_quality_is_stable",
        "segments_are_stable",
        "segments_are_approved_as_in_training",
    }
    scores = trained.frame("production_scores", day)
    record = trained.champion()
    expected = trained.bundle(record).score(
        landed[PORTFOLIO.field_names].to_numpy(dtype=np.float32)
    )
    assert list(scores["id"]) == list(landed["id"])
    assert np.array_equal(scores["default_probability"], expected.default_probability)
    assert set(scores["model_version"]) == {record.model_version}
    assert set(scores["bundle_sha256"]) == {record.bundle_sha256}


def test_the_drift_report_is_a_page_and_json_that_agree_with_the_checks(reporting: Loop) -> None:
    day = "2026-02-02"
    reporting.land_day(day, customers(400, 12))
    assert reporting.run("score_production", day).success
    metadata = reporting.metadata("drift_report", day)
    assert "<html" in UPath(metadata["evidently_html"]).read_text()[:200].lower()
    assert UPath(metadata["evidently_json"]).read_text().startswith("{")
    assert metadata["evidently_report"] == f"http://127.0.0.1:8000/reports/drift/{day}"
    assert metadata["evidently_drifted_columns"] == metadata["drifted_columns"] == 0
    report = reporting.frame("drift_report", day)
    assert list(report["column"]) == ["score", *PORTFOLIO.field_names]


def test_the_same_files_give_the_same_bytes(trained: Loop) -> None:
    day = "2026-02-03"
    trained.land_day(day, customers(300, 13))
    stored = [
        trained.settings.storage / asset / f"{day}.parquet"
        for asset in ("production_batch", "production_scores")
    ]
    assert trained.run("score_production", day).success
    first = [path.read_bytes() for path in stored]
    assert trained.run("score_production", day).success
    assert [path.read_bytes() for path in stored] == first


def test_ten_percent_bad_rows_are_quarantined_and_the_rest_is_scored(trained: Loop) -> None:
    day, landed = "2026-02-04", customers(200, 14).astype({"bill_amt1": "object"})
    landed.loc[landed.index[::10], "bill_amt1"] = "n.a."
    trained.land_day(day, landed)
    result = trained.run("score_production", day)
    assert result.success
    metadata = trained.metadata("production_batch", day)
    assert [
        metadata[name] for name in ("rows of the files", "dagster/row_count", "rejected, rows")
    ] == [
        200,
        180,
        20,
    ]
    assert metadata["rejected, %"] == 10
    quarantined = trained.rejected("production_batch", day)
    assert list(quarantined["line"]) == [2 + 10 * position for position in range(20)]
    assert set(quarantined["field"]) == {"bill_amt1"}
    assert quarantined["message"][0] == (
        "bill_amt1: 'n.a.' is not a number; valid: a whole number from -16777216 to 16777216 (NT$)"
    )


def test_tables_have_their_columns_described_and_traced_to_where_they_come_from(
    trained: Loop,
) -> None:
    """A catalogue that reads Dagster gets names, types, meanings and sources without asking anybody."""
    day, landed = "2026-02-14", customers(200, 24)
    trained.land_day(day, landed)
    trained.land_outcomes(day, landed)
    assert trained.run("score_production", day).success
    assert trained.run("assess_performance", day).success
    for asset, of_day in (
        ("raw_data", None),
        ("features", None),
        ("production_batch", day),
        ("production_scores", day),
        ("outcomes", day),
        ("drift_report", day),
        ("performance_report", day),
    ):
        columns = trained.metadata(asset, of_day)["dagster/column_schema"].columns
        if of_day:
            assert [one.name for one in columns] == list(trained.frame(asset, of_day).columns)
        assert not [one.name for one in columns if not (one.description and one.type)], asset
    batch = {
        one.name: one
        for one in trained.metadata("production_batch", day)["dagster/column_schema"].columns
    }
    assert batch["pay_0"].description == "payment status in September, months late"
    assert batch["limit_bal"].constraints.other == ["a whole number from 1 to 16777216 (NT$)"]
    assert not batch["limit_bal"].constraints.nullable

    def sources(asset: str, of_day: str | None, column: str) -> set[tuple[str, str]]:
        lineage = trained.metadata(asset, of_day)["dagster/column_lineage"]
        return {
            (one.asset_key.to_user_string(), one.column_name)
            for one in lineage.deps_by_column[column]
        }

    assert sources("features", None, "feature.utilisation_1") == {
        ("raw_data", "limit_bal"),
        ("raw_data", "bill_amt1"),
    }
    assert sources("features", None, "age") == {("raw_data", "age")}
    assert sources("production_scores", day, "default_probability") == {
        ("production_batch", name)
        for name in PORTFOLIO.field_names
        if name not in PORTFOLIO.protected
    }
    assert sources("performance_report", day, "roc_auc") == {
        ("production_scores", "default_probability"),
        ("production_scores", PORTFOLIO.identifier),
        ("outcomes", PORTFOLIO.identifier),
        ("outcomes", PORTFOLIO.target),
    }


def test_a_day_with_too_many_bad_rows_is_blocked_and_not_scored(trained: Loop) -> None:
    """The good rest of a broken day is no fair sample of that day."""
    day, landed = "2026-02-05", customers(200, 15)
    landed.loc[landed.index[:60], "pay_0"] = 99
    trained.land_day(day, landed)
    result = trained.run("score_production", day)
    assert not result.success
    evaluation = checks(result)["production_batch_rows_are_mostly_accepted"]
    assert not evaluation.passed
    assert evaluation.metadata["observed"].value == pytest.approx(0.3)
    assert not (trained.settings.storage / "production_scores" / f"{day}.parquet").exists()


def test_a_customer_twice_in_a_day_counts_once(trained: Loop) -> None:
    day, landed = "2026-02-06", customers(100, 16)
    changed = landed.iloc[[4]].assign(limit_bal=990_000)
    trained.land_day(day, pd.concat([landed, landed.iloc[[3]], changed]))
    assert trained.run("score_production", day).success
    metadata = trained.metadata("production_batch", day)
    assert (metadata["rows of the files"], metadata["dagster/row_count"]) == (102, 100)
    assert (metadata["rejected, rows"], metadata["exact duplicates, rows"]) == (1, 1)
    assert "stands again later in the day with other values" in metadata["rejected"]
    batch = trained.frame("production_batch", day).set_index("id")
    assert batch.loc[changed["id"].iloc[0], "limit_bal"] == 990_000


def _good_csv(folder: Path, seed: int) -> bytes:
    path = land(folder, "x.csv", customers(50, seed).drop(columns=PORTFOLIO.target))
    content = path.read_bytes()
    path.unlink()
    return content


BROKEN: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "empty": ("a.csv", lambda _: b"", "the file is empty"),
    "header only": ("a.csv", lambda good: good.split(b"\n")[0] + b"\n", "a header and no rows"),
    "binary": ("a.csv", lambda _: b"\x89PNG\r\n\x1a\n\x00\xff" * 50, "not a text file"),
    "truncated Parquet": (
        "a.parquet",
        lambda good: b"PAR1" + good[:100],
        "not a readable Parquet file",
    ),
    "missing column": (
        "a.csv",
        lambda good: good.replace(b"pay_amt6", b"something_else"),
        "missing column pay_amt6",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_fails_a_check_that_names_it(
    trained: Loop, tmp_path: Path, kind: str
) -> None:
    name, break_it, problem = BROKEN[kind]
    day = f"2026-03-{1 + list(BROKEN).index(kind):02d}"
    folder = trained.settings.landing_production / day
    folder.mkdir(parents=True)
    (folder / name).write_bytes(break_it(_good_csv(tmp_path, 20)))
    result = trained.run("score_production", day)
    assert not result.success
    evaluation = checks(result)["production_batch_rows_are_mostly_accepted"]
    assert not evaluation.passed
    assert problem in str(evaluation.metadata["problems"].value)
    quarantined = trained.rejected("production_batch", day)
    assert (quarantined["file"][0], quarantined["line"][0]) == (name, 0)
    assert problem in quarantined["message"][0]


def test_any_past_day_may_land_and_only_days_that_landed_are_days(trained: Loop) -> None:
    """A hidden first day refused a portfolio's older months, and the UI showed a thousand missing days after it."""
    loop = trained.apart("of-2015")
    before = set(loop.instance.get_dynamic_partitions("day"))
    loop.land_day("2015-11-30", customers(150, 23))
    (result,) = loop.settle([new_production_partitions])
    assert result.success
    assert set(loop.instance.get_dynamic_partitions("day")) - before == {"2015-11-30"}


def test_yesterdays_file_delivered_again_is_noticed_and_does_not_block(trained: Loop) -> None:
    loop = trained.apart("repeated")
    landed = customers(150, 24)
    for day in ("2026-10-05", "2026-10-06"):
        loop.land_day(day, landed)
    first, second = (loop.run("score_production", day) for day in ("2026-10-05", "2026-10-06"))
    assert checks(first)["batch_is_not_an_earlier_day_again"].passed
    found = checks(second)["batch_is_not_an_earlier_day_again"]
    assert (second.success, found.passed) == (True, False)
    assert (
        found.metadata["summary"].value
        == "The day repeats an earlier delivery: 100.0% of the rows are those of 2026-10-05, limit 50%"
    )


def test_a_partition_that_somebody_added_by_hand_and_is_no_day_is_named(trained: Loop) -> None:
    result = trained.run("score_production", "next week")
    assert not result.success
    assert "partition is 'next week'; valid: a day as YYYY-MM-DD" in str(result.all_events)


def test_a_broken_day_stops_no_other_day(trained: Loop) -> None:
    """Both days are requested in one tick; the broken one fails by itself."""
    loop = trained.apart("other")
    broken = loop.settings.landing_production / "2026-03-10" / "a.csv"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"\xff\xfe\x00")
    loop.land_day("2026-03-11", customers(150, 21))
    requests = loop.tick(new_production_partitions).run_requests or []
    outcome = {
        str(one.partition_key): loop.run("score_production", one.partition_key).success
        for one in requests
    }
    assert outcome == {"2026-03-10": False, "2026-03-11": True}


def test_a_corrected_file_clears_the_quarantine(trained: Loop) -> None:
    day, landed = "2026-02-07", customers(100, 17)
    trained.land_day(day, landed.assign(pay_0=99))
    assert not trained.run("score_production", day).success
    trained.land_day(day, landed)
    assert trained.run("score_production", day).success
    assert not (trained.settings.quarantine / day / "production_batch.csv").exists()


def test_performance_is_computed_on_matured_rows_and_says_how_many(trained: Loop) -> None:
    day, landed = "2026-02-08", customers(500, 18)
    trained.land_day(day, landed)
    assert trained.run("score_production", day).success
    stranger = customers(1, 19, first_identifier=9_999_999)
    trained.land_outcomes(day, pd.concat([landed.iloc[:400], stranger]))
    assert trained.run("assess_performance", day).success
    metadata = trained.metadata("performance_report", day)
    assert (metadata["decisions"], metadata["matured"]) == (500, 400)
    assert metadata["pending"] + metadata["missing"] == 100
    assert 0.6 < metadata["AUC"] < 0.95
    assert trained.metadata("outcomes", day)["rejected, rows"] == 1
    (rejected,) = trained.rejected("outcomes", day).to_dict("records")
    assert (rejected["rule"], rejected["value"], rejected["line"]) == (
        "unknown customer",
        9999999,
        402,
    )


def test_a_corrected_outcome_counts_and_the_first_one_is_kept(trained: Loop) -> None:
    day, landed = "2026-02-09", customers(300, 20)
    target = PORTFOLIO.target
    trained.land_day(day, landed)
    assert trained.run("score_production", day).success
    mistaken = landed.assign(
        **{target: np.where(landed.index < 3, 1 - landed[target], landed[target])}
    )
    trained.land_outcomes(day, mistaken.iloc[:200], "outcomes-1.csv")
    assert trained.run("assess_performance", day).success
    wrong = trained.metadata("performance_report", day)
    trained.land_outcomes(day, landed.iloc[:3], "outcomes-2.csv")
    trained.land_outcomes(day, landed.iloc[200:], "outcomes-3.csv")
    stored = trained.settings.storage / "outcomes" / f"{day}.parquet"
    assert trained.run("assess_performance", day).success
    first_bytes = stored.read_bytes()
    assert trained.run("assess_performance", day).success
    assert stored.read_bytes() == first_bytes
    versions = trained.frame("outcomes", day)
    assert versions["version"].value_counts().to_dict() == {1: 300, 2: 3}
    right = trained.metadata("performance_report", day)
    assert (wrong["matured"], right["matured"]) == (200, 300)
    assert right["bads"] == int(landed[target].sum())
    assert trained.metadata("outcomes", day)["corrected outcomes"] == 3


def test_outcomes_of_a_day_that_never_landed_are_quarantined_and_looked_at_again_when_it_does(
    trained: Loop,
) -> None:
    loop = trained.apart("unknown")
    day, landed = "2026-03-20", customers(200, 22)
    loop.land_outcomes(day, landed)
    arrivals = (
        new_production_partitions,
        new_outcome_partitions,
    )  # a retrain would move the champion of other tests
    (result,) = loop.settle(arrivals)
    assert not result.success
    assert len(loop.rejected("outcomes", day)) == 200
    assert not loop.settle(arrivals)
    loop.land_day(day, landed)
    assert [one.success for one in loop.settle(arrivals)] == [True, True]
    assert loop.metadata("performance_report", day)["matured"] == 200
    assert not (loop.settings.quarantine / day / "outcomes.csv").exists()


def test_a_day_without_a_champion_fails_with_what_to_run(fresh: Loop) -> None:
    fresh.land_day("2026-02-01", customers(50, 1))
    result = fresh.run("score_production", "2026-02-01")
    failure = result.failure_data_for_node("production_scores")
    assert failure is not None
    assert "run the job train first" in str(failure.error)
