"""What the monitoring page says is so, whatever the loop has been through."""

import datetime
import html
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException
from fastapi.routing import APIRoute

from creditrisk_assets.cli.common import console
from creditrisk_assets.cli.operations import show_status
from creditrisk_assets.monitoring.episodes import (
    Acknowledgement,
    EpisodeList,
    EpisodeRecord,
    Reaction,
    react,
)
from creditrisk_assets.monitoring.loop_status import (
    DayStatus,
    Event,
    FailedCheck,
    LoopStatus,
)
from creditrisk_assets.scoring.bundle import ChampionRecord, DecisionRule
from creditrisk_assets.settings import Settings
from serving.pages.monitoring_page import monitoring_router

FALLEN = FailedCheck(
    check="ranking_is_as_at_validation",
    failure="Discrimination is down",
    tier="look today",
    summary="Discrimination is down: AUC 0.6460, limit 0.7330, the day alone",
    run_id=None,
)


def champion(version: str) -> ChampionRecord:
    return ChampionRecord(
        mlflow_uri=f"models:/credit_default/{version}",
        artifact_uri="x",
        model_version=version,
        bundle_sha256="b" * 64,
        verdict="rejected",
        reason="version 3 is no better",
        rule=DecisionRule(cut_off=0.2, reference=[]),
        in_force_verdict="promoted",
        in_force_reason="version 2 is better",
    )


def status(version: str = "2", **more: Any) -> LoopStatus:
    values: dict[str, Any] = {
        "written": 1.0,
        "champion": champion(version),
        "champion_since": 1.0,
        "champion_because": "version 2 is better",
        "retraining": "no open cause",
        "checks": 20,
        "checks_run": 20,
        "days": (),
        "events": (),
        "runs_in_flight": (),
        "failed_runs": (),
        "sensors": (),
        "landing_problems": (),
        "dagster_url": "",
        "mlflow_url": "",
    }
    return LoopStatus(**(values | more))


def day(name: str, version: str | None, validation: float | None = None, **more: Any) -> DayStatus:
    return DayStatus(
        day=name, model_version=version, validation_roc_auc=validation, roc_auc=0.7, **more
    )


def page(folder: Path, seen: LoopStatus, **query: str) -> str:
    settings = Settings(data_dir=folder)
    seen.write(settings.reports)
    (route,) = [
        one
        for one in monitoring_router(settings).routes
        if isinstance(one, APIRoute) and one.path == "/monitoring"
    ]
    return bytes(route.endpoint(**query).body).decode()


