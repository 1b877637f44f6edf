"""Training rows and evaluation rows of models: history, matured production, held-out customers."""

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
    """Training rows, held-out rows, the days of the matured rows among them, and the origin of the
    held-out rows.
    """

    fit: TrainingRows
    held_out: TrainingRows
    production_days: list[str]
    held_out_origin: str


def with_features(customers: pd.DataFrame, portfolio: Portfolio) -> pd.DataFrame:
    """Add feature columns and the held-out mark to customers.

    Args:
        customers: identifier, fields and target.
        portfolio: defines the features.
    """
    matrix = feature_matrix(portfolio, raw_matrix(customers, portfolio.fields))
    features = pd.DataFrame(matrix, columns=feature_columns(portfolio), index=customers.index)
    result = pd.concat([customers, features], axis=1)
    result[HELD_OUT_COLUMN] = is_held_out(customers[portfolio.identifier])
    return result


def feature_columns(portfolio: Portfolio) -> list[str]:
    """Feature columns of a frame that also holds the fields, prefixed because a feature may have a
    field's name.
    """
    return [f"feature.{name}" for name in portfolio.feature_names]


def history_set(history: pd.DataFrame, portfolio: Portfolio) -> LearningSet:
    """Learning set of the first model: the history alone.

    Args:
        history: from `with_features`.
        portfolio: defines the columns.
    """
    is_reserved = history[HELD_OUT_COLUMN]
    fit = training_rows(history[~is_reserved], portfolio)
    held_out = training_rows(history[is_reserved], portfolio)
    origin = f"{len(held_out.target):,} held-out rows of the history"
    return LearningSet(fit, held_out, [], origin)


def candidate_set(
    history: pd.DataFrame,
    batches: Mapping[str, pd.DataFrame],
    outcomes: Mapping[str, pd.DataFrame],
    portfolio: Portfolio,
    evaluation_days: int,
) -> LearningSet:
    """Learning set of a challenger: history plus matured production; the evaluation rows are the
    held-out ones of the latest matured days.

    A customer on several of these days is an evaluation row once, by the latest day, because the
    tests of the promotion gate assume independent rows.

    Args:
        history: from `with_features`.
        batches: each day's customers.
        outcomes: all versions of each day's outcomes so far.
        portfolio: defines the columns.
        evaluation_days: number of the latest matured days used for evaluation.
    """
    matured = _matured(batches, outcomes, portfolio)
    if not matured:
        return history_set(history, portfolio)
    production = [with_features(rows, portfolio) for rows in matured.values()]
    evaluation = pd.concat(production[-evaluation_days:])
    evaluation = evaluation[evaluation[HELD_OUT_COLUMN]].drop_duplicates(
        portfolio.identifier, keep="last"
    )
    learning = pd.concat(production)
    learning = learning[~learning[HELD_OUT_COLUMN]]
    old = training_rows(history[~history[HELD_OUT_COLUMN]], portfolio)
    weight = int(
        np.clip(round(len(old.target) / max(len(learning), 1)), 1, PRODUCTION_WEIGHT_LIMIT)
    )
    days = list(matured)
    return LearningSet(
        fit=_concatenate(old, training_rows(learning, portfolio, weight)),
        held_out=training_rows(evaluation, portfolio),
        production_days=days,
        held_out_origin=_origin(len(evaluation), days[-evaluation_days:]),
    )


def recalibration_set(
    champion: Bundle,
    batches: Mapping[str, pd.DataFrame],
    outcomes: Mapping[str, pd.DataFrame],
    portfolio: Portfolio,
    since: str,
) -> LearningSet:
    """Learning set of a recalibration: matured production since a day, without the history, encoded
    by the champion's own contract.

    A customer on several of these days counts once, by the latest day, because the tests that
    choose the update, and those of the promotion gate, assume independent rows.

    Args:
        champion: bundle to recalibrate.
        batches: each day's customers.
        outcomes: all versions of each day's outcomes so far.
        portfolio: defines the columns.
        since: the first day that counts.

    Raises:
        TrainingError: if nothing has matured since.
        BundleError: if the champion does not fit the portfolio's contract.
    """
    champion.require_fits(portfolio)
    matured = _matured(batches, outcomes, portfolio)
    days = [day for day in matured if day >= since]
    if not days:
        latest = f"a day up to {max(matured)}" if matured else "none yet, wait for outcomes"
        raise TrainingError(
            f"no outcome of a customer of {since} or later has arrived; valid: {latest}"
        )
    customers = pd.concat([matured[day] for day in days]).drop_duplicates(
        portfolio.identifier, keep="last", ignore_index=True
    )
    customers = with_features(customers, portfolio)
    fit, held_out = (
        replace(training_rows(part, portfolio), raw=champion.raw(part))
        for part in (customers[~customers[HELD_OUT_COLUMN]], customers[customers[HELD_OUT_COLUMN]])
    )
    return LearningSet(fit, held_out, days, _origin(len(held_out.target), days))


def _origin(rows: int, days: list[str]) -> str:
    return f"{rows:,} held-out matured rows of {days[0]} to {days[-1]}"


def _matured(
    batches: Mapping[str, pd.DataFrame], outcomes: Mapping[str, pd.DataFrame], portfolio: Portfolio
) -> dict[str, pd.DataFrame]:
    """Matured customers of each day that has any, with the latest version of their outcome, in the
    order of the days.
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


def training_rows(frame: pd.DataFrame, portfolio: Portfolio, weight: int = 1) -> TrainingRows:
    """Convert a frame from `with_features` to training rows."""
    return TrainingRows(
        raw=raw_matrix(frame, portfolio.fields),
        features=frame[feature_columns(portfolio)].to_numpy(dtype=np.float32),
        target=frame[portfolio.target].to_numpy(dtype=np.int64),
        weight=np.full(len(frame), weight, dtype=np.int64),
    )


def _concatenate(first: TrainingRows, second: TrainingRows) -> TrainingRows:
    names = ("raw", "features", "target", "weight")
    return TrainingRows(
        *(np.concatenate([getattr(first, name), getattr(second, name)]) for name in names)
    )
