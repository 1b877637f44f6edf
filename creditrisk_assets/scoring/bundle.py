"""The bundle: loading, verifying and running the files of a model.

Making a bundle belongs in `modelling`, storing it in `bundle_store`. The API and bulk scoring need
only this module of a model; it imports neither pandas nor scikit-learn.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from upath import UPath

from creditrisk_assets.portfolio.contract import Code, Kind, Portfolio
from creditrisk_assets.portfolio.encoding import RowEncoder, raw_matrix
from creditrisk_assets.storage import store_errors

if TYPE_CHECKING:  # imported with the first session; readers of records do without it
    import onnxruntime

GRAPH = "model.onnx"
REASONS_GRAPH = "extra_files/reasons.onnx"
MANIFEST = "extra_files/manifest.json"
GOLDEN = "extra_files/golden_requests.json"
REFERENCE = "extra_files/reference.parquet"
REFERENCE_PROFILE = "extra_files/reference_profile.json"
SEGMENT_PROFILE = "extra_files/segment_profile.json"
HELD_OUT = "extra_files/held_out.parquet"
CLASSIFIER = "extra_files/classifier.skops"
INSPECTION = "extra_files/inspection.json"
DECIDING = (GRAPH, REASONS_GRAPH, MANIFEST, GOLDEN)
"""Files covered by `bundle_sha256`: those that decide, not those that document."""

SLOPE, INTERCEPT = "calibration_slope", "calibration_intercept"
"""Initializers of both graphs: the calibration, which can be replaced on its own."""

RECALIBRATION = "recalibration"
"""Kind of a bundle made from another by a new calibration; fitted models have the kinds `history`
and `candidate`.
"""

REASONS_CHUNK_ROWS = 4_096
"""Rows in one run of the reasons graph, which doubles them for each group of fields."""


class BundleError(RuntimeError):
    """A bundle must not be served: a file is missing, or its hash or a golden answer differs."""


class Document(BaseModel):
    """Stored document: a fixed set of fields, none of which changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class InputField(Document):
    """Column of the graph's input matrix, with the contract's description at training time.

    `codes` are in the order of the contract; the matrix holds a text code as its place among them.
    """

    name: str
    kind: Kind
    minimum: float | None
    maximum: float | None
    codes: list[int] | list[str] | None
    required: bool

    @property
    def is_text(self) -> bool:
        """Whether the values are text codes."""
        return bool(self.codes) and isinstance((self.codes or [0])[0], str)

    @property
    def code_numbers(self) -> dict[Code, float]:
        codes: list[Code] = [*(self.codes or ())]
        return {
            code: float(place if isinstance(code, str) else code)
            for place, code in enumerate(codes)
        }


class Scaling(Document):
    """Points: score = offset + factor * ln(good:bad odds); 600 points at 50:1, and 20 more points
    double the odds.
    """

    base_score: float = 600.0
    base_odds: float = 50.0
    points_to_double_odds: float = 20.0

    @property
    def factor(self) -> float:
        """Points for odds higher by the factor e."""
        return self.points_to_double_odds / float(np.log(2.0))

    @property
    def offset(self) -> float:
        """Points at odds of 1:1."""
        return self.base_score - self.factor * float(np.log(self.base_odds))


class Calibration(Document):
    """Calibrated log-odds = intercept + slope * raw log-odds of the classifier (Platt)."""

    slope: float
    intercept: float


class ReasonText(Document):
    """Reason with the portfolio's text at training time."""

    code: str
    text: str
    fields: list[str]


class DecisionRule(Document):
    """Rule from PD to decision: the PD from which a customer is refused, and the reference profile
    of the reasons, a customer just good enough to be approved (a value for each input, or None).
    """

    cut_off: float
    reference: list[float | None]


