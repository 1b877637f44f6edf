"""Alert messages from evaluations of checks."""

from collections import Counter
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.monitoring.alerting import (
    Episode,
    Kind,
    Links,
    Message,
    Reading,
    advance,
    with_reactions,
)
from creditrisk_assets.monitoring.check_catalogue import Tier
from creditrisk_assets.monitoring.episodes import EpisodeRecord, Reaction

LINKS = Links("http://dagster", "http://api")
CHECK = "score_distribution_is_stable"


def reading(number: int, passed: bool, day: int = 1, **changed: Any) -> Reading:
    values: dict[str, Any] = {
        "identity": str(number),
        "asset": "drift_report",
        "check": CHECK,
        "day": f"2026-02-{day:02d}",
        "partition": f"2026-02-{day:02d}",
        "passed": passed,
        "severity": "WARN",
        "at": float(number),
        "metadata": {
            "summary": "score 0.3 > 0.1",
            "observed": 0.3,
            "threshold": 0.1,
            "rows": 500,
            "model_version": "1",
        },
        "run_id": "r1",
    }
    return Reading(**(values | changed))


def messages_of(*readings: Reading, reminder_days: int = 7) -> list[Message]:
    return advance({}, readings, reminder_days, LINKS)[1]


def kinds(messages: list[Message]) -> list[str]:
    return [str(one.body["kind"]) for one in messages]


def test_an_alarm_that_persists_is_told_once_and_when_it_ends() -> None:
    messages = messages_of(*(reading(day, day > 5, day) for day in range(1, 8)))
    assert kinds(messages) == ["started", "resolved"]
    started, resolved = (one.body for one in messages)
    assert started["episode"] == resolved["episode"]
    assert (started["tier"], started["partition"], started["observed"], started["rows"]) == (
        "look today",
        "2026-02-01",
        0.3,
        500,
    )
    assert started["action"].startswith("Look for the features")
    assert (started["run_url"], started["report_url"]) == (
        "http://dagster/runs/r1",
        "http://api/reports/drift/2026-02-01",
    )
    assert (resolved["failures"], resolved["first_seen"]) == (5, 1.0)


def test_the_text_begins_with_what_is_wrong_or_with_its_end() -> None:
    better = {"summary": "score 0.05, limit 0.1", "model_version": "1"}
    started, resolved = (
        one.body for one in messages_of(reading(1, False, 1), reading(2, True, 2, metadata=better))
    )
    assert started["failure"] == resolved["failure"] == "The score has shifted"
    assert started["summary"] == "The score has shifted: score 0.3 > 0.1"
    assert resolved["summary"] == "Resolved: The score has shifted. Now: score 0.05, limit 0.1"
    other = {"summary": "The score has shifted: score 0.4 > 0.1", "model_version": "2"}
    _, resolved, started = (
        one.body for one in messages_of(reading(1, False, 1), reading(2, False, 2, metadata=other))
    )
    assert resolved["summary"] == "Resolved: The score has shifted. Now version 2 is judged"
    assert started["summary"] == other["summary"]


def test_it_is_told_again_after_some_days_of_data() -> None:
    readings = [reading(day, False, day) for day in range(1, 16)]
    assert [one.body["partition"] for one in messages_of(*readings)] == [
        "2026-02-01",
        "2026-02-08",
        "2026-02-15",
    ]
    assert kinds(messages_of(*readings, reminder_days=0)) == ["started"]


def test_it_is_told_when_it_becomes_more_urgent() -> None:
    page = {"summary": "worse", "tier": Tier.PAGE.value, "model_version": "1"}
    messages = messages_of(
        reading(1, False, 1), reading(2, False, 2, metadata=page), reading(3, False, 3)
    )
    assert kinds(messages) == ["started", "raised"]
    assert messages[1].body["tier"] == "page now"


def test_a_new_champion_ends_the_alarm_on_the_old_one_and_may_have_its_own() -> None:
    other = {"summary": "x", "model_version": "2"}
    messages = messages_of(
        reading(1, False, 1),
        reading(2, False, 2, metadata=other),
        reading(3, True, 3, metadata=other),
    )
    assert kinds(messages) == ["started", "resolved", "started", "resolved"]
    assert [one.body["model_version"] for one in messages] == ["1", "2", "2", "2"]


