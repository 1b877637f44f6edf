"""A real Chromium for tests: visitors whose complaints fail the test, and the check with axe."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.support.programs import chromium

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def started_browser() -> Iterator[Browser]:
    """Chromium. Playwright has an event loop running in this thread, in which Dagster cannot execute a job."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield started
        started.close()


@contextmanager
def visitor(browser: Browser, site: str, **options: Any) -> Iterator[BrowserContext]:
    """A visitor; whatever the page logs as an error, raises, or asks of another host fails the test."""
    complaints: list[str] = []
    context = browser.new_context(**options)
    context.on(
        "console",
        lambda message: (
            complaints.append(message.text) if message.type in ("error", "warning") else None
        ),
    )
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on(
        "request",
        lambda asked: (
            None if asked.url.startswith(site) else complaints.append(f"asked {asked.url}")
        ),
    )
    yield context
    context.close()
    assert not [one for one in complaints if "the server responded with a status of 422" not in one]


def require_accessible(page: Page) -> None:
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def require_fitting(page: Page) -> None:
    """Nothing is wider than the screen."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
