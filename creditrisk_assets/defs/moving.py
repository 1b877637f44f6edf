"""The settings of the place that a store is moved to, and what must not run meanwhile."""

import time
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
from dotenv import dotenv_values

from creditrisk_assets.database import transaction
from creditrisk_assets.decisions.log import segments_in
from creditrisk_assets.settings import Settings

PLACES = (
    "CREDITRISK_DATA_DIR",
    "CREDITRISK_DATABASE_URL",
    "MLFLOW_TRACKING_URI",
    "CREDITRISK_API_DIR",
    "CREDITRISK_API_KEYS_FILE",
)
"""Settings that name the place of a store; the present ones are not those of the new place."""

UNFINISHED_RUNS = dg.RunsFilter(
    statuses=[
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
)

HEARTBEAT_SECONDS = 60
"""A daemon writes one every 30 s."""


def environment_of(file: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of commands at the new place: the present one with other places.

    Args:
        file: lines `NAME=value`; `${NAME}` in a value is that of another line, as in Compose's
            `.env`.
        environment: the present one.
    """
    present = {name: value for name, value in environment.items() if name not in PLACES}
    settings = dotenv_values(file)
    return present | {name: value for name, value in settings.items() if value is not None}


def obstacles(settings: Settings, instance: dg.DagsterInstance) -> list[str]:
    """The reasons why the store cannot be moved now.

    Args:
        settings: of the store.
        instance: its Dagster instance.
    """
    found = [
        f"run {run.run_id} of {run.job_name} is {run.status.value}; valid: no run in progress"
        for run in instance.get_runs(UNFINISHED_RUNS, limit=5)
    ]
    beats = [
        status.last_heartbeat.timestamp
        for status in instance.get_daemon_statuses().values()
        if status.last_heartbeat is not None
    ]
    age = time.time() - max(beats, default=0)
    if age < HEARTBEAT_SECONDS:
        found.append(
            f"Dagster's daemon was alive {age:.0f} s ago; valid: stop it, and wait until it has "
            f"been silent for {HEARTBEAT_SECONDS} s"
        )
    waiting = [*segments_in(settings.open_segments), *segments_in(settings.sealed_segments)]
    if waiting:
        found.append(
            f"{settings.api_folder / 'log'} has {len(waiting)} segments of decisions that are not "
            "archived; valid: stop the API, and run `creditrisk decisions archive --now`"
        )
    if settings.database_url is not None:
        open_claims = sa.text(
            "SELECT count(*) FROM creditrisk.idempotency_keys WHERE answer IS NULL"
        )
        with transaction(settings.database_url.get_secret_value()) as connection:
            claims = connection.execute(open_claims).scalar_one()
        if claims:
            found.append(
                f"{claims} idempotency keys are claimed by a replica of the API that has not "
                "answered them; valid: start it once more, which settles them, and stop it"
            )
    return found
