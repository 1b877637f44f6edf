"""Comparison of the training recipe with rivals: the same folds, paired differences, intervals.

Our recipe makes every choice inside each fold's training rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.model_selection import RepeatedStratifiedKFold, train_test_split

from creditrisk_assets.modelling.boosting import SEED
from creditrisk_assets.modelling.datasets import training_rows, with_features
from creditrisk_assets.modelling.metrics import (
    Estimate,
    auc_gain,
    expected_calibration_error,
    mean_estimate,
    normal_estimate,
    ranking_and_calibration,
)
from creditrisk_assets.modelling.rivals import PUBLISHED_DATA, RIVALS, FitPredict
from creditrisk_assets.modelling.selection import CANDIDATES, Candidate
from creditrisk_assets.modelling.training import TrainingRows, fit, predict
from creditrisk_assets.portfolio.contract import Portfolio

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

OURS = "ours"
SCORECARD = "our scorecard"
SEEDS = 5
SHOWN = (
    "roc_auc",
    "ks",
    "average_precision",
    "brier",
    "log_loss",
    "ece",
    "calibration_in_the_large",
)


@dataclass(frozen=True)
class Split:
    """Places of the training rows and of the test rows."""

    train: IntArray
    test: IntArray


@dataclass(frozen=True)
class Protocol:
    """Scheme of splits: a description for people, and a function from n outcomes to splits."""

    description: str
    splits: Callable[[IntArray], list[Split]]


@dataclass(frozen=True)
class Competitor:
    """Recipe in a comparison. `fit_predict` fits on the first rows and gives PDs of the second."""

    name: str
    fit_predict: FitPredict


@dataclass(frozen=True)
class Result:
    """Figures of one competitor.

    Attributes:
        name: of the competitor.
        folds: figures on each fold.
        mean: over the folds.
        sd: over the folds; 0 for a single fold.
        pooled_ece: of the PDs of all folds together.
        auc_difference: its AUC minus ours on the same folds.
        brier_difference: its Brier score minus ours; below 0 is better than ours.
    """

    name: str
    folds: list[dict[str, float]]
    mean: dict[str, float]
    sd: dict[str, float]
    pooled_ece: float
    auc_difference: Estimate
    brier_difference: Estimate


def three_by_three(target: IntArray) -> list[Split]:
    """RepeatedStratifiedKFold, 3 x 3, seed 0."""
    folds = RepeatedStratifiedKFold(n_splits=3, n_repeats=3, random_state=0)
    return [Split(train, test) for train, test in folds.split(target, target)]


def limitiq(target: IntArray) -> list[Split]:
    """60 % training, 20 % validation (unused), 20 % test; stratified, seed 42."""
    places = np.arange(len(target))
    train, rest = train_test_split(places, test_size=0.4, random_state=42, stratify=target)
    _, test = train_test_split(rest, test_size=0.5, random_state=42, stratify=target[rest])
    return [Split(train, test)]


def skorecard(target: IntArray) -> list[Split]:
    """75 % training, 25 % test; seed 42, not stratified."""
    return [Split(*train_test_split(np.arange(len(target)), test_size=0.25, random_state=42))]


PROTOCOLS = {
    "3x3": Protocol("three times three-fold cross-validation, stratified, seed 0", three_by_three),
    "limitiq": Protocol(
        "60 % to fit on, 20 % unused, 20 % to judge by, stratified, seed 42", limitiq
    ),
    "skorecard": Protocol("75 % to fit on, 25 % to judge by, seed 42", skorecard),
    "seeds": Protocol(f"the split of limitiq, our recipe with {SEEDS} seeds", limitiq),
}


def competitors(protocol: str) -> list[Competitor]:
    """Competitors of a protocol: ours first, then the rivals that can run here."""
    if protocol == "seeds":
        return [
            Competitor(f"{OURS}, seed {seed}", _recipe(CANDIDATES, seed))
            for seed in range(SEED, SEED + SEEDS)
        ]
    rivals = [
        Competitor(rival.name, rival.fit_predict)
        for rival in RIVALS
        if rival.fit_predict and rival.is_installed
    ]
    return [
        Competitor(OURS, _recipe(CANDIDATES, SEED)),
        Competitor(SCORECARD, _recipe(CANDIDATES[:1], SEED)),
        *rivals,
    ]


def _recipe(candidates: Sequence[Candidate], seed: int) -> FitPredict:
    def fit_predict(portfolio: Portfolio, rows: TrainingRows, test: TrainingRows) -> FloatArray:
        return predict(fit(portfolio, rows, candidates, seed), test.features)

    return fit_predict


def evaluate(
    customers: pd.DataFrame,
    portfolio: Portfolio,
    splits: Callable[[IntArray], list[Split]],
    entrants: Sequence[Competitor],
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Result]:
    """Fit every competitor on every split and compare it with the first.

    Args:
        customers: identifier, fields and target.
        portfolio: contract of the customers.
        splits: of a protocol.
        entrants: from `competitors`; the first is ours.
        on_progress: called before each fit with the competitor's name, the number of finished fits
            and the number of all.

    Returns:
        A result for each competitor, in order.

    Raises:
        TrainingError: if the training rows of a split are insufficient.
        ValueError: if the test rows of a split hold only one class.
    """
    frame = with_features(customers, portfolio)
    parts = [
        tuple(training_rows(frame.iloc[places], portfolio) for places in (split.train, split.test))
        for split in splits(frame[portfolio.target].to_numpy(dtype=np.int64))
    ]
    targets = [test.target for _, test in parts]
    results: list[Result] = []
    ours: list[FloatArray] = []
    for place, competitor in enumerate(entrants):
        probabilities = []
        for number, (train, test) in enumerate(parts):
            on_progress(competitor.name, place * len(parts) + number, len(entrants) * len(parts))
            probabilities.append(competitor.fit_predict(portfolio, train, test))
        ours = ours or probabilities
        results.append(
            _result(competitor.name, targets, probabilities, ours, len(parts[0][0].target))
        )
    return results


def _result(
    name: str,
    targets: list[IntArray],
    probabilities: list[FloatArray],
    ours: list[FloatArray],
    fitted_rows: int,
) -> Result:
    folds = [
        ranking_and_calibration(target, probability)
        for target, probability in zip(targets, probabilities, strict=True)
    ]
    auc, brier = _differences(targets, probabilities, ours, fitted_rows)
    return Result(
        name=name,
        folds=folds,
        mean={name: float(np.mean([fold[name] for fold in folds])) for name in SHOWN},
        sd={
            name: float(np.std([fold[name] for fold in folds], ddof=1)) if len(folds) > 1 else 0.0
            for name in SHOWN
        },
        pooled_ece=expected_calibration_error(
            np.concatenate(targets), np.concatenate(probabilities)
        ),
        auc_difference=auc,
        brier_difference=brier,
    )


def _differences(
    targets: list[IntArray],
    probabilities: list[FloatArray],
    ours: list[FloatArray],
    fitted_rows: int,
) -> tuple[Estimate, Estimate]:
    """Differences of AUC and Brier score from ours: for one split by DeLong and by the rows, for
    several by the corrected resampled t.
    """
    pairs = list(zip(targets, probabilities, ours, strict=True))
    gains = [auc_gain(target, probability, our) for target, probability, our in pairs]
    losses = [
        (probability - target) ** 2 - (our - target) ** 2 for target, probability, our in pairs
    ]
    if len(pairs) == 1:
        return normal_estimate(*gains[0], -1.0, 1.0), mean_estimate(losses[0], -1.0, 1.0)
    share = len(targets[0]) / fitted_rows
    return (
        corrected_resampled_t(np.array([gain for gain, _ in gains]), share),
        corrected_resampled_t(np.array([loss.mean() for loss in losses]), share),
    )


def corrected_resampled_t(differences: FloatArray, test_share: float) -> Estimate:
    """Mean over folds whose training rows overlap, with the interval of Nadeau & Bengio (2003,
    Machine Learning 52:239).

    Args:
        differences: of each fold.
        test_share: number of test rows for each training row.
    """
    folds = len(differences)
    error = float(np.sqrt((1 / folds + test_share) * differences.var(ddof=1)))
    reach = float(stats.t.ppf(0.975, folds - 1)) * error
    mean = float(differences.mean())
    return Estimate(mean, mean - reach, mean + reach)


def published_aucs(protocol: str, sha256: str) -> dict[str, float]:
    """AUCs published by others for a protocol on the file with this SHA-256, by rival's name."""
    if sha256 != PUBLISHED_DATA:
        return {}
    return {
        rival.name: rival.published[protocol] for rival in RIVALS if protocol in rival.published
    }


