"""What the unit tests share: one small model, trained once, and the settings of property-based tests."""

import multiprocessing.process
import subprocess
from collections.abc import Iterator
from pathlib import Path

import joblib  # type: ignore[import-untyped]
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

from creditrisk_assets.modelling.bundling import make_bundle
from creditrisk_assets.modelling.datasets import LearningSet, history_set, with_features
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Bundle
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.examples import FloatMatrix, raw_matrix

# The same examples on every run, and no time limit for one: the machine may be busy.
settings.register_profile(
    "unit",
    derandomize=True,
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unit")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Waiting OpenMP threads on busy cores made one scikit-learn call take a hundred times as long."""
    with threadpool_limits(limits=1, user_api="openmp"):
        yield


@pytest.fixture(scope="session", autouse=True)
def cores_are_counted() -> None:
    """scikit-learn counts the cores by a process of its own at its first fit, which may be in any test."""
    joblib.cpu_count(only_physical_cores=True)


@pytest.fixture(autouse=True)
def no_process_without_the_marker(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make test-fast` leaves out what is marked `starts_processes`; a test that starts one without the marker fails."""
    if request.node.get_closest_marker("starts_processes"):
        return

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the test starts a process; mark it with starts_processes")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)


@pytest.fixture(scope="session")
def history() -> pd.DataFrame:
    """3,000 customers with their features."""
    return with_features(simulate(3_000, 1), PORTFOLIO)


@pytest.fixture(scope="session")
def learning_set(history: pd.DataFrame) -> LearningSet:
    return history_set(history, PORTFOLIO)


@pytest.fixture(scope="session")
def bundle(learning_set: LearningSet, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model of those customers; tests that change its files work on a copy."""
    directory: Path = tmp_path_factory.mktemp("bundle")
    return make_bundle(directory, PORTFOLIO, learning_set.fit, learning_set.held_out, "history", [])


@pytest.fixture(scope="session")
def strangers() -> pd.DataFrame:
    """Customers that the model has never seen."""
    return simulate(1_500, 2, first_identifier=50_001)


@pytest.fixture(scope="session")
def raw(strangers: pd.DataFrame) -> FloatMatrix:
    """Their fields as the decision graph takes them."""
    return raw_matrix(strangers)
