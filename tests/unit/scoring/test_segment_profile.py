"""Counting by segment: every row is counted once in each segmentation, in the bins of the whole day."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from creditrisk_assets.modelling.bundling import input_fields
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.reference_profile import SCORE, RowCounter, profile_of_rows
from creditrisk_assets.scoring.segment_profile import (
    SegmentationReference,
    SegmentCounter,
    SegmentPlacer,
    SegmentProfile,
)
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.examples import raw_matrix

INPUTS = input_fields(PORTFOLIO)
HISTORY = simulate(2_000, 3)
PROFILE = profile_of_rows(
    raw_matrix(HISTORY),
    np.random.default_rng(1).normal(550, 30, len(HISTORY)),
    np.ones(len(HISTORY), dtype=np.int64),
    INPUTS,
)


def day(rows: int, seed: int) -> pa.RecordBatch:
    """Scored customers, some beyond the range of the history."""
    rng = np.random.default_rng(seed)
    frame = simulate(max(rows, 1), 1_000 + seed).iloc[:rows]
    probability = rng.uniform(0, 1, rows)
    return pa.RecordBatch.from_pandas(
        frame.assign(
            **{SCORE: rng.normal(560, 60, rows)},
            default_probability=probability,
            prediction=(probability >= 0.4).astype(np.int8),
        ),
        preserve_index=False,
    )


@given(rows=st.integers(0, 400), seed=st.integers(0, 1_000))
@settings(max_examples=15, deadline=None)
def test_the_counts_of_the_segments_add_up_to_those_of_the_day(rows: int, seed: int) -> None:
    """For each segmentation: bins of every column, rows, approvals and PDs."""
    batch = day(rows, seed)
    whole = RowCounter(PROFILE, INPUTS)(batch)
    counts = SegmentCounter(PROFILE, INPUTS, PORTFOLIO).total([batch])
    labels = [segmentation.name for segmentation, _ in SegmentPlacer.of(PORTFOLIO).labels]
    probability = batch.column("default_probability").to_numpy()
    for segmentation in PORTFOLIO.segments:
        own = np.array([name == segmentation.name for name in labels])
        assert counts.rows[own].sum() == rows
        assert counts.approved[own].sum() == (probability < 0.4).sum()
        assert counts.pd_sum[own].sum() == pytest.approx(probability.sum())
        for place, name in enumerate(PROFILE.names):
            bins = counts.bins[own, place].sum(axis=0)
            expected = whole[name].bins
            assert bins[: len(expected)].tolist() == expected.tolist()
            assert bins[len(expected) :].sum() == 0


def test_counts_do_not_depend_on_the_cut_into_batches() -> None:
    batch = day(300, 5)
    counter = SegmentCounter(PROFILE, INPUTS, PORTFOLIO)
    whole = counter.total([batch])
    parts = counter.total([batch.slice(start, 70) for start in range(0, 300, 70)])
    assert np.array_equal(whole.bins, parts.bins)
    assert np.array_equal(whole.rows, parts.rows)


def test_a_recalibration_keeps_the_segments_that_do_not_depend_on_the_pd() -> None:
    profile = SegmentProfile(
        columns=[SCORE],
        pd_edges=[0.1, 0.2],
        segmentations=[
            SegmentationReference(name=one.name, definition=one.definition, segments=[])
            for one in PORTFOLIO.segments
        ],
    )
    after = profile.recalibrated([0.2, 0.3])
    assert after.pd_edges == [0.2, 0.3]
    assert {one.name for one in profile.segmentations} - {
        one.name for one in after.segmentations
    } == {"grade"}
