"""The bundle: the files that decide, read back, proven and run.

Making a bundle is `modelling`'s matter and storing it `registry`'s. This module is all that the API and bulk scoring need of a
model; it holds neither pandas nor scikit-learn.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime
import onnxruntime.capi.onnxruntime_pybind11_state as onnx_errors
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from upath import UPath

from creditrisk_assets.portfolio.contract import Code, Kind, Portfolio
from creditrisk_assets.portfolio.encoding import raw_matrix

GRAPH = "model.onnx"
MANIFEST = "extra_files/manifest.json"
GOLDEN = "extra_files/golden_requests.json"
REFERENCE = "extra_files/reference.parquet"
HELD_OUT = "extra_files/held_out.parquet"
CLASSIFIER = "extra_files/classifier.skops"
INSPECTION = "extra_files/inspection.json"
DECIDING = (GRAPH, MANIFEST, GOLDEN)
"""The files that `bundle_sha256` is over: what decides, not what documents."""


ONNX_ERRORS = (onnx_errors.InvalidProtobuf, onnx_errors.InvalidGraph, onnx_errors.InvalidArgument, onnx_errors.Fail)
"""What onnxruntime raises over bytes that are no graph that it can run."""


class BundleError(RuntimeError):
    """A bundle that must not be served: a file is missing, its hash or its golden answers do not match."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputField(_Document):
    """One column of the graph's input matrix, as the contract described the field when the model was made.

    `codes` stand in the order of the contract's table; a text code enters the matrix as its place in it.
    """

    name: str
    kind: Kind
    minimum: float | None
    maximum: float | None
    codes: list[int] | list[str] | None
    required: bool

    @property
    def is_text(self) -> bool:
        """Whether its values are text codes."""
        return bool(self.codes) and isinstance((self.codes or [0])[0], str)

    @property
    def code_numbers(self) -> dict[Code, float]:
        """The number of each code."""
        codes: list[Code] = [*(self.codes or ())]
        return {code: float(place if isinstance(code, str) else code) for place, code in enumerate(codes)}


class Scaling(_Document):
    """Points: score = offset + factor * ln(good:bad odds); 600 points at 50:1, twice the odds for each 20 points more."""

    base_score: float = 600.0
    base_odds: float = 50.0
    points_to_double_odds: float = 20.0

    @property
    def factor(self) -> float:
        """Points for a factor e in the odds."""
        return self.points_to_double_odds / float(np.log(2.0))

    @property
    def offset(self) -> float:
        """Points at odds of 1:1."""
        return self.base_score - self.factor * float(np.log(self.base_odds))


class Calibration(_Document):
    """Calibrated log-odds = intercept + slope * raw log-odds of the classifier (Platt)."""

    slope: float
    intercept: float


class TrainingFacts(_Document):
    """What the model was fitted on. `fingerprint` is SHA-256 over the rows and their weights; `production_days` are the days
    whose matured rows were added to the history. `family` is the candidate that was chosen, `candidates` has of each its log loss
    on cross-fitted scores, how much that is above the best one's, and the standard error of this.
    """

    kind: str
    rows: int
    bads: int
    fingerprint: str
    production_days: list[str]
    seed: int
    family: str
    parameters: dict[str, float | int]
    candidates: dict[str, dict[str, float]]


class Manifest(_Document):
    """What a bundle says of itself. Deterministic: no time, no run and no version number in it."""

    format: int = 1
    portfolio: str
    inputs: list[InputField]
    features: list[str]
    protected: list[str]
    cut_off: float
    scaling: Scaling
    calibration: Calibration
    training: TrainingFacts
    metrics: dict[str, float]
    parity: float
    libraries: dict[str, str]


class GoldenRequest(_Document):
    """One raw row, None where a value is missing, and the answer that it must give, bit for bit."""

    raw: list[float | None]
    default_probability: float
    score: float


