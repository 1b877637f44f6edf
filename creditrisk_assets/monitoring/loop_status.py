"""The status of the loop as a document for `creditrisk status` and the monitoring page. It holds no
secret. `defs.status` collects it.

The loop writes it beside the reports after each change, so the API needs no access to the
orchestrator's database.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict

from creditrisk_assets.monitoring.episodes import EpisodeRecord, read_episodes
from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.storage import StoredPath, replacing

STATUS_FILE = "status.json"
DAYS_SHOWN = 60
"""Days that `creditrisk status` and the monitoring page show without being asked for others."""

DAYS_WRITTEN = 1_100
"""Days in the written status: three years."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class FailedCheck(_Document):
    """A check whose latest evaluation failed; `summary` begins with its `failure`."""

    check: str
    failure: str
    tier: str
    summary: str
    run_id: str | None


class DayStatus(_Document):
    """A production day; a field is None until its step has run.

    `score_psi` is of the day alone; `score_psi_judged` is of the pooled days that were compared
    with `score_psi_threshold`. `estimated_roc_auc` is estimated from the PDs; `roc_auc`, `mean_pd`,
    `bad_rate` and both matured losses are of the matured rows that count; `validation_roc_auc` is
    of the deciding version at validation. `expected_loss` is of all decisions. `runs` maps each
    asset to its run.
    """

    day: str
    rows: int | None = None
    rejected: int | None = None
    model_version: str | None = None
    approved: int | None = None
    expected_loss: float | None = None
    score_psi: float | None = None
    score_psi_judged: float | None = None
    score_psi_threshold: float | None = None
    drifted_columns: int | None = None
    drifted: str | None = None
    estimated_roc_auc: float | None = None
    estimated_roc_auc_standard_error: float | None = None
    matured: int | None = None
    pending: int | None = None
    missing: int | None = None
    roc_auc: float | None = None
    roc_auc_standard_error: float | None = None
    mean_pd: float | None = None
    bad_rate: float | None = None
    matured_expected_loss: float | None = None
    realised_loss: float | None = None
    validation_roc_auc: float | None = None
    has_report: bool = False
    alarms: tuple[FailedCheck, ...] = ()
    runs: dict[str, str] = {}

    @property
    def drifted_names(self) -> tuple[str, ...]:
        """Columns that drifted; the score is one of them."""
        return () if self.drifted in (None, "none") else tuple(str(self.drifted).split(", "))

    @property
    def decisions(self) -> int | None:
        """Decisions of the day."""
        if self.matured is None:
            return None
        return self.matured + (self.pending or 0) + (self.missing or 0)

    @property
    def approval_rate(self) -> float | None:
        """Share of the decisions under the cut-off."""
        return (
            None if self.approved is None or not self.decisions else self.approved / self.decisions
        )

    @property
    def failed_checks(self) -> tuple[str, ...]:
        """Names of the failed checks."""
        return tuple(alarm.check for alarm in self.alarms)


class RunStatus(_Document):
    """A run: its job, day, status, start (seconds since the epoch) and, for a run that a sensor
    started, the cause.
    """

    run_id: str
    job: str
    day: str | None
    status: str
    started: float | None
    cause: str | None = None
    action: str | None = None


class SensorStatus(_Document):
    """A sensor's last tick: status, and its skip reason or error."""

    name: str
    status: str
    message: str


class Event(_Document):
    """A retrain, a verdict, or a move of the champion by hand.

    Attributes:
        at: seconds since the epoch.
        day: the latest day of data then, None before the first.
        kind: `first`, `promoted`, `rejected`, `unchanged`, `rolled_back` or `cut_off`; a retrain
            without a verdict is `failed` or `in flight`.
        action: kind of a retrain, `recalibrate` or `refit`.
        text: the reason.
        cause: the failed checks behind it.
        model_version: in force after it.
        challenger: the judged version.
        verdict: names the page of the verdict.
        run_id: of Dagster.
    """

    at: float
    day: str | None
    kind: str
    action: str | None = None
    text: str
    cause: str | None = None
    model_version: str | None = None
    challenger: str | None = None
    verdict: str | None = None
    run_id: str | None = None


class LoopStatus(_Document):
    """The status of the loop.

    Attributes:
        written: time of writing, like `champion_since` in seconds since the epoch.
        champion_because: reason of the champion's promotion.
        cut_off_by: `model` or `policy`.
        retraining: current answer of the retrain policy.
        retraining_needs_person: whether the policy goes on only after a person has acted.
        checks: number of checks.
        checks_run: number of those that have run.
        waiting_days: days that have landed and are not scored.
        alarms: open alarms without a day.
        episodes: open episodes of alarms, then the newest closed ones.
        events: retrains and moves of the champion, newest first.
        failed_runs: the latest ones.
        landing_problems: unreadable entries of the landing zones.
    """

    written: float
    champion: ChampionRecord | None
    champion_since: float | None
    champion_because: str | None
    cut_off_by: str | None = None
    retraining: str
    retraining_needs_person: bool = False
    checks: int
    checks_run: int
    waiting_days: tuple[str, ...] = ()
    days: tuple[DayStatus, ...]
    alarms: tuple[FailedCheck, ...] = ()
    episodes: tuple[EpisodeRecord, ...] = ()
    events: tuple[Event, ...]
    runs_in_flight: tuple[RunStatus, ...]
    failed_runs: tuple[RunStatus, ...]
    sensors: tuple[SensorStatus, ...]
    landing_problems: tuple[str, ...]
    dagster_url: str
    mlflow_url: str

    @property
    def cut_off(self) -> str | None:
        """The champion's cut-off, and the effect of a promotion on it."""
        if self.champion is None:
            return None
        stays = (
            "set by policy: it stays when the model changes"
            if self.cut_off_by == "policy"
            else "the model's own: a promotion moves it"
        )
        return f"PD {self.champion.rule.cut_off:.4f}, {stays}"

    @property
    def open_alarms(self) -> list[tuple[str | None, FailedCheck]]:
        """Alarms without a day, then those on days that the champion in force decided, the newest
        day first.
        """
        return [(None, alarm) for alarm in self.alarms] + self._of_days(decided_by_champion=True)

    @property
    def former_alarms(self) -> list[tuple[str | None, FailedCheck]]:
        """Alarms on days that former champions decided, the newest day first: history only."""
        return self._of_days(decided_by_champion=False)

    def _of_days(self, *, decided_by_champion: bool) -> list[tuple[str | None, FailedCheck]]:
        version = self.champion.model_version if self.champion else None
        days = sorted(self.days, key=lambda day: day.day, reverse=True)
        # A day without a version is not decided yet; its alarms are open.
        return [
            (day.day, alarm)
            for day in days
            for alarm in day.alarms
            if (day.model_version in (None, version)) == decided_by_champion
        ]

    def write(self, folder: StoredPath) -> None:
        """Write the document atomically into the folder of reports."""
        with replacing(folder / STATUS_FILE) as file:
            file.write(self.model_dump_json().encode())

    @classmethod
    def read(cls, folder: StoredPath, episodes: StoredPath | None = None) -> Self:
        """Read the document.

        Args:
            folder: of reports.
            episodes: folder of the episodes. With it, they are those of now, also when the daemon
                is dead, with each acknowledgement and snooze at once.

        Raises:
            FileNotFoundError: if it was not written yet.
        """
        status = cls.model_validate_json((folder / STATUS_FILE).read_bytes())
        if episodes is None:
            return status
        return status.model_copy(update={"episodes": read_episodes(episodes)})
