"""The process that reads which champion is in force, beside the workers, and publishes it to them.

`python -m serving.ops.reader PARENT`: it ends when its parent does.
"""

from creditrisk_assets.settings import ServingSettings, Settings
from creditrisk_assets.stop_signal import StopSignal
from serving.inference.champion_source import source_of
from serving.inference.published import Publisher
from serving.ops.logs import configure_logs
from serving.ops.sidecars import becomes_companion


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
