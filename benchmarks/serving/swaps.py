"""Champions that change under load: `python -m benchmarks.serving.swaps --swaps 100 --workers 2`.

Two champions take turns, each time with another cut-off, while clients ask for single decisions and
for batches. Every answer names version, bundle and cut-off, and must be what that bundle gives by
that cut-off; once all workers say that they answer by the new champion, no request that is sent
then may be answered by another one. Now and then a champion is named whose bundle has another hash
than it should: it must answer nobody.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support.trials.site import Site, running
from tests.support.trials.swaps import swap


def main() -> None:
    """Print what was found; exit code 1 if a request failed, or an answer was not what its bundle
    gives.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site, other = (
            Site.trained(Path(folder) / str(seed), raw_data=f"simulated:2000:{seed}")
            for seed in (1, 2)
        )
        site.workers = arguments.workers
        headers = site.new_key("bank", "predict", "read")
        champions = [
            site.champion(),
            other.champion().model_copy(update={"model_version": "other"}),
        ]
        with running(site):
            outcome = swap(site, champions, arguments.swaps, headers)
    print(outcome)
    sys.exit(0 if outcome.holds else 1)


if __name__ == "__main__":
    main()