class RecalibrationFacts(Document):
    """Derivation of a bundle's calibration from that of its parent.

    Attributes:
        parent_sha256: hash of the parent; the graphs differ only in slope and intercept.
        update: the smallest change of the calibration that no larger change significantly beats.
        intercept: new calibrated log-odds = intercept + slope * calibrated log-odds of the parent.
        slope: above 0, so the order of customers is the parent's.
        change_p: of the likelihood-ratio test of a new intercept and slope against none.
        slope_p: of the likelihood-ratio test of a new intercept and slope against a new intercept.
    """

    parent_sha256: str
    update: Literal["none", "intercept", "intercept and slope"]
    intercept: float
    slope: float
    change_p: float
    slope_p: float


class TrainingFacts(Document):
    """Data that the model, or the calibration of a recalibration, was fitted on.

    `fingerprint` is SHA-256 over the rows and their weights; `production_days` are the days whose
    matured rows are among them. `family` is the selected candidate; `candidates` has the log loss
    of each on cross-fitted scores, its excess over the best, and the standard error of the excess;
    a recalibration has both from its parent. `recalibration` is set if `kind` is `RECALIBRATION`.
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
    recalibration: RecalibrationFacts | None = None


class Manifest(Document):
    """Description of a bundle. It is deterministic: it has no time, run or version number."""

    format: int = 2
    portfolio: str
    inputs: list[InputField]
    features: list[str]
    protected: list[str]
    reasons: list[ReasonText]
    rule: DecisionRule
    scaling: Scaling
    calibration: Calibration
    training: TrainingFacts
    metrics: dict[str, float]
    parity: float
    libraries: dict[str, str]

    @property
    def cut_off(self) -> float:
        """PD from which a customer is refused, unless a policy says otherwise."""
        return self.rule.cut_off


class GoldenRequest(Document):
    """Raw row, None where a value is missing, and its exact answer by the bundle's own rule."""

    raw: list[float | None]
    default_probability: float
    score: float
    prediction: int
    reasons: list[str]


@dataclass(frozen=True)
class Scores:
    """Scores of n rows: PD (float64, 0..1), points (float64, higher is safer) and prediction (int8,
    1 = default: the PD is at or above the cut-off).
    """

    default_probability: NDArray[np.float64]
    score: NDArray[np.float64]
    prediction: NDArray[np.int8]


@dataclass(frozen=True)
class Decisions(Scores):
    """Scores with reasons: n x up to 4, int8, indices into the manifest's reasons in order of
    contribution, then -1.
    """

    reasons: NDArray[np.int8]


