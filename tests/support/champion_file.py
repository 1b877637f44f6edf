"""The champion's file of an API, written once by its publisher."""

from creditrisk_assets.governance.ledger import Ledger
from creditrisk_assets.simulation.stepped_loop import SteppedLoop
from serving.inference.champion_file import ChampionFile, Publisher
from serving.inference.champion_source import DagsterInstanceSource, Source


def published(loop: SteppedLoop, source: Source | None = None) -> ChampionFile:
    """The file of the API of a loop; the source is by default the loop's instance."""
    file = ChampionFile.of(loop.settings)
    read = source or DagsterInstanceSource(lambda: loop.instance)
    Publisher(read, Ledger(loop.settings.ledger).require_recorded, file).publish()
    return file
