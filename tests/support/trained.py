"""Stores with a champion, each trained once for all workers of a test run, or once a worker if they are on its servers; a test
works on a copy of its own.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from creditrisk_assets.portfolio.uci_card import BILL, PAID, PAY
from creditrisk_assets.registry import Registry
from creditrisk_assets.simulation.card_customers import simulate
from tests.support import shape
from tests.support.loop import Loop
from tests.support.policies import policy_of

ANY_GAIN: dict[str, Any] = {
    "policy": policy_of(
        {
            "gate.minimum_bads": 20,
            "gate.psi_limit": 1_000,
            "gate.swing_limit": 1,
            "gate.fairness_floor": 0,
        }
    )
}
"""A gate that lets a clearly better challenger through also where it decides quite otherwise than a poor champion."""


def history(folder: Path, poor: bool, seed: int = 7, rows: int = 2_000) -> str:
    """A history; in a poor one everybody has the payments and balances of somebody else, and only the limit tells something."""
    frame = simulate(rows, seed)
    if poor:
        others = [*PAY, *BILL, *PAID]
        frame[others] = frame[others].sample(frac=1, random_state=1).to_numpy()
    path = folder / f"history-{'poor' if poor else 'good'}-{seed}.csv"
    frame.to_csv(path, index=False)
    return str(path)


def train(loop: Loop, poor: bool) -> None:
    """A model of a poor or a good history, judged against the champion."""
    loop.settings.raw_data = history(loop.home, poor)
    assert loop.run("train").success


def trained_loop(home: Path, factory: pytest.TempPathFactory, **settings: Any) -> Loop:
    """A loop in a folder with a first champion of the simulated history."""

    def train_simulated(folder: Path) -> Loop:
        loop = Loop.of(
            folder, policy=policy_of({"reports.rows": 5_000})
        )  # with all plots of the model
        assert loop.run("train").success
        return loop

    return _copy(_made_once(factory, "trained", train_simulated), home, settings)


def poorly_trained_loop(home: Path, factory: pytest.TempPathFactory) -> Loop:
    """A loop in a folder with a first champion of a poor history, and a gate that any better challenger passes."""

    def train_poorly(folder: Path) -> Loop:
        loop = Loop.of(folder, **ANY_GAIN)
        train(loop, poor=True)
        return loop

    loop = _copy(_made_once(factory, "poorly-trained", train_poorly), home, ANY_GAIN)
    loop.settings.raw_data = str(next(home.glob("history-poor-*.csv")))
    return loop


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Loop]) -> Path:
    """The folder of a loop that the first of all workers makes while the others wait for it."""
    own = factory.getbasetemp()
    is_shared = "PYTEST_XDIST_WORKER" in os.environ and shape.stores() is None
    of_all_workers = own.parent if is_shared else own
    made = of_all_workers / name
    with (of_all_workers / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            loop = make(factory.mktemp(f"making-{name}") / "site")
            loop.close()
            loop.home.rename(made)
    return made


def _copy(made: Path, home: Path, settings: dict[str, Any]) -> Loop:
    shape.copy(made, home)
    loop = Loop.of(home, **settings)
    Registry(loop.settings).prepare()  # MLflow's addresses are absolute
    return loop
