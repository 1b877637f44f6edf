"""Whether the loop itself is alive: its sensors, its runs, its API, its data. Pure functions of
what was seen.

Here, and nowhere else, the wall clock counts: the questions are whether something happened today.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import httpx

from creditrisk_assets import internal_http

ASK_TIMEOUT_SECONDS = 5.0
SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """What one watch found.

    Attributes:
        check: its name in the watch list.
        passed: whether all is well.
        summary: in a sentence.
        observed: the worst of what was seen.
        threshold: what would be well.
        rows: how many things were looked at.
    """

    check: str
    passed: bool
    summary: str
    observed: float | str
    threshold: float | str
    rows: int


@dataclass(frozen=True)
class SensorBeat:
    """The last sign of life of a sensor: its interval in seconds, when it ticked (seconds since the
    epoch; None if it never did), the tick's error, and whether somebody stopped it.
    """

    name: str
    interval: float
    at: float | None
    error: str | None = None
    stopped: bool = False


@dataclass(frozen=True)
class RunBeat:
    """A run under way, and since when (seconds since the epoch)."""

    run_id: str
    job: str
    day: str | None
    status: str
    since: float


@dataclass(frozen=True)
class ApiAnswer:
    """Which champion the API serves, or why it is not known."""

    version: str | None
    bundle_sha256: str | None
    problem: str | None = None


def sensors_tick(beats: Sequence[SensorBeat], now: float, slack: float) -> Finding:
    """Every sensor ticked within its interval and some slack, and its last tick did not fail."""
    problems = []
    for beat in beats:
        if beat.stopped:
            problems.append(f"{beat.name} is stopped")
        elif beat.at is None:
            problems.append(f"{beat.name} has never ticked; is the daemon running?")
        elif now - beat.at > beat.interval + slack:
            problems.append(f"{beat.name} last ticked {now - beat.at:.0f} s ago")
        elif beat.error is not None:
            problems.append(
                f"{beat.name} failed: "
                f"{beat.error.strip().splitlines()[-1] if beat.error.strip() else 'no message'}"
            )
    ages = [now - beat.at for beat in beats if beat.at is not None]
    return Finding(
        "sensors_tick",
        not problems,
        _told(problems) or f"{len(beats)} sensors tick",
        round(max(ages), 1) if ages else "never",
        max((beat.interval for beat in beats), default=0.0) + slack,
        len(beats),
    )


def no_run_hangs(runs: Sequence[RunBeat], now: float, limit_minutes: float) -> Finding:
    """No run has been under way for longer than the limit."""
    hanging = [run for run in runs if (now - run.since) / 60 > limit_minutes]
    problems = [
        f"run {run.run_id} of {run.job}{f' on {run.day}' if run.day else ''} is {run.status} for "
        f"{(now - run.since) / 60:.0f} min"
        for run in sorted(hanging, key=lambda run: run.since)
    ]
    oldest = max(((now - run.since) / 60 for run in runs), default=0.0)
    return Finding(
        "no_run_hangs",
        not problems,
        _told(problems) or f"{len(runs)} runs under way",
        round(oldest, 1),
        limit_minutes,
        len(runs),
    )


def no_run_failed(failed: Sequence[RunBeat], rows: int) -> Finding:
    """The last run of each job and day did not fail, but where a failed check says why.

    Args:
        failed: those that did, and since when.
        rows: how many failures were looked at.
    """
    problems = [
        f"run {run.run_id} of {run.job}{f' on {run.day}' if run.day else ''} failed"
        for run in failed
    ]
    return Finding(
        "no_run_failed",
        not problems,
        _told(problems) or "no failure stands",
        len(problems),
        0,
        rows,
    )


def api_serves_the_champion(
    version: str | None, bundle_sha256: str | None, url: str | None, answer: ApiAnswer | None
) -> Finding:
    """The API answers by the champion that the asset names.

    Args:
        version: of the champion; None if there is none yet.
        bundle_sha256: of its bundle.
        url: of the API, for the message; None if there is none.
        answer: of the API; None if it was not asked.
    """
    expected = f"version {version}"

    def finding(passed: bool, summary: str, observed: str) -> Finding:
        return Finding("api_serves_the_champion", passed, summary, observed, expected, 1)

    if answer is None:
        return finding(
            True,
            "no champion yet" if url else "not watched: the settings say that there is no API",
            "not asked",
        )
    if answer.problem is not None:
        return finding(False, f"the API at {url} cannot be asked: {answer.problem}", answer.problem)
    if (answer.version, answer.bundle_sha256) != (version, bundle_sha256):
        served = f"version {answer.version} with bundle {str(answer.bundle_sha256)[:12]}"
        return finding(
            False,
            f"the API at {url} serves {served}; champion is {expected}, {str(bundle_sha256)[:12]}",
            served,
        )
    return finding(True, f"the API serves {expected}", expected)


def data_is_fresh(
    latest_day: str | None, today: date, weekdays: Collection[int], limit: int
) -> Finding:
    """No more business days are over without having been scored than the limit allows. Today is not
    over yet.

    Args:
        latest_day: that was scored; None before the first.
        today: by the wall clock, UTC.
        weekdays: on which data comes, 1 Monday to 7 Sunday.
        limit: days that may be missing.
    """
    if latest_day is None:
        return Finding("data_is_fresh", True, "no day was ever scored", 0, limit, 0)
    latest = date.fromisoformat(latest_day)
    between = max(0, (today - latest).days - 1)
    whole, rest = divmod(between, 7)
    tail = [latest + timedelta(days=whole * 7 + one) for one in range(1, rest + 1)]
    missing = whole * len(set(weekdays)) + sum(day.isoweekday() in weekdays for day in tail)
    passed = missing <= limit
    told = "" if passed else f"; no file has come for {missing} business days"
    return Finding(
        "data_is_fresh", passed, f"the latest day scored is {latest_day}{told}", missing, limit, 1
    )


def ask_api(url: str) -> ApiAnswer:
    """Which champion an API serves, by its `/ready`."""
    try:
        answer = internal_http.get(f"{url.rstrip('/')}/ready", ASK_TIMEOUT_SECONDS)
        document = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return ApiAnswer(None, None, f"{type(error).__name__}: {error}")
    if not httpx.codes.is_success(answer.status_code):
        why = document.get("detail", "") if isinstance(document, dict) else ""
        return ApiAnswer(None, None, f"it answers {answer.status_code} {why}".strip())
    try:
        return ApiAnswer(str(document["model_version"]), str(document["bundle_sha256"]))
    except (KeyError, TypeError):
        return ApiAnswer(None, None, "what answers there is not this API")


def _told(problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more
