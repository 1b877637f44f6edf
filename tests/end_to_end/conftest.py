"""Sites for tests of the API as a process. The champion's log-odds are one feature: its bundle is real, nothing is trained."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Bundle, ChampionRecord
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.examples import champion_of, written_bundle
from tests.support.trials.site import Site


def handmade_champion(
    folder: Path, version: str, feature: str, shift: float
) -> tuple[ChampionRecord, Bundle]:
    """A champion whose log-odds are a feature plus a shift, and its bundle."""
    column = PORTFOLIO.feature_names.index(feature)
    bundle = written_bundle(
        folder / version, column, simulate(10, 1), version=version, shift=shift, portfolio=PORTFOLIO
    ).load()
    return champion_of(bundle, version), bundle


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with a champion; nothing of it runs."""
    home = tmp_path_factory.mktemp("site")
    site = Site.over(home, *handmade_champion(home, "1", "late_sum", -3.0))
    yield site
    site.loop.instance.dispose()
