"""Replicas of the API on one store under load, of which one is killed again and again while champions change.

Clients send each request to any replica, many with an idempotency key, and what got no answer to
another one with the same key. At the end every acknowledged decision must be in the log of one
replica as it was told, no key may have two decisions, and every logged decision must come out of
its champion's bundle again to the bit.
"""

import random
import threading
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from creditrisk_assets import database
from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.champions import name_champion
from tests.support.trials.crashes import Outcome, Told, archive, hold_against, logged_in
from tests.support.trials.site import Site

CLIENTS = 6
KEYED_SHARE = 0.5
PAUSE_SECONDS = 0.05
RETRIES_LIMIT = 600


@dataclass(frozen=True)
class Load:
    """How long, how many acknowledged decisions at least, and how many promotions meanwhile."""

    decisions: int
    promotions: int
    kill_seconds: float
    seed: int


def replicas_of(site: Site, database_url: str, count: int) -> list[Site]:
    """Replicas of a site's API, each with a folder of its own, on the site's store and a database."""
    database.prepare(database_url)
    replicas = []
    for number in range(count):
        folder = site.loop.home / f"replica-{number}"
        environment = {
            "CREDITRISK_DATABASE_URL": database_url,
            "CREDITRISK_API_DIR": str(folder),
            "CREDITRISK_RATE_LIMIT": "0",
        }
        replicas.append(Site(site.loop, environment=environment))
    return replicas


def run(replicas: list[Site], load: Load) -> Outcome:
    """Load the replicas, kill one of them every few seconds, and move the champion."""
    rng = random.Random(load.seed)  # noqa: S311 - no secret
    customers = simulate(500, load.seed)[replicas[0].loop.settings.portfolio.field_names]
    told, stop = Told(), threading.Event()
    with ExitStack() as stack:
        for replica in replicas:
            replica.start()
            stack.callback(replica.stop)
        records = customers.to_dict("records")
        clients = [
            threading.Thread(target=_ask, args=(replicas, records, told, stop, rng.random()))
            for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        moves, kills = 0, 0
        first = replicas[0].champion()
        while len(told.answers) < load.decisions or moves < load.promotions:
            time.sleep(load.kill_seconds)
            if moves < load.promotions:
                moves += 1
                _promote(replicas[0], first, moves)
            victim = rng.choice(replicas)
            victim.kill_all()
            kills += 1
            victim.start()
        stop.set()
        for client in clients:
            client.join()
    settings = replicas[0].loop.settings
    for replica in replicas:
        archive(settings.model_copy(update={"api_dir": _folder(replica)}))
    return hold_against(told, logged_in(settings), kills)


def _folder(replica: Site) -> Path:
    return Path(replica.environment["CREDITRISK_API_DIR"])


def _promote(site: Site, first: ChampionRecord, number: int) -> None:
    """The same bundle under another version and cut-off."""
    rule = first.rule.model_copy(update={"cut_off": 0.1 + 0.02 * number})
    changed = {"model_version": str(number + 1), "rule": rule}
    name_champion(site.loop, first.model_copy(update=changed))


def _ask(
    replicas: list[Site],
    customers: list[dict[str, Any]],
    told: Told,
    stop: threading.Event,
    seed: float,
) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    with ExitStack() as stack:
        clients = [
            stack.enter_context(httpx.Client(base_url=replica.url, timeout=10))
            for replica in replicas
        ]
        while not stop.is_set():
            key = uuid.UUID(int=rng.getrandbits(128)).hex if rng.random() < KEYED_SHARE else None
            _ask_until_answered(clients, rng.choice(customers), key, told, rng)


def _ask_until_answered(
    clients: list[httpx.Client],
    customer: dict[str, Any],
    key: str | None,
    told: Told,
    rng: random.Random,
) -> None:
    """Ask one replica after the other; without a key only once."""
    headers = {"Idempotency-Key": key} if key else {}
    for _ in range(RETRIES_LIMIT if key else 1):
        try:
            response = rng.choice(clients).post("/predict", json=customer, headers=headers)
        except httpx.HTTPError:
            time.sleep(PAUSE_SECONDS)
            continue
        if response.status_code == httpx.codes.OK:
            told.answer(key, response.json())
            return
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            with told.lock:
                told.other[f"{response.status_code} {response.text:.200}"] += 1
        time.sleep(PAUSE_SECONDS)
    if key:
        with told.lock:
            told.other["no answer at all"] += 1
