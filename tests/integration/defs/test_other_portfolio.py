"""Another book of customers, the one of docs/guide/bring-your-own-portfolio.md, goes through the whole loop unchanged.

It has other columns, text codes, decimals, and fields that may be missing; its identifier and its target have other names.
"""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from upath import UPath

from creditrisk_assets.defs.io import stored_path
from creditrisk_assets.landing.listing import land
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.portfolio.dictionary import data_dictionary
from creditrisk_assets.portfolio.uci_card import PORTFOLIO as UCI
from creditrisk_assets.scoring.bundle import BundleError
from creditrisk_assets.simulation.scenarios import redraw_outcomes, risk_index, weighted_sample
from serving.inference.champion_holder import ChampionHolder
from tests.support.champion_file import published
from tests.support.loop import Loop, api, checks
from tests.support.places import REPOSITORY
from tests.support.policies import policy_of
from tests.support.waiting import until

PAGE = REPOSITORY / "docs" / "guide" / "bring-your-own-portfolio.md"


def borrowers(rows: int, seed: int, first: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    income = np.round(np.exp(rng.normal(7.7, 0.5, rows)), 2)
    amount = np.clip(np.round(np.exp(rng.normal(9.2, 0.7, rows))), 500, 75_000)
    arrears = np.minimum(rng.poisson(0.6, rows), 12)
    purpose = rng.choice(["car", "home", "debt", "other"], rows)
    log_odds = (
        -2.6 + 0.9 * arrears + 0.8 * (purpose == "debt") + 40 * amount / 36 / income / 10 - 0.4
    )
    return pd.DataFrame(
        {
            "contract": [f"L-{number:07d}" for number in range(first, first + rows)],
            "loan_amount": amount.astype("int64"),
            "term_months": rng.choice([12, 24, 36, 60], rows),
            "purpose": purpose,
            "income": np.where(rng.random(rows) < 0.15, np.nan, income),
            "years_employed": np.where(
                rng.random(rows) < 0.05, np.nan, np.round(np.minimum(rng.gamma(2, 4, rows), 50), 1)
            ),
            "arrears": arrears,
            "gender": rng.choice(["f", "m", "x"], rows, p=[0.49, 0.49, 0.02]),
            "age": rng.integers(18, 90, rows),
            "in_default": (rng.random(rows) < 1 / (1 + np.exp(-log_odds))).astype("int64"),
        }
    )


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portfolio]:
    """The module that the page tells people to write, as they would: a file in the folder that they work in."""
    code, *_ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    folder = tmp_path_factory.mktemp("loans")
    (folder / "loans.py").write_text(code)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("loans").PORTFOLIO
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("loans")


@pytest.fixture(scope="module")
def loop(loans: Portfolio) -> Iterator[Loop]:
    home = Path(str(sys.modules[loans.compute_features.__module__].__file__)).parent
    history = home / "history.csv"
    land(
        history.parent,
        history.name,
        borrowers(4_000, 1).rename(columns={"loan_amount": "Loan.Amount"}),
    )
    loop = Loop.of(home, portfolio=loans, raw_data=str(history))
    assert loop.run("train").success
    yield loop
    loop.close()


