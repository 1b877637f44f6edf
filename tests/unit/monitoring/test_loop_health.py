"""Health of the loop, as a function of observations."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.monitoring.loop_health import (
    ApiAnswer,
    RunBeat,
    SensorBeat,
    api_serves_the_champion,
    data_is_fresh,
    no_run_hangs,
    sensors_tick,
)
from creditrisk_assets.settings import Settings

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("beat", "summary"),
    [
        (SensorBeat("s", 5, NOW - 10), "1 sensors tick"),
        (SensorBeat("s", 5, NOW - 126), "s last ticked 126 s ago"),
        (SensorBeat("s", 5, None), "s has never ticked; is the daemon running?"),
        (
            SensorBeat("s", 5, NOW, "Traceback\nValueError: no such file"),
            "s failed: ValueError: no such file",
        ),
        (SensorBeat("s", 5, NOW, ""), "s failed: no message"),
        (SensorBeat("s", 5, NOW, stopped=True), "s is stopped"),
    ],
)
def test_a_sensor_that_is_late_failed_or_was_stopped_is_named(
    beat: SensorBeat, summary: str
) -> None:
    found = sensors_tick([beat], NOW, 120)
    assert (found.summary, found.passed) == (summary, summary == "1 sensors tick")


def test_a_run_that_hangs_is_named() -> None:
    runs = [
        RunBeat("a", "retrain", None, "STARTED", NOW - 60),
        RunBeat("b", "score_production", "2026-02-01", "QUEUED", NOW - 9000),
    ]
    found = no_run_hangs(runs, NOW, 75)
    assert (found.passed, found.observed) == (False, 150.0)
    assert found.summary == "run b of score_production on 2026-02-01 is QUEUED for 150 min"
    assert no_run_hangs(runs[:1], NOW, 75).passed
    assert no_run_hangs([], NOW, 75).passed


def test_the_api_must_serve_the_version_and_the_bundle() -> None:
    def found(answer: ApiAnswer | None, url: str | None = "http://x") -> tuple[bool, str]:
        result = api_serves_the_champion("2", "b" * 64, url, answer)
        return result.passed, result.summary

    assert found(ApiAnswer("2", "b" * 64)) == (True, "the API serves version 2")
    assert found(ApiAnswer("1", "b" * 64))[0] is False
    assert (
        "serves version 2 with bundle aaaaaaaaaaaa; champion is version 2, bbbbbbbbbbbb"
        in found(ApiAnswer("2", "a" * 64))[1]
    )
    assert found(ApiAnswer(None, None, "ConnectError")) == (
        False,
        "the API at http://x cannot be reached: ConnectError",
    )
    assert found(None, None) == (True, "not checked: the settings name no API")
    assert found(None) == (True, "no champion yet")


def test_missing_data_is_counted_in_business_days() -> None:
    friday, monday = date(2026, 11, 20), date(2026, 11, 23)
    assert not data_is_fresh(friday.isoformat(), monday, range(1, 8), 1).passed
    assert data_is_fresh(friday.isoformat(), monday, range(1, 6), 0).passed
    late = data_is_fresh(friday.isoformat(), monday + timedelta(days=2), range(1, 6), 1)
    assert (late.passed, late.observed) == (False, 2)
    assert late.summary == "the latest scored day is 2026-11-20; 2 business days are missing"
    assert data_is_fresh(None, monday, range(1, 8), 0).passed
    assert data_is_fresh("2026-11-30", monday, range(1, 8), 0).passed


@given(
    st.dates(date(2020, 1, 1), date(2030, 1, 1)),
    st.integers(0, 60),
    st.sets(st.integers(1, 7), min_size=1),
)
def test_missing_days_are_counted_one_by_one(latest: date, days: int, weekdays: set[int]) -> None:
    today = latest + timedelta(days=days)
    between = [latest + timedelta(days=one) for one in range(1, days)]
    assert data_is_fresh(latest.isoformat(), today, weekdays, 0).observed == sum(
        one.isoweekday() in weekdays for one in between
    )


def test_a_webhook_is_an_http_address_and_is_not_shown() -> None:
    with pytest.raises(ValueError, match="begins with http"):
        Settings(alert_webhook="ftp://x")
    assert "token" not in repr(Settings(alert_webhook="https://x/token"))
