"""Champions that change under load.

Two champions take turns, each time with another cut-off, while clients ask for single decisions and
for batches. Every answer names version, bundle and cut-off, and must be what that bundle gives by
that cut-off; once all workers say that they answer by the new champion, no request that is sent
then may be answered by another one. Now and then a champion is named whose bundle has another hash
than it should: it must answer nobody.
"""

import re
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.champions import name_champion
from tests.support.trials.site import Site, beside

SINGLE_CLIENTS = 3
BATCH_CLIENTS = 1
BATCH_ROWS = 40
SECONDS_LIMIT = 5.0
"""Within which all workers must have followed."""

GIVE_UP_SECONDS = 30.0
REFUSED_EACH = 5
"""After so many swaps a champion is named that must be refused."""

CUT_OFF_STEP = 1e-4
SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")


@dataclass(frozen=True)
class Answered:
    """One answer: about which customer, when it was asked and told, `time.monotonic`."""

    customer: int
    asked_at: float
    told_at: float
    answer: dict[str, Any]


@dataclass
class Heard:
    """Answers that the clients received."""

    answers: list[Answered] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Swap:
    """A champion that was named, and when all workers answered by it."""

    record: ChampionRecord
    named_at: float
    followed_at: float

    @property
    def seconds(self) -> float:
        """Until all workers had followed."""
        return self.followed_at - self.named_at


@dataclass(frozen=True)
class Outcome:
    """Result of the whole run.

    Attributes:
        swaps: champions that were named and answered.
        answers: decisions that were told.
        failed: requests without an answer.
        wrong: answers that are not what the bundle gives that they name, or name one that was never
            in force.
        late: answers by a champion before, asked for after all workers had followed.
        slowest: seconds until all workers had followed, of the slowest swap.
        median: of all swaps.
        refused: champions with a wrong hash that were named.
        untold: of them, those that `/ready` or the metrics did not tell of.
        examples: the first of what went wrong.
    """

    swaps: int
    answers: int
    failed: int
    wrong: int
    late: int
    slowest: float
    median: float
    refused: int
    untold: int
    examples: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nobody noticed the swaps but by the version that answers name."""
        clean = not (self.failed or self.wrong or self.late or self.untold)
        return clean and self.answers > 0 and self.slowest <= SECONDS_LIMIT


def swap(
    site: Site, champions: Sequence[ChampionRecord], swaps: int, headers: dict[str, str]
) -> Outcome:
    """Let champions take turns under load.

    Args:
        site: whose API is running by one of them.
        champions: at least two, of different versions.
        swaps: how often.
        headers: of the clients, with a key that may predict and read.
    """
    portfolio = site.loop.settings.portfolio
    customers = [
        {str(name): value for name, value in row.items()}
        for row in simulate(400, 7)[portfolio.field_names].to_dict("records")
    ]
    heard, made, untold, refused = Heard(), [], 0, 0
    named = {_of_record(site.champion())}  # by an answer's own words
    sizes = [1] * SINGLE_CLIENTS + [BATCH_ROWS] * BATCH_CLIENTS
    clients = [
        partial(_ask, site, customers, heard, headers, size, place)
        for place, size in enumerate(sizes)
    ]
    with beside(clients), httpx.Client(base_url=site.url, timeout=10, headers=headers) as client:
        for number in range(swaps):
            champion = champions[(number + 1) % len(champions)]
            cut_off = champion.rule.cut_off + CUT_OFF_STEP * (number + 1)
            record = champion.model_copy(
                update={"rule": champion.rule.model_copy(update={"cut_off": cut_off})}
            )
            named.add(_of_record(record))
            if number % REFUSED_EACH == REFUSED_EACH - 1:
                refused += 1
                untold += not _is_refused_aloud(site, client, record)
            named_at = time.monotonic()
            name_champion(site.loop, record)
            _await_followed(site, client, record)
            made.append(Swap(record, named_at, time.monotonic()))
            time.sleep(0.2)  # in which everybody must be answered by it
    wrong = _wrong(site.bundles, heard.answers, customers, named, champions)
    late = _late(heard.answers, made)
    seconds = sorted(one.seconds for one in made)
    return Outcome(
        swaps=len(made),
        answers=len(heard.answers),
        failed=len(heard.failed),
        wrong=len(wrong),
        late=len(late),
        slowest=round(seconds[-1], 2),
        median=round(seconds[len(seconds) // 2], 2),
        refused=refused,
        untold=untold,
        examples=(*heard.failed[:3], *map(str, wrong[:3]), *map(str, late[:3])),
    )


Named = tuple[str, str, float]
"""Version, hash and cut-off, as an answer names who gave it."""


def _of_record(record: ChampionRecord) -> Named:
    return record.model_version, record.bundle_sha256, record.rule.cut_off


def _of_answer(answer: dict[str, Any]) -> Named:
    return answer["model_version"], answer["bundle_sha256"], answer["cut_off"]


def _ask(
    site: Site,
    customers: list[dict[str, Any]],
    heard: Heard,
    headers: dict[str, str],
    size: int,
    place: int,
    stop: threading.Event,
) -> None:
    path = "/predict" if size == 1 else "/predict/batch"
    with httpx.Client(base_url=site.url, timeout=10, headers=headers) as client:
        while not stop.is_set():
            place = (place + size) % (len(customers) - size)
            asked = customers[place : place + size]
            asked_at = time.monotonic()
            try:
                response = client.post(path, json=asked[0] if size == 1 else asked)
            except httpx.HTTPError as error:
                heard.failed.append(repr(error))
                continue
            told_at = time.monotonic()
            if response.status_code != httpx.codes.OK:
                heard.failed.append(response.text)
                continue
            answers = [response.json()] if size == 1 else response.json()
            heard.answers += [
                Answered(place + row, asked_at, told_at, answer)
                for row, answer in enumerate(answers)
            ]


def metrics(client: httpx.Client) -> dict[tuple[str, str], float]:
    """Metrics of the API, by name and labels."""
    samples = {}
    for line in client.get("/metrics").raise_for_status().text.splitlines():
        if found := SAMPLE.fullmatch(line):
            samples[found[1], found[2] or ""] = float(found[3])
    return samples


def _await_followed(site: Site, client: httpx.Client, record: ChampionRecord) -> None:
    """Wait until every worker says that it answers by a champion, and none by another."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while True:
        by = {
            labels: count
            for (name, labels), count in metrics(client).items()
            if name == "creditrisk_model_info" and count
        }
        if [f'model_version="{record.model_version}"' in labels for labels in by] == [True] and [
            *by.values()
        ] == [site.workers]:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"after {GIVE_UP_SECONDS:g} s not all workers answer by {record.model_version}: "
                f"{by}"
            )
        time.sleep(0.02)


