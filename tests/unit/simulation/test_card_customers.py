"""Simulated customers, the table they are made from, the fit that makes the table, and injected drift."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from creditrisk_assets.landing.history import read_history
from creditrisk_assets.modelling.datasets import training_rows, with_features
from creditrisk_assets.modelling.metrics import ranking_and_calibration
from creditrisk_assets.modelling.training import fit, predict
from creditrisk_assets.portfolio.uci_card import BILL, PAID, PAY, PORTFOLIO
from creditrisk_assets.simulation.card_customers import simulate, simulate_by
from creditrisk_assets.simulation.fit import fit_parameters
from creditrisk_assets.simulation.parameters import (
    TABLE,
    Cell,
    committed_parameters,
    from_toml,
    to_toml,
)
from creditrisk_assets.simulation.quality import (
    HIGHEST_CORRELATION_DIFFERENCE,
    HIGHEST_CSI,
    LOWEST_AUC,
    correlation_difference,
    csi_of_fields,
    simulator_quality,
)
from tests.support.places import REPOSITORY, UCI_SHA256

COMMITTED = REPOSITORY / "creditrisk_assets" / "simulation" / TABLE


def outside(customers: pd.DataFrame) -> dict[str, int]:
    """Number of values of each field outside the contract."""
    wrong = {PORTFOLIO.target: int((~customers[PORTFOLIO.target].isin([0, 1])).sum())}
    for field in PORTFOLIO.fields:
        values = customers[field.name]
        if field.codes is not None:
            ok = values.isin(list(field.codes))
        else:
            assert field.minimum is not None
            assert field.maximum is not None
            ok = values.between(field.minimum, field.maximum)
        wrong[field.name] = int((~ok).sum())
    return {name: count for name, count in wrong.items() if count}


@pytest.fixture(scope="module")
def many() -> pd.DataFrame:
    return simulate(50_000, 5)


def test_the_same_seed_gives_the_same_customers_and_another_seed_others() -> None:
    pd.testing.assert_frame_equal(simulate(200, 7), simulate(200, 7))
    assert not simulate(200, 7).equals(simulate(200, 8))


def test_customers_are_numbered_from_the_first_identifier_as_text(many: pd.DataFrame) -> None:
    """Two days that share numbers would be the same customers."""
    assert simulate(3, 1, first_identifier=501)["id"].tolist() == ["501", "502", "503"]
    assert many["id"].is_unique


def test_columns_are_identifier_fields_and_target_in_the_order_of_the_contract_and_whole_numbers(
    many: pd.DataFrame,
) -> None:
    """A float column would pass most checks and then be written as 120000.0 into a landing file."""
    assert list(many.columns) == [PORTFOLIO.identifier, *PORTFOLIO.field_names, PORTFOLIO.target]
    assert set(many.drop(columns=PORTFOLIO.identifier).dtypes.astype(str)) == {"int64"}


def test_no_customers_and_one_customer_are_customers_too() -> None:
    assert len(simulate(0, 1)) == 0
    assert outside(simulate(1, 1)) == {}


def test_simulated_customers_satisfy_the_contract(many: pd.DataFrame) -> None:
    assert outside(many) == {}


def test_about_a_fifth_defaults_and_late_payers_more_than_others(many: pd.DataFrame) -> None:
    """The demo claims the shape of the UCI data: 22 % bad, and payment history that tells."""
    bad = many[PORTFOLIO.target]
    assert 0.20 < bad.mean() < 0.24
    late = many["pay_0"] >= 2
    assert bad[late].mean() > 3 * bad[~late].mean()


def test_statuses_have_the_quirks_of_the_real_codes(many: pd.DataFrame) -> None:
    """Code 2 follows code 0 at once; code 1 is in September alone; nobody is later than eight months."""
    assert (many["pay_0"] == 1).mean() == pytest.approx(0.12, abs=0.03)
    assert not (many[list(PAY[1:])] == 1).any(axis=None)
    assert many[list(PAY)].to_numpy().max() <= 8
    assert ((many["pay_3"] == 0) & (many["pay_2"] == 2)).mean() > 0.02


def test_lateness_stays_with_an_account(many: pd.DataFrame) -> None:
    """Without memory every month would be late for other people, and history would tell nothing."""
    before, after = many["pay_4"] >= 2, many["pay_3"] >= 2
    assert after[before].mean() > 5 * after[~before].mean()
    first, last = many["pay_6"] >= 2, many["pay_2"] >= 2
    assert last[first].mean() > 2.5 * last[~first].mean()


def test_payments_follow_the_status_of_the_bill_that_they_are_for(many: pd.DataFrame) -> None:
    """Code -1 is paid in full, 0 in part, 2 often not at all: features over payments and bills mean nothing otherwise."""
    billed = many[many["bill_amt2"] > 5_000]
    share = billed["pay_amt1"] / billed["bill_amt2"]
    assert (share[billed["pay_2"] == -1].between(0.98, 1.2)).mean() > 0.6
    assert share[billed["pay_2"] == 0].median() < 0.1
    assert (share[billed["pay_2"] == 0] == 0).mean() < 0.05
    assert (share[billed["pay_2"] >= 2] == 0).mean() > 0.3


def test_bills_carry_over_and_stay_near_the_limit(many: pd.DataFrame) -> None:
    """Each bill is the one before, less what was paid, plus what was spent."""
    assert np.corrcoef(many["bill_amt1"], many["bill_amt2"])[0, 1] > 0.9
    revolving = many[(many[list(PAY)] == 0).all(axis=1)]
    assert revolving["bill_amt1"].mean() > revolving["bill_amt6"].mean()
    assert ((revolving["bill_amt1"] / revolving["limit_bal"]) > 1.3).mean() < 0.01


def test_a_model_trained_on_simulated_customers_ranks_other_simulated_customers() -> None:
    """The demo and most tests train on them; nothing would be noticed of a target that is drawn without its causes."""
    training, test = (
        training_rows(with_features(simulate(rows, seed), PORTFOLIO), PORTFOLIO, 1)
        for rows, seed in ((3_000, 1), (6_000, 2))
    )
    figures = ranking_and_calibration(test.target, predict(fit(PORTFOLIO, training), test.features))
    assert 0.71 < figures["roc_auc"] < 0.80


def test_the_table_is_small_and_read_back_as_it_was_written() -> None:
    """A person must be able to read it, and nothing may be lost between the fit and the simulator."""
    text = COMMITTED.read_text()
    assert len(text.splitlines()) < 230
    assert to_toml(from_toml(text)) == text
    assert from_toml(text) == committed_parameters()
    assert committed_parameters().source.sha256 == UCI_SHA256


def test_chances_in_the_table_add_up_and_quantiles_rise() -> None:
    """A slip of the hand in the table would otherwise only be seen in odd customers."""
    table = committed_parameters()
    chances = [table.deep_late.april, *table.people.education, *table.people.marriage]
    for moves in (table.moves_of_all, *(one.moves for one in table.account_type)):
        chances += [row for one in moves.values() for row in (one.until_august, one.september)]
    chances += [one.april for one in table.account_type]
    chances += [
        list(shares) for shares in zip(*(one.share for one in table.account_type), strict=True)
    ]
    assert [sum(row) for row in chances] == pytest.approx([1.0] * len(chances), abs=0.005)
    cells: list[Cell] = [*table.amounts.opening, *table.amounts.payments, *table.amounts.spending]
    quantiles = [cell.quantiles for cell in cells] + [one.limit for one in table.account_type]
    assert all(row == sorted(row) for row in quantiles)


def test_a_fit_to_simulated_customers_simulates_the_same_population() -> None:
    """The fit must find what the simulator put in, also where no real data are at hand."""
    given = simulate(30_000, 11)
    again = simulate_by(fit_parameters(given, data="simulated", sha256=""), 30_000, 12)
    csi = csi_of_fields(given, again, PORTFOLIO)
    assert max(csi.values()) < 0.05, csi
    assert correlation_difference(given, again, PORTFOLIO) < 0.03
    assert again[PORTFOLIO.target].mean() == pytest.approx(given[PORTFOLIO.target].mean(), abs=0.01)


def test_a_fit_to_too_few_customers_says_of_which_there_are_too_few() -> None:
    with pytest.raises(ValueError, match=r"accounts from .* to .*; valid: at least"):
        fit_parameters(simulate(300, 1), data="simulated", sha256="")


def test_customers_differ_from_themselves_in_nothing_and_from_shuffled_ones_in_their_correlations(
    many: pd.DataFrame,
) -> None:
    assert max(csi_of_fields(many, many, PORTFOLIO).values()) == 0
    assert correlation_difference(many, many, PORTFOLIO) == 0
    shuffled = many.copy()
    for number, name in enumerate([*BILL, *PAID]):
        shuffled[name] = many[name].sample(frac=1, random_state=number).to_numpy()
    assert max(csi_of_fields(many, shuffled, PORTFOLIO).values()) == 0
    assert correlation_difference(many, shuffled, PORTFOLIO) > 0.1


@pytest.mark.uci
def test_fitting_again_gives_the_committed_table(uci: Path) -> None:
    """Every number in the table has its source: these data, by this procedure."""
    history = read_history(str(uci), PORTFOLIO)
    source = committed_parameters().source
    assert source.sha256 == history.sha256
    assert (
        to_toml(fit_parameters(history.rows.accepted, source.data, history.sha256))
        == COMMITTED.read_text()
    )


@pytest.mark.uci
def test_the_simulator_is_as_near_to_the_real_customers_as_claimed(uci: Path) -> None:
    """A model trained on simulated customers ranks real ones that not even the parameters have seen."""
    report = simulator_quality(
        read_history(str(uci), PORTFOLIO).rows.accepted, PORTFOLIO, rows=15_000, seed=1
    )
    assert 0.775 < report.auc_trained_on_real < 0.80
    for quality in (report.refitted, report.committed):
        assert quality.auc >= LOWEST_AUC
        assert quality.csi[quality.worst_field] < HIGHEST_CSI, quality.csi
        assert quality.correlation_difference < HIGHEST_CORRELATION_DIFFERENCE
        assert quality.reached
