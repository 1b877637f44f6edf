"""Typed settings from the environment, prefix `CREDITRISK_`. Nothing is read at import."""

import datetime
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    ImportString,
    SecretStr,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from upath import UPath

from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.storage import is_local, zone_path

SIMULATED = "simulated"
IN_DAGSTER = "dagster"
DEFAULT_PORTFOLIO = "creditrisk_assets.portfolio.uci_card.PORTFOLIO"


def _look_here(value: object) -> object:
    """Let a dotted path name a module of the folder that is worked in, or of the project's, for
    every entry point alike: the commands, the API, and Dagster's own. What is installed comes
    first.
    """
    if isinstance(value, str):
        for folder in (str(Path.cwd()), os.environ.get("DAGSTER_HOME", "")):
            if folder and folder not in sys.path:
                sys.path.append(folder)
    return value


def _require_codec(codec: Any) -> Any:
    """Raises:
    ValueError: if it does not have the methods of `creditrisk_assets.decisions.codec.Codec`.
    """
    if not all(callable(getattr(codec, name, None)) for name in ("encode", "decode")):
        raise ValueError("valid: an object with the methods encode and decode")
    return codec


def default_data_dir() -> str:
    """`data` beside the project's `dagster.yaml`, which `DAGSTER_HOME` names, or else in the
    working directory.
    """
    return str(Path(os.environ.get("DAGSTER_HOME") or ".") / "data")


class StoreLocation(BaseSettings):
    """Where the store is: all that a process needs to know to open the store's Dagster instance."""

    model_config = SettingsConfigDict(
        env_prefix="CREDITRISK_", extra="ignore", populate_by_name=True, validate_default=True
    )

    data_dir: Annotated[UPath, BeforeValidator(zone_path)] = Field(
        default_factory=default_data_dir,  # type: ignore[assignment]  # validated, so a path
        description="Folder, or address such as `s3://bucket/prefix`, of the store: the landing "
        "zone and all that is stored. By default `data` beside `dagster.yaml`.",
    )

    @property
    def local_dir(self) -> Path:
        """Where this machine keeps what must be on a disk of its own: Dagster's and MLflow's
        default stores, logs.
        """
        return Path(str(self.data_dir)) if is_local(self.data_dir) else Path(default_data_dir())

    @property
    def dagster_dir(self) -> Path:
        """Where the embedded Dagster instance keeps its databases and logs."""
        return self.local_dir / "dagster"