def test_the_page_s_portfolio_is_read_by_its_dotted_path(
    loans: Portfolio, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDITRISK_PORTFOLIO", "loans.PORTFOLIO")
    assert type(loop.settings)().portfolio is loans
    page = data_dictionary(loans)
    assert all(f"`{field.name}`" in page for field in loans.fields)
    assert "| `purpose` | debt | other debts |" in page


def test_dagster_finds_the_portfolio_in_the_folder_as_the_commands_do(loop: Loop) -> None:
    """One rule for all entry points: `dagster job execute` looked in other places than `creditrisk`."""
    folder = Path(str(sys.modules["loans"].__file__)).parent
    program = str(Path(sys.executable).with_name("dagster"))
    environment = {
        "PATH": "/usr/bin:/bin",
        "DAGSTER_HOME": str(loop.home),
        "CREDITRISK_PORTFOLIO": "loans.PORTFOLIO",
        "CREDITRISK_DATA_DIR": str(loop.settings.data_dir),
    }
    listed = subprocess.run(
        [program, "job", "list", "-m", "creditrisk_assets.definitions"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert listed.returncode == 0, listed.stderr
    assert "Job: train" in listed.stdout


def test_it_is_trained_scored_watched_and_retrained(loop: Loop) -> None:
    manifest = loop.bundle().manifest
    assert manifest.portfolio == "loans"
    assert manifest.metrics["roc_auc"] > 0.65
    assert manifest.protected == ["gender", "age"]

    stable = borrowers(800, 2, 100_001)
    broken = stable.assign(purpose=np.where(stable.index == 3, "boat", stable["purpose"]))
    loop.land_day("2026-01-01", broken)
    pool = borrowers(6_000, 3, 200_001)
    rng = np.random.default_rng(3)
    drifted = redraw_outcomes(
        loop.settings.portfolio,
        weighted_sample(pool, risk_index(loop.settings.portfolio, pool), 1_500, rng),
        0.8,
        rng,
    )
    folder = loop.settings.landing_production / "2026-01-02"
    folder.mkdir()
    columns = drifted.drop(columns="in_default")
    (folder / "customers.parquet").write_bytes(columns.to_parquet(index=False))
    results = loop.settle()
    assert [result.success for result in results] == [True, True]
    stable_checks, drifted_checks = (checks(result) for result in results)
    assert stable_checks["feature_distributions_are_stable"].passed
    assert not drifted_checks["feature_distributions_are_stable"].passed
    assert loop.metadata("production_batch", "2026-01-01")["rejected, rows"] == 1
    rejected = loop.rejected("production_batch", "2026-01-01")
    assert rejected["message"].tolist() == [
        "purpose: 'boat' is not a known code; valid: one of car, home, debt, other"
    ]

    loop.land_outcomes("2026-01-01", stable)
    loop.land_outcomes("2026-01-02", drifted)
    loop.settle()
    assert (
        loop.metadata("outcomes", "2026-01-01")["rejected, rows"] == 1
    )  # of the row that was rejected there is no decision
    assert loop.metadata("performance_report", "2026-01-02")["matured"] == 1_500
    candidate = loop.metadata("candidate_model")
    assert candidate["production_days"] == "2026-01-01,2026-01-02"
    assert loop.metadata("champion")["challenger_version"] == candidate["model_version"]


def test_a_day_whose_optional_field_is_empty_is_measured_and_drawn_without_it(loop: Loop) -> None:
    """Evidently raises on such a column, and took every measured check of the day with it."""
    loop.settings.policy = policy_of({"reports.rows": 500})
    try:
        loop.land_day("2026-01-05", borrowers(400, 9, 500_001).assign(income=np.nan))
        result = loop.run("score_production", "2026-01-05")
    finally:
        loop.settings.policy = policy_of({})
    assert result.success
    assert not checks(result)["data_quality_is_stable"].passed
    assert "income" in str(checks(result)["data_quality_is_stable"].metadata["summary"].value)
    drawn = loop.metadata("drift_report", "2026-01-05")
    assert drawn["evidently_left_out"] == "income"
    assert (
        "Not drawn because one side has no value: income."
        in UPath(drawn["evidently_html"]).read_text()
    )


@pytest.mark.embedded("a file where a folder should be is a fault of a disk")
def test_a_report_that_cannot_be_written_takes_no_check_with_it(loop: Loop) -> None:
    loop.settings.policy = policy_of({"reports.rows": 500})
    try:
        loop.land_day("2026-01-06", borrowers(400, 10, 600_001))
        stored_path(loop.settings.storage, "production_scores", "2026-01-06").unlink(
            missing_ok=True
        )
        unwritable = Path(str(loop.settings.reports)) / "drift" / "2026-01-06"
        unwritable.parent.mkdir(parents=True, exist_ok=True)
        unwritable.write_text("a file where the report's folder should be")
        result = loop.run("score_production", "2026-01-06")
    finally:
        loop.settings.policy = policy_of({})
    assert result.success
    assert {"score_distribution_is_stable", "feature_distributions_are_stable"} <= set(
        checks(result)
    )
    assert "Error" in loop.metadata("drift_report", "2026-01-06")["picture_problem"]


def test_online_equals_batch_and_the_request_is_the_contract(loop: Loop, loans: Portfolio) -> None:
    with api(loop, CREDITRISK_PORTFOLIO="loans.PORTFOLIO") as client:
        until(lambda: client.get("/ready").status_code == 200, 30)
        schema = client.get("/openapi.json").json()["components"]["schemas"]["Customer"]
        assert list(schema["properties"]) == [*loans.field_names, loans.identifier]
        assert set(schema["required"]) == set(loans.field_names) - {"income", "years_employed"}
        assert schema["properties"]["purpose"]["enum"] == ["car", "home", "debt", "other"]
        assert "EUR" in schema["properties"]["loan_amount"]["description"]

        answer = client.post("/predict", json=dict(loans.example)).json()
        record = loop.champion()
        assert (answer["model_version"], answer["bundle_sha256"]) == (
            record.model_version,
            record.bundle_sha256,
        )

        scores = loop.frame("production_scores", "2026-01-02").head(200)
        bundle = loop.bundle(record)
        expected = bundle.score(bundle.raw(scores)).default_probability
        records = [
            {name: None if pd.isna(value) else value for name, value in row.items()}
            for row in scores[loans.field_names].astype("object").to_dict("records")
        ]
        answers = client.post("/predict/batch", json=records).json()
        assert [one["default_probability"] for one in answers] == expected.tolist()

        for change, field in (
            ({"purpose": "boat"}, "purpose"),
            ({"purpose": 2}, "purpose"),
            ({"income": "2000"}, "income"),
            ({"income": -1}, "income"),
            ({"arrears": 1.5}, "arrears"),
            ({"term_months": 13}, "term_months"),
        ):
            refused = client.post("/predict", json={**loans.example, **change})
            assert refused.status_code == 422
            (problem, *_) = refused.json()["problems"]
            assert problem["field"].split(".")[0] == field
            assert problem["valid"] == next(one.valid for one in loans.fields if one.name == field)
        without = {
            name: value
            for name, value in loans.example.items()
            if name not in ("income", "years_employed")
        }
        assert client.post("/predict", json=without).status_code == 200


def test_the_page_is_made_from_the_contract(loop: Loop, loans: Portfolio) -> None:
    with api(loop, CREDITRISK_PORTFOLIO="loans.PORTFOLIO") as client:
        until(lambda: client.get("/ready").status_code == 200, 30)
        start = client.get("/").text
        assert all(f'name="{field.name}"' in start for field in loans.fields)
        assert '<option value="debt">other debts (debt)</option>' in start
        for name in ("good", "borderline", "bad"):
            assert "Probability of default" in client.get("/", params={"example": name}).text
        typed = {name: "" if value is None else str(value) for name, value in loans.example.items()}
        page = client.post("/", data=typed)
        assert page.status_code == 200
        assert 'value="2150.5"' in page.text
        refused = client.post("/", data=typed | {"income": "much"})
        assert refused.status_code == 422
        assert "valid: a number from 0 to 100000 (EUR), or nothing" in refused.text


def test_a_champion_of_another_portfolio_is_refused(loop: Loop, loans: Portfolio) -> None:
    bundle = loop.bundle()
    bundle.require_fits(loans)
    with pytest.raises(BundleError, match="is of portfolio 'loans'; valid: 'uci_card'"):
        bundle.require_fits(UCI)
    holder = ChampionHolder(published(loop), UCI, 1.0)
    holder.refresh()
    assert holder.current is None
    assert "is of portfolio 'loans'" in str(holder.problem)


def test_no_column_of_the_uci_data_is_named_outside_its_own_modules() -> None:
    """As a string, or anywhere if the name is no English word, such as `age`."""
    names = {*UCI.field_names, UCI.target}
    special = re.compile(rf"\b({'|'.join(name for name in names if '_' in name)})\b", re.IGNORECASE)
    for path in [
        *REPOSITORY.glob("creditrisk_assets/**/*.py"),
        *REPOSITORY.glob("serving/**/*.py"),
    ]:
        if path.name not in ("uci_card.py", "card_customers.py", "fit.py", "parameters.py"):
            text = path.read_text()
            strings = {
                str(node.value).lower()
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.Constant)
            }
            assert (path.name, special.findall(text), names & strings) == (path.name, [], set())
