"""Metrics of the loop: what its status says is what Prometheus gets, and no status fails no scrape."""

import os
import threading
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from creditrisk_assets.monitoring.check_catalogue import Tier
from creditrisk_assets.monitoring.loop_status import STATUS_FILE
from serving.ops import loop_metrics
from serving.ops.loop_metrics import LoopMetrics
from tests.support.loop_status import whole_status
from tests.support.metrics import Samples, samples

READABLE = ("creditrisk_loop_status_readable", ())


def exported(folder: Path) -> Samples:
    registry = CollectorRegistry()
    registry.register(LoopMetrics(folder))
    return samples(generate_latest(registry))


def test_the_metrics_are_the_figures_of_the_status(tmp_path: Path) -> None:
    whole_status(time.time() - 100).write(tmp_path)
    found = exported(tmp_path)

    def value(name: str, **labels: str) -> float:
        return found[(f"creditrisk_loop_{name}", tuple(sorted(labels.items())))]

    assert found[READABLE] == 1
    assert value("status_age_seconds") == pytest.approx(100, abs=30)
    assert (value("days_scored"), value("days_waiting")) == (2, 1)
    assert value("last_day_timestamp_seconds") == 1_780_358_400  # 2026-06-02, UTC
    assert value("matured_day_timestamp_seconds") == 1_780_272_000
    assert (value("last_day_rows"), value("last_day_rejected")) == (600, 0)
    assert value("last_day_score_psi") == 0.2
    assert value("last_day_score_psi_judged") == 0.3
    assert value("last_day_score_psi_threshold") == 0.06
    assert value("last_day_drifted_columns") == 4
    assert value("last_day_estimated_roc_auc") == 0.7
    assert (value("matured_day_roc_auc"), value("matured_day_validation_roc_auc")) == (0.74, 0.77)
    assert (value("matured_day_mean_pd"), value("matured_day_bad_rate")) == (0.21, 0.22)
    assert [value(f"matured_day_{name}") for name in ("matured", "pending", "missing")] == [
        400,
        0,
        100,
    ]
    assert [value("open_alarms", tier=tier.value) for tier in Tier] == [2, 2, 1]
    assert (value("checks_run"), value("checks")) == (19, 20)
    assert (value("runs_in_flight"), value("failed_runs")) == (1, 2)
    assert value("last_failed_run_timestamp_seconds") == 1_700_000_100
    assert value("sensor_info", sensor="lost_runs", state="skipped") == 1
    assert value("sensor_info", sensor="retrain_on_drift", state="stopped") == 1
    assert value("landing_problems") == 1
    assert value("champion_info", model_version="2", bundle_sha256="b" * 64) == 1
    assert value("champion_since_timestamp_seconds") == 1_700_000_000
    assert value("cut_off") == 0.2
    assert value("champion_moves_total", kind="promoted") == 2
    assert value("champion_moves_total", kind="rolled_back") == 0
    assert value("retrains_total", action="refit", result="promoted") == 1
    assert value("retrains_total", action="recalibrate", result="failed") == 1
    assert value("retrains_total", action="recalibrate", result="promoted") == 0
    assert not any("in flight" in dict(labels).values() for _, labels in found)


def test_before_the_first_day_there_are_no_figures_of_days(tmp_path: Path) -> None:
    """A zero would be a figure: a bad rate of zero, a PSI of zero."""
    whole_status(1.0).model_copy(update={"days": (), "champion": None}).write(tmp_path)
    found = exported(tmp_path)
    assert found[("creditrisk_loop_days_scored", ())] == 0
    assert not [
        name
        for name, _ in found
        if name.startswith(("creditrisk_loop_last_day", "creditrisk_loop_matured_day"))
    ]
    assert not [name for name, _ in found if name == "creditrisk_loop_champion_info"]


@pytest.mark.parametrize("content", [None, b"", b'{"written": 1', b'{"written": "never"}'])
def test_a_status_that_is_missing_or_broken_is_said_and_fails_no_scrape(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / STATUS_FILE).write_bytes(content)
    assert exported(tmp_path) == {READABLE: 0}


def test_a_store_that_does_not_answer_holds_up_no_scrape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object store that is down lets its readers wait for minutes, Prometheus for ten seconds.

    A pipe without a writer is a file whose reader waits.
    """
    monkeypatch.setattr(loop_metrics, "READ_SECONDS", 0.2)
    os.mkfifo(tmp_path / STATUS_FILE)
    registry = CollectorRegistry()
    registry.register(LoopMetrics(tmp_path))
    before = threading.active_count()
    began = time.monotonic()
    assert [samples(generate_latest(registry)) for _ in range(3)] == [{READABLE: 0}] * 3
    assert time.monotonic() - began < 5
    assert threading.active_count() == before + 1  # all wait for the same reading
    (tmp_path / STATUS_FILE).write_bytes(whole_status(1.0).model_dump_json().encode())
    monkeypatch.setattr(loop_metrics, "READ_SECONDS", 10)
    assert samples(generate_latest(registry))[READABLE] == 1
