"""Episodes of alarms as documents, and the acknowledgements and snoozes of people. Opening and
closing them belongs in `alerting`, their delivery in `alert_outbox`.

The process that has the outbox writes the list of episodes. The API and the commands may run on
another machine: they read the list, and write each acknowledgement or snooze as a new document that
never changes. The outbox reads these documents when it advances.
"""

import datetime
import json
import logging
import re
import secrets
import time
import unicodedata
from collections.abc import Collection, Sequence
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    computed_field,
    model_validator,
)

from creditrisk_assets.storage import StoredPath, create_file, replacing, store_errors

log = logging.getLogger(__name__)

EPISODES_FILE = "episodes.json"
CLOSED_SHOWN = 100
"""Closed episodes in the list, the newest."""

REASON_LENGTH = 500
NAME_LENGTH = 64
SNOOZE_DAYS = 30
"""A longer silence is a change of the policy."""

REACTIONS_LIMIT = 50
"""Reactions to one episode; each is a file that is read."""

UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
JOINERS = "\u200c\u200d"
"""Scripts and emoji need them; the other invisible characters can turn the order of a text."""

SHORTEST_PREFIX = 6
IDENTITY = re.compile(r"[0-9a-f]{32}")
DAY_SECONDS = 86_400.0

VALID = {
    "reason": f"one line of text, at most {REASON_LENGTH} characters",
    "by": f"a name, at most {NAME_LENGTH} characters",
}

Source = Literal["api", "command", "receiver"]


class EpisodeError(Exception):
    """An acknowledgement or snooze is refused; the message has the reason."""


class UnknownEpisode(EpisodeError):
    """There is no such episode."""


class EpisodeClosed(EpisodeError):
    """The episode is closed, or has as many reactions as it may have."""


def _printable(text: str) -> str:
    text = text.strip()
    if not text:
        raise ValueError("is empty; valid: at least one character")
    if any(unicodedata.category(one) in UNPRINTABLE and one not in JOINERS for one in text):
        raise ValueError("has a control character or a line break; valid: one line of text")
    return text


ONE_LINE = r"^[^\p{C}\p{Z}]+( +[^\p{C}\p{Z}]+)*$"
"""For the document of the API: a text that is accepted without doubt."""

Reason = Annotated[
    str,
    Field(
        json_schema_extra={"pattern": ONE_LINE},
        min_length=1,
        max_length=REASON_LENGTH,
        description="The reason, as one line of text.",
    ),
    AfterValidator(_printable),
]
PersonName = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH), AfterValidator(_printable)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Acknowledgement(_Request):
    """A person takes care of an alarm."""

    reason: Reason


class Snooze(_Request):
    """A person wants no reminder of an alarm for a time: `days` from now, or `until` a time."""

    reason: Reason
    days: float | None = Field(None, gt=0, le=SNOOZE_DAYS, description="Days from now.")
    until: AwareDatetime | None = Field(
        None, description=f"Time with its zone, at most {SNOOZE_DAYS} days from now."
    )

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if (self.days is None) == (self.until is None):
            raise ValueError("valid: either days or until")
        return self

    def end(self, now: float) -> float:
        """Its end, in seconds since the epoch.

        Raises:
            EpisodeError: if `until` is over, or too far away.
        """
        if self.days is not None:
            return now + self.days * DAY_SECONDS
        assert self.until is not None  # noqa: S101  # by the validator
        if not now < self.until.timestamp() <= now + SNOOZE_DAYS * DAY_SECONDS:
            raise EpisodeError(
                f"until is {self.until.isoformat()}; valid: a time in the next {SNOOZE_DAYS} days"
            )
        return self.until.timestamp()


class _ByPerson(Acknowledgement):
    by: PersonName


class _SnoozeByPerson(Snooze):
    by: PersonName


class _Answer(_Document):
    """A receiver's answer; other members have no meaning here."""

    acknowledge: _ByPerson | None = None
    snooze: _SnoozeByPerson | None = None


class Reaction(_Document):
    """An acknowledgement or a snooze of an episode by a person.

    Attributes:
        id: the name of its document; a later one follows an earlier one.
        by: the owner of the API key, or the name that the command or the receiver gave.
        at: time, in seconds since the epoch.
        until: end of a snooze, in seconds since the epoch.
        source: how it was made.
    """

    id: str
    kind: Literal["acknowledge", "snooze"]
    by: str
    reason: str
    at: float
    until: float | None = None
    source: Source

    @classmethod
    def of(cls, request: Acknowledgement | Snooze, by: str, source: Source) -> Self:
        """A new reaction of now.

        Raises:
            EpisodeError: if its end is not valid.
        """
        now = time.time()
        is_snooze = isinstance(request, Snooze)
        return cls(
            id=f"{int(now * 1000):014d}-{secrets.token_hex(4)}",
            kind="snooze" if is_snooze else "acknowledge",
            by=by,
            reason=request.reason,
            at=now,
            until=request.end(now) if isinstance(request, Snooze) else None,
            source=source,
        )


