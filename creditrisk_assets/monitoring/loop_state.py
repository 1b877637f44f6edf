"""The state of the loop in one sentence: Healthy, Watch or Act.

| state | when |
|---|---|
| Act | a person is needed: an open alarm that the loop does not answer itself, a policy that waits for a person, or a status that is old |
| Watch | the loop is at it: an open alarm that it answers itself or that a person has taken care of, drift on the latest day, or a retrain under way |
| Healthy | neither |

Every clause of the sentence comes from a figure of the status, and is left out without one.
"""  # noqa: E501

import datetime
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from creditrisk_assets.monitoring.check_catalogue import BY_CHECK, Tier
from creditrisk_assets.monitoring.episodes import EpisodeRecord
from creditrisk_assets.monitoring.loop_status import DayStatus, FailedCheck, LoopStatus

OLD_SECONDS = 900.0
"""The loop writes its status every five minutes at the latest; an older one says that it stands."""

RANKING, LEVEL = "ranking_is_as_at_validation", "default_rate_is_as_predicted"
OF_DAYS = ("score_distribution_is_stable", "feature_distributions_are_stable", RANKING, LEVEL)
"""Checks that the clauses about drift and performance name."""


class State(StrEnum):
    """The state of the loop."""

    HEALTHY = "Healthy"
    WATCH = "Watch"
    ACT = "Act"


@dataclass(frozen=True)
class LoopState:
    """The state, and the sentence that says why."""

    state: State
    sentence: str


def state_of(status: LoopStatus, columns: int, now: float) -> LoopState:
    """The state of a loop.

    Args:
        status: of the loop, with its episodes.
        columns: number of columns that are compared with training, the score included.
        now: seconds since the epoch.
    """
    open_episodes = [one for one in status.episodes if one.state == "open"]
    old = now - status.written
    urgent = [one for one in open_episodes if _needs_person(one, now)]
    unrecorded = _unrecorded(status, {one.check for one in open_episodes})
    clauses: list[str] = []
    if old > OLD_SECONDS:
        clauses.append(f"no news from the loop for {_span(old)}")
    if status.champion is None:
        clauses.append("no champion yet")
    else:
        clauses.append(
            f"version {status.champion.model_version}"
            + (f" since {_moment(status.champion_since, now)}" if status.champion_since else "")
        )
        clauses += _of_days(status.days, status.champion.model_version, columns)
    clauses += [one.failure.partition(":")[0].lower() for one in _not_of_days(open_episodes)]
    clauses += [one.failure.lower() for one in unrecorded if one.check not in OF_DAYS]
    running = [
        one.action or one.job for one in status.runs_in_flight if one.job in ("retrain", "train")
    ]
    clauses += [f"{action} running" for action in dict.fromkeys(running)]
    if status.retraining_needs_person:
        clauses.append("retraining waits for a person")
    if status.waiting_days:
        count = len(status.waiting_days)
        clauses.append(f"{count} {'day' if count == 1 else 'days'} landed and not scored yet")
    asks = [one for one in unrecorded if _asks_for_person(one.check, one.tier)]
    if old > OLD_SECONDS or urgent or asks or status.retraining_needs_person:
        state = State.ACT
    elif open_episodes or unrecorded or running or status.champion is None or _drifts(status):
        state = State.WATCH
    else:
        state = State.HEALTHY
    sentence = "; ".join(dict.fromkeys(clauses))
    return LoopState(state, f"{sentence[:1].upper()}{sentence[1:]}.")


def _needs_person(episode: EpisodeRecord, now: float) -> bool:
    """Whether an open alarm waits for a person: it is more than a note, the loop does not answer it
    by a retrain, and nobody has taken care of it.
    """
    until = episode.snoozed_until
    cared_for = episode.acknowledged_by is not None or (until is not None and until > now)
    return not cared_for and _asks_for_person(episode.check, episode.tier)


def _asks_for_person(check: str, tier: str) -> bool:
    watch = BY_CHECK.get(check)
    answered = watch is not None and watch.asks_for_retraining
    return tier == Tier.PAGE or (tier == Tier.TODAY and not answered)


def _unrecorded(status: LoopStatus, recorded: Collection[str]) -> list[FailedCheck]:
    """Failed checks of the loop and of the latest day that are no episode yet: the loop makes them
    episodes within half a minute.
    """
    decided = [day for day in status.days if day.model_version]
    latest = max(decided, key=lambda day: day.day).alarms if decided else ()
    alarms = (*status.alarms, *latest)
    return [one for one in alarms if one.check not in recorded]


def _drifts(status: LoopStatus) -> bool:
    """Whether the latest day that was compared has drifted; its checks may not have run yet."""
    compared = [day for day in status.days if day.score_psi is not None]
    return bool(compared and max(compared, key=lambda day: day.day).drifted_columns)


def _not_of_days(episodes: Iterable[EpisodeRecord]) -> list[EpisodeRecord]:
    """Alarms that the clauses about drift and performance do not name."""
    return [one for one in episodes if one.check not in OF_DAYS]


def _of_days(days: Iterable[DayStatus], version: str, columns: int) -> list[str]:
    """Clauses about drift and performance on the days that the champion decided."""
    own = sorted((day for day in days if day.model_version == version), key=lambda day: day.day)
    clauses = []
    compared = [day for day in own if day.score_psi is not None]
    if compared:
        clauses.append(_drift(compared, columns))
    matured = [day for day in own if day.roc_auc is not None]
    if matured:
        clauses.append(_performance(matured[-1]))
    elif own:
        clauses.append("no outcomes yet")
    return clauses


def _drift(days: list[DayStatus], columns: int) -> str:
    """Drift on the latest day, and the first day of the same spell."""
    latest = days[-1]
    if not latest.drifted_columns:
        return f"no drift on {latest.day}"
    first = latest
    for day in reversed(days):
        if not day.drifted_columns:
            break
        first = day
    return f"drift in {latest.drifted_columns} of {columns} columns since {first.day}"


def _performance(day: DayStatus) -> str:
    """Discrimination and calibration of the latest matured day."""
    failed = {RANKING, LEVEL} & set(day.failed_checks)
    figures = f"AUC {day.roc_auc:.3f}"
    if day.validation_roc_auc is not None:
        figures += f", {day.validation_roc_auc:.3f} at validation"
    if RANKING in failed:
        return f"discrimination is down ({figures}, {day.day})"
    if LEVEL in failed and day.bad_rate is not None and day.mean_pd is not None:
        rates = f"bad rate {day.bad_rate:.3f}, mean PD {day.mean_pd:.3f}, {day.day}"
        return f"discrimination holds ({figures}); calibration is off ({rates})"
    return f"discrimination and calibration hold ({figures}, {day.day})"


def _moment(at: float, now: float) -> str:
    """A time of today, or a date with the time, in UTC."""
    moment, today = (datetime.datetime.fromtimestamp(one, datetime.UTC) for one in (at, now))
    return moment.strftime("%H:%M" if moment.date() == today.date() else "%Y-%m-%d %H:%M") + " UTC"


def _span(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 120:
        return f"{minutes:.0f} minutes"
    return f"{minutes / 60:.0f} hours" if minutes < 2_880 else f"{minutes / 1_440:.0f} days"
