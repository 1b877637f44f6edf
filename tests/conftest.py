"""What all tests share: where the real UCI data is, if it is there."""

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from tests.support.alerting_rules import promtool
from tests.support.places import uci_file
from tests.support.programs import chromium, nginx
from tests.support.shape import SERVED
from tools.check_chart import is_helm_there

ALONE = frozenset(
    {
        "test_the_demo_shows_the_whole_loop_on_a_small_portfolio",
        "test_dev_starts_everything_and_leaves_nothing_behind",
        "test_a_promotion_killed_at_any_step_leaves_one_whole_champion_and_the_next_run_heals_it",
        "test_ten_quiet_days_of_the_real_file_give_no_alarm_and_a_drifted_one_is_told",
    }
)
"""Long tests that share nothing with the others of their file. With `--dist=loadfile` any worker takes one, so that no worker is
left with the whole file; xdist's own groups (`--dist=loadgroup`, 3.8) do not work with pytest 9.2.
"""


class FilesAndLongTests(LoadFileScheduling):  # type: ignore[misc]
    """A file goes to one worker as a whole, but its long tests go by themselves."""

    def _split_scope(self, nodeid: str) -> str:
        name = nodeid.rpartition("::")[2].partition("[")[0]
        return nodeid if name in ALONE else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesAndLongTests | None:
    return FilesAndLongTests(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that are marked with a file or a program that is not there are left out, and those marked `embedded` where stores are
    served; the report names how many. In CI only the file may be missing.
    """
    there: dict[str, Callable[[], object]] = {
        "uci": uci_file().is_file,
        "embedded": lambda: not SERVED,
    }
    if "CI" not in os.environ:
        there |= {"helm": is_helm_there, "chromium": chromium, "nginx": nginx, "promtool": promtool}
    for mark, is_there in there.items():
        left_out = [item for item in items if item.get_closest_marker(mark)]
        if left_out and not is_there():
            items[:] = [item for item in items if item not in left_out]
            config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish() -> None:
    """The garbage collector leaves alone what the imports of all test files made, a million objects. Going through them again and
    again was an eighth of the time of a test that trains.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def uci() -> Path:
    return uci_file()


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own settings must not decide what a test sees. `make` sets DAGSTER_HOME: with it, a
    test of a store without a folder of its own would use the one in `data/`.
    """
    for name in list(os.environ):
        if (name.startswith("CREDITRISK_") and not name.startswith("CREDITRISK_TEST_")) or name in (
            "MLFLOW_TRACKING_URI",
            "DAGSTER_HOME",
        ):
            monkeypatch.delenv(name)
