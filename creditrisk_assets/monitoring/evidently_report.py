"""Evidently reports of days against the champion's training population.

The distributions are drawn from a bounded, seeded sample. Figure and verdict of each column come
from the drift table, over all rows, so that report and checks agree and no statistic of the
reference is computed again.
"""

import html
import io
import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from evidently import DataDefinition, Dataset, Report
from evidently.legacy.calculations.stattests import StatTest, register_stattest
from evidently.legacy.core import ColumnType
from evidently.presets import DataDriftPreset

from creditrisk_assets.portfolio.encoding import record_of
from creditrisk_assets.scoring.bundle import REFERENCE, Bundle, InputField
from creditrisk_assets.scoring.reference_profile import SCORE
from creditrisk_assets.storage import StoredPath

SAMPLE_SEED = 20051001
BATCH_ROWS = 65_536

DECILE_PSI = StatTest(
    name="psi_reference_deciles",
    display_name="PSI on the reference's deciles, all rows",
    allowed_feature_types=[ColumnType.Numerical, ColumnType.Categorical],
    default_threshold=0.1,
)


@dataclass(frozen=True)
class ReportColumn:
    """A column of the report: PSI over all rows, alarm threshold and verdict."""

    column: str
    value: float
    threshold: float
    drifted: bool


@dataclass(frozen=True)
class EvidentlyReport:
    """The report as a page and as JSON, the number of drifted columns, and the columns left out
    because Evidently cannot draw one without values.
    """

    html: str
    json: str
    drifted_columns: int
    left_out: tuple[str, ...]


def report_columns(table: pd.DataFrame) -> list[ReportColumn]:
    """The columns of a drift table, in its order."""
    shown = table[["column", "pooled_value", "threshold", "drifted"]]
    return [ReportColumn(*line) for line in shown.itertuples(index=False)]


def evidently_report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    columns: Sequence[ReportColumn],
    categorical: Iterable[str] = (),
) -> EvidentlyReport:
    """Make the report of a sample of both sides.

    Args:
        reference: rows of the champion's training population.
        current: rows of the days.
        columns: of the report, with their verdicts.
        categorical: columns whose values are codes; the others are numbers. Evidently's own guess
            calls a number of few values a category.

    Raises:
        ValueError: if no column has values on both sides.
    """
    codes = set(categorical)
    names = [
        one.column
        for one in columns
        if all(side[one.column].notna().any() for side in (reference, current))
    ]
    left_out = tuple(one.column for one in columns if one.column not in names)
    if not names:
        raise ValueError(
            f"no column has values on both sides: {', '.join(left_out)}; valid: at least one"
        )
    verdicts = {one.column: (one.value, one.drifted) for one in columns}
    register_stattest(
        DECILE_PSI, lambda _reference, current, _type, _threshold: verdicts[str(current.name)]
    )
    definition = DataDefinition(
        numerical_columns=[name for name in names if name not in codes],
        categorical_columns=[name for name in names if name in codes],
    )
    preset = DataDriftPreset(
        columns=names,
        method=DECILE_PSI.name,
        per_column_threshold={one.column: one.threshold for one in columns if one.column in names},
        drift_share=1 / len(names),
    )
    sides = [
        Dataset.from_pandas(
            frame[names]
            .astype(dict.fromkeys(set(names) - codes, "float64"))
            .reset_index(drop=True),
            definition,
        )
        for frame in (current, reference)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # its own statistics of a column with a single value
        snapshot = Report([preset], include_tests=True).run(*sides)
    document = snapshot.dict()
    page = snapshot.get_html_str(as_iframe=False)
    if left_out:
        start = page.index(">", page.index("<body")) + 1
        note = (
            f"Not drawn because one side has no value: {', '.join(left_out)}. The checks cover "
            "these columns."
        )
        page = f"{page[:start]}<p>{html.escape(note)}</p>{page[start:]}"
    return EvidentlyReport(
        html=page,
        json=json.dumps({**document, "left_out": left_out}, indent=1, default=str),
        drifted_columns=int(document["metrics"][0]["value"]["count"]),
        left_out=left_out,
    )


def report_on_rows(
    files: Sequence[StoredPath], bundle: Bundle, columns: Sequence[ReportColumn], rows: int
) -> EvidentlyReport:
    """Make the report of stored days against the training rows in their bundle.

    Args:
        files: the stored `production_scores` of the days.
        bundle: the model that scored them.
        columns: of the report, with their verdicts.
        rows: size limit of each side's sample.
    """
    inputs = bundle.manifest.inputs
    days = sampled_rows(files, [SCORE, *bundle.input_names], rows)
    current = readable_rows(bundle.raw(days), inputs).assign(
        **{SCORE: days[SCORE].to_numpy(dtype=np.float64)}
    )
    training = pd.read_parquet(io.BytesIO(bundle.document(REFERENCE)))
    training = (
        training if len(training) <= rows else training.sample(rows, random_state=SAMPLE_SEED)
    )
    reference = readable_rows(
        training[bundle.input_names].to_numpy(dtype=np.float32), inputs
    ).assign(**{SCORE: training[SCORE].to_numpy()})
    return evidently_report(
        reference, current, columns, [field.name for field in inputs if field.codes is not None]
    )


def sampled_rows(files: Sequence[StoredPath], columns: Sequence[str], rows: int) -> pd.DataFrame:
    """Draw a seeded uniform sample of the rows of Parquet files, without loading a whole file.

    Args:
        files: the files.
        columns: to read.
        rows: size limit of the sample.
    """
    sizes = []
    for path in files:
        with path.open("rb") as file:
            sizes.append(pq.read_metadata(file).num_rows)
    total = sum(sizes)
    chosen = np.sort(
        np.random.default_rng(SAMPLE_SEED).choice(total, min(rows, total), replace=False)
    )
    parts, start = [], 0
    for path in files:
        with path.open("rb") as file:
            stored = pq.ParquetFile(file, pre_buffer=False)
            for batch in stored.iter_batches(BATCH_ROWS, columns=list(columns)):
                end = start + len(batch)
                places = chosen[(chosen >= start) & (chosen < end)] - start
                parts.append(batch.take(pa.array(places)))
                start = end
    schema = pa.schema([stored.schema_arrow.field(name) for name in columns])
    frame: pd.DataFrame = pa.Table.from_batches(parts, schema).to_pandas()
    return frame


def readable_rows(raw: np.ndarray, inputs: Sequence[InputField]) -> pd.DataFrame:
    """Raw rows as a frame for people: numbers, and codes as text.

    Args:
        raw: rows x inputs of the decision graph.
        inputs: the columns.
    """
    frame = pd.DataFrame(raw, columns=[field.name for field in inputs])
    for field in inputs:
        if field.codes is not None:
            texts = {
                number: str(record_of([number], [field])[field.name])
                for number in np.unique(frame[field.name]).tolist()
            }
            frame[field.name] = [
                texts.get(number, "missing") for number in frame[field.name].tolist()
            ]
    return frame