class EpisodeRecord(_Document):
    """An episode for people. Times are in seconds since the epoch, days are `YYYY-MM-DD`.

    Attributes:
        id: shared by the messages of the episode.
        failure: what is wrong, with the figures of the latest failure.
        tier: the most urgent so far.
        model_version: the judged version.
        opened_day: the day that failed first.
        latest_day: the latest day that failed.
        failures: number of failed evaluations.
        run_id: the Dagster run of the latest failure; None if none made it.
        reactions: acknowledgements and snoozes, the first one first.
        closed_by: what closed it, in words; None while it is open.
        closed_run_id: the Dagster run that closed it.
    """

    id: str
    asset: str
    check: str
    failure: str
    tier: str
    model_version: str | None = None
    opened_at: float
    opened_day: str
    latest_day: str
    failures: int
    run_id: str | None = None
    reactions: tuple[Reaction, ...] = ()
    closed_at: float | None = None
    closed_by: str | None = None
    closed_run_id: str | None = None

    @computed_field(description="`open` or `closed`.")  # type: ignore[prop-decorator]  # pydantic's way
    @property
    def state(self) -> Literal["open", "closed"]:
        """Whether it is open."""
        return "open" if self.closed_at is None else "closed"

    @computed_field(description="The person of the first acknowledgement.")  # type: ignore[prop-decorator]
    @property
    def acknowledged_by(self) -> str | None:
        """The person of the first acknowledgement."""
        first = self.acknowledgement
        return first.by if first else None

    @computed_field(description="The reason of the first acknowledgement.")  # type: ignore[prop-decorator]
    @property
    def acknowledged_reason(self) -> str | None:
        """The reason of the first acknowledgement."""
        first = self.acknowledgement
        return first.reason if first else None

    @computed_field(description="The time of the first acknowledgement.")  # type: ignore[prop-decorator]
    @property
    def acknowledged_at(self) -> float | None:
        """The time of the first acknowledgement."""
        first = self.acknowledgement
        return first.at if first else None

    @computed_field(description="The latest end of its snoozes.")  # type: ignore[prop-decorator]
    @property
    def snoozed_until(self) -> float | None:
        """The latest end of its snoozes."""
        return max((one.until for one in self.reactions if one.until is not None), default=None)

    @property
    def acknowledgement(self) -> Reaction | None:
        """The first acknowledgement."""
        return next((one for one in self.reactions if one.kind == "acknowledge"), None)

    def with_reactions(self, reactions: Sequence[Reaction]) -> Self:
        """The episode with more reactions, each once."""
        return self.model_copy(update={"reactions": joined(self.reactions, reactions)})


class EpisodeList(_Document):
    """Open episodes, then the newest closed ones."""

    episodes: tuple[EpisodeRecord, ...] = ()

    def write(self, folder: StoredPath) -> bool:
        """Write the list if it has changed.

        Returns:
            True if it was written.

        Raises:
            OSError: if the store cannot be read or written.
        """
        content = self.model_dump_json(indent=1).encode()
        file = folder / EPISODES_FILE
        if _content(file) == content:
            return False
        with replacing(file) as written:
            written.write(content)
        return True


def joined(earlier: Sequence[Reaction], later: Sequence[Reaction]) -> tuple[Reaction, ...]:
    """Reactions of two sources, each once, the first one first."""
    by_id = {one.id: one for one in (*later, *earlier)}
    return tuple(sorted(by_id.values(), key=lambda one: one.id))


def read_episodes(folder: StoredPath) -> tuple[EpisodeRecord, ...]:
    """The episodes of the list, with the reactions of people that the outbox has not read yet; none
    before the first list.

    Args:
        folder: of the list and of the reactions.

    Raises:
        OSError: if the store cannot be read.
        ValidationError: if the list is damaged.
    """
    content = _content(folder / EPISODES_FILE)
    if content is None:
        return ()
    return tuple(
        one.with_reactions(read_reactions(folder, one.id)) if one.state == "open" else one
        for one in EpisodeList.model_validate_json(content).episodes
    )


