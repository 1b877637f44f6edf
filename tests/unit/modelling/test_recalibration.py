"""A recalibration: two numbers of the champion's graphs are replaced, and nothing else."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, logit

from creditrisk_assets.modelling.bundling import PARITY_TOLERANCE, make_bundle
from creditrisk_assets.modelling.calibration import Update, least_update
from creditrisk_assets.modelling.datasets import (
    HELD_OUT_COLUMN,
    LearningSet,
    recalibration_set,
    with_features,
)
from creditrisk_assets.modelling.decision_graph import calibration_of, recalibrate_graph
from creditrisk_assets.modelling.metrics import calibration_slope, ranking_and_calibration
from creditrisk_assets.modelling.recalibration import (
    calibrated_log_odds,
    differences_beyond_calibration,
    recalibrate,
    recalibrated_cut_off,
)
from creditrisk_assets.modelling.selection import SCORECARD
from creditrisk_assets.modelling.training import TrainingError, TrainingRows, cross_fit_candidates
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import (
    CLASSIFIER,
    DECIDING,
    GRAPH,
    HELD_OUT,
    INSPECTION,
    INTERCEPT,
    REASONS_GRAPH,
    RECALIBRATION,
    REFERENCE,
    SLOPE,
    Bundle,
    Calibration,
    Manifest,
    Scores,
    load_bundle,
    open_session,
)
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.examples import FloatMatrix

DAYS = ["2026-03-01", "2026-03-02"]
slopes, intercepts = st.floats(0.05, 20), st.floats(-6, 6)
FloatArray = NDArray[np.float64]


def file(bundle: Bundle, name: str) -> bytes:
    return Path(bundle.location, name).read_bytes()


def same_order(one: Scores, other: Scores) -> bool:
    first, second = (stats.rankdata(side.default_probability, "dense") for side in (one, other))
    return np.array_equal(first, second)


def drawn(
    champion: Bundle, rows: int, seed: int, shift: float = 0.0, slope: float = 1.0
) -> TrainingRows:
    """Simulated customers whose outcomes come from the champion's log-odds on a line."""
    customers = with_features(simulate(rows, seed, first_identifier=200_001), PORTFOLIO)
    raw = champion.raw(customers)
    chance = expit(shift + slope * calibrated_log_odds(champion, raw))
    target = (np.random.default_rng(seed).random(rows) < chance).astype(np.int64)
    return TrainingRows(raw, np.empty((rows, 0), np.float32), target, np.ones(rows, np.int64))


@pytest.fixture(scope="module")
def judging(bundle: Bundle) -> TrainingRows:
    return drawn(bundle, 1_500, 31, math.log(2))


