"""Programs that some tests need and Python does not install."""

import os
import shutil

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """The browser that shows the pages: the named one, or the first on the path."""
    named = os.environ.get("CREDITRISK_TEST_CHROMIUM")
    return named or next(filter(None, map(shutil.which, BROWSERS)), None)


def nginx() -> str | None:
    """The proxy; Debian's is not on a user's path."""
    return shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