def read_reactions(folder: StoredPath, episode: str, known: Collection[str] = ()) -> list[Reaction]:
    """The reactions to an episode, the first one first. A damaged document is logged and left out,
    so that it stops no alert.

    Args:
        folder: of the list and of the reactions.
        episode: id of the episode.
        known: ids of reactions that are left out.

    Raises:
        OSError: if the store cannot be read.
    """
    found = []
    for file in _files_of(folder, episode):
        if file.stem in known:
            continue
        content = _content(file)
        if content is None:
            continue
        try:
            found.append(Reaction.model_validate_json(content))
        except ValidationError as error:
            log.warning("%s is no reaction to an alarm and is left out: %s", file, error)
    return found


def require_open(folder: StoredPath, episode: str) -> EpisodeRecord:
    """An episode that may get a reaction.

    Args:
        folder: of the list and of the reactions.
        episode: id of the episode.

    Raises:
        UnknownEpisode: if the list has no such episode.
        EpisodeClosed: if it is closed, or has too many reactions.
        OSError: if the store cannot be read.
    """
    record = next((one for one in read_episodes(folder) if one.id == episode), None)
    if record is None:
        raise UnknownEpisode(
            f"no episode {episode[:64]!r}; valid: the id of one of the list of alerts"
        )
    if record.closed_at is not None:
        closed = datetime.datetime.fromtimestamp(record.closed_at, datetime.UTC)
        raise EpisodeClosed(
            f"episode {episode} is closed since {closed:%Y-%m-%d %H:%M} UTC: {record.closed_by}; "
            "valid: an open one"
        )
    if len(record.reactions) >= REACTIONS_LIMIT:
        raise EpisodeClosed(
            f"episode {episode} has {len(record.reactions)} acknowledgements and snoozes; valid: "
            f"at most {REACTIONS_LIMIT}"
        )
    return record


def react(folder: StoredPath, episode: str, reaction: Reaction) -> EpisodeRecord:
    """Store a reaction to an open episode.

    Args:
        folder: of the list and of the reactions.
        episode: id of the episode.
        reaction: of a person.

    Returns:
        The episode with it.

    Raises:
        EpisodeError: as `require_open` does.
        OSError: if the store cannot be read or written.
    """
    record = require_open(folder, episode)
    create_file(
        folder / episode / f"{reaction.id}.json", reaction.model_dump_json(indent=1).encode()
    )
    return record.with_reactions([reaction])


def reactions_of_answer(answer: bytes) -> list[Reaction]:
    """The reactions in a receiver's answer to an alert: `{"acknowledge": {"by": …, "reason": …}}`
    or `{"snooze": {"by": …, "reason": …, "days": …}}`. None in one that is no JSON object.

    Raises:
        EpisodeError: if they are malformed.
    """
    try:
        document = json.loads(answer)
    except ValueError:
        return []  # most receivers answer with a text
    if not isinstance(document, dict):
        return []
    try:
        read = _Answer.model_validate(document)
    except ValidationError as error:
        raise EpisodeError(first_problem(error)) from error
    requests = [one for one in (read.acknowledge, read.snooze) if one is not None]
    return [Reaction.of(one, one.by, "receiver") for one in requests]


def first_problem(error: ValidationError) -> str:
    """The first problem of a request, with its field, value and the valid ones."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or "the request"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{where} is missing; valid: {VALID.get(str(first['loc'][-1]), 'a value')}"
    if isinstance(first["input"], dict):
        return f"{where}: {message}"
    return f"{where} is {first['input']!r:.80}: {message}"


def matching_episode(episodes: Sequence[EpisodeRecord], text: str) -> str:
    """The id of the episode that begins with a text.

    Raises:
        UnknownEpisode: if there is none, or more than one.
    """
    found = [one.id for one in episodes if one.id.startswith(text)]
    if len(found) == 1 and len(text) >= SHORTEST_PREFIX:
        return found[0]
    how_many = f"{len(found)} episodes begin" if len(found) > 1 else "no episode begins"
    if len(text) < SHORTEST_PREFIX:
        raise UnknownEpisode(f"episode {text!r}; valid: at least {SHORTEST_PREFIX} characters")
    raise UnknownEpisode(f"{how_many} with {text[:64]!r}; `creditrisk alerts` lists them")


def _files_of(folder: StoredPath, episode: str) -> list[StoredPath]:
    if not IDENTITY.fullmatch(episode):
        return []
    place = folder / episode
    with store_errors(place):
        if not place.is_dir():
            return []
        files = [path for path in place.iterdir() if path.name.endswith(".json")]
    return sorted((path for path in files if not path.name.startswith(".")), key=lambda p: p.name)


def _content(file: StoredPath) -> bytes | None:
    try:
        with store_errors(file):
            return file.read_bytes()
    except FileNotFoundError:
        return None