@pytest.fixture(scope="module")
def successor(
    bundle: Bundle, judging: TrainingRows, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The bundle of the unit tests after the odds of default have doubled."""
    rows = drawn(bundle, 4_000, 30, math.log(2))
    return recalibrate(
        tmp_path_factory.mktemp("successor"), bundle, rows, judging, DAYS, PORTFOLIO.target
    )


@given(slopes, intercepts)
def test_any_line_replaces_sixteen_bytes_of_a_graph_and_no_other(
    bundle: Bundle, slope: float, intercept: float
) -> None:
    calibration = Calibration(slope=slope, intercept=intercept)
    for name in (GRAPH, REASONS_GRAPH):
        before = file(bundle, name)
        after = recalibrate_graph(before, calibration)
        assert calibration_of(after) == calibration
        assert len(after) == len(before)
        assert sum(one != other for one, other in zip(before, after, strict=True)) <= 16
        models = [onnx.load_from_string(graph) for graph in (before, after)]
        for model in models:
            for one in model.graph.initializer:
                if one.name in (SLOPE, INTERCEPT):
                    one.raw_data = b""
        assert models[0].SerializeToString(deterministic=True) == models[1].SerializeToString(
            deterministic=True
        )
        assert recalibrate_graph(after, bundle.manifest.calibration) == before


@given(slopes, intercepts)
def test_any_rising_line_moves_the_log_odds_by_itself_and_keeps_the_order(
    bundle: Bundle, raw: FloatMatrix, slope: float, intercept: float
) -> None:
    update = Update("intercept and slope", intercept, slope, 0.0, 0.0)
    session = open_session(
        recalibrate_graph(file(bundle, GRAPH), update.apply(bundle.manifest.calibration))
    )
    probability, score = session.run(["default_probability", "score"], {"raw": raw})
    before = bundle.score(raw)
    scaling = bundle.manifest.scaling
    moved = intercept + slope * calibrated_log_odds(bundle, raw)
    np.testing.assert_allclose(score, scaling.offset - scaling.factor * moved, rtol=0, atol=1e-8)
    np.testing.assert_allclose(probability, expit(moved), rtol=1e-9)
    assert (np.diff(score[np.argsort(before.score, kind="stable")]) >= 0).all()
    assert (np.diff(probability[np.argsort(before.default_probability, kind="stable")]) >= 0).all()
    refused = probability >= recalibrated_cut_off(bundle.manifest.cut_off, update)
    assert np.array_equal(refused, before.prediction == 1)


@given(st.floats(1e-6, 1 - 1e-6), slopes, intercepts)
def test_a_customer_exactly_on_the_cut_off_stays_refused(
    cut_off: float, slope: float, intercept: float
) -> None:
    update = Update("intercept and slope", intercept, slope, 0.0, 0.0)
    assert expit(intercept + slope * logit(cut_off)) >= recalibrated_cut_off(cut_off, update)
    assert recalibrated_cut_off(cut_off, update) == pytest.approx(
        expit(intercept + slope * logit(cut_off)), rel=1e-11
    )


def test_the_answers_do_not_depend_on_how_many_rows_are_scored_together(
    successor: Bundle, raw: FloatMatrix
) -> None:
    together = successor.score(raw).default_probability
    for size in (1, 7, 1_000):
        parts = [
            successor.score(raw[start : start + size]).default_probability
            for start in range(0, 1_000, size)
        ]
        assert np.array_equal(np.concatenate(parts)[:1_000], together[:1_000])
    assert np.array_equal(
        successor.decide(raw, successor.manifest.rule).default_probability, together
    )


def test_a_doubling_of_the_odds_moves_the_level_and_neither_order_nor_decisions_nor_reasons(
    bundle: Bundle, successor: Bundle, judging: TrainingRows, raw: FloatMatrix
) -> None:
    facts = successor.manifest.training.recalibration
    assert facts is not None
    assert (facts.parent_sha256, facts.update, facts.slope) == (bundle.sha256, "intercept", 1.0)
    assert facts.intercept == pytest.approx(math.log(2), abs=0.15)
    assert facts.change_p < 1e-10 < facts.slope_p
    before, after = (
        bundle.decide(raw, bundle.manifest.rule),
        successor.decide(raw, successor.manifest.rule),
    )
    assert same_order(before, after)
    assert np.array_equal(before.prediction, after.prediction)
    assert np.array_equal(before.reasons, after.reasons)
    target = judging.target
    old, new = (one.score(judging.raw).default_probability for one in (bundle, successor))
    assert abs(new.mean() - target.mean()) < 0.02 < abs(old.mean() - target.mean())
    figures = [ranking_and_calibration(target, one) for one in (old, new)]
    assert figures[0]["roc_auc"] == figures[1]["roc_auc"]
    assert successor.manifest.metrics == figures[1]


@pytest.mark.parametrize(("shift", "slope"), [(0.4, 0.5), (-0.7, 1.8)])
def test_reasons_stay_under_a_new_slope_too(
    bundle: Bundle, raw: FloatMatrix, tmp_path: Path, shift: float, slope: float
) -> None:
    rows, judged = (
        drawn(bundle, size, seed, shift, slope) for size, seed in ((4_000, 33), (1_000, 34))
    )
    made = recalibrate(tmp_path, bundle, rows, judged, DAYS, PORTFOLIO.target)
    facts = made.manifest.training.recalibration
    assert facts is not None
    assert facts.update == "intercept and slope"
    assert facts.slope == pytest.approx(slope, rel=0.2)
    before, after = (one.decide(raw, one.manifest.rule) for one in (bundle, made))
    assert np.array_equal(before.reasons, after.reasons)
    assert np.array_equal(before.prediction, after.prediction)


def test_the_bundle_says_what_it_is_and_carries_what_documents_the_model(
    bundle: Bundle, successor: Bundle, judging: TrainingRows
) -> None:
    old, new = bundle.manifest, successor.manifest
    assert load_bundle(successor.location, successor.sha256).manifest == new
    assert len(successor.golden) == len(bundle.golden)
    assert (new.training.kind, new.training.production_days) == (RECALIBRATION, DAYS)
    assert new.training.rows == 4_000
    assert new.training.fingerprint == drawn(bundle, 4_000, 30, math.log(2)).fingerprint()
    assert (new.training.family, new.training.parameters, new.training.candidates) == (
        old.training.family,
        old.training.parameters,
        old.training.candidates,
    )
    assert new.rule.reference == old.rule.reference
    assert new.parity <= PARITY_TOLERANCE
    for name in (CLASSIFIER, INSPECTION):
        assert successor.document(name) == bundle.document(name)
    evidence = pd.read_parquet(Path(successor.location, HELD_OUT))
    assert np.array_equal(evidence[PORTFOLIO.field_names].to_numpy(np.float32), judging.raw)
    assert np.array_equal(evidence[PORTFOLIO.target], judging.target)
    references = [pd.read_parquet(Path(one.location, REFERENCE)) for one in (bundle, successor)]
    fields = PORTFOLIO.field_names
    assert references[0][fields].equals(references[1][fields])
    scores = successor.score(references[1][fields].to_numpy(np.float32))
    assert np.array_equal(references[1]["score"], scores.score)
    assert np.array_equal(references[1]["default_probability"], scores.default_probability)


def test_the_same_rows_give_the_same_bundle(
    bundle: Bundle, successor: Bundle, judging: TrainingRows, tmp_path: Path
) -> None:
    rows = drawn(bundle, 4_000, 30, math.log(2))
    again = recalibrate(tmp_path, bundle, rows, judging, DAYS, PORTFOLIO.target)
    assert again.sha256 == successor.sha256
    assert {name: file(again, name) for name in DECIDING} == {
        name: file(successor, name) for name in DECIDING
    }


def test_a_recalibration_can_be_recalibrated_and_is_still_the_first_one_s_graph(
    bundle: Bundle, successor: Bundle, tmp_path: Path
) -> None:
    rows, judged = drawn(bundle, 4_000, 35), drawn(bundle, 1_000, 36)
    back = recalibrate(tmp_path, successor, rows, judged, DAYS, PORTFOLIO.target)
    facts = back.manifest.training.recalibration
    assert facts is not None
    assert facts.parent_sha256 == successor.sha256
    assert facts.intercept == pytest.approx(-math.log(2), abs=0.2)
    assert differences_beyond_calibration(back, bundle) == []
    assert differences_beyond_calibration(back, successor) == []


def test_a_right_calibration_stays_to_the_bit(
    bundle: Bundle, tmp_path: Path, raw: FloatMatrix
) -> None:
    made = recalibrate(
        tmp_path, bundle, drawn(bundle, 3_000, 37), drawn(bundle, 1_000, 38), DAYS, PORTFOLIO.target
    )
    assert made.manifest.training.recalibration is not None
    assert made.manifest.training.recalibration.update == "none"
    assert (made.manifest.calibration, made.manifest.rule) == (
        bundle.manifest.calibration,
        bundle.manifest.rule,
    )
    assert file(made, GRAPH) == file(bundle, GRAPH)
    assert np.array_equal(
        made.score(raw).default_probability, bundle.score(raw).default_probability
    )


def test_a_scorecard_is_recalibrated_like_trees(
    learning_set: LearningSet, raw: FloatMatrix, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    learned = learning_set.fit, learning_set.held_out
    scorecard = make_bundle(
        tmp_path / "old",
        PORTFOLIO,
        *learned,
        "history",
        [],
        cross_fit_candidates(PORTFOLIO, learning_set.fit, (SCORECARD,)),
    )
    rows, judged = (drawn(scorecard, size, seed, -0.8) for size, seed in ((4_000, 39), (1_000, 40)))
    made = recalibrate(tmp_path / "new", scorecard, rows, judged, DAYS, PORTFOLIO.target)
    assert made.manifest.training.family == "scorecard"
    old, new = (one.score(raw) for one in (scorecard, made))
    assert same_order(old, new)
    assert np.array_equal(old.prediction, new.prediction)
    assert new.default_probability.mean() < old.default_probability.mean() - 0.03


def changed_copy(bundle: Bundle, folder: Path, **changed: bytes) -> Bundle:
    """A copy of a bundle with other graphs, loaded without the proof that would refuse it."""
    for name in (*DECIDING, REFERENCE, CLASSIFIER, INSPECTION, HELD_OUT):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(changed.get(Path(name).stem, file(bundle, name)))
    return load_bundle(str(folder))


def test_a_graph_that_holds_another_calibration_than_its_manifest_is_refused(
    bundle: Bundle, judging: TrainingRows, tmp_path: Path
) -> None:
    text = bundle.manifest.model_copy(
        update={"calibration": Calibration(slope=1.0, intercept=0.0)}
    ).model_dump_json()
    odd = changed_copy(bundle, tmp_path / "old", manifest=text.encode())
    with pytest.raises(
        TrainingError,
        match=r"model\.onnx has slope=.* valid: slope=1\.0 intercept=0\.0, which its manifest states",
    ):
        recalibrate(
            tmp_path / "new", odd, drawn(bundle, 3_000, 41, 0.7), judging, DAYS, PORTFOLIO.target
        )


def test_a_manifest_from_before_still_loads(bundle: Bundle) -> None:
    fields = bundle.manifest.model_dump()
    del fields["training"]["recalibration"]
    assert Manifest.model_validate(fields) == bundle.manifest


def test_outcomes_that_run_against_the_ranking_are_an_error(
    bundle: Bundle, judging: TrainingRows, tmp_path: Path
) -> None:
    with pytest.raises(
        TrainingError, match=r"gives slope -0\.\d+ and intercept .*; valid: a slope above 0.*refit"
    ):
        recalibrate(
            tmp_path, bundle, drawn(bundle, 3_000, 42, -1.0, -0.8), judging, DAYS, PORTFOLIO.target
        )


def test_too_few_rows_or_one_class_are_an_error(
    bundle: Bundle, judging: TrainingRows, tmp_path: Path
) -> None:
    few = drawn(bundle, 100, 43)
    with pytest.raises(
        TrainingError, match=r"\d+ bads in 100 rows to recalibrate on; valid: at least 50 bads"
    ):
        recalibrate(tmp_path, bundle, few, judging, DAYS, PORTFOLIO.target)
    good = dataclasses.replace(judging, target=np.zeros(len(judging.target), np.int64))
    with pytest.raises(TrainingError, match="held-out rows of one class"):
        recalibrate(tmp_path, bundle, drawn(bundle, 3_000, 44), good, DAYS, PORTFOLIO.target)


def test_what_is_more_than_a_recalibration_is_named(
    bundle: Bundle, successor: Bundle, tmp_path: Path
) -> None:
    assert differences_beyond_calibration(successor, bundle) == []
    rule = successor.manifest.rule.model_copy(
        update={"reference": [*successor.manifest.rule.reference[:-1], 17.0]}
    )
    manifest = successor.manifest.model_copy(
        update={"rule": rule, "features": bundle.manifest.features[::-1]}
    )
    odd = dataclasses.replace(successor, manifest=manifest)
    found = "; ".join(differences_beyond_calibration(odd, bundle))
    assert "manifest differs from the champion's in more than rule, calibration" in found
    assert "another reference profile" in found
    old_line = dataclasses.replace(successor, manifest=bundle.manifest)
    assert "model.onnx has slope" in differences_beyond_calibration(old_line, bundle)[0]
    made = written_twin(bundle, tmp_path)
    assert (
        f"{GRAPH} differs from the champion's in more than slope and intercept"
        in differences_beyond_calibration(made, bundle)
    )


def written_twin(bundle: Bundle, folder: Path) -> Bundle:
    """The same bundle with one byte of its graph's documentation changed, which changes no answer."""
    model = onnx.load_from_string(file(bundle, GRAPH))
    model.doc_string = "another"
    return changed_copy(bundle, folder, model=bytes(model.SerializeToString(deterministic=True)))


def lines(rows: int, seed: int, shift: float, slope: float) -> tuple[FloatArray, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-1.3, 1.2, rows)
    return log_odds, (rng.random(rows) < expit(shift + slope * log_odds)).astype(np.int64)


@pytest.mark.parametrize(
    ("shift", "slope", "kind"),
    [(0.0, 1.0, "none"), (0.7, 1.0, "intercept"), (0.3, 0.5, "intercept and slope")],
)
def test_the_least_update_that_is_enough_is_chosen(shift: float, slope: float, kind: str) -> None:
    found = least_update(*lines(6_000, 1, shift, slope))
    assert found.kind == kind
    assert found.intercept == pytest.approx(shift, abs=0.1)
    assert found.slope == pytest.approx(slope, abs=0.08)
    assert kind != "none" or (found.intercept, found.slope) == (0.0, 1.0)


def test_a_right_calibration_is_changed_as_seldom_as_the_level_says() -> None:
    """A closed testing procedure keeps its level over both tests; 400 samples, 5 %."""
    changed = sum(least_update(*lines(600, seed, 0.0, 1.0)).kind != "none" for seed in range(400))
    assert stats.binomtest(changed, 400, 0.05).pvalue > 0.01


def test_the_slope_is_that_of_cox() -> None:
    log_odds, target = lines(3_000, 2, 0.3, 0.5)
    slope = calibration_slope(target, expit(log_odds))
    assert slope is not None
    assert least_update(log_odds, target).slope == pytest.approx(slope.value, rel=1e-9)


@pytest.mark.parametrize(
    ("log_odds", "target"),
    [
        ([0.1, 0.2, 0.3], [1, 1, 1]),
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]),
        ([0.1] * 4, [0, 1, 0, 1]),
        ([], []),
    ],
)
def test_rows_that_no_line_fits_best_are_an_error(log_odds: list[float], target: list[int]) -> None:
    with pytest.raises(
        ValueError, match=r"no line fits best: .*valid: bads and goods whose log-odds overlap"
    ):
        least_update(np.array(log_odds), np.array(target, dtype=np.int64))


