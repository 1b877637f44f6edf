"""Takes the pictures of the documents from a running system: `python -m tools.screenshots`, or
`make pictures`.

The pictures in docs/images show a store of its own beside a running `creditrisk dev`:

    creditrisk train
    creditrisk simulate --days 10 --rows 800 --start 2026-11-18
    creditrisk simulate --days 1 --rows 800 --scenario covariate-shift --seed 2 --start 2026-11-28
    python -m tools.screenshots page page-model page-dark monitoring day
    creditrisk retrain
    python -m tools.screenshots graph

Chromium is named by CREDITRISK_TEST_CHROMIUM or found on the path.
"""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, FloatRect, Page, expect, sync_playwright

IMAGES = Path(__file__).parent.parent / "docs" / "images"
BYTES_LIMIT = 400 * 1024
"""A page with all pictures stays quick to load, and the repository small."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
WAIT_MS = 60_000
"""Dagster's UI loads its graph in steps; on a busy machine that takes tens of seconds."""

LAYOUT_MS = 3_000
"""The time in which Dagster's UI moves the graph to its place after the layout has changed."""

GRAPH_GROUPS = "Alt+E"
"""Dagster's key that expands all groups of the asset graph."""

GRAPH_FRAME = FloatRect(x=68, y=110, width=1_838, height=950)
"""The canvas of the graph in the window of `Picture.size`, without the toolbars around it."""

GRAPH_DOWN = 20
"""Pixels by which the graph is moved away from the upper edge of the frame."""


@dataclass(frozen=True)
class Addresses:
    """The addresses of the running system."""

    api: str
    dagster: str


@dataclass(frozen=True)
class Picture:
    """A picture: the size of the window, and the way to its content.

    Attributes:
        size: width and height of the window in pixels.
        open: opens the page and brings the content into view.
        frame: the part of the window that is taken; None for all of it.
        dark: whether the browser asks for dark pages.
    """

    size: tuple[int, int]
    open: Callable[[Page, Addresses], None]
    frame: FloatRect | None = None
    dark: bool = False


def open_graph(page: Page, addresses: Addresses) -> None:
    """The asset graph, all groups expanded."""
    page.goto(f"{addresses.dagster}/asset-groups")
    page.get_by_text("Hide navigation").click()
    page.get_by_role("button").filter(has=page.get_by_label("panel_show_right")).click()
    page.keyboard.press(GRAPH_GROUPS)
    expect(page.get_by_text("performance_report").first).to_be_visible()
    page.wait_for_timeout(LAYOUT_MS)
    empty = (GRAPH_FRAME["x"] + GRAPH_FRAME["width"] - 200, GRAPH_FRAME["y"] + 100)
    page.mouse.move(*empty)
    page.mouse.down()
    page.mouse.move(empty[0], empty[1] + GRAPH_DOWN, steps=5)
    page.mouse.up()
    page.wait_for_timeout(LAYOUT_MS)


def open_example(name: str) -> Callable[[Page, Addresses], None]:
    """The page for people with an example, by the text of its link."""

    def open_page(page: Page, addresses: Addresses) -> None:
        page.goto(addresses.api)
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.get_by_role("status")).to_have_text(re.compile("PD .* points"))

    return open_page


def open_wide_example(page: Page, addresses: Addresses) -> None:
    """A borderline customer, from the top of the page."""
    open_example("Borderline")(page, addresses)
    page.evaluate("scrollTo(0, 0)")


def open_dark_example(page: Page, addresses: Addresses) -> None:
    """A bad customer: the answer."""
    open_example("Bad")(page, addresses)
    page.locator("#result").evaluate("element => element.scrollIntoView()")


def open_model(page: Page, addresses: Addresses) -> None:
    """The model in force and its curves."""
    page.goto(addresses.api)
    curves = page.locator("figure img")
    expect(curves).to_have_count(6)
    for curve in curves.all():
        curve.scroll_into_view_if_needed()
        expect(curve).to_have_js_property("complete", value=True)
    page.locator("#model").evaluate("element => element.scrollIntoView()")


def open_monitoring(page: Page, addresses: Addresses) -> None:
    """The monitoring page from its top."""
    page.goto(f"{addresses.api}/monitoring")
    expect(page.get_by_role("img", name="PSI of the score")).to_be_visible()


def open_day(page: Page, addresses: Addresses) -> None:
    """The latest day from its top."""
    page.goto(f"{addresses.api}/monitoring")
    page.locator("#days tbody a").first.click()
    expect(page.get_by_role("heading", name="Score")).to_be_visible()


PICTURES = {
    "graph": Picture((1_960, 1_060), open_graph, GRAPH_FRAME),
    "page": Picture((1_280, 1_060), open_wide_example),
    "page-model": Picture((1_280, 1_060), open_model),
    "page-dark": Picture((390, 844), open_dark_example, dark=True),
    "monitoring": Picture((1_200, 1_500), open_monitoring),
    "day": Picture((1_200, 1_500), open_day),
}


def chromium() -> str:
    """The browser's path.

    Raises:
        FileNotFoundError: if there is none.
    """
    named = os.environ.get("CREDITRISK_TEST_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise FileNotFoundError(
            f"no browser is on the path; valid: one of {', '.join(BROWSERS)}, or "
            "CREDITRISK_TEST_CHROMIUM"
        )
    return found


def take(browser: Browser, picture: Picture, addresses: Addresses, file: Path) -> int:
    """Take a picture; its bytes.

    Raises:
        ValueError: if the file is too large.
    """
    width, height = picture.size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if picture.dark else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    picture.open(page, addresses)
    content = page.screenshot(clip=picture.frame)
    context.close()
    if len(content) > BYTES_LIMIT:
        raise ValueError(f"{file.name} has {len(content):,} bytes; valid: up to {BYTES_LIMIT:,}")
    file.write_bytes(content)
    return len(content)


def main() -> None:
    """Take the pictures that the arguments name."""
    parser = argparse.ArgumentParser(description="Take the pictures of the documents.")
    parser.add_argument(
        "pictures", nargs="*", metavar="PICTURE", help=f"one of {', '.join(PICTURES)}; default: all"
    )
    parser.add_argument("--api", default="http://127.0.0.1:8000", help="the API")
    parser.add_argument("--dagster", default="http://127.0.0.1:3000", help="the Dagster UI")
    parser.add_argument("--output", type=Path, default=IMAGES, help="folder of the pictures")
    options = parser.parse_args()
    if unknown := sorted({*options.pictures} - {*PICTURES}):
        parser.error(f"PICTURE is {', '.join(unknown)}; valid: {', '.join(PICTURES)}")
    addresses = Addresses(options.api.rstrip("/"), options.dagster.rstrip("/"))
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        for name in options.pictures or PICTURES:
            file = options.output / f"{name}.png"
            size = take(browser, PICTURES[name], addresses, file)
            sys.stdout.write(f"{file}: {size:,} bytes\n")
        browser.close()


if __name__ == "__main__":
    main()
