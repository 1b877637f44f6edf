"""Evidently reports of days against the champion's training population.

The distributions are drawn from a bounded, seeded sample. Figure and verdict of each column come
from the drift table, over all rows, so that report and checks agree and no statistic of the
reference is computed again.
"""

import dataclasses
import html
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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

from creditrisk_assets.portfolio.contract import Field
from creditrisk_assets.portfolio.encoding import record_of
from creditrisk_assets.scoring.bundle import REFERENCE, Bundle, InputField
from creditrisk_assets.scoring.reference_profile import SCORE
from creditrisk_assets.storage import StoredPath

SAMPLE_SEED = 20051001
BATCH_ROWS = 65_536

CENTRE = (0.05, 0.95)
"""Quantiles of the part of an amount that is drawn if its tails are long."""
LONG_TAILS = 2.0
"""Tails are long if the whole range is more than this multiple of the centre. Amounts of money have
a largest value ten times their 95 % quantile; on such an axis every row is in the first bar.
"""

SCORE_LABEL = "score, points"

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
class Heading:
    """The words above a report, and those on it.

    Attributes:
        title: what is compared, of which portfolio, day and version.
        links: addresses by their name, the way back first.
        labels: names for people by column; other columns have their own name.
    """

    title: str
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


UNTITLED = Heading("Drift report")


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


def field_labels(fields: Iterable[Field]) -> dict[str, str]:
    """Names of the report's columns for people: what the portfolio says of each field."""
    labels = {
        one.name: f"{one.description}, {one.unit}" if one.unit else one.description
        for one in fields
    }
    count = Counter(labels.values())
    unique = {
        name: label if count[label] == 1 else f"{label} ({name})" for name, label in labels.items()
    }
    return {SCORE: SCORE_LABEL, **unique}


def evidently_report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    columns: Sequence[ReportColumn],
    categorical: Iterable[str] = (),
    heading: Heading = UNTITLED,
) -> EvidentlyReport:
    """Make the report of a sample of both sides. Numbers with long tails are drawn between two
    quantiles, and their label says so.

    Args:
        reference: rows of the champion's training population.
        current: rows of the days.
        columns: of the report, with their verdicts.
        categorical: columns whose values are codes; the others are numbers. Evidently's own guess
            calls a number of few values a category.
        heading: title, links and labels of the page; the JSON has the columns' names.

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
    shown, sides = _for_people(names, codes, heading.labels, current, reference)
    drawn = [one for one in columns if one.column in shown]
    verdicts = {shown[one.column]: (one.value, one.drifted) for one in drawn}
    register_stattest(
        DECILE_PSI, lambda _reference, current, _type, _threshold: verdicts[str(current.name)]
    )
    definition = DataDefinition(
        numerical_columns=[shown[name] for name in names if name not in codes],
        categorical_columns=[shown[name] for name in names if name in codes],
    )
    preset = DataDriftPreset(
        columns=[*shown.values()],
        method=DECILE_PSI.name,
        per_column_threshold={shown[one.column]: one.threshold for one in drawn},
        drift_share=1 / len(names),
    )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # its own statistics of a column with a single value
        snapshot = Report([preset], include_tests=True).run(
            *(Dataset.from_pandas(side, definition) for side in sides)
        )
    document = _renamed(snapshot.dict(), {label: name for name, label in shown.items()})
    note = (
        f"Not drawn because one side has no value: {', '.join(left_out)}. The checks cover "
        "these columns."
        if left_out
        else ""
    )
    return EvidentlyReport(
        html=_with_heading(snapshot.get_html_str(as_iframe=False), heading, note),
        json=json.dumps({**document, "left_out": left_out}, indent=1, default=str),
        drifted_columns=int(document["metrics"][0]["value"]["count"]),
        left_out=left_out,
    )


def _for_people(
    names: Sequence[str], codes: set[str], labels: Mapping[str, str], *sides: pd.DataFrame
) -> tuple[dict[str, str], list[pd.DataFrame]]:
    """Label of each column, and the sides with their columns so named and drawn."""
    shown, drawn = {}, [pd.DataFrame(index=range(len(side))) for side in sides]
    for name in names:
        values = [side[name].reset_index(drop=True) for side in sides]
        shown[name] = labels.get(name, name)
        if name not in codes:
            values = [one.astype("float64") for one in values]
            limits = _axis(values)
            if limits is not None:
                values = [one.clip(*limits) for one in values]
                low, high = (
                    f"{limit:,.0f}" if abs(limit) >= 10 else f"{limit:.3g}" for limit in limits
                )
                shown[name] += f" [drawn from {low} to {high}, values beyond at the edges]"
        for side, one in zip(drawn, values, strict=True):
            side[shown[name]] = one
    return shown, drawn


def _axis(sides: Sequence[pd.Series]) -> tuple[float, float] | None:
    """The centre of both sides, if their tails are long."""
    quantiles = np.array([side.dropna().quantile(CENTRE).to_numpy() for side in sides])
    low, high = float(quantiles[:, 0].min()), float(quantiles[:, 1].max())
    whole = max(float(side.max()) for side in sides) - min(float(side.min()) for side in sides)
    return (low, high) if high > low and whole > LONG_TAILS * (high - low) else None


def _renamed(document: Any, names: Mapping[str, str]) -> Any:
    """A JSON document with some texts replaced, also within longer texts and as keys."""
    longest_first = sorted(names, key=len, reverse=True)
    pattern = re.compile("|".join(re.escape(text) for text in longest_first))

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {renamed(key): renamed(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [renamed(one) for one in value]
        if isinstance(value, str):
            return pattern.sub(lambda found: names[found[0]], value)
        return value

    return renamed(document)


def _with_heading(page: str, heading: Heading, note: str) -> str:
    """Evidently's page with a title, links and a note above it."""
    title = html.escape(heading.title)
    links = " · ".join(
        f'<a href="{html.escape(address)}">{html.escape(name)}</a>'
        for name, address in heading.links.items()
    )
    above = (
        f'<header style="font-family: sans-serif; padding: 1rem 1.5rem 0">'
        f'<p>{links}</p><h1 style="font-size: 1.4rem">{title}</h1>'
        f"{f'<p>{html.escape(note)}</p>' if note else ''}</header>"
    )
    head, body = page.index("<head>") + len("<head>"), page.index(">", page.index("<body")) + 1
    return f"{page[:head]}<title>{title}</title>{page[head:body]}{above}{page[body:]}"


def report_on_rows(
    files: Sequence[StoredPath],
    bundle: Bundle,
    columns: Sequence[ReportColumn],
    rows: int,
    heading: Heading,
) -> EvidentlyReport:
    """Make the report of stored days against the training rows in their bundle.

    Args:
        files: the stored `production_scores` of the days.
        bundle: the model that scored them.
        columns: of the report, with their verdicts.
        rows: size limit of each side's sample.
        heading: title, links and labels of the page.
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
    categorical = [one.name for one in inputs if one.codes is not None]
    return evidently_report(reference, current, columns, categorical, heading)


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
