"""Performance of days: what PDs promise, what came of it, by day and by days together; fairness; batch against online."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic_core import to_json

from creditrisk_assets.decisions.archive import ApiDecisions, archive_finished
from creditrisk_assets.decisions.log import SegmentHeader, SegmentWriter, new_name
from creditrisk_assets.decisions.sets import sets_of
from creditrisk_assets.defs.io import stored_path
from creditrisk_assets.modelling.metrics import ranking_and_calibration
from creditrisk_assets.monitoring.check_catalogue import BY_CHECK
from creditrisk_assets.monitoring.estimated_performance import ASSUMPTIONS, expected_performance
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from tests.support.loop import Loop, checks, customers
from tests.support.policies import policy_of

TARGET = PORTFOLIO.target
Change = Callable[[pd.DataFrame], pd.DataFrame]
SAID = {"summary", "observed", "threshold", "rows", "model_version", "action", "tier"}
"""What every watched check says."""


@pytest.fixture
def apart(trained: Loop, request: pytest.FixtureRequest) -> Loop:
    """The trained loop's champion, with days of its own."""
    return trained.apart(f"apart-{request.node.name}", policy=policy_of({}))


def metadata_of(evaluation: dg.AssetCheckEvaluation) -> dict[str, Any]:
    return {name: value.value for name, value in evaluation.metadata.items()}


def matured_day(loop: Loop, day: str, landed: pd.DataFrame) -> dict[str, dg.AssetCheckEvaluation]:
    """A day with all its outcomes; what the checks on its performance say."""
    loop.land_day(day, landed)
    assert loop.run("score_production", day).success
    loop.land_outcomes(day, landed)
    result = loop.run("assess_performance", day)
    assert result.success
    return checks(result)


def days_from(first: str, count: int) -> list[str]:
    return [
        (date.fromisoformat(first) + timedelta(days=place)).isoformat() for place in range(count)
    ]


# Estimated


def test_what_the_pds_promise_is_told_with_its_error_before_any_outcome(trained: Loop) -> None:
    day = "2026-06-01"
    trained.land_day(day, customers(400, 51))
    result = trained.run("score_production", day)
    assert result.success
    probability = trained.frame("production_scores", day)["default_probability"].to_numpy()
    expected = expected_performance(probability)
    metadata = trained.metadata("drift_report", day)
    figures = metadata["figures"]
    for name in ("roc_auc", "bad_rate", "brier", "log_loss"):
        assert figures[f"estimated_{name}"] == expected[name].value
        assert figures[f"estimated_{name}_standard_error"] == expected[name].standard_error
    assert metadata["AUC estimated from the PDs"] == round(expected["roc_auc"].value, 4)
    assert metadata["estimate_assumes"] == ASSUMPTIONS
    evaluation = checks(result)["estimated_performance_holds"]
    said = metadata_of(evaluation)
    assert set(said) >= SAID
    assert evaluation.passed
    assert said["observed"] == expected["roc_auc"].value
    assert said["assumes"] == ASSUMPTIONS
    assert (said["rows"], said["model_version"]) == (400, trained.champion().model_version)
    watch = BY_CHECK["estimated_performance_holds"]
    assert (said["action"], said["tier"]) == (watch.action, watch.tier.value)


def test_a_population_that_the_model_cannot_tell_apart_fails_the_estimate(apart: Loop) -> None:
    """A feed that sends nearly the same customer over and over: PDs in a narrow band promise no ranking."""
    landed = customers(500, 52)
    alike = pd.concat([landed.iloc[[0]]] * 500, ignore_index=True).assign(
        id=landed["id"].to_numpy()
    )
    apart.land_day("2026-06-02", alike)
    result = apart.run("score_production", "2026-06-02")
    evaluation = checks(result)["estimated_performance_holds"]
    assert result.success
    assert not evaluation.passed
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    assert metadata_of(evaluation)["observed"] == pytest.approx(0.5)


# Realised


