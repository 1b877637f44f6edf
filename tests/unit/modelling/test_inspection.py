"""Inspection of a trained model: importance, directions, plots."""

import io

import numpy as np
import pytest
from PIL import Image

from creditrisk_assets.modelling.datasets import LearningSet
from creditrisk_assets.modelling.inspection import PROFILE_POINTS, Inspection, inspect
from creditrisk_assets.modelling.plots import training_plots
from creditrisk_assets.modelling.training import TrainingRows, fit
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import INSPECTION, Bundle
from tests.support.examples import TINY, logistic


@pytest.fixture(scope="module")
def inspection(bundle: Bundle) -> Inspection:
    return Inspection.model_validate_json(bundle.document(INSPECTION))


def test_a_feature_that_decides_matters_and_one_that_is_noise_does_not() -> None:
    rng = np.random.default_rng(1)

    def drawn(rows: int) -> TrainingRows:
        raw = np.column_stack([rng.integers(0, 1_001, rows), rng.integers(1, 3, rows)]).astype(
            np.float32
        )
        target = (rng.random(rows) < logistic(raw[:, 0].astype(np.float64) / 200 - 2.5)).astype(
            np.int64
        )
        return TrainingRows(raw, raw, target, np.ones(rows, dtype=np.int64))

    fitted, judged = fit(TINY, drawn(600)), drawn(600)
    inspection = inspect(TINY, fitted, judged, 1)
    assert inspection == inspect(TINY, fitted, judged, 1)
    assert inspection.importance["amount_again"] > 0.1
    assert abs(inspection.importance["code_again"]) < 0.02
    assert list(inspection.profiles) == ["amount_again"]
    assert np.ptp(inspection.profiles["amount_again"].mean_pd) > 0.5


def test_a_feature_without_any_known_value_has_no_profile() -> None:
    rng = np.random.default_rng(2)
    raw = np.column_stack([np.full(400, np.nan), rng.integers(1, 3, 400)]).astype(np.float32)
    target = (rng.random(400) < np.where(raw[:, 1] > 1, 0.8, 0.2)).astype(np.int64)
    rows = TrainingRows(raw, raw, target, np.ones(400, dtype=np.int64))
    assert inspect(TINY, fit(TINY, rows), rows, 1).profiles == {}


def test_every_profile_goes_the_way_that_the_portfolio_claims(inspection: Inspection) -> None:
    assert set(inspection.profiles) == {
        feature.name for feature in PORTFOLIO.features if feature.monotone
    }
    for name, profile in inspection.profiles.items():
        assert 1 <= len(profile.values) == len(profile.mean_pd) <= PROFILE_POINTS
        assert profile.values == sorted(profile.values), name
        assert (profile.direction * np.diff(profile.mean_pd) >= -1e-12).all(), name
    assert any(np.ptp(profile.mean_pd) > 0.02 for profile in inspection.profiles.values())


def test_the_pictures_of_a_training_can_be_looked_at(
    inspection: Inspection, bundle: Bundle, learning_set: LearningSet
) -> None:
    scores = bundle.score(learning_set.held_out.raw)
    plots = training_plots(
        inspection, learning_set.held_out.target, scores.default_probability, scores.score
    )
    assert sorted(plots) == ["importance", "ks", "monotone_profiles", "score_distribution"]
    for name, png in plots.items():
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
        assert (pixels < 200).mean() > 0.005, f"{name} is blank"
