"""The champion's profile, and counting by it: the same numbers however a day is cut, and whatever types it is stored in."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from creditrisk_assets.scoring.bundle import InputField
from creditrisk_assets.scoring.reference_profile import (
    SCORE,
    ReferenceProfile,
    RowCounter,
    bin_counts,
    bin_edges,
    profile_of_rows,
)

FloatArray = NDArray[np.float64]

INPUTS = [
    InputField(name="amount", kind="whole", minimum=-1e6, maximum=1e6, codes=None, required=True),
    InputField(name="rate", kind="decimal", minimum=-1e6, maximum=1e6, codes=None, required=False),
    InputField(
        name="status",
        kind="code",
        minimum=None,
        maximum=None,
        codes=[-2, -1, 0, 1, 300],
        required=True,
    ),
    InputField(
        name="place",
        kind="code",
        minimum=None,
        maximum=None,
        codes=["north", "south", "east"],
        required=False,
    ),
]


def rows(rng: np.random.Generator, count: int) -> pa.Table:
    """Customers as a day is stored, some values missing."""
    absent = rng.random(count) < 0.2
    return pa.table(
        {
            SCORE: rng.normal(550, 30, count),
            "amount": rng.integers(-50, 50, count) * 1_000,
            "rate": pa.array(np.round(rng.normal(0, 1, count), 1), mask=absent),
            "status": rng.choice([-2, -1, 0, 1, 300], count),
            "place": pa.array(rng.choice(["north", "south", "east"], count), mask=absent),
        }
    )


def raw(table: pa.Table) -> NDArray[np.float32]:
    """The rows as the decision graph takes them."""
    places = {"north": 0.0, "south": 1.0, "east": 2.0, None: np.nan}
    columns = [
        table.column(name).to_numpy(zero_copy_only=False).astype(np.float64)
        for name in ("amount", "rate", "status")
    ]
    return np.stack(
        [*columns, np.array([places[text] for text in table.column("place").to_pylist()])], axis=1
    ).astype(np.float32)


def profile(table: pa.Table, weight: NDArray[np.int64] | None = None) -> ReferenceProfile:
    ones = np.ones(len(table), dtype=np.int64)
    return profile_of_rows(
        raw(table), table.column(SCORE).to_numpy(), ones if weight is None else weight, INPUTS
    )


@pytest.fixture(scope="module")
def training() -> ReferenceProfile:
    return profile(rows(np.random.default_rng(1), 2_000))


def test_training_rows_counted_as_a_day_give_the_profiles_own_counts(
    training: ReferenceProfile,
) -> None:
    """Counting at training and counting of a day are two pieces of code; they must put every value into the same bin."""
    day = rows(np.random.default_rng(1), 2_000)
    counts = RowCounter(training, INPUTS).total(day.to_batches(max_chunksize=300))
    assert {name: one.bins.tolist() for name, one in counts.items()} == {
        one.name: one.counts for one in training.columns
    }
    assert all((one.out_of_range, one.new_codes) == (0, 0) for one in counts.values())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 400), max_size=8))
def test_counts_do_not_depend_on_the_batches(
    training: ReferenceProfile, seed: int, cuts: list[int]
) -> None:
    day = rows(np.random.default_rng(seed), 400)
    counter = RowCounter(training, INPUTS)
    bounds = [0, *sorted(cuts), 400]
    parts = [
        day.slice(start, end - start).combine_chunks() for start, end in itertools.pairwise(bounds)
    ]
    whole = counter.total(day.to_batches())
    cut = counter.total(batch for part in parts for batch in part.to_batches())
    assert {
        name: (one.bins.tolist(), one.out_of_range, one.new_codes) for name, one in whole.items()
    } == {name: (one.bins.tolist(), one.out_of_range, one.new_codes) for name, one in cut.items()}
    assert all(one.bins.sum() == 400 for one in whole.values())


NUMBERS = st.one_of(
    hnp.arrays(np.float64, st.integers(1, 60), elements=st.integers(-3, 3).map(float)),
    hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6)),
    hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e3, 1e3) | st.just(np.nan)),
)


@given(NUMBERS, NUMBERS)
def test_a_decimal_is_counted_as_the_decision_graph_sees_it(
    reference: FloatArray, current: FloatArray
) -> None:
    """Stored with 53 bits, seen with 24: near an edge the two fall on different sides."""
    seen = reference.astype(np.float32)
    made = ReferenceProfile.of({"rate": seen}, np.ones(len(seen), dtype=np.int64))
    counts = RowCounter(made, INPUTS)(pa.record_batch({"rate": current}))["rate"]
    as_seen = current.astype(np.float32).astype(np.float64)
    assert counts.bins.tolist() == bin_counts(np.array(made.columns[0].edges), as_seen).tolist()
    known = as_seen[~np.isnan(as_seen)]
    smallest, largest = made.columns[0].minimum, made.columns[0].maximum
    if smallest is not None and largest is not None:
        assert counts.out_of_range == np.count_nonzero((known < smallest) | (known > largest))


@given(
    hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(-(2**24), 2**24)),
    hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(-(2**40), 2**40)),
)
def test_a_whole_number_of_any_size_is_counted(
    reference: NDArray[np.int64], current: NDArray[np.int64]
) -> None:
    made = ReferenceProfile.of(
        {"amount": reference.astype(np.float32)}, np.ones(len(reference), dtype=np.int64)
    )
    counts = RowCounter(made, INPUTS)(pa.record_batch({"amount": current}))["amount"]
    assert (
        counts.bins.tolist()
        == bin_counts(np.array(made.columns[0].edges), current.astype(np.float64)).tolist()
    )
    assert counts.out_of_range == np.count_nonzero(
        (current < reference.min()) | (current > reference.max())
    )


def test_new_codes_missing_and_out_of_range_values_are_told_apart(
    training: ReferenceProfile,
) -> None:
    day = pa.record_batch(
        {
            SCORE: [550.0] * 4,
            "amount": [0, 50_001, -60_000, 0],
            "rate": pa.array([0.1, None, float("nan"), 99.0]),
            "status": pa.array([0, 7, 1_000_000, None]),
            "place": pa.array(["north", "west", None, "east"]),
        }
    )
    counts = RowCounter(training, INPUTS)(day)
    seen = {
        name: (int(one.bins[-1]), one.out_of_range, one.new_codes) for name, one in counts.items()
    }
    assert seen == {
        SCORE: (0, 0, 0),
        "amount": (0, 2, 0),
        "rate": (2, 1, 0),
        "status": (1, 0, 2),
        "place": (1, 0, 1),
    }
    assert all(one.bins.sum() == 4 for one in counts.values())


def test_a_code_of_the_contract_that_training_never_saw_is_new() -> None:
    some = rows(np.random.default_rng(1), 500)
    seen = some.filter(np.array(some.column("place").to_pylist()) != "east")
    counts = RowCounter(profile(seen), INPUTS)(rows(np.random.default_rng(2), 500).to_batches()[0])
    assert counts["place"].new_codes == rows(np.random.default_rng(2), 500).column(
        "place"
    ).to_pylist().count("east")


@given(NUMBERS, st.integers(1, 4))
def test_a_row_of_weight_two_counts_as_two_rows(values: FloatArray, weight: int) -> None:
    weights = np.where(np.arange(len(values)) % 2, weight, 1)
    weighted = ReferenceProfile.of({"rate": values}, weights)
    repeated = ReferenceProfile.of(
        {"rate": np.repeat(values, weights)}, np.ones(weights.sum(), dtype=np.int64)
    )
    assert weighted.columns == repeated.columns
    assert weighted.effective_rows == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert weighted.effective_rows <= weighted.rows
    assert weighted.effective_counts(weighted.columns[0]).sum() == pytest.approx(
        weighted.effective_rows
    )


@given(NUMBERS)
def test_every_bin_of_several_holds_a_reference_value(values: FloatArray) -> None:
    known = values[~np.isnan(values)]
    edges = bin_edges(known)
    assert (np.diff(edges) > 0).all()
    if len(np.unique(known)) > 1:
        counts = bin_counts(edges, known)
        assert len(counts) <= 11
        assert (counts[:-1] > 0).all()
        assert counts[-1] == 0


def test_a_profile_is_the_same_after_writing_and_reading(training: ReferenceProfile) -> None:
    assert ReferenceProfile.model_validate_json(training.model_dump_json()) == training


def test_a_new_calibration_moves_the_scores_bins_and_nothing_else(
    training: ReferenceProfile,
) -> None:
    day = rows(np.random.default_rng(3), 500)
    moved = day.set_column(0, SCORE, pa.array(day.column(SCORE).to_numpy() * 0.9 + 30.0))
    before = RowCounter(training, INPUTS).total(day.to_batches())
    after = RowCounter(training.with_score(30.0, 0.9), INPUTS).total(moved.to_batches())
    assert {name: one.bins.tolist() for name, one in before.items()} == {
        name: one.bins.tolist() for name, one in after.items()
    }
    with pytest.raises(ValueError, match="factor -1"):
        training.with_score(0.0, -1)


def test_no_rows_are_no_population() -> None:
    with pytest.raises(ValueError, match="no training rows; valid: at least one"):
        ReferenceProfile.of({"rate": np.array([])}, np.array([], dtype=np.int64))
