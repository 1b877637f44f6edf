"""Scratch folders: one's own, gone afterwards, and cleared of what killed processes left."""

import os
import time
from pathlib import Path

from creditrisk_assets.storage import (
    ABANDONED_SECONDS,
    put_file,
    scratch_folder,
    zone_path,
)


def test_a_scratch_folder_is_gone_afterwards_and_what_was_put_in_its_place_stays(
    tmp_path: Path,
) -> None:
    with scratch_folder(tmp_path / "scratch") as folder:
        staged = folder / "scores.parquet"
        staged.write_bytes(b"rows")
        put_file(staged, zone_path(tmp_path / "storage" / "day.parquet"))
    assert (tmp_path / "storage" / "day.parquet").read_bytes() == b"rows"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_a_killed_process_left_is_removed_after_a_day_and_not_before(tmp_path: Path) -> None:
    """A run that is killed leaves its folder behind; without this a full disk would be the first to tell."""
    old, young = tmp_path / "old", tmp_path / "young"
    for left in (old, young):
        left.mkdir()
        (left / "half.parquet").write_bytes(b"half")
    os.utime(old, (time.time(), time.time() - ABANDONED_SECONDS - 1))
    with scratch_folder(tmp_path) as folder:
        assert folder.is_dir()
        assert not old.exists()
        assert young.exists()
