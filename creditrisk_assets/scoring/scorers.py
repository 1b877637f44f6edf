"""Sources of decisions for files: a bundle in this process, or the API; their numbers are equal."""

import os
import time
import uuid
from hashlib import sha256
from typing import Any, Protocol

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from creditrisk_assets.portfolio.columns import arrow_type, encoded_columns
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import ChampionRecord, Decisions
from creditrisk_assets.scoring.runtime import Runtime

ANSWER_TYPES = {
    "default_probability": pa.float64(),
    "score": pa.float64(),
    "prediction": pa.int8(),
    "reasons": pa.string(),
    "model_version": pa.string(),
    "bundle_sha256": pa.string(),
}
ANSWER_COLUMNS = list(ANSWER_TYPES)
REASONS = "reasons"
Answers = dict[str, pa.Array]
"""Columns of `ANSWER_TYPES`, in the order of the records: all, or all but the reasons."""

LOCAL_ROWS = 16_384
"""Rows of a batch: columns of a batch and their decisions fit into a core's cache."""

API_ROWS = 1_000
RETRIES = 10


class ScoringError(RuntimeError):
    """A file cannot be scored; the message says why."""


class Scorer(Protocol):
    """Source of decisions.

    Attributes:
        columns: of its answers.
        decided_by: the source in words; other words may mean other decisions.
        rows: most rows of a call.
        threads: calls that may run at the same time.
    """

    columns: list[str]
    decided_by: str
    rows: int
    threads: int

    def __call__(self, records: pa.RecordBatch) -> Answers:
        """Decide on records that satisfy the contract: a column for each field, null or NaN where a
        value is missing.
        """


class LocalScorer:
    """Scorer by a bundle in this process, on all processors that the process may use.

    Args:
        runtime: of the champion's bundle and the rule in force.
        champion: in force.
        reasons: whether the answers have reasons.
    """

    rows = LOCAL_ROWS

    def __init__(self, runtime: Runtime, champion: ChampionRecord, *, reasons: bool = True) -> None:
        self.columns = [name for name in ANSWER_COLUMNS if reasons or name != REASONS]
        rule = sha256(runtime.rule.model_dump_json().encode()).hexdigest()
        self.decided_by = (
            f"version {champion.model_version}, bundle {runtime.bundle.sha256}, rule {rule}"
        )
        self._decide = runtime.decide if reasons else runtime.score
        self.threads = len(os.sched_getaffinity(0))
        self._runtime = runtime
        self._champion = champion
        self._codes = [reason.code for reason in runtime.bundle.manifest.reasons]

    def __call__(self, records: pa.RecordBatch) -> Answers:
        """Decide on records."""
        manifest = self._runtime.bundle.manifest
        decided = self._decide(encoded_columns(records, manifest.inputs))
        count = records.num_rows
        answers = {
            "default_probability": pa.array(decided.default_probability),
            "score": pa.array(decided.score),
            "prediction": pa.array(decided.prediction),
        }
        if isinstance(decided, Decisions):
            answers[REASONS] = self._reasons(decided)
        return answers | {
            "model_version": pa.repeat(self._champion.model_version, count),
            "bundle_sha256": pa.repeat(self._runtime.bundle.sha256, count),
        }

    def _reasons(self, decisions: Decisions) -> pa.Array:
        """The reason codes of each row, such as `R01 R03`, the strongest first."""
        places = decisions.reasons
        base = len(self._codes) + 1
        key = np.zeros(len(places), dtype=np.int64)
        for column in places.T:
            key = key * base + (column + 1)
        _, firsts, which = np.unique(key, return_index=True, return_inverse=True)
        texts = [
            " ".join(self._codes[place] for place in row if place >= 0)
            for row in places[firsts].tolist()
        ]
        return pa.array(texts, pa.string()).take(pa.array(which))


class ApiScorer:
    """Scorer by the API behind an HTTP client, with a call of `/predict/batch` for each batch.

    A call without an answer, or without a champion, is repeated with the same idempotency key, so
    no customer is decided on twice.

    Args:
        client: of the API.
        portfolio: contract of the records.
    """

    columns = ANSWER_COLUMNS
    rows = API_ROWS
    threads = 1

    def __init__(self, client: httpx.Client, portfolio: Portfolio) -> None:
        self._client = client
        self.decided_by = f"the API at {client.base_url}"
        self._types = {field.name: arrow_type(field) for field in portfolio.fields}
        self._is_connected = False

    def __call__(self, records: pa.RecordBatch) -> Answers:
        """Decide on records.

        Raises:
            ScoringError: if the API does not decide on all of them.
        """
        columns = {
            name: _without_nan(records.column(name)).cast(kind).to_pylist()
            for name, kind in self._types.items()
        }
        rows = [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
        response = self._post(rows, RETRIES if self._is_connected else 1)
        self._is_connected = True
        if response.status_code != httpx.codes.OK:
            raise ScoringError(
                f"{response.url} answered {response.status_code}: {response.text[:500]}"
            )
        decisions = response.json()
        problem = next((decision for decision in decisions if "problems" in decision), None)
        if problem is not None or len(decisions) != len(rows):
            raise ScoringError(
                f"{response.url} has not decided on every row: {problem or len(decisions)}"[:500]
            )
        for decision in decisions:
            decision["reasons"] = " ".join(reason["code"] for reason in decision["reasons"])
        return {
            name: pa.array([decision[name] for decision in decisions], kind)
            for name, kind in ANSWER_TYPES.items()
        }

    def _post(self, rows: list[dict[str, Any]], attempts: int) -> httpx.Response:
        """Post rows until the answer is not "try again later", with a limited number of attempts.

        Args:
            rows: body of the request.
            attempts: connection failures allowed: one if the API has never answered.
        """
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        for left in reversed(range(RETRIES)):
            try:
                response = self._client.post("/predict/batch", json=rows, headers=headers)
            except httpx.TransportError as error:
                attempts -= 1
                if not attempts or not left:
                    raise ScoringError(
                        f"{self._client.base_url}: {type(error).__name__}: {error}"
                    ) from error
                time.sleep(1)
                continue
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE or not left:
                return response
            time.sleep(float(response.headers.get("Retry-After", "1")))
        raise AssertionError("the last attempt returns or raises")


def _without_nan(column: pa.Array) -> pa.Array:
    """A column with null in place of NaN, which JSON does not have."""
    if not pa.types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), None, column)
