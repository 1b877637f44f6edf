"""The choice of the model: one rule on cross-fitted scores of the training rows, and nothing else is looked at."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import ndonnx
import numpy as np
import pytest
from numpy.typing import NDArray

from creditrisk_assets.modelling.boosting import SEED, BoostedTrees
from creditrisk_assets.modelling.bundling import make_bundle
from creditrisk_assets.modelling.scorecard import Scorecard
from creditrisk_assets.modelling.selection import (
    CANDIDATES,
    FOLDS,
    Candidate,
    Model,
    Selection,
    cross_fit,
    select,
)
from creditrisk_assets.modelling.training import TrainingRows, fit
from creditrisk_assets.portfolio.contract import Portfolio
from tests.support.examples import FloatMatrix, logistic, plain_portfolio

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PORTFOLIO = plain_portfolio(4)


@dataclass(frozen=True)
class Line:
    """A fixed score: the first column, and `noise` times the second. It learns nothing, and so nothing wrong."""

    noise: float
    parameters: dict[str, float | int] = field(default_factory=dict)

    def log_odds(self, features: FloatMatrix) -> FloatArray:
        return (
            features[:, 0].astype(np.float64) / 250
            - 2
            + self.noise * (features[:, 1].astype(np.float64) / 250 - 2)
        )

    def in_graph(self, features: ndonnx.Array) -> ndonnx.Array:
        column = ndonnx.astype(features, ndonnx.float64) / 250.0 - 2.0
        return column[:, 0] + self.noise * column[:, 1]

    def skops_object(self) -> object:
        return self.noise


def line(noise: float, seen: list[FloatMatrix] | None = None) -> Candidate:
    def fitted(
        portfolio: Portfolio, matrix: FloatMatrix, target: IntArray, weight: IntArray, seed: int
    ) -> Model:
        if seen is not None:
            seen.append(matrix)
        return Line(noise)

    return Candidate(f"line {noise}", fitted)


def rows(
    count: int, seed: int, truth: Callable[[FloatMatrix], FloatArray] = Line(0.0).log_odds
) -> TrainingRows:
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 1_001, (count, 4)).astype(np.float32)
    target = (rng.random(count) < logistic(truth(raw))).astype(np.int64)
    return TrainingRows(raw, raw, target, np.ones(count, dtype=np.int64))


def selected(candidates: tuple[Candidate, ...], some: TrainingRows) -> Selection:
    fits = [
        cross_fit(one, PORTFOLIO, some.features, some.target, some.weight, SEED)
        for one in candidates
    ]
    return select(fits, some.weight)


def test_the_better_candidate_is_taken_wherever_it_stands() -> None:
    some = rows(2_000, 1)
    for candidates in ((line(0.0), line(1.0)), (line(1.0), line(0.0))):
        assert selected(candidates, some).chosen.candidate.name == "line 0.0"


def test_of_two_that_the_rows_cannot_tell_apart_the_first_is_taken_though_it_did_worse() -> None:
    """Otherwise a flexible model would be served for a gain that is noise."""
    some = rows(2_000, 1)
    names, figures = [], []
    for candidates in ((line(0.0), line(0.02)), (line(0.02), line(0.0))):
        selection = selected(candidates, some)
        names.append(selection.chosen.candidate.name)
        figures.append(selection.figures)
    assert names == ["line 0.0", "line 0.02"]
    assert figures[0]["line 0.0"] == figures[1]["line 0.0"]
    worse = max(figures[0].values(), key=lambda one: one["log_loss"])
    assert 0 < worse["excess"] <= worse["standard_error"]


def test_the_figures_are_those_of_the_cross_fitted_scores() -> None:
    some = rows(1_000, 2)
    selection = selected((line(0.0), line(1.0)), some)
    chosen = selection.chosen
    assert selection.figures["line 0.0"] == {
        "log_loss": pytest.approx(chosen.row_losses.mean()),
        "excess": 0.0,
        "standard_error": 0.0,
    }
    other = selection.figures["line 1.0"]
    assert other["excess"] == pytest.approx(other["log_loss"] - chosen.row_losses.mean())
    assert np.array_equal(chosen.raw_log_odds, Line(0.0).log_odds(some.features))


def test_weights_count_as_repeated_rows_in_the_figures() -> None:
    some = rows(800, 3)
    doubled = replace(some, weight=np.where(some.features[:, 0] > 500, 3, 1))
    selection = selected((line(0.0),), doubled)
    losses = np.repeat(selection.chosen.row_losses, doubled.weight)
    assert selection.figures["line 0.0"]["log_loss"] == pytest.approx(losses.mean())


def test_no_row_is_scored_by_a_model_that_was_fitted_on_it() -> None:
    """A model that knows its rows by heart would otherwise win every choice and be calibrated by what it remembers."""
    some = rows(900, 4)
    numbered = np.arange(900, dtype=np.float32)[:, None] + np.zeros((1, 4), dtype=np.float32)

    @dataclass(frozen=True)
    class Rote(Line):
        known: frozenset[float] = frozenset()

        def log_odds(self, features: FloatMatrix) -> FloatArray:
            return np.array(
                [5.0 if float(value) in self.known else -0.1 for value in features[:, 0]]
            )

    def fitted(
        portfolio: Portfolio, matrix: FloatMatrix, target: IntArray, weight: IntArray, seed: int
    ) -> Model:
        assert len(matrix) == len(target) == len(weight) == 900 * (FOLDS - 1) / FOLDS
        return Rote(0.0, known=frozenset(matrix[:, 0].tolist()))

    selection = selected((Candidate("rote", fitted),), replace(some, features=numbered))
    assert set(selection.chosen.raw_log_odds.tolist()) == {-0.1}


def test_selection_calibration_and_cut_off_see_no_held_out_row() -> None:
    """With other held-out rows the same model must come out, down to the cut-off."""
    some = rows(900, 5)
    seen: list[FloatMatrix] = []
    fitted = fit(PORTFOLIO, some, (line(0.0, seen), line(1.0, seen)))
    training = {row.tobytes() for row in some.features}
    assert {row.tobytes() for matrix in seen for row in matrix} == training
    assert [len(matrix) for matrix in seen] == [600] * 6 + [
        900
    ]  # two candidates on three folds, then the chosen one on all
    assert fitted.selection.chosen.candidate.name == "line 0.0"


def test_held_out_rows_change_figures_of_the_bundle_but_not_the_model(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    some = rows(600, 6)
    one, other = (
        make_bundle(
            tmp_path_factory.mktemp("bundle"), PORTFOLIO, some, rows(300, seed), "history", []
        )
        for seed in (7, 8)
    )
    assert one.manifest.metrics != other.manifest.metrics
    assert one.manifest.model_dump(exclude={"metrics"}) == other.manifest.model_dump(
        exclude={"metrics"}
    )
    assert np.array_equal(
        one.score(some.raw).default_probability, other.score(some.raw).default_probability
    )


def test_a_scorecard_is_chosen_where_effects_add_up_and_trees_where_they_do_not() -> None:
    def additive(raw: FloatMatrix) -> FloatArray:
        return raw[:, 0].astype(np.float64) / 200 - raw[:, 1].astype(np.float64) / 200

    def crossed(raw: FloatMatrix) -> FloatArray:
        return np.where((raw[:, 0] > 500) == (raw[:, 1] > 500), 2.0, -2.0)

    chosen = [fit(PORTFOLIO, rows(1_200, 9, truth)).model for truth in (additive, crossed)]
    assert [type(one) for one in chosen] == [Scorecard, BoostedTrees]


def test_the_candidates_stand_from_the_simplest_to_the_most_flexible() -> None:
    names = [one.name for one in CANDIDATES]
    assert names[0] == "scorecard"
    assert len(set(names)) == len(names)


def test_the_manifest_says_what_was_chosen_and_what_was_rejected(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    some = rows(600, 10)
    training = make_bundle(
        tmp_path_factory.mktemp("bundle"), PORTFOLIO, some, rows(300, 11), "history", []
    ).manifest.training
    assert set(training.candidates) == {one.name for one in CANDIDATES}
    assert training.family in training.candidates
    chosen = training.candidates[training.family]
    assert chosen["excess"] <= chosen["standard_error"]
    assert min(one["excess"] for one in training.candidates.values()) == 0
