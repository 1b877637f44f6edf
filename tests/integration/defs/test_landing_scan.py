"""What lies in the landing zones and is not read."""

from pathlib import Path

import pytest

from creditrisk_assets.defs.landing_scan import zone_problems
from creditrisk_assets.settings import Settings


def test_a_zone_that_cannot_be_looked_at_is_named_and_the_other_is_looked_at_all_the_same(
    tmp_path: Path,
) -> None:
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "production").write_text("a file where the zone should be")
    (tmp_path / "landing" / "outcomes" / "2026-1-5").mkdir(parents=True)
    first, second = zone_problems(Settings(data_dir=tmp_path))
    assert first.startswith(f"production: {tmp_path / 'landing' / 'production'} cannot be read: ")
    assert (
        second == "outcomes: '2026-1-5' is a date in another form; valid: a folder named YYYY-MM-DD"
    )


def test_a_store_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("ENDPOINT_URL", "http://127.0.0.1:9"),
        ("ACCESS_KEY_ID", "x"),
        ("SECRET_ACCESS_KEY", "x"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    problems = zone_problems(Settings(data_dir="s3://nobody/here"))
    assert [problem.split(":")[0] for problem in problems] == ["production", "outcomes"]
    assert all("cannot be read" in problem for problem in problems)
