"""Which failed checks a person is told of, and when: episodes of alarms, as a pure function of the
checks' evaluations.

An alarm that persists is one episode: it is told when it starts, when it becomes more urgent, again
    after some days, and when it
ends. Days are days of data where the check judges a day, and days of the calendar where it judges
the loop itself.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from typing import Any

from creditrisk_assets.monitoring.check_catalogue import BY_CHECK, Tier

URGENCY = (Tier.NOTE, Tier.TODAY, Tier.PAGE)
STALE_SECONDS = 24 * 3600
"""An observer that has been silent for so long no longer says that an alarm goes on."""

LOOP = "loop"


class Kind(StrEnum):
    """Why a person is told."""

    STARTED = "started"
    RAISED = "raised"
    REMINDER = "reminder"
    RESOLVED = "resolved"


@dataclass(frozen=True)
class Reading:
    """One evaluation of one check.

    Attributes:
        identity: names the evaluation for ever.
        asset: that the check is on.
        check: its name.
        day: the day that it judges, or on which it was made, `YYYY-MM-DD`.
        partition: the day that it judges; None if it judges none.
        passed: whether it held.
        severity: `WARN` or `ERROR`.
        at: when it was made, in seconds since the epoch.
        metadata: what it says of itself.
        run_id: the Dagster run that made it; empty if none did.
        observer: who looked: the loop itself, or somebody outside of it.
    """

    identity: str
    asset: str
    check: str
    day: str
    partition: str | None
    passed: bool
    severity: str
    at: float
    metadata: Mapping[str, Any]
    run_id: str = ""
    observer: str = LOOP

    @property
    def tier(self) -> Tier:
        """How soon a person must look: as the evaluation says, or the table, or a note."""
        said = self.metadata.get("tier")
        if said in set(Tier):
            return Tier(said)
        watch = BY_CHECK.get(self.check)
        return watch.tier if watch else Tier.NOTE

    @property
    def model_version(self) -> str | None:
        """The version that it judged."""
        version = self.metadata.get("model_version")
        return None if version is None else str(version)


@dataclass(frozen=True)
class Episode:
    """An alarm that goes on.

    Attributes:
        identity: of the episode; the messages of one episode share it.
        asset: that the check is on.
        check: its name.
        model_version: that is judged.
        tier: the most urgent so far.
        first_seen: when it began, in seconds since the epoch.
        told: the day on which a person was told last.
        failures: how many evaluations have failed.
        latest_day: the latest day that failed.
        failing: for each observer that says so, when it last did.
    """

    identity: str
    asset: str
    check: str
    model_version: str | None
    tier: Tier
    first_seen: float
    told: str
    failures: int
    latest_day: str
    failing: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Message:
    """What is sent: an identity by which a receiver knows what it has had already, the episode's,
    and the text as JSON has it.
    """

    identity: str
    episode: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Links:
    """Where a person can look: the Dagster UI, if its address is known, and the API with the
    reports.
    """

    dagster: str | None
    api: str


def advance(
    episodes: Mapping[tuple[str, str], Episode],
    readings: Iterable[Reading],
    reminder_days: int,
    links: Links,
) -> tuple[dict[tuple[str, str], Episode], list[Message]]:
    """Take notice of new evaluations.

    Args:
        episodes: that go on, by asset and check.
        readings: evaluations that were not taken notice of before, in any order.
        reminder_days: days after which a person is told again of an alarm that goes on; 0: never.
        links: where a person can look.

    Returns:
        The episodes that go on now, and what is to be sent, in order.
    """
    going_on, messages = dict(episodes), []
    for reading in sorted(readings, key=lambda one: (one.at, one.identity)):
        key = (reading.asset, reading.check)
        episode = going_on.get(key)
        if episode is not None and reading.model_version not in (None, episode.model_version):
            if reading.day >= episode.latest_day:
                messages.append(_message(Kind.RESOLVED, episode, reading, links))
                del going_on[key]
                episode = None
            elif reading.passed:
                continue
        if reading.passed:
            if episode is None or reading.day < episode.latest_day:
                continue
            failing = {
                who: at
                for who, at in episode.failing.items()
                if who != reading.observer and reading.at - at < STALE_SECONDS
            }
            if failing:
                going_on[key] = replace(episode, failing=failing)
            else:
                del going_on[key]
                messages.append(_message(Kind.RESOLVED, episode, reading, links))
            continue
        kind, told = _judged(episode, reading, reminder_days)
        going_on[key] = told
        if kind is not None:
            messages.append(_message(kind, told, reading, links))
    return going_on, messages


def _judged(
    episode: Episode | None, reading: Reading, reminder_days: int
) -> tuple[Kind | None, Episode]:
    """What a failure makes of an episode, and whether a person is told."""
    if episode is None:
        started = Episode(
            identity=_digest("episode", reading.asset, reading.check, reading.identity),
            asset=reading.asset,
            check=reading.check,
            model_version=reading.model_version,
            tier=reading.tier,
            first_seen=reading.at,
            told=reading.day,
            failures=1,
            latest_day=reading.day,
            failing={reading.observer: reading.at},
        )
        return Kind.STARTED, started
    kind = None
    if URGENCY.index(reading.tier) > URGENCY.index(episode.tier):
        kind = Kind.RAISED
    elif (
        reminder_days
        and (date.fromisoformat(reading.day) - date.fromisoformat(episode.told)).days
        >= reminder_days
    ):
        kind = Kind.REMINDER
    told = replace(
        episode,
        tier=max(episode.tier, reading.tier, key=URGENCY.index),
        told=reading.day if kind else episode.told,
        failures=episode.failures + 1,
        latest_day=max(episode.latest_day, reading.day),
        failing={**episode.failing, reading.observer: reading.at},
    )
    return kind, told


def _message(kind: Kind, episode: Episode, reading: Reading, links: Links) -> Message:
    """A message; its identity depends on nothing but what it tells of, so that nobody makes two of
    it.
    """
    identity = _digest(kind, episode.identity, reading.identity)
    watch = BY_CHECK.get(reading.check)
    said = reading.metadata
    body = {
        "id": identity,
        "kind": kind.value,
        "episode": episode.identity,
        "asset": reading.asset,
        "check": reading.check,
        "partition": reading.partition,
        "tier": episode.tier.value,
        "severity": reading.severity,
        "summary": _plain(said.get("summary")),
        "observed": _plain(said.get("observed")),
        "threshold": _plain(said.get("threshold")),
        "rows": _plain(said.get("rows")),
        "question": watch.question if watch else None,
        "action": _plain(said.get("action")) or (watch.action if watch else None),
        "model_version": reading.model_version or episode.model_version,
        "evaluation": reading.identity,
        "evaluated_at": reading.at,
        "first_seen": episode.first_seen,
        "failures": episode.failures,
        "observer": reading.observer,
        "run_url": f"{links.dagster}/runs/{reading.run_id}"
        if links.dagster and reading.run_id
        else None,
        "report_url": f"{links.api}/reports/drift/{reading.partition}"
        if reading.asset == "drift_report"
        else None,
    }
    return Message(identity, episode.identity, body)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
