"""Outcomes over time: every version that was ever reported, the one that counts, and who is still
waited for.
"""

import datetime
from dataclasses import dataclass

import pandas as pd

VERSION = "version"


@dataclass(frozen=True)
class Maturity:
    """How many of a day's decisions have an outcome.

    `pending` ones have none yet and their performance window is still open; `missing` ones have
    none although it is over.
    """

    decisions: int
    matured: int
    pending: int
    missing: int


def merged_versions(
    kept: pd.DataFrame | None, observed: pd.DataFrame, identifier: str
) -> pd.DataFrame:
    """What was kept of a day, with what its files say now.

    Where the files repeat what is kept and add to it, they are the longer story. Where a file was
    replaced, what it says last is one more version, unless that is what is kept already. Nothing
    that was kept is dropped.

    Args:
        kept: identifier, target, version (1, 2, … for each customer); None before the first time.
        observed: the same, from the files that lie in the landing zone now.
        identifier: name of the customer column.

    Returns:
        The same columns, ordered by customer and version; the same files twice give the same rows.
    """
    if kept is None:
        kept = observed.iloc[:0]
    target = next(name for name in observed.columns if name not in (identifier, VERSION))
    pairs = kept.merge(observed, how="left", indicator=True)
    contradicted = set(pairs.loc[pairs["_merge"] == "left_only", identifier])
    longer = observed[~observed[identifier].isin(contradicted)]
    stays = kept[kept[identifier].isin(contradicted)]
    says = current_versions(observed, identifier).merge(
        current_versions(stays, identifier), on=identifier, suffixes=("", "_kept")
    )
    news = says[says[target] != says[f"{target}_kept"]]
    added = pd.DataFrame(
        {identifier: news[identifier], target: news[target], VERSION: news[f"{VERSION}_kept"] + 1}
    )
    merged = pd.concat([longer, stays, added[list(observed.columns)]])
    merged = merged.sort_values([identifier, VERSION], kind="stable").reset_index(drop=True)
    return merged.astype({target: "int64", VERSION: "int64"})


def current_versions(outcomes: pd.DataFrame, identifier: str) -> pd.DataFrame:
    """The last version of each customer's outcome: the one that counts."""
    ordered = outcomes.sort_values([identifier, VERSION], kind="stable")
    return ordered.drop_duplicates(identifier, keep="last").reset_index(drop=True)


def maturity(decisions: int, matured: int, day: str, latest_day: str, window_days: int) -> Maturity:
    """Who of a day is waited for, by the clock of the data.

    Args:
        decisions: of the day.
        matured: those whose outcome has arrived.
        day: the day of the decisions.
        latest_day: the latest day that any data has.
        window_days: length of the performance window.
    """
    over = datetime.date.fromisoformat(day) + datetime.timedelta(
        days=window_days
    ) <= datetime.date.fromisoformat(latest_day)
    waiting = decisions - matured
    return Maturity(decisions, matured, 0 if over else waiting, waiting if over else 0)
