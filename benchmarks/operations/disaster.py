"""The loss of a whole served store under load, and its recovery:
`python -m benchmarks.operations.disaster`.

Two replicas of the API answer on PostgreSQL, an S3 server and an MLflow server while a backup is
taken to another disk, on the machine of the first replica. Some time later everything else is
destroyed: database, bucket, MLflow and the disks of the replicas. The backup is restored into an
empty database, bucket and MLflow with other names; the champion is verified, decisions are made
again, the API answers, and the next day runs. Times begin when the new servers answer.

The backup must have every decision that the first replica acknowledged before it began, and of the
second one those that were older than a segment of its log.
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import s3fs

from benchmarks.operations.callers import Callers, Comparison, compare
from benchmarks.operations.releases import REPOSITORY, Release, replicas
from creditrisk_assets.internal_http import direct_client
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.settings import Settings
from tests.support.object_store import object_keys, object_store_server
from tests.support.postgres import new_database, own_postgres_server
from tests.support.served_store import servers

DAYS = ("2026-01-05", "2026-01-06")
POLICY = "[reports]\nrows = 0\n"
FOLLOW_SECONDS = 30.0
SEGMENT_SECONDS = 12.0
"""Age at which a segment of the log is finished; an hour by default."""
ARCHIVED_SECONDS = SEGMENT_SECONDS + 30.0
"""In which the archiver has a decision in the bucket."""


@dataclass(frozen=True)
class Loss:
    """The loss of a store that was backed up. Times are in seconds since the epoch.

    Attributes:
        backup_began: when the backup began.
        backup_ended: when it ended.
        at: when everything was destroyed.
        with_log: address of the replica whose log is in the backup.
    """

    backup_began: float
    backup_ended: float
    at: float
    with_log: str


def main() -> None:
    """Print what was found; exit code 1 if anything that the backup must have is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2_000, help="customers of a day")
    parser.add_argument("--seconds", type=float, default=30.0, help="before and after the backup")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started ends with it
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        callers = Callers([])
        loss = _lose(place, callers, arguments.rows, arguments.seconds)
        holds = _recover(place, callers, loss, arguments.rows)
    sys.exit(0 if holds else 1)


def _lose(folder: Path, callers: Callers, rows: int, seconds: float) -> Loss:
    """Make a store, back it up under load, and destroy it."""
    with ExitStack() as stack:
        release = _release(stack, folder / "lost", rows)
        release.run("init")
        release.run("train")
        print(f"trained; a day of {rows:,}: {release.land(DAYS[0], rows).strip()}", flush=True)
        machines = stack.enter_context(replicas(folder / "lost" / "replicas", release, 2))
        callers.urls = [replica.url for replica in machines]
        with callers.calling():
            time.sleep(seconds)
            release.run("champion", "cut-off", "0.3", "--why", "a move before the backup")
            time.sleep(seconds)
            began = time.time()
            line = release.run("backup", str(folder / "backup"), **machines[0].environment)
            ended = time.time()
            print(f"backup in {ended - began:.1f} s under load: {line.strip()}", flush=True)
            time.sleep(seconds)
        loss = Loss(began, ended, time.time(), machines[0].url)
        for replica in machines:
            replica.kill()
    shutil.rmtree(folder / "lost")
    s3fs.S3FileSystem.clear_instance_cache()
    print(f"lost, with {len(callers.answers.answers):,} acknowledged decisions", flush=True)
    return loss


def _recover(folder: Path, callers: Callers, loss: Loss, rows: int) -> bool:
    with ExitStack() as stack:
        release = _release(stack, folder / "new", rows)
        begin = time.monotonic()
        text = release.run("restore", str(folder / "backup"))
        restored = time.monotonic() - begin
        print(text.strip())
        release.run("decisions", "archive", "--now")
        (machine,) = stack.enter_context(replicas(folder / "new" / "replicas", release, 1))
        with direct_client(base_url=machine.url, timeout=10) as client:
            client.post("/predict", json=dict(PORTFOLIO.example)).raise_for_status()
        answered = time.monotonic() - begin
        day = release.land(DAYS[1], rows)
        landed = time.monotonic() - begin
        machine.stop()
        os.environ |= release.environment
        found, archived = compare(
            callers, Settings(), lambda known: _is_expected(callers, loss, known), FOLLOW_SECONDS
        )
        print(found.table)
        print(f"the next day: {day.strip()}")
        print(release.run("replay", "--date", DAYS[0]).strip())
        print(release.run("champion", "verify").strip())
        print(
            f"restored and verified after {restored:.1f} s, an answer after {answered:.1f} s, the "
            f"next day scored after {landed:.1f} s"
        )
        _print_age(callers, loss, archived)
        return _is_whole(found, text)


def _is_expected(callers: Callers, loss: Loss, decision: str) -> bool:
    """True for a decision that the backup must have."""
    has_log = callers.answered_by[decision].rstrip("/") == loss.with_log
    until = loss.backup_began - (0.0 if has_log else ARCHIVED_SECONDS)
    return callers.asked_at[decision] < until


def _print_age(callers: Callers, loss: Loss, archived: set[str]) -> None:
    """Print how much of each replica was lost."""
    for url in callers.urls:
        own = [one for one, by in callers.answered_by.items() if by.rstrip("/") == url]
        newest = max(callers.asked_at[one] for one in own if one in archived)
        lost = sum(one not in archived for one in own)
        place = "in the backup" if url == loss.with_log else "not in it"
        print(
            f"replica whose log is {place}: {len(own):,} decisions, {lost:,} lost; the newest that "
            f"is there was {loss.at - newest:.1f} s old at the loss, "
            f"{loss.backup_ended - newest:.1f} s at the end of the backup"
        )


def _release(stack: ExitStack, folder: Path, rows: int) -> Release:
    """The present code on new servers."""
    folder.mkdir()
    objects = stack.enter_context(object_store_server(folder / "objects"))
    os.environ |= object_keys(objects)
    s3fs.S3FileSystem.clear_instance_cache()
    server = stack.enter_context(own_postgres_server(durable=True))
    url = stack.enter_context(new_database(server.address))
    places = stack.enter_context(servers(folder / "mlflow", url, objects))
    environment = places.environment | {
        "CREDITRISK_RAW_DATA": f"simulated:{3 * rows}",
        "CREDITRISK_LIMITS": json.dumps({"segment_minutes": SEGMENT_SECONDS / 60}),
    }
    return Release.of("restored", REPOSITORY, folder / "home", environment, POLICY)


def _is_whole(found: Comparison, text: str) -> bool:
    return found.holds and "does not hold" not in text and bool(re.search(r", 0 differ", text))


if __name__ == "__main__":
    main()
