"""Training rows and evaluation rows of models: history, matured production, held-out customers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditrisk_assets.modelling.boosting import SEED
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
HISTORY = "history"


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
    rows_limit: int,
) -> LearningSet:
    """Learning set of a challenger: history plus matured production; the evaluation rows are the
    held-out ones of the latest matured days.

    A customer on several of these days is an evaluation row once, by the latest day, because the
    tests of the promotion gate assume independent rows. Of more rows than the limit, the learning
    and the evaluation rows are samples; each row has the same chance.

    Args:
        history: from `with_features`.
        batches: each day's customers, read one at a time.
        outcomes: all versions of each day's outcomes so far, read one at a time.
        portfolio: defines the columns.
        evaluation_days: number of the latest matured days used for evaluation.
        rows_limit: most learning rows, and most evaluation rows.
    """
    sample, days = _Sample(rows_limit), []
    old = history[~history[HELD_OUT_COLUMN]]
    for day, rows in _matured(batches, outcomes, portfolio):
        days.append(day)
        sample.add(day, rows[~is_held_out(rows[portfolio.identifier])])
    if not days:
        return history_set(history, portfolio)
    weight = int(np.clip(round(len(old) / max(sample.rows, 1)), 1, PRODUCTION_WEIGHT_LIMIT))
    sample.add(HISTORY, old)
    *production, past = sample.frames()
    production_rows = with_features(pd.concat(production), portfolio)
    evaluation = _Sample(rows_limit)
    latest = days[-evaluation_days:]
    for day, rows in _latest_rows(batches, outcomes, portfolio, latest, held_out_only=True):
        evaluation.add(day, rows)
    evaluation_rows = with_features(pd.concat(reversed(evaluation.frames())), portfolio)
    return LearningSet(
        fit=_concatenate(
            training_rows(past, portfolio), training_rows(production_rows, portfolio, weight)
        ),
        held_out=training_rows(evaluation_rows, portfolio),
        production_days=days,
        held_out_origin=_origin(len(evaluation_rows), latest),
    )


def recalibration_set(
    champion: Bundle,
    batches: Mapping[str, pd.DataFrame],
    outcomes: Mapping[str, pd.DataFrame],
    portfolio: Portfolio,
    since: str,
    rows_limit: int,
) -> LearningSet:
    """Learning set of a recalibration: matured production since a day, without the history, encoded
    by the champion's own contract.

    A customer on several of these days counts once, by the latest day, because the tests that
    choose the update, and those of the promotion gate, assume independent rows.

    Args:
        champion: bundle to recalibrate.
        batches: each day's customers, read one at a time.
        outcomes: all versions of each day's outcomes so far, read one at a time.
        portfolio: defines the columns.
        since: the first day that counts.
        rows_limit: most learning rows, and most evaluation rows; of more, samples are drawn.

    Raises:
        TrainingError: if nothing has matured since.
        BundleError: if the champion does not fit the portfolio's contract.
    """
    champion.require_fits(portfolio)
    both = sorted(set(batches) & set(outcomes))
    samples, days = (_Sample(rows_limit), _Sample(rows_limit)), []
    days_since = [day for day in both if day >= since]
    for day, rows in _latest_rows(batches, outcomes, portfolio, days_since):
        days.append(day)
        is_reserved = is_held_out(rows[portfolio.identifier])
        samples[0].add(day, rows[~is_reserved])
        samples[1].add(day, rows[is_reserved])
    if not days:
        earlier = [day for day, _ in _matured(batches, outcomes, portfolio)]
        latest = f"a day up to {max(earlier)}" if earlier else "none yet, wait for outcomes"
        raise TrainingError(
            f"no outcome of a customer of {since} or later has arrived; valid: {latest}"
        )
    customers = (
        with_features(pd.concat(reversed(sample.frames())), portfolio) for sample in samples
    )
    fit, held_out = (
        replace(training_rows(part, portfolio), raw=champion.raw(part)) for part in customers
    )
    days.reverse()
    return LearningSet(fit, held_out, days, _origin(len(held_out.target), days))


def _origin(rows: int, days: list[str]) -> str:
    return f"{rows:,} held-out matured rows of {days[0]} to {days[-1]}"


def _matured(
    batches: Mapping[str, pd.DataFrame],
    outcomes: Mapping[str, pd.DataFrame],
    portfolio: Portfolio,
    days: Sequence[str] | None = None,
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Matured customers of each day that has any, with the latest version of their outcome, in the
    order of some days, by default of all.
    """
    for day in sorted(set(batches) & set(outcomes)) if days is None else days:
        rows = batches[day].merge(
            current_versions(outcomes[day], portfolio.identifier).drop(columns=VERSION),
            on=portfolio.identifier,
            how="inner",
            validate="one_to_one",
        )
        if len(rows):
            yield day, rows


def _latest_rows(
    batches: Mapping[str, pd.DataFrame],
    outcomes: Mapping[str, pd.DataFrame],
    portfolio: Portfolio,
    days: Sequence[str],
    *,
    held_out_only: bool = False,
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Matured customers of some days, the latest day first, without those of a later day."""
    of_later_days: set[object] = set()
    for day, matured in _matured(batches, outcomes, portfolio, days[::-1]):
        rows = matured
        if held_out_only:
            rows = rows[is_held_out(rows[portfolio.identifier])]
        identifiers = rows[portfolio.identifier].tolist()
        rows = rows[[identifier not in of_later_days for identifier in identifiers]]
        of_later_days.update(identifiers)
        yield day, rows


class _Sample:
    """Rows of frames that come one after another: all, or a sample without replacement of so many
    as the limit says. The seed and the name of a frame decide, so the order of frames does not.

    Args:
        limit: most rows.
    """

    def __init__(self, limit: int) -> None:
        self.rows = 0
        self._limit = limit
        self._below = 1.0
        self._parts: list[tuple[NDArray[np.float64], pd.DataFrame]] = []

    def add(self, name: str, rows: pd.DataFrame) -> None:
        """Draw from the rows of a frame."""
        self.rows += len(rows)
        seed = int.from_bytes(name.encode(), "big")
        keys = np.random.default_rng([SEED, seed]).random(len(rows))
        in_sample = keys < self._below
        self._parts.append((keys[in_sample], rows[in_sample]))
        if sum(len(keys) for keys, _ in self._parts) > 2 * self._limit:
            self._shrink()

    def frames(self) -> list[pd.DataFrame]:
        """The chosen rows of each frame."""
        if sum(len(keys) for keys, _ in self._parts) > self._limit:
            self._shrink()
        return [rows for _, rows in self._parts]

    def _shrink(self) -> None:
        """Leave the rows with the smallest keys."""
        together = np.concatenate([keys for keys, _ in self._parts])
        self._below = float(np.partition(together, self._limit)[self._limit])
        self._parts = [
            (keys[keys < self._below], rows[keys < self._below]) for keys, rows in self._parts
        ]


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