def table_row(result: Result, published_auc: float | None) -> list[str]:
    """Row of a result: name, AUC, KS, Brier, log loss, ECE, both differences, published AUC."""
    single = result.folds[0] if len(result.folds) == 1 else None

    def spread(name: str) -> str:
        return (
            f" [{single[f'{name}_low']:.4f}, {single[f'{name}_high']:.4f}]"
            if single
            else f" ± {result.sd[name]:.4f}"
        )

    return [
        result.name,
        f"{result.mean['roc_auc']:.4f}{spread('roc_auc')}",
        f"{result.mean['ks']:.4f}",
        f"{result.mean['brier']:.4f}{spread('brier')}",
        f"{result.mean['log_loss']:.4f}",
        f"{result.pooled_ece:.4f}",
        *(
            f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
            for difference in (result.auc_difference, result.brier_difference)
        ),
        "" if published_auc is None else f"{published_auc:.4f}",
    ]


def interval_note(results: Sequence[Result]) -> str:
    """Note on the spreads and intervals in the table."""
    if len(results[0].folds) == 1:
        return (
            "95 % intervals: AUC and its difference by DeLong, Brier score by its rows, paired; "
            "training is taken as it came out"
        )
    return (
        f"± standard deviation over {len(results[0].folds)} folds; differences with the corrected "
        "resampled t interval (95 %, Nadeau & Bengio 2003); ECE of the PDs of all folds together"
    )
