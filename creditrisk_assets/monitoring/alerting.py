"""Alert messages from the checks' evaluations, as a pure function. Storing and sending them belongs
in `alert_outbox`.

An alarm that persists is one episode. A message is due when it starts, when it becomes more urgent,
as a reminder after some days, and when it ends. Days are days of data for a check that judges a
day, and calendar days for a check of the loop.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from typing import Any, NamedTuple

from creditrisk_assets.monitoring.check_catalogue import BY_CHECK, Tier, Watch
from creditrisk_assets.monitoring.episodes import EpisodeRecord, Reaction, joined

URGENCY = (Tier.NOTE, Tier.TODAY, Tier.PAGE)
STALE_SECONDS = 24 * 3600
"""An alarm does not stay open for an observer that has been silent for so long."""

LOOP = "loop"


class Kind(StrEnum):
    """The reason for a message."""

    STARTED = "started"
    RAISED = "raised"
    REMINDER = "reminder"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


@dataclass(frozen=True)
class Reading:
    """An evaluation of a check.

    Attributes:
        identity: unique name of the evaluation.
        asset: asset of the check.
        check: its name.
        day: the day that it judges, or on which it was made, `YYYY-MM-DD`.
        partition: the day that it judges; None if it judges none.
        passed: whether the check passed.
        severity: `WARN` or `ERROR`.
        at: time of the evaluation, in seconds since the epoch.
        metadata: of the evaluation.
        run_id: the Dagster run that made it; empty if none did.
        observer: the loop itself, or the external health watch.
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
        """The tier of the evaluation, else of the check, else a note."""
        tier = self.metadata.get("tier")
        if tier in set(Tier):
            return Tier(tier)
        watch = BY_CHECK.get(self.check)
        return watch.tier if watch else Tier.NOTE

    @property
    def model_version(self) -> str | None:
        """The judged version."""
        version = self.metadata.get("model_version")
        return None if version is None else str(version)


@dataclass(frozen=True)
class Episode:
    """An open alarm.

    Attributes:
        identity: shared by the messages of the episode.
        asset: asset of the check.
        check: its name.
        model_version: the judged version.
        tier: the most urgent so far.
        first_seen: start, in seconds since the epoch.
        message_day: day of the last message.
        failures: number of failed evaluations.
        latest_day: the latest day that failed.
        last_failure: time of the last failure by observer.
        opened_day: the day that failed first.
        failure: what is wrong, with the figures of the latest failure.
        run_id: the Dagster run of the latest failure; empty if none made it.
        reactions: of people, the first one first.
    """

    identity: str
    asset: str
    check: str
    model_version: str | None
    tier: Tier
    first_seen: float
    message_day: str
    failures: int
    latest_day: str
    last_failure: Mapping[str, float] = field(default_factory=dict)
    opened_day: str = ""
    failure: str = ""
    run_id: str = ""
    reactions: tuple[Reaction, ...] = ()

    def is_silenced(self, at: float) -> bool:
        """True if a person has acknowledged it, or its snooze has not ended at a time."""
        return any(
            one.kind == "acknowledge" or (one.until is not None and one.until > at)
            for one in self.reactions
        )

    @property
    def record(self) -> EpisodeRecord:
        """The episode for people. One of a release that did not note day and failure has the day of
        its last message, and the failure without figures.
        """
        watch = BY_CHECK.get(self.check)
        return EpisodeRecord(
            id=self.identity,
            asset=self.asset,
            check=self.check,
            failure=self.failure or (watch.failure if watch else self.check),
            tier=self.tier.value,
            model_version=self.model_version,
            opened_at=self.first_seen,
            opened_day=self.opened_day or min(self.message_day, self.latest_day),
            latest_day=self.latest_day,
            failures=self.failures,
            run_id=self.run_id or None,
            reactions=self.reactions,
        )


