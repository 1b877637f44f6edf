"""Whether the OpenAPI document is true: `python -m benchmarks.serving.fuzz --cases 2000 --seed 1`.

schemathesis draws requests from the document, valid ones and invalid ones, sends them to an API
process with keys, and holds every answer against the document, all its checks on: with a key that
may do everything, then without one.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support.trials.fuzz import fuzz
from tests.support.trials.site import Site, running


def main() -> None:
    """Print what was found; exit code 1 if an answer was not as the document says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Site.trained(Path(folder), raw_data="simulated:2000")
        key = site.new_key("fuzzer", "admin")
        with running(site):
            outcomes = [
                fuzz(site, key, arguments.cases, arguments.seed),
                fuzz(site, {}, 1, arguments.seed),
            ]
    for who, outcome in zip(("with a key", "without a key"), outcomes, strict=True):
        print(
            f"{who}: {outcome.cases} cases over {outcome.operations} operations, failures: "
            f"{len(outcome.failures)}"
        )
        print(*outcome.failures, sep="\n")
    sys.exit(0 if all(outcome.holds for outcome in outcomes) else 1)


if __name__ == "__main__":
    main()
