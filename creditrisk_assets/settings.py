"""Typed settings from the environment, prefix `CREDITRISK_`. Nothing is read at import.

Places, ports, addresses and switches belong here; statistical limits in `policy`; facts about the
book of customers in its `Portfolio`.
"""

import datetime
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ImportString,
    PrivateAttr,
    SecretStr,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from upath import UPath

from creditrisk_assets.policy import Policy
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.storage import is_local, zone_path

SIMULATED = "simulated"
SIMULATED_ROWS = 20_000
SIMULATED_SEED = 20_051_001
LEAST_SIMULATED_ROWS = 1_000
POLICY_FILE = "policy.toml"
IN_DAGSTER = "dagster"
DEFAULT_PORTFOLIO = "creditrisk_assets.portfolio.uci_card.PORTFOLIO"


def _with_own_modules(value: object) -> object:
    """Make modules of the working directory and of the project importable for every entry point:
    the commands, the API, and Dagster's own. Installed modules come first.
    """
    if isinstance(value, str):
        for folder in (str(Path.cwd()), os.environ.get("DAGSTER_HOME", "")):
            if folder and folder not in sys.path:
                sys.path.append(folder)
    return value


def _require_codec(codec: Any) -> Any:
    if not all(callable(getattr(codec, name, None)) for name in ("encode", "decode")):
        raise ValueError("valid: an object with the methods encode and decode")
    return codec


def _none_if_empty(value: object) -> object:
    """None for an empty variable: it takes a setting of a file away from one process."""
    return None if value == "" else value


def default_data_dir() -> str:
    """`data` beside the project's `dagster.yaml`, which `DAGSTER_HOME` names, or else in the
    working directory.
    """
    return str(Path(os.environ.get("DAGSTER_HOME") or ".") / "data")


def default_policy() -> Policy:
    """The policy of `policy.toml` beside `dagster.yaml`; without one, the default limits."""
    file = Path(os.environ.get("DAGSTER_HOME") or ".") / POLICY_FILE
    return Policy.read(file) if file.is_file() else Policy()


def _policy(value: object) -> object:
    return Policy.read(Path(value)) if isinstance(value, str | Path) else value


def _postgresql(url: SecretStr | None) -> SecretStr | None:
    if url is not None and not url.get_secret_value().startswith("postgresql://"):
        raise ValueError("valid: an address that begins with postgresql://")
    return url


def _raw_data(value: str) -> str:
    simulated_history_of(value)
    return value


def simulated_history_of(raw_data: str) -> tuple[int, int] | None:
    """Rows and seed of a simulated history: `simulated`, `simulated:<rows>` or
    `simulated:<rows>:<seed>`; None for a file.

    Raises:
        ValueError: if a part is no number, or there are too few rows.
    """
    name, *numbers = raw_data.split(":")
    if name != SIMULATED:
        return None
    values = [int(number) for number in numbers if number.isdecimal()]
    rows, seed = (*values, *(SIMULATED_ROWS, SIMULATED_SEED)[len(values) :])[:2]
    if len(values) != len(numbers) or len(values) > 2 or rows < LEAST_SIMULATED_ROWS:
        raise ValueError(
            f"valid: {SIMULATED}, {SIMULATED}:<rows> or {SIMULATED}:<rows>:<seed>, with at least "
            f"{LEAST_SIMULATED_ROWS:,} rows"
        )
    return rows, seed


