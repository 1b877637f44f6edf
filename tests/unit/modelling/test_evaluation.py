"""Comparison of the training recipe with its rivals: same folds, unseen rows, honest intervals."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from creditrisk_assets.cli.main import app
from creditrisk_assets.cli.model import PROTOCOL_NAMES
from creditrisk_assets.modelling.boosting import SEED
from creditrisk_assets.modelling.evaluation import (
    OURS,
    PROTOCOLS,
    Competitor,
    Split,
    competitors,
    corrected_resampled_t,
    evaluate,
    interval_note,
    published_aucs,
    table_row,
)
from creditrisk_assets.modelling.metrics import auc_gain, ranking_and_calibration
from creditrisk_assets.modelling.rivals import RIVALS, Rival
from creditrisk_assets.modelling.training import TrainingRows
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.examples import logistic, plain_portfolio
from tests.support.places import UCI_SHA256

PORTFOLIO = plain_portfolio(3)


def customers(rows: int, seed: int) -> pd.DataFrame:
    """Only the first field is informative; the truth is in a column of its own."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.integers(0, 1_001, (rows, 3)), columns=PORTFOLIO.field_names)
    frame.insert(0, PORTFOLIO.identifier, [str(number) for number in range(rows)])
    truth = logistic(frame["field_0"].to_numpy(dtype=float) / 250 - 3)
    frame[PORTFOLIO.target] = (rng.random(rows) < truth).astype(np.int64)
    return frame


