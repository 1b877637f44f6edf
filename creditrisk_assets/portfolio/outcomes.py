"""Outcomes over time: all reported versions, the current version, and the pending customers."""

import datetime
from dataclasses import dataclass

import pandas as pd

VERSION = "version"


@dataclass(frozen=True)
class Maturity:
    """Number of a day's decisions that have an outcome.

    The performance window of `pending` decisions is still open; that of `missing` ones is over
    without an outcome.
    """

    decisions: int
    matured: int
    pending: int
    missing: int


def merge_versions(
    stored: pd.DataFrame | None, observed: pd.DataFrame, identifier: str
) -> pd.DataFrame:
    """Merge the stored outcomes of a day with those of its current files.

    Where the files repeat the stored versions of a customer, and perhaps add some, the files count.
    Where a file was replaced, its last outcome becomes one more version, unless it equals the last
    stored one. No stored version is dropped.

    Args:
        stored: identifier, target, version (1, 2, … for each customer); None at the first merge.
        observed: the same columns, from the files now in the landing zone.
        identifier: name of the customer column.

    Returns:
        The same columns, ordered by customer and version. Merging is idempotent.
    """
    if stored is None:
        stored = observed.iloc[:0]
    target = next(name for name in observed.columns if name not in (identifier, VERSION))
    pairs = stored.merge(observed, how="left", indicator=True)
    contradicted = set(pairs.loc[pairs["_merge"] == "left_only", identifier])
    consistent = observed[~observed[identifier].isin(contradicted)]
    retained = stored[stored[identifier].isin(contradicted)]
    current = current_versions(observed, identifier).merge(
        current_versions(retained, identifier), on=identifier, suffixes=("", "_stored")
    )
    changed = current[current[target] != current[f"{target}_stored"]]
    added = pd.DataFrame(
        {
            identifier: changed[identifier],
            target: changed[target],
            VERSION: changed[f"{VERSION}_stored"] + 1,
        }
    )
    merged = pd.concat([consistent, retained, added[list(observed.columns)]])
    merged = merged.sort_values([identifier, VERSION], kind="stable").reset_index(drop=True)
    return merged.astype({target: "int64", VERSION: "int64"})


def current_versions(outcomes: pd.DataFrame, identifier: str) -> pd.DataFrame:
    """Last version of each customer's outcome, which is the one that counts."""
    ordered = outcomes.sort_values([identifier, VERSION], kind="stable")
    return ordered.drop_duplicates(identifier, keep="last").reset_index(drop=True)


def maturity(decisions: int, matured: int, day: str, latest_day: str, window_days: int) -> Maturity:
    """Maturity of a day's decisions, by the clock of the data.

    Args:
        decisions: number of the day's decisions.
        matured: number of those with an outcome.
        day: the day of the decisions.
        latest_day: the latest day with any data.
        window_days: length of the performance window.
    """
    over = datetime.date.fromisoformat(day) + datetime.timedelta(
        days=window_days
    ) <= datetime.date.fromisoformat(latest_day)
    waiting = decisions - matured
    return Maturity(decisions, matured, 0 if over else waiting, waiting if over else 0)
