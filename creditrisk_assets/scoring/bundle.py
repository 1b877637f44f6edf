"""The bundle: the files that decide, read back, proven and run.

Making a bundle is `modelling`'s matter and storing it `registry`'s. This module is all that the API
and bulk scoring need of a model; it holds neither pandas nor scikit-learn.
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

if TYPE_CHECKING:  # it is imported with the first session: who only reads records does without
    import onnxruntime

GRAPH = "model.onnx"
REASONS_GRAPH = "extra_files/reasons.onnx"
MANIFEST = "extra_files/manifest.json"
GOLDEN = "extra_files/golden_requests.json"
REFERENCE = "extra_files/reference.parquet"
REFERENCE_PROFILE = "extra_files/reference_profile.json"
HELD_OUT = "extra_files/held_out.parquet"
CLASSIFIER = "extra_files/classifier.skops"
INSPECTION = "extra_files/inspection.json"
DECIDING = (GRAPH, REASONS_GRAPH, MANIFEST, GOLDEN)
"""The files that `bundle_sha256` is over: what decides, not what documents."""

RECALIBRATION = "recalibration"
"""Kind of a bundle that is another one with a new calibration; those whose model was fitted are
`history` and `candidate`.
"""

DECIDED_AT_ONCE = 4_096
"""Rows of one run of the reasons graph, which multiplies them by 2 for each group of fields."""


class BundleError(RuntimeError):
    """A bundle that must not be served: a file is missing, its hash or its golden answers do not
    match.
    """


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputField(_Document):
    """One column of the graph's input matrix, as the contract described the field when the model
    was made.

    `codes` stand in the order of the contract's table; a text code enters the matrix as its place
    in it.
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
        return {
            code: float(place if isinstance(code, str) else code)
            for place, code in enumerate(codes)
        }


class Scaling(_Document):
    """Points: score = offset + factor * ln(good:bad odds); 600 points at 50:1, twice the odds for
    each 20 points more.
    """

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


class ReasonText(_Document):
    """One reason as the portfolio worded it when the model was made."""

    code: str
    text: str
    fields: list[str]


class DecisionRule(_Document):
    """What turns a PD into a decision: the PD from which a customer is refused, and the profile
    that reasons compare with, a customer just good enough to be approved (a value for each input,
    None where it has none).
    """

    cut_off: float
    reference: list[float | None]


class RecalibrationFacts(_Document):
    """How a bundle's calibration was made of another bundle's, its parent's.

    Attributes:
        parent_sha256: hash of the parent, whose graphs these are but for slope and intercept.
        update: the least change of the calibration that more did not significantly beat.
        intercept: new calibrated log-odds = intercept + slope * calibrated log-odds of the parent.
        slope: above 0, so that the order of customers is the parent's.
        change_p: of the likelihood-ratio test of a new intercept and slope against none.
        slope_p: of the likelihood-ratio test of a new intercept and slope against a new intercept.
    """

    parent_sha256: str
    update: Literal["none", "intercept", "intercept and slope"]
    intercept: float
    slope: float
    change_p: float
    slope_p: float


