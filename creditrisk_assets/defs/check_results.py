"""The checks that are watched: their keys, and what each says: what was seen, where the line is,
how urgent it is, what to do.
"""

import math
from typing import Any

import dagster as dg

from creditrisk_assets.monitoring.check_catalogue import BY_CHECK, WATCHES, Watch


def key_of(watch: Watch) -> dg.AssetCheckKey:
    """The key of a check that is watched."""
    return dg.AssetCheckKey(dg.AssetKey(watch.asset), watch.check)


CHECKS = tuple(key_of(watch) for watch in WATCHES)
"""Every check of the graph."""

BLOCKING = tuple(key_of(watch) for watch in WATCHES if watch.blocks)
"""The checks whose failure fails the run that they are in."""

CAUSES = tuple(key_of(watch) for watch in WATCHES if watch.asks_for_retraining)
"""The checks whose failure is a cause: triage decides what it asks for."""


def check_metadata(
    check: str,
    *,
    passed: bool,
    summary: str,
    observed: float | str,
    threshold: float | str,
    rows: int,
    **more: Any,
) -> dict[str, Any]:
    """What every watched check says; tier and advice come from the check catalogue.

    Args:
        check: its name.
        passed: whether nothing is the matter. If something is, the summary begins with what is
            wrong.
        summary: one line for people.
        observed: what was tested; NaN, and then left out with the threshold, where there is
            nothing.
        threshold: where passing ends.
        rows: how many were looked at.
        more: further metadata.
    """
    watch = BY_CHECK[check]
    tested = (
        {}
        if isinstance(observed, float) and math.isnan(observed)
        else {"observed": observed, "threshold": threshold}
    )
    return {
        "summary": summary if passed else watch.failure_summary(summary),
        **tested,
        "rows": rows,
        "action": watch.action,
        "tier": watch.tier.value,
        **more,
    }


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
    """The result of a watched check.

    Args:
        check: its name.
        passed: whether nothing is the matter.
        summary: as for `check_metadata`, like all that follows.
        observed: what was tested.
        threshold: where passing ends.
        rows: how many were looked at.
        more: further metadata.
    """
    watch = BY_CHECK[check]
    return dg.AssetCheckResult(
        passed=passed,
        check_name=check,
        severity=dg.AssetCheckSeverity.ERROR if watch.is_an_error else dg.AssetCheckSeverity.WARN,
        metadata=check_metadata(
            check,
            passed=passed,
            summary=summary,
            observed=observed,
            threshold=threshold,
            rows=rows,
            **more,
        ),
    )
