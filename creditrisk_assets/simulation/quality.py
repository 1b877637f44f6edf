"""Quality of the simulator: performance on real customers of a model trained on simulated ones.

Two sets of parameters are judged. The refitted ones use the real training rows and are judged on
held-out rows, which gives an unbiased figure; the committed ones were fitted to all rows of the UCI
data.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditrisk_assets.modelling.datasets import HELD_OUT_COLUMN, training_rows, with_features
from creditrisk_assets.modelling.metrics import auc_gain, ranking_and_calibration
from creditrisk_assets.modelling.training import TrainingRows, fit, predict
from creditrisk_assets.monitoring.population_stability import population_stability
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.simulation.card_customers import simulate_by
from creditrisk_assets.simulation.fit import fit_parameters
from creditrisk_assets.simulation.parameters import Parameters, committed_parameters

LOWEST_AUC = 0.765
"""On real test rows, of a model trained on simulated customers; one trained on real customers
reaches about 0.785.
"""

HIGHEST_CSI = 0.05
"""Of each field, on the real field's deciles: half of the rule of thumb for a small shift."""

HIGHEST_CORRELATION_DIFFERENCE = 0.05
"""Mean absolute difference of the correlations of all pairs of fields and target."""


@dataclass(frozen=True)
class SimulatorQuality:
    """Similarity of simulated and real customers for a set of parameters.

    Attributes:
        parameters: name of the set.
        reference: name of the real rows for CSI and correlations.
        auc: of a model trained on simulated customers, on the real test rows.
        auc_loss: difference to a model trained on the real training rows, on the same test rows.
        auc_loss_standard_error: of that difference, by DeLong.
        csi: for each field, against the reference.
        correlation_difference: mean absolute difference of the correlations of all pairs of fields
            and target.
        bad_rate: of the simulated customers.
    """

    parameters: str
    reference: str
    auc: float
    auc_loss: float
    auc_loss_standard_error: float
    csi: dict[str, float]
    correlation_difference: float
    bad_rate: float

    @property
    def worst_field(self) -> str:
        """The field with the highest CSI."""
        return max(self.csi, key=self.csi.__getitem__)

    @property
    def reached(self) -> bool:
        """Whether AUC, every CSI and the correlations are within their limits."""
        return (
            self.auc >= LOWEST_AUC
            and self.csi[self.worst_field] < HIGHEST_CSI
            and self.correlation_difference < HIGHEST_CORRELATION_DIFFERENCE
        )


@dataclass(frozen=True)
class QualityReport:
    """Quality of both sets of parameters, with the figures for comparison.

    Attributes:
        training_rows: real rows that are not held out.
        test_rows: real rows that are held out by the hash of their identifier.
        simulated_rows: customers simulated for each set of parameters.
        seed: of the simulation.
        auc_trained_on_real: of a model trained on the real training rows, on the real test rows.
        bad_rate: of the real customers.
        refitted: parameters fitted to the real training rows.
        committed: parameters that come with the package.
    """

    training_rows: int
    test_rows: int
    simulated_rows: int
    seed: int
    auc_trained_on_real: float
    bad_rate: float
    refitted: SimulatorQuality
    committed: SimulatorQuality


def simulator_quality(
    customers: pd.DataFrame,
    portfolio: Portfolio,
    rows: int,
    seed: int,
    on_progress: Callable[[], None] = lambda: None,
) -> QualityReport:
    """Judge the simulator on real customers.

    Args:
        customers: real ones in the columns of the UCI card portfolio: identifier, fields, target.
        portfolio: with the recipe of the models.
        rows: number of simulated customers.
        seed: of the simulation.
        on_progress: called after each of three models.

    Raises:
        ValueError: if there are too few real customers to fit the parameters.
        TrainingError: if there are too few to train a model.
    """
    frame = with_features(customers, portfolio)
    held_out = frame[HELD_OUT_COLUMN].to_numpy(dtype=np.bool_)
    test = training_rows(frame[held_out], portfolio, 1)
    by_real = predict(fit(portfolio, training_rows(frame[~held_out], portfolio, 1)), test.features)
    on_progress()
    refitted = fit_parameters(customers[~held_out], data="real training rows", sha256="")

    def quality(
        parameters: Parameters, name: str, reference: pd.DataFrame, reference_name: str
    ) -> SimulatorQuality:
        simulated = simulate_by(parameters, rows, seed)
        by_simulated = _fit_and_predict(simulated, portfolio, test)
        on_progress()
        gain, standard_error = auc_gain(test.target, by_simulated, by_real)
        return SimulatorQuality(
            parameters=name,
            reference=reference_name,
            auc=ranking_and_calibration(test.target, by_simulated)["roc_auc"],
            auc_loss=-gain,
            auc_loss_standard_error=standard_error,
            csi=csi_of_fields(reference, simulated, portfolio),
            correlation_difference=correlation_difference(reference, simulated, portfolio),
            bad_rate=float(simulated[portfolio.target].mean()),
        )

    return QualityReport(
        training_rows=int((~held_out).sum()),
        test_rows=int(held_out.sum()),
        simulated_rows=rows,
        seed=seed,
        auc_trained_on_real=ranking_and_calibration(test.target, by_real)["roc_auc"],
        bad_rate=float(customers[portfolio.target].mean()),
        refitted=quality(
            refitted, "refitted to the training rows", customers[held_out], "test rows"
        ),
        committed=quality(committed_parameters(), "committed", customers, "all rows"),
    )


def csi_of_fields(
    reference: pd.DataFrame, simulated: pd.DataFrame, portfolio: Portfolio
) -> dict[str, float]:
    """CSI of each field of simulated customers against real ones, on the real deciles."""
    return {
        name: population_stability(
            name,
            reference[name].to_numpy(dtype=np.float64),
            simulated[name].to_numpy(dtype=np.float64),
            alpha=0.05,
            floor=HIGHEST_CSI,
        ).value
        for name in portfolio.field_names
    }


def correlation_difference(
    reference: pd.DataFrame, simulated: pd.DataFrame, portfolio: Portfolio
) -> float:
    """Mean absolute difference of Pearson's correlation over all pairs of fields and target."""
    columns = [*portfolio.field_names, portfolio.target]
    difference = np.abs(_correlations(reference[columns]) - _correlations(simulated[columns]))
    return float(difference[np.triu_indices(len(columns), k=1)].mean())


def _correlations(frame: pd.DataFrame) -> NDArray[np.float64]:
    return np.asarray(np.corrcoef(frame.to_numpy(dtype=np.float64), rowvar=False))


def _fit_and_predict(
    simulated: pd.DataFrame, portfolio: Portfolio, test: TrainingRows
) -> NDArray[np.float64]:
    """PDs of the test rows from a model trained on all simulated customers."""
    rows = training_rows(with_features(simulated, portfolio), portfolio, 1)
    return predict(fit(portfolio, rows), test.features)