def matured(days: dict[str, range]) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    customers = simulate(1_000, 50)
    batches = {
        day: customers.iloc[list(places)].drop(columns=PORTFOLIO.target)
        for day, places in days.items()
    }
    outcomes = {
        day: customers.iloc[list(places)][[PORTFOLIO.identifier, PORTFOLIO.target]].assign(
            version=1
        )
        for day, places in days.items()
    }
    return batches, outcomes


def test_the_evidence_is_matured_customers_since_the_day_each_once_and_held_out_ones_judge(
    bundle: Bundle,
) -> None:
    days = {"2026-03-01": range(300), "2026-03-02": range(200, 500), "2026-03-03": range(400, 700)}
    batches, outcomes = matured(days)
    batches["2026-03-04"] = batches["2026-03-03"]  # nothing has matured
    found = recalibration_set(bundle, batches, outcomes, PORTFOLIO, "2026-03-02", 10_000)
    assert found.production_days == ["2026-03-02", "2026-03-03"]
    wanted = with_features(simulate(1_000, 50).iloc[200:700], PORTFOLIO)
    for rows, out in ((found.fit, False), (found.held_out, True)):
        mine = wanted[wanted[HELD_OUT_COLUMN] == out]
        assert len(rows.target) == len(mine)
        assert rows.target.sum() == mine[PORTFOLIO.target].sum()
        assert set(map(bytes, rows.raw)) == set(map(bytes, bundle.raw(mine)))
        assert (rows.weight == 1).all()
    assert (
        found.held_out_origin
        == f"{len(found.held_out.target)} held-out matured rows of 2026-03-02 to 2026-03-03"
    )