class StoreLocation(BaseSettings):
    """The place of the store, which is enough to open its Dagster instance."""

    model_config = SettingsConfigDict(
        env_prefix="CREDITRISK_", extra="ignore", populate_by_name=True, validate_default=True
    )

    data_dir: Annotated[UPath, BeforeValidator(zone_path)] = Field(
        default_factory=default_data_dir,  # type: ignore[assignment]  # validated, so a path
        description="Folder, or address such as `s3://bucket/prefix`, of the store: the landing "
        "zone and all stored data. By default `data` beside `dagster.yaml`.",
    )
    database_url: Annotated[SecretStr | None, AfterValidator(_postgresql)] = Field(
        None,
        description="PostgreSQL database for what several machines must agree on, such as "
        "`postgresql://user:password@host/creditrisk`: Dagster's records, API keys, idempotency "
        "keys. By default SQLite and files in the data folder.",
    )

    _machine_dir: Path = PrivateAttr(default_factory=lambda: Path(default_data_dir()))

    @property
    def local_dir(self) -> Path:
        """The folder for data that must be on a disk of this machine: Dagster's and MLflow's
        default stores, logs. With an object store it is the default of `CREDITRISK_DATA_DIR` when
        the settings were read.
        """
        return Path(str(self.data_dir)) if is_local(self.data_dir) else self._machine_dir

    @property
    def dagster_dir(self) -> Path:
        """The databases and logs of the embedded Dagster instance."""
        return self.local_dir / "dagster"