@dataclass(frozen=True)
class Message:
    """A message: its identity, by which a receiver recognises a repeat, that of its episode, and
    the JSON body.
    """

    identity: str
    episode: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Links:
    """Addresses of the Dagster UI, None if unknown, and of the API, which serves the reports."""

    dagster: str | None
    api: str


class Advance(NamedTuple):
    """The effect of new evaluations: the episodes that are open now by asset and check, the
    messages in order, and the episodes that were closed.
    """

    episodes: dict[tuple[str, str], Episode]
    messages: list[Message]
    closed: list[EpisodeRecord]


def advance(
    episodes: Mapping[tuple[str, str], Episode],
    readings: Iterable[Reading],
    reminder_days: int,
    links: Links,
) -> Advance:
    """Apply new evaluations to the open episodes.

    Args:
        episodes: open ones, by asset and check.
        readings: new evaluations, in any order.
        reminder_days: days between reminders of an open alarm; 0: none.
        links: for the messages.
    """
    open_episodes, messages = dict(episodes), list[Message]()
    closed = list[EpisodeRecord]()

    def close(episode: Episode, reading: Reading) -> None:
        del open_episodes[episode.asset, episode.check]
        messages.append(_message(Kind.RESOLVED, episode, reading, links))
        closed.append(_closed(episode, reading))

    for reading in sorted(readings, key=lambda reading: (reading.at, reading.identity)):
        key = (reading.asset, reading.check)
        episode = open_episodes.get(key)
        if episode is not None and reading.model_version not in (None, episode.model_version):
            if reading.day >= episode.latest_day:
                close(episode, reading)
                episode = None
            elif reading.passed:
                continue
        if reading.passed:
            if episode is None or reading.day < episode.latest_day:
                continue
            last_failure = {
                observer: at
                for observer, at in episode.last_failure.items()
                if observer != reading.observer and reading.at - at < STALE_SECONDS
            }
            if last_failure:
                open_episodes[key] = replace(episode, last_failure=last_failure)
            else:
                close(episode, reading)
            continue
        kind, failed = _with_failure(episode, reading, reminder_days)
        open_episodes[key] = failed
        if kind is not None:
            messages.append(_message(kind, failed, reading, links))
    return Advance(open_episodes, messages, closed)


def with_reactions(
    episodes: Mapping[tuple[str, str], Episode],
    reactions: Mapping[str, Sequence[Reaction]],
    links: Links,
) -> tuple[dict[tuple[str, str], Episode], list[Message]]:
    """The open episodes with new reactions of people.

    Args:
        episodes: open ones, by asset and check.
        reactions: new and known ones, by episode.
        links: for the messages.

    Returns:
        The episodes, and a message for each that is acknowledged now for the first time.
    """
    reacted, messages = dict(episodes), []
    for key, episode in episodes.items():
        if not reactions.get(episode.identity):
            continue
        after = replace(episode, reactions=joined(episode.reactions, reactions[episode.identity]))
        reacted[key] = after
        first = after.record.acknowledgement
        if first is not None and episode.record.acknowledgement is None:
            messages.append(_acknowledgement(after, first, links))
    return reacted, messages


def _with_failure(
    episode: Episode | None, reading: Reading, reminder_days: int
) -> tuple[Kind | None, Episode]:
    """The episode after a failure, and the kind of message that is due, if any."""
    if episode is None:
        started = Episode(
            identity=_digest("episode", reading.asset, reading.check, reading.identity),
            asset=reading.asset,
            check=reading.check,
            model_version=reading.model_version,
            tier=reading.tier,
            first_seen=reading.at,
            message_day=reading.day,
            failures=1,
            latest_day=reading.day,
            last_failure={reading.observer: reading.at},
            opened_day=reading.day,
            failure=_failure(reading),
            run_id=reading.run_id,
        )
        return Kind.STARTED, started
    kind = None
    if URGENCY.index(reading.tier) > URGENCY.index(episode.tier):
        kind = Kind.RAISED
    elif (
        reminder_days
        and not episode.is_silenced(reading.at)
        and (date.fromisoformat(reading.day) - date.fromisoformat(episode.message_day)).days
        >= reminder_days
    ):
        kind = Kind.REMINDER
    failed = replace(
        episode,
        tier=max(episode.tier, reading.tier, key=URGENCY.index),
        message_day=reading.day if kind else episode.message_day,
        failures=episode.failures + 1,
        latest_day=max(episode.latest_day, reading.day),
        last_failure={**episode.last_failure, reading.observer: reading.at},
    )
    if reading.day >= episode.latest_day:
        failed = replace(failed, failure=_failure(reading), run_id=reading.run_id)
    return kind, failed


