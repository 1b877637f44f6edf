"""The environment of a process that works on a store, in either shape."""

import os
from pathlib import Path

from creditrisk_assets.settings import Settings
from creditrisk_assets.storage import is_local


def environment_of(home: Path, settings: Settings) -> dict[str, str]:
    """The variables by which a process finds a store.

    Args:
        home: of its Dagster instance.
        settings: of the store.
    """
    found = {"DAGSTER_HOME": str(home), "CREDITRISK_DATA_DIR": str(settings.data_dir)}
    if settings.database_url is not None:
        found["CREDITRISK_DATABASE_URL"] = settings.database_url.get_secret_value()
    if settings.mlflow_tracking_uri is not None:
        found["MLFLOW_TRACKING_URI"] = settings.mlflow_tracking_uri
    if not is_local(settings.data_dir):
        found |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return found
