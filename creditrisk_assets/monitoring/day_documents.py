"""The documents of a day for people: the figures behind its page, its tables and the monthly
report.

Each asset of a day writes its own document beside the reports when it is materialized, so that the
API shows a day without the orchestrator's database. A document holds figures and no customer, and
can be made again from the stored day; no decision depends on it.

    reports/days/<YYYY-MM-DD>/batch.json        by `production_batch`
    reports/days/<YYYY-MM-DD>/decisions.json    by `production_scores`
    reports/days/<YYYY-MM-DD>/drift.json        by `drift_report`
    reports/days/<YYYY-MM-DD>/outcomes.json     by `performance_report`
"""

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict

from creditrisk_assets.storage import StoredPath, replacing

FOLDER = "days"
"""Below the reports."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class _Document(_Part):
    """A document of a day.

    Attributes:
        day: `YYYY-MM-DD`.
        run_id: the Dagster run that wrote it.
    """

    NAME: ClassVar[str]
    day: str
    run_id: str | None = None

    def write(self, reports: StoredPath) -> None:
        """Write the document atomically, in place of an earlier one."""
        with replacing(_place(reports, self.day, self.NAME)) as file:
            file.write(self.model_dump_json().encode())

    @classmethod
    def read(cls, reports: StoredPath, day: str) -> Self | None:
        """The document of a day; None if it was not written.

        Raises:
            OSError: if it cannot be read.
            pydantic.ValidationError: if it is no such document.
        """
        try:
            return cls.model_validate_json(_place(reports, day, cls.NAME).read_bytes())
        except FileNotFoundError:
            return None


def _place(reports: StoredPath, day: str, name: str) -> StoredPath:
    return reports / FOLDER / day / f"{name}.json"


class RejectedRows(_Part):
    """Rejected rows with the same fault: field, the rule that it breaks, and their number."""

    field: str
    rule: str
    rows: int


class FileRows(_Part):
    """Rows of a landed file."""

    file: str
    rows_in: int
    accepted: int
    rejected: int
    duplicates: int


class BatchDocument(_Document):
    """The rows of a day's files.

    Attributes:
        reasons: faults of the rejected rows, the most frequent first; a row may have several.
    """

    NAME = "batch"
    rows_in: int
    rows: int
    rejected: int
    duplicates: int
    files: tuple[FileRows, ...]
    reasons: tuple[RejectedRows, ...] = ()


class Bin(_Part):
    """A bin of a column: its values in words, and its share of the rows in training, on the day
    and, for the score, in the month that ends with the day.
    """

    values: str
    training: float
    day: float
    month: float | None = None


class ColumnDrift(_Part):
    """A column of the day beside training; the score is the first.

    Attributes:
        label: for people.
        psi: of the day alone.
        psi_judged: of the days that are compared with `threshold`.
        days: number of those days.
        problem: the worst kind of bad values; `broken` if their share exceeds its limit.
    """

    name: str
    label: str
    psi: float
    psi_judged: float
    threshold: float
    days: int
    drifted: bool
    problem: str | None = None
    problem_share: float | None = None
    problem_limit: float | None = None
    broken: bool = False
    bins: tuple[Bin, ...] = ()


class DriftDocument(_Document):
    """The day beside the training rows of its champion.

    Attributes:
        month_days: days of the same version in the month that ends with the day.
    """

    NAME = "drift"
    model_version: str
    rows: int
    month_days: int
    columns: tuple[ColumnDrift, ...]

    @property
    def fields(self) -> tuple[ColumnDrift, ...]:
        """The fields, those that moved most in terms of their threshold first."""
        return tuple(
            sorted(self.columns[1:], key=lambda one: one.psi_judged / one.threshold, reverse=True)
        )


class Grade(_Part):
    """Customers of a grade.

    Attributes:
        p_value: posterior probability that the true bad rate is at most the mean PD (Jeffreys
            test): small if the PD is too low. None without outcomes, like the bad rate and its 95 %
            interval.
    """

    grade: str
    pd_from: float
    pd_to: float
    customers: int
    mean_pd: float | None
    bads: int | None = None
    bad_rate: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


class Group(_Part):
    """Decisions on a group of a protected field.

    Attributes:
        ratio: adverse-impact ratio to the group with the largest approval rate, and its 95 %
            interval; None for a group that is too small.
    """

    field: str
    group: str
    rows: int
    approval_rate: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None


class Migration(_Part):
    """Grades of customers who were decided on an earlier day, too.

    Attributes:
        since: the first day that was searched.
        grades: names of the grades.
        customers: for each earlier grade the customers by grade of the day.
    """

    since: str
    grades: tuple[str, ...]
    customers: tuple[tuple[int, ...], ...]


class DecisionsDocument(_Document):
    """The decisions of a day.

    Attributes:
        approved: customers under the cut-off.
        expected_loss: sum of PD x LGD x EAD; None if the portfolio names no exposure.
        approved_expected_loss: of the customers under the cut-off.
        currency: unit of the losses.
    """

    NAME = "decisions"
    model_version: str
    rows: int
    approved: int
    mean_pd: float
    expected_loss: float | None = None
    approved_expected_loss: float | None = None
    currency: str = ""
    grades: tuple[Grade, ...] = ()
    groups: tuple[Group, ...] = ()
    migration: Migration | None = None


class Maturing(_Part):
    """The outcomes of a day's decisions as they were known on a later day of data."""

    latest_day: str
    matured: int
    bads: int


class OutcomesDocument(_Document):
    """The outcomes of a day's decisions.

    Attributes:
        rows: matured decisions that count: by the day's version, on customers it did not learn
            from. The figures are of these.
        expected_loss: sum of PD x LGD x EAD of these; None if the portfolio names no exposure.
        realised_loss: the same sum over the bads with a PD of 1.
        approved: those under the cut-off, and `approved_bads` of them.
        grades_together: the grades of the latest days that the same version decided, the day
            included, from `together_since` on.
        maturing: a line for each day of data on which outcomes came, the oldest first.
    """

    NAME = "outcomes"
    model_version: str
    decisions: int
    matured: int
    pending: int
    missing: int
    rows: int
    bads: int
    mean_pd: float | None = None
    bad_rate: float | None = None
    bad_rate_low: float | None = None
    bad_rate_high: float | None = None
    roc_auc: float | None = None
    roc_auc_low: float | None = None
    roc_auc_high: float | None = None
    validation_roc_auc: float | None = None
    expected_loss: float | None = None
    realised_loss: float | None = None
    currency: str = ""
    approved: int = 0
    approved_bads: int = 0
    grades: tuple[Grade, ...] = ()
    grades_together: tuple[Grade, ...] = ()
    together_since: str | None = None
    maturing: tuple[Maturing, ...] = ()

    @property
    def approved_bad_rate(self) -> float | None:
        """The bad rate of the approved."""
        return self.approved_bads / self.approved if self.approved else None
