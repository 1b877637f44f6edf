"""What the loop has done, as a document: `creditrisk status` prints it, the monitoring page shows
it, nothing in it is a secret.

The loop writes it beside the reports whenever something has happened, so that the API shows it
without the orchestrator's database. `defs.status` gathers it.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict

from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.storage import StoredPath, replacing

STATUS_FILE = "status.json"
DAYS_SHOWN = 60


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class FailedCheck(_Document):
    """A check whose latest evaluation failed: what is wrong, how soon a person must look, and what
    it said.
    """

    check: str
    problem: str
    tier: str
    summary: str
    run_id: str | None


class DayStatus(_Document):
    """One production day as far as it has come; None where it has not come that far.

    `score_psi` is of the day alone; `score_psi_judged` of the days that were judged together,
    against `score_psi_threshold`. `estimated_roc_auc` is what the PDs let expect before any outcome
    is known, `roc_auc` what the matured rows show, `validation_roc_auc` what the version that
    decided showed at validation. `runs` names the run that made each asset.
    """

    day: str
    rows: int | None = None
    rejected: int | None = None
    model_version: str | None = None
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
    validation_roc_auc: float | None = None
    has_report: bool = False
    alarms: tuple[FailedCheck, ...] = ()
    runs: dict[str, str] = {}

    @property
    def failed_checks(self) -> tuple[str, ...]:
        """Names of the checks that failed on it."""
        return tuple(alarm.check for alarm in self.alarms)


class RunStatus(_Document):
    """One run: its job, day, status, start (seconds since the epoch) and why it was started, if a
    sensor said so.
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
    """Something that was done about the champion: a retrain, a verdict, a move by hand.

    Attributes:
        at: seconds since the epoch.
        day: the latest day of data then, None before the first.
        kind: `first`, `promoted`, `rejected`, `unchanged`, `rolled_back` or `cut_off`; a retrain
            without a verdict is `failed` or `in flight`.
        action: what a retrain was to be, `recalibrate` or `refit`.
        text: the reason.
        cause: the failed checks that asked for it.
        model_version: in force after it.
        challenger: version that was judged.
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
    """The champion, since when (seconds since the epoch) and why, the days, alarms that are of no
    day, what was done about the champion, the unfinished and last failed runs, the sensors, what
    the retrain policy says now, what lies in the landing zones and cannot be read, days that have
    landed and were not scored yet, and how many of the checks have run.
    """

    written: float
    champion: ChampionRecord | None
    champion_since: float | None
    champion_because: str | None
    cut_off_by: str | None = None
    retraining: str
    checks: int
    checks_run: int
    waiting_days: tuple[str, ...] = ()
    days: tuple[DayStatus, ...]
    alarms: tuple[FailedCheck, ...] = ()
    events: tuple[Event, ...]
    runs_in_flight: tuple[RunStatus, ...]
    failed_runs: tuple[RunStatus, ...]
    sensors: tuple[SensorStatus, ...]
    landing_problems: tuple[str, ...]
    dagster_url: str
    mlflow_url: str

    @property
    def cut_off(self) -> str | None:
        """By which cut-off the champion decides, and what a promotion does to it."""
        if self.champion is None:
            return None
        stays = (
            "set by policy: it stays when the model changes"
            if self.cut_off_by == "policy"
            else "the model's own: a promotion moves it"
        )
        return f"PD {self.champion.rule.cut_off:.4f}, {stays}"

    @property
    def standing(self) -> list[tuple[str | None, FailedCheck]]:
        """Alarms that stand, the newest day first: of no day, and of days that the champion in
        force has decided.
        """
        return [(None, alarm) for alarm in self.alarms] + self._of_days(decided_by_champion=True)

    @property
    def history(self) -> list[tuple[str | None, FailedCheck]]:
        """Alarms on days that former champions have decided, the newest day first: nothing to act
        on, and no day is forgotten.
        """
        return self._of_days(decided_by_champion=False)

    def _of_days(self, *, decided_by_champion: bool) -> list[tuple[str | None, FailedCheck]]:
        version = self.champion.model_version if self.champion else None
        days = sorted(self.days, key=lambda day: day.day, reverse=True)
        # A day without a version is not decided yet: whatever is wrong with it stands.
        return [
            (day.day, alarm)
            for day in days
            for alarm in day.alarms
            if (day.model_version in (None, version)) == decided_by_champion
        ]

    def write(self, folder: StoredPath) -> None:
        """Put it into the folder of reports, whole or not at all."""
        with replacing(folder / STATUS_FILE) as file:
            file.write(self.model_dump_json().encode())

    @classmethod
    def read(cls, folder: StoredPath) -> Self:
        """What was written last.

        Raises:
            FileNotFoundError: if nothing was written yet.
        """
        return cls.model_validate_json((folder / STATUS_FILE).read_bytes())
