"""Scoring a file: every row stays, in order, with a decision or an error."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from creditrisk_assets.portfolio.contract import Field, Reason
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Bundle
from creditrisk_assets.scoring.runtime import Runtime
from creditrisk_assets.scoring.score_file import score_file
from creditrisk_assets.scoring.scored_files import ScoredFile
from creditrisk_assets.scoring.scorers import (
    ANSWER_COLUMNS,
    ANSWER_TYPES,
    RETRIES,
    Answers,
    ApiScorer,
    LocalScorer,
    Scorer,
    ScoringError,
)
from tests.support.examples import (
    TINY,
    champion_of,
    raw_matrix,
    write_lines,
)


def quiet(done: int, of: int | None) -> None:
    """No progress shown."""


@pytest.fixture
def scorer(bundle: Bundle) -> Scorer:
    return local_scorer(bundle)


def local_scorer(bundle: Bundle) -> LocalScorer:
    champion = champion_of(bundle, "7")
    return LocalScorer(Runtime(bundle, champion.rule), champion)


class Calls:
    """A scorer that remembers its records, and may fail."""

    columns = ANSWER_COLUMNS
    decided_by = "a test"
    threads = 1

    def __init__(self, scorer: Scorer | None, rows: int, fails_at: int = 0) -> None:
        self.rows = rows
        self.records: list[pa.RecordBatch] = []
        self._scorer = scorer
        self._fails_at = fails_at

    def __call__(self, records: pa.RecordBatch) -> Answers:
        self.records.append(records)
        if len(self.records) == self._fails_at:
            raise ScoringError("the API is gone")
        if self._scorer is not None:
            return self._scorer(records)
        answer = {"default_probability": 0.5, "score": 600.0, "prediction": 1, "reasons": "R01"}
        answer |= {"model_version": "7", "bundle_sha256": "a"}
        return {
            name: pa.array([answer[name]] * len(records), kind)
            for name, kind in ANSWER_TYPES.items()
        }


def batch_of(frame: pd.DataFrame) -> pa.RecordBatch:
    return pa.RecordBatch.from_pandas(frame[PORTFOLIO.field_names], preserve_index=False)


def write(path: Path, frame: pd.DataFrame) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
    return path


def read(path: Path) -> pd.DataFrame:
    return (
        pd.read_parquet(path)
        if path.suffix == ".parquet"
        else pd.read_csv(path, float_precision="round_trip", low_memory=False)
    )


@pytest.mark.parametrize("source", ["in.csv", "in.parquet"])
@pytest.mark.parametrize("destination", ["out.csv", "out.parquet"])
def test_every_row_gets_the_bundles_own_decision_in_its_place(
    tmp_path: Path,
    scorer: Scorer,
    bundle: Bundle,
    strangers: pd.DataFrame,
    source: str,
    destination: str,
) -> None:
    """Bit for bit, over several chunks, through text and Parquet."""
    progress: list[tuple[int, int | None]] = []
    result = score_file(
        write(tmp_path / source, strangers),
        tmp_path / destination,
        PORTFOLIO,
        scorer,
        lambda done, of: progress.append((done, of)),
    )
    assert progress == [(1_500, 1_500)]
    written = read(tmp_path / destination)
    assert written.columns.tolist() == [*strangers.columns, *ANSWER_COLUMNS, "error"]
    expected = bundle.decide(raw_matrix(strangers), bundle.manifest.rule)
    assert result == ScoredFile(
        scored=1_500,
        declined=int(expected.prediction.sum()),
        pd_sum=float(expected.default_probability.sum()),
    )
    assert np.array_equal(written["default_probability"], expected.default_probability)
    assert np.array_equal(written["score"], expected.score)
    assert np.array_equal(written["prediction"], expected.prediction)
    assert written["reasons"].fillna("").str.split().tolist() == bundle.reason_codes(expected)
    assert set(written["bundle_sha256"]) == {bundle.sha256}
    assert set(written["model_version"].astype(str)) == {"7"}
    assert written["error"].isna().all()


def test_the_files_own_columns_stay_as_they_were_also_those_unknown_to_the_contract(
    tmp_path: Path, scorer: Scorer, strangers: pd.DataFrame
) -> None:
    """Headers in upper case, a column of notes with commas and quotes, leading zeros, and any order of columns."""
    rows = strangers.head(5).rename(columns=str.upper).iloc[:, ::-1]
    rows.insert(3, "Note, of the branch", ['a "b"', "", "0012", "NA", "ü"])
    source = write(tmp_path / "in.csv", rows)
    score_file(source, tmp_path / "out.csv", PORTFOLIO, scorer, quiet)
    before, after = (
        pd.read_csv(path, dtype="str", keep_default_na=False)
        for path in (source, tmp_path / "out.csv")
    )
    pd.testing.assert_frame_equal(after[before.columns.tolist()], before)
    assert after.columns.tolist()[: len(before.columns)] == before.columns.tolist()
    assert (after["prediction"] != "").all()


def test_a_row_that_breaks_the_contract_keeps_its_place_and_says_what_is_wrong(
    tmp_path: Path, scorer: Scorer, bundle: Bundle, strangers: pd.DataFrame
) -> None:
    rows = strangers.head(6).astype("object")
    rows["age"] = ["20", "old", "22", "23", "24", "25"]
    rows["sex"] = [1, 3, 2, 1, 2, 1]
    rows["limit_bal"] = ["10000", "20000", "30000", "40000", "", "60000"]
    result = score_file(
        write(tmp_path / "in.csv", rows), tmp_path / "out.csv", PORTFOLIO, scorer, quiet
    )
    assert (result.scored, result.rejected) == (4, 2)
    assert result.errors == {
        "age: not a number": 1,
        "sex: not a known code": 1,
        "limit_bal: missing": 1,
    }
    written = read(tmp_path / "out.csv")
    assert written["id"].astype(str).tolist() == rows["id"].tolist()
    assert written["error"].notna().tolist() == [False, True, False, False, True, False]
    errors = written["error"].astype(str).tolist()
    assert "age: 'old' is not a number; valid: a whole number from 18 to 120 (years)" in errors[1]
    assert "sex: '3' is not a known code; valid: one of 1, 2" in errors[1]
    assert errors[4].startswith("limit_bal: missing; valid: ")
    assert written.loc[[1, 4], ANSWER_COLUMNS].isna().all(axis=None)
    good = [0, 2, 3, 5]
    expected = bundle.score(rows.loc[good, PORTFOLIO.field_names].to_numpy(dtype=np.float32))
    assert np.array_equal(written.loc[good, "default_probability"], expected.default_probability)


def test_decisions_alone_are_written_beside_the_identifier(
    tmp_path: Path, scorer: Scorer, strangers: pd.DataFrame
) -> None:
    source = write(tmp_path / "in.parquet", strangers)
    score_file(source, tmp_path / "out.parquet", PORTFOLIO, scorer, quiet, decisions_only=True)
    written = read(tmp_path / "out.parquet")
    assert written.columns.tolist() == ["id", *ANSWER_COLUMNS, "error"]
    assert written["id"].tolist() == strangers["id"].tolist()


def test_without_reasons_the_numbers_are_the_same(
    tmp_path: Path, bundle: Bundle, scorer: Scorer, strangers: pd.DataFrame
) -> None:
    champion = champion_of(bundle, "7")
    quick = LocalScorer(Runtime(bundle, champion.rule), champion, reasons=False)
    source = write(tmp_path / "in.parquet", strangers)
    for name, one in (("with", scorer), ("without", quick)):
        score_file(source, tmp_path / f"{name}.parquet", PORTFOLIO, one, quiet)
    full, without = read(tmp_path / "with.parquet"), read(tmp_path / "without.parquet")
    pd.testing.assert_frame_equal(full.drop(columns="reasons"), without, check_exact=True)


@pytest.mark.parametrize("destination", ["out.csv", "out.parquet"])
def test_a_file_without_one_good_row_is_written_with_its_errors(
    tmp_path: Path, scorer: Scorer, strangers: pd.DataFrame, destination: str
) -> None:
    source = write(tmp_path / "in.csv", strangers.head(3).assign(age=5))
    result = score_file(source, tmp_path / destination, PORTFOLIO, scorer, quiet)
    assert (result.scored, result.rejected) == (0, 3)
    written = read(tmp_path / destination)
    assert written["error"].str.contains("age: '5' is out of range").all()
    assert written[ANSWER_COLUMNS].isna().all(axis=None)


def test_lines_that_are_no_rows_are_told_apart_from_rows(
    tmp_path: Path, scorer: Scorer, strangers: pd.DataFrame
) -> None:
    source = write(tmp_path / "in.csv", strangers.head(2))
    source.write_text(source.read_text() + "1,2,3\n")
    result = score_file(source, tmp_path / "out.csv", PORTFOLIO, scorer, quiet)
    assert (result.scored, result.rejected) == (2, 0)
    assert result.malformed == [(4, "3 cells where the header has 25", "1,2,3")]
    assert result.malformed_lines == 1
    assert len(read(tmp_path / "out.csv")) == 2


def test_a_file_without_identifiers_or_outcomes_is_scored(
    tmp_path: Path, scorer: Scorer, strangers: pd.DataFrame
) -> None:
    source = write(tmp_path / "in.csv", strangers.head(4)[PORTFOLIO.field_names])
    assert score_file(source, tmp_path / "out.csv", PORTFOLIO, scorer, quiet).scored == 4


@pytest.mark.parametrize("column", [*ANSWER_COLUMNS, "error", "Default Probability", "SCORE"])
def test_a_file_that_already_has_an_answers_column_is_refused(
    tmp_path: Path, scorer: Scorer, strangers: pd.DataFrame, column: str
) -> None:
    """Two columns `score` in one file, and nobody knows which is the decision."""
    source = write(tmp_path / "in.csv", strangers.head(2).assign(**{column: 1}))
    with pytest.raises(
        ScoringError, match=r"already has column .*; valid: a file that was not scored before"
    ):
        score_file(source, tmp_path / "out.csv", PORTFOLIO, scorer, quiet)
    assert not (tmp_path / "out.csv").exists()


def test_a_scored_file_cannot_be_scored_again(
    tmp_path: Path, scorer: Scorer, strangers: pd.DataFrame
) -> None:
    score_file(
        write(tmp_path / "in.csv", strangers.head(2)),
        tmp_path / "out.csv",
        PORTFOLIO,
        scorer,
        quiet,
    )
    with pytest.raises(
        ScoringError, match="default_probability, score, prediction, reasons, model_version"
    ):
        score_file(tmp_path / "out.csv", tmp_path / "again.csv", PORTFOLIO, scorer, quiet)


def test_what_cannot_be_scored_is_told_in_words(
    tmp_path: Path, scorer: Scorer, strangers: pd.DataFrame
) -> None:
    good = write(tmp_path / "in.csv", strangers.head(2))
    lacking = write(tmp_path / "lacking.csv", strangers.head(2).drop(columns=["age", "pay_3"]))
    empty = tmp_path / "empty.csv"
    empty.touch()
    for source, destination, expected in (
        (good, "out.xlsx", "cannot write '.xlsx'; valid: .csv, .parquet, or a folder"),
        (
            lacking,
            "out.csv",
            "missing columns age, pay_3; the file's other columns: default_payment_next_month; valid: limit_bal, ",
        ),
        (empty, "out.csv", "the file is empty"),
        (tmp_path / "none.csv", "out.csv", "No such file"),
        (tmp_path, "out.csv", "directory"),
    ):
        with pytest.raises(ScoringError, match=expected.replace("(", r"\(")):
            score_file(source, tmp_path / destination, PORTFOLIO, scorer, quiet)
        assert not (tmp_path / destination).exists()


def test_a_scorer_that_fails_midway_leaves_no_file_or_the_old_one(
    tmp_path: Path, scorer: Scorer, strangers: pd.DataFrame
) -> None:
    """Half of a scored file looks like all of a smaller one."""
    failing = Calls(scorer, 1_000, fails_at=2)
    source = write(tmp_path / "in.csv", strangers)
    with pytest.raises(ScoringError, match="the API is gone"):
        score_file(source, tmp_path / "out.csv", PORTFOLIO, failing, quiet)
    assert [len(records) for records in failing.records] == [1_000, 500]
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    (tmp_path / "out.csv").write_text("old")
    failing.records.clear()
    with pytest.raises(ScoringError):
        score_file(source, tmp_path / "out.csv", PORTFOLIO, failing, quiet)
    assert (tmp_path / "out.csv").read_text() == "old"


LOANS = replace(
    TINY,
    name="loans",
    fields=(
        Field("rate", "interest", "", 0, 99, decimal=True),
        Field("purpose", "what for", codes={"car": "a car", "home": "the home"}, required=False),
        Field("years", "in the job", "", 0, 60, required=False),
    ),
    reasons=(Reason("R01", "any", ("rate", "purpose", "years")),),
)


def test_a_scorer_gets_texts_decimals_and_what_is_missing_as_the_contract_means_them(
    tmp_path: Path,
) -> None:
    """A text code or a missing value that became a number on the way would be scored as another customer."""
    remembering = Calls(None, 100)
    source = write_lines(
        tmp_path / "in.csv", ["rate,purpose,years", "4.5, car ,7", "5,,NA", "x,boat,61", "6,home,"]
    )
    result = score_file(source, tmp_path / "out.csv", LOANS, remembering, quiet)
    assert (result.scored, result.rejected) == (3, 1)
    (records,) = remembering.records
    assert records.column("rate").to_pylist() == [4.5, 5.0, 6.0]
    assert records.column("purpose").to_pylist() == ["car", None, "home"]
    assert records.column("years").to_pylist() == [7, None, None]
    written = pd.read_csv(tmp_path / "out.csv", dtype="str", keep_default_na=False)
    assert written["purpose"].tolist() == [" car ", "", "boat", "home"]
    assert written["error"].tolist()[2] == (
        "rate: 'x' is not a number; valid: a number from 0 to 99; purpose: 'boat' is not a known code; valid: one of car, home, "
        "or nothing; years: '61' is out of range; valid: a whole number from 0 to 60, or nothing"
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_long_file_is_scored_batch_by_batch_with_an_estimate_of_its_length(
    tmp_path: Path, scorer: Scorer, strangers: pd.DataFrame, suffix: str
) -> None:
    """Memory must not grow with the file; the bar must not stand still, nor reach its end before the work does."""
    rows = pd.concat([strangers] * 50, ignore_index=True)
    rows.loc[[5, 70_000], "age"] = 5
    source, progress = write(tmp_path / f"in{suffix}", rows), list[tuple[int, int | None]]()
    result = score_file(
        source,
        tmp_path / f"out{suffix}",
        PORTFOLIO,
        scorer,
        lambda done, of: progress.append((done, of)),
    )
    assert (result.scored, result.rejected) == (74_998, 2)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    assert progress[-1] == (75_000, 75_000)
    # Up to two blocks of a megabyte are read ahead, of a file of five.
    assert all(of is not None and max(done, 35_000) <= of < 90_000 for done, of in progress)
    written = read(tmp_path / f"out{suffix}")
    assert len(written) == 75_000
    assert written["error"].notna().to_numpy().nonzero()[0].tolist() == [5, 70_000]
    expected = scorer(batch_of(strangers))["default_probability"].to_numpy()
    assert np.array_equal(written["default_probability"].to_numpy()[-1_500:], expected)


# The same through HTTP


class Api(ThreadingHTTPServer):
    """A server that answers as the real API does: from a list of prepared statuses first, then with the bundle's decisions."""

    daemon_threads = True

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(("127.0.0.1", 0), ApiHandler)
        self.bundle = bundle
        self.prepared: list[int] = []
        self.requests = 0
        self.records: list[dict[str, Any]] = []
        self.keys: list[str] = []


