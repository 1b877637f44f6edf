"""The pages of monitoring in a real browser: five questions of an analyst, each in at most three clicks; the keyboard, a telephone,
the dark, no JavaScript, paper; axe.
"""

import re
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from creditrisk_assets.defs.alerts import record_and_deliver
from creditrisk_assets.defs.status import status_for_people
from creditrisk_assets.monitoring.day_documents import DriftDocument
from creditrisk_assets.monitoring.loop_status import LoopStatus
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.scenarios import risk_index, weighted_sample
from tests.support.browser import require_accessible, require_fitting, started_browser, visitor
from tests.support.loop import Loop, api, customers
from tests.support.trained import poorly_trained_loop, train

pytestmark = pytest.mark.chromium

STABLE, SHIFTED, AFTER = "2026-06-01", "2026-06-02", "2026-06-03"
VIEWS = [
    pytest.param({}, id="wide"),
    pytest.param({"color_scheme": "dark"}, id="dark"),
    pytest.param({"viewport": {"width": 390, "height": 844}, "has_touch": True}, id="telephone"),
    pytest.param({"forced_colors": "active", "reduced_motion": "reduce"}, id="high-contrast"),
]
PAGES = ("", f"/{STABLE}", f"/{SHIFTED}", "/versions", "/vintages", "/months/2026-06")


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A stable day, a shifted day whose alarms are open, a better version 2, and a day by it."""
    loop = poorly_trained_loop(tmp_path_factory.mktemp("monitored") / "site", tmp_path_factory)
    stable, pool = customers(600, 81, 2_000_000), customers(4_000, 82, 3_000_000)
    shifted = weighted_sample(pool, risk_index(PORTFOLIO, pool), 800, np.random.default_rng(8))
    loop.land_day(STABLE, stable)
    loop.land_day(SHIFTED, shifted)
    loop.land_outcomes(STABLE, stable)
    loop.settle()
    record_and_deliver(loop.instance, loop.settings)
    train(loop, poor=False)
    assert loop.champion().model_version == "2"
    later = [f"9{identifier}" for identifier in shifted[PORTFOLIO.identifier]]
    loop.land_day(AFTER, shifted.assign(**{PORTFOLIO.identifier: later}))
    loop.settle()
    record_and_deliver(loop.instance, loop.settings)
    loop.tick(status_for_people)
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def site(loop: Loop) -> Iterator[str]:
    with api(loop) as client:
        yield str(client.base_url).rstrip("/")


@pytest.fixture(scope="module")
def browser(site: str) -> Iterator[Browser]:  # started after the site is made
    with started_browser() as started:
        yield started


@pytest.fixture
def context(
    browser: Browser, site: str, request: pytest.FixtureRequest
) -> Iterator[BrowserContext]:
    with visitor(browser, site, **getattr(request, "param", {})) as context:
        yield context


@pytest.fixture
def page(context: BrowserContext, site: str) -> Page:
    opened = context.new_page()
    opened.goto(f"{site}/monitoring")
    return opened


@pytest.mark.parametrize("context", VIEWS, indirect=True)
def test_axe_finds_nothing_on_any_page_and_nothing_is_wider_than_the_screen(
    context: BrowserContext, site: str
) -> None:
    page = context.new_page()
    for address in PAGES:
        page.goto(f"{site}/monitoring{address}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        require_fitting(page)
        require_accessible(page)


@pytest.mark.parametrize("context", [{"java_script_enabled": False}], indirect=True)
def test_without_a_script_nothing_is_missing(page: Page, site: str) -> None:
    expect(page.get_by_role("slider")).to_have_count(0)
    expect(page.get_by_role("img", name="PSI of the score")).to_be_visible()
    page.get_by_label("Version").select_option("2")
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(re.compile("version=2"))
    page.get_by_role("rowheader", name=AFTER).get_by_role("link").click()
    expect(page).to_have_url(f"{site}/monitoring/{AFTER}")
    closed = page.locator("details.field:not([open]) summary").first
    label = closed.locator("strong").inner_text()
    closed.click()
    expect(page.get_by_role("table", name=f"{label}: share of the rows")).to_be_visible()


def test_the_error_page_is_a_page(browser: Browser, site: str) -> None:
    page = browser.new_page()
    answer = page.goto(f"{site}/monitoring/2020-01-01")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("note")).to_contain_text("2020-01-01 has not landed")
    require_accessible(page)
    page.get_by_role("main").get_by_role("link", name="Monitoring").click()
    expect(page).to_have_url(f"{site}/monitoring")
    page.close()


def test_which_field_moved_most_on_the_day_of_the_first_alert_and_how(
    page: Page, site: str, loop: Loop
) -> None:
    """One click: the day of the alert."""
    page.get_by_text(re.compile(r"\d+ closed alerts?, the newest first")).click()
    alert = page.get_by_role("region", name="Closed alerts").get_by_role(
        "row", name=re.compile("The score has shifted")
    )
    alert.get_by_role("link").first.click()
    expect(page).to_have_url(f"{site}/monitoring/{STABLE}")
    drift = DriftDocument.read(loop.settings.reports, STABLE)
    assert drift is not None
    most = drift.fields[0]
    first = page.locator("details.field").first
    expect(first.locator("summary")).to_contain_text(f"{most.label} PSI")
    rows = first.get_by_role("row")
    assert rows.count() == 1 + len(most.bins)
    expect(rows.nth(1)).to_contain_text(most.bins[0].values)


def test_whether_it_was_one_segment(page: Page, site: str) -> None:
    """One click: the day of the alert has every segment with its verdict."""
    alert = page.get_by_role("region", name="Alerts").get_by_role(
        "row", name=re.compile("segments_are_stable")
    )
    alert.get_by_role("link").first.click()
    expect(page).to_have_url(f"{site}/monitoring/{AFTER}")
    expect(page.get_by_role("heading", name="Segments")).to_be_visible()
    failed = page.locator("details.field[open]").filter(has_text=re.compile("alert, p "))
    expect(failed.first.get_by_role("region", name=re.compile("^Segments by "))).to_be_visible()


def test_what_the_loop_did_and_why(page: Page) -> None:
    """No click for the reason, one for the verdict."""
    events = page.get_by_role("region", name="Retrains and moves of the champion")
    promoted = events.get_by_role("row", name=re.compile("promoted"))
    expect(promoted).to_contain_text("AUC")
    promoted.get_by_role("link", name="verdict").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Version 2")


def test_whether_the_present_champion_is_better_since_then(page: Page) -> None:
    """One click."""
    page.get_by_role("link", name="Versions").click()
    auc = page.get_by_role("row", name=re.compile("^AUC"))
    left, right = (
        float(auc.get_by_role("cell").nth(place).inner_text().split()[0]) for place in (0, 1)
    )
    assert right > left
    expect(auc.locator("strong")).to_have_text(f"{right:.4f}")
    expect(page.get_by_role("region", name="In production").get_by_role("row")).to_have_count(3)


def test_who_acknowledged_what(page: Page, loop: Loop) -> None:
    """A person takes care of an alarm by the keyboard, and the page says so at once, without the loop."""
    row = page.locator("table.episodes").first.get_by_role("row").nth(1)
    identity = str(row.get_attribute("id")).removeprefix("alert-")
    row.get_by_text("Take care of it").focus()
    page.keyboard.press("Enter")
    row.get_by_label("Reason").first.focus()
    page.keyboard.type("asked the source")
    page.keyboard.press("Enter")
    expect(page.locator(f"#alert-{identity}")).to_contain_text("acknowledged by anonymous")
    expect(page.locator(f"#alert-{identity}")).to_contain_text("asked the source")
    status = LoopStatus.read(loop.settings.reports, loop.settings.episodes)
    (cared_for,) = (one for one in status.episodes if one.id == identity)
    assert cared_for.acknowledged_reason == "asked the source"


def test_a_day_is_read_by_the_keyboard_and_by_touch(page: Page) -> None:
    slider = page.get_by_role("slider", name="Day")
    readout = page.locator("#readout")
    expect(readout).to_contain_text(f"{AFTER}: Rows 800")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(readout).to_contain_text(f"{SHIFTED}: Rows 800")
    expect(slider).to_have_attribute("aria-valuetext", SHIFTED)
    chart = page.get_by_role("img", name="Customers")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.12, box["y"] + box["height"] / 2)
    expect(readout).to_contain_text(f"{STABLE}: Rows 600")


def test_the_range_and_the_version_choose_the_days(page: Page, site: str) -> None:
    page.get_by_label("Version").select_option("1")
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(re.compile("version=1"))
    expect(page.get_by_role("rowheader", name=SHIFTED)).to_be_visible()
    expect(page.get_by_role("rowheader", name=AFTER)).to_have_count(0)
    with page.expect_download() as download:
        page.get_by_role("link", name="these days").click()
    lines = download.value.path().read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["day", STABLE, SHIFTED]
    assert site


def test_a_month_is_printed_as_pdf(page: Page, site: str) -> None:
    page.goto(f"{site}/monitoring/months/2026-06")
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    page.emulate_media(media="print")
    expect(page.locator("nav").first).to_be_hidden()
