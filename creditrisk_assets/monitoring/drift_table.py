"""A day against the champion's training rows: one line for each column, with its counts and the
verdict on them.

The line keeps the day's counts, so that later days are judged together with it without reading
its rows again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from creditrisk_assets.monitoring.drift_rule import (
    DriftLimits,
    QualityVerdicts,
    StabilityVerdicts,
    quality_verdicts,
    stability_verdicts,
)
from creditrisk_assets.scoring.reference_profile import Counts, ReferenceProfile

REJECTED = "rejected rows"
PROBLEMS = ("missing values", "values out of range", "new codes")
KEPT = [
    "column",
    "rows",
    "counts",
    "missing",
    "out_of_range",
    "new_codes",
    "rows_in",
    "rows_rejected",
]
"""What later days need of a day."""


@dataclass(frozen=True)
class Batch:
    """How many rows landed for a day, and how many of them were rejected."""

    rows_in: int
    rows_rejected: int


def counted_day(counts: Counts, batch: Batch) -> pd.DataFrame:
    """The counts of a day: a line for each column, with the columns of `KEPT`."""
    return pd.DataFrame(
        {
            "column": list(counts),
            "rows": [int(one.bins.sum()) for one in counts.values()],
            "counts": [one.bins.tolist() for one in counts.values()],
            "missing": [int(one.bins[-1]) for one in counts.values()],
            "out_of_range": [one.out_of_range for one in counts.values()],
            "new_codes": [one.new_codes for one in counts.values()],
            "rows_in": batch.rows_in,
            "rows_rejected": batch.rows_rejected,
        }
    )


def together(days: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The counts of several days as if they were one."""
    first = days[0]
    summed = {
        name: np.sum([day[name].to_numpy() for day in days], axis=0)
        for name in KEPT
        if name not in ("column", "counts")
    }
    counts = [
        np.sum([list(one) for one in each], axis=0).tolist()
        for each in zip(*(day["counts"] for day in days), strict=True)
    ]
    return pd.DataFrame({"column": first["column"].to_numpy(), "counts": counts, **summed})[KEPT]


def drift_table(
    profile: ReferenceProfile,
    day: pd.DataFrame,
    earlier: Sequence[pd.DataFrame],
    limits: DriftLimits,
) -> pd.DataFrame:
    """The verdict on a day.

    The day is judged by itself and together with the days before it, each at half of alpha: a
    large shift is seen on its first day, a small one when it has stayed. A column's line tells of
    the one that decided; where neither or both did, of all days together.

    Args:
        profile: of the champion that scored the day.
        day: what `counted_day` gives.
        earlier: the same of days before, by the same champion.
        limits: the rule; of `earlier` so many are used as it says.

    Returns:
        The lines of `day` with

        - `value`: PSI (CSI) of the day alone;
        - `bins`, `reference_rows`: of the comparison; the latter in equally weighted rows;
        - `days`, `pooled_rows`, `pooled_value`, `p_value`, `critical`, `threshold`, `drifted`: of
          the comparison that decided;
        - `quality_problem`, `quality_share`, `quality_limit`, `quality_p_value`, `quality_rows`,
          `broken`: of the worst of the column's shares of bad values; on the score's line that of
          the rejected rows.
    """
    expected = [profile.effective_counts(column) for column in profile.columns]
    days = [day, *earlier[: limits.stability_days - 1]]
    samples = [(1, day)] if limits.stability_days == 1 else [(1, day), (len(days), together(days))]
    shared = replace(limits, stability_alpha=limits.stability_alpha / len(samples))
    stability = [_stability(count, rows, expected, shared) for count, rows in samples]
    quality = [_quality(rows, profile, shared) for _, rows in samples]
    return pd.concat(
        [
            day[KEPT],
            stability[0][["value"]],
            _deciding(stability, "drifted")
            .drop(columns="value")
            .assign(reference_rows=round(profile.effective_rows)),
            _deciding(quality, "broken"),
        ],
        axis=1,
    )


def window_stability(
    profile: ReferenceProfile, days: Sequence[pd.DataFrame], limits: DriftLimits
) -> pd.DataFrame:
    """The stability of some days taken together: the lines of `drift_table`, but for data
    quality.
    """
    expected = [profile.effective_counts(column) for column in profile.columns]
    window = together(days)
    return pd.concat([window[["column"]], _stability(len(days), window, expected, limits)], axis=1)


def _stability(
    days: int, rows: pd.DataFrame, expected: list[np.ndarray], limits: DriftLimits
) -> pd.DataFrame:
    actual = [np.array(counts, dtype=np.int64) for counts in rows["counts"]]
    verdicts: StabilityVerdicts = stability_verdicts(expected, actual, limits)
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
    """One line for each column, the worst of its tests; the score's line is of the rejected
    rows.
    """
    inputs = rows.iloc[1:]
    training = profile.effective_rows
    missing = np.array([column.missing_share * training for column in profile.columns[1:]])
    bad = np.stack(
        [inputs[name].to_numpy() for name in ("missing", "out_of_range", "new_codes")], axis=1
    )
    before = np.stack([missing, np.ones(len(missing)), np.zeros(len(missing))], axis=1)
    n = np.repeat(inputs["rows"].to_numpy()[:, None], len(PROBLEMS), axis=1)
    batch = rows.iloc[0]
    verdicts: QualityVerdicts = quality_verdicts(
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


def _deciding(samples: list[pd.DataFrame], alarm: str) -> pd.DataFrame:
    """For each column the line of the day where the day alone is an alarm, else that of all
    days.
    """
    day, pooled = samples[0], samples[-1]
    alone = (day[alarm] & ~pooled[alarm]).to_numpy()
    places = np.where(alone, np.arange(len(day)), len(day) + np.arange(len(day)))
    return pd.concat([day, pooled], ignore_index=True).iloc[places].reset_index(drop=True)
