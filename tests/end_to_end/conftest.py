"""Sites for tests of the API as a process. The champion's log-odds are one feature: its bundle is real, nothing is trained."""

from collections.abc import Iterator

import pytest

from tests.support.examples import handmade_champion
from tests.support.trials.site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with a champion; nothing of it runs."""
    home = tmp_path_factory.mktemp("site")
    site = Site.over(home, *handmade_champion(home, "1", "late_sum", -3.0))
    yield site
    site.loop.instance.dispose()
