"""Callers of several replicas, and the comparison of their answers with what the store has."""

import random
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from creditrisk_assets.governance.ledger import Ledger
from creditrisk_assets.internal_http import direct_client
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.settings import Settings
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.trials.crashes import Told, hold_against, logged_in

CALLERS = 4
PAUSE_SECONDS = 0.05
"""Between two requests of a caller: some fifty a second for all, which leaves the processors to the
rest.
"""
NEW_KEY_SHARE, OLD_KEY_SHARE = 0.4, 0.2
"""Of the requests that have a new key, and that repeat one which was answered; others have none."""
GIVE_UP_SECONDS = 120.0
KEY = re.compile("'[0-9a-f]{32}'")


@dataclass(frozen=True)
class Request:
    """A request with a key."""

    key: str
    customer: dict[str, Any]


@dataclass
class Callers:
    """Callers that send each request to any replica, and those with a key to another one until they
    are answered.

    Attributes:
        urls: addresses of the replicas.
        answers: as they came.
        refused: attempts that were not answered with 200, by phase and reason.
        unanswered: requests with a key that never were.
        asked_at: time of the request of each decision, in seconds since the epoch.
        answered_by: address of the replica that gave a decision first.
        replays: requests that repeated an answered key.
        phase: name of the present phase.
        last: time of the last new decision, in seconds since the epoch.
        longest: seconds between two answers, at most.
    """

    urls: Sequence[str]
    seed: int = 1
    answers: Told = field(default_factory=Told)
    refused: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    asked_at: dict[str, float] = field(default_factory=dict)
    answered_by: dict[str, str] = field(default_factory=dict)
    replays: int = 0
    phase: str = ""
    last: float = field(default_factory=time.time)
    longest: float = 0.0
    _answered: list[Request] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Within it, the callers are at work."""
        customers = simulate(500, self.seed)[PORTFOLIO.field_names].to_dict("records")
        self.last = time.time()
        threads = [
            threading.Thread(target=self._call, args=(customers, self.seed * CALLERS + number))
            for number in range(CALLERS)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _call(self, customers: list[dict[str, Any]], seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - no secret
        with ExitStack() as stack:
            clients = [
                stack.enter_context(direct_client(base_url=url, timeout=10)) for url in self.urls
            ]
            while not self._stop.wait(PAUSE_SECONDS):
                draw = rng.random()
                if draw < OLD_KEY_SHARE and self._answered:
                    self.replays += 1
                    self._ask_until_answered(clients, rng.choice(self._answered), rng)
                elif draw < OLD_KEY_SHARE + NEW_KEY_SHARE:
                    key = uuid.UUID(int=rng.getrandbits(128)).hex
                    request = Request(key, rng.choice(customers))
                    if self._ask_until_answered(clients, request, rng):
                        self._answered.append(request)
                else:
                    self._ask(rng.choice(clients), rng.choice(customers), None)

    def _ask_until_answered(
        self, clients: list[httpx.Client], request: Request, rng: random.Random
    ) -> bool:
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while not self._ask(rng.choice(clients), request.customer, request.key):
            if time.monotonic() > give_up:
                self.unanswered += 1
                return False
            time.sleep(PAUSE_SECONDS)
        return True

    def _ask(self, client: httpx.Client, customer: dict[str, Any], key: str | None) -> bool:
        headers = {"Idempotency-Key": key} if key else {}
        asked_at = time.time()
        try:
            answer = client.post("/predict", json=customer, headers=headers)
        except httpx.HTTPError as error:
            self._refuse(type(error).__name__)
            return False
        if answer.status_code != httpx.codes.OK:
            detail = KEY.sub("<key>", answer.json().get("detail", ""))
            self._refuse(f"{answer.status_code} {detail}")
            return False
        found = answer.json()
        self.answers.answer(key, found)
        with self.answers.lock:
            if found["decision_id"] not in self.asked_at:
                now = time.time()
                self.asked_at[found["decision_id"]] = asked_at
                self.answered_by[found["decision_id"]] = str(client.base_url)
                self.longest, self.last = max(self.longest, now - self.last), now
        return True

    def _refuse(self, reason: str) -> None:
        with self.answers.lock:
            self.refused[f"{self.phase}: {reason}"] += 1


@dataclass(frozen=True)
class Comparison:
    """The answers held against the store; all but the first two should be 0.

    Attributes:
        acknowledged: decisions that callers were given.
        replayed: decisions in the store's archive, each computed again.
        missing: acknowledged and not in the archive.
        otherwise: with other numbers there, or in a repeated answer.
        doubled_keys: keys with two decisions.
        not_replayed: that do not come out of their bundles to the bit.
        wrong_versions: by a version and cut-off that the ledger did not have in force, or that it
            had replaced long before the request.
        unanswered: requests with a key that were never answered.
    """

    acknowledged: int
    replayed: int
    missing: int
    otherwise: int
    doubled_keys: int
    not_replayed: int
    wrong_versions: int
    unanswered: int

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled or wrong."""
        return self.acknowledged > 0 and not any(
            (
                *(self.missing, self.otherwise, self.doubled_keys),
                *(self.not_replayed, self.wrong_versions, self.unanswered),
            )
        )

    @property
    def table(self) -> str:
        """A Markdown table of one row."""
        heads = (
            *("acknowledged", "replayed", "missing", "otherwise", "keys with two decisions"),
            *("not replayed", "wrong versions", "keys never answered"),
        )
        values = (
            *(self.acknowledged, self.replayed, self.missing, self.otherwise, self.doubled_keys),
            *(self.not_replayed, self.wrong_versions, self.unanswered),
        )
        rule = "|---" * len(heads) + "|"
        return f"| {' | '.join(heads)} |\n{rule}\n| {' | '.join(f'{one:,}' for one in values)} |"


