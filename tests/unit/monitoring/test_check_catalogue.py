"""The table of docs/guide/monitor.md is the catalogue of checks."""

import re

from creditrisk_assets.defs.check_results import check_result
from creditrisk_assets.monitoring.check_catalogue import BY_CHECK, WATCHES
from tests.support.places import REPOSITORY


def test_the_table_of_checks_is_the_catalogue() -> None:
    text = (REPOSITORY / "docs" / "guide" / "monitor.md").read_text()
    section = text.split("## All checks", 1)[1].split("\n## ", 1)[0]
    rows = [
        tuple(cell.strip() for cell in row.strip("| \n").split(" | "))
        for row in re.findall(r"^\| `.*$", section, re.MULTILINE)
    ]
    assert rows == [
        (
            f"`{watch.check}`",
            f"`{watch.asset}`",
            watch.tier.value,
            watch.question,
            watch.failure,
            watch.action,
        )
        for watch in WATCHES
    ]
    assert len(BY_CHECK) == len(WATCHES)


def test_every_failure_is_a_short_statement_of_its_own() -> None:
    failures = [watch.failure for watch in WATCHES]
    assert len(set(failures)) == len(failures)
    for failure in failures:
        assert failure[0].isupper()
        assert len(failure) <= 55
        assert not failure.endswith(".")


def test_a_failed_evaluation_begins_with_what_is_wrong_and_a_passed_one_with_what_was_found() -> (
    None
):
    for watch in WATCHES:
        for passed, expected in ((False, f"{watch.failure}: 3 of 4"), (True, "3 of 4")):
            result = check_result(
                watch.check, passed=passed, summary="3 of 4", observed=3.0, threshold=4.0, rows=4
            )
            assert result.metadata["summary"].value == expected


def test_what_is_wrong_is_said_once() -> None:
    watch = BY_CHECK["ranking_is_as_at_validation"]
    line = watch.failure_summary("AUC 0.646, limit 0.733")
    assert line == "Discrimination is down: AUC 0.646, limit 0.733"
    assert watch.failure_summary(line) == line
    assert watch.failure_summary(None) == watch.failure_summary("") == "Discrimination is down"
