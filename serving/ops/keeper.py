"""The process that keeps what was decided, beside the workers: `creditrisk decisions keep --watch`.

`python -m serving.ops.keeper PARENT` becomes it: it ends when its parent does, and lets whoever
asks for a decision go first.
"""

import os
import signal
import sys
import time

from serving.ops.sidecars import becomes_companion

NICENESS = 10
LATER_SECONDS = 3.0
"""By then the workers are ready; what was left to be kept has waited for longer."""

LOOK_SECONDS = 0.1

ENDING = (signal.SIGTERM, signal.SIGINT)


def main() -> None:
    """Become the keeper of a parent, unless it has ended already."""
    # Held back until the keeper has made up its mind what to do about them, which is to look once
    # more.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    if becomes_companion():
        os.nice(NICENESS)
        begin = time.monotonic() + LATER_SECONDS
        while time.monotonic() < begin and signal.sigpending().isdisjoint(ENDING):
            time.sleep(LOOK_SECONDS)
        os.execv(  # noqa: S606
            sys.executable,
            [sys.executable, "-m", "creditrisk_assets.cli.main", "decisions", "keep", "--watch"],
        )


if __name__ == "__main__":
    main()
