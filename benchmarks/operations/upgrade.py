"""An upgrade of a served store under load, with two releases of the API side by side:
`python -m benchmarks.operations.upgrade --from COMMIT`.

The code of the commit makes a store on PostgreSQL, an S3 server and an MLflow server, trains,
scores a day and answers with two replicas. While callers ask both, `creditrisk init` of the present
code brings the tables to its release; then the replicas are replaced one after the other, the
second after it was killed, so that its open log is read by the present code. While one of each
release answers, the present code moves the cut-off and promotes a model. At the end it lands a day.
Every answer is held against the archive, the ledger and the bundles.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.operations.callers import Callers, compare
from benchmarks.operations.containers import wait_until
from benchmarks.operations.releases import (
    REPOSITORY,
    Release,
    Replica,
    checkout,
    replicas,
)
from creditrisk_assets.portfolio.uci_card import BILL, PAID, PAY
from creditrisk_assets.settings import Settings
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.object_store import object_keys, object_store_server
from tests.support.postgres import new_database, postgres_server
from tests.support.served_store import Servers, new_bucket, running_mlflow

FOLLOW_SECONDS = 30.0
"""In which every replica must answer by the next champion."""
DAYS = ("2026-01-05", "2026-01-06")
ROWS = 500
POLICY = """\
[reports]
rows = 0
[gate]
minimum_bads = 20
psi_limit = 1000
swing_limit = 1
fairness_floor = 0
"""
"""A gate that lets a clearly better challenger through, also where it decides quite otherwise."""


def main() -> None:
    """Print what was found; exit code 1 if anything was lost, doubled or wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="commit", required=True, help="the earlier release")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started ends with it
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        objects = stack.enter_context(object_store_server(folder / "objects"))
        os.environ |= object_keys(objects)
        url = stack.enter_context(new_database(stack.enter_context(postgres_server())))
        code = stack.enter_context(checkout(arguments.commit, folder / "code"))
        holds = _upgrade(stack, folder, code, url, objects, arguments.seconds)
    sys.exit(0 if holds else 1)


def _upgrade(
    stack: ExitStack, folder: Path, code: Path, url: str, objects: str, seconds: float
) -> bool:
    bucket = new_bucket(objects)
    earlier = _release("earlier", code, folder, Servers(url, objects, "http://127.0.0.1:9", bucket))
    earlier.run("init", "--database-only")
    mlflow = stack.enter_context(running_mlflow(folder / "mlflow", url, bucket, objects))
    places = Servers(url, objects, mlflow, bucket)
    earlier = Release("earlier", code, earlier.home, places.environment)
    later = _release("later", REPOSITORY, folder, places)
    earlier.run("init")
    earlier.run("train", CREDITRISK_RAW_DATA=_history(folder, is_poor=True))
    print(f"{_commit(code)}: trained; a day: {earlier.land(DAYS[0], ROWS).strip()}", flush=True)
    machines = stack.enter_context(replicas(folder / "replicas", earlier, 2))
    callers = Callers([replica.url for replica in machines])
    with callers.calling():
        _phase(callers, "two of the earlier release", seconds)
        callers.phase = "init"
        print(f"`creditrisk init` took {_timed(later, 'init'):.1f} s under load", flush=True)
        print(f"first replica replaced: {machines[0].replace(later):.1f} s", flush=True)
        _phase(callers, "one of each", seconds)
        later.run("champion", "cut-off", "0.3", "--why", "a move while two releases answer")
        print(f"cut-off in force on both after {_followed(machines, 0.3):.1f} s", flush=True)
        good = _history(folder, is_poor=False)
        print(later.run("train", CREDITRISK_RAW_DATA=good).strip())
        print(f"promotion in force on both after {_followed(machines, None):.1f} s", flush=True)
        time.sleep(seconds)
        machines[1].kill()
        print(f"second replica killed, replaced: {machines[1].replace(later):.1f} s", flush=True)
        _phase(callers, "two of the later release", seconds)
        print(f"a day: {later.land(DAYS[1], ROWS).strip()}", flush=True)
    for replica in machines:
        replica.stop()
        replica.archive()
    os.environ |= places.environment
    found, _ = compare(callers, Settings(), lambda _: True, FOLLOW_SECONDS)
    print(found.table)
    print(f"answered keys asked for again: {callers.replays:,}")
    print(f"longest time without an answer of either replica: {callers.longest:.1f} s")
    for reason, count in sorted(callers.refused.items()):
        print(f"attempts refused: {reason}: {count}")
    for day in DAYS:
        print(later.run("replay", "--date", day).strip())
    print(later.run("champion", "verify").strip())
    print(later.run("store", "check").strip())
    return found.holds


def _release(name: str, code: Path, folder: Path, places: Servers) -> Release:
    return Release.of(name, code, folder / f"home-{name}", places.environment, POLICY)


def _history(folder: Path, *, is_poor: bool) -> str:
    """A file of customers; in a poor one payments and balances are those of another customer."""
    frame = simulate(4_000, 7)
    if is_poor:
        others = [*PAY, *BILL, *PAID]
        frame[others] = frame[others].sample(frac=1, random_state=1).to_numpy()
    path = folder / f"history-{'poor' if is_poor else 'good'}.csv"
    frame.to_csv(path, index=False)
    return str(path)


def _phase(callers: Callers, name: str, seconds: float) -> None:
    callers.phase = name
    before = len(callers.answers.answers)
    time.sleep(seconds)
    print(f"{name}: {len(callers.answers.answers) - before} decisions", flush=True)


def _timed(release: Release, *command: str) -> float:
    begin = time.monotonic()
    release.run(*command)
    return time.monotonic() - begin


def _followed(machines: list[Replica], cut_off: float | None) -> float:
    """Wait until all replicas answer by a cut-off, or by version 2: the seconds that it took."""

    def have_it() -> bool:
        found = [replica.cut_off() for replica in machines]
        return all(
            version == "2" if cut_off is None else value == cut_off for version, value in found
        )

    return wait_until(have_it, FOLLOW_SECONDS, "both replicas have the champion in force")


def _commit(code: Path) -> str:
    return subprocess.run(
        ["git", "-C", str(code), "log", "-1", "--format=%h %s"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


if __name__ == "__main__":
    main()
