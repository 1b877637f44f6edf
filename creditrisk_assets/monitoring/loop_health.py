"""Health of the loop: sensors, runs, API and freshness of data, as pure functions of observations.
Reading Dagster belongs in `defs.loop_checks`.

These checks alone use the wall clock: they ask whether something happened today.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import httpx

from creditrisk_assets import internal_http

ASK_TIMEOUT_SECONDS = 5.0
PROBLEMS_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """The result of one health check.

    Attributes:
        check: its name in the catalogue.
        passed: whether it passed.
        summary: one line for people.
        observed: the worst observation.
        threshold: its limit.
        rows: number of observations.
    """

    check: str
    passed: bool
    summary: str
    observed: float | str
    threshold: float | str
    rows: int


@dataclass(frozen=True)
class SensorBeat:
    """The last tick of a sensor: interval in seconds, time in seconds since the epoch (None if it
    never ticked), error, and whether the sensor is stopped.
    """

    name: str
    interval: float
    at: float | None
    error: str | None = None
    stopped: bool = False


@dataclass(frozen=True)
class RunBeat:
    """An unfinished run and its start in seconds since the epoch."""

    run_id: str
    job: str
    day: str | None
    status: str
    since: float


@dataclass(frozen=True)
class ApiAnswer:
    """The champion that the API serves, or the reason why it is unknown."""

    version: str | None
    bundle_sha256: str | None
    problem: str | None = None


def sensors_tick(beats: Sequence[SensorBeat], now: float, slack: float) -> Finding:
    """Check that every sensor ticked within its interval plus `slack` and did not fail."""
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
        _listed(problems) or f"{len(beats)} sensors tick",
        round(max(ages), 1) if ages else "never",
        max((beat.interval for beat in beats), default=0.0) + slack,
        len(beats),
    )


def no_run_hangs(runs: Sequence[RunBeat], now: float, limit_minutes: float) -> Finding:
    """Check that no unfinished run is older than the limit."""
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
        _listed(problems) or f"{len(runs)} unfinished runs",
        round(oldest, 1),
        limit_minutes,
        len(runs),
    )


def no_run_failed(failed: Sequence[RunBeat], rows: int) -> Finding:
    """Check that no job and day ended with a failure that no check explains.

    Args:
        failed: the unexplained failures.
        rows: number of failures examined.
    """
    problems = [
        f"run {run.run_id} of {run.job}{f' on {run.day}' if run.day else ''} failed"
        for run in failed
    ]
    return Finding(
        "no_run_failed",
        not problems,
        _listed(problems) or "no unexplained failure",
        len(problems),
        0,
        rows,
    )


def api_serves_the_champion(
    version: str | None, bundle_sha256: str | None, url: str | None, answer: ApiAnswer | None
) -> Finding:
    """Check that the API serves the champion of the asset.

    Args:
        version: of the champion; None if there is none yet.
        bundle_sha256: of its bundle.
        url: of the API, for the message; None if there is none.
        answer: of the API; None if it was not called.
    """
    expected = f"version {version}"

    def finding(passed: bool, summary: str, observed: str) -> Finding:
        return Finding("api_serves_the_champion", passed, summary, observed, expected, 1)

    if answer is None:
        return finding(
            True,
            "no champion yet" if url else "not checked: the settings name no API",
            "not called",
        )
    if answer.problem is not None:
        return finding(
            False, f"the API at {url} cannot be reached: {answer.problem}", answer.problem
        )
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
    """Check that at most `limit` business days between the latest scored day and today are missing.

    Args:
        latest_day: latest scored day; None before the first.
        today: by the wall clock, UTC.
        weekdays: days of data, 1 Monday to 7 Sunday.
        limit: days that may be missing.
    """
    if latest_day is None:
        return Finding("data_is_fresh", True, "no day has been scored yet", 0, limit, 0)
    latest = date.fromisoformat(latest_day)
    between = max(0, (today - latest).days - 1)
    whole, rest = divmod(between, 7)
    tail = [latest + timedelta(days=whole * 7 + one) for one in range(1, rest + 1)]
    missing = whole * len(set(weekdays)) + sum(day.isoweekday() in weekdays for day in tail)
    passed = missing <= limit
    late = "" if passed else f"; {missing} business days are missing"
    return Finding(
        "data_is_fresh", passed, f"the latest scored day is {latest_day}{late}", missing, limit, 1
    )


def ask_api(url: str) -> ApiAnswer:
    """Read from an API's `/ready` which champion it serves."""
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
        return ApiAnswer(None, None, "the answer is not from this API")


def _listed(problems: Sequence[str]) -> str:
    rest = len(problems) - PROBLEMS_SHOWN
    return "; ".join(problems[:PROBLEMS_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")
