"""The versions of the model side by side on the same customers, as a document for people.

reports/versions.json    by `champion`, after each verdict
"""

from typing import Self

from pydantic import BaseModel, ConfigDict

from creditrisk_assets.storage import StoredPath, replacing

FILE = "versions.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class VersionSegment(_Part):
    """A version on a segment of the evidence; the AUC is None with too few bads or goods."""

    segmentation: str
    segment: str
    rows: int
    bads: int
    mean_pd: float
    approval_rate: float
    roc_auc: float | None = None


class VersionFigures(_Part):
    """A version on the evidence.

    Attributes:
        kind: of its training.
        verdict: of the gate: `first`, `promoted` or `rejected`; None if it was not judged.
        verdict_sha256: names the page of the verdict.
        judged_at: time of the verdict, in seconds since the epoch.
        cut_off: of its rule.
        figures: ranking and calibration, by name; empty if the version has other inputs.
        approval_rate: share of the evidence under its cut-off.
        approved_bad_rate: of that share.
        approval_at_equal_bad_rate: the largest share that it can approve at a bad rate of the
            approved that is not above that of the version in force at its own cut-off.
        approved_expected_loss: mean expected loss of an approved customer.
        approved_loss: realised loss of the approved, over all customers of the evidence.
        segments: by the portfolio's segments, without those by score.
    """

    version: str
    bundle_sha256: str
    family: str
    kind: str
    rows: int
    bads: int
    verdict: str | None = None
    verdict_sha256: str | None = None
    judged_at: float | None = None
    cut_off: float
    figures: dict[str, float] = {}
    approval_rate: float | None = None
    approved_bad_rate: float | None = None
    approval_at_equal_bad_rate: float | None = None
    approved_expected_loss: float | None = None
    approved_loss: float | None = None
    segments: tuple[VersionSegment, ...] = ()


class VersionsDocument(_Part):
    """Versions on the same evidence: customers that no version was fitted on.

    Attributes:
        evidence_of: the newest version, whose held-out rows are the evidence.
        in_force: the version in force when the document was written.
        loss: realised loss of all customers of the evidence, by the portfolio's LGD and exposure;
            None without an exposure.
        currency: unit of the losses.
        versions: the newest first.
    """

    evidence_of: str
    in_force: str
    rows: int
    bads: int
    loss: float | None = None
    currency: str = ""
    versions: tuple[VersionFigures, ...]

    def write(self, reports: StoredPath) -> None:
        """Write the document atomically."""
        with replacing(reports / FILE) as file:
            file.write(self.model_dump_json().encode())

    @classmethod
    def read(cls, reports: StoredPath) -> Self | None:
        """The document; None before the first.

        Raises:
            OSError: if it cannot be read.
            pydantic.ValidationError: if it is no such document.
        """
        try:
            return cls.model_validate_json((reports / FILE).read_bytes())
        except FileNotFoundError:
            return None