def test_a_good_old_day_does_not_end_the_alarm_of_a_later_one_and_a_corrected_day_does() -> None:
    assert kinds(messages_of(reading(1, False, 9), reading(2, True, 3))) == ["started"]
    assert kinds(messages_of(reading(1, False, 9), reading(2, True, 9))) == ["started", "resolved"]
    assert kinds(messages_of(reading(1, True, 9), reading(2, False, 3), reading(3, True, 10))) == [
        "started",
        "resolved",
    ]


def test_an_alarm_that_two_observers_see_is_one_and_ends_when_both_say_so() -> None:
    def seen(number: float, passed: bool, observer: str) -> Reading:
        return reading(int(number), passed, 1, observer=observer, partition=None)

    both = (seen(1, False, "loop"), seen(2, False, "outside"), seen(3, True, "loop"))
    assert kinds(messages_of(*both)) == ["started"]
    assert kinds(messages_of(*both, seen(4, True, "outside"))) == ["started", "resolved"]
    silent = (*both[:2], reading(100_000, True, 1, observer="loop"))
    assert kinds(messages_of(*silent)) == ["started", "resolved"], (
        "an observer that is silent for a day counts no more"
    )


def test_a_check_that_is_in_no_table_is_a_note() -> None:
    (message,) = messages_of(reading(1, False, check="somebody_elses", metadata={}))
    assert (message.body["tier"], message.body["action"], message.body["model_version"]) == (
        "note",
        None,
        None,
    )
    assert (message.body["failure"], message.body["summary"]) == (None, None)


READINGS = st.lists(
    st.tuples(
        st.booleans(),
        st.integers(1, 28),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["1", "2"]),
        st.sampled_from("lo"),
    ),
    max_size=40,
)


@given(READINGS, st.lists(st.integers(0, 40), max_size=5), st.integers(0, 5))
def test_no_alarm_is_lost_and_none_is_told_twice(
    drawn: list[tuple[Any, ...]], cuts: list[int], reminder_days: int
) -> None:
    readings = [
        reading(
            number, passed, day, check=check, metadata={"model_version": version}, observer=observer
        )
        for number, (passed, day, check, version, observer) in enumerate(drawn)
    ]
    episodes: dict[tuple[str, str], Episode] = {}
    messages: list[Message] = []
    closed: list[EpisodeRecord] = []
    bounds = sorted({0, len(readings), *(cut for cut in cuts if cut < len(readings))})
    for begin, end in pairwise(bounds):  # the messages do not depend on the batches
        before = dict(episodes)
        episodes, new, ended = advance(episodes, readings[begin:end], reminder_days, LINKS)
        closed += ended
        messages += new
        for one in readings[begin:end]:
            if not one.passed:
                at_once = advance(
                    before,
                    [other for other in readings[begin:end] if other.at <= one.at],
                    reminder_days,
                    LINKS,
                )
                assert (one.asset, one.check) in at_once[0], (
                    "every failure belongs to an alarm with a message"
                )
    assert (episodes, messages, closed) == advance({}, readings, reminder_days, LINKS)
    assert len({one.identity for one in messages}) == len(messages)
    for episode, count in Counter(
        one.episode for one in messages if one.body["kind"] == Kind.STARTED
    ).items():
        assert count == 1
        of_it = [one.body["kind"] for one in messages if one.episode == episode]
        assert of_it[0] == "started"
        assert of_it.count("resolved") == (
            episode not in {one.identity for one in episodes.values()}
        )
        assert "resolved" not in of_it[:-1]


def reaction(at: float, until: float | None = None, by: str = "anna") -> Reaction:
    return Reaction(
        id=f"{int(at * 1000):014d}-{by}",
        kind="acknowledge" if until is None else "snooze",
        by=by,
        reason="the source was asked",
        at=at,
        until=until,
        source="api",
    )


def after(one: Reaction, *readings: Reading) -> list[str]:
    """The messages that follow a reaction to the alarm of day 1."""
    episodes, _, _ = advance({}, [reading(1, False, 1)], 7, LINKS)
    (key,) = episodes
    reacted, told = with_reactions(episodes, {episodes[key].identity: [one]}, LINKS)
    return kinds(told) + kinds(advance(reacted, readings, 7, LINKS).messages)


def test_an_acknowledged_alarm_sends_no_reminder_but_a_raise_and_its_end() -> None:
    page = {"summary": "worse", "tier": Tier.PAGE.value, "model_version": "1"}
    assert after(
        reaction(2),
        *(reading(day, False, day) for day in range(3, 20)),
        reading(20, False, 20, metadata=page),
        reading(21, True, 21),
    ) == ["acknowledged", "raised", "resolved"]


