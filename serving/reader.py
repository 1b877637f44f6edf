"""The process that reads which champion is in force, beside the workers, and publishes it to them.

`python -m serving.reader PARENT`: it ends when its parent does.
"""

from creditrisk_assets.settings import ServingSettings, Settings
from creditrisk_assets.stopping import StopSignal
from serving.companions import becomes_companion
from serving.logs import configure_logs
from serving.published import Publisher
from serving.sources import source_of


def main() -> None:
    """Read and publish until told to stop, or until the parent has ended."""
    if not becomes_companion():
        return
    stop = StopSignal()
    serving = ServingSettings()
    configure_logs(serving.log_format)
    publisher = Publisher(source_of(serving.champion_source), Settings().published_champion)
    while not stop.told:
        publisher.publish()
        stop.wait(serving.champion_poll_seconds)


if __name__ == "__main__":
    main()
