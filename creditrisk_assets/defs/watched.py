"""The result of a check that is watched: what was seen, the line, on how many rows, how urgent it is and what to do."""

import math
from typing import Any

import dagster as dg

from creditrisk_assets.monitoring.watch_list import BY_CHECK, Tier


def watched_result(
    check: str, *, passed: bool, summary: str, observed: float, threshold: float, rows: int, model_version: str, **more: Any
) -> dg.AssetCheckResult:
    """A result with what every watched check says; tier and advice come from the watch list.

    Args:
        check: its name.
        passed: whether nothing is the matter.
        summary: one line for people.
        observed: the figure that was tested; NaN, and then left out with the threshold, where there is none.
        threshold: where passing ends.
        rows: how many were looked at.
        model_version: whose decisions they are.
        more: further metadata.
    """
    watch = BY_CHECK[check]
    tested = {} if math.isnan(observed) else {"observed": observed, "threshold": threshold}
    return dg.AssetCheckResult(
        passed=passed,
        check_name=check,
        severity=dg.AssetCheckSeverity.ERROR if watch.tier is Tier.PAGE else dg.AssetCheckSeverity.WARN,
        metadata={
            "summary": summary,
            **tested,
            "rows": rows,
            "model_version": model_version,
            "action": watch.action,
            "tier": watch.tier.value,
            **more,
        },
    )
