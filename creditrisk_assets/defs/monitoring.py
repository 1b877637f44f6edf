"""The checks that watch production, and which of them ask whether to retrain."""

from creditrisk_assets.defs import drift, performance

CHECKS = (*drift.CHECKS, *performance.CHECKS)
WATCHED_CHECKS = tuple(key for check in CHECKS for key in check.check_keys)
"""The checks whose failure is a cause: triage decides what it asks for."""
