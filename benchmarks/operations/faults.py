"""Faults of a deployment in containers, each in the middle of its work:
`python -m benchmarks.operations.faults --shape served`, as root, with Docker and a C compiler.

A client asks for decisions all the time and repeats what was not answered, with its idempotency
key. Each fault must heal by itself: every service is healthy, the API is ready, the work that was
under way is done, and the champion's records agree. At the end every acknowledged decision is
looked up by its id.
"""

import argparse
import datetime
import json
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx

from benchmarks.operations.containers import (
    PROBED,
    CommandFailed,
    Deployment,
    Shape,
    deployment_of,
    wait_until,
)
from creditrisk_assets.internal_http import direct_client
from creditrisk_assets.portfolio.uci_card import PORTFOLIO

HEAL_SECONDS = 120.0
CUT_SECONDS = 30.0
FULL_SECONDS = 15.0
ROWS = 4_000
A_SECOND = 20.0
"""Requests."""
ACTIVITIES = ("landing", "training", "promotion", "answering")


@dataclass
class Client:
    """A client of the API in a thread of its own.

    Attributes:
        api: address of the API.
        acknowledged: answers by decision id.
        refused: requests that were not answered with 200, by time and status; 0 is no answer.
        last: time of the last answer with 200.
        longest: seconds without one since `mark`.
    """

    api: str
    acknowledged: dict[str, dict[str, object]] = field(default_factory=dict)
    refused: list[tuple[float, int]] = field(default_factory=list)
    last: float = field(default_factory=time.monotonic)
    longest: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def asking(self) -> Iterator[None]:
        thread = threading.Thread(target=self._ask, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def mark(self) -> None:
        """Begin to count anew."""
        self.refused.clear()
        self.last, self.longest = time.monotonic(), 0.0

    def _ask(self) -> None:
        body = json.dumps(dict(PORTFOLIO.example))
        key = uuid.uuid4().hex
        with direct_client(base_url=self.api, timeout=5) as http:
            while not self._stop.wait(1 / A_SECOND):
                headers = {"Content-Type": "application/json", "Idempotency-Key": key}
                try:
                    answer = http.post("/predict", content=body, headers=headers)
                except httpx.HTTPError:
                    self.refused.append((time.monotonic(), 0))
                    continue
                if answer.status_code != httpx.codes.OK:
                    self.refused.append((time.monotonic(), answer.status_code))
                    continue
                now = time.monotonic()
                self.longest, self.last = max(self.longest, now - self.last), now
                self.acknowledged[answer.json()["decision_id"]] = answer.json()
                key = uuid.uuid4().hex

    def missing(self) -> list[str]:
        """The acknowledged decisions that the API does not have, or has otherwise."""
        result = []
        with direct_client(base_url=self.api, timeout=30) as http:
            for identifier, answered in self.acknowledged.items():
                answer = http.get(f"/decisions/{identifier}")
                stored = answer.json()["answer"] if answer.status_code == httpx.codes.OK else None
                if stored != answered:
                    result.append(identifier)
        return result


@dataclass
class Work:
    """The work of the deployment while it breaks."""

    deployment: Deployment
    day: datetime.date
    cut_off: float = 0.2

    def land(self) -> Callable[[], bool]:
        """Land the next day; the condition that it is scored and assessed."""
        self.day += datetime.timedelta(days=1)
        day = self.day.isoformat()
        options = ["--days", "1", "--rows", str(ROWS), "--start", day]
        self.deployment.execute("code-server", "creditrisk", "simulate", *options)

        def is_done() -> bool:
            rows = [row for row in self.status()["days"] if row["day"] == day]
            return bool(rows) and rows[0]["roc_auc"] is not None

        return is_done

    def train(self) -> Callable[[], bool]:
        """Queue a training; the condition that no run is left and one has ended well since."""
        start = time.time()
        self.deployment.execute(
            "code-server", "dagster", "job", "launch", "-j", "train", "-w", "/app/workspace.yaml"
        )

        def is_done() -> bool:
            return self.runs("train", start, "SUCCESS") > 0 and not self.status()["runs_in_flight"]

        return is_done

    def move(self) -> Callable[[], bool]:
        """Move the cut-off beside the fault; the condition that a later move is in force."""
        thread = threading.Thread(target=self._moves)
        thread.start()

        def is_done() -> bool:
            if thread.is_alive():
                return False
            self.cut_off = round(self.cut_off + 0.001, 3)
            self._move(self.cut_off)
            return self.answers_by(self.cut_off)

        return is_done

    def _moves(self) -> None:
        for _ in range(3):
            self.cut_off = round(self.cut_off + 0.001, 3)
            with suppress(CommandFailed):  # the fault took it
                self._move(self.cut_off)

    def _move(self, cut_off: float) -> None:
        self.deployment.execute(
            "code-server", "creditrisk", "champion", "cut-off", str(cut_off), "--why", "fault"
        )

    def answers_by(self, cut_off: float) -> bool:
        def is_so() -> bool:
            answer = httpx.get(f"{self.deployment.api}/model-info", timeout=5, trust_env=False)
            return bool(abs(answer.json()["cut_off"] - cut_off) < 1e-9)

        with suppress(TimeoutError):
            wait_until(is_so, 10, "the API has the new cut-off")
            return True
        return False

    def status(self) -> dict[str, list[dict[str, object]]]:
        text = self.deployment.execute("code-server", "creditrisk", "status", "--json", seconds=60)
        found: dict[str, list[dict[str, object]]] = json.loads(text)
        return found

    def runs(self, job: str | None, since: float, status: str) -> int:
        """The runs since a time with a status, of one job or of all, as the webserver says."""
        query = """query($filter: RunsFilter) { runsOrError(filter: $filter) {
            ... on Runs { results { id } } } }"""
        chosen: dict[str, object] = {"statuses": [status], "createdAfter": since}
        if job is not None:
            chosen["pipelineName"] = job
        body = json.dumps({"query": query, "variables": {"filter": chosen}})
        code = (
            "import sys, urllib.request as u; q = u.Request('http://webserver:3000/graphql', "
            "sys.argv[1].encode(), {'Content-Type': 'application/json'}); "
            "print(u.urlopen(q).read().decode())"
        )
        ask = partial(
            self.deployment.execute, "code-server", "python", "-c", code, body, seconds=60
        )
        try:
            answer = ask()
        except CommandFailed:  # a connection from before the fault: the webserver has new ones now
            answer = ask()
        return len(json.loads(answer)["data"]["runsOrError"]["results"])

    def is_under_way(self) -> bool:
        return bool(self.deployment.run_processes())


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        name: in the table.
        during: the activities in whose middle it happens, each on its own.
        happens: brings it about, and takes away what does not end by itself.
        expected: what must be seen, besides that everything heals and nothing is lost.
        gap: longest time without an answer of the API, in seconds.
        shapes: that have it.
    """

    name: str
    during: tuple[str, ...]
    happens: Callable[[Deployment], None]
    expected: str
    gap: float
    shapes: tuple[Shape, ...] = ("embedded", "served")


def kill_service(service: str) -> Callable[[Deployment], None]:
    """All processes of a service are killed."""
    return lambda deployment: deployment.kill(service)


def kill_run(deployment: Deployment) -> None:
    """The process of a run is killed."""
    if not deployment.kill_run():
        raise CommandFailed("the code server executes no run")


def kill_one(service: str, word: str) -> Callable[[Deployment], None]:
    """One process of a service is killed."""

    def happens(deployment: Deployment) -> None:
        if not deployment.kill_process(service, word):
            raise CommandFailed(f"{service} has no process with {word!r}")

    return happens


def clock_at(seconds: int) -> Callable[[Deployment], None]:
    """The clock of all containers is set so far before that of this machine."""
    return lambda deployment: deployment.set_clock(seconds)


def clock_back(deployment: Deployment) -> None:
    """The clock of all containers is that of this machine again, and the daemon begins anew."""
    deployment.set_clock(0)
    time.sleep(CUT_SECONDS)
    deployment.compose("restart", "daemon")


def clock_wrong(seconds: int) -> Callable[[Deployment], None]:
    """The clock of all containers but the servers is so far before that of this machine for some
    time. An object store refuses what is signed by a clock that is 15 minutes off.
    """

    def happens(deployment: Deployment) -> None:
        deployment.set_clock(seconds)
        time.sleep(CUT_SECONDS)
        clock_back(deployment)

    return happens


def kill_all(deployment: Deployment) -> None:
    """All processes of all services are killed."""
    for service in deployment.services:
        deployment.kill(service)


def cut_off_from(other: str) -> Callable[[Deployment], None]:
    """No answer of a service reaches the API for some time."""

    def happens(deployment: Deployment) -> None:
        with deployment.cut("api", other):
            time.sleep(CUT_SECONDS)

    return happens


def full(volume: str) -> Callable[[Deployment], None]:
    """A volume has no space for some time."""

    def happens(deployment: Deployment) -> None:
        filler = deployment.volume(volume) / "filler"
        try:
            with filler.open("wb") as file, suppress(OSError):
                while file.write(bytes(1 << 20)):
                    file.flush()
            time.sleep(FULL_SECONDS)
        finally:
            filler.unlink()

    return happens


def full_bucket(deployment: Deployment) -> None:
    """The object store's disk has no space for some time; then the object store is started again,
    since SeaweedFS goes on without its folders after a full disk.
    """
    full("objects")(deployment)
    deployment.compose("restart", "s3")


def read_only(deployment: Deployment) -> None:
    """Nothing in the data volume may be written for some time."""
    modes: dict[Path, int] = {}
    try:
        for folder, _, files in os.walk(deployment.volume("data")):
            for place in (Path(folder, name) for name in ("", *files)):
                with suppress(FileNotFoundError):  # SQLite removes files of its own at any time
                    modes[place] = place.stat().st_mode
                    place.chmod(modes[place] & 0o555)
        time.sleep(FULL_SECONDS)
    finally:
        for place, mode in modes.items():
            with suppress(FileNotFoundError):
                place.chmod(mode)


def two_of_everything(deployment: Deployment) -> None:
    """Each process runs twice for some time."""
    names = [f"{deployment.project}-second-{service}" for service in PROBED]
    try:
        for name, service in zip(names, PROBED, strict=True):
            deployment.compose("run", "--detach", "--no-deps", "--name", name, service)
        time.sleep(CUT_SECONDS)
    finally:
        for name in names:
            with suppress(CommandFailed):
                deployment.remove(name)


NOTHING = "the API answers throughout"
FAULTS = (
    Fault(
        "kill -9 of the run's process",
        ("landing", "training"),
        kill_run,
        NOTHING,
        1,
    ),
    Fault(
        "kill -9 of the code server",
        ("landing", "training", "promotion"),
        kill_service("code-server"),
        NOTHING,
        1,
    ),
    Fault("kill -9 of the daemon", ("landing", "training"), kill_service("daemon"), NOTHING, 1),
    Fault(
        "kill -9 of the webserver", ("landing", "promotion"), kill_service("webserver"), NOTHING, 1
    ),
    Fault("kill -9 of MLflow", ("training", "promotion"), kill_service("mlflow"), NOTHING, 1),
    Fault(
        "kill -9 of PostgreSQL",
        ACTIVITIES,
        kill_service("postgres"),
        "keyed requests are refused until it is back",
        30,
        ("served",),
    ),
    Fault(
        "kill -9 of the object store",
        ("landing", "training", "promotion"),
        kill_service("s3"),
        NOTHING,
        1,
        ("served",),
    ),
    Fault(
        "kill -9 of one worker of the API",
        ("answering",),
        kill_one("api", "spawn_main"),
        "the other worker answers",
        5,
    ),
    Fault(
        "kill -9 of the API's publisher",
        ("promotion",),
        kill_one("api", "sidecars publisher"),
        NOTHING,
        1,
    ),
    Fault(
        "kill -9 of the API's archiver",
        ("answering",),
        kill_one("api", "decisions archive"),
        NOTHING,
        1,
    ),
    Fault(
        "kill -9 of the API with its supervisor",
        ("answering", "promotion"),
        kill_service("api"),
        "back when Docker has started it again",
        20,
    ),
    Fault(
        "kill -9 of everything at once",
        ("landing",),
        kill_all,
        "back when Docker has started all",
        60,
    ),
    Fault(
        "no network from the API to the webserver, 30 s",
        ("promotion",),
        cut_off_from("webserver"),
        NOTHING,
        1,
    ),
    Fault(
        "no network from the API to PostgreSQL, 30 s",
        ("answering",),
        cut_off_from("postgres"),
        "keyed requests are refused",
        45,
        ("served",),
    ),
    Fault(
        "no network from the API to the object store, 30 s",
        ("promotion",),
        cut_off_from("s3"),
        NOTHING,
        1,
        ("served",),
    ),
    Fault(
        "no network from the API to MLflow, 30 s",
        ("answering",),
        cut_off_from("mlflow"),
        NOTHING,
        1,
    ),
    Fault(
        "the data volume is full, 15 s",
        ("landing", "answering"),
        full("data"),
        "507 until there is space",
        30,
    ),
    Fault(
        "the bucket is full, 15 s; then the object store is started again",
        ("landing",),
        full_bucket,
        NOTHING,
        1,
        ("served",),
    ),
    Fault(
        "the database's disk is full, 15 s",
        ("landing",),
        full("database"),
        "keyed requests are refused",
        60,
        ("served",),
    ),
    Fault(
        "the data volume is read-only, 15 s",
        ("landing",),
        read_only,
        "507 until it is writable",
        30,
        ("embedded",),
    ),
    Fault("two of every process, 30 s", ("landing",), two_of_everything, NOTHING, 1),
    Fault("the clock goes an hour ahead", ("landing",), clock_at(3600), NOTHING, 1, ("embedded",)),
    Fault(
        "the clock goes an hour back; 30 s later the daemon is started again",
        ("landing",),
        clock_back,
        NOTHING,
        1,
        ("embedded",),
    ),
    Fault(
        "the clock is an hour ahead for 30 s; 30 s later the daemon is started again",
        ("landing",),
        clock_wrong(3600),
        NOTHING,
        1,
        ("served",),
    ),
    Fault(
        "the clock is an hour back for 30 s; 30 s later the daemon is started again",
        ("landing",),
        clock_wrong(-3600),
        NOTHING,
        1,
        ("served",),
    ),
)


def main() -> None:
    """Print a table of what was seen; exit code 1 if anything was not as expected."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=("embedded", "served"), default="embedded")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="faults whose name has one of these words"
    )
    parser.add_argument("--override", type=Path, help="another file of Compose, for this machine")
    arguments = parser.parse_args()
    good = True
    settings = {"CREDITRISK_RAW_DATA": "simulated:6000", "CREDITRISK_WORKERS": "2"}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        start = time.monotonic()
        override = arguments.override.resolve() if arguments.override else None
        deployment = stack.enter_context(deployment_of(folder, arguments.shape, override, settings))
        print(f"healthy after {time.monotonic() - start:.0f} s", flush=True)
        deployment.execute("code-server", "creditrisk", "train")
        wait_until(lambda: is_ready(deployment), 60, "the API has a champion")
        client = Client(deployment.api)
        today = datetime.datetime.now(datetime.UTC).date()
        work = Work(deployment, today - datetime.timedelta(days=60))
        print(
            "| fault | in the middle of | expected | seen | healed after |\n|---|---|---|---|---|"
        )
        chosen = [one for one in FAULTS if arguments.shape in one.shapes]
        with client.asking():
            for fault in chosen:
                if any(words in fault.name for words in arguments.only):
                    for activity in fault.during:
                        good &= trial(deployment, client, work, fault, activity)
        verified = deployment.execute("code-server", "creditrisk", "champion", "verify")
        missing = client.missing()
        print(
            f"{len(client.acknowledged):,} acknowledged decisions, {len(missing)} missing or other"
        )
        print(verified)
        good &= not missing
    sys.exit(0 if good else 1)


