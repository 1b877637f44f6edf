"""The real data, where it is there: it satisfies the contract, and the recipe does on it what the README says."""

import datetime
import re
from pathlib import Path

import numpy as np
import pytest

from creditrisk_assets.defs.status import failed_checks, stored_history
from creditrisk_assets.landing.history import read_history
from creditrisk_assets.modelling.datasets import history_set, with_features
from creditrisk_assets.modelling.metrics import ranking_and_calibration
from creditrisk_assets.modelling.training import fit, predict
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.scenarios import (
    Plan,
    customers_of,
    day_of_customers,
    newcomers,
)
from tests.support.loop import Loop
from tests.support.places import UCI_SHA256


@pytest.mark.uci
def test_the_published_file_satisfies_the_contract_and_the_recipe_ranks_it_as_claimed(
    uci: Path,
) -> None:
    """Held-out AUC in the range of careful studies: below it something broke, above 0.80 something leaks."""
    history = read_history(str(uci), PORTFOLIO)
    assert history.sha256 == UCI_SHA256
    assert history.rows.rejected.empty
    assert len(history.rows.accepted) == 30_000
    assert history.rows.accepted[PORTFOLIO.target].mean() == pytest.approx(0.2212)
    learning = history_set(with_features(history.rows.accepted, PORTFOLIO), PORTFOLIO)
    fitted = fit(PORTFOLIO, learning.fit)
    figures = ranking_and_calibration(
        learning.held_out.target, predict(fitted, learning.held_out.features)
    )
    assert 0.775 < figures["roc_auc"] < 0.80
    assert abs(figures["calibration_in_the_large"]) < 0.01
    assert np.isfinite(fitted.cut_off)


@pytest.mark.uci
@pytest.mark.timeout(300)
def test_ten_quiet_days_of_the_real_file_give_no_alarm_and_a_drifted_one_is_told(
    uci: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop.of(tmp_path / "site", raw_data=str(uci))
    assert loop.run("train").success
    for name, value in loop.environment.items():
        monkeypatch.setenv(name, value)
    history = stored_history(loop.home, loop.settings)
    assert history is not None
    draw = customers_of(newcomers(history.rows.accepted, PORTFOLIO))
    first = datetime.date(2026, 6, 1)
    quiet = Plan("stable", first, 10, 800, 1.0, 1, 0, 31)
    for offset in range(quiet.days):
        customers = day_of_customers(quiet, PORTFOLIO, draw, offset)
        loop.land_day(quiet.date(offset), customers)
        loop.land_outcomes(quiet.date(offset), customers)
    loop.settle()
    assert [(one.check, one.partition, one.summary) for one in failed_checks(loop.instance)] == []
    drifted = Plan("covariate-shift", first, 11, 800, 1.0, 2, 10, 31)
    loop.land_day(drifted.date(10), day_of_customers(drifted, PORTFOLIO, draw, 10))
    loop.settle()
    told = {one.check: one.summary for one in failed_checks(loop.instance)}
    found = re.match(
        r"The score has shifted: score ([\d.]+) > ([\d.]+)", told["score_distribution_is_stable"]
    )
    assert found is not None
    assert float(found[1]) > float(found[2])
    loop.close()
