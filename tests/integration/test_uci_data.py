"""The real data, where it is there: it satisfies the contract, and the recipe does on it what the README says."""

from pathlib import Path

import numpy as np
import pytest

from creditrisk_assets.modelling.datasets import history_set, with_features
from creditrisk_assets.modelling.metrics import ranking_and_calibration
from creditrisk_assets.modelling.training import fit, predict
from creditrisk_assets.portfolio.history import read_history
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from tests.conftest import UCI_SHA256


@pytest.mark.uci
def test_the_published_file_satisfies_the_contract_and_the_recipe_ranks_it_as_claimed(uci: Path) -> None:
    """Held-out AUC in the range of careful studies: below it something broke, above 0.80 something leaks."""
    history = read_history(str(uci), PORTFOLIO)
    assert history.sha256 == UCI_SHA256
    assert history.rows.rejected.empty
    assert len(history.rows.accepted) == 30_000
    assert history.rows.accepted[PORTFOLIO.target].mean() == pytest.approx(0.2212)
    learning = history_set(with_features(history.rows.accepted, PORTFOLIO), PORTFOLIO)
    fitted = fit(PORTFOLIO, learning.fit)
    figures = ranking_and_calibration(learning.held_out.target, predict(fitted, learning.held_out.features))
    assert 0.775 < figures["roc_auc"] < 0.80
    assert abs(figures["calibration_in_the_large"]) < 0.01
    assert np.isfinite(fitted.cut_off)
