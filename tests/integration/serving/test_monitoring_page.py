"""The monitoring page: what the loop has done, as the API shows it, over real HTTP and from a real store."""

import html
import io
import re
from collections.abc import Iterator

import httpx
import numpy as np
import pandas as pd
import pytest

from creditrisk_assets.defs.alerts import record_and_deliver
from creditrisk_assets.defs.status import loop_status, status_for_people
from creditrisk_assets.monitoring.day_documents import DriftDocument
from creditrisk_assets.monitoring.loop_status import LoopStatus
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.scenarios import risk_index, weighted_sample
from serving.pages.templating import label_fields
from tests.support.loop import Loop, api, customers
from tests.support.policies import policy_of
from tests.support.trained import trained_loop

LABELS = {field.name: field.label for field in PORTFOLIO.fields}
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
    of_day = client.get(f"/monitoring/{SHIFTED}").text
    for alarm in shifted.alarms:
        assert label_fields(alarm.summary, LABELS) in said(of_day)
        assert f'href="http://dagster:3000/runs/{alarm.run_id}"' in of_day
    assert watched.instance.get_run_by_id(str(shifted.alarms[0].run_id)) is not None
    assert f'href="/reports/drift/{SHIFTED}"' in of_day
    assert client.get(f"/reports/drift/{SHIFTED}").status_code == 200
    assert content.count("<svg") == 6
    assert shifted.approved is not None
    assert stable.realised_loss is not None


def test_an_alarm_of_the_loop_is_one_line_of_the_page(watched: Loop, client: httpx.Client) -> None:
    record_and_deliver(watched.instance, watched.settings)
    watched.tick(status_for_people)
    content = client.get("/monitoring").text
    (score,) = (
        one
        for one in LoopStatus.read(watched.settings.reports, watched.settings.episodes).episodes
        if one.check == "score_distribution_is_stable"
    )
    assert content.count(f'id="alert-{score.id}"') == 1
    assert label_fields(score.failure, LABELS) in said(content)
    assert re.search("(Watch|Act) Version 1 since", said(content))


def test_the_page_of_a_day_has_each_field_then_and_now(watched: Loop, client: httpx.Client) -> None:
    text = said(client.get(f"/monitoring/{SHIFTED}").text)
    drift = DriftDocument.read(watched.settings.reports, SHIFTED)
    assert drift is not None
    frame = watched.frame("drift_report", SHIFTED).set_index("column")
    for column in drift.columns:
        assert column.psi == frame.loc[column.name, "value"]
        for side in ("training", "day"):
            assert sum(getattr(one, side) for one in column.bins) == pytest.approx(1, abs=1e-3)
    first = drift.fields[0]
    assert f"{first.label} PSI" in text
    worst = frame.iloc[1:].assign(times=frame["pooled_value"] / frame["threshold"])["times"]
    assert first.name == worst.idxmax()
    assert f"{len(customers(600, 61))} decisions" in said(client.get(f"/monitoring/{STABLE}").text)
    assert "no outcomes yet" in text
    assert client.get("/monitoring/2020-01-01").status_code == 404
    assert client.get("/monitoring/yesterday").status_code == 422


def test_each_table_can_be_taken_away_as_csv(watched: Loop, client: httpx.Client) -> None:
    days = pd.read_csv(io.StringIO(client.get("/monitoring/days.csv").text))
    assert days["day"].tolist() == [STABLE, SHIFTED]
    status = loop_status(watched.instance, watched.settings)
    assert days["score_psi"].tolist() == pytest.approx([day.score_psi for day in status.days])
    drift = pd.read_csv(io.StringIO(client.get(f"/monitoring/{SHIFTED}/drift.csv").text))
    assert set(drift["name"]) == {"score", *PORTFOLIO.field_names}
    for name in ("files", "groups", "decisions"):
        table = client.get(f"/monitoring/{SHIFTED}/{name}.csv")
        assert table.headers["content-type"] == "text/csv; charset=utf-8"
        assert len(table.text.splitlines()) > 1
    grades = pd.read_csv(io.StringIO(client.get(f"/monitoring/{STABLE}/grades.csv").text))
    assert grades["customers"].sum() == status.days[0].matured
    assert client.get(f"/monitoring/{SHIFTED}/grades.csv").status_code == 404
    unknown = client.get(f"/monitoring/{SHIFTED}/secrets.csv")
    assert unknown.status_code == 404
    assert "valid: drift, rejected, files" in unknown.json()["detail"]
    assert client.get("/monitoring/events.csv").text.count("first") >= 1
    assert client.get("/monitoring/alerts.csv").status_code == 200
    assert client.get("/monitoring.json").json()["champion"]["model_version"] == "1"


def test_the_versions_are_compared_on_the_same_customers(
    watched: Loop, client: httpx.Client
) -> None:
    text = said(client.get("/monitoring/versions").text)
    metrics = watched.bundle().manifest.metrics
    assert f"{metrics['rows']:,.0f} customers" in text
    assert f"AUC {metrics['roc_auc']:.4f}" in text
    assert client.get("/monitoring/versions?left=7").status_code == 422
    worth = said(client.get("/").text)
    assert re.search(
        r"Worth On 1,\d\d\d held-out customers the flagged \(\d+\.\d\d.%\) cost", worth
    )


def test_the_report_of_a_month_has_its_days(client: httpx.Client) -> None:
    text = said(client.get("/monitoring/months/2026-06").text)
    assert f"2 days of data, {STABLE} to {SHIFTED}" in text
    assert client.get("/monitoring/months/2026-07").status_code == 404
    assert client.get("/monitoring/months/2026-13").status_code == 422


def test_a_browser_gets_errors_as_pages_and_a_program_as_documents(client: httpx.Client) -> None:
    page = client.get("/monitoring/2020-01-01", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "style-src 'self'" in page.headers["content-security-policy"]
    assert "2020-01-01 has not landed" in said(page.text)
    assert page.headers["x-request-id"] in page.text
    nowhere = client.get("/<script>alert(1)</script>", headers={"Accept": "text/html"})
    assert nowhere.status_code == 404
    assert "<script>" not in nowhere.text
    document = client.get("/monitoring/2020-01-01")
    assert document.headers["content-type"] == "application/problem+json"
    refused = client.post("/predict", content=b"{", headers={"Accept": "application/json"})
    assert refused.headers["content-type"] == "application/problem+json"


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
    assert re.findall(r"<script[^>]*>", content) == ['<script src="/static/monitoring.js" defer>']


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
