"""The demo over a loop that does not do its work."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from creditrisk_assets.defs import status
from creditrisk_assets.defs.status import DagsterInstance
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.card_customers import simulate
from creditrisk_assets.simulation.demo import _Demo, campaign
from creditrisk_assets.simulation.drill import Drill, DrillFailed
from creditrisk_assets.simulation.processes import Ports
from creditrisk_assets.simulation.sandbox import fresh_sandbox

pytestmark = pytest.mark.embedded("a sandbox is embedded, whatever store the project has")


@dataclass
class Idle:
    """A loop without sensors: it settles at once, and nothing has happened."""

    instance: DagsterInstance

    def train(self) -> None:
        return

    def settle(self) -> None:
        return


@pytest.mark.parametrize(("zone", "figure"), [("production", "score_psi"), ("outcomes", "roc_auc")])
def test_landed_days_without_their_figures_end_the_demo_with_their_names(
    tmp_path: Path, zone: str, figure: str
) -> None:
    (tmp_path / "dagster.yaml").write_text("{}")
    history = simulate(4_000, 5)
    plan, files = campaign(PORTFOLIO, history)
    with fresh_sandbox(tmp_path / "demo", tmp_path, history, 0) as (home, settings):
        instance = status.open_instance(home)
        demo = _Demo(
            Console(quiet=True), Drill(home, settings, Idle(instance)), Ports(1, 2, 3), plan, files
        )
        with pytest.raises(DrillFailed, match=f"no {figure} of {plan.date(0)}, {plan.date(1)}, "):
            demo._settle([file for file in files if file.zone == zone])
        instance.dispose()