class ApiHandler(BaseHTTPRequestHandler):
    server: Api

    def do_POST(self) -> None:
        self.server.requests += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.records += body
        self.server.keys.append(self.headers["Idempotency-Key"])
        status = self.server.prepared.pop(0) if self.server.prepared else 200
        answer: Any = {"detail": "prepared"}
        if status == 200:
            bundle = self.server.bundle
            answers_of = local_scorer(bundle)(batch_of(pd.DataFrame(body)))
            frame = pa.table(answers_of).to_pandas()
            given = [
                [{"code": code, "text": "any"} for code in codes.split()]
                for codes in frame["reasons"]
            ]
            answers = frame.drop(columns="reasons").to_dict("records")
            answer = [{"reasons": why, **one} for why, one in zip(given, answers, strict=True)]
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""


@pytest.fixture
def api(bundle: Bundle) -> Iterator[Api]:
    with Api(bundle) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(api: Api) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{api.server_port}", trust_env=False) as opened:
        yield opened


def test_decisions_by_the_api_are_the_bundles_own_bit_for_bit(
    scorer: Scorer, client: httpx.Client, strangers: pd.DataFrame
) -> None:
    records = batch_of(strangers[:300])
    assert ApiScorer(client, PORTFOLIO)(records) == scorer(records)


