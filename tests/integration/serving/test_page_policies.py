"""In a real browser: pages work under the policies that the gateway sends, and load nothing from another host."""

import shutil
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from fastapi.responses import HTMLResponse
from fastapi_offline import FastAPIOffline
from playwright.sync_api import Page, Request, sync_playwright

from creditrisk_assets.monitoring.evidently_report import ReportColumn, evidently_report
from creditrisk_assets.settings import ServingSettings
from serving.access.keys import KeyRing
from serving.access.rules import route_table
from tests.support.servers import gateway, served

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def sides() -> tuple[pd.DataFrame, pd.DataFrame]:
    random = np.random.default_rng(1)
    return tuple(pd.DataFrame({"score": random.normal(mean, 30, 500)}) for mean in (550, 520))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    reference, day = sides()
    report = evidently_report(reference, day, [ReportColumn("score", 0.1, 0.2, drifted=False)]).html
    app = FastAPIOffline(title="creditrisk")

    @app.get("/reports/drift/{day}", response_class=HTMLResponse)
    def drift(day: str) -> str:
        return report

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return "<title>page</title><p id=told>before</p><script>document.getElementById('told').textContent = 'after'</script>"

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "alive"}

    ring = KeyRing(tmp_path_factory.mktemp("pages") / "none.json")
    with served(gateway(app, route_table(ServingSettings()), ring)) as port:
        yield f"http://127.0.0.1:{port}"


class Watched:
    """A page, what its console complained of, and what it asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on(
            "console",
            lambda message: (
                self.complaints.append(message.text) if message.type == "error" else None
            ),
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._asked)

    def _asked(self, request: Request) -> None:
        self.asked.append(request.url)


@pytest.fixture(scope="module")
def browser_page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


@pytest.fixture
def watched(browser_page: Page) -> Watched:
    browser_page.goto("about:blank")
    return Watched(browser_page)


def no_other_host(watched: Watched, address: str) -> bool:
    return all(url.startswith((address, "data:", "blob:")) for url in watched.asked)


def test_the_documentation_can_be_tried_out(watched: Watched, address: str) -> None:
    watched.page.goto(f"{address}/docs")
    watched.page.locator("#operations-default-health_health_get").click()
    watched.page.get_by_role("button", name="Try it out").click()
    watched.page.get_by_role("button", name="Execute").click()
    watched.page.get_by_text('"alive"').first.wait_for()
    assert watched.complaints == []
    assert no_other_host(watched, address)


def test_redoc_is_shown(watched: Watched, address: str) -> None:
    watched.page.goto(f"{address}/redoc")
    watched.page.get_by_role("heading", name="creditrisk").first.wait_for()
    watched.page.wait_for_load_state("networkidle")
    # The page would fetch a picture of its makers from their host; the policy keeps it from that.
    assert all(
        "cdn.redoc.ly/redoc/logo-mini.svg" in complaint for complaint in watched.complaints
    ), watched.complaints


def test_an_evidently_report_draws_itself_and_can_ask_the_api_nothing(
    watched: Watched, address: str
) -> None:
    watched.page.goto(f"{address}/reports/drift/2026-01-01")
    watched.page.get_by_text("Drift is detected for").wait_for()
    watched.page.locator("tbody button").first.click()  # opens the picture of a column
    watched.page.locator(".js-plotly-plot").first.wait_for()
    assert watched.complaints == []
    assert no_other_host(watched, address)
    asked = "fetch('/health').then(() => 'told', () => 'refused')"
    assert watched.page.evaluate(asked) == "refused"
    assert watched.page.evaluate("window.origin") == "null"


def test_a_script_that_got_into_the_page_does_not_run(watched: Watched, address: str) -> None:
    watched.page.goto(address)
    assert watched.page.locator("#told").text_content() == "before"
    assert any("Content Security Policy" in complaint for complaint in watched.complaints)