@dataclass(frozen=True)
class Bundle:
    """Loaded bundle. `location` is its directory, `sha256` the hash over its deciding files."""

    location: str
    sha256: str
    manifest: Manifest
    golden: tuple[GoldenRequest, ...]
    session: "onnxruntime.InferenceSession"
    reasons_session: "onnxruntime.InferenceSession"

    def require_fits(self, portfolio: Portfolio) -> None:
        """Check that the bundle can score records of a portfolio's current contract.

        Raises:
            BundleError: if it is of another portfolio, or the contract lacks a field or has a text
                code unknown to the bundle.
        """
        if self.manifest.portfolio != portfolio.name:
            raise BundleError(
                f"bundle {self.location} is of portfolio {self.manifest.portfolio!r}; valid: "
                f"{portfolio.name!r}"
            )
        contract = {field.name: field for field in portfolio.fields}
        for column in self.manifest.inputs:
            field = contract.get(column.name)
            if field is None or field.is_text != column.is_text:
                found = (
                    "no such field"
                    if field is None
                    else f"{field.kind}, {'text' if field.is_text else 'number'}"
                )
                raise BundleError(
                    f"bundle {self.location} needs {column.name} ({column.kind}); the contract has "
                    f"{found}; train again"
                )
            for code in field.codes or () if field.is_text else ():
                if code not in column.code_numbers:
                    raise BundleError(
                        f"bundle {self.location} does not know code {code!r} of {column.name}; "
                        "train again"
                    )

    def raw(self, columns: Mapping[str, Any] | Any) -> NDArray[np.float32]:
        """Encode records for the graph, by the code tables of the model's training.

        Args:
            columns: valid values of each input, of equal length; a frame, a record batch or a
                mapping. Other columns are ignored.

        Raises:
            ValueError: if a text is not a code of this bundle.
        """
        return raw_matrix(columns, self.manifest.inputs)

    def score(self, raw: NDArray[np.float32], cut_off: float | None = None) -> Scores:
        """Score rows, without reasons.

        Args:
            raw: rows x fields, float32, columns in the manifest's order.
            cut_off: PD from which a customer is refused; by default the model's own.
        """
        probability, score = self.session.run(["default_probability", "score"], {"raw": raw})
        limit = self.manifest.cut_off if cut_off is None else cut_off
        return Scores(probability, score, (probability >= limit).astype(np.int8))

    def decide(self, raw: NDArray[np.float32], rule: DecisionRule) -> Decisions:
        """Decide on rows, with reasons. PD and points are bit-identical to those of `score`.

        Args:
            raw: rows x fields, float32, columns in the manifest's order.
            rule: cut-off and reference profile.
        """
        if len(raw) <= REASONS_CHUNK_ROWS:
            probability, score, reasons = self._with_reasons(raw, rule)
        else:
            parts = [
                self._with_reasons(raw[start : start + REASONS_CHUNK_ROWS], rule)
                for start in range(0, len(raw), REASONS_CHUNK_ROWS)
            ]
            probability, score, reasons = map(np.concatenate, zip(*parts, strict=True))
        prediction = (probability >= rule.cut_off).astype(np.int8)
        return Decisions(probability, score, prediction, reasons.astype(np.int8))

    def _with_reasons(self, raw: NDArray[np.float32], rule: DecisionRule) -> list[NDArray[Any]]:
        """PD, points and indices of reasons."""
        outputs = ["default_probability", "score", "reasons"]
        reference = np.array([rule.reference], dtype=np.float32)
        answers: list[NDArray[Any]] = self.reasons_session.run(
            outputs, {"raw": raw, "reference": reference}
        )
        return answers

    def reason_codes(self, decisions: Decisions) -> list[list[str]]:
        """Codes of each decision's reasons, the strongest first."""
        codes = [reason.code for reason in self.manifest.reasons]
        return [[codes[place] for place in row if place >= 0] for row in decisions.reasons.tolist()]

    @cached_property
    def encoder(self) -> RowEncoder:
        """Encoder of a few records, given as mappings; equivalent to `raw`."""
        return RowEncoder(self.manifest.inputs)

    @cached_property
    def input_names(self) -> list[str]:
        return [field.name for field in self.manifest.inputs]

    def document(self, name: str) -> bytes:
        """Content of a documenting file: `REFERENCE` and `HELD_OUT` are Parquet, `CLASSIFIER` is
        skops, `REFERENCE_PROFILE`, `SEGMENT_PROFILE` and `INSPECTION` JSON.
        """
        return bytes(UPath(self.location, name).read_bytes())

    def verify(self) -> None:
        """Run the golden requests.

        Raises:
            BundleError: if any answer differs in any bit, or the two graphs differ.
        """
        raw = np.array([request.raw for request in self.golden], dtype=np.float32)
        scores, decisions = self.score(raw), self.decide(raw, self.manifest.rule)
        codes = self.reason_codes(decisions)
        for position, request in enumerate(self.golden):
            expected = (request.default_probability, request.score)
            for answers in (scores, decisions):
                answer = (
                    float(answers.default_probability[position]),
                    float(answers.score[position]),
                )
                if answer != expected:
                    raise BundleError(
                        f"golden request {position} of {self.location} gives {answer}; valid: "
                        f"exactly {expected}. The graph, onnxruntime or this processor's "
                        "mathematics is not the one the bundle was made with."
                    )
            decision = (int(decisions.prediction[position]), codes[position])
            if decision != (request.prediction, request.reasons):
                raise BundleError(
                    f"golden request {position} of {self.location} gives {decision}; valid: "
                    f"exactly {(request.prediction, request.reasons)}"
                )