def test_of_more_rows_than_the_limit_a_recalibration_draws_samples(bundle: Bundle) -> None:
    days = {"2026-03-01": range(600), "2026-03-02": range(500, 1_000)}
    found = recalibration_set(bundle, *matured(days), PORTFOLIO, "2026-03-01", 100)
    assert (len(found.fit.target), len(found.held_out.target)) == (100, 100)
    whole = recalibration_set(bundle, *matured(days), PORTFOLIO, "2026-03-01", 1_000)
    for drawn, rows in ((found.fit, whole.fit), (found.held_out, whole.held_out)):
        assert set(map(bytes, drawn.raw)) < set(map(bytes, rows.raw))


def test_a_day_after_everything_that_has_matured_is_an_error_that_names_the_latest(
    bundle: Bundle,
) -> None:
    batches, outcomes = matured({"2026-03-01": range(100)})
    with pytest.raises(
        TrainingError,
        match="no outcome of a customer of 2026-03-02 or later has arrived; valid: a day up to 2026-03-01",
    ):
        recalibration_set(bundle, batches, outcomes, PORTFOLIO, "2026-03-02", 10_000)
    with pytest.raises(TrainingError, match="valid: none yet, wait for outcomes"):
        recalibration_set(bundle, batches, {}, PORTFOLIO, "2026-03-01", 10_000)
