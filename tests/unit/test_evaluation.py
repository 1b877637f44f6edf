"""Cross-validation of the training recipe."""

import numpy as np
import pandas as pd

from creditrisk_assets.modelling.evaluation import SHOWN, three_by_three
from tests.unit.helpers import plain_portfolio


def test_nine_folds_are_judged_by_rows_that_were_not_learned_from() -> None:
    """Outcomes here are coin tosses: a recipe judged by its own training rows would find something in them."""
    rng = np.random.default_rng(1)
    portfolio = plain_portfolio(6)
    customers = pd.DataFrame(rng.integers(0, 1_001, (500, 6)), columns=portfolio.field_names)
    customers.insert(0, portfolio.identifier, [str(number) for number in range(500)])
    customers[portfolio.target] = rng.permutation(np.arange(500) % 2)
    told: list[int] = []
    folds = three_by_three(customers, portfolio, lambda: told.append(1))
    assert (len(folds), len(told)) == (9, 9)
    assert folds.columns.tolist() == SHOWN
    assert abs(folds["roc_auc"].mean() - 0.5) < 0.06
    assert folds["roc_auc"].nunique() > 3
