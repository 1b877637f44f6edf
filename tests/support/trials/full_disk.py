"""A full disk under load.

The API's folder is on a disk of some megabytes. While clients ask for single decisions, for
decisions with an idempotency key and for batches, the disk is filled; everybody must be told so, by
a problem and when to come again, and be answered again soon after there is space. Then it is filled
again and every process killed, the API is started while the disk is still full, and gets its space
later. At the end no acknowledged decision may be missing. Then another disk is full, to which
finished segments go.
"""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from creditrisk_assets.simulation.card_customers import simulate
from tests.support.trials.crashes import Outcome as Kept
from tests.support.trials.crashes import Told, looked_at, retry
from tests.support.trials.site import Site, beside
from tests.support.trials.small_disk import SmallDisk

DISK_MEGABYTES = 12
LEFT_BYTES = 150_000
"""Left by the filler, for the API to use up itself."""

BATCH_ROWS = 50
FULL_SECONDS = 2.0
SECONDS_LIMIT = 10.0
KINDS = ("single", "keyed", "batch")


@dataclass
class Seen:
    """Answers that the clients received.

    Attributes:
        statuses: by kind of request, how often each.
        wrong: refusals that are not as they should be.
        answered_at: when each kind was last answered, `time.monotonic`.
        refused_at: when each kind was last refused.
    """

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    answered_at: dict[str, float] = field(default_factory=dict)
    refused_at: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, response: httpx.Response) -> None:
        """A client was told something."""
        full = response.status_code == httpx.codes.INSUFFICIENT_STORAGE
        with self.lock:
            self.statuses[kind, response.status_code] += 1
            if response.status_code == httpx.codes.OK:
                self.answered_at[kind] = time.monotonic()
                return
            self.refused_at[kind] = time.monotonic()
            problem = response.headers.get("content-type") == "application/problem+json"
            if not (full and problem and int(response.headers.get("retry-after", 0)) > 0):
                self.wrong.append(
                    f"{kind}: {response.status_code} {dict(response.headers)} {response.text[:300]}"
                )


@dataclass(frozen=True)
class Outcome:
    """Result of the whole run.

    Attributes:
        statuses: how often each kind of request ended with each status.
        wrong: refusals that are no 507 problem with Retry-After, and what else was not as it should
            be.
        back_after: seconds from space to an answer to each kind and a `/ready`, of the slowest
            round.
        started_full: the same, after a start on a full disk.
        kept: what was found in the log at the end.
    """

    statuses: dict[tuple[str, int], int]
    wrong: tuple[str, ...]
    back_after: float
    started_full: float
    kept: Kept

    @property
    def holds(self) -> bool:
        """Whether everybody was told what is the matter, nothing was lost, and all went on by
        itself.
        """
        in_time = max(self.back_after, self.started_full) <= SECONDS_LIMIT
        return not self.wrong and in_time and self.kept.holds and self.kept.acknowledged > 0


def fill_up(site: Site, disk: SmallDisk, rounds: int) -> Outcome:
    """Fill the disk of an API under load, again and again.

    Args:
        site: not running; its API's folder is put on the disk.
        disk: small.
        rounds: how often it is filled and freed before everything is killed.
    """
    site.environment |= {"CREDITRISK_API_DIR": str(disk.folder / "api")}
    site.loop.settings.api_dir = disk.folder / "api"
    told, seen, wrong, back = Told(), Seen(), [], []
    site.start()
    with beside(partial(_ask, site, kind, told, seen) for kind in KINDS):
        _await(seen.answered_at, time.monotonic(), "no answer before the disk was full")
        for _ in range(rounds):
            disk.fill(LEFT_BYTES)
            _await(seen.refused_at, time.monotonic(), "nobody was refused though the disk is full")
            time.sleep(FULL_SECONDS)
            wrong += _while_full(site)
            disk.free()
            freed = time.monotonic()
            _await(seen.answered_at, freed, "no answer after there was space")
            _await_ready(site)
            back.append(time.monotonic() - freed)
        disk.fill(LEFT_BYTES)
        _await(seen.refused_at, time.monotonic(), "nobody was refused though the disk is full")
        site.kill_all()
    disk.fill()
    site.start()
    if not _comes_true(lambda: not site.is_ready()):
        wrong.append("an API that was started on a full disk says that it is ready")
    wrong += _while_full(site)
    disk.free()
    freed = time.monotonic()
    _await_answer(site, told)
    started = time.monotonic() - freed
    retry(site, told)
    site.stop()
    kept = looked_at(site, told, rounds)
    return Outcome(
        dict(seen.statuses), (*wrong, *seen.wrong), round(max(back), 2), round(started, 2), kept
    )


