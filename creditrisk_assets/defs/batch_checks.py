"""Check on `production_batch` against the batches of earlier days. It does not block."""

import dagster as dg

from creditrisk_assets.defs.check_results import check_result
from creditrisk_assets.defs.io import ParquetRows, stored_path
from creditrisk_assets.defs.partitions import DAYS, days_before
from creditrisk_assets.defs.production import production_batch
from creditrisk_assets.settings import Settings

CALENDAR_DAYS = 14
"""Calendar days that are searched for earlier batches; weekends and holidays have none."""


@dg.asset_check(asset=production_batch, partitions_def=DAYS)
def batch_is_not_an_earlier_day_again(
    context: dg.AssetCheckExecutionContext,
    production_batch: ParquetRows,
    settings: dg.ResourceParam[Settings],
) -> dg.AssetCheckResult:
    """At most half of the day's rows repeat an earlier day: the same customers with the same
    values. Does not block: the decisions are right in either case, and a person judges whether the
    delivery was repeated or nothing has changed.
    """
    from creditrisk_assets.monitoring.repeated_days import (
        DAYS_COMPARED,
        REPEATED_SHARE_LIMIT,
        find_repeated_day,
    )

    portfolio = settings.portfolio
    stored = [
        (day, stored_path(settings.storage, "production_batch", day))
        for day in days_before(context.partition_key, CALENDAR_DAYS)
    ]
    earlier = [(day, path) for day, path in stored if path.exists()][:DAYS_COMPARED]
    match = find_repeated_day(
        production_batch.path, earlier, portfolio.identifier, portfolio.field_names
    )
    if not earlier:
        summary = "there is no earlier day to compare with"
    elif match.day is None:
        summary = f"no row is one of the {len(earlier)} days before"
    else:
        summary = (
            f"{match.share:.1%} of the rows are those of {match.day}, limit "
            f"{REPEATED_SHARE_LIMIT:.0%}"
        )
    return check_result(
        "batch_is_not_an_earlier_day_again",
        passed=match.share <= REPEATED_SHARE_LIMIT,
        summary=summary,
        observed=match.share,
        threshold=REPEATED_SHARE_LIMIT,
        rows=match.rows,
        earlier_day=match.day or "none",
        days_compared=len(earlier),
    )


CHECKS = (batch_is_not_an_earlier_day_again,)