def test_a_report_has_what_was_realised_and_what_was_promised_of_the_same_rows(
    reporting: Loop,
) -> None:
    day, landed = "2026-06-03", customers(500, 53)
    reporting.land_day(day, landed)
    assert reporting.run("score_production", day).success
    reporting.land_outcomes(day, landed.iloc[:400])
    assert reporting.run("assess_performance", day).success
    scores = reporting.frame("production_scores", day).iloc[:400]
    probability, target = (
        scores["default_probability"].to_numpy(),
        landed[TARGET].to_numpy()[:400].astype(np.int64),
    )
    metadata = reporting.metadata("performance_report", day)
    realised, expected = (
        ranking_and_calibration(target, probability),
        expected_performance(probability),
    )
    same = {
        "rows": 400,
        "bads": int(target.sum()),
        "mean_pd": float(probability.mean()),
        "pd_variance": expected["brier"].value,
        "roc_auc": realised["roc_auc"],
        "roc_auc_standard_error": realised["roc_auc_standard_error"],
        "roc_auc_low": realised["roc_auc_low"],
        "expected_roc_auc": expected["roc_auc"].value,
        "expected_roc_auc_standard_error": expected["roc_auc"].standard_error,
        "estimate_roc_auc_error": realised["roc_auc"] - expected["roc_auc"].value,
        "estimate_roc_auc_z": (realised["roc_auc"] - expected["roc_auc"].value)
        / expected["roc_auc"].standard_error,
        "estimate_bad_rate_error": realised["bad_rate"] - realised["mean_pd"],
    }
    assert {name: metadata["figures"][name] for name in same} == pytest.approx(same)
    assert list(metadata)[:5] == ["AUC", "AUC at validation", "bad rate, %", "mean PD, %", "bads"]
    assert metadata["AUC"] == round(realised["roc_auc"], 4)
    assert metadata["bad rate, %"] == round(100 * realised["bad_rate"], 2)
    assert metadata["model_version"] == reporting.champion().model_version
    assert metadata["estimated_and_realised"].startswith("![plot](data:image/png")
    assert metadata["vintages"].splitlines()[2].startswith(f"| {day} | 400 |")


def test_figures_that_do_not_exist_are_absent(apart: Loop) -> None:
    """One class only: no AUC, and nothing that stands for it."""
    landed = customers(30, 54).assign(**{TARGET: 0})
    evaluations = matured_day(apart, "2026-06-04", landed)
    metadata = apart.metadata("performance_report", "2026-06-04")
    figures = metadata["figures"]
    assert {"roc_auc", "roc_auc_standard_error", "estimate_roc_auc_error"}.isdisjoint(figures)
    assert (metadata["AUC"], metadata["bads"], metadata["bad rate, %"]) == ("none", 0, 0)
    assert "expected_roc_auc" in figures
    ranking = evaluations["ranking_is_as_at_validation"]
    assert ranking.passed
    assert (
        metadata_of(ranking)["summary"] == "0 rows of the rarer class have matured; tested from 10"
    )


def test_days_are_put_together_from_what_is_stored_and_a_fall_too_small_for_one_is_found(
    apart: Loop,
) -> None:
    """A bad rate some eight points too high on 150 customers a day; only days together prove it."""
    champion = apart.bundle()
    found: dict[str, dict[str, dg.AssetCheckEvaluation]] = {}
    days = days_from("2026-06-10", 6)
    for place, day in enumerate(days):
        landed = customers(150, 60 + place, 2_000_000 + 1_000 * place)
        probability = champion.score(champion.raw(landed)).default_probability
        wanted = round(float(probability.sum()) + 0.08 * 150)
        bads = np.random.default_rng(place).choice(
            150, wanted, replace=False, p=probability / probability.sum()
        )
        found[day] = matured_day(
            apart, day, landed.assign(**{TARGET: np.isin(np.arange(150), bads).astype(int)})
        )
    level = [found[day]["default_rate_is_as_predicted"] for day in days]
    assert level[0].passed
    assert not level[-1].passed
    said = metadata_of(level[-1])
    assert (said["days"], said["rows"]) == (6, 900)
    assert said["observed"] > said["threshold"]
    assert set(said) >= SAID
    assert said["summary"].endswith("6 days since 2026-06-10")
    report = apart.frame("performance_report", days[-1]).set_index("days")
    alone = [apart.frame("performance_report", day).set_index("days").loc[1] for day in days]
    assert report.loc[6, "bads"] == sum(one["bads"] for one in alone)
    assert list(report.index) == [1, 3, 6]
    figures = apart.metadata("performance_report", days[-1])["figures"]
    errors = [one["bad_rate"] - one["mean_pd"] for one in alone]
    assert figures["estimated_bad_rate_days"] == 6
    assert figures["estimated_bad_rate_mean_absolute_error"] == pytest.approx(
        np.mean(np.abs(errors))
    )
    stored = stored_path(apart.settings.storage, "performance_report", days[2])
    first = stored.read_bytes()
    assert apart.run("assess_performance", days[2]).success
    assert stored.read_bytes() == first  # later days are not looked at


