"""Which rows a model learns from and which it is judged by: history, matured production, held-out
customers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from creditrisk_assets.modelling.decision_graph import feature_matrix
from creditrisk_assets.modelling.training import (
    PRODUCTION_WEIGHT_LIMIT,
    TrainingError,
    TrainingRows,
)
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.portfolio.encoding import raw_matrix
from creditrisk_assets.portfolio.outcomes import VERSION, current_versions
from creditrisk_assets.portfolio.sampling import is_held_out
from creditrisk_assets.scoring.bundle import Bundle

HELD_OUT_COLUMN = "held_out"


@dataclass(frozen=True)
class LearningSet:
    """Rows to fit on, rows to judge by, the days whose matured rows are in it, and where the
    judging rows come from.
    """

    fit: TrainingRows
    held_out: TrainingRows
    production_days: list[str]
    held_out_origin: str


def with_features(customers: pd.DataFrame, portfolio: Portfolio) -> pd.DataFrame:
    """Customers with their feature columns and whether each is held out.

    Args:
        customers: identifier, fields and target.
        portfolio: whose features are computed.
    """
    matrix = feature_matrix(portfolio, raw_matrix(customers, portfolio.fields))
    features = pd.DataFrame(matrix, columns=feature_columns(portfolio), index=customers.index)
    result = pd.concat([customers, features], axis=1)
    result[HELD_OUT_COLUMN] = is_held_out(customers[portfolio.identifier])
    return result


def feature_columns(portfolio: Portfolio) -> list[str]:
    """Columns of the features in a frame that also holds the fields; a feature may have a field's
    name.
    """
    return [f"feature.{name}" for name in portfolio.feature_names]


def history_set(history: pd.DataFrame, portfolio: Portfolio) -> LearningSet:
    """The learning set of the first model: history alone.

    Args:
        history: what `with_features` gives.
        portfolio: whose columns they are.
    """
    out = history[HELD_OUT_COLUMN]
    return LearningSet(
        fit=training_rows(history[~out], portfolio, 1),
        held_out=training_rows(history[out], portfolio, 1),
        production_days=[],
        held_out_origin=f"{int(out.sum()):,} held-out rows of the history",
    )


def candidate_set(
    history: pd.DataFrame,
    batches: Mapping[str, pd.DataFrame],
    outcomes: Mapping[str, pd.DataFrame],
    portfolio: Portfolio,
    evaluation_days: int,
) -> LearningSet:
    """The learning set of a challenger: history plus matured production, judged by held-out rows of
    the latest matured days.

    A customer who comes on several of those days judges once, by the latest: the tests of the
    promotion gate take rows to be independent.

    Args:
        history: what `with_features` gives.
        batches: each day's customers.
        outcomes: each day's outcomes in all their versions, as far as they have arrived.
        portfolio: whose columns they are.
        evaluation_days: how many of the latest matured days judge.
    """
    matured = _matured(batches, outcomes, portfolio)
    if not matured:
        return history_set(history, portfolio)
    production = {day: with_features(rows, portfolio) for day, rows in matured.items()}
    judging_days = sorted(production)[-evaluation_days:]
    judging = pd.concat([production[day] for day in judging_days], ignore_index=True)
    judging = judging[judging[HELD_OUT_COLUMN]].drop_duplicates(
        portfolio.identifier, keep="last", ignore_index=True
    )
    learning = pd.concat([production[day] for day in sorted(production)], ignore_index=True)
    learning = learning[~learning[HELD_OUT_COLUMN]]
    old = training_rows(history[~history[HELD_OUT_COLUMN]], portfolio, 1)
    weight = int(
        np.clip(round(len(old.target) / max(len(learning), 1)), 1, PRODUCTION_WEIGHT_LIMIT)
    )
    return LearningSet(
        fit=_joined(old, training_rows(learning, portfolio, weight)),
        held_out=training_rows(judging, portfolio, 1),
        production_days=sorted(production),
        held_out_origin=f"{len(judging):,} held-out matured rows of {judging_days[0]} to "
        f"{judging_days[-1]}",
    )


def recalibration_set(
    champion: Bundle,
    batches: Mapping[str, pd.DataFrame],
    outcomes: Mapping[str, pd.DataFrame],
    portfolio: Portfolio,
    since: str,
) -> LearningSet:
    """The learning set of a recalibration: matured production since a day, without the history, as
    the champion's own contract takes it.

    A customer who comes on several of those days counts once, by the latest: the tests that choose
    the update, and those of the promotion gate, take rows to be independent.

    Args:
        champion: whose calibration is fitted again.
        batches: each day's customers.
        outcomes: each day's outcomes in all their versions, as far as they have arrived.
        portfolio: whose columns they are.
        since: the first day that counts.

    Raises:
        TrainingError: if nothing has matured since.
        BundleError: if the champion cannot take the customers of the portfolio's contract.
    """
    champion.require_fits(portfolio)
    matured = _matured(batches, outcomes, portfolio)
    days = [day for day in sorted(matured) if day >= since]
    if not days:
        latest = f"a day up to {max(matured)}" if matured else "none yet, wait for outcomes"
        raise TrainingError(
            f"no outcome of a customer of {since} or later has arrived; valid: {latest}"
        )
    customers = pd.concat([matured[day] for day in days], ignore_index=True)
    customers = with_features(
        customers.drop_duplicates(portfolio.identifier, keep="last", ignore_index=True), portfolio
    )
    fit, held_out = (
        replace(training_rows(part, portfolio, 1), raw=champion.raw(part))
        for part in (customers[~customers[HELD_OUT_COLUMN]], customers[customers[HELD_OUT_COLUMN]])
    )
    return LearningSet(
        fit=fit,
        held_out=held_out,
        production_days=days,
        held_out_origin=f"{len(held_out.target):,} held-out matured rows of {days[0]} to "
        f"{days[-1]}",
    )


def _matured(
    batches: Mapping[str, pd.DataFrame], outcomes: Mapping[str, pd.DataFrame], portfolio: Portfolio
) -> dict[str, pd.DataFrame]:
    """Of each day that has some: the customers whose outcome has arrived, with its latest
    version.
    """
    matured = {
        day: batches[day].merge(
            current_versions(outcomes[day], portfolio.identifier).drop(columns=VERSION),
            on=portfolio.identifier,
            how="inner",
            validate="one_to_one",
        )
        for day in sorted(set(batches) & set(outcomes))
    }
    return {day: rows for day, rows in matured.items() if len(rows)}


def training_rows(frame: pd.DataFrame, portfolio: Portfolio, weight: int) -> TrainingRows:
    """Arrays of a frame that `with_features` gave."""
    return TrainingRows(
        raw=raw_matrix(frame, portfolio.fields),
        features=frame[feature_columns(portfolio)].to_numpy(dtype=np.float32),
        target=frame[portfolio.target].to_numpy(dtype=np.int64),
        weight=np.full(len(frame), weight, dtype=np.int64),
    )


def _joined(first: TrainingRows, second: TrainingRows) -> TrainingRows:
    return TrainingRows(
        raw=np.concatenate([first.raw, second.raw]),
        features=np.concatenate([first.features, second.features]),
        target=np.concatenate([first.target, second.target]),
        weight=np.concatenate([first.weight, second.weight]),
    )
