"""The table of docs/monitoring.md is the watch list."""

import re

from creditrisk_assets.monitoring.check_catalogue import BY_CHECK, WATCHES
from tests.support.places import REPOSITORY


def test_the_table_of_watches_is_the_watch_list() -> None:
    text = (REPOSITORY / "docs" / "monitoring.md").read_text()
    section = text.split("## All watches", 1)[1].split("\n## ", 1)[0]
    rows = [
        tuple(cell.strip() for cell in row.strip("| \n").split(" | "))
        for row in re.findall(r"^\| `.*$", section, re.MULTILINE)
    ]
    assert rows == [
        (f"`{one.check}`", f"`{one.asset}`", one.tier.value, one.question, one.action)
        for one in WATCHES
    ]
    assert len(BY_CHECK) == len(WATCHES)
