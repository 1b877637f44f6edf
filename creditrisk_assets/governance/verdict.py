"""The verdict of the promotion gate as a document: models, evidence, limits and test results.

The same bundles, evidence and limits give the same bytes: it holds no time, run or measured
duration.
"""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict

from creditrisk_assets.modelling.fairness import FieldFigures
from creditrisk_assets.number_format import format_with_limit
from creditrisk_assets.policy import GateLimits


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GateTest(_Document):
    """A test of the gate.

    Attributes:
        name: a sentence of the good state.
        passed: whether it passed.
        observed: the compared figure, None if there is none.
        limit: its limit.
        n: rows of the test.
        warning: whether a person should look although it passed.
        sentence: the finding in words.
    """

    name: str
    passed: bool
    observed: float | None = None
    limit: float | None = None
    n: int = 0
    warning: bool = False
    sentence: str


class JudgedSide(_Document):
    """A judged model: version, bundle, and its figures on the evidence, empty if nothing was
    scored.
    """

    version: str
    bundle_sha256: str
    cut_off: float | None = None
    figures: dict[str, float] = {}
    fairness: list[FieldFigures] = []


class JudgedEvidence(_Document):
    """The evidence of both sides. `sha256` is over the raw fields and outcomes of its rows."""

    origin: str
    rows: int
    bads: int
    sha256: str


class CutOffMove(_Document):
    """The effect of a promotion on the cut-off and on the approval rate of the same rows, each side
    at its own cut-off.

    Attributes:
        rate: the portfolio's name of the approval rate, the share under the cut-off.
        by: `model` if the cut-off is the model's own and moves with it, `policy` if it is set and
            stays.
        before: the champion's cut-off.
        after: the challenger's cut-off.
        approval_rate_before: of the champion, 0 to 1.
        approval_rate_after: of the challenger, 0 to 1.
    """

    rate: str
    by: Literal["model", "policy"]
    before: float
    after: float
    approval_rate_before: float
    approval_rate_after: float

    @property
    def sentence(self) -> str:
        """The move in words."""
        shown = format_with_limit(self.before, self.after, ".4f")
        rates = " to ".join(
            format_with_limit(self.approval_rate_before, self.approval_rate_after, ".1%")
        )
        moved = (
            f"moves with the model from PD {shown[0]} to {shown[1]}"
            if self.by == "model"
            else f"stays at PD {shown[0]}, by policy"
        )
        return f"the cut-off {moved}, and the {self.rate} on the same rows goes from {rates}"


class Verdict(_Document):
    """The gate's decision and its reason.

    Attributes:
        verdict: `first` where there was no champion.
        reason: names the tests that decided.
        kind: the challenger's kind of training; None if its bundle could not be read.
        not_applied: tests that do not apply, with the reason of each.
        cut_off: the effect of a promotion on the cut-off.
    """

    format: int = 1
    verdict: Literal["first", "promoted", "rejected"]
    reason: str
    portfolio: str
    challenger: JudgedSide
    champion: JudgedSide | None
    evidence: JudgedEvidence | None
    limits: GateLimits
    tests: list[GateTest]
    kind: str | None
    not_applied: dict[str, str]
    cut_off: CutOffMove | None

    @property
    def text(self) -> str:
        """The document as JSON, exactly as stored."""
        return self.model_dump_json(indent=2) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of the stored JSON, as `sha256sum` gives it."""
        return hashlib.sha256(self.text.encode()).hexdigest()
