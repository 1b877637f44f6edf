"""The picture people look at: an Evidently report of one day against the champion's training population.

Evidently is given our own stability measure and its alarm lines, so the picture and the checks cannot tell different stories.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.legacy.calculations.stattests import StatTest, register_stattest
from evidently.legacy.core import ColumnType
from evidently.presets import DataDriftPreset

from creditrisk_assets.monitoring.population_stability import Stability, population_stability

SAMPLE_SEED = 20051001

DECILE_PSI = StatTest(
    name="psi_reference_deciles",
    display_name="PSI on the reference's deciles",
    allowed_feature_types=[ColumnType.Numerical],
    default_threshold=0.1,
)


@dataclass(frozen=True)
class EvidentlyReport:
    """The report as a page and as JSON text."""

    html: str
    json: str
    drifted_columns: int


def evidently_report(
    reference: pd.DataFrame, current: pd.DataFrame, stability: Sequence[Stability], rows: int
) -> EvidentlyReport:
    """Report on a bounded, seeded sample of both sides.

    Args:
        reference: the champion's reference rows.
        current: the day's rows.
        stability: the columns to show, with the line of each.
        rows: most rows of each side.
    """
    register_stattest(DECILE_PSI, _decile_psi)
    columns = [one.column for one in stability]
    definition = DataDefinition(numerical_columns=columns)
    preset = DataDriftPreset(
        columns=columns,
        method=DECILE_PSI.name,
        per_column_threshold={one.column: one.threshold for one in stability},
        drift_share=1 / len(columns),
    )
    snapshot = Report([preset], include_tests=True).run(
        Dataset.from_pandas(_sample(current[columns], rows), definition),
        Dataset.from_pandas(_sample(reference[columns], rows), definition),
    )
    document = snapshot.dict()
    return EvidentlyReport(
        html=snapshot.get_html_str(as_iframe=False),
        json=json.dumps(document, indent=1, default=str),
        drifted_columns=int(document["metrics"][0]["value"]["count"]),
    )


def _decile_psi(reference_data: pd.Series, current_data: pd.Series, _: ColumnType, threshold: float) -> tuple[float, bool]:
    value = population_stability(
        str(current_data.name),
        reference_data.to_numpy(dtype=np.float64),
        current_data.to_numpy(dtype=np.float64),
        alpha=0.5,
        floor=0.0,
    ).value
    return value, value > threshold


def _sample(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    sampled = frame if len(frame) <= rows else frame.sample(rows, random_state=SAMPLE_SEED)
    return sampled.astype("float64").reset_index(drop=True)
