"""The picture people look at: an Evidently report of some days against the champion's training
population.

The distributions are drawn from a bounded, seeded sample. The figure and the verdict of each column
are not: they are those of all rows, by our own measure, made when the rows were counted. So picture
and checks cannot tell different stories, and no statistic of the reference is computed again.
"""

import html
import io
import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

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
class Shown:
    """One column of the report: PSI of all rows, the line above which it is an alarm, and whether
    it is one.
    """

    column: str
    value: float
    threshold: float
    drifted: bool


@dataclass(frozen=True)
class EvidentlyReport:
    """The report as a page and as JSON text, how many of its columns drifted, and which columns it
    leaves out, for Evidently cannot draw one without a value.
    """

    html: str
    json: str
    drifted_columns: int
    left_out: tuple[str, ...]


def shown_columns(table: pd.DataFrame) -> list[Shown]:
    """What the lines of a drift table say, in their order."""
    lines = table[["column", "pooled_value", "threshold", "drifted"]].to_dict("records")
    return [
        Shown(one["column"], one["pooled_value"], one["threshold"], one["drifted"]) for one in lines
    ]


def evidently_report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    columns: Sequence[Shown],
    categorical: Iterable[str] = (),
) -> EvidentlyReport:
    """Report on a sample of both sides, which Evidently draws whole.

    Args:
        reference: rows of the champion's training population.
        current: rows of the days.
        columns: what is shown, and its verdict.
        categorical: those of them whose values are codes; the others are numbers. Never left to
            Evidently, which calls a number of few values a category, and takes another test where
            there are more rows.

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
    register_stattest(DECILE_PSI, _known(columns))
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
    return EvidentlyReport(
        html=_with_note(snapshot.get_html_str(as_iframe=False), left_out),
        json=json.dumps({**document, "left_out": left_out}, indent=1, default=str),
        drifted_columns=int(document["metrics"][0]["value"]["count"]),
        left_out=left_out,
    )


def _with_note(page: str, left_out: Sequence[str]) -> str:
    """The page, which says which columns are not on it."""
    if not left_out:
        return page
    note = (
        f"Not drawn, for there is no value on one of the two sides: {', '.join(left_out)}. The "
        "checks have measured them."
    )
    start = page.index(">", page.index("<body")) + 1
    return f"{page[:start]}<p>{html.escape(note)}</p>{page[start:]}"


def report_on_rows(
    files: Sequence[StoredPath], bundle: Bundle, columns: Sequence[Shown], rows: int
) -> EvidentlyReport:
    """Report on days as they are stored, against the rows of training that their bundle keeps.

    Args:
        files: the stored `production_scores` of the days.
        bundle: the model that scored them.
        columns: what is shown, and its verdict.
        rows: at most so many of each side are drawn.
    """
    inputs = bundle.manifest.inputs
    days = sampled_rows(files, [SCORE, *bundle.input_names], rows)
    current = drawn(bundle.raw(days), inputs).assign(
        **{SCORE: days[SCORE].to_numpy(dtype=np.float64)}
    )
    kept = pd.read_parquet(io.BytesIO(bundle.document(REFERENCE)))
    kept = kept if len(kept) <= rows else kept.sample(rows, random_state=SAMPLE_SEED)
    reference = drawn(kept[bundle.input_names].to_numpy(dtype=np.float32), inputs).assign(
        **{SCORE: kept[SCORE].to_numpy()}
    )
    return evidently_report(
        reference, current, columns, [field.name for field in inputs if field.codes is not None]
    )


def sampled_rows(files: Sequence[StoredPath], columns: Sequence[str], rows: int) -> pd.DataFrame:
    """A seeded sample of the rows of some Parquet files, each row as likely as any; no file is in
    memory whole.

    Args:
        files: the files.
        columns: what is wanted of them.
        rows: at most so many.
    """
    sizes = [_read(path, lambda file: file.metadata.num_rows) for path in files]
    total = sum(sizes)
    chosen = np.sort(
        np.random.default_rng(SAMPLE_SEED).choice(total, min(rows, total), replace=False)
    )
    parts = []
    start = 0
    for path, size in zip(files, sizes, strict=True):
        places = chosen[(chosen >= start) & (chosen < start + size)] - start
        parts.append(_read(path, lambda file, places=places: _taken(file, list(columns), places)))  # type: ignore[misc]
        start += size
    frame: pd.DataFrame = pa.concat_tables(parts).to_pandas()
    return frame


def drawn(raw: np.ndarray, inputs: Sequence[InputField]) -> pd.DataFrame:
    """Rows as people read them: numbers, and codes as text.

    Args:
        raw: rows x inputs, as the decision graph takes them.
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


def _known(
    columns: Sequence[Shown],
) -> Callable[[pd.Series, pd.Series, ColumnType, float], tuple[float, bool]]:
    """A test that says of a column what is known of it."""
    verdicts = {one.column: (one.value, one.drifted) for one in columns}
    return lambda _reference, current, _type, _threshold: verdicts[str(current.name)]


def _read(path: StoredPath, wanted: Callable[[pq.ParquetFile], Any]) -> Any:
    with path.open("rb") as file:
        return wanted(pq.ParquetFile(file, pre_buffer=False))


def _taken(file: pq.ParquetFile, columns: list[str], places: np.ndarray) -> pa.Table:
    parts, start = [], 0
    for batch in file.iter_batches(BATCH_ROWS, columns=columns):
        mine = places[(places >= start) & (places < start + len(batch))] - start
        if len(mine):
            parts.append(batch.take(pa.array(mine)))
        start += len(batch)
    schema = pa.schema([file.schema_arrow.field(name) for name in columns])
    return pa.Table.from_batches(parts, schema)