def compare(
    callers: Callers, settings: Settings, expected: Callable[[str], bool], follow_seconds: float
) -> tuple[Comparison, set[str]]:
    """Hold the answers against the archive and the ledger of a store whose replicas have ended.
    Their decisions are archived.

    Args:
        callers: that have ended.
        settings: of the store.
        expected: True for the id of a decision that must be there.
        follow_seconds: in which a replica must answer by the next champion.

    Returns:
        The comparison, and the ids of the archived decisions.
    """
    every = callers.answers
    chosen = Told(
        answers={known: answer for known, answer in every.answers.items() if expected(known)},
        by_key={key: {*filter(expected, known)} for key, known in every.by_key.items()},
        twice=every.twice,
    )
    logged = logged_in(settings)
    found = hold_against(chosen, logged, 0)
    comparison = Comparison(
        acknowledged=found.acknowledged,
        replayed=found.logged,
        missing=found.missing,
        otherwise=found.otherwise,
        doubled_keys=found.keys_with_two_decisions,
        not_replayed=found.not_replayed,
        wrong_versions=_wrong_versions(callers, chosen, settings, follow_seconds),
        unanswered=callers.unanswered,
    )
    return comparison, {*logged.answers}


def _wrong_versions(
    callers: Callers, chosen: Told, settings: Settings, follow_seconds: float
) -> int:
    """Decisions by a champion that was not in force."""
    entries = Ledger(settings.ledger).entries()
    spans: dict[tuple[str, str, float], list[tuple[float, float]]] = {}
    for number, entry in enumerate(entries):
        after = entry.after
        end = entries[number + 1].at.timestamp() if number + 1 < len(entries) else float("inf")
        place = (after.model_version, after.bundle_sha256, after.rule.cut_off)
        spans.setdefault(place, []).append((entry.at.timestamp(), end + follow_seconds))
    return sum(
        not any(
            begin <= callers.asked_at[known] + follow_seconds and callers.asked_at[known] <= end
            for begin, end in spans.get(
                (answer["model_version"], answer["bundle_sha256"], answer["cut_off"]), []
            )
        )
        for known, answer in chosen.answers.items()
    )