def trial(deployment: Deployment, client: Client, work: Work, fault: Fault, activity: str) -> bool:
    """Break the deployment once, and print what became of it; True if it was as expected."""
    client.mark()
    notes: list[str] = []
    took, start = float("nan"), time.time()
    try:
        is_done = begin(work, activity)
        fault.happens(deployment)
        took = wait_until(
            lambda: is_well(deployment, is_done), HEAL_SECONDS, f"healed, {activity} done"
        )
        deployment.execute("code-server", "creditrisk", "champion", "verify")
        if lost := work.runs(None, start, "FAILURE"):
            notes.append(f"runs lost and done again: {lost}")
    except (TimeoutError, CommandFailed) as error:
        notes.append(
            f"**{' '.join(str(error).split())[-300:]}; unhealthy: {deployment.unhealthy()}**"
        )
    statuses = sorted({status for _, status in client.refused})
    if client.refused:
        notes.append(f"{len(client.refused)} requests refused ({', '.join(map(str, statuses))})")
    longest = max(client.longest, time.monotonic() - client.last)
    notes.append(f"longest time without an answer {longest:.1f} s")
    holds = longest <= fault.gap and took == took
    text = ("" if holds else "**not as expected** ") + "; ".join(notes)
    print(f"| {fault.name} | {activity} | {fault.expected} | {text} | {took:.0f} s |", flush=True)
    return holds


def begin(work: Work, activity: str) -> Callable[[], bool]:
    """Begin an activity, and come to its middle; the condition that it is done."""
    if activity == "answering":
        return lambda: True
    if activity == "promotion":
        is_done = work.move()
        time.sleep(2)
        return is_done
    wait_until(lambda: not work.is_under_way(), 120, "no other run is under way")
    is_done = work.land() if activity == "landing" else work.train()
    wait_until(work.is_under_way, 60, "a run is under way")
    time.sleep(4)
    return is_done


def is_well(deployment: Deployment, is_done: Callable[[], bool]) -> bool:
    """True if all is as it should be, and the work is done."""
    try:
        return is_ready(deployment) and not deployment.unhealthy() and is_done()
    except (CommandFailed, httpx.HTTPError, KeyError, ValueError):
        return False


def is_ready(deployment: Deployment) -> bool:
    """True if the API is ready and names no problem."""
    try:
        answer = httpx.get(f"{deployment.api}/ready", timeout=5, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.OK and answer.json().get("problem") is None


if __name__ == "__main__":
    main()
