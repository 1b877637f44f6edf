"""The proof: a kernel that differs from the graphs in one bit is refused."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from creditrisk_assets.portfolio.contract import Feature
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.compiled.errors import ProofError
from creditrisk_assets.scoring.compiled.instructions import INSTRUCTIONS
from creditrisk_assets.scoring.compiled.kernel import CompiledGraph, compile_kernel
from creditrisk_assets.scoring.compiled.loading import COLUMN_TYPES
from creditrisk_assets.scoring.compiled.proof import (
    different_bits,
    edges,
    fits_contract,
    generated_rows,
    load_kernel,
    prove,
)
from tests.support.compiled import Compiled, bundle_of
from tests.support.examples import OneColumn, plain_portfolio


@dataclass(frozen=True)
class OneBitOff:
    """A graph that gives one output another last bit, for all rows above a value of the first field."""

    graph: CompiledGraph
    output: int
    above: float

    def __call__(self, rows: NDArray[np.float32]) -> list[NDArray[Any]]:
        answers = self.graph(rows)
        changed = rows[:, 0] > self.above
        values = answers[self.output]
        if values.dtype == np.int8:
            values[changed] = -2
        else:
            values[changed] = np.nextafter(values[changed], np.inf)
        return answers


def test_a_kernel_is_like_its_graphs_on_more_rows(compiled: Compiled) -> None:
    left_out = prove(compiled.kernel, compiled.bundle, rows=10_000, seed=5)
    assert left_out < 50


@pytest.mark.parametrize(
    ("part", "output", "name"),
    [
        ("decision", 0, "default_probability"),
        ("decision", 1, "score"),
        ("reasons", 0, "default_probability"),
        ("reasons", 2, "contributions"),
        ("reasons", 3, "reasons"),
    ],
)
def test_one_bit_of_few_rows_is_found(
    champion: Compiled, part: str, output: int, name: str
) -> None:
    """The limit of these rows is at the end of its range."""
    wrong: Any = OneBitOff(getattr(champion.kernel, part), output, 16_777_215)
    with pytest.raises(ProofError, match=f"{name} is .* for .*; valid: exactly"):
        prove(replace(champion.kernel, **{part: wrong}), champion.bundle)


@pytest.mark.parametrize(
    ("operation", "instruction"),
    [
        ("AtMost", "fcmp olt {type} {0}, {1}"),
        ("AtMostOrMissing", "fcmp ult {type} {0}, {1}"),
        ("AtMostOrMissing", "fcmp ole {type} {0}, {1}"),
        ("Less", "fcmp ole {type} {0}, {1}"),
        ("Missing", "fcmp one {type} {0}, {0}"),
    ],
)
def test_a_kernel_that_compares_otherwise_is_refused(
    trees: Compiled,
    scorecard: Compiled,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    instruction: str,
) -> None:
    """Only a value exactly on a threshold, or a missing one, shows the difference."""
    side = scorecard if operation in ("Less", "Missing") else trees
    monkeypatch.setitem(INSTRUCTIONS, operation, instruction)
    with pytest.raises(ProofError):
        load_kernel(side.bundle)


def test_a_kernel_that_reads_columns_otherwise_is_refused(
    scorecard: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, _ = COLUMN_TYPES["i64"]
    monkeypatch.setitem(COLUMN_TYPES, "i64", (number, "uitofp {0} {1} to {2}"))
    with pytest.raises(ProofError, match="columns of int64 give other answers"):
        load_kernel(scorecard.bundle)


def test_a_slope_with_another_last_bit_is_refused(scorecard: Compiled) -> None:
    kernel = compile_kernel(scorecard.bundle, scorecard.bundle.manifest.rule)
    slope, intercept = kernel.decision._calibration
    kernel.decision._calibration = (float(np.nextafter(slope, 2.0)), intercept)
    with pytest.raises(ProofError):
        prove(kernel, scorecard.bundle)


def test_generated_rows_have_thresholds_neighbours_ends_odd_and_missing_values(
    trees: Compiled,
) -> None:
    golden = np.array([request.raw for request in trees.bundle.golden], dtype=np.float32)
    inputs, thresholds = trees.bundle.manifest.inputs, trees.kernel.thresholds
    rows = generated_rows(inputs, thresholds, golden, 4_096, np.random.default_rng(1))
    assert rows.shape == (4_096, len(inputs))
    assert rows.dtype == np.float32
    for column, field, known in zip(rows.T, inputs, thresholds, strict=True):
        near = edges(field, known)
        assert {0.0, 1_000.0, *known} <= set(near.tolist())
        assert np.isin(near, column).mean() > 0.9
        assert np.isnan(column).any()
        assert np.isinf(column).any()
        assert (np.signbit(column) & (column == 0)).any()
    usual = np.isfinite(rows) & (rows >= 0) & (rows <= 1_000)
    assert usual.all(axis=1).mean() > 0.2


def test_fractions_added_by_the_graph_in_any_order_are_refused(tmp_path: Path) -> None:
    """The sum of five float32 depends on the address of the first: within the contract no row is left out for that. The golden requests
    of this bundle are whole numbers and show nothing.
    """
    plain = plain_portfolio(5)
    portfolio = replace(
        plain,
        fields=tuple(replace(field, decimal=True) for field in plain.fields),
        features=(Feature("total"),),
        compute_features=lambda raw: raw.__array_namespace__().sum(raw, axis=1, keepdims=True),
    )
    rows = np.random.default_rng(1).integers(0, 1_000, (200, 5)).astype(np.float32)
    bundle = bundle_of(tmp_path, portfolio, OneColumn(0), rows, [0.0] * 5)
    with pytest.raises(ProofError, match="as the graph gives it"):
        load_kernel(bundle)


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"limit_bal": 0.0}, False),
        ({"limit_bal": 1_000.5}, False),
        ({"sex": 3.0}, False),
        ({"pay_0": -2.0}, True),
        ({"bill_amt1": 1e30}, False),
        ({"age": np.inf}, False),
        ({"age": np.nan}, False),
    ],
)
def test_a_row_fits_the_contract_or_not(
    champion: Compiled, changes: dict[str, float], fits: bool
) -> None:
    row = champion.rows[0].copy()
    for name, value in changes.items():
        row[champion.bundle.input_names.index(name)] = value
    assert fits_contract(champion.bundle.manifest.inputs, row) == fits


def test_generated_rows_are_the_same_for_a_seed(champion: Compiled) -> None:
    golden = np.array([request.raw for request in champion.bundle.golden], dtype=np.float32)
    one, other = (
        generated_rows(
            champion.bundle.manifest.inputs,
            champion.kernel.thresholds,
            golden,
            100,
            np.random.default_rng(3),
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(one, other)
    assert one.shape[1] == len(PORTFOLIO.fields)


def test_bits_differ_by_the_sign_of_zero_but_not_by_the_kind_of_nan() -> None:
    answer = np.array([0.0, -0.0, np.nan, -np.nan, 1.0, np.nan])
    expected = np.array([-0.0, -0.0, -np.nan, np.nan, np.nextafter(1.0, 2.0), 1.0])
    assert different_bits(answer, expected).tolist() == [True, False, False, False, True, True]
