"""Replicas of the API on PostgreSQL, of which one is killed every few seconds:
`python -m benchmarks.serving.replicas --decisions 20000 --promotions 20 --seed 1`.

Clients send each request to any replica, many with an idempotency key. At the end every
acknowledged decision must be in the log of one replica as it was told, no key may have two
decisions, and every logged decision must come out of its champion's bundle again to the bit.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.support.postgres import new_database, postgres_server
from tests.support.trials.replicas import Load, replicas_of, run
from tests.support.trials.site import Site


def main() -> None:
    """Print what was found; exit code 1 if anything was lost, doubled or wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--promotions", type=int, default=20)
    parser.add_argument("--kill-seconds", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        postgres_server() as server,
        new_database(server) as url,
    ):
        site = Site.trained(Path(folder), raw_data="simulated:4000")
        load = Load(
            arguments.decisions, arguments.promotions, arguments.kill_seconds, arguments.seed
        )
        start = time.monotonic()
        outcome = run(replicas_of(site, url, arguments.replicas), load)
    print(f"{time.monotonic() - start:.0f} s: {outcome}")
    sys.exit(0 if outcome.holds else 1)


if __name__ == "__main__":
    main()