def test_the_api_gets_whole_numbers_texts_and_null_for_what_is_missing(
    api: Api, client: httpx.Client
) -> None:
    """JSON has no NaN, and 7.0 years are refused by a field of whole numbers."""
    api.prepared = [422]
    records = pd.DataFrame({"rate": [4.5, 5.0], "purpose": ["car", None], "years": [7, np.nan]})
    with pytest.raises(ScoringError):
        ApiScorer(client, LOANS)(pa.RecordBatch.from_pandas(records))
    assert api.records == [
        {"rate": 4.5, "purpose": "car", "years": 7},
        {"rate": 5.0, "purpose": None, "years": None},
    ]
    assert [type(api.records[0][name]) for name in ("rate", "years")] == [float, int]


def test_a_call_that_finds_no_champion_is_tried_again(
    api: Api, client: httpx.Client, strangers: pd.DataFrame
) -> None:
    """While one champion follows another the API says 503; a long file must not be lost for it, nor decided on twice."""
    api.prepared = [503, 503]
    assert len(ApiScorer(client, PORTFOLIO)(batch_of(strangers[:2]))["score"]) == 2
    assert api.requests == 3
    assert len(set(api.keys)) == 1


def test_an_api_that_never_has_a_champion_ends_in_an_error(
    api: Api, client: httpx.Client, strangers: pd.DataFrame
) -> None:
    api.prepared = [503] * (RETRIES + 5)
    with pytest.raises(ScoringError, match="answered 503"):
        ApiScorer(client, PORTFOLIO)(batch_of(strangers[:2]))
    assert api.requests == RETRIES


@pytest.mark.parametrize("status", [401, 422, 500])
def test_an_answer_that_is_no_decision_ends_in_an_error_with_what_the_api_said(
    api: Api, client: httpx.Client, strangers: pd.DataFrame, status: int
) -> None:
    api.prepared = [status]
    with pytest.raises(ScoringError, match=rf"/predict/batch answered {status}: .*prepared"):
        ApiScorer(client, PORTFOLIO)(batch_of(strangers[:2]))
    assert api.requests == 1


def test_an_api_that_is_not_there_ends_in_an_error_with_its_address(
    strangers: pd.DataFrame,
) -> None:
    with (
        httpx.Client(base_url="http://127.0.0.1:9", trust_env=False) as client,
        pytest.raises(ScoringError, match=r":9.*ConnectError"),
    ):
        ApiScorer(client, PORTFOLIO)(batch_of(strangers[:2]))