def test_days_of_another_champion_and_of_older_reports_do_not_count(apart: Loop) -> None:
    days = days_from("2026-06-20", 3)
    for place, day in enumerate(days[:2]):
        matured_day(apart, day, customers(120, 70 + place))
    other, older = (
        stored_path(apart.settings.storage, "performance_report", day) for day in days[:2]
    )
    changed = apart.frame("performance_report", days[0]).assign(model_version="999")
    other.write_bytes(changed.to_parquet())
    old = pd.DataFrame({"test": ["ranking"], "passed": [True], "model_version": ["1"]})
    older.write_bytes(old.to_parquet())
    matured_day(apart, days[2], customers(120, 72))
    report = apart.frame("performance_report", days[2]).set_index("days")
    assert list(report.index) == [1]


# Fairness


def test_small_days_are_watched_by_group_together_until_there_are_enough_decisions(
    apart: Loop,
) -> None:
    apart.settings.policy = policy_of({"fairness.rows": 500})
    days = days_from("2026-07-01", 4)
    said = {}
    for place, day in enumerate(days):
        apart.land_day(day, customers(200, 80 + place))
        said[day] = metadata_of(
            checks(apart.run("score_production", day))["live_decisions_treat_groups_alike"]
        )
    assert [said[day]["days"] for day in days] == [1, 2, 3, 3]
    assert [said[day]["rows"] for day in days] == [200, 400, 600, 600]
    assert said[days[-1]]["threshold"] == 0.8
    assert "| sex |" in said[days[-1]]["groups"]


def test_a_group_that_is_surely_below_the_line_fails(apart: Loop) -> None:
    """The women who come are the worst payers, so that few of them are approved: no rule about sex is needed for that."""
    landed = customers(4_000, 90)
    bundle = apart.bundle()
    refused = bundle.score(bundle.raw(landed)).prediction == 1
    landed = landed.assign(sex=np.where(refused, 2, 1)).groupby("sex").head(400)
    apart.land_day("2026-07-10", landed)
    evaluation = checks(apart.run("score_production", "2026-07-10"))[
        "live_decisions_treat_groups_alike"
    ]
    assert not evaluation.passed
    said = metadata_of(evaluation)
    assert said["observed"] < 0.1
    assert said["summary"].startswith(
        "A group is under the adverse-impact line: sex female: ratio "
    )
    assert said["tier"] == "look today"


# Batch against online


def asked(loop: Loop, day: str, landed: pd.DataFrame, **wrong: object) -> None:
    """Decisions as the API logs them, sealed, kept and landed when their day is over. `wrong` replaces parts of each answer."""
    champion, bundle = loop.champion(), loop.bundle()
    scores = bundle.decide(bundle.raw(landed), champion.rule)
    lines = []
    live = ApiDecisions.of(loop.settings)
    header = SegmentHeader(
        name=new_name(),
        day=day,
        portfolio=PORTFOLIO.name,
        champion=champion,
        degraded=False,
        keyed=True,
    )
    for row, customer in enumerate(
        landed[["id", *PORTFOLIO.field_names]].astype({"id": "str"}).to_dict("records")
    ):
        answer = {
            "default_probability": float(scores.default_probability[row]),
            "score": float(scores.score[row]),
            "prediction": int(scores.prediction[row]),
            "cut_off": champion.rule.cut_off,
            "model_version": champion.model_version,
            "bundle_sha256": champion.bundle_sha256,
            "degraded": False,
            "reasons": [],
        }
        lines.append(
            {
                "at": f"{day}T10:00:00Z",
                "customer": customer,
                "answer": answer | wrong,
                "latency_ms": 1.0,
            }
        )
    writer = SegmentWriter(live.open_segments, header, live.codec)
    writer.append([to_json(line) for line in lines])
    writer.close()
    index = live.index(loop.settings.idempotency_file)
    kept = archive_finished(live, index, date.fromisoformat(day) + timedelta(days=1))
    index.close()
    assert not kept.problems


