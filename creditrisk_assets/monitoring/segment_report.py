"""The documents of a day by segment, as pages read them.

Two assets write one file each, when what it is about is known, below `reports/days/<day>/`:
`segment_report` writes `segments.json` when the day is scored, and `segment_performance` writes
`segments-outcomes.json` with each delivery of outcomes. A reader takes what is there. A portfolio
without segments has no files. The module imports neither pandas nor SciPy.
"""

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict

from creditrisk_assets.storage import StoredPath, replacing

FOLDER = "days"
DIGITS = 5


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


Figure = Annotated[float, AfterValidator(_short)]
"""Number with as many digits as a page shows."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class SegmentVerdict(_Document):
    """A test of a segment.

    Attributes:
        figure: the observed value over the days.
        reference: the value that it is compared with.
        p_value: corrected for all tests of the check.
        limit: the check's alpha; the test fails at a p-value up to it, if the difference matters.
        days: days together, 1 for the day alone.
        failed: whether it is an alarm.
    """

    figure: Figure
    reference: Figure
    p_value: Figure
    limit: Figure
    days: int
    failed: bool


class WorstSlice(_Document):
    """The slice of customers that is furthest from what is expected, of all by one or two fields.

    Attributes:
        conditions: one or two, in words.
        rows: customers in it.
        figure: share of the rows, or bad rate.
        expected: the share in training, or the mean PD.
        p_value: corrected for all slices of the search.
        slices: number of slices that were compared.
    """

    conditions: tuple[str, ...]
    rows: int
    figure: Figure
    expected: Figure
    p_value: Figure
    slices: int


class DecisionSegment(_Document):
    """A segment of the scored day.

    Attributes:
        label: its name.
        rows: customers.
        share: of the day's customers.
        training_share: of the training rows; None without a reference.
        mean_pd: None without customers.
        approval_rate: share with a PD under the cut-off.
        training_approval_rate: the same of the training rows at the same cut-off.
        worst_field: the column that moved most, by its verdict.
        worst_field_label: in the portfolio's words.
        stability: verdict on that column; its figure is the PSI within the segment.
        approval: verdict on the approval rate.
        drifted: all columns with a failed test.
    """

    label: str
    rows: int
    share: Figure
    training_share: Figure | None = None
    mean_pd: Figure | None = None
    approval_rate: Figure | None = None
    training_approval_rate: Figure | None = None
    worst_field: str | None = None
    worst_field_label: str | None = None
    stability: SegmentVerdict | None = None
    approval: SegmentVerdict | None = None
    drifted: tuple[str, ...] = ()


class OutcomeSegment(_Document):
    """Matured customers of a segment of the day.

    Attributes:
        label: its name.
        rows: matured customers.
        bads: of them.
        bad_rate: None without customers; `bad_rate_low` and `bad_rate_high` are its 95 % interval.
        mean_pd: of the same customers.
        roc_auc: None with one class only.
        roc_auc_standard_error: its standard error.
        validation_roc_auc: of the segment's held-out rows.
        level: verdict on bad rate against mean PD.
        ranking: verdict on the AUC.
    """

    label: str
    rows: int
    bads: int
    bad_rate: Figure | None = None
    bad_rate_low: Figure | None = None
    bad_rate_high: Figure | None = None
    mean_pd: Figure | None = None
    roc_auc: Figure | None = None
    roc_auc_standard_error: Figure | None = None
    validation_roc_auc: Figure | None = None
    level: SegmentVerdict | None = None
    ranking: SegmentVerdict | None = None


class DecisionSegmentation(_Document):
    """The scored day by one segmentation; without a reference no segment of it was tested."""

    name: str
    label: str
    has_reference: bool
    segments: tuple[DecisionSegment, ...]


class OutcomeSegmentation(_Document):
    """The matured day by one segmentation."""

    name: str
    label: str
    segments: tuple[OutcomeSegment, ...]


class _DayDocument(_Document):
    """A document of a day.

    Attributes:
        day: the business day.
        model_version: the version that made most of its decisions.
        rows: customers.
        alpha: probability of a false alarm of each check.
        tests: number of tests of each check by its name.
        worst_slice: None if no slice was large enough.
    """

    FILE: ClassVar[str]

    day: str
    model_version: str
    rows: int
    alpha: float
    tests: dict[str, int]
    worst_slice: WorstSlice | None = None

    @classmethod
    def path(cls, reports: StoredPath, day: str) -> StoredPath:
        """Path of a day's document.

        Args:
            reports: folder of the reports, `Settings.reports`.
            day: the business day.
        """
        return reports / FOLDER / day / cls.FILE

    @classmethod
    def read(cls, reports: StoredPath, day: str) -> Self | None:
        """The document of a day; None if it has none."""
        try:
            return cls.model_validate_json(cls.path(reports, day).read_bytes())
        except FileNotFoundError:
            return None

    def write(self, reports: StoredPath) -> StoredPath:
        """Write the document, whole or not at all; returns its path."""
        path = self.path(reports, self.day)
        with replacing(path) as file:
            file.write(self.model_dump_json(exclude_none=True).encode())
        return path


class SegmentDecisions(_DayDocument):
    """A scored day by segment, `segments.json`."""

    FILE = "segments.json"

    segmentations: tuple[DecisionSegmentation, ...]


class SegmentOutcomes(_DayDocument):
    """The outcomes of a day by segment, `segments-outcomes.json`."""

    FILE = "segments-outcomes.json"

    segmentations: tuple[OutcomeSegmentation, ...]