class TrainingFacts(_Document):
    """What the model was fitted on; of a recalibration, what its calibration was fitted on.
    `fingerprint` is SHA-256 over the rows and their weights; `production_days` are the days whose
    matured rows are among them. `family` is the candidate that was chosen, `candidates` has of each
    its log loss on cross-fitted scores, how much that is above the best one's, and the standard
    error of this; a recalibration has both from its parent. `recalibration` is there where `kind`
    is `RECALIBRATION`.
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


class Manifest(_Document):
    """What a bundle says of itself. Deterministic: no time, no run and no version number in it."""

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


class GoldenRequest(_Document):
    """One raw row, None where a value is missing, and the answer that it must give by the bundle's
    own rule, bit for bit.
    """

    raw: list[float | None]
    default_probability: float
    score: float
    prediction: int
    reasons: list[str]


@dataclass(frozen=True)
class Scores:
    """For n rows: PD (float64, 0..1), points (float64, higher is safer) and prediction (int8, 1 =
    default: the PD is at or above the cut-off).
    """

    default_probability: NDArray[np.float64]
    score: NDArray[np.float64]
    prediction: NDArray[np.int8]


@dataclass(frozen=True)
class Decisions(Scores):
    """Scores with reasons: n x up to 4, int8, places in the manifest's reasons in order of
    contribution, then -1.
    """

    reasons: NDArray[np.int8]


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle. `location` is its directory, `sha256` the hash over its deciding files."""

    location: str
    sha256: str
    manifest: Manifest
    golden: tuple[GoldenRequest, ...]
    session: "onnxruntime.InferenceSession"
    reasons_session: "onnxruntime.InferenceSession"

    def require_fits(self, portfolio: Portfolio) -> None:
        """Whether records of a portfolio's contract, as it is now, can be given to this bundle.

        Raises:
            BundleError: if it was made for another portfolio, or the contract lacks a field or has
                a text code that the bundle does not know.
        """
        if self.manifest.portfolio != portfolio.name:
            raise BundleError(
                f"bundle {self.location} is of portfolio {self.manifest.portfolio!r}; valid: "
                f"{portfolio.name!r}"
            )
        contract = {field.name: field for field in portfolio.fields}
        for known in self.manifest.inputs:
            field = contract.get(known.name)
            if field is None or field.is_text != known.is_text:
                what = (
                    "no such field"
                    if field is None
                    else f"{field.kind}, {'text' if field.is_text else 'number'}"
                )
                raise BundleError(
                    f"bundle {self.location} needs {known.name} ({known.kind}); the contract has "
                    f"{what}; train again"
                )
            new = [
                code
                for code in field.codes or ()
                if field.is_text and code not in known.code_numbers
            ]
            if new:
                raise BundleError(
                    f"bundle {self.location} does not know code {new[0]!r} of {known.name}; train "
                    "again"
                )

    def raw(self, columns: Mapping[str, Any] | Any) -> NDArray[np.float32]:
        """Records as the graph takes them, by the code tables that the model was made with.

        Args:
            columns: for each input its values, of equal length, as the contract allows them; a
                frame or a mapping. Columns that are no inputs are passed over.

        Raises:
            ValueError: if a text is not a code that this bundle knows.
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
        """Decide on rows, with reasons. PD and points are the same bits that `score` gives.

        Args:
            raw: rows x fields, float32, columns in the manifest's order.
            rule: cut-off and reference profile.
        """
        if len(raw) <= DECIDED_AT_ONCE:
            probability, score, reasons = self._with_reasons(raw, rule)
        else:
            starts = range(0, len(raw), DECIDED_AT_ONCE)
            parts = [
                self._with_reasons(raw[start : start + DECIDED_AT_ONCE], rule) for start in starts
            ]
            probability, score, reasons = (
                np.concatenate(part) for part in zip(*parts, strict=True)
            )
        prediction = (probability >= rule.cut_off).astype(np.int8)
        return Decisions(probability, score, prediction, reasons.astype(np.int8))

    def _with_reasons(self, raw: NDArray[np.float32], rule: DecisionRule) -> list[NDArray[Any]]:
        """PD, points and places of reasons."""
        outputs = ["default_probability", "score", "reasons"]
        reference = np.array([rule.reference], dtype=np.float32)
        found: list[NDArray[Any]] = self.reasons_session.run(
            outputs, {"raw": raw, "reference": reference}
        )
        return found

    def reason_codes(self, decisions: Decisions) -> list[list[str]]:
        """The codes of each decision's reasons, the strongest first."""
        codes = [reason.code for reason in self.manifest.reasons]
        return [[codes[place] for place in row if place >= 0] for row in decisions.reasons.tolist()]

    @cached_property
    def encoder(self) -> RowEncoder:
        """Encodes a few records, given as mappings, as `raw` does."""
        return RowEncoder(self.manifest.inputs)

    @cached_property
    def input_names(self) -> list[str]:
        """Names of the graph's input columns."""
        return [field.name for field in self.manifest.inputs]

    def document(self, name: str) -> bytes:
        """One of the files that document: `REFERENCE` and `HELD_OUT` are Parquet, `CLASSIFIER` is
        skops, `REFERENCE_PROFILE` and `INSPECTION` JSON.
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
            wanted = (request.default_probability, request.score)
            for answers in (scores, decisions):
                given = (
                    float(answers.default_probability[position]),
                    float(answers.score[position]),
                )
                if given != wanted:
                    raise BundleError(
                        f"golden request {position} of {self.location} gives {given}; valid: "
                        f"exactly {wanted}. The graph, onnxruntime or this processor's "
                        "mathematics is not the one the bundle was made with."
                    )
            decided = (int(decisions.prediction[position]), codes[position])
            if decided != (request.prediction, request.reasons):
                raise BundleError(
                    f"golden request {position} of {self.location} gives {decided}; valid: exactly "
                    f"{(request.prediction, request.reasons)}"
                )


def load_bundle(location: str, expected_sha256: str | None = None) -> Bundle:
    """Read a bundle's directory, check its hash and its golden answers.

    Args:
        location: directory path or URI.
        expected_sha256: the hash that it must have; without it the bundle only has to agree with
            itself.

    Raises:
        BundleError: if a file is missing, the hash differs, or a golden answer differs.
    """
    content = deciding_files(location, expected_sha256)
    try:
        bundle = Bundle(
            location=location,
            sha256=bundle_digest(content),
            manifest=Manifest.model_validate_json(content[MANIFEST]),
            golden=tuple(GoldenRequest.model_validate(one) for one in json.loads(content[GOLDEN])),
            session=open_session(content[GRAPH]),
            reasons_session=open_session(content[REASONS_GRAPH]),
        )
        bundle.verify()
    except _unreadable() as error:
        raise BundleError(f"bundle {location} cannot be read or run: {error}") from error
    return bundle


def deciding_files(location: str, expected_sha256: str | None = None) -> dict[str, bytes]:
    """The contents of a bundle's deciding files by name.

    Args:
        location: directory path or URI.
        expected_sha256: the hash that they must have.

    Raises:
        BundleError: if one is missing, or the hash differs.
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
    """An ONNX session with one thread: more threads change the order of sums, and with it the last
    bit.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _unreadable() -> tuple[type[Exception], ...]:
    """What is raised over a bundle's files that cannot be read or run."""
    import onnxruntime.capi.onnxruntime_pybind11_state as onnx_errors

    of_graphs = (
        onnx_errors.InvalidProtobuf,
        onnx_errors.InvalidGraph,
        onnx_errors.InvalidArgument,
        onnx_errors.Fail,
    )
    return (ValueError, TypeError, *of_graphs)


