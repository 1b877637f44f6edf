"""Kernels of three kinds of models, each compiled once."""

from pathlib import Path

import pytest

from creditrisk_assets.modelling.boosting import BoostedTrees
from creditrisk_assets.modelling.scorecard import Scorecard
from creditrisk_assets.scoring.bundle import Bundle
from creditrisk_assets.scoring.compiled.proof import load_kernel
from tests.support.compiled import Compiled, bundle_of, fitted, five_groups, plain_rows
from tests.support.examples import FloatMatrix

KINDS = ("champion", "trees of five groups", "scorecard")


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
