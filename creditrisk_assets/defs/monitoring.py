"""The checks that watch production, and which of them ask whether to retrain."""

from creditrisk_assets.defs import drift, performance
from creditrisk_assets.monitoring.watch_list import BY_CHECK

CHECKS = (*drift.CHECKS, *performance.CHECKS)
WATCHED_CHECKS = tuple(key for check in CHECKS for key in check.check_keys if BY_CHECK[key.name].asks_for_retraining)
"""The checks whose failure is a cause: triage decides what it asks for."""
