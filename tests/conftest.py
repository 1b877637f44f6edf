"""What all tests share: where the real UCI data is, if it is there."""

import os
from pathlib import Path

import pytest

from tests.support.places import uci_file


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The tests of a file are one group, run by one worker, but those that name a group themselves.

    Tests marked `uci` are left out where the file is not there; the report names how many.
    """
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    if uci_file().is_file():
        return
    left_out = [item for item in items if item.get_closest_marker("uci")]
    items[:] = [item for item in items if not item.get_closest_marker("uci")]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def uci() -> Path:
    return uci_file()


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own settings must not decide what a test sees."""
    for name in list(os.environ):
        if (
            name.startswith("CREDITRISK_") and not name.startswith("CREDITRISK_TEST_")
        ) or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)
