"""Typed records of a day: the figures that policies, checks and pages read.

Each materialization of a day's asset carries its record under one metadata key, so that it is
stored with the materialization and in its order. All other metadata is for people: renaming one of
its labels changes no decision. `defs.event_log` reads the records.
"""

from pydantic import BaseModel, ConfigDict

KEY = "record"
"""The metadata key."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class BatchRecord(_Record):
    """Rows of a day's files: all of them, the accepted and the rejected."""

    rows_in: int
    rows: int
    rejected: int


class ScoresRecord(_Record):
    """Decisions of a day and the version that made most of them.

    Attributes:
        approved: those under the cut-off.
        expected_loss: sum of PD x LGD x EAD; None if the portfolio names no exposure.
    """

    model_version: str
    rows: int
    approved: int | None = None
    expected_loss: float | None = None


class DriftRecord(_Record):
    """The day beside the population of its champion.

    Attributes:
        score_psi: PSI of the score on the day.
        score_psi_judged: PSI on the days that are judged together.
        score_psi_threshold: alarm line of `score_psi_judged`.
        drifted: names of the columns that drifted.
        estimated_roc_auc: AUC that the PDs imply, with its standard error; None without rows.
        has_report: True if the Evidently report was drawn.
    """

    model_version: str
    rows: int
    score_psi: float
    score_psi_judged: float
    score_psi_threshold: float
    drifted: tuple[str, ...]
    estimated_roc_auc: float | None = None
    estimated_roc_auc_standard_error: float | None = None
    has_report: bool = False


class PerformanceRecord(_Record):
    """The outcomes of a day's decisions.

    Attributes:
        model_version: the version that made most of them.
        decisions: all of them.
        matured: decisions with an outcome.
        pending: decisions whose outcome is not due.
        missing: decisions whose outcome is overdue.
        figures: by name as `performance.day_figures` gives them, which add up over days, and
            `expected_loss` and `realised_loss` of `OutcomesDocument`.
    """

    model_version: str
    decisions: int
    matured: int
    pending: int
    missing: int
    figures: dict[str, float]
