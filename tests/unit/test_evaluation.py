"""Cross-validation of the training recipe."""

import numpy as np
import pandas as pd

from creditrisk_assets.modelling.evaluation import SHOWN, three_by_three
from creditrisk_assets.modelling.metrics import ranking_and_calibration
from tests.unit.helpers import logistic, plain_portfolio


def test_nine_folds_are_judged_by_rows_that_were_not_learned_from() -> None:
    """No recipe ranks unseen rows better than the true probability does; one judged by its own training rows would."""
    rng = np.random.default_rng(1)
    portfolio = plain_portfolio(6)
    customers = pd.DataFrame(rng.integers(0, 1_001, (500, 6)), columns=portfolio.field_names)
    customers.insert(0, portfolio.identifier, [str(number) for number in range(500)])
    truth = logistic(customers["field_0"].to_numpy(dtype=float) / 400 - 1.25)
    customers[portfolio.target] = (rng.random(500) < truth).astype(np.int64)
    told: list[int] = []
    folds = three_by_three(customers, portfolio, lambda: told.append(1))
    assert (len(folds), len(told)) == (9, 9)
    assert folds.columns.tolist() == SHOWN
    best = ranking_and_calibration(customers[portfolio.target].to_numpy(), truth)["roc_auc"]
    assert 0.55 < folds["roc_auc"].mean() < best
    assert folds["roc_auc"].nunique() > 3