def load_bundle(location: str, expected_sha256: str | None = None) -> Bundle:
    """Load a bundle's directory; check its hash and its golden answers.

    Args:
        location: directory path or URI.
        expected_sha256: required hash; without it the bundle only has to be consistent.

    Raises:
        BundleError: if a file is missing, the hash differs, or a golden answer differs.
    """
    content = deciding_files(location, expected_sha256)
    try:
        bundle = Bundle(
            location=location,
            sha256=bundle_digest(content),
            manifest=Manifest.model_validate_json(content[MANIFEST]),
            golden=tuple(map(GoldenRequest.model_validate, json.loads(content[GOLDEN]))),
            session=open_session(content[GRAPH]),
            reasons_session=open_session(content[REASONS_GRAPH]),
        )
        bundle.verify()
    except _load_errors() as error:
        raise BundleError(f"bundle {location} cannot be read or run: {error}") from error
    return bundle


def deciding_files(location: str, expected_sha256: str | None = None) -> dict[str, bytes]:
    """Read the contents of a bundle's deciding files, by name.

    Args:
        location: directory path or URI.
        expected_sha256: required hash.

    Raises:
        BundleError: if a file is missing, or the hash differs.
    """
    directory = UPath(location)
    try:
        with store_errors(directory):
            content = {name: (directory / name).read_bytes() for name in DECIDING}
    except OSError as error:
        raise BundleError(f"bundle {location}: cannot read {error.filename or error}") from error
    sha256 = bundle_digest(content)
    if expected_sha256 is not None and sha256 != expected_sha256:
        raise BundleError(f"bundle {location} has SHA-256 {sha256}; valid: {expected_sha256}")
    return content


def bundle_digest(content: dict[str, bytes]) -> str:
    """SHA-256 over names and contents of the deciding files."""
    digest = hashlib.sha256()
    for name in sorted(content):
        digest.update(f"{name}\0{hashlib.sha256(content[name]).hexdigest()}\n".encode())
    return digest.hexdigest()


def open_session(graph: bytes) -> "onnxruntime.InferenceSession":
    """Open an ONNX session with one thread: more threads would change the order of sums, and with
    it the last bit.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _load_errors() -> tuple[type[Exception], ...]:
    """Exceptions of bundle files that cannot be read or run."""
    import onnxruntime.capi.onnxruntime_pybind11_state as onnx_errors

    graph_errors = (
        onnx_errors.InvalidProtobuf,
        onnx_errors.InvalidGraph,
        onnx_errors.InvalidArgument,
        onnx_errors.Fail,
    )
    return (ValueError, TypeError, *graph_errors)


class BundlePlace(Document):
    """Address of a bundle, relative to the data folder, and its required hash."""

    artifact_uri: str
    bundle_sha256: str


class ModelRef(BundlePlace):
    """Version of the model: its bundle, its number, and its address in MLflow. `fallback` is the
    scorecard of the same rows, for a bundle that cannot be loaded; None if the bundle is the
    scorecard.
    """

    model_version: str
    mlflow_uri: str
    fallback: BundlePlace | None = None


class ChampionRecord(ModelRef):
    """Content of a materialization of the `champion` asset: the bundle in force, its rule, and the
    reason.

    `verdict` and `reason` are those of the latest materialization, which may be about a rejected
    challenger; `in_force_verdict` and `in_force_reason` are those of the change that put the
    current bundle and rule in force.
    `documents_uri` is the folder of the model card and the plots; `ledger_entry` and
    `ledger_sha256` name the last entry of the ledger at that time. Dumps exclude the fields that do
    not decide, so that stored decisions keep their bytes.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    verdict: str
    reason: str
    rule: DecisionRule
    documents_uri: str | None = Field(None, exclude=True)
    ledger_entry: int | None = Field(None, exclude=True)
    ledger_sha256: str | None = Field(None, exclude=True)
    in_force_verdict: str | None = Field(None, exclude=True)
    in_force_reason: str | None = Field(None, exclude=True)

    @property
    def effective_verdict(self) -> str:
        """Verdict that put it in force: `first`, `promoted`, `rolled_back` or `cut_off`."""
        return self.in_force_verdict or self.verdict

    @property
    def effective_reason(self) -> str:
        return self.in_force_reason or self.reason

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> "ChampionRecord":
        """Parse the values of an asset materialization's metadata; other values are ignored."""
        return cls.model_validate(values)
