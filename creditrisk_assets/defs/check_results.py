"""Results of checks: the key of each check, and the metadata that all of them share, such as
observed value, threshold, tier and advice.
"""

import math
from typing import Any

import dagster as dg

from creditrisk_assets.monitoring.check_catalogue import BY_CHECK, WATCHES, Watch


def key_of(watch: Watch) -> dg.AssetCheckKey:
    """The key of a check of the catalogue."""
    return dg.AssetCheckKey(dg.AssetKey(watch.asset), watch.check)


CHECKS = tuple(key_of(watch) for watch in WATCHES)
"""Every check of the graph."""

BLOCKING = tuple(key_of(watch) for watch in WATCHES if watch.blocks)
"""The checks whose failure fails their run."""

CAUSES = tuple(key_of(watch) for watch in WATCHES if watch.asks_for_retraining)
"""The checks whose failure can start a retrain; triage decides between the kinds."""


def check_result(
    check: str,
    *,
    passed: bool,
    summary: str,
    observed: float | str,
    threshold: float | str,
    rows: int,
    **more: Any,
) -> dg.AssetCheckResult:
    """The result of a check; severity, tier and advice come from the check catalogue.

    Args:
        check: its name.
        passed: whether the check passed. If not, the summary begins with the failure.
        summary: one line for people.
        observed: the tested value; NaN if there is none, which leaves out the threshold too.
        threshold: the limit of passing.
        rows: number of rows.
        more: further metadata.
    """
    watch = BY_CHECK[check]
    tested = (
        {}
        if isinstance(observed, float) and math.isnan(observed)
        else {"observed": observed, "threshold": threshold}
    )
    return dg.AssetCheckResult(
        passed=passed,
        check_name=check,
        severity=dg.AssetCheckSeverity.ERROR if watch.is_an_error else dg.AssetCheckSeverity.WARN,
        metadata={
            "summary": summary if passed else watch.failure_summary(summary),
            **tested,
            "rows": rows,
            "action": watch.action,
            "tier": watch.tier.value,
            **more,
        },
    )
