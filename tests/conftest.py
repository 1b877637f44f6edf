"""What all tests share: where the real UCI data is, if it is there."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
REFUSING_PROXY = dict.fromkeys(
    ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9"
)
"""Variables of a machine whose proxy refuses everything: port 9 (discard) has no listener."""
UCI_SHA256 = "a0f0ab49d6326671d6cd83be5c88dcf18007025fe9a53ecd699119c871176ca1"


def uci_file() -> Path:
    named = os.environ.get("CREDITRISK_TEST_UCI")
    return (
        Path(named)
        if named
        else REPOSITORY.parent / "shared" / "data" / "uci_credit_card_default.csv"
    )


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
