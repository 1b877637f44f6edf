"""Scenarios: the same seed lands the same files, each disturbance is what it says, and nothing is lost on the way."""

import dataclasses
import datetime

import numpy as np
import pandas as pd
import pytest

from creditrisk_assets.cli.common import SCENARIO_NAMES
from creditrisk_assets.landing.history import NoHistory, simulator_of
from creditrisk_assets.portfolio.sampling import is_held_out
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.card_customers import simulate
from creditrisk_assets.simulation.scenarios import (
    SCENARIOS,
    Plan,
    arrivals,
    customers_of,
    day_of_customers,
    newcomers,
    simulated_customers,
)
from tests.support.examples import TINY

DRAW = simulated_customers(PORTFOLIO)
TARGET, IDENTIFIER = PORTFOLIO.target, PORTFOLIO.identifier


def plan(scenario: str, **changes: object) -> Plan:
    usual = Plan(
        scenario,
        datetime.date(2025, 1, 1),
        days=12,
        rows=200,
        strength=1.0,
        seed=1,
        onset=4,
        outcomes_after_days=31,
    )
    return dataclasses.replace(usual, **changes)  # type: ignore[arg-type]


def landed(of: Plan) -> list[tuple[str, str, str, str, pd.DataFrame]]:
    return [
        (day, one.zone, one.day, one.name, one.rows)
        for day, files in arrivals(of, PORTFOLIO, DRAW)
        for one in files
    ]


def test_newcomers_are_the_customers_that_training_never_uses_and_may_be_learned_from_when_they_come() -> (
    None
):
    """Rows that a model has learned from, landed as new customers, would make its performance look better than it is."""
    history = simulate(4_000, 5)
    come = newcomers(history, PORTFOLIO)
    own = come[IDENTIFIER].str.removeprefix("new_")
    assert set(own) == set(history.loc[is_held_out(history[IDENTIFIER]), IDENTIFIER])
    fields = [*PORTFOLIO.field_names, TARGET]
    assert come[fields].equals(
        history.set_index(IDENTIFIER)[fields].loc[own.tolist()].reset_index(drop=True)
    )
    assert 0.2 < is_held_out(come[IDENTIFIER]).mean() < 0.3
    assert come.equals(newcomers(history, PORTFOLIO))