class BundlePlace(_Document):
    """Where a bundle is, relative to the data folder, and the hash that it must have."""

    artifact_uri: str
    bundle_sha256: str


class ChampionRecord(BaseModel):
    """What a materialization of the `champion` asset says: which bundle decides from now on, by
    which rule, and why.

    `fallback` is the scorecard of the same rows, for when the bundle cannot be loaded; None where
    the bundle is the scorecard. `verdict` and `reason` are of the latest materialization, which may
    be about a challenger that was refused; `in_force_verdict` and `in_force_reason` are of the move
    by which what is in force came into force. Addresses are relative to the data folder.
    `documents_uri` is the folder of the model card and the plots; `ledger_entry` and
    `ledger_sha256` name the last entry of the ledger then. What decides nothing is in no dump of
    the record: the same decisions archive their bytes.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    mlflow_uri: str
    artifact_uri: str
    model_version: str
    bundle_sha256: str
    verdict: str
    reason: str
    rule: DecisionRule
    fallback: BundlePlace | None = None
    documents_uri: str | None = Field(None, exclude=True)
    ledger_entry: int | None = Field(None, exclude=True)
    ledger_sha256: str | None = Field(None, exclude=True)
    in_force_verdict: str | None = Field(None, exclude=True)
    in_force_reason: str | None = Field(None, exclude=True)

    @property
    def moved_by(self) -> str:
        """The move that put it in force: `first`, `promoted`, `rolled_back` or `cut_off`."""
        return self.in_force_verdict or self.verdict

    @property
    def moved_because(self) -> str:
        """Why it was put in force."""
        return self.in_force_reason or self.reason

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any]) -> "ChampionRecord":
        """From an asset materialization's metadata."""
        return cls.of_values({name: value.value for name, value in metadata.items()})

    @classmethod
    def of_values(cls, values: dict[str, Any]) -> "ChampionRecord":
        """From the values of an asset materialization's metadata; what is no part of the record is
        passed over.
        """
        return cls.model_validate(
            {name: value for name, value in values.items() if name in cls.model_fields}
        )