def said(content: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", content)).split())


def terminal(seen: LoopStatus) -> str:
    """What `creditrisk status` prints."""
    with console.capture() as printed:
        show_status(seen)
    return " ".join(printed.get().split())


def episode(number: int, **more: Any) -> EpisodeRecord:
    values: dict[str, Any] = {
        "id": f"{number:032x}",
        "asset": "performance_report",
        "check": FALLEN.check,
        "failure": FALLEN.summary,
        "tier": FALLEN.tier,
        "opened_at": 1.0,
        "opened_day": "2026-05-01",
        "latest_day": "2026-05-03",
        "failures": 3,
    }
    return EpisodeRecord(**(values | more))


def write_episodes(folder: Path, *episodes: EpisodeRecord) -> None:
    EpisodeList(episodes=episodes).write(Settings(data_dir=folder).episodes)


def test_alarms_about_days_of_former_champions_are_apart_from_open_ones() -> None:
    """Nineteen alarms used to be listed under "Alarms that stand: 0"."""
    days = tuple(day(f"2026-05-{number:02d}", "1", alarms=(FALLEN,)) for number in range(1, 20))
    seen = status(days=days)
    assert (len(seen.open_alarms), len(seen.former_alarms)) == (0, 19)
    told = terminal(seen)
    assert "no open alarm; 20 of 20 checks have run" in told
    assert "19 alarms about days of former champions: 19 days: 2026-05-01, " in told


def test_an_alarm_is_one_line_that_says_what_is_wrong_and_not_what_would_be_right(
    tmp_path: Path,
) -> None:
    days = tuple(day(f"2026-05-0{number}", "2", alarms=(FALLEN,)) for number in (1, 2, 3))
    write_episodes(tmp_path, episode(1), episode(2, closed_at=9.0, closed_by="version 2 decides"))
    content = page(tmp_path, status(days=days))
    assert "Open alerts 1 and 1 closed" in said(content)
    (opened, closed) = said(content).split("1 closed alert, the newest first")
    assert opened.count("Discrimination is down: AUC 0.6460, limit 0.7330, the day alone") == 1
    assert "2026-05-01 to 2026-05-03 3 failures" in opened
    assert "version 2 decides" in closed
    assert "ranking is as at validation" not in said(content)
    told = terminal(status(days=days[:1]))
    assert "alarm on 2026-05-01 (look today): Discrimination is down: AUC 0.6460" in told


def test_a_person_sees_who_acknowledged_an_alarm_and_why(tmp_path: Path) -> None:
    cared_for = episode(1)
    write_episodes(tmp_path, cared_for)
    reaction = Reaction.of(Acknowledgement(reason="the source was late"), "ana", "command")
    react(Settings(data_dir=tmp_path).episodes, cared_for.id, reaction)
    text = said(page(tmp_path, status()))
    assert re.search(r"acknowledged by ana, \d{4}-\d\d-\d\d \d\d:\d\d : the source was late", text)


def test_each_version_has_its_own_line_at_validation(tmp_path: Path) -> None:
    days = (
        day("2026-05-01", "1", 0.71),
        day("2026-05-02", "1", 0.71),
        day("2026-05-03", "2", 0.78),
    )
    content = page(tmp_path, status(days=days))
    lines = [
        line
        for line in re.findall(
            r'<line class="level-line" x1="([\d.]+)" x2="([\d.]+)".*?<title>(.*?)</title>', content
        )
        if "validation" in line[2]
    ]
    assert [text for _, _, text in lines] == [
        "version 1 at validation 0.710",
        "version 2 at validation 0.780",
    ]
    assert float(lines[0][0]) < float(lines[0][1]) == float(lines[1][0]) < float(lines[1][1])


def test_a_rejected_retrain_is_drawn_as_the_page_says(tmp_path: Path) -> None:
    rejected = Event(
        at=2.0,
        day="2026-05-02",
        kind="rejected",
        action="refit",
        text="no better",
        model_version="2",
        challenger="3",
    )
    unjudged = Event(
        at=3.0, day="2026-05-03", kind="unchanged", text="nothing to judge", model_version="2"
    )
    days = tuple(day(f"2026-05-0{number}", "2") for number in (1, 2, 3))
    content = page(tmp_path, status(days=days, events=(unjudged, rejected)))
    assert content.count('<line class="mark tried"') == 1
    assert "<title>2026-05-02: challenger rejected, version 3</title>" in content


def test_before_any_check_has_run_none_is_said_to_have_passed(tmp_path: Path) -> None:
    seen = status(checks_run=0)
    assert "No check has run yet." in said(page(tmp_path, seen))
    assert "passed" not in said(page(tmp_path, seen))
    assert "no open alarm; 0 of 20 checks have run" in terminal(seen)
    text = said(page(tmp_path, status(checks_run=12)))
    assert "No open alert. 12 of 20 checks have run." in text


def test_days_that_landed_and_were_not_scored_are_counted(tmp_path: Path) -> None:
    seen = status(waiting_days=tuple(f"2026-05-{number:02d}" for number in range(1, 13)))
    text = said(page(tmp_path, seen))
    assert "No day has landed yet" not in text
    assert "12 days have landed, and none was scored yet." in text
    assert "12 landed and not scored yet: 2026-05-01, " in text
    assert "and 2 more" in text
    told = terminal(seen)
    assert "landed and not scored yet: 12 days: 2026-05-01, " in told
    assert "none landed" not in told


def test_the_champion_is_shown_with_why_it_is_champion() -> None:
    told = terminal(status())
    assert "UTC, version 2 is better" in told
    assert "version 3 is no better" not in told


def test_figures_are_shown_with_the_digits_that_make_their_comparison_true(tmp_path: Path) -> None:
    seen = status(
        days=(day("2026-05-01", "2", score_psi_judged=0.0244, score_psi_threshold=0.0239),)
    )
    assert "0.0244 0.0239" in said(page(tmp_path, seen))


def test_the_page_shows_the_days_of_its_range_and_version(tmp_path: Path) -> None:
    days = tuple(
        day(f"2026-05-{number:02d}", "1" if number < 20 else "2") for number in range(1, 31)
    )

    def listed(**query: str) -> list[str]:
        content = page(tmp_path, status(days=days), **query)
        return re.findall(r'<th scope="row"><a href="/monitoring/([\d-]+)">', content)

    assert len(listed()) == 30
    assert listed(first="2026-05-29") == ["2026-05-30", "2026-05-29"]
    assert listed(first="2026-05-18", last="2026-05-21", version="1") == [
        "2026-05-19",
        "2026-05-18",
    ]
    assert listed(last="0001-01-01") == []  # a year that nothing lies before
    for query, valid in (
        ({"first": "yesterday"}, "from is 'yesterday'; valid: a day as YYYY-MM-DD"),
        ({"last": "2026-02-30"}, "to is '2026-02-30'; valid: a day as YYYY-MM-DD"),
        ({"first": "2026-06-01", "last": "2026-05-01"}, "valid: a day up to 2026-05-01"),
    ):
        with pytest.raises(HTTPException, match=re.escape(valid)):
            page(tmp_path, status(days=days), **query)


def test_four_hundred_days_are_less_than_300_kilobytes(tmp_path: Path) -> None:
    first = datetime.date(2025, 1, 1)
    days = tuple(
        day(
            (first + datetime.timedelta(days=number)).isoformat(),
            str(1 + number // 50),
            0.77,
            rows=5_000,
            rejected=12,
            approved=3_456,
            score_psi_judged=0.0123,
            score_psi_threshold=0.0245,
            drifted_columns=3,
            estimated_roc_auc=0.7712,
            estimated_roc_auc_standard_error=0.004,
            roc_auc_standard_error=0.008,
            matured=4_000,
            pending=900,
            missing=100,
            mean_pd=0.2132,
            bad_rate=0.2211,
            matured_expected_loss=16_369_129.4,
            realised_loss=17_160_000.0,
        )
        for number in range(400)
    )
    content = page(tmp_path, status(days=days), first=days[0].day)
    assert content.count('<th scope="row"><a href="/monitoring/') == 400
    assert content.count("<svg") == 6
    assert "<circle" not in content
    assert len(content.encode()) < 300_000
