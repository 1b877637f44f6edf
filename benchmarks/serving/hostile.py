"""Hostile clients beside a good one: `python -m benchmarks.serving.hostile --idle 10000`.

A good client asks for decisions at an even pace: alone; beside clients that send what is no
request, or no valid one, that send slowly, that do not read, that go in the middle; beside
thousands of idle connections; alone again. Every hostile client must be answered, or closed, as it
should be; the good one must not be slowed; memory and descriptors must come back to where they
were.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import httpx

from tests.support.trials.hostile import endure, impatient
from tests.support.trials.site import Site


def main() -> None:
    """Print what was found; exit code 1 if anything was answered otherwise than it should be, or
    the good client was slowed.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--patience", type=float, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Site.trained(Path(folder), raw_data="simulated:2000")
        site.environment = impatient(arguments.patience)
        headers = site.new_key("bank", "predict")
        site.start()
        try:
            outcome = endure(
                site, headers, arguments.seconds, arguments.idle, arguments.patience, warm=True
            )
        except httpx.HTTPError as error:
            sys.exit(f"the API does not answer any more: {error!r}")
        finally:
            site.stop()
    for name, value in vars(outcome).items():
        print(f"{name}: {value}")
    print(f"slowdown: {outcome.slowdown:.2f}")
    sys.exit(0 if outcome.holds else 1)


if __name__ == "__main__":
    main()