class Settings(StoreLocation):
    """The store's places and addresses, and its operator's switches."""

    portfolio: Annotated[ImportString[Portfolio], NoDecode, BeforeValidator(_with_own_modules)] = (
        Field(
            DEFAULT_PORTFOLIO,  # type: ignore[assignment]  # validated, so imported
            description="The book of customers: dotted path of a Portfolio, such as "
            "`my_bank.loans.PORTFOLIO`.",
        )
    )
    mlflow_tracking_uri: str | None = Field(
        None,
        validation_alias=AliasChoices("MLFLOW_TRACKING_URI", "mlflow_tracking_uri"),
        description="MLflow's store; by default a SQLite file under the data folder.",
    )
    raw_data: Annotated[str, AfterValidator(_raw_data)] = Field(
        SIMULATED,
        description="History to train on: a CSV or Parquet file with the portfolio's columns, or "
        "`simulated`, or `simulated:6000` for another number of customers than 20,000.",
    )
    settle_seconds: float = Field(
        2.0,
        ge=0,
        description="A landed file is read once it has not changed for this long; a rename into "
        "place needs no wait.",
    )
    policy: Annotated[Policy, NoDecode, BeforeValidator(_policy)] = Field(
        default_factory=default_policy,
        description="File of the limits for alarms, retraining and promotion; by default "
        "`policy.toml` beside `dagster.yaml`.",
    )
    retraining: bool = Field(
        True, description="The kill switch: with `false` no failed check starts a retrain."
    )

    actor: str | None = Field(
        None,
        description="Name, for the ledger, of the person who moves the champion; by default the "
        "user's name and this machine's.",
    )

    api_dir: Path | None = Field(
        None,
        description="Local folder of the API's decision log and of the state that its processes "
        "share; by default `api` in the data folder. All processes of one API must use the same "
        "folder.",
    )
    decision_log_codec: Annotated[
        ImportString[Any],
        NoDecode,
        BeforeValidator(_with_own_modules),
        AfterValidator(_require_codec),
    ] = Field(
        "creditrisk_assets.decisions.codec.PLAIN",  # validated, so imported
        description="Encodes decisions in the log and decodes them again, for encryption at "
        "rest: dotted path of an object with `encode` and `decode` from bytes to bytes.",
    )

    api_keys_file: Path | None = Field(
        None,
        description="File of the API keys, written by `creditrisk keys`; by default "
        "`api-keys.json` in the data folder, or the database of `CREDITRISK_DATABASE_URL`.",
    )
    api_url: str = Field(
        "http://127.0.0.1:8000",
        description="Address at which people reach the API; links to reports start with it.",
    )
    dagster_url: str = Field(
        "http://127.0.0.1:3000",
        description="Address at which people reach the Dagster UI; links to runs start with it.",
    )
    mlflow_url: str = Field(
        "http://127.0.0.1:5000",
        description="Address at which people reach the MLflow UI; links to models start with it. "
        "Empty: no links.",
    )

    alert_webhook: Annotated[SecretStr | None, BeforeValidator(_none_if_empty)] = Field(
        None,
        description="Address that takes all alerts as JSON by POST. Never shown: it may hold a "
        "token.",
    )
    alert_webhook_secret: Annotated[SecretStr | None, BeforeValidator(_none_if_empty)] = Field(
        None, description="With it, each alert carries its HMAC-SHA256 in X-Creditrisk-Signature."
    )
    alert_routes: Annotated[Path | None, BeforeValidator(_none_if_empty)] = Field(
        None,
        description="TOML file of several receivers of alerts, each with the urgencies and checks "
        "that it takes. It holds no secret: it names variables or files that do.",
    )
    watch_api_url: str | None = Field(
        None,
        description="Address at which the health watch asks the API for its champion; by default "
        "`CREDITRISK_API_URL`. `none`: there is no API.",
    )

    @property
    def scratch(self) -> Path:
        """Local folder for a day's unfinished files, which may be large."""
        return self.local_dir / "scratch"

    @field_validator("alert_webhook")
    @classmethod
    def _webhook_is_http(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("valid: an address that begins with http:// or https://")
        return url

    @property
    def compiled_code(self) -> Path:
        """Cache of compiled bundles, which may be lost; only its owner may write it."""
        return self.local_dir / "compiled"

    @property
    def alerts(self) -> Path:
        """Alerts that wait for delivery."""
        return self.local_dir / "alerts"

    @property
    def episodes(self) -> UPath:
        """The list of alarms' episodes, and people's acknowledgements and snoozes of each."""
        return self.data_dir / "episodes"

    @property
    def landing_production(self) -> UPath:
        """Landing zone of customers: `<day>/*.csv|parquet`."""
        return self.data_dir / "landing" / "production"

    @property
    def landing_outcomes(self) -> UPath:
        return self.data_dir / "landing" / "outcomes"

    @property
    def quarantine(self) -> UPath:
        """Rejected rows, by day and asset."""
        return self.data_dir / "quarantine"

    @property
    def storage(self) -> UPath:
        """Frames of the assets."""
        return self.data_dir / "storage"

    @property
    def reports(self) -> UPath:
        """Drift reports, by day."""
        return self.data_dir / "reports"

    @property
    def ledger(self) -> UPath:
        return self.data_dir / "ledger"

    @property
    def policies(self) -> UPath:
        """The policies that the ledger names, by their hash."""
        return self.data_dir / "policies"

    @property
    def decisions(self) -> UPath:
        """Stored decisions, by day; never deleted."""
        return self.data_dir / "decisions"

    @property
    def api_folder(self) -> Path:
        return self.api_dir or self.local_dir / "api"

    @property
    def open_segments(self) -> Path:
        """Unfinished segments of the decision log, also those of dead processes."""
        return self.api_folder / "log" / "open"

    @property
    def sealed_segments(self) -> Path:
        """Finished segments that have not landed yet."""
        return self.api_folder / "log" / "sealed"

    @property
    def idempotency_file(self) -> Path:
        return self.api_folder / "idempotency.db"

    @property
    def champion_folder(self) -> Path:
        """The API's file of the champion in force, and copies of its bundles."""
        return self.api_folder / "champion"

    @property
    def champion_lock(self) -> Path:
        """Lock file of the commands that move the champion."""
        return self.local_dir / "champion.lock"

    @property
    def api_keys(self) -> Path:
        """The file of API keys; with a database, this replica's copy of them."""
        folder = self.local_dir if self.database_url is None else self.api_folder
        return self.api_keys_file or folder / "api-keys.json"

    @property
    def run_dir(self) -> Path:
        """State that the API's running processes share: the rate limit's table, the metrics."""
        return self.api_folder / "run"

    @property
    def metrics_dir(self) -> Path:
        """Counters of the API's workers."""
        return self.run_dir / "metrics"

    @property
    def mlflow_dir(self) -> Path:
        """MLflow's SQLite file and artifacts."""
        return self.local_dir / "mlflow"

    @property
    def tracking_uri(self) -> str:
        return self.mlflow_tracking_uri or f"sqlite:///{(self.mlflow_dir / 'mlflow.db').resolve()}"

    @property
    def has_mlflow_server(self) -> bool:
        """True if an MLflow server keeps the models' records."""
        return self.tracking_uri.startswith(("http://", "https://"))


class ServingLimits(BaseModel):
    """Limits of the API that rarely change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    champion_poll_seconds: float = Field(
        1.0, gt=0, le=5, description="Seconds between two reads of the champion in force."
    )
    batch_rows_limit: int = Field(
        1_000_000, ge=1, description="Rows that one call of /predict/batch may carry."
    )
    predict_body_limit: int = Field(
        65_536,
        ge=1_024,
        description="Bytes of a request's body, except at /predict/batch: about a hundred times "
        "one customer.",
    )
    batch_body_limit: int = Field(
        1 << 30,
        ge=1_024,
        description="Bytes of the body of /predict/batch, which is read as it arrives and never "
        "held whole.",
    )
    head_seconds: float = Field(
        10.0,
        gt=0,
        description="A connection without a complete request head for this long is closed, also "
        "at its first request.",
    )
    body_seconds: float = Field(
        10.0,
        gt=0,
        description="A body must arrive within this time; that of /predict/batch may pause for "
        "this long.",
    )
    write_seconds: float = Field(
        30.0,
        gt=0,
        description="A connection whose client reads nothing of its answer for this long is "
        "closed.",
    )
    rate_burst: int = Field(
        2_000, ge=1, description="Requests that a caller may make at once before the rate applies."
    )
    segment_megabytes: int = Field(
        32, ge=1, description="A segment of the decision log is finished at this size."
    )
    segment_minutes: float = Field(
        60,
        gt=0,
        description="A segment is also finished after this time: the longest until `creditrisk "
        "replay --date` counts a decision.",
    )
    idempotency_hours: float = Field(
        48,
        gt=0,
        description="Lifetime of an Idempotency-Key: as long as a client may retry.",
    )


class ServingSettings(BaseSettings):
    """Settings of the API process."""

    model_config = SettingsConfigDict(env_prefix="CREDITRISK_", extra="ignore")

    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port that the API listens on.")
    champion_source: str = Field(
        IN_DAGSTER,
        description="Source of the champion in force: `dagster`, the instance of "
        "`DAGSTER_HOME`, or the URL of a Dagster webserver, which may be read-only, so that the "
        "API holds no database password.",
    )
    workers: int = Field(
        1, ge=1, le=64, description="Processes that answer; one a core is the most that helps."
    )
    open_beyond_loopback: bool = Field(
        False,
        description="Answer callers without a key although other machines may reach the API. For "
        "a container whose port is published on loopback only; elsewhere make keys.",
    )
    rate_limit: float = Field(
        1_000,
        ge=0,
        description="Requests a second of one caller, over all workers; 0 is no limit. Below the "
        "capacity of one worker, so that no caller alone can make the others wait. Callers "
        "without a key are not limited: they are on this machine.",
    )
    limits: ServingLimits = Field(
        ServingLimits(),
        description="Limits of the API that rarely change, as a JSON object with any of the names "
        "below.",
    )
    access_log: bool = Field(
        False, description="Log every request, not only refused and failed ones."
    )
    log_format: Literal["json", "console"] | None = Field(
        None,
        description="JSON lines or text for people; by default text on a terminal and JSON lines "
        "elsewhere.",
    )
    otlp_endpoint: str | None = Field(
        None,
        description="Receiver of spans by OTLP over HTTP, such as `http://127.0.0.1:4318`; "
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