def online(loop: Loop, day: str) -> tuple[bool, dict[str, Any], dg.AssetCheckSeverity]:
    evaluation = checks(loop.run("score_production", day))["batch_equals_online"]
    return bool(evaluation.passed), metadata_of(evaluation), evaluation.severity


def test_a_day_without_live_traffic_says_so(apart: Loop) -> None:
    apart.land_day("2026-07-20", customers(60, 91))
    passed, said, _ = online(apart, "2026-07-20")
    assert passed
    assert said["summary"] == "no live decisions"
    assert said["rows"] == 0


def test_live_decisions_are_compared_to_the_bit_beside_customers_of_files(apart: Loop) -> None:
    day, landed = "2026-07-21", customers(90, 92)
    asked(apart, day, landed.iloc[:50])
    apart.land_day(day, landed.iloc[50:])
    passed, said, _ = online(apart, day)
    assert passed
    assert said["summary"] == "50 of 50 live decisions compared, all to the bit"
    assert len(apart.frame("production_scores", day)) == 90


def test_a_pd_that_differs_in_the_last_bit_is_found_and_pages_somebody(apart: Loop) -> None:
    """The API told one number and the batch another: one of them does not come from the bundle that it names."""
    day, landed = "2026-07-22", customers(50, 93)
    bundle = apart.bundle()
    told = float(np.nextafter(bundle.score(bundle.raw(landed.iloc[[7]])).default_probability[0], 1))
    asked(apart, day, landed.iloc[:7])
    asked(apart, day, landed.iloc[[7]], default_probability=told)
    asked(apart, day, landed.iloc[8:20], bundle_sha256="0" * 64)
    passed, said, severity = online(apart, day)
    assert not passed
    assert severity is dg.AssetCheckSeverity.ERROR
    assert (said["decisions"], said["compared"], said["other_bundle"], said["observed"]) == (
        20,
        8,
        12,
        1.0,
    )
    (decision,) = [
        one for one in sets_of(apart.settings.decisions, day) if one.segment and one.rows == 1
    ]
    assert said["differing"] == f"{day}-{decision.name}-0"
    assert 0 < said["largest_difference"] < 1e-15


def test_decisions_that_were_changed_after_they_were_kept_are_found(apart: Loop) -> None:
    day = "2026-07-23"
    asked(apart, day, customers(20, 94))
    (kept,) = sets_of(apart.settings.decisions, day)
    path = apart.settings.decisions / day / f"{kept.name}.parquet"
    table = pq.read_table(pa.BufferReader(path.read_bytes()))
    place = table.schema.get_field_index("default_probability")
    with path.open("wb") as file:
        pq.write_table(table.set_column(place, "default_probability", [[0.01] * 20]), file)
    passed, said, _ = online(apart, day)
    assert not passed
    assert "was changed: it has SHA-256" in said["summary"]


def test_a_record_that_a_file_has_replaced_is_not_compared(apart: Loop) -> None:
    """The same customer with another limit is another record, and has another PD by right."""
    day, landed = "2026-07-24", customers(30, 95)
    asked(apart, day, landed)
    later = landed.iloc[:5].assign(limit_bal=990_000)
    apart.land_day(day, later, "z-later.csv")
    passed, said, _ = online(apart, day)
    assert passed
    assert (said["compared"], said["other_record"]) == (25, 5)