@dataclass(frozen=True)
class Scores:
    """Answers for n rows: PD (float64, 0..1), points (float64, higher is safer) and prediction (int8, 1 = default)."""

    default_probability: NDArray[np.float64]
    score: NDArray[np.float64]
    prediction: NDArray[np.int8]


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle. `location` is its directory, `sha256` the hash over its deciding files."""

    location: str
    sha256: str
    manifest: Manifest
    golden: tuple[GoldenRequest, ...]
    session: onnxruntime.InferenceSession

    def require_fits(self, portfolio: Portfolio) -> None:
        """Whether records of a portfolio's contract, as it is now, can be given to this bundle.

        Raises:
            BundleError: if it was made for another portfolio, or the contract lacks a field or has a text code that the bundle
                does not know.
        """
        if self.manifest.portfolio != portfolio.name:
            raise BundleError(f"bundle {self.location} is of portfolio {self.manifest.portfolio!r}; valid: {portfolio.name!r}")
        contract = {field.name: field for field in portfolio.fields}
        for known in self.manifest.inputs:
            field = contract.get(known.name)
            if field is None or field.is_text != known.is_text:
                what = "no such field" if field is None else f"{field.kind}, {'text' if field.is_text else 'number'}"
                raise BundleError(
                    f"bundle {self.location} needs {known.name} ({known.kind}); the contract has {what}; train again"
                )
            new = [code for code in field.codes or () if field.is_text and code not in known.code_numbers]
            if new:
                raise BundleError(f"bundle {self.location} does not know code {new[0]!r} of {known.name}; train again")

    def raw(self, columns: Mapping[str, Any] | Any) -> NDArray[np.float32]:
        """Records as the graph takes them, by the code tables that the model was made with.

        Args:
            columns: for each input its values, of equal length, as the contract allows them; a frame or a mapping. Columns that
                are no inputs are passed over.

        Raises:
            ValueError: if a text is not a code that this bundle knows.
        """
        return raw_matrix(columns, self.manifest.inputs)

    def score(self, raw: NDArray[np.float32]) -> Scores:
        """Score rows.

        Args:
            raw: rows x fields, float32, columns in the manifest's order.
        """
        probability, score = self.session.run(["default_probability", "score"], {"raw": raw})
        return Scores(probability, score, (probability >= self.manifest.cut_off).astype(np.int8))

    @cached_property
    def input_names(self) -> list[str]:
        """Names of the graph's input columns."""
        return [field.name for field in self.manifest.inputs]

    def document(self, name: str) -> bytes:
        """One of the files that document: `REFERENCE` and `HELD_OUT` are Parquet, `CLASSIFIER` is skops, `INSPECTION` JSON."""
        return bytes(UPath(self.location, name).read_bytes())

    def verify(self) -> None:
        """Run the golden requests.

        Raises:
            BundleError: if any answer differs in any bit.
        """
        answers = self.score(np.array([request.raw for request in self.golden], dtype=np.float32))
        for position, request in enumerate(self.golden):
            given = (float(answers.default_probability[position]), float(answers.score[position]))
            wanted = (request.default_probability, request.score)
            if given != wanted:
                raise BundleError(
                    f"golden request {position} of {self.location} gives {given}; valid: exactly {wanted}. The graph, "
                    "onnxruntime or this processor's mathematics is not the one the bundle was made with."
                )


def load_bundle(location: str, expected_sha256: str | None = None) -> Bundle:
    """Read a bundle's directory, check its hash and its golden answers.

    Args:
        location: directory path or URI.
        expected_sha256: the hash that it must have; without it the bundle only has to agree with itself.

    Raises:
        BundleError: if a file is missing, the hash differs, or a golden answer differs.
    """
    directory = UPath(location)
    try:
        content = {name: (directory / name).read_bytes() for name in DECIDING}
    except OSError as error:
        raise BundleError(f"bundle {location}: cannot read {error.filename or error}") from error
    sha256 = bundle_digest(content)
    if expected_sha256 is not None and sha256 != expected_sha256:
        raise BundleError(f"bundle {location} has SHA-256 {sha256}; valid: {expected_sha256}")
    try:
        bundle = Bundle(
            location=location,
            sha256=sha256,
            manifest=Manifest.model_validate_json(content[MANIFEST]),
            golden=tuple(GoldenRequest.model_validate(one) for one in json.loads(content[GOLDEN])),
            session=open_session(content[GRAPH]),
        )
        bundle.verify()
    except (ValueError, TypeError, *ONNX_ERRORS) as error:
        raise BundleError(f"bundle {location} cannot be read or run: {error}") from error
    return bundle


def bundle_digest(content: dict[str, bytes]) -> str:
    """SHA-256 over names and contents of the deciding files."""
    digest = hashlib.sha256()
    for name in sorted(content):
        digest.update(f"{name}\0{hashlib.sha256(content[name]).hexdigest()}\n".encode())
    return digest.hexdigest()


def open_session(graph: bytes) -> onnxruntime.InferenceSession:
    """An ONNX session with one thread: more threads change the order of sums, and with it the last bit."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class ChampionRecord(BaseModel):
    """What a materialization of the `champion` asset says: which bundle decides from now on, and why."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    mlflow_uri: str
    artifact_uri: str
    model_version: str
    bundle_sha256: str
    verdict: str
    reason: str

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any]) -> "ChampionRecord":
        """From an asset materialization's metadata values."""
        return cls.model_validate({name: value.value for name, value in metadata.items() if name in cls.model_fields})