def _failure(reading: Reading) -> str:
    """The words for a failed evaluation, with its figures."""
    watch, summary = BY_CHECK.get(reading.check), reading.metadata.get("summary")
    if watch is not None:
        return watch.failure_summary(summary)
    return reading.check if summary is None else str(summary)


def _closed(episode: Episode, reading: Reading) -> EpisodeRecord:
    """The record of an episode that an evaluation closes."""
    if reading.passed:
        summary = reading.metadata.get("summary")
        figures = f": {summary}" if summary else ""
        closed_by = f"the check passed on {reading.day}{figures}"
    else:
        closed_by = f"version {reading.model_version} is judged since {reading.day}"
    closing = {
        "closed_at": reading.at,
        "closed_by": closed_by,
        "closed_run_id": reading.run_id or None,
    }
    return episode.record.model_copy(update=closing)


def _message(kind: Kind, episode: Episode, reading: Reading, links: Links) -> Message:
    """A message. Its identity is a digest of its subject, so the same message has the same
    identity.
    """
    identity = _digest(kind, episode.identity, reading.identity)
    watch = BY_CHECK.get(reading.check)
    metadata = reading.metadata
    body = {
        "id": identity,
        "kind": kind.value,
        "episode": episode.identity,
        "asset": reading.asset,
        "check": reading.check,
        "partition": reading.partition,
        "tier": episode.tier.value,
        "severity": reading.severity,
        "failure": watch.failure if watch else None,
        "summary": _summary(kind, watch, reading),
        "observed": _plain(metadata.get("observed")),
        "threshold": _plain(metadata.get("threshold")),
        "rows": _plain(metadata.get("rows")),
        "question": watch.question if watch else None,
        "action": _plain(metadata.get("action")) or (watch.action if watch else None),
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
        "page_url": f"{links.api}/monitoring",
    }
    return Message(identity, episode.identity, body)


def _acknowledgement(episode: Episode, reaction: Reaction, links: Links) -> Message:
    """The message that a person has acknowledged an alarm."""
    identity = _digest(Kind.ACKNOWLEDGED, episode.identity, reaction.id)
    record, watch = episode.record, BY_CHECK.get(episode.check)
    body = {
        "id": identity,
        "kind": Kind.ACKNOWLEDGED.value,
        "episode": episode.identity,
        "asset": episode.asset,
        "check": episode.check,
        "partition": None,
        "tier": episode.tier.value,
        "failure": watch.failure if watch else None,
        "summary": f"Acknowledged by {reaction.by}: {reaction.reason} ({record.failure})",
        "model_version": episode.model_version,
        "evaluated_at": reaction.at,
        "first_seen": episode.first_seen,
        "failures": episode.failures,
        "run_url": None,
        "report_url": None,
        "page_url": f"{links.api}/monitoring",
    }
    return Message(identity, episode.identity, body)


def _summary(kind: Kind, watch: Watch | None, reading: Reading) -> str | None:
    """A line that begins with the failure, or with its end."""
    summary = reading.metadata.get("summary")
    if watch is None:
        return None if summary is None else str(summary)
    if kind is not Kind.RESOLVED:
        return watch.failure_summary(summary)
    if reading.passed:
        return f"Resolved: {watch.failure}. Now: {summary or 'passed'}"
    return f"Resolved: {watch.failure}. Now version {reading.model_version} is judged"


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
