"""The policy: the statistical limits by which the loop raises alarms, retrains and promotes.

It is read from `policy.toml` beside `dagster.yaml` or from the file that CREDITRISK_POLICY names; a
limit that the file omits has its default. The error rates in docs/evidence are those of the
defaults. Each change is an entry of the ledger with the policy's hash. Places, ports and addresses
belong in `settings`; the cut-off belongs in `governance.policy`.
"""

import hashlib
import textwrap
import tomllib
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from creditrisk_assets.storage import StoredPath

COMMENT_WIDTH = 96
HEAD = """\
# The limits by which the loop raises alarms, retrains and promotes. The error rates in
# docs/evidence are those of the defaults. A process reads this file when it starts; a change is
# then recorded in the ledger. `make docs` writes the comments anew, and no limit."""


class PolicyError(ValueError):
    """A policy file cannot be read; the message names the limit and the valid values."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LandingLimits(_Section):
    """Limits for the files of a day."""

    rejected_share: float = Field(
        0.2, ge=0, le=1, description="A day with a larger share of rejected rows is blocked."
    )


class DriftLimits(_Section):
    """Limits of the drift and data quality checks."""

    alpha: float = Field(
        0.001,
        gt=0,
        lt=1,
        description="False alarms for each of the checks of score, features and data quality, and "
        "day; over the columns by Benjamini and Hochberg.",
    )
    floor: float = Field(
        0.02,
        ge=0,
        description="PSI and CSI above their average by chance must exceed this, on however many "
        "rows: a shift of every customer by a seventh of a standard deviation. The rule of thumb "
        "of 0.10 does not see 20 % of payment statuses one step worse.",
    )
    days: int = Field(
        3,
        ge=1,
        le=90,
        description="Days, the last of them the day itself, whose rows by the same champion are "
        "judged together.",
    )
    minimum_rows: int = Field(
        100,
        ge=1,
        description="Fewer rows than this in those days are no evidence of drift: bins of ten "
        "rows.",
    )
    quality_floor: float = Field(
        0.005,
        ge=0,
        lt=1,
        description="Share of rows with a new code, a missing or out-of-range value, or rejected, "
        "that may come on top of training's without an alarm.",
    )


class PerformanceLimits(_Section):
    """Limits of the performance checks and of triage."""

    alpha: float = Field(
        0.001, gt=0, lt=1, description="False alarms for each performance check and day."
    )
    floor: float = Field(
        0.03,
        ge=0,
        description="A smaller fall in AUC, or gap between mean PD and bad rate, is no alarm.",
    )
    days: int = Field(
        14,
        ge=1,
        description="The checks test the last matured day alone and this many together, and half "
        "as many, a quarter and so on: on small days only several together prove a fall, and few "
        "of them see it sooner than many.",
    )


class SegmentLimits(_Section):
    """Limits of the checks by segment."""

    alpha: float = Field(
        0.002,
        gt=0,
        lt=1,
        description="False alarms for each of the checks of stability and approval by segment and "
        "day, over all its segments, fields and spans of days together (Holm).",
    )
    outcome_alpha: float = Field(
        0.003,
        gt=0,
        lt=1,
        description="The same for the check of level and ranking by segment. Its days overlap by "
        "two thirds and more, so that false alarms come in few episodes.",
    )
    minimum_rows: int = Field(
        30,
        ge=10,
        description="A segment with fewer rows in a span of days is shown and not tested.",
    )
    minimum_reference_rows: int = Field(
        250,
        ge=10,
        description="The same for the rows of training: what chance did to a small reference is in "
        "every day that is compared with it.",
    )
    psi_rows: int = Field(
        300,
        ge=10,
        description="PSI within a segment needs so many rows; below that only the middle of a "
        "field is tested, since on fewer rows PSI exceeds its far quantiles too often.",
    )
    approval_floor: float = Field(
        0.05,
        ge=0,
        le=1,
        description="A smaller change of a segment's approval rate against training is no alarm.",
    )
    level_spread: float = Field(
        0.0075,
        ge=0,
        le=1,
        description="Standard deviation of the gaps between bad rate and mean PD that a sound fit "
        "leaves in segments; only a gap beyond this and chance is an alarm.",
    )


class FairnessLimits(_Section):
    """Limits of the monitoring by protected group."""

    rows: int = Field(
        2_000,
        ge=1,
        description="Decisions by group are compared over the latest days of one champion that "
        "hold this many of them, and over one day if it does.",
    )


class GateLimits(_Section):
    """Limits of the promotion gate."""

    evaluation_days: int = Field(
        30,
        ge=1,
        description="Champion and challenger are compared on the matured rows of this many latest "
        "days.",
    )
    minimum_bads: int = Field(
        50,
        ge=2,
        description="Fewer held-out bads, or goods, are no evidence: no promotion.",
    )
    minimum_gain: float = Field(
        0.005, ge=0, description="AUC gain on the held-out rows that a challenger must exceed."
    )
    inferiority_margin: float = Field(
        0.005,
        gt=0,
        description="A loss in AUC as large as this must be excluded: the difference between two "
        "fits of one recipe does no harm.",
    )
    alpha: float = Field(
        0.025,
        gt=0,
        lt=0.5,
        description="Probability that a challenger no better than the champion passes the AUC "
        "test; one-sided. At 0.05 refits of one recipe, of which chance makes some truly better, "
        "passed too often. A recalibration's likelihood on the held-out rows must be more than 1 / "
        "this times the champion's.",
    )
    loss_margin: float = Field(
        0.01,
        ge=0,
        description="Share by which Brier score and log loss may be worse than the champion's; "
        "more must be excluded.",
    )
    level_floor: float = Field(
        0.02,
        ge=0,
        description="A gap between mean PD and bad rate up to this does not stop a challenger.",
    )
    psi_limit: float = Field(
        1.0,
        gt=0,
        description="A larger PSI between the two sides' PDs stops a challenger.",
    )
    swing_limit: float = Field(
        0.15,
        gt=0,
        le=1,
        description="Largest change of the approval rate, each side at its own cut-off, that needs "
        "no human.",
    )
    fairness_floor: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Adverse-impact ratio that a challenger must not fall below where the champion "
        "did not.",
    )
    latency_ms: float = Field(
        20.0,
        gt=0,
        description="Median time of one row, in ms: some hundred times the time of a sound bundle.",
    )


class RetrainingLimits(_Section):
    """Limits of retraining."""

    minimum_bads: int = Field(
        400,
        ge=1,
        description="A retrain waits for this many matured bads since its cause that are new to "
        "the champion: a quarter of the customers, with about 100 of the bads, is held out to "
        "judge it. With so many the gate let 92 % of the recalibrations pass after a bad rate had "
        "risen by half (docs/evidence/promotion-gate.md).",
    )
    complete_share: float = Field(
        0.6,
        ge=0,
        le=1,
        description="A day is evidence when the outcomes of this share of its decisions are there: "
        "the first to come are no fair sample, and are corrected most. Lower it where refused "
        "applicants never get an outcome.",
    )
    triage_days: int = Field(
        14,
        ge=1,
        description="Triage weighs this many of the latest matured days since the cause, and as "
        "many more as hold the bads that a retrain waits for: few enough that an old day does not "
        "hide a new change.",
    )
    cooldown_days: int = Field(
        7,
        ge=0,
        description="Days of data between two retrains: as long as a new champion needs to be "
        "judged by some outcomes.",
    )
    monthly_budget: int = Field(
        3, ge=0, description="Retrains that failed checks may start in 30 days of data."
    )
    rejection_limit: int = Field(
        3,
        ge=1,
        description="After this many retrains in a row without a new champion, a person must look.",
    )
    learning_rows: int = Field(
        200_000,
        ge=1_000,
        description="A challenger learns from at most this many rows, and at most as many held-out "
        "rows judge it. Of more, a sample is drawn, the same for the same days. It limits the "
        "memory and the time of a retrain.",
    )


class ReportLimits(_Section):
    """Limits of reports and alerts."""

    rows: int = Field(
        5_000,
        ge=0,
        description="Rows of each side that the Evidently report draws; 0 leaves reports and plots "
        "of days out.",
    )
    reminder_days: int = Field(
        7,
        ge=0,
        description="Days after which an alarm that goes on is sent again; 0: never. Days of data "
        "where a day is judged.",
    )


class Policy(_Section):
    """All limits, in the sections of `policy.toml`."""

    landing: LandingLimits = LandingLimits()
    drift: DriftLimits = DriftLimits()
    performance: PerformanceLimits = PerformanceLimits()
    segments: SegmentLimits = SegmentLimits()
    fairness: FairnessLimits = FairnessLimits()
    gate: GateLimits = GateLimits()
    retraining: RetrainingLimits = RetrainingLimits()
    reports: ReportLimits = ReportLimits()
    _file: StoredPath | None = PrivateAttr(None)

    @classmethod
    def read(cls, file: StoredPath) -> Self:
        """The policy of a file.

        Raises:
            PolicyError: if it cannot be read, or a limit of it is not valid.
        """
        try:
            policy = cls.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
        except OSError as error:
            raise PolicyError(f"policy {file} cannot be read: {error}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise PolicyError(f"policy {file} is not TOML: {error}") from error
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc']))} is {problem['input']!r:.60}: "
                f"{problem['msg']}"
                for problem in error.errors()
            )
            raise PolicyError(f"policy {file}: {problems}") from error
        policy._file = file
        return policy

    def __eq__(self, other: object) -> bool:
        """Compare the limits, whatever file they came from."""
        return isinstance(other, Policy) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash(self.sha256)

    def current(self) -> Self:
        """The policy of the same file as it is now; the same where it came from no file.

        Raises:
            PolicyError: as `read` does.
        """
        return self if self._file is None else type(self).read(self._file)

    def toml(self) -> str:
        """The file: each limit with its purpose."""
        sections = []
        for section in type(self).model_fields:
            limits: BaseModel = getattr(self, section)
            lines = [f"[{section}]"]
            for name, field in type(limits).model_fields.items():
                comment = textwrap.wrap(field.description or "", COMMENT_WIDTH)
                lines += [*(f"# {line}" for line in comment), f"{name} = {getattr(limits, name)}"]
            sections.append("\n".join(lines))
        return "\n\n".join([HEAD, *sections]) + "\n"

    @property
    def sha256(self) -> str:
        """Hash over every limit."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def changes(self, earlier: "Policy") -> str:
        """The limits that differ from an earlier policy, in words."""
        before, now = _flat(earlier), _flat(self)
        return ", ".join(
            f"{name} {before[name]:g} to {value:g}"
            for name, value in now.items()
            if value != before[name]
        )


def _flat(policy: Policy) -> dict[str, Any]:
    return {
        f"{section}.{name}": value
        for section, limits in policy.model_dump().items()
        for name, value in limits.items()
    }
