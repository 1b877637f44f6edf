"""Acknowledgements and snoozes as documents in a store."""

import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from creditrisk_assets.monitoring.episodes import (
    REACTIONS_LIMIT,
    Acknowledgement,
    EpisodeClosed,
    EpisodeError,
    EpisodeList,
    EpisodeRecord,
    Reaction,
    Snooze,
    UnknownEpisode,
    first_problem,
    matching_episode,
    react,
    reactions_of_answer,
    read_episodes,
    read_reactions,
)
from creditrisk_assets.monitoring.loop_status import LoopStatus

OPEN, CLOSED = "a" * 32, "b" * 32


def episode(identity: str = OPEN, **changed: Any) -> EpisodeRecord:
    values: dict[str, Any] = {
        "id": identity,
        "asset": "champion",
        "check": "data_is_fresh",
        "failure": "Data is missing: 2 business days are missing",
        "tier": "look today",
        "opened_at": 1_000.0,
        "opened_day": "2026-02-01",
        "latest_day": "2026-02-01",
        "failures": 1,
    }
    return EpisodeRecord(**(values | changed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "episodes"
    ended = {"closed_at": 2_000.0, "closed_by": "the check passed on 2026-02-02"}
    EpisodeList(episodes=(episode(), episode(CLOSED, **ended))).write(place)
    return place


def acknowledge(folder: Path, by: str, identity: str = OPEN) -> EpisodeRecord:
    return react(folder, identity, Reaction.of(Acknowledgement(reason="I look"), by, "api"))


def test_a_reaction_is_there_at_once_and_a_second_one_stays_behind_the_first(folder: Path) -> None:
    acknowledge(folder, "anna")
    acknowledge(folder, "bert")
    first, _ = read_episodes(folder)
    assert [one.by for one in first.reactions] == ["anna", "bert"]
    assert (first.acknowledged_by, first.acknowledged_reason) == ("anna", "I look")
    assert read_reactions(folder, OPEN, known=[first.reactions[0].id]) == [first.reactions[1]]


def test_a_snooze_has_an_end_in_the_next_thirty_days(folder: Path) -> None:
    react(folder, OPEN, Reaction.of(Snooze(reason="holiday", days=0.5), "anna", "command"))
    first, _ = read_episodes(folder)
    assert first.snoozed_until == pytest.approx(time.time() + 43_200, abs=60)
    assert first.acknowledged_by is None
    for values in (
        {"days": 31},
        {"days": 0},
        {},
        {"days": 1, "until": "2026-12-01T00:00:00Z"},
        {"until": "2026-12-01T00:00:00"},
        {"days": float("nan")},
    ):
        with pytest.raises(ValidationError):
            Snooze.model_validate({"reason": "x", **values})
    for until in ("2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"):
        late = Snooze.model_validate({"reason": "x", "until": until})
        with pytest.raises(EpisodeError, match="valid: a time in the next 30 days"):
            Reaction.of(late, "anna", "api")


@pytest.mark.parametrize(
    "reason", ["", "   ", "two\nlines", "a\x00b", "turned \u202e round", "x" * 501, "\ud800"]
)
def test_a_reason_is_one_line_of_text(reason: str) -> None:
    """A line break or a mark of direction lets a reason look like another line of the page."""
    with pytest.raises(ValidationError) as refused:
        Acknowledgement(reason=reason)
    assert first_problem(refused.value).startswith("reason is ")


def test_an_unknown_and_a_closed_episode_are_refused_with_what_is_valid(folder: Path) -> None:
    with pytest.raises(UnknownEpisode, match=r"no episode 'c{32}'; valid: the id of one"):
        acknowledge(folder, "anna", "c" * 32)
    with pytest.raises(UnknownEpisode):
        acknowledge(folder, "anna", "../../outside")
    with pytest.raises(EpisodeClosed, match="is closed since 1970-01-01 00:33 UTC: the check"):
        acknowledge(folder, "anna", CLOSED)
    assert sorted(path.name for path in folder.iterdir()) == ["episodes.json"]


def test_an_episode_has_a_limit_of_reactions(folder: Path) -> None:
    for _ in range(REACTIONS_LIMIT):
        acknowledge(folder, "anna")
    with pytest.raises(EpisodeClosed, match="at most 50"):
        acknowledge(folder, "anna")


def test_a_damaged_reaction_is_left_out_and_stops_nothing(folder: Path) -> None:
    acknowledge(folder, "anna")
    (folder / OPEN / "00-broken.json").write_text("{")
    (folder / OPEN / ".half").write_text("{")
    assert [one.by for one in read_reactions(folder, OPEN)] == ["anna"]


def test_the_list_is_written_only_when_it_changes(folder: Path) -> None:
    same = EpisodeList(episodes=read_episodes(folder))
    assert not same.write(folder)
    assert EpisodeList(episodes=(episode(failures=2),)).write(folder)


def test_the_state_is_in_the_document_for_its_readers(folder: Path) -> None:
    text = (folder / "episodes.json").read_text()
    assert '"state": "open"' in text
    assert '"state": "closed"' in text
    assert read_episodes(folder.parent / "none") == ()


def test_a_receiver_answers_with_a_reaction_or_with_anything_else() -> None:
    (one,) = reactions_of_answer(b'{"acknowledge": {"by": "pager", "reason": "on call"}, "x": 1}')
    assert (one.kind, one.by, one.source) == ("acknowledge", "pager", "receiver")
    (one,) = reactions_of_answer(b'{"snooze": {"by": "p", "reason": "r", "days": 2}}')
    assert one.kind == "snooze"
    for answer in (b"ok", b"", b"[]", b"{}", b'{"status": "ok"}', b"\xff"):
        assert reactions_of_answer(answer) == []
    for answer in (
        b'{"acknowledge": {"reason": "r"}}',
        b'{"acknowledge": {"by": "p", "reason": ""}}',
        b'{"acknowledge": "yes"}',
        b'{"snooze": {"by": "p", "reason": "r"}}',
        b'{"snooze": {"by": "p", "reason": "r", "until": "2020-01-01T00:00:00Z"}}',
    ):
        with pytest.raises(EpisodeError):
            reactions_of_answer(answer)


def test_a_command_finds_an_episode_by_its_first_characters(folder: Path) -> None:
    episodes = read_episodes(folder)
    assert matching_episode(episodes, "aaaaaa") == OPEN
    for text in ("aaa", "cccccc"):
        with pytest.raises(UnknownEpisode):
            matching_episode(episodes, text)


def test_the_status_has_the_episodes_of_now_also_when_the_daemon_that_wrote_it_is_dead(
    folder: Path, tmp_path: Path
) -> None:
    """`creditrisk watch` opens the alarm of a dead daemon, which can write no status any more."""
    LoopStatus(
        written=1.0,
        champion=None,
        champion_since=None,
        champion_because=None,
        retraining="",
        checks=1,
        checks_run=1,
        days=(),
        events=(),
        runs_in_flight=(),
        failed_runs=(),
        sensors=(),
        landing_problems=(),
        dagster_url="",
        mlflow_url="",
        episodes=(episode(),),
    ).write(tmp_path)
    acknowledge(folder, "anna")
    (as_written,) = LoopStatus.read(tmp_path).episodes
    assert (as_written.id, as_written.acknowledged_by) == (OPEN, None)
    of_now = LoopStatus.read(tmp_path, folder).episodes
    assert [(one.state, one.acknowledged_by) for one in of_now] == [
        ("open", "anna"),
        ("closed", None),
    ]
