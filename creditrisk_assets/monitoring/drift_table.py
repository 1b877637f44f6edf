"""The drift table: a day against the champion's training rows, one line a column, with counts and
verdict. The rule belongs in `drift_rule`.

A line stores the day's counts, so later days are pooled with it without reading its rows again.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from creditrisk_assets.monitoring.drift_rule import quality_verdicts, stability_verdicts
from creditrisk_assets.policy import DriftLimits
from creditrisk_assets.scoring.reference_profile import Counts, ReferenceProfile

REJECTED = "rejected rows"
PROBLEMS = ("missing values", "values out of range", "new codes")
COUNT_COLUMNS = [
    "column",
    "rows",
    "counts",
    "missing",
    "out_of_range",
    "new_codes",
    "rows_in",
    "rows_rejected",
]
"""Columns of a stored day that later days read."""


def day_counts(counts: Counts, rows_in: int, rows_rejected: int) -> pd.DataFrame:
    """The counts of a day and its landed and rejected rows, one line a column, with
    `COUNT_COLUMNS`.
    """
    return pd.DataFrame(
        {
            "column": list(counts),
            "rows": [int(column.bins.sum()) for column in counts.values()],
            "counts": [column.bins.tolist() for column in counts.values()],
            "missing": [int(column.bins[-1]) for column in counts.values()],
            "out_of_range": [column.out_of_range for column in counts.values()],
            "new_codes": [column.new_codes for column in counts.values()],
            "rows_in": rows_in,
            "rows_rejected": rows_rejected,
        }
    )


def pool_counts(days: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Add up the counts of several days."""
    first = days[0]
    summed = {
        name: np.sum([day[name].to_numpy() for day in days], axis=0)
        for name in COUNT_COLUMNS
        if name not in ("column", "counts")
    }
    counts = [
        np.sum([list(bins) for bins in column], axis=0).tolist()
        for column in zip(*(day["counts"] for day in days), strict=True)
    ]
    return pd.DataFrame({"column": first["column"].to_numpy(), "counts": counts, **summed})[
        COUNT_COLUMNS
    ]


def drift_table(
    profile: ReferenceProfile,
    day: pd.DataFrame,
    earlier: Sequence[pd.DataFrame],
    limits: DriftLimits,
) -> pd.DataFrame:
    """Judge a day alone and pooled with the days before it, each at half of alpha: a large shift is
    found on its first day, a small one when it lasts. A column's line shows the comparison that
    found a shift, else the pooled one.

    Args:
        profile: of the champion that scored the day.
        day: from `day_counts`.
        earlier: the same of the days before, by the same champion, newest first.
        limits: the rule; `days` limits the use of `earlier`.

    Returns:
        The lines of `day` with

        - `value`: PSI (CSI) of the day alone;
        - `bins`, `reference_rows`: of the comparison; the latter in equally weighted rows;
        - `days`, `pooled_rows`, `pooled_value`, `p_value`, `critical`, `threshold`, `drifted`: of
          the comparison shown;
        - `quality_problem`, `quality_share`, `quality_limit`, `quality_p_value`, `quality_rows`,
          `broken`: of the worst of the column's shares of bad values; on the score's line that of
          the rejected rows.
    """
    expected = [profile.effective_counts(column) for column in profile.columns]
    days = [day, *earlier[: limits.days - 1]]
    samples = [(1, day)] if limits.days == 1 else [(1, day), (len(days), pool_counts(days))]
    shared = limits.model_copy(update={"alpha": limits.alpha / len(samples)})
    stability = [_stability(count, rows, expected, shared) for count, rows in samples]
    quality = [_quality(rows, profile, shared) for _, rows in samples]
    return pd.concat(
        [
            day[COUNT_COLUMNS],
            stability[0][["value"]],
            _decisive_lines(stability, "drifted")
            .drop(columns="value")
            .assign(reference_rows=round(profile.effective_rows)),
            _decisive_lines(quality, "broken"),
        ],
        axis=1,
    )


def window_stability(
    profile: ReferenceProfile, days: Sequence[pd.DataFrame], limits: DriftLimits
) -> pd.DataFrame:
    """The lines of `drift_table` for several pooled days, without data quality."""
    expected = [profile.effective_counts(column) for column in profile.columns]
    window = pool_counts(days)
    return pd.concat([window[["column"]], _stability(len(days), window, expected, limits)], axis=1)


def _stability(
    days: int, rows: pd.DataFrame, expected: list[np.ndarray], limits: DriftLimits
) -> pd.DataFrame:
    actual = [np.array(counts, dtype=np.int64) for counts in rows["counts"]]
    verdicts = stability_verdicts(expected, actual, limits)
    return pd.DataFrame(
        {
            "value": verdicts.value,
            "bins": verdicts.bins,
            "days": days,
            "pooled_rows": rows["rows"].to_numpy(),
            "pooled_value": verdicts.value,
            "p_value": verdicts.p_value,
            "critical": verdicts.critical,
            "threshold": verdicts.threshold,
            "drifted": verdicts.drifted,
        }
    )


def _quality(rows: pd.DataFrame, profile: ReferenceProfile, limits: DriftLimits) -> pd.DataFrame:
    """The worst quality test of each column; the score's line is of the rejected rows."""
    inputs = rows.iloc[1:]
    training = profile.effective_rows
    missing = np.array([column.missing_share * training for column in profile.columns[1:]])
    bad = np.stack(
        [inputs[name].to_numpy() for name in ("missing", "out_of_range", "new_codes")], axis=1
    )
    before = np.stack([missing, np.ones(len(missing)), np.zeros(len(missing))], axis=1)
    n = np.repeat(inputs["rows"].to_numpy()[:, None], len(PROBLEMS), axis=1)
    batch = rows.iloc[0]
    verdicts = quality_verdicts(
        np.append(batch["rows_rejected"], bad),
        np.append(batch["rows_in"], n),
        np.append(0.0, before),
        training,
        limits,
    )
    frame = pd.DataFrame(
        {
            "quality_problem": [REJECTED, *(PROBLEMS * len(inputs))],
            "quality_share": verdicts.share,
            "quality_limit": verdicts.limit,
            "quality_p_value": verdicts.p_value,
            "quality_rows": np.append(batch["rows_in"], n),
            "broken": verdicts.failed,
            "place": [0, *np.repeat(np.arange(1, len(rows)), len(PROBLEMS))],
            "excess": verdicts.share - verdicts.limit,
        }
    )
    ordered = frame.sort_values(
        ["place", "broken", "quality_p_value", "excess"],
        ascending=[True, False, True, False],
        kind="stable",
    )
    return ordered.drop_duplicates("place").drop(columns=["place", "excess"]).reset_index(drop=True)


def _decisive_lines(samples: list[pd.DataFrame], alarm: str) -> pd.DataFrame:
    """For each column the day's line if only the day alone is an alarm, else the pooled line."""
    day, pooled = samples[0], samples[-1]
    alone = (day[alarm] & ~pooled[alarm]).to_numpy()
    places = np.where(alone, np.arange(len(day)), len(day) + np.arange(len(day)))
    return pd.concat([day, pooled], ignore_index=True).iloc[places].reset_index(drop=True)
