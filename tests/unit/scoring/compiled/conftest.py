"""Kernels of three kinds of models, each compiled once."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from creditrisk_assets.modelling.boosting import PARAMETERS, BoostedTrees
from creditrisk_assets.modelling.decision_graph import Model
from creditrisk_assets.modelling.scorecard import Scorecard
from creditrisk_assets.portfolio.contract import Portfolio, Reason
from creditrisk_assets.scoring.bundle import Bundle
from creditrisk_assets.scoring.compiled.kernel import Kernel
from creditrisk_assets.scoring.compiled.proof import load_kernel
from tests.support.compiled import bundle_of
from tests.support.examples import FloatMatrix, plain_portfolio

GROUPS = 5
KINDS = ("champion", "trees of five groups", "scorecard")


@dataclass(frozen=True)
class Compiled:
    """A bundle, its kernel, and rows that it has not been fitted on."""

    bundle: Bundle
    kernel: Kernel
    rows: FloatMatrix


def five_groups() -> Portfolio:
    """Nine fields that are their own features: two protected ones, the others in five groups."""
    plain = plain_portfolio(9)
    reasons = tuple(
        Reason(f"R{group}", f"group {group}", tuple(plain.field_names[2 + group :: GROUPS]))
        for group in range(GROUPS)
    )
    return replace(plain, protected=("field_0", "field_1"), reasons=reasons)


def plain_rows(count: int, seed: int) -> FloatMatrix:
    """Rows of the plain portfolio: whole numbers, some of them missing."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 1_001, size=(count, 9)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.05] = np.nan
    return rows


def fitted(model: type[BoostedTrees] | type[Scorecard], portfolio: Portfolio) -> Model:
    """A model of plain rows whose risk grows with the fields and with a product of two."""
    rows = plain_rows(3_000, 1)
    known = np.nan_to_num(rows, nan=300.0) / 1_000
    chance = 0.6 * known.mean(axis=1) + 0.4 * known[:, 2] * known[:, 3]
    target = (np.random.default_rng(2).random(len(rows)) < chance).astype(np.int64)
    weight = np.ones(len(rows), dtype=np.int64)
    if model is Scorecard:
        return Scorecard.fit(portfolio, rows, target, weight, 1)
    parameters = PARAMETERS | {"max_iter": 30, "min_samples_leaf": 20}
    return BoostedTrees.fit(portfolio, rows, target, weight, 1, parameters)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache") / "objects"


@pytest.fixture(scope="session")
def champion(bundle: Bundle, raw: FloatMatrix, cache: Path) -> Compiled:
    """The trained bundle of all unit tests."""
    return Compiled(bundle, load_kernel(bundle, cache=cache), raw)


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Compiled:
    portfolio = five_groups()
    reference = [*(500.0 for _ in range(8)), None]
    bundle = bundle_of(
        tmp_path_factory.mktemp("trees"),
        portfolio,
        fitted(BoostedTrees, portfolio),
        plain_rows(500, 3),
        reference,
    )
    return Compiled(bundle, load_kernel(bundle, cache=cache), plain_rows(1_000, 4))


@pytest.fixture(scope="session")
def scorecard(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Compiled:
    portfolio = five_groups()
    reference = [None, *(400.0 for _ in range(8))]
    bundle = bundle_of(
        tmp_path_factory.mktemp("scorecard"),
        portfolio,
        fitted(Scorecard, portfolio),
        plain_rows(500, 3),
        reference,
    )
    return Compiled(bundle, load_kernel(bundle, cache=cache), plain_rows(1_000, 4))


@pytest.fixture(params=KINDS)
def compiled(request: pytest.FixtureRequest) -> Compiled:
    """Each of the three."""
    fixtures = dict(zip(KINDS, ("champion", "trees", "scorecard"), strict=True))
    found: Compiled = request.getfixturevalue(fixtures[request.param])
    return found
