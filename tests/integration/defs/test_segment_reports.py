"""A day by segment: a shift in one segment is found and named, by its fields, approvals and outcomes."""

import dataclasses
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from creditrisk_assets.monitoring.segment_report import SegmentDecisions, SegmentOutcomes
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import SEGMENT_PROFILE
from creditrisk_assets.scoring.segment_profile import segment_profile_of
from tests.support.loop import Loop, checks, customers

DAY, QUIET = "2026-08-20", "2026-08-03"
SEGMENT = "graduate school"


def evaluation(result: dg.ExecuteInProcessResult, check: str) -> tuple[bool, dict[str, Any]]:
    found = checks(result)[check]
    return found.passed, {name: value.value for name, value in found.metadata.items()}


def moved(frame: pd.DataFrame) -> pd.DataFrame:
    """Customers of whom those of one education have half a standard deviation more of a bill, and of whom more bads."""
    own = frame["education"] == 1
    step = round(frame["bill_amt3"].std() / 2)
    target = PORTFOLIO.target
    worse = own & (np.random.default_rng(1).random(len(frame)) < 0.4)
    return frame.assign(
        bill_amt3=np.where(own, frame["bill_amt3"] + step, frame["bill_amt3"]),
        **{target: np.where(worse, 1, frame[target])},
    )


@pytest.fixture(scope="module")
def segmented(trained: Loop) -> Loop:
    """A store whose days are those of this module: outcomes are judged with those of weeks before."""
    return trained.apart("segmented")


@pytest.fixture(scope="module")
def day(segmented: Loop) -> dg.ExecuteInProcessResult:
    """A scored day with a shift in one segment, and its outcomes."""
    landed = moved(customers(1_500, 61))
    segmented.land_day(DAY, landed)
    result = segmented.run("score_production", DAY)
    assert result.success
    segmented.land_outcomes(DAY, landed)
    return result


def test_a_shift_in_one_segment_fails_the_check_and_names_segment_and_field(
    segmented: Loop, day: dg.ExecuteInProcessResult
) -> None:
    passed, metadata = evaluation(day, "segments_are_stable")
    assert not passed
    assert metadata["summary"].startswith("Segments have shifted: education graduate school: bill_")
    assert metadata["observed"] <= metadata["threshold"]
    assert metadata["tier"] == "look today"
    document = SegmentDecisions.read(segmented.settings.reports, DAY)
    assert document is not None
    assert document.rows == 1_500
    education = next(one for one in document.segmentations if one.name == "education")
    failed = {
        segment.label: segment.drifted
        for segment in education.segments
        if segment.stability and segment.stability.failed
    }
    assert [*failed] == [SEGMENT]
    assert "bill_amt3" in failed[SEGMENT]
    assert sum(segment.rows for segment in education.segments) == document.rows
    assert document.worst_slice is not None
    assert segmented.metadata("segment_report", DAY)["without_reference"] == "none"


def test_a_bad_rate_that_rises_in_one_segment_fails_the_check_and_names_it(
    segmented: Loop, day: dg.ExecuteInProcessResult
) -> None:
    assert day.success
    result = segmented.run("assess_performance", DAY)
    assert result.success
    passed, metadata = evaluation(result, "segments_perform_as_predicted")
    assert not passed
    assert metadata["summary"].startswith("The model is off in a segment: ")
    document = SegmentOutcomes.read(segmented.settings.reports, DAY)
    assert document is not None
    education = next(one for one in document.segmentations if one.name == "education")
    failed = [one.label for one in education.segments if one.level and one.level.failed]
    assert failed == [SEGMENT]
    assert f"education {SEGMENT}: bad rate" in metadata["summary"]
    worst = document.worst_slice
    assert worst is not None
    assert f"education: {SEGMENT}" in worst.conditions
    assert worst.figure > worst.expected
    assert worst.p_value < 0.001
    assert document.rows == segmented.metadata("performance_report", DAY)["matured"]


def test_a_day_like_training_fails_no_check_by_segment(segmented: Loop) -> None:
    landed = customers(1_500, 62)
    segmented.land_day(QUIET, landed)
    result = segmented.run("score_production", QUIET)
    assert evaluation(result, "segments_are_stable")[0]
    assert evaluation(result, "segments_are_approved_as_in_training")[0]
    segmented.land_outcomes(QUIET, landed)
    outcomes = segmented.run("assess_performance", QUIET)
    assert evaluation(outcomes, "segments_perform_as_predicted")[0]


def test_the_documents_of_a_day_are_small(segmented: Loop, day: dg.ExecuteInProcessResult) -> None:
    assert day.success
    for model in (SegmentDecisions, SegmentOutcomes):
        path = model.path(segmented.settings.reports, DAY)
        if path.exists():
            assert path.stat().st_size < 60_000 * 31 / 50


def test_the_same_day_judged_again_gives_the_same_bytes(
    segmented: Loop, day: dg.ExecuteInProcessResult
) -> None:
    assert day.success
    paths = [
        segmented.settings.storage / "segment_report" / f"{DAY}.parquet",
        SegmentDecisions.path(segmented.settings.reports, DAY),
    ]
    before = [path.read_bytes() for path in paths]
    assert segmented.run("score_production", DAY).success
    assert [path.read_bytes() for path in paths] == before


def test_a_version_without_a_segment_profile_passes_and_says_so(trained: Loop) -> None:
    """Such as every bundle that was made before there were segments."""
    apart = trained.apart("without-profile")
    bundle = apart.bundle()
    assert segment_profile_of(bundle) is not None
    for file in apart.settings.data_dir.rglob(SEGMENT_PROFILE):
        file.unlink()
    assert segment_profile_of(apart.bundle()) is None
    apart.land_day("2026-08-25", moved(customers(600, 63)))
    result = apart.run("score_production", "2026-08-25")
    assert result.success
    passed, metadata = evaluation(result, "segments_are_stable")
    assert passed
    assert "no reference by segment in this version: limit_band" in metadata["summary"]
    document = SegmentDecisions.read(apart.settings.reports, "2026-08-25")
    assert document is not None
    assert not any(one.has_reference for one in document.segmentations)


def test_a_portfolio_without_segments_has_no_documents(trained: Loop) -> None:
    plain = dataclasses.replace(PORTFOLIO, segments=())
    apart = trained.apart("without-segments", portfolio=plain)
    apart.land_day("2026-08-26", customers(300, 64))
    result = apart.run("score_production", "2026-08-26")
    assert result.success
    passed, metadata = evaluation(result, "segments_are_stable")
    assert (passed, metadata["summary"]) == (True, "the portfolio has no segments")
    assert SegmentDecisions.read(apart.settings.reports, "2026-08-26") is None
    assert apart.frame("segment_report", "2026-08-26").empty
