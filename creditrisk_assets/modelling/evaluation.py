"""How well the training recipe does, by cross-validation: every choice is made inside each fold's training rows."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.model_selection import RepeatedStratifiedKFold

from creditrisk_assets.modelling.datasets import training_rows, with_features
from creditrisk_assets.modelling.metrics import ranking_and_calibration
from creditrisk_assets.modelling.training import fit, predict
from creditrisk_assets.portfolio.contract import Portfolio

SHOWN = ["roc_auc", "gini", "ks", "average_precision", "brier", "log_loss", "ece", "calibration_in_the_large"]


def three_by_three(customers: pd.DataFrame, portfolio: Portfolio, told: Callable[[], None]) -> pd.DataFrame:
    """RepeatedStratifiedKFold 3 x 3, seed 0, over all rows.

    Args:
        customers: identifier, fields and target.
        portfolio: whose recipe is judged.
        told: called after each fold.

    Returns:
        One row for each of nine folds with the figures on its test rows.
    """
    frame = with_features(customers, portfolio)
    target = frame[portfolio.target].to_numpy(dtype=np.int64)
    folds = RepeatedStratifiedKFold(n_splits=3, n_repeats=3, random_state=0)
    results = []
    for inside, outside in folds.split(target, target):
        fitted = fit(portfolio, training_rows(frame.iloc[inside], portfolio, 1))
        outside_rows = training_rows(frame.iloc[outside], portfolio, 1)
        figures = ranking_and_calibration(outside_rows.target, predict(fitted, outside_rows.features))
        results.append({name: figures[name] for name in SHOWN})
        told()
    return pd.DataFrame(results)