def test_the_command_names_every_scenario() -> None:
    assert tuple(SCENARIOS) == SCENARIO_NAMES


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_same_seed_lands_the_same_files_and_another_seed_others(scenario: str) -> None:
    first, again, other = (landed(plan(scenario, seed=seed)) for seed in (1, 1, 2))
    assert [one[:4] for one in first] == [one[:4] for one in again]
    assert all(one[4].equals(two[4]) for one, two in zip(first, again, strict=True))
    assert not all(one[4].equals(two[4]) for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_customer_of_every_day_lands_in_the_end_with_an_outcome_after_the_window(
    scenario: str,
) -> None:
    files = landed(plan(scenario))
    assert [one[0] for one in files] == sorted(one[0] for one in files)
    for offset in range(12):
        day = plan(scenario).date(offset)
        production = {
            name: rows for _, zone, of, name, rows in files if zone == "production" and of == day
        }
        came = set(pd.concat(production.values())[IDENTIFIER])
        more = {"burst": 10 if offset == 4 else 1, "campaign": 3 if offset >= 4 else 1}
        assert len(came) == 200 * more.get(scenario, 1)
        assert all(
            list(rows.columns) == [IDENTIFIER, *PORTFOLIO.field_names]
            for rows in production.values()
        )
        outcomes = [
            (when, rows) for when, zone, of, _, rows in files if zone == "outcomes" and of == day
        ]
        assert set(pd.concat([rows for _, rows in outcomes])[IDENTIFIER]) == came
        assert min(when for when, _ in outcomes) == plan(scenario).date(offset + 31)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_without_strength_and_before_the_onset_nothing_is_disturbed(scenario: str) -> None:
    undisturbed = [day_of_customers(plan("stable"), PORTFOLIO, DRAW, offset) for offset in (2, 6)]
    assert day_of_customers(plan(scenario, strength=0.0), PORTFOLIO, DRAW, 6).equals(undisturbed[1])
    assert day_of_customers(plan(scenario), PORTFOLIO, DRAW, 2).equals(undisturbed[0])


def test_a_prior_shift_doubles_the_odds_of_default() -> None:
    rates = [
        day_of_customers(plan(name, rows=4_000), PORTFOLIO, DRAW, 6)[TARGET].mean()
        for name in ("stable", "prior-shift")
    ]
    odds = [rate / (1 - rate) for rate in rates]
    assert 1.7 < odds[1] / odds[0] < 2.2


def test_a_covariate_shift_brings_other_customers_and_a_concept_drift_the_same_ones_with_other_outcomes() -> (
    None
):
    stable, shifted, drifted = (
        day_of_customers(plan(name, rows=2_000), PORTFOLIO, DRAW, 6)
        for name in ("stable", "covariate-shift", "concept-drift")
    )
    assert shifted["pay_0"].mean() > stable["pay_0"].mean() + 0.2
    assert drifted.drop(columns=TARGET).equals(stable.drop(columns=TARGET))
    assert 0.1 < (drifted[TARGET] != stable[TARGET]).mean() < 0.3
    assert drifted[TARGET].mean() == pytest.approx(stable[TARGET].mean(), abs=0.04)


def test_a_campaign_brings_three_times_as_many_riskier_customers_with_other_outcomes_at_their_bad_rate() -> (
    None
):
    """The demo counts on alarms of drift and of discrimination, and on a level that holds."""
    stable, shifted, campaign = (
        day_of_customers(plan(name, rows=2_000), PORTFOLIO, DRAW, 6)
        for name in ("stable", "covariate-shift", "campaign")
    )
    assert len(campaign) == 3 * len(stable)
    assert campaign["pay_0"].mean() > stable["pay_0"].mean() + 0.2
    assert campaign[TARGET].mean() == pytest.approx(shifted[TARGET].mean(), abs=0.04)


def test_a_broken_schema_lacks_a_column_then_is_sent_again_whole() -> None:
    production = [one for one in landed(plan("schema-break")) if one[1] == "production"]
    of_onset = [rows for _, _, day, _, rows in production if day == plan("schema-break").date(4)]
    assert len(of_onset) == 2
    assert PORTFOLIO.field_names[0] not in of_onset[0].columns
    assert list(of_onset[1].columns) == [IDENTIFIER, *PORTFOLIO.field_names]


def test_customers_of_a_file_keep_their_names_and_come_at_most_once_a_day() -> None:
    file = simulate(1_000, 5)
    for scenario in SCENARIOS:
        day = day_of_customers(plan(scenario, rows=90), PORTFOLIO, customers_of(file), 5)
        assert day[IDENTIFIER].is_unique
        assert set(day[IDENTIFIER]) <= set(file[IDENTIFIER])
    with pytest.raises(
        ValueError,
        match="a day has 2,000 customers; valid: at most the 1,000 of the file",
    ):
        day_of_customers(plan("burst"), PORTFOLIO, customers_of(file), 4)


def test_a_portfolio_without_a_simulator_says_so() -> None:
    with pytest.raises(
        NoHistory, match="portfolio tiny has no simulator; valid: a file of its customers"
    ):
        simulator_of(TINY)


def test_the_index_does_not_mind_constant_features() -> None:
    same = pd.concat([simulate(1, 1)] * 5, ignore_index=True)
    same[IDENTIFIER] = [str(number) for number in range(5)]
    chosen = day_of_customers(plan("covariate-shift", rows=3), PORTFOLIO, customers_of(same), 6)
    assert len(chosen) == 3
    assert np.isfinite(chosen["limit_bal"]).all()
