"""The whole loop over an object store: landing zone, quarantine, frames and reports under `s3://`, against moto's server."""

from pathlib import Path

import pytest
from upath import UPath

from creditrisk_assets.settings import Settings
from tests.support.loop import Loop, customers
from tests.support.policies import policy_of


@pytest.mark.embedded("an object store without the servers of a served store")
def test_days_land_are_scored_and_judged_in_an_object_store(
    bucket: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow's own store is local
    loop = Loop.of(
        tmp_path / "site",
        data_dir=str(bucket / "credit"),
        raw_data="simulated:2000",
        policy=policy_of({"reports.rows": 500}),
    )
    assert loop.settings.data_dir.protocol == "s3"
    assert loop.settings.local_dir.resolve().is_relative_to(tmp_path)
    assert loop.run("train").success
    landed = customers(200, 3)
    broken = landed.astype({"age": "object"})
    broken.loc[4, "age"] = "young"
    loop.land_day("2026-01-05", broken)
    loop.land_outcomes("2026-01-05", landed)
    assert [result.success for result in loop.settle()] == [True, True]
    assert len(loop.frame("production_scores", "2026-01-05")) == 199
    assert loop.rejected("production_batch", "2026-01-05")["line"].tolist() == [6]
    assert loop.metadata("performance_report", "2026-01-05")["matured"] == 199
    report = loop.settings.reports / "drift" / "2026-01-05" / "report.html"
    assert b"<html" in report.read_bytes()[:300].lower()
    assert Settings(data_dir=loop.settings.data_dir).landing_production.exists()
    loop.close()
