"""A folder of scored parts: whole parts or none, and a scoring that was killed goes on."""

import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring import scored_files
from creditrisk_assets.scoring.bundle import Bundle, load_bundle
from creditrisk_assets.scoring.runtime import Runtime
from creditrisk_assets.scoring.score_file import score_file
from creditrisk_assets.scoring.scored_files import ScoredFile
from creditrisk_assets.scoring.scorers import Answers, LocalScorer, ScoringError
from tests.support.examples import champion_of
from tests.support.waiting import until

ROWS = 1_500


class Slow(LocalScorer):
    """A scorer of a hundred rows at a time, which waits or fails before some call."""

    rows = 100
    calls = 0
    waits_at = fails_at = -1

    def __call__(self, records: pa.RecordBatch) -> Answers:
        self.calls += 1
        if self.calls == self.fails_at:
            raise ScoringError("no more")
        if self.calls == self.waits_at:
            time.sleep(60)
        return super().__call__(records)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scored_files, "PART_ROWS", 300)


@pytest.fixture
def source(tmp_path: Path, strangers: pd.DataFrame) -> Path:
    rows = strangers.copy()
    rows.loc[[5, 700], "age"] = 5
    rows.to_parquet(tmp_path / "in.parquet", index=False)
    return tmp_path / "in.parquet"


def slow(bundle: Bundle, version: str = "7") -> Slow:
    champion = champion_of(bundle, version)
    scorer = Slow(Runtime(bundle, champion.rule), champion)
    scorer.threads = 2
    return scorer


def score(source: Path, folder: Path, scorer: Slow) -> ScoredFile:
    return score_file(source, folder, PORTFOLIO, scorer, lambda _done, _total: None)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def score_and_wait(location: str, source: Path, folder: Path) -> None:
    """Score in a process of its own, up to the third part."""
    scored_files.PART_ROWS = 300
    waiting = slow(load_bundle(location))
    waiting.waits_at = 10
    score(source, folder, waiting)


def test_a_folder_of_parts_holds_the_rows_of_the_file_that_one_file_would(
    tmp_path: Path, bundle: Bundle, source: Path
) -> None:
    figures = score(source, tmp_path / "scored", slow(bundle))
    in_one = score(source, tmp_path / "whole.parquet", slow(bundle))
    assert in_one == replace(figures, pd_sum=in_one.pd_sum)
    assert in_one.mean_pd == pytest.approx(figures.mean_pd, rel=1e-12)
    assert (figures.scored, figures.rejected) == (ROWS - 2, 2)
    names = [f"part-0000{part}.parquet" for part in range(5)]
    assert sorted(files(tmp_path / "scored")) == [*names, "run.json", "summary.json"]
    parts = pd.concat([pd.read_parquet(tmp_path / "scored" / name) for name in names])
    whole = pd.read_parquet(tmp_path / "whole.parquet")
    pd.testing.assert_frame_equal(parts.reset_index(drop=True), whole)
    summary = json.loads((tmp_path / "scored" / "summary.json").read_text())
    assert (summary["scored"], summary["parts"]) == (ROWS - 2, 5)
    assert summary["errors"] == {"age: out of range": 2}
    assert summary["mean_pd"] == figures.mean_pd


def test_a_scoring_that_failed_goes_on_behind_its_last_part_with_the_same_result(
    tmp_path: Path, bundle: Bundle, source: Path
) -> None:
    whole = score(source, tmp_path / "at once", slow(bundle))
    failing = slow(bundle)
    failing.fails_at = 8
    with pytest.raises(ScoringError, match="no more"):
        score(source, tmp_path / "twice", failing)
    done = sorted(files(tmp_path / "twice"))
    assert done == ["part-00000.parquet", "part-00001.parquet", "run.json"]
    again = slow(bundle)
    assert score(source, tmp_path / "twice", again) == whole
    assert again.calls == 9
    assert files(tmp_path / "twice") == files(tmp_path / "at once")


@pytest.mark.starts_processes
def test_a_scoring_whose_process_is_killed_goes_on(
    tmp_path: Path, bundle: Bundle, source: Path
) -> None:
    score(source, tmp_path / "at once", slow(bundle))
    folder = tmp_path / "killed"
    process = multiprocessing.get_context("forkserver").Process(
        target=score_and_wait, args=(bundle.location, source, folder)
    )
    process.start()
    until((folder / "part-00001.parquet").exists, 60)
    process.kill()
    process.join()
    score(source, folder, slow(bundle))
    assert {name: files(folder)[name] for name in files(tmp_path / "at once")} == files(
        tmp_path / "at once"
    )


def test_a_folder_of_something_else_is_refused_and_stays(
    tmp_path: Path, bundle: Bundle, source: Path
) -> None:
    failing = slow(bundle)
    failing.fails_at = 8
    with pytest.raises(ScoringError):
        score(source, tmp_path / "other", failing)
    before = files(tmp_path / "other")
    with pytest.raises(ScoringError, match="another file or by another model"):
        score(source, tmp_path / "other", slow(bundle, version="8"))
    assert files(tmp_path / "other") == before
    score(source, tmp_path / "done", slow(bundle))
    with pytest.raises(ScoringError, match="holds a finished scoring; valid: a new folder"):
        score(source, tmp_path / "done", slow(bundle))
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    with pytest.raises(ScoringError, match=r"holds a\.txt; valid: a new folder"):
        score(source, tmp_path / "letters", slow(bundle))
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["a.txt"]