class Settings(StoreLocation):
    """Where things are and by which limits decisions are taken. Every limit says what it is for."""

    portfolio: Annotated[ImportString[Portfolio], NoDecode, BeforeValidator(_look_here)] = Field(
        DEFAULT_PORTFOLIO,  # type: ignore[assignment]  # validated, so imported
        description="The book of customers: dotted path of a Portfolio, such as "
        "`my_bank.loans.PORTFOLIO`.",
    )
    mlflow_tracking_uri: str | None = Field(
        None,
        validation_alias=AliasChoices("MLFLOW_TRACKING_URI", "mlflow_tracking_uri"),
        description="MLflow's store; by default a SQLite file under the data folder.",
    )
    raw_data: str = Field(
        SIMULATED,
        description="History to train on: a CSV or Parquet file with the portfolio's columns, or "
        "the word `simulated`.",
    )
    simulated_rows: int = Field(20_000, ge=1_000, description="Customers in the simulated history.")
    simulated_seed: int = Field(20_051_001, ge=0, description="Seed of the simulated history.")
    rejected_share_limit: float = Field(
        0.2,
        ge=0,
        le=1,
        description="A day with a larger share of rejected rows is blocked, not scored.",
    )
    settle_seconds: float = Field(
        2.0,
        ge=0,
        description="A landed file is read once it has not changed for this long; a rename into "
        "place needs no wait.",
    )
    stability_floor: float = Field(
        0.02,
        ge=0,
        description="PSI and CSI above what chance gives on average must exceed this, however "
        "many rows prove them: a shift of every customer by a seventh of a standard deviation. "
        "The rule of thumb of 0.10 does not see 20 % of payment statuses one step worse.",
    )
    stability_alpha: float = Field(
        0.001,
        gt=0,
        lt=1,
        description="False alarms for each of the checks of score, features and data quality, and "
        "day; over the columns by Benjamini and Hochberg.",
    )
    stability_days: int = Field(
        3,
        ge=1,
        le=90,
        description="Days, the last of them the day itself, whose rows by the same champion are "
        "judged together.",
    )
    stability_minimum_rows: int = Field(
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
    performance_alpha: float = Field(
        0.001, gt=0, lt=1, description="False alarms for each performance check and day."
    )
    performance_floor: float = Field(
        0.03,
        ge=0,
        description="A fall in AUC, or a gap between mean PD and bad rate, smaller than this is "
        "no alarm.",
    )
    performance_days: int = Field(
        14,
        ge=1,
        description="The performance checks test the last matured day alone and this many "
        "together, and half as many, a quarter and so on: on small days only several together "
        "prove a fall, and few of them see it sooner than many.",
    )
    fairness_rows: int = Field(
        2_000,
        ge=1,
        description="Decisions by group are watched over the latest days of one champion that "
        "hold so many of them, and over one day if it does.",
    )
    report_rows: int = Field(
        5_000,
        ge=0,
        description="Rows of each side that the Evidently report draws; 0 leaves reports and "
        "plots of days out.",
    )
    evaluation_days: int = Field(
        30,
        ge=1,
        description="Champion and challenger are compared on the matured rows of this many latest "
        "days.",
    )
    gate_minimum_bads: int = Field(
        50,
        ge=2,
        description="Fewer held-out bads, or goods, than this are no evidence: the challenger is "
        "not promoted.",
    )
    gate_minimum_gain: float = Field(
        0.005, ge=0, description="AUC gain on the held-out rows that a challenger must exceed."
    )
    gate_inferiority_margin: float = Field(
        0.005,
        gt=0,
        description="A loss in AUC as large as this must be excluded: what two fits of one recipe "
        "differ by does no harm.",
    )
    gate_alpha: float = Field(
        0.025,
        gt=0,
        lt=0.5,
        description="Probability that a challenger no better than the champion passes the gate's "
        "AUC test; one-sided. At 0.05 refits of one recipe, of which chance makes some truly "
        "better, passed too often. A recalibration's likelihood on the held-out rows must be more "
        "than 1 / this times the champion's.",
    )
    gate_loss_margin: float = Field(
        0.01,
        ge=0,
        description="Share by which Brier score and log loss may be worse than the champion's; "
        "more must be excluded.",
    )
    gate_level_floor: float = Field(
        0.02,
        ge=0,
        description="A gap between mean PD and bad rate up to this does not stop a challenger.",
    )
    gate_psi_limit: float = Field(
        1.0,
        gt=0,
        description="PSI between the two sides' PDs above which a challenger judges the customers "
        "too differently.",
    )
    gate_swing_limit: float = Field(
        0.15,
        gt=0,
        le=1,
        description="Largest change of the approval rate, each side at its own cut-off, that "
        "needs no human.",
    )
    gate_fairness_floor: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Adverse-impact ratio that a challenger must not fall below where the "
        "champion did not.",
    )
    gate_latency_ms: float = Field(
        20.0,
        gt=0,
        description="Median time of one row, in ms: some hundred times what a bundle takes; it "
        "stops only what is broken.",
    )
    retraining: bool = Field(
        True, description="The kill switch: `false` and no failed check starts a retrain."
    )
    retrain_minimum_bads: int = Field(
        400,
        ge=1,
        description="A retrain waits for this many matured bads since its cause that are new to "
        "the champion: a quarter of the customers, with about 100 of the bads, is held out to "
        "judge it. With so many the gate let 92 % of the recalibrations pass after a bad rate had "
        "risen by half (docs/evidence/promotion-gate.md).",
    )
    retrain_complete_share: float = Field(
        0.6,
        ge=0,
        le=1,
        description="A day is evidence when the outcomes of this share of its decisions are "
        "there: those that come first are no fair sample, and are corrected most. Lower it where "
        "refused applicants never get an outcome.",
    )
    triage_days: int = Field(
        14,
        ge=1,
        description="What an alarm asks for is told by this many of the latest matured days since "
        "its cause, and as many more as hold the bads that a retrain waits for: few enough that "
        "an old day does not hide a new change.",
    )
    retrain_cooldown_days: int = Field(
        7,
        ge=0,
        description="Days of data between two retrains: as long as a new champion needs to be "
        "judged by some outcomes.",
    )
    retrain_monthly_budget: int = Field(
        3, ge=0, description="Retrains that failed checks may start in 30 days of data."
    )
    retrain_rejection_limit: int = Field(
        3,
        ge=1,
        description="After so many retrains in a row that gave no champion, a person is asked to "
        "look.",
    )

    loss_given_default: float = Field(
        0.75,
        ge=0,
        le=1,
        description="LGD: share of the exposure that a default costs. An assumption; no data here "
        "tells it.",
    )
    exposure_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the portfolio's exposure field that is owed in a default. An "
        "assumption.",
    )
    grade_bounds: tuple[float, ...] = Field(
        (0.05, 0.10, 0.15, 0.20, 0.30, 0.50),
        description="PDs between the grades A, B, C and so on, as a JSON list.",
    )
    actor: str | None = Field(
        None,
        description="Who moves the champion by hand, for the ledger; by default the user's name "
        "and this machine's.",
    )

    model_owner: str = Field(
        "not assigned",
        description="Who answers for the model; the model card and the inventory name them.",
    )
    model_developer: str = Field("not assigned", description="Who develops it.")
    model_validator: str = Field(
        "not assigned", description="Who validates it, independently of who develops it."
    )

    api_dir: Path | None = Field(
        None,
        description="Folder on a disk of this machine where the API keeps its decision log and "
        "what its processes share; by default `api` in the data folder. Every process of one API "
        "must have the same.",
    )
    decision_log_codec: Annotated[
        ImportString[Any], NoDecode, BeforeValidator(_look_here), AfterValidator(_require_codec)
    ] = Field(
        "creditrisk_assets.decisions.codec.PLAIN",  # validated, so imported
        description="Encodes decisions in the log and decodes them again, for encryption at "
        "rest: dotted path of an object with `encode` and `decode` from bytes to bytes.",
    )

    api_keys_file: Path | None = Field(
        None,
        description="Who may ask the API; by default `api-keys.json` in the data folder, written "
        "by `creditrisk keys`.",
    )
    api_url: str = Field(
        "http://127.0.0.1:8000",
        description="Where people reach the API; links to reports start with it.",
    )
    dagster_url: str = Field(
        "http://127.0.0.1:3000",
        description="Where people reach the Dagster UI; links to runs start with it.",
    )
    mlflow_url: str = Field(
        "http://127.0.0.1:5000",
        description="Where people reach the MLflow UI; links to models start with it. Empty: none.",
    )

    alert_webhook: SecretStr | None = Field(
        None,
        description="Address that takes alerts as JSON by POST; without one, nobody is told. "
        "Never shown: it may hold a token.",
    )
    alert_webhook_secret: SecretStr | None = Field(
        None, description="With it, each alert carries its HMAC-SHA256 in X-Creditrisk-Signature."
    )
    alert_reminder_days: int = Field(
        7,
        ge=0,
        description="Days after which an alarm that goes on is told again; 0: never. Days of data "
        "where a day is judged.",
    )
    watch_api_url: str | None = Field(
        None,
        description="Where the watch asks which champion the API serves; by default `api_url`. "
        "`none`: there is no API.",
    )
    watch_tick_seconds: float = Field(
        120,
        gt=0,
        description="A sensor may be late by this: a tick may take a minute, and the daemon "
        "another to restart.",
    )
    watch_run_minutes: float = Field(
        75,
        gt=0,
        description="A run under way for longer hangs: Dagster's run monitoring ends one after 60 "
        "minutes.",
    )
    watch_missing_days: int = Field(
        1,
        ge=0,
        description="So many business days that are over and were not scored are no alarm: a file "
        "may come a day late.",
    )
    data_weekdays: tuple[Annotated[int, Field(ge=1, le=7)], ...] = Field(
        (1, 2, 3, 4, 5, 6, 7),
        min_length=1,
        description="Weekdays on which data comes, 1 Monday to 7 Sunday, as a JSON list.",
    )

    @property
    def scratch(self) -> Path:
        """Where a day's files are worked on before they are put in their place: on a disk, for they
        may be large.
        """
        return self.local_dir / "scratch"

    @field_validator("grade_bounds")
    @classmethod
    def _bounds_rise(cls, bounds: tuple[float, ...]) -> tuple[float, ...]:
        if (
            not bounds
            or list(bounds) != sorted({*bounds})
            or not 0 < bounds[0] <= bounds[-1] < 1
            or len(bounds) > 25
        ):
            raise ValueError("valid: 1 to 25 rising PDs between 0 and 1")
        return bounds

    @field_validator("alert_webhook")
    @classmethod
    def _webhook_is_http(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("valid: an address that begins with http:// or https://")
        return url

    @property
    def alerts(self) -> Path:
        """Where alerts wait until they have arrived."""
        return self.local_dir / "alerts"

    @property
    def landing_production(self) -> UPath:
        """Where a day's customers land: `<day>/*.csv|parquet`."""
        return self.data_dir / "landing" / "production"

    @property
    def landing_outcomes(self) -> UPath:
        """Where a day's outcomes land."""
        return self.data_dir / "landing" / "outcomes"

    @property
    def quarantine(self) -> UPath:
        """Where rejected rows go, by day and asset."""
        return self.data_dir / "quarantine"

    @property
    def storage(self) -> UPath:
        """Where assets keep their frames."""
        return self.data_dir / "storage"

    @property
    def reports(self) -> UPath:
        """Where drift reports are written, by day."""
        return self.data_dir / "reports"

    @property
    def ledger(self) -> UPath:
        """Where the promotion ledger's entries are."""
        return self.data_dir / "ledger"

    @property
    def decisions(self) -> UPath:
        """Where decisions are kept for ever, by day."""
        return self.data_dir / "decisions"

    @property
    def api_folder(self) -> Path:
        """Where the API keeps what is its own."""
        return self.api_dir or self.local_dir / "api"

    @property
    def open_segments(self) -> Path:
        """The segments of the decision log that are written to, or were when their process died."""
        return self.api_folder / "log" / "open"

    @property
    def sealed_segments(self) -> Path:
        """Finished segments that have not landed yet."""
        return self.api_folder / "log" / "sealed"

    @property
    def idempotency_file(self) -> Path:
        """The index of idempotency keys."""
        return self.api_folder / "idempotency.db"

    @property
    def champion_folder(self) -> Path:
        """The API's own file of the champion in force, and copies of bundles that answer."""
        return self.api_folder / "champion"

    @property
    def champion_lock(self) -> Path:
        """Whoever moves the champion holds it; of two on this machine, one waits."""
        return self.local_dir / "champion.lock"

    @property
    def api_keys(self) -> Path:
        """The file of API keys."""
        return self.api_keys_file or self.local_dir / "api-keys.json"

    @property
    def run_dir(self) -> Path:
        """What the API's processes share while they run: the rate limit's table, the metrics."""
        return self.api_folder / "run"

    @property
    def metrics_dir(self) -> Path:
        """Where the API's workers count."""
        return self.run_dir / "metrics"

    @property
    def mlflow_dir(self) -> Path:
        """Where MLflow keeps its SQLite file and its artifacts."""
        return self.local_dir / "mlflow"

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry store."""
        return self.mlflow_tracking_uri or f"sqlite:///{(self.mlflow_dir / 'mlflow.db').resolve()}"


class ServingSettings(BaseSettings):
    """Settings of the API process."""

    model_config = SettingsConfigDict(env_prefix="CREDITRISK_", extra="ignore")

    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port that the API listens on.")
    champion_poll_seconds: float = Field(
        1.0, gt=0, le=5, description="How often the API asks which champion is in force."
    )
    champion_source: str = Field(
        IN_DAGSTER,
        description="Where the API reads which champion is in force: `dagster`, the instance of "
        "`DAGSTER_HOME`, or the URL of a Dagster webserver, which may be read-only, so that the "
        "API holds no database password.",
    )
    workers: int = Field(
        1, ge=1, le=64, description="Processes that answer; one a core is the most that helps."
    )
    batch_rows_limit: int = Field(
        1_000_000, ge=1, description="Rows that one call of /predict/batch may carry."
    )
    segment_megabytes: int = Field(
        32, ge=1, description="A segment of the decision log is finished at this size."
    )
    segment_minutes: float = Field(
        60,
        gt=0,
        description="And when it is so old: so long may a decision wait until `creditrisk replay "
        "--date` counts it in.",
    )
    idempotency_hours: float = Field(
        48,
        gt=0,
        description="An Idempotency-Key is remembered for so long: as long as a client may be "
        "trying again.",
    )
    open_beyond_loopback: bool = Field(
        False,
        description="Answer callers without a key though other machines may reach the API. For a "
        "container whose port is published on loopback only; elsewhere make keys.",
    )
    rate_limit: float = Field(
        1_000,
        ge=0,
        description="Requests a second of one caller, over all workers; 0 is no limit. Less than "
        "what one worker answers, so that no caller alone can make the others wait. Callers "
        "without a key are not limited: they are on this machine.",
    )
    rate_burst: int = Field(
        2_000, ge=1, description="Requests that a caller may make at once before the rate counts."
    )
    predict_body_limit: int = Field(
        65_536,
        ge=1_024,
        description="Bytes of a request's body, but for /predict/batch: some hundred times one "
        "customer.",
    )
    batch_body_limit: int = Field(
        1 << 30,
        ge=1_024,
        description="Bytes of the body of /predict/batch, which is read as it comes and never "
        "held whole.",
    )
    head_seconds: float = Field(
        10.0,
        gt=0,
        description="A connection is closed on which no whole request head has come for this "
        "long, the first one too.",
    )
    body_seconds: float = Field(
        10.0,
        gt=0,
        description="A body must be there within this time; that of /predict/batch may be silent "
        "for as long at a time.",
    )
    write_seconds: float = Field(
        30.0,
        gt=0,
        description="A connection is closed whose client has taken nothing of its answer for this "
        "long.",
    )
    access_log: bool = Field(
        False, description="Log every request, not only those that were refused or failed."
    )
    log_format: Literal["json", "console"] | None = Field(
        None,
        description="JSON lines or text for people; by default text on a terminal and JSON lines "
        "elsewhere.",
    )
    otlp_endpoint: str | None = Field(
        None,
        description="Where spans are sent by OTLP over HTTP, such as `http://127.0.0.1:4318`; "
        "needs the extra `otel`.",
    )

    @field_validator("champion_source")
    @classmethod
    def _is_a_source(cls, value: str) -> str:
        if value != IN_DAGSTER and not value.startswith(("http://", "https://")):
            raise ValueError(f"valid: {IN_DAGSTER!r}, or the http(s) URL of a Dagster webserver")
        return value


def today() -> datetime.date:
    """Today's date in UTC. For landing and display only: decisions count days of data."""
    return datetime.datetime.now(datetime.UTC).date()