def test_a_snoozed_alarm_is_silent_until_its_end_and_then_sends_the_reminder_that_is_due() -> None:
    days = [reading(day, False, day) for day in range(2, 16)]
    assert after(reaction(1.5, until=12.5), *days) == ["reminder"]
    assert after(reaction(1.5, until=12.5), *days[:11]) == []


def test_two_people_may_acknowledge_and_the_first_is_shown_first_whenever_it_was_read() -> None:
    episodes, _, _ = advance({}, [reading(1, False, 1)], 7, LINKS)
    (key,) = episodes
    identity = episodes[key].identity
    once, told = with_reactions(episodes, {identity: [reaction(5, by="bert")]}, LINKS)
    assert kinds(told) == ["acknowledged"]
    twice, told_again = with_reactions(once, {identity: [reaction(4, by="anna")]}, LINKS)
    assert told_again == []
    record = twice[key].record
    assert [one.by for one in record.reactions] == ["anna", "bert"]
    assert (record.acknowledged_by, record.acknowledged_at) == ("anna", 4)


def test_an_episode_says_what_is_wrong_with_its_figures_and_what_closed_it() -> None:
    worse = {"summary": "score 0.4 > 0.1", "model_version": "1"}
    better = {"summary": "score 0.05, limit 0.1", "model_version": "1"}
    opened = [reading(1, False, 1), reading(2, False, 2, metadata=worse, run_id="r2")]
    episodes, _, closed = advance({}, opened, 7, LINKS)
    (episode,) = episodes.values()
    record = episode.record
    assert (record.failure, record.run_id) == ("The score has shifted: score 0.4 > 0.1", "r2")
    assert (record.opened_day, record.latest_day, record.failures, record.state) == (
        "2026-02-01",
        "2026-02-02",
        2,
        "open",
    )
    assert closed == []
    ended = reading(3, True, 3, metadata=better, run_id="r3")
    (passed,) = advance(episodes, [ended], 7, LINKS).closed
    assert (passed.state, passed.closed_at, passed.closed_run_id) == ("closed", 3.0, "r3")
    assert passed.closed_by == "the check passed on 2026-02-03: score 0.05, limit 0.1"
    other = reading(3, False, 3, metadata=worse | {"model_version": "2"})
    (replaced,) = advance(episodes, [other], 7, LINKS).closed
    assert replaced.closed_by == "version 2 is judged since 2026-02-03"


REACTIONS = st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.integers(0, 60)), max_size=6)


@given(READINGS, REACTIONS, st.integers(0, 5))
def test_reactions_silence_reminders_and_nothing_else(
    drawn: list[tuple[Any, ...]], reacted: list[tuple[int, bool, int]], reminder_days: int
) -> None:
    """An acknowledged alarm whose end is never sent would stay open at the receiver for ever."""
    readings = [
        reading(
            number, passed, day, check=check, metadata={"model_version": version}, observer=observer
        )
        for number, (passed, day, check, version, observer) in enumerate(drawn)
    ]
    episodes: dict[tuple[str, str], Episode] = {}
    messages: list[Message] = []
    closed: list[EpisodeRecord] = []
    for number, one in enumerate(readings):
        new = [
            reaction(at, until if is_snooze else None)
            for at, is_snooze, until in reacted
            if at == number
        ]
        every = {episode.identity: new for episode in episodes.values()}
        episodes, told = with_reactions(episodes, every, LINKS)
        episodes, sent, ended = advance(episodes, [one], reminder_days, LINKS)
        messages += told + sent
        closed += ended
    alone = advance({}, readings, reminder_days, LINKS)
    others = ("reminder", "acknowledged")

    def of_alarm(sent: list[Message]) -> list[str]:
        return [one.identity for one in sent if one.body["kind"] not in others]

    assert of_alarm(messages) == of_alarm(alone.messages)
    assert [one.id for one in closed] == [one.id for one in alone.closed]
    assert {key: one.identity for key, one in episodes.items()} == {
        key: one.identity for key, one in alone.episodes.items()
    }
    started = Counter(one.episode for one in messages if one.body["kind"] == Kind.STARTED)
    resolved = Counter(one.episode for one in messages if one.body["kind"] == Kind.RESOLVED)
    still_open = Counter(one.identity for one in episodes.values())
    assert started == resolved + still_open
    acknowledged = Counter(one.episode for one in messages if one.body["kind"] == "acknowledged")
    assert set(acknowledged.values()) <= {1}
    for episode in [*episodes.values()]:
        if episode.record.acknowledgement is not None:
            assert acknowledged[episode.identity] == 1
