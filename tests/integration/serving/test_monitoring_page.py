"""The monitoring page: what the loop has done, as the API shows it, over real HTTP and from a real store."""

import html
import re
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from creditrisk_assets.defs.status import loop_status, status_for_people
from creditrisk_assets.monitoring.loop_status import LoopStatus
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.scenarios import risk_index, weighted_sample
from tests.support.loop import Loop, api, customers
from tests.support.policies import policy_of
from tests.support.trained import trained_loop

STABLE, SHIFTED = "2026-06-01", "2026-06-02"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A loop with a stable and a shifted day; the outcomes of the first have come."""
    loop = trained_loop(
        tmp_path_factory.mktemp("watched") / "site",
        tmp_path_factory,
        policy=policy_of({"reports.rows": 500}),
        dagster_url="http://dagster:3000",
    )
    stable, pool = customers(600, 61, 2_000_000), customers(4_000, 62, 3_000_000)
    shifted = weighted_sample(pool, risk_index(PORTFOLIO, pool), 800, np.random.default_rng(6))
    loop.land_day(STABLE, stable)
    loop.land_day(SHIFTED, shifted)
    loop.land_outcomes(STABLE, stable)
    loop.settle()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def client(watched: Loop) -> Iterator[httpx.Client]:
    with api(watched) as client:
        yield client


def said(content: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", content)).split())


def test_before_the_loop_has_written_anything_the_page_says_what_to_run(
    watched: Loop, client: httpx.Client
) -> None:
    """A new installation: the API is up before the daemon has ticked."""
    (watched.settings.reports / "status.json").unlink(missing_ok=True)
    page = client.get("/monitoring")
    assert page.status_code == 200
    assert "The loop has written nothing yet." in said(page.text)


def test_the_page_shows_the_champion_the_days_and_each_alarm_with_its_run(
    watched: Loop, client: httpx.Client
) -> None:
    watched.tick(status_for_people)
    content = client.get("/monitoring").text
    text = said(content)
    status = loop_status(watched.instance, watched.settings)
    assert "Champion version 1" in text
    assert status.retraining in text
    stable, shifted = status.days
    assert (stable.day, shifted.day) == (STABLE, SHIFTED)
    assert stable.roc_auc is not None
    assert f"{stable.roc_auc:.3f}" in text
    assert shifted.roc_auc is None
    assert "score_distribution_is_stable" in shifted.failed_checks
    for alarm in shifted.alarms:
        assert alarm.summary in text
        assert f'href="http://dagster:3000/runs/{alarm.run_id}"' in content
    assert watched.instance.get_run_by_id(str(shifted.alarms[0].run_id)) is not None
    assert f'href="/reports/drift/{SHIFTED}"' in content
    assert client.get(f"/reports/drift/{SHIFTED}").status_code == 200
    assert content.count("<svg") == 3


def test_each_verdict_is_linked_and_opens(watched: Loop, client: httpx.Client) -> None:
    watched.tick(status_for_people)
    events = loop_status(watched.instance, watched.settings).events
    (first,) = (event for event in events if event.verdict)
    assert first.kind == "first"
    verdict = client.get(f"/reports/verdicts/{first.verdict}")
    assert verdict.status_code == 200
    assert "script" not in verdict.headers["content-security-policy"]
    assert client.get(f"/reports/verdicts/{'0' * 64}").status_code == 404
    assert client.get("/reports/verdicts/..%2f..").status_code in (404, 422)


def test_nothing_is_fetched_from_another_host(client: httpx.Client) -> None:
    content = client.get("/monitoring").text
    assert not re.findall(r'(?:src|<link[^>]+href)="(?!/)', content)
    assert "<script" not in content


def test_a_status_that_cannot_be_read_is_said_and_the_api_goes_on(
    watched: Loop, client: httpx.Client
) -> None:
    (watched.settings.reports / "status.json").write_text('{"days": [')
    page = client.get("/monitoring")
    assert page.status_code == 200
    assert "cannot be read now" in said(page.text)
    loop_status(watched.instance, watched.settings).write(watched.settings.reports)


def test_it_is_written_again_only_when_something_has_happened(watched: Loop) -> None:
    watched.tick(status_for_people)
    first = LoopStatus.read(watched.settings.reports)
    watched.tick(status_for_people)
    assert LoopStatus.read(watched.settings.reports).written == first.written
    assert watched.run("score_production", STABLE).success
    watched.tick(status_for_people)
    assert LoopStatus.read(watched.settings.reports).written > first.written
