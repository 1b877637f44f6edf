"""Decisions left after crashes: `python -m benchmarks.serving.crashes --rounds 50 --seed 1`.

In each round clients ask for decisions, some with an idempotency key, until at a random moment one
worker, or every process at once, is killed; then the API is started again and requests without an
answer are sent again with the same key. At the end every acknowledged decision must be in the log
with the numbers that were told, no key may have two decisions, and every logged decision must come
out of its bundle again to the bit.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support.trials.crashes import crash
from tests.support.trials.site import Site


def main() -> None:
    """Print what was found; exit code 1 if anything was lost, doubled or wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Site.trained(Path(folder), raw_data="simulated:4000")
        site.workers = arguments.workers
        outcome = crash(site, arguments.rounds, arguments.seed)
    print(outcome)
    sys.exit(0 if outcome.holds else 1)


if __name__ == "__main__":
    main()
