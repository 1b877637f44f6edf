"""The table "When an alert comes" of the guide: each row has a drill, and each alert of Prometheus a row."""

import ast
import re

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.places import REPOSITORY

ALERTS = "tests/end_to_end/test_runbooks.py"
BUNDLES = f"{ALERTS}::test_bundles_that_cannot_be_read_are_loaded_when_they_can"
DISK = f"{ALERTS}::test_a_full_disk_refuses_and_a_machine_that_stalls_is_slow_until_it_ends"
CALLERS = (
    f"{ALERTS}::test_callers_with_an_old_key_or_above_their_rate_are_refused_until_they_are_not"
)
LOST = "tests/end_to_end/test_lost_runs.py::test_a_training_whose_code_server_is_killed_is_started_again_by_itself"
FAULTS = "benchmarks/operations/faults.py"

DRILLS = {
    "CreditriskNobodyAnswers": [
        f"{ALERTS}::test_without_a_champion_nobody_answers_until_a_training",
        "tests/integration/serving/test_champion_source.py::test_with_neither_bundle_nor_fallback_it_lives_and_asks_to_come_again",
    ],
    "CreditriskDegraded": [BUNDLES],
    "CreditriskChampionNotLoaded": [
        BUNDLES,
        "tests/integration/serving/test_champion_source.py::test_a_read_only_webserver_is_enough_and_its_end_ends_nothing",
    ],
    "CreditriskWorkersDisagree": [
        f"{ALERTS}::test_a_worker_that_hangs_has_another_model_until_the_api_is_started_again"
    ],
    "CreditriskFailures, CreditriskSlow": [DISK],
    "CreditriskDecisionsNotWritten": [
        DISK,
        "tests/end_to_end/test_full_disk.py::test_on_a_full_disk_nothing_is_decided_and_nothing_that_was_decided_is_lost",
    ],
    "CreditriskDecisionLogSlow": [DISK],
    "CreditriskUnknownCallers": [CALLERS],
    "CreditriskCallerLimited": [CALLERS],
    "a daemon is not alive": [LOST, f"{FAULTS}::kill -9 of the daemon"],
    "a run has failed": [
        LOST,
        "tests/end_to_end/test_drill.py::test_with_the_daemon_a_broken_day_is_blocked_then_sent_again_and_nothing_is_lost",
    ],
    "the object store answers 500 although its disk has space again": [
        f"{FAULTS}::the bucket is full, 15 s; then the object store is started again"
    ],
    "`Forbidden` or `RequestTimeTooSkewed` from the object store": [
        f"{FAULTS}::the clock is an hour back for 30 s; 30 s later the daemon is started again",
        f"{FAULTS}::the clock is an hour ahead for 30 s; 30 s later the daemon is started again",
    ],
    "a sensor is late, after a clock was set back": [
        "tests/integration/defs/test_loop_checks.py::test_after_a_clock_was_set_back_sensors_do_not_wait_for_the_time_that_was",
        f"{FAULTS}::the clock goes an hour back; 30 s later the daemon is started again",
    ],
    "a receiver of alerts refuses": [
        "tests/integration/defs/test_alert_receivers.py::test_a_receiver_refuses_and_the_others_get_every_alert",
        "tests/integration/defs/test_alert_episodes.py::test_the_command_tests_each_receiver_and_says_which_did_not_take_it",
    ],
    "the store's parts do not agree": [
        "tests/integration/defs/test_champion_commands.py::test_a_promotion_killed_at_any_step_leaves_one_whole_champion_and_the_next_run_heals_it"
    ],
}
"""The drills of each row, by its first cell: tests, and faults of the benchmark in containers."""


def rows() -> list[str]:
    """The first cells of the table."""
    text = (REPOSITORY / "docs/guide/operate.md").read_text(encoding="utf-8")
    section = text.split("\n## When an alert comes\n", 1)[1].split("\n## ", 1)[0]
    cells = re.findall(r"^\| (.+?) \|", section, flags=re.MULTILINE)
    assert cells[0] == "alert"
    return cells[1:]


def test_every_row_of_the_runbook_has_a_drill() -> None:
    assert rows() == list(DRILLS)


def test_every_alert_of_prometheus_is_in_the_runbook() -> None:
    (group,) = yaml.safe_load((REPOSITORY / "deploy/prometheus/alerts.yml").read_text())["groups"]
    named = {alert for row in rows() for alert in re.findall(r"Creditrisk\w+", row)}
    assert {rule["alert"] for rule in group["rules"]} == named


@pytest.mark.parametrize("drill", sorted({drill for drills in DRILLS.values() for drill in drills}))
def test_a_drill_is_there(drill: str) -> None:
    file, _, name = drill.partition("::")
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    if file == FAULTS:
        assert f'"{name}"' in text
    else:
        functions = {one.name for one in ast.parse(text).body if isinstance(one, ast.FunctionDef)}
        assert name in functions
