"""Metadata for the Dagster UI: figures, pictures, tables, typed records, and descriptions of
sensors.
"""

import base64
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import BaseModel

from creditrisk_assets.monitoring.day_records import KEY
from creditrisk_assets.number_format import format_with_limit

OWNERS = ["team:credit-risk"]

FIGURES = "figures"
"""Metadata key of all figures with all their digits."""


def sensor(**settings: Any) -> Callable[[Callable[..., Any]], dg.SensorDefinition]:
    """A sensor of Dagster that runs from the beginning, and whose docstring is its description in
    the UI; Dagster's own decorator leaves it out.

    Args:
        settings: of `dg.sensor`.
    """

    def decorate(function: Callable[..., Any]) -> dg.SensorDefinition:
        return dg.sensor(
            description=inspect.getdoc(function),
            default_status=dg.DefaultSensorStatus.RUNNING,
            **settings,
        )(function)

    return decorate


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """A PNG as inline Markdown."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def record(values: BaseModel) -> dict[str, dg.JsonMetadataValue]:
    """A typed record of the day, which `event_log` reads."""
    return {KEY: dg.MetadataValue.json(values.model_dump(mode="json"))}


def table(
    frame: pd.DataFrame, rows: int = 20, compared: tuple[str, str] | None = None
) -> dg.MarkdownMetadataValue:
    """The first rows of a frame as a table.

    Args:
        frame: the rows.
        rows: limit on the rows.
        compared: columns of a figure and its limit, shown with enough digits to differ.
    """
    if compared is not None:
        shown = [_format_apart(*values) for values in frame[list(compared)].itertuples(index=False)]
        frame = frame.assign(
            **{name: [row[place] for row in shown] for place, name in enumerate(compared)}
        )
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
    lines += [
        "| " + " | ".join(_cell(value) for value in row) + " |"
        for row in frame.head(rows).itertuples(index=False)
    ]
    if len(frame) > rows:
        lines.append(f"\n{len(frame) - rows:,} more rows")
    return dg.MetadataValue.md("\n".join(lines))


def figures(values: Mapping[str, Any]) -> dict[str, dg.JsonMetadataValue]:
    """All figures with all their digits, under one key behind the few that a person reads first.
    Undefined values are left out.
    """
    return {FIGURES: dg.MetadataValue.json(_defined(values))}


def rounded(value: float | None, digits: int = 4) -> float | str:
    """A figure for people; `none` if it is not defined."""
    return "none" if value is None or math.isnan(value) else round(float(value), digits)


def percent(share: float | None) -> float | str:
    """A share in percent, for a label that ends with `%`; `none` if it is not defined."""
    return "none" if share is None or math.isnan(share) else round(100 * float(share), 2)


def _defined(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _defined(value) if isinstance(value, Mapping) else _plain(name, value)
        for name, value in values.items()
        if not (isinstance(value, float) and math.isnan(value))
    }


def _plain(name: str, value: Any) -> Any:
    """Counts as integers."""
    return int(value) if name in ("rows", "bads") else value


def _format_apart(figure: Any, limit: Any) -> tuple[Any, Any]:
    """A figure and its limit, formatted with enough digits to differ; unchanged if either is not a
    number.
    """
    if (
        isinstance(figure, float)
        and isinstance(limit, float)
        and not (math.isnan(figure) or math.isnan(limit))
    ):
        return format_with_limit(figure, limit, ".4f")
    return figure, limit


def _cell(value: object) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