def _is_refused_aloud(site: Site, client: httpx.Client, record: ChampionRecord) -> bool:
    """Name a champion with a wrong hash; whether `/ready`, the gauge and the counter of every
    worker tell of it in time.
    """
    before = metrics(client).get(("creditrisk_champion_refusals_total", ""), 0.0)
    name_champion(site.loop, record.model_copy(update={"bundle_sha256": "0" * 64}))
    deadline = time.monotonic() + SECONDS_LIMIT
    while time.monotonic() < deadline:
        told = metrics(client)
        counted = told.get(("creditrisk_champion_refusals_total", ""), 0.0) - before >= site.workers
        if counted and told.get(("creditrisk_champion_problem", "")) == 1:
            ready = client.get("/ready")
            return ready.status_code == httpx.codes.OK and "cannot read" in (
                ready.json()["problem"] or ""
            )
        time.sleep(0.05)
    return False


def _wrong(
    store: BundleStore,
    answers: list[Answered],
    customers: list[dict[str, Any]],
    named: set[Named],
    records: Sequence[ChampionRecord],
) -> list[Answered]:
    """Answers that are not what the bundle gives that they name."""
    wrong = []
    places = {record.bundle_sha256: record for record in records}
    bundles = {sha256: store.load(sha256) for sha256 in places}
    by_champion: dict[Named, list[Answered]] = defaultdict(list)
    for one in answers:
        by_champion[_of_answer(one.answer)].append(one)
    for champion, told in by_champion.items():
        if champion not in named:
            wrong += told
            continue
        _, sha256, cut_off = champion
        bundle = bundles[sha256]
        rule = places[sha256].rule.model_copy(update={"cut_off": cut_off})
        decided = bundle.decide(bundle.encoder(customers), rule)
        codes = bundle.reason_codes(decided)
        for one in told:
            expected = (
                int(decided.prediction[one.customer]),
                float(decided.default_probability[one.customer]),
                float(decided.score[one.customer]),
                list(codes[one.customer]),
            )
            answer = one.answer
            given = [reason["code"] for reason in answer["reasons"]]
            if expected != (
                answer["prediction"],
                answer["default_probability"],
                answer["score"],
                given,
            ):
                wrong.append(one)
    return wrong


def _late(answers: list[Answered], swaps: list[Swap]) -> list[Answered]:
    """Answers that were asked for after all workers had followed, and told before the next champion
    was named, by another one.
    """
    late = []
    for made, after in zip(swaps, [*swaps[1:], None], strict=True):
        end = float("inf") if after is None else after.named_at
        wanted = _of_record(made.record)
        late += [
            one
            for one in answers
            if made.followed_at < one.asked_at < one.told_at < end
            and _of_answer(one.answer) != wanted
        ]
    return late
