"""The page in a real browser: by mouse, by keyboard alone, without JavaScript, in the dark, on a telephone; checked with axe.

The browser is Chromium, named by CREDITRISK_TEST_CHROMIUM or found on the path.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from creditrisk_assets.defs.status import status_for_people
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from tests.support.browser import require_accessible, started_browser, visitor
from tests.support.loop import Loop, api, customers
from tests.support.policies import policy_of
from tests.support.trained import trained_loop

pytestmark = pytest.mark.chromium

ANSWER = re.compile(
    r"PD \d+\.\d\d.%, \d{3}\.\d points: by the cut-off (not flagged|flagged)\.\s+(\d|No) reasons? given\."
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an API with a champion, its card, its curves and a history."""
    loop = trained_loop(
        tmp_path_factory.mktemp("page") / "site",
        tmp_path_factory,
        policy=policy_of({"reports.rows": 1_000}),
    )
    landed = customers(400, 71, 2_000_000)
    for day in ("2026-06-01", "2026-06-02"):
        loop.land_day(day, landed)
    loop.land_outcomes("2026-06-01", landed)
    loop.settle()
    loop.tick(status_for_people)
    with api(loop) as client:
        yield str(client.base_url).rstrip("/")
    loop.instance.dispose()


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
    opened.goto(site)
    return opened


def fill_in_example(page: Page) -> None:
    for field in PORTFOLIO.fields:
        value = str(PORTFOLIO.example[field.name])
        if field.codes is not None:
            page.locator(f"#field-{field.name}").select_option(value)
        else:
            page.locator(f"#field-{field.name}").fill(value)


def test_a_person_fills_the_form_and_reads_what_the_model_says(page: Page, site: str) -> None:
    fill_in_example(page)
    page.get_by_role("button", name="See the model's answer").click()
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    answer = page.request.post(f"{site}/predict", data=dict(PORTFOLIO.example)).json()
    result = page.get_by_role("region", name="The model's answer")
    expect(result).to_contain_text(
        f"{answer['default_probability']:.2%}".replace("%", "\N{NO-BREAK SPACE}%")
    )
    expect(result).to_contain_text(f"{answer['score']:.1f} points")
    for reason in answer["reasons"]:
        expect(result).to_contain_text(reason["text"])
    result.get_by_text(re.compile("fields? changed")).first.click()
    expect(result.get_by_role("columnheader", name="Instead").first).to_be_visible()
    scale = result.get_by_role("img", name="Score on its scale")
    expect(scale).to_be_visible()
    expect(scale).to_have_accessible_description(
        re.compile(r"points on a scale from .* The cut-off is at")
    )
    assert page.url.rstrip("/") == site  # the answer came in place


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    """Tab through the page as somebody does who has no mouse."""
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    for name in ("Good", "Borderline", "Bad"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name=name, exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    bad = page.get_by_role("status").inner_text()
    fields = [name for reason in PORTFOLIO.reasons for name in reason.fields] + list(
        PORTFOLIO.protected
    )
    for name in fields:
        page.keyboard.press("Tab")
        expect(page.locator(f"#field-{name}")).to_be_focused()
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        if name in PORTFOLIO.reasons[0].fields:
            page.keyboard.press("Home")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#problems")).to_contain_text(
        "6 fields do not satisfy the contract"
    )  # "Choose" was chosen
    expect(page.locator("#outcome")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(f"#field-{fields[0]}")).to_be_focused()
    for name in fields[: len(PORTFOLIO.reasons[0].fields)]:
        expect(page.locator(f"#field-{name}")).to_be_focused()
        page.keyboard.type("paid")
        page.keyboard.press("Tab")
    page.locator(f"#field-{fields[-1]}").press("Enter")
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    assert page.get_by_role("status").inner_text() != bad


@pytest.mark.parametrize(
    "context",
    [
        pytest.param({}, id="wide"),
        pytest.param({"color_scheme": "dark"}, id="dark"),
        pytest.param({"viewport": {"width": 360, "height": 740}}, id="telephone"),
        pytest.param({"forced_colors": "active", "reduced_motion": "reduce"}, id="high-contrast"),
    ],
    indirect=True,
)
def test_axe_finds_nothing_in_any_state_and_nothing_is_wider_than_the_screen(page: Page) -> None:
    require_accessible(page)
    page.get_by_role("link", name="Bad", exact=True).click()
    expect(page.get_by_role("status")).to_have_text(ANSWER)
    for summary in page.locator("summary").all():
        summary.click()
    require_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_label("Age", exact=True).fill("<b>ninety</b>" * 20)
    page.get_by_role("button").click()
    expect(page.locator("#outcome")).to_be_focused()
    expect(page.locator("#problems")).to_contain_text("1 field does not satisfy the contract")
    assert page.title().startswith("Error: 1 to correct")
    require_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.get_by_label("Age", exact=True).input_value().startswith("<b>ninety</b>")


@pytest.mark.parametrize("context", [{"java_script_enabled": False}], indirect=True)
def test_without_javascript_it_does_the_same(page: Page, site: str) -> None:
    page.get_by_role("link", name="Borderline").click()
    expect(page).to_have_url(f"{site}/?example=borderline#outcome")
    expect(page.locator("#result")).to_contain_text("Probability of default")
    page.locator("#field-age").fill("")
    page.get_by_role("button").click()
    expect(page.locator("#problems")).to_contain_text(
        "Age: missing; valid: a whole number from 18 to 120 (years)"
    )
    expect(page.locator("#outcome")).to_be_focused()
    page.locator("#field-age").fill("40")
    page.get_by_role("button").click()
    expect(page.locator("#outcome")).to_contain_text("Probability of default")
    expect(page.locator("#outcome")).to_be_in_viewport()


def test_before_there_is_a_champion_the_page_says_what_to_run(
    browser: Browser, tmp_path: Path
) -> None:
    with api(Loop.of(tmp_path / "site")) as client:
        page = browser.new_page()
        page.goto(str(client.base_url))
        expect(page.get_by_role("note")).to_contain_text("There is no champion yet. Run make train")
        require_accessible(page)
        fill_in_example(page)
        page.get_by_role("button").click()
        expect(page.locator("#result")).to_contain_text("No answer yet: no champion is loaded")
        assert page.locator("#field-age").input_value() == str(PORTFOLIO.example["age"])
        page.close()


def test_curves_are_shown_and_the_card_opens(page: Page) -> None:
    curves = page.locator("figure img")
    assert curves.count() == 6
    for curve in curves.all():
        curve.scroll_into_view_if_needed()
        expect(curve).to_have_js_property("complete", True)
        assert curve.evaluate("image => image.naturalWidth") > 100
    expect(page.get_by_role("table").last).to_contain_text("first champion")
    page.get_by_role("link", name="Read the model card").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(
        "Model card: credit_default, version 1"
    )
    assert (
        page.evaluate("getComputedStyle(document.querySelector('main')).maxWidth") != "none"
    )  # its own style is let through
