"""Decisions left after crashes.

In each round clients ask for decisions, some with an idempotency key, until at a random moment one
worker, or every process at once, is killed; then the API is started again and requests without an
answer are sent again with the same key. At the end every acknowledged decision must be in the log
with the numbers that were told, no key may have two decisions, and every logged decision must come
out of its bundle again to the bit.
"""

import json
import random
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import pyarrow.parquet as pq

from creditrisk_assets.decisions.archive import ApiDecisions, archive_finished
from creditrisk_assets.decisions.replay import replay_set
from creditrisk_assets.decisions.sets import days_with_decisions, sets_of, verified_file
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import Settings, today
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.trials.site import Site

CLIENTS = 6
KEYED_SHARE = 0.3
ROUND_SECONDS = (0.3, 1.5)


@dataclass
class Told:
    """Answers that the clients received.

    Attributes:
        answers: by decision id.
        by_key: decision ids by idempotency key.
        unanswered: requests with a key that got no answer: key and customer.
        other: status and text of answers that are neither an answer nor "come again".
    """

    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    by_key: dict[str, set[str]] = field(default_factory=dict)
    unanswered: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)
    twice: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, key: str | None, answer: dict[str, Any]) -> None:
        """Add a decision that a client received."""
        with self.lock:
            known = self.answers.setdefault(answer["decision_id"], answer)
            self.twice += known != answer
            if key is not None:
                self.by_key.setdefault(key, set()).add(answer["decision_id"])


@dataclass(frozen=True)
class Outcome:
    """Faults found at the end; all but `rounds`, `acknowledged` and `logged` should be 0."""

    rounds: int
    acknowledged: int
    logged: int
    missing: int
    otherwise: int
    keys_with_two_decisions: int
    not_replayed: int
    other_answers: dict[str, int]

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled or wrong."""
        return not (
            self.missing
            or self.otherwise
            or self.keys_with_two_decisions
            or self.not_replayed
            or self.other_answers
        )


def crash(site: Site, rounds: int, seed: int) -> Outcome:
    """Crash an API again and again.

    Args:
        site: not running; with several workers one of them is killed in every second round, else
            all processes.
        rounds: how often.
        seed: of the moments and victims.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    portfolio = site.loop.settings.portfolio
    customers = simulate(500, seed)[portfolio.field_names].to_dict("records")
    told = Told()
    for number in range(rounds):
        site.start()
        retry(site, told)
        stop = threading.Event()
        clients = [
            threading.Thread(target=_ask, args=(site, customers, told, stop, rng.random()))
            for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        time.sleep(rng.uniform(*ROUND_SECONDS))
        if site.workers > 1 and number % 2 == 0:
            site.kill(rng.choice(site.answering()))
            time.sleep(rng.uniform(*ROUND_SECONDS))
        site.kill_all()
        stop.set()
        for client in clients:
            client.join()
    site.start()
    retry(site, told)
    site.stop()
    return looked_at(site, told, rounds)


def _ask(
    site: Site, customers: list[dict[str, Any]], told: Told, stop: threading.Event, seed: float
) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    with httpx.Client(base_url=site.url, timeout=10) as client:
        while not stop.is_set():
            key = uuid.UUID(int=rng.getrandbits(128)).hex if rng.random() < KEYED_SHARE else None
            customer = rng.choice(customers)
            try:
                response = client.post(
                    "/predict", json=customer, headers={"Idempotency-Key": key} if key else {}
                )
            except httpx.HTTPError:
                if key is not None:
                    with told.lock:
                        told.unanswered.append((key, customer))
                time.sleep(0.02)
                continue
            _note(told, key, customer, response)


def _note(told: Told, key: str | None, customer: dict[str, Any], response: httpx.Response) -> None:
    if response.status_code == httpx.codes.OK:
        told.answer(key, response.json())
        return
    with told.lock:
        if key is not None:
            told.unanswered.append((key, customer))
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            told.other[f"{response.status_code} {response.text:.200}"] += 1


def retry(site: Site, told: Told) -> None:
    """Send what got no answer again, twice: the second answer must be the first one."""
    waiting, told.unanswered = told.unanswered, []
    with httpx.Client(base_url=site.url, timeout=30) as client:
        for key, customer in waiting * 2:
            response = client.post("/predict", json=customer, headers={"Idempotency-Key": key})
            _note(told, key, customer, response)


@dataclass
class Logged:
    """Decisions of a store's logs.

    Attributes:
        answers: by decision id.
        keys: decisions by idempotency key.
        not_replayed: decisions that do not come out again.
    """

    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: Counter[str] = field(default_factory=Counter)
    not_replayed: int = 0


def looked_at(site: Site, told: Told, rounds: int) -> Outcome:
    """Hold what the clients were told against the log of a site that has been stopped."""
    archive(site.loop.settings)
    return hold_against(told, logged_in(site.loop.settings), rounds)


def archive(settings: Settings) -> None:
    """Archive the decisions of an API that has been stopped."""
    live = ApiDecisions.of(settings)
    archived = archive_finished(live, live.index(settings.idempotency_file), today())
    if archived.problems:
        raise RuntimeError(f"decisions could not be archived: {archived.problems}")


def logged_in(settings: Settings) -> Logged:
    """The archived decisions of a store."""
    logged = Logged()
    for day in days_with_decisions(settings.decisions):
        for decisions in sets_of(settings.decisions, day):
            if decisions.segment is None:  # of a day's file
                continue
            replayed = replay_set(settings.decisions, BundleStore(settings.data_dir), decisions)
            logged.not_replayed += 0 if replayed.exact else max(replayed.different, 1)
            with verified_file(settings.decisions, decisions).open("rb") as file:
                for row in pq.read_table(file).to_pylist():
                    logged.answers[row["decision_id"]] = json.loads(row["answer"])
                    logged.keys[row["idempotency_key"] or row["decision_id"]] += 1
    return logged


def hold_against(told: Told, logged: Logged, rounds: int) -> Outcome:
    """Compare what the clients were told with what was logged."""
    answers = logged.answers
    missing = [known for known in told.answers if known not in answers]
    otherwise = [
        known for known, answer in told.answers.items() if answers.get(known, answer) != answer
    ]
    several = sum(len(known) > 1 for known in told.by_key.values()) + sum(
        count > 1 for count in logged.keys.values()
    )
    return Outcome(
        rounds=rounds,
        acknowledged=len(told.answers),
        logged=len(answers),
        missing=len(missing),
        otherwise=len(otherwise) + told.twice,
        keys_with_two_decisions=several,
        not_replayed=logged.not_replayed,
        other_answers=dict(told.other),
    )