def _while_full(site: Site) -> list[str]:
    ready, alive = (httpx.get(f"{site.url}{path}", timeout=5) for path in ("/ready", "/health"))
    wrong = []
    if ready.status_code != httpx.codes.SERVICE_UNAVAILABLE or "retry-after" not in ready.headers:
        wrong.append(f"/ready on a full disk: {ready.status_code} {ready.text}")
    if alive.status_code != httpx.codes.OK:
        wrong.append(f"/health on a full disk: {alive.status_code} {alive.text}")
    return wrong


def _await(seen: dict[str, float], since: float, problem: str) -> None:
    """Wait until all kinds of request have been seen since a moment."""
    deadline = time.monotonic() + 3 * SECONDS_LIMIT
    while not all(seen.get(kind, 0) > since for kind in KINDS):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{problem}: {[kind for kind in KINDS if seen.get(kind, 0) <= since]}"
            )
        time.sleep(0.02)


def _await_ready(site: Site) -> None:
    deadline = time.monotonic() + 3 * SECONDS_LIMIT
    while not site.is_ready():
        if time.monotonic() > deadline:
            raise TimeoutError("the API is not ready though there is space")
        time.sleep(0.02)


def _await_answer(site: Site, told: Told) -> None:
    """Ask until there is an answer."""
    (customer,) = _customers(site, 1)
    deadline = time.monotonic() + 3 * SECONDS_LIMIT
    while True:
        response = httpx.post(f"{site.url}/predict", json=customer, timeout=10)
        if response.status_code == httpx.codes.OK:
            told.answer(None, response.json())
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"no answer though there is space: {response.text}")
        time.sleep(0.02)


@dataclass(frozen=True)
class StoreOutcome:
    """Result where only the disk of finished segments was full.

    Attributes:
        refused: requests that were not answered meanwhile.
        said: whether the log told of it.
        kept_after: seconds from space until everything was kept.
        kept: what was found at the end.
    """

    refused: int
    said: bool
    kept_after: float
    kept: Kept

    @property
    def holds(self) -> bool:
        """Whether the API went on, it was said, and nothing was lost."""
        return (
            not self.refused
            and self.said
            and self.kept_after <= SECONDS_LIMIT
            and self.kept.holds
            and self.kept.acknowledged > 0
        )


def fill_store(site: Site, disk: SmallDisk) -> StoreOutcome:
    """Fill the disk on which decisions are kept for ever, while the decision log itself has space.

    Args:
        site: not running, without decisions; where they are kept is put on the disk.
        disk: small.
    """
    kept_in = disk.folder / "decisions"
    kept_in.mkdir()
    link = Path(str(site.loop.settings.decisions))
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(kept_in)
    site.environment |= {"CREDITRISK_LIMITS": '{"segment_minutes": 0.005}'}
    told, refused = Told(), 0
    disk.fill()
    site.start()
    with httpx.Client(base_url=site.url, timeout=10) as client:
        for customer in _customers(site, BATCH_ROWS):
            response = client.post("/predict", json=customer)
            if response.status_code == httpx.codes.OK:
                told.answer(None, response.json())
            else:
                refused += 1
    said = _comes_true(lambda: b"decisions_not_archived" in site.log.read_bytes())
    assert not list(kept_in.glob("*/*.json"))
    disk.free()
    freed = time.monotonic()
    _comes_true(lambda: bool(list(kept_in.glob("*/*.json"))))
    kept_after = time.monotonic() - freed
    site.stop()
    return StoreOutcome(refused, said, round(kept_after, 2), looked_at(site, told, 1))


def _comes_true(condition: Callable[[], bool]) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + 2 * SECONDS_LIMIT
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _customers(site: Site, rows: int) -> list[dict[str, Any]]:
    simulated = simulate(rows, 3)[site.loop.settings.portfolio.field_names].to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in simulated]


def _ask(site: Site, kind: str, told: Told, seen: Seen, stop: threading.Event) -> None:
    rows = _customers(site, BATCH_ROWS)
    customers = itertools.cycle(rows)
    keys = (f"key-{number}" for number in itertools.count())
    with httpx.Client(base_url=site.url, timeout=10) as client:
        key, customer = next(keys), next(customers)
        while not stop.is_set():
            try:
                if kind == "batch":
                    response = client.post("/predict/batch", json=rows)
                else:
                    response = client.post(
                        "/predict",
                        json=customer,
                        headers={"Idempotency-Key": key} if kind == "keyed" else {},
                    )
            except httpx.HTTPError:  # every process was killed
                with told.lock:
                    told.unanswered += [(key, customer)] if kind == "keyed" else []
                key, customer = next(keys), next(customers)
                time.sleep(0.02)
                continue
            seen.note(kind, response)
            if response.status_code != httpx.codes.OK:
                time.sleep(0.01)  # and the same again, with the same key
                continue
            answers: list[dict[str, Any]] = (
                response.json() if kind == "batch" else [response.json()]
            )
            for answer in answers:
                if "decision_id" in answer:
                    told.answer(key if kind == "keyed" else None, answer)
            key, customer = next(keys), next(customers)