def oracle(
    _: Portfolio, __: TrainingRows, test: TrainingRows
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return logistic(test.raw[:, 0].astype(np.float64) / 250 - 3)


def blind(
    _: Portfolio, __: TrainingRows, test: TrainingRows
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return logistic(test.raw[:, 1].astype(np.float64) / 250 - 3)


@pytest.mark.parametrize("name", PROTOCOL_NAMES)
def test_no_row_both_trains_and_judges(name: str) -> None:
    target = (np.arange(400) % 5 == 0).astype(np.int64)
    for split in PROTOCOLS[name].splits(target):
        assert not set(split.train) & set(split.test)
        assert {0, 1} == set(target[split.test])


def test_the_protocols_are_those_of_the_published_figures() -> None:
    """A figure compares with a published figure only on the same split."""
    target = (np.arange(30_000) % 5 == 0).astype(np.int64)
    sizes = {
        name: [(len(one.train), len(one.test)) for one in PROTOCOLS[name].splits(target)]
        for name in PROTOCOL_NAMES
    }
    assert sizes == {
        "3x3": [(20_000, 10_000)] * 9,
        "limitiq": [(18_000, 6_000)],
        "skorecard": [(22_500, 7_500)],
        "seeds": [(18_000, 6_000)],
    }
    assert list(PROTOCOLS) == list(PROTOCOL_NAMES)
    folds = PROTOCOLS["3x3"].splits(target)
    for repeat in range(3):
        judged = np.concatenate([one.test for one in folds[3 * repeat : 3 * repeat + 3]])
        assert np.array_equal(np.sort(judged), np.arange(30_000))


def test_all_are_judged_on_the_same_rows_and_compared_with_the_first() -> None:
    frame = customers(600, 1)
    progress: list[tuple[str, int, int]] = []
    compared = [Competitor("truth", oracle), Competitor("noise", blind)]
    truth, noise = evaluate(
        frame,
        PORTFOLIO,
        PROTOCOLS["3x3"].splits,
        compared,
        lambda name, done, total: progress.append((name, done, total)),
    )
    assert [done for _, done, _ in progress] == list(range(18))
    assert progress[0] == ("truth", 0, 18)
    assert (truth.auc_difference.value, truth.brier_difference.value) == (0.0, 0.0)
    assert [one["bads"] for one in truth.folds] == [one["bads"] for one in noise.folds]
    differences = [
        b["roc_auc"] - a["roc_auc"] for a, b in zip(truth.folds, noise.folds, strict=True)
    ]
    assert noise.auc_difference.value == pytest.approx(np.mean(differences))
    assert noise.auc_difference.high < -0.1
    assert noise.brier_difference.low > 0.02
    assert truth.pooled_ece < 0.06 < noise.pooled_ece


def test_on_one_split_the_interval_is_delongs() -> None:
    frame = customers(600, 2)
    split = Split(np.arange(300), np.arange(300, 600))
    _, noise = evaluate(
        frame,
        PORTFOLIO,
        lambda _: [split],
        [Competitor("truth", oracle), Competitor("noise", blind)],
    )
    judged = frame.iloc[300:]
    target = judged[PORTFOLIO.target].to_numpy()
    first, second = (
        logistic(judged[f"field_{place}"].to_numpy(dtype=float) / 250 - 3) for place in (0, 1)
    )
    gain, error = auc_gain(target, second, first)
    assert noise.auc_difference.value == pytest.approx(gain)
    assert noise.auc_difference.high - noise.auc_difference.low == pytest.approx(
        2 * 1.96 * error, rel=1e-3
    )
    assert len(noise.folds) == 1


def test_ours_is_fitted_without_the_rows_that_judge_it() -> None:
    """No recipe ranks unseen rows better than the true probability; one that had seen them would."""
    frame = customers(700, 3)
    ours = competitors("3x3")[0]
    assert ours.name == OURS
    truth, result = evaluate(
        frame,
        PORTFOLIO,
        lambda target: PROTOCOLS["3x3"].splits(target)[:2],
        [Competitor("truth", oracle), ours],
    )
    assert result.mean["roc_auc"] > 0.7
    assert result.auc_difference.value < 0.005
    assert truth.mean["roc_auc"] == pytest.approx(
        np.mean(
            [
                ranking_and_calibration(
                    frame[PORTFOLIO.target].to_numpy()[one.test],
                    logistic(frame["field_0"].to_numpy(dtype=float)[one.test] / 250 - 3),
                )["roc_auc"]
                for one in PROTOCOLS["3x3"].splits(frame[PORTFOLIO.target].to_numpy())[:2]
            ]
        )
    )


def test_every_rival_that_is_installed_gives_pds_of_rows_it_has_not_seen() -> None:
    frame = customers(500, 4)
    frame.loc[::7, "field_2"] = np.nan
    split = Split(np.arange(250), np.arange(250, 500))
    rivals = competitors("skorecard")[2:]
    wanted = [one.name for one in RIVALS if one.fit_predict and one.is_installed]
    assert [one.name for one in rivals] == wanted
    assert len(rivals) >= 3
    for result in evaluate(
        frame, PORTFOLIO, lambda _: [split], [Competitor("truth", oracle), *rivals]
    ):
        assert result.mean["roc_auc"] > 0.62, result.name
        assert 0 < result.mean["log_loss"] < 1, result.name


def test_a_rival_whose_library_is_missing_or_cannot_be_loaded_is_known_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LightGBM on a Debian without libgomp."""
    (tmp_path / "library_without_its_own.py").write_text("raise OSError('libgomp.so.1')")
    monkeypatch.syspath_prepend(tmp_path)
    assert not Rival("nobody", None, library="library_without_its_own").is_installed
    assert not Rival("nobody", None, library="no_such_library_at_all").is_installed
    assert Rival("anybody", None, library="numpy").is_installed


def test_the_protocol_of_seeds_compares_our_recipe_with_itself() -> None:
    names = [one.name for one in competitors("seeds")]
    assert len(set(names)) == len(names) == 5
    assert names[0] == f"{OURS}, seed {SEED}"
    assert published_aucs("seeds", UCI_SHA256) == {}


def test_published_figures_are_shown_for_their_protocol_and_their_data_only() -> None:
    """Beside other customers they would be a comparison of nothing."""
    assert published_aucs("limitiq", UCI_SHA256) == {"LimitIQ": 0.7811}
    assert "LimitIQ" not in published_aucs("3x3", UCI_SHA256)
    assert published_aucs("limitiq", "0" * 64) == {}


def test_the_corrected_interval_covers_the_mean_of_overlapping_folds() -> None:
    """Folds of one data set share training rows; the plain t interval takes them for independent and covers far too seldom.

    Each data set is 60 values, a fold's figure is the mean of its 20 test values plus what its 40 training values have in common;
    400 data sets, seed 5.
    """
    rng = np.random.default_rng(5)
    held, plain_held, data_sets = 0, 0, 400
    for _ in range(data_sets):
        values = rng.normal(0.0, 1.0, 60)
        figures = []
        for _ in range(3):
            order = rng.permutation(60)
            figures += [values[order[place : place + 20]].mean() for place in (0, 20, 40)]
        differences = np.array(figures)
        estimate = corrected_resampled_t(differences, 0.5)
        plain = 2.306 * differences.std(ddof=1) / 3
        held += estimate.low <= 0 <= estimate.high
        plain_held += abs(differences.mean()) <= plain
    assert held / data_sets > 0.93
    assert plain_held / data_sets < 0.93


def test_the_table_shows_what_was_measured_and_what_was_published() -> None:
    frame = customers(400, 6)
    split = Split(np.arange(200), np.arange(200, 400))
    (one,) = evaluate(frame, PORTFOLIO, lambda _: [split], [Competitor("truth", oracle)])
    row = table_row(one, 0.7654)
    assert row[0] == "truth"
    assert row[1].startswith(f"{one.mean['roc_auc']:.4f} [")
    assert row[-1] == "0.7654"
    assert "DeLong" in interval_note([one])
    (many,) = evaluate(frame, PORTFOLIO, PROTOCOLS["3x3"].splits, [Competitor("truth", oracle)])
    assert f"± {many.sd['roc_auc']:.4f}" in table_row(many, None)[1]
    assert "9 folds" in interval_note([many])


def test_the_command_prints_every_contender_and_what_was_published(tmp_path: Path) -> None:
    data = tmp_path / "customers.csv"
    simulate(1_000, 1).to_csv(data, index=False)
    result = CliRunner().invoke(
        app, ["evaluate", "--data", str(data), "--protocol", "limitiq", "--json"]
    )
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [one["name"] for one in document["results"]] == [
        one.name for one in competitors("limitiq")
    ]
    assert all(one["folds"][0]["rows"] == 200 for one in document["results"])
    assert document["published_roc_auc"] == {}  # these are other customers


def test_the_command_says_what_is_wrong_with_its_arguments_and_its_data(tmp_path: Path) -> None:
    run = CliRunner().invoke
    wrong = run(app, ["evaluate", "--data", "x.csv", "--protocol", "5x5"], env={"COLUMNS": "200"})
    assert wrong.exit_code == 2
    assert "'5x5'; valid: 3x3, limitiq, skorecard, seeds" in wrong.output
    missing = run(app, ["evaluate", "--data", str(tmp_path / "none.csv")], env={"COLUMNS": "200"})
    assert missing.exit_code == 1
    assert "none.csv" in missing.output
    few = tmp_path / "few.csv"
    simulate(100, 1).to_csv(few, index=False)
    refused = run(app, ["evaluate", "--data", str(few)], env={"COLUMNS": "200"})
    assert refused.exit_code == 1
    assert "training rows; valid: at least 50 bads" in refused.output
    broken = tmp_path / "broken.csv"
    simulate(100, 1).assign(pay_0=77).to_csv(broken, index=False)
    rejected = run(app, ["evaluate", "--data", str(broken)], env={"COLUMNS": "200"})
    assert rejected.exit_code == 1
    assert "pay_0" in rejected.output
