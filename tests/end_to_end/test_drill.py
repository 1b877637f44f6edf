"""A drill with the real daemon, code server, webserver and API."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import REPOSITORY

NEXT_DAY = """
import dataclasses
from creditrisk_assets.portfolio import uci_card
PORTFOLIO = dataclasses.replace(uci_card.PORTFOLIO, performance_window_days=1)
"""
"""Outcomes land on the day after their decisions: each day on which files land is waited for until the sensors are quiet."""


@pytest.mark.timeout(600)
def test_with_the_daemon_a_broken_day_is_blocked_then_sent_again_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path / "dagster.yaml")
    (tmp_path / "next_day.py").write_text(NEXT_DAY)
    command = [
        sys.executable,
        "-m",
        "creditrisk_assets.cli.main",
        "drill",
        "schema-break",
        "--daemon",
        "--json",
    ]
    result = subprocess.run(
        [*command, "--days", "2", "--rows", "200", "--onset", "1", "--strength", "0.3"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "CREDITRISK_PORTFOLIO": "next_day.PORTFOLIO",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (report,) = json.loads(result.stdout)["drills"]
    assert report["first_alarm"] == {
        "found_on": "2025-01-02",
        "what": "Too many rows of the day are rejected or unreadable",
        "day": "2025-01-02",
        "is_run": False,
    }
    assert report["actions"] == ["page a human"]
    assert (report["landed"], report["lost"], report["retrains"]) == (400, 0, 0)
    assert report["auc_before"] > 0.6
