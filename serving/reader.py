"""The process that reads which champion is in force, beside the workers, and publishes it to them.

`python -m serving.reader PARENT`: it ends when its parent does.
"""

import signal
import threading

from creditrisk_assets.settings import ServingSettings, Settings
from serving.companions import becomes_companion
from serving.logs import configure_logs
from serving.published import Publisher
from serving.sources import source_of


def main() -> None:
    """Read and publish until told to stop, or until the parent has ended."""
    if not becomes_companion():
        return
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serving = ServingSettings()
    configure_logs(serving.log_format)
    publisher = Publisher(source_of(serving.champion_source), Settings().published_champion)
    while not stop.is_set():
        publisher.publish()
        stop.wait(serving.champion_poll_seconds)


if __name__ == "__main__":
    main()
