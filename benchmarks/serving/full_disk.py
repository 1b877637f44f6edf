"""A full disk under load: `python -m benchmarks.serving.full_disk --rounds 5`.

The API's folder is on a disk of some megabytes. While clients ask for single decisions, for
decisions with an idempotency key and for batches, the disk is filled; everybody must be told so, by
a problem and when to come again, and be answered again soon after there is space. Then it is filled
again and every process killed, the API is started while the disk is still full, and gets its space
later. At the end no acknowledged decision may be missing. Then another disk is full, to which
finished segments go.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support.trials.full_disk import DISK_MEGABYTES, fill_store, fill_up
from tests.support.trials.site import Site
from tests.support.trials.small_disk import small_disk


def main() -> None:
    """Print what was found; exit code 1 if something was lost, or told otherwise than it
    should be.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, small_disk(DISK_MEGABYTES) as disk:
        site = Site.trained(Path(folder), raw_data="simulated:2000")
        site.workers = arguments.workers
        outcome = fill_up(site, disk, arguments.rounds)
        with small_disk(DISK_MEGABYTES) as store:
            store_outcome = fill_store(
                Site.over(
                    Path(folder) / "other",
                    site.champion(),
                    site.bundles.load(site.champion().bundle_sha256),
                ),
                store,
            )
    print(outcome, store_outcome, sep="\n")
    sys.exit(0 if outcome.holds and store_outcome.holds else 1)


if __name__ == "__main__":
    main()
