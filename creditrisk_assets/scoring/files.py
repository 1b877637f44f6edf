"""Scoring a file: the rows that satisfy the contract get a decision, the others say why not, and every row is kept.

The decisions come from a bundle in this process, or from the API; both give the same numbers.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.portfolio.landing import SUFFIXES, UnreadableFile, read_rows, replacing
from creditrisk_assets.portfolio.validation import contract_problems, to_numbers
from creditrisk_assets.scoring.bundle import Bundle

CHUNK_ROWS = 1_000
ANSWER_COLUMNS = ["default_probability", "score", "prediction", "model_version", "bundle_sha256"]
RETRIES = 10


class ScoringError(RuntimeError):
    """A file cannot be scored; the message says why."""


class Scorer(Protocol):
    """Anything that gives decisions on rows."""

    def __call__(self, raw: NDArray[np.float32]) -> pd.DataFrame:
        """Decisions on rows x fields (contract order): a frame of `ANSWER_COLUMNS`, in order."""


@dataclass(frozen=True)
class ScoredFile:
    """How many rows got a decision, how many did not, and lines of the file that were no rows at all."""

    scored: int
    rejected: int
    malformed: list[tuple[int, str, str]]


def score_file(
    source: Path, destination: Path, portfolio: Portfolio, scorer: Scorer, progress: Callable[[int, int], None]
) -> ScoredFile:
    """Score a CSV or Parquet file; the result has the file's own columns, the answer's, and `error`.

    Args:
        source: the file.
        destination: a `.csv` or `.parquet` path; it appears whole or not at all.
        portfolio: whose contract the rows must satisfy.
        scorer: where the decisions come from.
        progress: called with rows done and rows in all.

    Raises:
        ScoringError: if the file cannot be read, lacks columns, already has an answer's column, or the destination has another
            suffix.
    """
    if destination.suffix.lower() not in SUFFIXES:
        raise ScoringError(f"{destination}: cannot write {destination.suffix!r}; valid: .csv or .parquet")
    try:
        rows = read_rows(source)
    except (UnreadableFile, OSError) as error:
        raise ScoringError(f"{source}: {error}") from error
    missing = [name for name in portfolio.field_names if name not in rows.cells.columns]
    if missing:
        raise ScoringError(f"{source}: missing column {', '.join(missing)}; valid: {', '.join(portfolio.field_names)}")
    taken = [name for name in (*ANSWER_COLUMNS, "error") if name in rows.cells.columns]
    if taken:
        raise ScoringError(f"{source}: already has column {', '.join(taken)}; valid: a file that was not scored before")

    numbers = pd.DataFrame({name: to_numbers(rows.cells[name]) for name in portfolio.field_names})
    errors: dict[int, list[str]] = {}
    for position, _, _, message in contract_problems(numbers, rows.cells, portfolio.fields):
        errors.setdefault(position, []).append(message)
    good = np.setdiff1d(np.arange(len(numbers)), np.fromiter(errors, dtype=np.int64, count=len(errors)))
    answers = []
    for start in range(0, len(good), CHUNK_ROWS):
        chunk = good[start : start + CHUNK_ROWS]
        answers.append(scorer(numbers.iloc[chunk].to_numpy(dtype=np.float32)).set_axis(chunk, axis=0))
        progress(start + len(chunk), len(good))
    decided = pd.concat(answers) if answers else pd.DataFrame(columns=ANSWER_COLUMNS)
    decided = decided.reindex(range(len(numbers))).astype({"prediction": "Int8"})
    decided["error"] = pd.Series({position: "; ".join(texts) for position, texts in errors.items()}, dtype="object")
    result = pd.concat([rows.cells.set_axis(rows.headers, axis=1), decided], axis=1)
    with replacing(destination) as file:
        if destination.suffix.lower() == ".parquet":
            result.to_parquet(file, index=False)
        else:
            result.to_csv(file, index=False)
    return ScoredFile(len(good), len(errors), rows.malformed)


def local_scorer(bundle: Bundle, model_version: str) -> Scorer:
    """Decisions by a bundle in this process."""

    def score(raw: NDArray[np.float32]) -> pd.DataFrame:
        scores = bundle.score(raw)
        return pd.DataFrame(
            {
                "default_probability": scores.default_probability,
                "score": scores.score,
                "prediction": scores.prediction,
                "model_version": model_version,
                "bundle_sha256": bundle.sha256,
            }
        )

    return score


def api_scorer(client: httpx.Client, portfolio: Portfolio) -> Scorer:
    """Decisions by the API behind an HTTP client, one call of `/predict/batch` for each chunk.

    A call that finds no champion is tried again when the API says so.
    """

    def score(raw: NDArray[np.float32]) -> pd.DataFrame:
        records = [dict(zip(portfolio.field_names, row, strict=True)) for row in raw.astype(np.int64).tolist()]
        for _ in range(RETRIES):
            try:
                response = client.post("/predict/batch", json={"records": records})
            except httpx.HTTPError as error:
                raise ScoringError(f"{client.base_url}: {type(error).__name__}: {error}") from error
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(float(response.headers.get("Retry-After", "1")))
        if response.status_code != httpx.codes.OK:
            raise ScoringError(f"{response.url} answered {response.status_code}: {response.text[:500]}")
        body = response.json()
        return pd.DataFrame(body["predictions"]).assign(model_version=body["model_version"], bundle_sha256=body["bundle_sha256"])[
            ANSWER_COLUMNS
        ]

    return score
