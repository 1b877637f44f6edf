"""Metadata for the Dagster UI: figures, pictures, tables and typed records."""

import base64
import math
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import BaseModel

from creditrisk_assets.monitoring.day_records import KEY
from creditrisk_assets.number_format import format_with_limit

OWNERS = ["team:credit-risk"]


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


def figures(values: Mapping[str, float], prefix: str = "") -> dict[str, float | int]:
    """Numbers as metadata: counts as integers, without undefined values."""
    return {
        f"{prefix}{name}": int(value) if name in ("rows", "bads") else value
        for name, value in values.items()
        if not math.isnan(value)
    }


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
